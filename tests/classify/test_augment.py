"""Augmentations are reproducible, keep the shape, and have the documented effect."""

from __future__ import annotations

import pytest
import torch

from usk.classify.augment import (
    AUGMENTATIONS,
    PRESETS,
    Augmented,
    augment_batch,
    augment_name,
    augmentations_named,
)
from usk.errors import UsageError

ALL = augmentations_named("strong")


def draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_none_changes_and_draws_nothing() -> None:
    batch, generator = torch.randn(3, 16, 20), draw()
    assert augment_batch(batch, augmentations_named("none"), generator).batch is batch
    assert torch.equal(generator.get_state(), draw().get_state())


@pytest.mark.parametrize("name", [*AUGMENTATIONS, "mixup", "basic", "strong"])
def test_the_same_generator_gives_the_same_batch_and_leaves_the_old_one_alone(name: str) -> None:
    names = augmentations_named(name)
    batch = torch.randn(6, 16, 20)
    before = batch.clone()
    first = augment_batch(batch, names, draw(1)).batch
    n_frames = 10 if "crop" in names else 20
    assert first.shape == (6, 16, n_frames) and first.isfinite().all()
    assert torch.equal(batch, before)
    assert torch.equal(first, augment_batch(batch, names, draw(1)).batch)
    assert not torch.equal(first, augment_batch(batch, names, draw(2)).batch)
    assert not torch.equal(first, batch)


def test_a_clip_is_shifted_in_time_within_6_db_and_masked_in_places() -> None:
    torch.manual_seed(0)
    batch = torch.randn(200, 32, 40)
    made = augment_batch(batch, ("shift", "gain", "mask"), draw()).batch
    for before, after in zip(batch, made, strict=True):
        best = (torch.inf, 0, torch.zeros(1))
        for shift in range(40):
            rest = after - before.roll(shift, dims=1)
            gain_db = rest.flatten().median()
            best = min(
                best,
                (float(((rest - gain_db).abs() > 1e-4).float().mean()), shift, gain_db),
                key=lambda b: b[0],
            )
        masked, _, gain_db = best
        assert abs(gain_db) <= 6
        assert masked <= 1 / 8 + 1 / 5


def test_a_filter_bends_at_two_to_five_bands_within_6_db_and_is_the_same_at_all_times() -> None:
    batch = torch.randn(400, 64, 6)
    curves_db = AUGMENTATIONS["filter"](batch, draw()) - batch
    torch.testing.assert_close(curves_db, curves_db[:, :, :1].expand_as(curves_db), atol=1e-5, rtol=0)
    curves_db = curves_db.mean(dim=2)
    assert curves_db.abs().max() <= 6.001 and curves_db.abs().amax(dim=0).min() > 3  # every band, up to 6 dB
    bends = (curves_db.diff(n=2, dim=1).abs() > 1e-3).sum(dim=1)
    # A bend is a knot. Adjacent or repeated knots look like one.
    assert bends.max() == 5 and (bends >= 2).float().mean() > 0.9
    at_top = curves_db.diff(n=2, dim=1)[:, -1].abs() > 1e-3
    assert at_top.float().mean() < 0.15, "the highest band ends the line of those below it"
    assert abs(curves_db.mean()) < 0.3


def test_a_crop_is_half_of_the_clip_from_anywhere_in_it() -> None:
    batch = torch.arange(21).float().expand(200, 4, 21)
    made = AUGMENTATIONS["crop"](batch, draw())
    assert made.shape == (200, 4, 11)
    begins = made[:, 0, 0]
    assert torch.equal(made, begins[:, None, None] + torch.arange(11).float().expand(200, 4, 11))
    assert set(begins.tolist()) == set(range(11))


def test_stretching_moves_a_tone_burst_and_keeps_its_bands() -> None:
    batch = torch.full((64, 8, 100), -60.0)
    batch[:, 3, 40] = 0.0
    made = AUGMENTATIONS["stretch"](batch, draw())
    assert (made.amax(dim=2).argmax(dim=1) == 3).all()
    places = made[:, 3].argmax(dim=1)
    assert places.min() >= 40 / 1.25 - 1 and places.max() <= 40 * 1.25 + 1
    assert len(places.unique()) > 5


