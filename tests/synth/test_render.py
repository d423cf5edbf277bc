"""From plan to audio: level, length, end points, independence of the batch, and no parent encoded twice."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st

from usk.data.decode import DecodedSource, decode_source
from usk.data.sources import open_source
from usk.diffusion.load import Generator, load_generator
from usk.errors import UsageError
from usk.mel.spectrogram import audio_to_image, stack_padded
from usk.synth.plan import Plan, draw_plan
from usk.synth.render import PEAK_LIMIT, RenderConfig, Renderer, at_level, rms_db

RATE_HZ = 8_000


@pytest.fixture
def decoded(urbansound8k_folder: Path) -> DecodedSource:
    return decode_source(open_source(urbansound8k_folder), RATE_HZ)


@pytest.fixture
def generator(tiny_pipeline: Callable[..., Path]) -> Generator:
    return load_generator(str(tiny_pipeline()), "cpu", precision="fp32")


def plan_from(decoded: DecodedSource, per_class: int = 3, **options: Any) -> Plan:
    return draw_plan(decoded.source.clips, decoded.source.class_names, per_class, **options)


def renderer_of(
    decoded: DecodedSource, generator: Generator, work: Path, plan: Plan | None = None, **settings: Any
) -> Renderer:
    work.mkdir(parents=True, exist_ok=True)
    config = RenderConfig(**{"steps": 4, **settings})
    return Renderer(plan or plan_from(decoded), decoded, generator, config, work)


def samples_of(row: dict[str, Any]) -> np.ndarray:
    return soundfile.read(io.BytesIO(row["audio"]["bytes"]), dtype="float32")[0]


def images_of_parent(decoded: DecodedSource, generator: Generator, parent: str) -> torch.Tensor:
    """What the renderer encodes: short clips repeated."""
    n = generator.mel.image_samples
    samples = decoded.audio([clip.clip_id for clip in decoded.source.clips].index(parent))
    samples = np.resize(samples, n) if len(samples) < n else samples
    return audio_to_image(stack_padded([samples], n), generator.mel)[0][0]


@given(st.floats(1e-4, 1.0), st.floats(-90, -1), st.integers(1, 400))
def test_at_level_reaches_the_level_or_just_does_not_clip(peak: float, target_db: float, n: int) -> None:
    audio = peak * np.sin(np.arange(1, n + 1) * 0.7)
    scaled, gain_db = at_level(audio, target_db)
    assert scaled.dtype == np.float32
    assert np.abs(scaled).max() <= PEAK_LIMIT + 1e-6
    np.testing.assert_allclose(scaled, audio * 10 ** (gain_db / 20), rtol=1e-5)
    reached = abs(rms_db(scaled) - target_db) < 1e-3
    assert reached or (rms_db(scaled) < target_db and np.abs(scaled).max() == pytest.approx(PEAK_LIMIT))


def test_the_level_of_known_sounds() -> None:
    assert rms_db(np.ones(10)) == pytest.approx(0)
    assert rms_db(np.full(10, 0.1)) == pytest.approx(-20)
    assert rms_db(np.zeros(10)) == -200


def test_silence_is_not_amplified_to_nan() -> None:
    scaled, gain_db = at_level(np.zeros(10, np.float32), -20.0)
    assert not scaled.any()
    assert np.isfinite(gain_db)


def test_a_clip_is_as_long_as_its_parents_on_average_and_as_loud(
    decoded: DecodedSource, generator: Generator, tmp_path: Path
) -> None:
    plan = plan_from(decoded, per_class=4, alpha=(0.1, 0.9))
    rows = renderer_of(decoded, generator, tmp_path, plan).rows(0, len(plan))
    row_of = {clip.clip_id: row for row, clip in enumerate(decoded.source.clips)}
    longest = generator.mel.image_samples
    at_level_exactly = 0
    for row in rows:
        parents = [decoded.audio(row_of[parent]) for parent in row["parents"]]
        samples = samples_of(row)
        mean_length = int(np.mean([len(parent) for parent in parents]))
        assert len(samples) == min(mean_length, (generator.mel.n_frames - 1) * generator.mel.hop_samples)
        first_db, second_db = (rms_db(parent[:longest]) for parent in parents)
        target_db = (1 - row["alpha"]) * first_db + row["alpha"] * second_db
        if np.abs(samples).max() < PEAK_LIMIT - 0.001:
            assert rms_db(samples) == pytest.approx(target_db, abs=0.05)
            at_level_exactly += 1
        else:
            assert rms_db(samples) < target_db + 0.05
    assert at_level_exactly >= 3


def test_a_row_carries_its_whole_provenance(
    decoded: DecodedSource, generator: Generator, tmp_path: Path
) -> None:
    plan = plan_from(decoded, alpha=(0.2, 0.4))
    row = renderer_of(decoded, generator, tmp_path, plan, strategy="slerp").rows(2, 3)[0]
    planned = plan.clips[2]
    row.pop("audio")
    gain_db = row.pop("gain_db")
    assert np.isfinite(gain_db)
    assert row == {
        "clip_id": planned.clip_id, "label": planned.label, "group": planned.clip_id, "fold": planned.fold,
        "parents": list(planned.parents), "parent_groups": list(planned.parent_groups),
        "parent_folds": list(planned.parent_folds), "strategy": "slerp", "alpha": planned.alpha,
        "seed": planned.seed, "steps": 4, "model": generator.model_id, "judge_score": None,
    }  # fmt: skip


def test_midpoint_says_that_its_weight_is_a_half(
    decoded: DecodedSource, generator: Generator, tmp_path: Path
) -> None:
    plan = plan_from(decoded, alpha=(0.2, 0.2))
    assert renderer_of(decoded, generator, tmp_path, plan, strategy="midpoint").rows(0, 1)[0]["alpha"] == 0.5


class Noiseless:
    """A network that finds no noise: going up and down again is exact, and nothing but the mixing is left."""

    def __call__(self, noisy: torch.Tensor, timestep: int, return_dict: bool = True) -> tuple[torch.Tensor]:
        return (torch.zeros_like(noisy),)


@pytest.mark.parametrize("strategy", ["slerp", "decomposed"])
@pytest.mark.parametrize("alpha", [0.0, 1.0])
@pytest.mark.parametrize(("noiseless", "tolerance"), [(True, 1e-4), (False, 0.06)])
def test_a_weight_of_0_or_1_gives_a_parent_back(
    decoded: DecodedSource,
    generator: Generator,
    tmp_path: Path,
    strategy: str,
    alpha: float,
    noiseless: bool,
    tolerance: float,
) -> None:
    if noiseless:
        generator = replace(generator, unet=Noiseless())  # type: ignore[arg-type]
    plan = plan_from(decoded, per_class=2, alpha=(alpha, alpha))
    settings = {"steps": 40, "level": 0.2, "eta": 0.0, "strategy": strategy}
    images = renderer_of(decoded, generator, tmp_path, plan, **settings).images(plan.clips)
    for planned, image in zip(plan.clips, images, strict=True):
        own = images_of_parent(decoded, generator, planned.parents[int(alpha)])
        assert (image - own).abs().mean() < tolerance


@pytest.mark.parametrize("alpha", [0.25, 0.5])
def test_the_share_of_the_second_parent(
    decoded: DecodedSource, generator: Generator, tmp_path: Path, alpha: float
) -> None:
    plan = plan_from(decoded, per_class=2, alpha=(alpha, alpha))
    noiseless = replace(generator, unet=Noiseless())  # type: ignore[arg-type]
    settings = {"strategy": "decomposed", "eta": 0.0, "level": 0.4}
    images = renderer_of(decoded, noiseless, tmp_path, plan, **settings).images(plan.clips)
    for planned, image in zip(plan.clips, images, strict=True):
        first, second = (images_of_parent(decoded, generator, parent) for parent in planned.parents)
        torch.testing.assert_close(image, (1 - alpha) * first + alpha * second, rtol=0, atol=1e-3)


@pytest.mark.parametrize("vae", [False, True])
def test_a_clip_does_not_depend_on_the_size_of_its_batch(
    decoded: DecodedSource, tiny_pipeline: Callable[..., Path], tmp_path: Path, vae: bool
) -> None:
    generator = load_generator(str(tiny_pipeline(vae=vae)), "cpu", precision="fp32")
    plan = plan_from(decoded)
    whole = renderer_of(decoded, generator, tmp_path / "whole", plan, batch=9).images(plan.clips)
    single = renderer_of(decoded, generator, tmp_path / "single", plan, batch=1)
    alone = torch.cat([single.images([planned]) for planned in plan.clips])
    assert whole.shape == (9, 1, 16, 32)
    torch.testing.assert_close(alone, whole, rtol=0, atol=1e-3)


def test_the_same_slice_gives_the_same_bytes(
    decoded: DecodedSource, generator: Generator, tmp_path: Path
) -> None:
    first = renderer_of(decoded, generator, tmp_path / "a", batch=4).rows(4, 8)
    assert renderer_of(decoded, generator, tmp_path / "b", batch=4).rows(4, 8) == first
    assert (
        renderer_of(decoded, generator, tmp_path / "a", batch=4).rows(4, 8) == first
    )  # latents from the disk


class Counting:
    """A generator's network, with the size of every batch that it was asked for."""

    def __init__(self, generator: Generator) -> None:
        self.unet, self.batches = generator.unet, []

    def __call__(self, noisy: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        self.batches.append(len(noisy))
        return self.unet(noisy, *args, **kwargs)


def test_each_parent_is_encoded_once(decoded: DecodedSource, generator: Generator, tmp_path: Path) -> None:
    plan = plan_from(decoded, per_class=20)
    n_parents = len({parent for planned in plan.clips for parent in planned.parents})
    counting = Counting(generator)
    counted = replace(generator, unet=counting)  # type: ignore[arg-type]
    renderer = renderer_of(decoded, counted, tmp_path, plan, steps=2, refinements=1, batch=6)
    for begin in range(0, len(plan), 6):
        renderer.images(plan.clips[begin : begin + 6])
    assert len(plan) == 60
    up, down = 2 * (1 + 1) * n_parents, 2 * len(plan)
    assert sum(counting.batches) == up + down
    assert max(counting.batches) <= 6


def test_a_damaged_file_of_latents_is_made_again(
    decoded: DecodedSource, generator: Generator, tmp_path: Path
) -> None:
    first = renderer_of(decoded, generator, tmp_path).rows(0, 3)
    for file in tmp_path.glob("latents-*.npy"):
        file.write_bytes(file.read_bytes()[:100])
    assert renderer_of(decoded, generator, tmp_path).rows(0, 3) == first


def test_strategies_and_settings_give_different_clips(
    decoded: DecodedSource, generator: Generator, tmp_path: Path
) -> None:
    plan = plan_from(decoded, alpha=(0.3, 0.3))
    made = {
        name: renderer_of(decoded, generator, tmp_path / name, plan, **settings).images(plan.clips[:2])
        for name, settings in {
            "slerp": {"strategy": "slerp"},
            "midpoint": {"strategy": "midpoint"},
            "decomposed": {"strategy": "decomposed"},
            "level": {"level": 0.9},
            "eta": {"eta": 1.0},
            "silence": {"repeat_short": False},
        }.items()
    }
    names = list(made)
    for index, name in enumerate(names):
        for other in names[:index]:
            assert (made[name] - made[other]).abs().mean() > 1e-4, (name, other)


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("strategy", "best", "--strategy best is not known; choose one of slerp, midpoint, decomposed"),
        ("eta", 1.5, "--eta must lie between 0 and 1, not 1.5"),
        ("eta", float("nan"), "--eta must lie between 0 and 1, not nan"),
        ("level", 0.0, "--level must lie above 0 and up to 1, not 0.0"),
        ("level", 1.01, "--level must lie above 0 and up to 1, not 1.01"),
        ("steps", 0, "--steps must be at least 1, not 0"),
        ("refinements", -1, "--refinements must be 0 or more, not -1"),
        ("batch", 0, "--batch must be at least 1, not 0"),
    ],
)
def test_a_setting_out_of_range_is_a_usage_error(setting: str, value: Any, message: str) -> None:
    with pytest.raises(UsageError) as refusal:
        RenderConfig(**{setting: value})
    assert str(refusal.value) == message


def test_more_steps_than_the_schedule_has_is_a_usage_error(
    decoded: DecodedSource, generator: Generator, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"--steps 600 does not fit: at level 0\.5 there are 500 timesteps"):
        renderer_of(decoded, generator, tmp_path, steps=600)
