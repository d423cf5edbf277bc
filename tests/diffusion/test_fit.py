"""Training a generator: what it writes, what it has heard, and going on after an interruption."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.sounds import tone, write_wav
from usk.data.decode import decode_source
from usk.data.sources import Source, open_source
from usk.data.splits import held_out_groups
from usk.diffusion.ddim import ddim_decode, ddim_encode
from usk.diffusion.fit import FitConfig, FitProgress, fit, images_of
from usk.diffusion.load import as_audiodiffusion, load_generator
from usk.errors import UsageError
from usk.mel.spectrogram import MelSettings, audio_to_image, stack_padded

MEL = MelSettings(sample_rate_hz=8_000, n_fft=256, hop_samples=128, n_mels=16, n_frames=32)
TINY = FitConfig(
    steps=6,
    batch=4,
    channels=(8, 16),
    checkpoint_every_s=0.0,
    validate_every=2,
    device="cpu",
    precision="fp32",
)
LATENT = replace(TINY, latent=True, latent_channels=2, steps=10)
each_kind = pytest.mark.parametrize("config", [TINY, LATENT], ids=["pixels", "latent"])


@pytest.fixture
def source(tmp_path: Path) -> Source:
    """Two classes of eight recordings with two half-second clips: enough for some to be held out."""
    for label, name in enumerate(("low", "high")):
        for recording in range(8):
            for cut in range(2):
                samples = tone(300 * (1 + 3 * label) + 40 * recording, 0.55 - 0.25 * cut, 8_000)
                write_wav(tmp_path / "clips" / name / f"r{recording}" / f"{cut}.wav", samples, 8_000)
    opened = open_source(tmp_path / "clips")
    return replace(
        opened,
        clips=tuple(replace(c, fold=1 + int(c.group[-1]) % 2) for c in opened.clips),
        license="CC0-1.0",
    )


class Killed(KeyboardInterrupt):
    pass


def weights(folder: Path) -> dict[str, torch.Tensor]:
    generator = load_generator(str(folder), device="cpu", precision="fp32")
    state = {f"unet.{name}": tensor for name, tensor in generator.unet.state_dict().items()}
    if generator.vae is not None:
        state |= {f"vae.{name}": tensor for name, tensor in generator.vae.state_dict().items()}
    return state


@each_kind
def test_the_result_is_a_whole_pipeline_folder(source: Source, tmp_path: Path, config: FitConfig) -> None:
    seen: list[FitProgress] = []
    result = fit([source], tmp_path / "out", config, mel=MEL, report=seen.append)
    generator = load_generator(str(result.folder), device="cpu", precision="fp32")
    assert generator.mel == MEL and generator.schedule.prediction_type == "v_prediction"
    assert generator.latent_shape == ((2, 4, 8) if config.latent else (1, 16, 32))
    assert (generator.schedule.clip_range is None) == config.latent
    images, _ = images_of(decode_source(source, 8_000), MEL)
    clean = generator.to_latent(torch.from_numpy(images[:3].astype(np.float32))[:, None])
    noisy = ddim_encode(generator.predict, clean, generator.schedule, 5, 0.5)
    back = generator.to_image(ddim_decode(generator.predict, noisy, generator.schedule, 5, 0.5))
    assert back.shape == (3, 1, 16, 32) and torch.isfinite(back).all()
    if config.latent:  # unit variance at audiodiffusion's fixed factor
        assert float(
            generator.to_latent(torch.from_numpy(images.astype(np.float32))[:, None]).std()
        ) == pytest.approx(1, abs=0.15)
    assert type(as_audiodiffusion(result.folder).unet).__name__ == "UNet2DModel"
    with Image.open(result.folder / "preview.png") as picture:
        assert picture.size == (2 * 4 * 32, 2 * 4 * 16)
    assert not list(result.folder.glob("*checkpoint*")) and not list(result.folder.rglob("*.part"))
    stages = [(progress.stage, progress.step) for progress in seen]
    expected = [("vae", s) for s in range(1, 5)] + [("unet", s) for s in range(1, 7)]
    assert stages == (expected if config.latent else expected[4:])
    assert all(a.done <= b.done for a, b in pairwise(seen)) and 0 <= seen[0].done < 1
    record = json.loads((result.folder / "training.json").read_text())
    assert [(row["stage"], row["step"]) for row in record["log"]] == [
        pair for pair in stages if pair[1] % 2 == 0
    ]
    assert record["log"] == result.log and all(np.isfinite(row["validation_loss"]) for row in result.log)


@pytest.mark.parametrize("folds", [(), (1,)], ids=["all folds", "fold 1"])
def test_what_it_was_trained_on_is_recorded_without_the_held_out(
    source: Source, tmp_path: Path, folds: tuple[int, ...]
) -> None:
    result = fit([source], tmp_path / "out", replace(TINY, steps=1), mel=MEL, folds=folds)
    generator = load_generator(str(result.folder), device="cpu")
    chosen = source.select(folds=folds or None)
    held = held_out_groups(source.clips) & {clip.group for clip in chosen.clips}
    assert held
    part = generator.trained_on[0]
    assert generator.seen_groups == {clip.group for clip in chosen.clips} - held
    assert set(part["held_out_groups"]) == held
    assert part["clips"] == sum(clip.group not in held for clip in chosen.clips)
    assert (part["source"], part["revision"], part["folds"]) == (
        "clips",
        source.revision,
        list(folds or (1, 2)),
    )
    assert generator.license == "CC0-1.0"


def test_held_out_recordings_do_not_move_the_weights(source: Source, tmp_path: Path) -> None:
    held = held_out_groups(source.clips)
    first = fit([source], tmp_path / "first", TINY, mel=MEL)
    for ref, clip in zip(source.audio, source.clips, strict=True):
        if clip.group in held:
            write_wav(Path(ref.name), tone(2_000, 0.55, 8_000), 8_000)
    second = fit([replace(source, cache_key="changed")], tmp_path / "second", TINY, mel=MEL)
    assert all(
        torch.equal(a, b)
        for a, b in zip(weights(first.folder).values(), weights(second.folder).values(), strict=True)
    )
    assert first.log != second.log  # they do move the validation loss


def test_the_seed_decides_the_weights(source: Source, tmp_path: Path) -> None:
    folders = [
        fit([source], tmp_path / name, replace(TINY, seed=seed), mel=MEL).folder
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    ]
    a, b, c = (weights(folder) for folder in folders)
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not all(torch.equal(a[name], c[name]) for name in a)


@pytest.mark.parametrize(
    ("config", "stage", "step"),
    [
        (TINY, "unet", 1),
        (TINY, "unet", 4),
        (LATENT, "vae", 2),
        (LATENT, "unet", 1),
        (LATENT, "unet", 5),
    ],
)
def test_a_killed_run_goes_on_and_ends_with_the_same_weights(
    source: Source, tmp_path: Path, config: FitConfig, stage: str, step: int
) -> None:
    undisturbed = fit([source], tmp_path / "undisturbed", config, mel=MEL)

    def kill(progress: FitProgress) -> None:
        if (progress.stage, progress.step) == (stage, step):
            raise Killed

    with pytest.raises(Killed):
        fit([source], tmp_path / "killed", config, mel=MEL, report=kill)
    assert not (tmp_path / "killed" / "model_index.json").exists()
    torch.manual_seed(12345)  # another process would not have this one's random state
    seen: list[FitProgress] = []
    resumed = fit([source], tmp_path / "killed", config, mel=MEL, report=seen.append)
    assert (seen[0].stage, seen[0].step) == (
        stage,
        step,
    )  # the step that was not saved is done again, none before
    expected, actual = weights(undisturbed.folder), weights(resumed.folder)
    assert expected.keys() == actual.keys()
    assert all(torch.equal(expected[name], actual[name]) for name in expected)
    assert [{**row, "elapsed_s": 0} for row in resumed.log] == [
        {**row, "elapsed_s": 0} for row in undisturbed.log
    ]


def test_the_folder_is_finished_only_when_its_groups_are_known(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_text = Path.write_text

    def die_at_the_index(path: Path, *args: object, **kwargs: object) -> int:
        if path.name == "model_index.json":
            raise Killed
        return write_text(path, *args, **kwargs)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", die_at_the_index)
        with pytest.raises(Killed):
            fit([source], tmp_path / "out", replace(TINY, steps=1), mel=MEL)
    assert (tmp_path / "out" / "trained_on.json").is_file()
    assert fit([source], tmp_path / "out", replace(TINY, steps=1), mel=MEL).trained_on["sources"]


@pytest.mark.parametrize(
    ("change", "mel"),
    [
        ({"seed": 1}, MEL),
        ({"channels": (8, 8)}, MEL),
        ({}, replace(MEL, hop_samples=120)),
    ],
    ids=["seed", "channels", "mel"],
)
def test_a_folder_begun_with_other_settings_is_refused(
    source: Source, tmp_path: Path, change: dict, mel: MelSettings
) -> None:
    def kill(progress: FitProgress) -> None:
        raise Killed

    with pytest.raises(Killed):
        fit([source], tmp_path / "out", TINY, mel=MEL, report=kill)
    with pytest.raises(
        UsageError, match="holds a generator fitted with other settings or clips; choose a new folder"
    ):
        fit([source], tmp_path / "out", replace(TINY, **change), mel=mel)


def test_a_folder_begun_with_other_clips_is_refused(source: Source, tmp_path: Path) -> None:
    def kill(progress: FitProgress) -> None:
        raise Killed

    with pytest.raises(Killed):
        fit([source], tmp_path / "out", TINY, mel=MEL, report=kill)
    with pytest.raises(UsageError, match="fitted with other settings or clips"):
        fit([source], tmp_path / "out", TINY, mel=MEL, folds=(1,))


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (
            lambda out: (out.mkdir(), (out / "thesis.txt").write_text("x")),
            "holds something else; choose a new or empty",
        ),
        (
            lambda out: (out.mkdir(), (out / "fit.json").write_text("{")),
            "fitted with other settings or clips",
        ),
        (lambda out: out.write_text("x"), "cannot be written"),
    ],
)
def test_a_folder_of_something_else_is_refused_and_left_alone(
    source: Source, tmp_path: Path, prepare, message: str
) -> None:
    prepare(tmp_path / "out")
    before = sorted(tmp_path.glob("out/*"))
    with pytest.raises(UsageError, match=message) as raised:
        fit([source], tmp_path / "out", TINY, mel=MEL)
    assert "\n" not in str(raised.value) and sorted(tmp_path.glob("out/*")) == before


def test_a_finished_generator_is_not_trained_over(source: Source, tmp_path: Path) -> None:
    result = fit([source], tmp_path / "out", replace(TINY, steps=1), mel=MEL)
    before = weights(result.folder)
    with pytest.raises(UsageError, match="holds a finished generator; choose a new folder"):
        fit([source], tmp_path / "out", replace(TINY, steps=1), mel=MEL)
    assert all(torch.equal(before[name], tensor) for name, tensor in weights(result.folder).items())


def test_images_that_cannot_be_halved_are_a_usage_error(source: Source, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="images of 16 x 31 cannot be halved 1 times"):
        fit([source], tmp_path / "out", TINY, mel=replace(MEL, n_frames=31))


def test_images_are_the_clips_beginnings_and_short_ones_are_known(source: Source) -> None:
    decoded = decode_source(source, 8_000)
    images, full = images_of(decoded, MEL)
    expected, _ = audio_to_image(stack_padded([decoded.audio(5)], MEL.image_samples), MEL)
    np.testing.assert_allclose(images[5], expected[0, 0].numpy(), atol=1e-3)
    assert full.tolist() == [clip.duration_s > 0.5 for clip in decoded.source.clips]


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
def test_training_lowers_the_validation_loss(source: Source, tmp_path: Path, prediction_type: str) -> None:
    config = replace(
        TINY,
        steps=60,
        prediction_type=prediction_type,
        learning_rate=3e-3,
        validate_every=20,
        ema_decay=0.9,
        checkpoint_every_s=60.0,
    )
    log = fit([source], tmp_path / "out", config, mel=MEL).log
    assert log[-1]["validation_loss"] < 0.8 * log[0]["validation_loss"]