def test_pitch_moves_by_at_most_two_bands() -> None:
    batch = torch.zeros(64, 16, 10)
    batch[:, 8] = 1.0
    places = AUGMENTATIONS["pitch"](batch, draw())[:, :, 0].argmax(dim=1)
    assert set(places.tolist()) == {6, 7, 8, 9, 10}


def test_noise_raises_the_floor_and_not_the_clip() -> None:
    batch = torch.full((64, 16, 20), -80.0)
    batch[:, :8] = -20.0
    made = AUGMENTATIONS["noise"](batch, draw())
    assert (made >= batch - 1e-3).all()
    floor = made[:, 8:].mean(dim=(1, 2)) - (
        -23.0
    )  # relative to the mean power: half of the bins are at -20 dB
    assert floor.min() > -40 - 4 and floor.max() < -10
    assert floor.max() - floor.min() > 15
    assert (made[:, :8].mean(dim=(1, 2)) + 20).abs().max() < 1


def test_mixup_mixes_clips_and_their_losses_alike() -> None:
    batch = torch.randn(256, 4, 5)
    made = augment_batch(batch, ("mixup",), draw())
    assert made.partners is not None and made.shares is not None
    assert (made.shares >= 0).all() and (made.shares <= 0.5).all()
    assert sorted(made.partners.tolist()) == list(range(256))
    share = made.shares[:, None, None]
    torch.testing.assert_close(made.batch, (1 - share) * batch + share * batch[made.partners])
    # min(B, 1 - B) of Beta(0.2, 0.2): most are near nothing, the mean is about 0.13
    assert 0.08 < made.shares.mean() < 0.18
    labels = torch.arange(256).float()
    expected = ((1 - made.shares) * labels + made.shares * labels[made.partners]).mean()
    torch.testing.assert_close(made.loss(lambda of: of, labels), expected)
    torch.testing.assert_close(Augmented(batch).loss(lambda of: of, labels), labels.mean())
    weights = (torch.arange(len(labels)) == 2).float()
    torch.testing.assert_close(Augmented(batch).loss(lambda of: of, labels, weights), labels[2])
    of_two = made.loss(lambda of: (of == labels[2]).float(), labels, weights)
    torch.testing.assert_close(of_two, torch.tensor(1.0))


def test_padding_stays_what_and_where_it_is() -> None:
    batch = torch.randn(8, 16, 40, generator=torch.Generator().manual_seed(0))
    batch[..., 30:] = -5.0
    names = ("stretch", "pitch", "shift", "filter", "gain", "noise", "mask")
    made = augment_batch(batch, names, torch.Generator().manual_seed(1), sounding=30).batch
    assert (made[..., 30:] == -5.0).all()
    alone = augment_batch(batch[..., :30], names, torch.Generator().manual_seed(1)).batch
    assert torch.equal(made[..., :30], alone)


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ("basic", "basic"),
        ("none+none", "none"),
        ("none+shift+shift", "shift"),
        ("mask+shift", "mask+shift"),
        ("basic+gain", "basic"),
        ("gain+basic+mixup", "basic+mixup"),
        ("basic+strong", "strong"),
        ("shift+crop+filter+gain+mask", "basic"),
    ],
)
def test_what_is_said_twice_has_one_name(asked: str, name: str) -> None:
    assert augment_name(asked) == name
    assert augmentations_named(name) == augmentations_named(asked)


def test_names_join_and_keep_their_order() -> None:
    assert augmentations_named("basic") == ("shift", "crop", "filter", "gain", "mask")
    assert augmentations_named("mixup+mask+shift") == ("shift", "mask", "mixup")
    assert augmentations_named("basic+mixup") == ("shift", "crop", "filter", "gain", "mask", "mixup")
    assert PRESETS["strong"] == ALL


@pytest.mark.parametrize("name", ["more", "basic+more", "", "basic+"])
def test_an_unknown_augmentation_is_a_usage_error(name: str) -> None:
    with pytest.raises(UsageError, match=r"is not known\. Choose auto, none, basic, strong, stretch"):
        augmentations_named(name)
