"""Augmentation: reproducible, the same shape, and doing what it says."""

from __future__ import annotations

import pytest
import torch

from usk.classify.augment import augment_batch, check_augment
from usk.errors import UsageError


def draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_none_changes_and_draws_nothing() -> None:
    batch, generator = torch.randn(3, 16, 20), draw()
    assert augment_batch(batch, "none", generator) is batch
    assert torch.equal(generator.get_state(), draw().get_state())


def test_the_same_generator_gives_the_same_batch() -> None:
    batch = torch.randn(4, 16, 20)
    first = augment_batch(batch, "basic", draw(1))
    assert first.shape == batch.shape
    assert torch.equal(first, augment_batch(batch, "basic", draw(1)))
    assert not torch.equal(first, augment_batch(batch, "basic", draw(2)))


def test_the_batch_itself_stays_as_it_is() -> None:
    batch = torch.randn(4, 16, 20)
    before = batch.clone()
    augment_batch(batch, "basic", draw())
    assert torch.equal(batch, before)


def test_a_clip_is_shifted_in_time_within_6_db_and_masked_in_places() -> None:
    torch.manual_seed(0)
    batch = torch.randn(200, 32, 40)
    for before, after in zip(batch, augment_batch(batch, "basic", draw()), strict=True):
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


def test_an_unknown_augmentation_is_a_usage_error() -> None:
    assert check_augment("basic") == "basic"
    with pytest.raises(UsageError, match="--augment more is not known; choose auto, none or basic"):
        check_augment("more")
