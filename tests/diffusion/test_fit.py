"""Training a generator: what it writes, what it was trained on, and going on after an interruption."""

from __future__ import annotations

import errno
import io
import json
import math
import os
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from tests.sounds import tone, write_wav
from usk.audio.mel import MelSettings, audio_to_image, stack_padded
from usk.data.cache import read_checked
from usk.data.decode import decode_source
from usk.data.open import open_source
from usk.data.source import Source, TrainingClips
from usk.data.splits import held_out_groups
from usk.diffusion import train as training
from usk.diffusion.card import write_generator_card
from usk.diffusion.fit import FitConfig, fit
from usk.diffusion.generator import Condition
from usk.diffusion.load import load_generator
from usk.diffusion.loop import CHECKPOINT_FILE, StopSignals
from usk.diffusion.mel_pipeline import as_audiodiffusion
from usk.diffusion.networks import new_networks
from usk.diffusion.pipeline import LEAST_CLASS_EFFECT
from usk.diffusion.sampler import SamplerConfig
from usk.diffusion.train import MelBatch, MelTrainer
from usk.diffusion.training_data import FitClips, FitSources, images_of
from usk.errors import UsageError, UskError
from usk.files import LOCK_FILE
from usk.replay import ReplayedStep
from usk.reporter import Reporter, Task

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
ONE_STEP = replace(TINY, steps=1)


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


def held_of(source: Source) -> frozenset[str]:
    """The recordings that only validate: chosen by their sound, so once it is decoded."""
    return held_out_groups(decode_source(source, 8_000).source.clips)


class Killed(KeyboardInterrupt):
    pass


class Watching(Reporter):
    """Keeps the steps that it is shown and their losses, and calls `after(step)` after each."""

    def __init__(self, after: Callable[[int], None] = lambda step: None) -> None:
        super().__init__()
        self.after, self.steps, self.losses = after, list[int](), list[float]()

    def task(self, label: str, unit: str = "", total: int = 0) -> Task:
        return Steps(self) if label == "training" else Task()


class Steps(Task):
    def __init__(self, watching: Watching) -> None:
        self.watching = watching

    def update(self, done: int, total: int | None = None, text: str | None = None) -> None:
        if text is None:  # before the first step
            return
        assert total is not None and 0 < done <= total
        self.watching.steps.append(done)
        self.watching.losses.append(float(text.split()[3]))
        self.watching.after(done)


def killed_at(killed: int) -> Watching:
    """A reporter that stands in for a kill after step `killed`, before its checkpoint."""

    def kill(step: int) -> None:
        if step == killed:
            raise Killed

    return Watching(kill)


def trainer_of(source: Source, config: FitConfig, class_names: tuple[str, ...] = ()) -> MelTrainer:
    """For all clips of `source`, before the first step."""
    images, frames = images_of(decode_source(source, 8_000), MEL)
    labels = np.array([clip.label for clip in source.clips])
    clips = FitClips(images, frames, labels, np.zeros(len(images), dtype=bool))
    cpu = torch.device("cpu")
    resolved = config.resolved()
    return MelTrainer(clips, new_networks(resolved, MEL, class_names, cpu), resolved, cpu, Reporter())


@pytest.mark.parametrize(("bf16_s", "faster"), [(1.0, "bf16"), (3.0, "fp32")])
def test_a_cpu_with_bf16_trains_in_what_is_faster_there(
    source: Source, monkeypatch: pytest.MonkeyPatch, bf16_s: float, faster: str
) -> None:
    """A step takes as long as said here: bf16 and float32 (2 s) take turns."""
    ticks = iter(np.cumsum([0.0, bf16_s, 0.0, 2.0] * 3).tolist())
    monkeypatch.setattr(training, "default_precision", lambda device, training: "bf16")
    monkeypatch.setattr(training, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    trainer = trainer_of(source, replace(ONE_STEP, precision="auto"), ("low", "high"))
    assert trainer.precision == faster
    assert all(parameter.grad is None for parameter in trainer.network.parameters())


def weights(folder: Path) -> dict[str, torch.Tensor]:
    generator = load_generator(str(folder), device="cpu", precision="fp32")
    return dict(generator.unet.state_dict())


def test_the_result_is_a_whole_pipeline_folder_that_is_not_trained_over(
    source: Source, tmp_path: Path
) -> None:
    watching, config = Watching(), replace(TINY, steps=7)
    result = fit([source], tmp_path / "out", config, mel=MEL, reporter=watching)
    generator = load_generator(str(result.folder), device="cpu", precision="fp32")
    assert generator.mel == MEL and generator.schedule.prediction_type == "v_prediction"
    assert generator.image_shape == (1, 16, 32) and generator.schedule.clip_range == 1
    images, _ = images_of(decode_source(source, 8_000), MEL)
    clean = generator.to_latent(torch.from_numpy(images[:3].astype(np.float32))[:, None])
    noisy = generator.invert(clean, SamplerConfig(5, 0.5))
    back = generator.to_image(generator.sample(noisy, SamplerConfig(5, 0.5)))
    assert back.shape == (3, 1, 16, 32) and torch.isfinite(back).all()
    assert type(as_audiodiffusion(result.folder).unet).__name__ == "UNet2DModel"
    index = json.loads((result.folder / "model_index.json").read_text())
    assert index["_class_name"] == "AudioDiffusionPipeline"
    assert index["scheduler"] == ["diffusers", "DDIMScheduler"]
    assert (result.folder / "preview.png").is_file()
    assert not list(result.folder.glob("*checkpoint*")) and not list(result.folder.rglob("*.part"))
    assert watching.steps == list(range(1, 8))
    record = json.loads((result.folder / "training.json").read_text())
    assert [row["step"] for row in record["log"]] == [2, 4, 6, 7], (
        "steps after the last validation are validated too"
    )
    assert record["log"] == result.log and all(np.isfinite(row["validation_loss"]) for row in result.log)
    assert "**This source names no recordings**" not in card_of(result.folder)
    with pytest.raises(UsageError, match="holds a finished generator"):
        fit([source], tmp_path / "out", config, mel=MEL)
    assert all(
        torch.equal(generator.unet.state_dict()[name], kept) for name, kept in weights(result.folder).items()
    )


def card_of(folder: Path) -> str:
    write_generator_card(folder)
    return (folder / "README.md").read_text("utf-8")


def test_clips_of_an_unknown_generator_are_noted(source: Source, tmp_path: Path) -> None:
    """So that what this generator makes is not taken for clean of what that one was trained on."""
    by = {"model": "someone/model@1", "filter_folds": (1,)}
    made = [
        replace(c, parents=(c.clip_id,), parent_groups=(c.group,), parent_folds=(c.fold,), **by)
        for c in source.clips
    ]
    reporter = Reporter()
    filters = {(1,): TrainingClips(frozenset({"filtered"})), (9,): TrainingClips(frozenset({"not used"}))}
    made_source = replace(source, clips=tuple(made), filters_trained_on=filters)
    result = fit([made_source], tmp_path / "out", ONE_STEP, mel=MEL, reporter=reporter)
    assert any("someone/model@1" in warning for warning in reporter.warnings)
    assert any("ended with step 1:" in warning for warning in reporter.warnings)
    generator = load_generator(str(result.folder), device="cpu")
    assert "does not say all" in generator.trained_on[0]["note"]
    assert generator.training_groups == {clip.group for clip in source.clips} | {"filtered"}


@pytest.mark.parametrize("test_folds", [(), (2,)], ids=["all folds", "fold 2 held out"])
def test_what_it_was_trained_on_is_recorded_without_the_held_out(
    source: Source, tmp_path: Path, test_folds: tuple[int, ...]
) -> None:
    reporter = Reporter()
    result = fit([source], tmp_path / "out", ONE_STEP, mel=MEL, test_folds=test_folds, reporter=reporter)
    generator = load_generator(str(result.folder), device="cpu")
    chosen = [clip for clip in source.clips if clip.fold not in test_folds]
    held = held_of(source) & {clip.group for clip in chosen}
    assert held
    part = generator.trained_on[0]
    assert generator.training_groups == {clip.group for clip in chosen} - held
    assert set(part["held_out_groups"]) == held
    assert part["clips"] == sum(clip.group not in held for clip in chosen)
    assert (part["source"], part["revision"]) == ("clips", source.revision)
    assert part["folds"] == [fold for fold in (1, 2) if fold not in test_folds]
    assert generator.license == "CC0-1.0"
    assert any("no test fold is left" in warning for warning in reporter.warnings) is not bool(test_folds)


def test_a_recording_with_clips_in_a_test_fold_is_left_out(source: Source, tmp_path: Path) -> None:
    across = {"clips/r2", "clips/r4"}  # of fold 1
    spread = replace(
        source,
        clips=tuple(
            replace(c, fold=2 if c.group in across and c.clip_id.endswith("1.wav") else c.fold)
            for c in source.clips
        ),
    )
    reporter = Reporter()
    result = fit([spread], tmp_path / "out", ONE_STEP, mel=MEL, test_folds=(2,), reporter=reporter)
    trained = load_generator(str(result.folder), device="cpu").training_groups
    assert trained and not trained & across and not trained & {c.group for c in spread.clips if c.fold == 2}
    assert any("2 recordings with clips in the test folds" in warning for warning in reporter.warnings)
    mixed = {"parents": ("a", "b"), "parent_groups": ("g1", "g2"), "parent_folds": (1, 2)}
    made = tuple(replace(c, fold=0, **mixed) for c in source.clips if c.label)
    everywhere = replace(source, clips=tuple(replace(c, fold=1 + int(c.clip_id[-5])) for c in source.clips))
    other = {"parents": ("a",), "parent_groups": ("clips/r2",), "parent_folds": (1,)}
    of_spread = tuple(replace(c, **other) for c in source.clips if c.group == "clips/r2" and c.fold == 1)
    for folds, of in (
        ((2,), [everywhere]),
        ((2,), [replace(spread, clips=made, audio=spread.audio[: len(made)])]),
        ((2,), [spread, replace(spread, clips=of_spread, audio=spread.audio[: len(of_spread)])]),
        ((7,), [source]),
    ):
        with pytest.raises(UsageError) as raised:
            fit(of, tmp_path / "none", ONE_STEP, mel=MEL, test_folds=folds)
        assert raised.value.field == "test_folds"
    second = (replace(c, group=f"of {c.label}", fold=1 + c.label * int(c.clip_id[-5])) for c in source.clips)
    data = FitSources([replace(source, clips=tuple(second))], test_folds=(2,))
    assert data.class_names == source.class_names[:1], "of the other class, the recording is tested"


def test_the_seed_decides_the_weights_and_held_out_recordings_do_not(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = held_of(source)
    monkeypatch.setattr("usk.diffusion.training_data.held_out_groups", lambda clips: held)
    first = fit([source], tmp_path / "first", TINY, mel=MEL)
    for ref, clip in zip(source.audio, source.clips, strict=True):
        if clip.group in held:
            write_wav(ref.path, tone(2_000, 0.55, 8_000), 8_000)
    second = fit([replace(source, cache_key="changed")], tmp_path / "second", TINY, mel=MEL)
    after = weights(second.folder)
    assert all(torch.equal(tensor, after[name]) for name, tensor in weights(first.folder).items())
    assert first.log != second.log  # they do move the validation loss
    assert first.kept_step == second.kept_step == 6  # it was falling all the time: they chose the same step
    other = weights(fit([source], tmp_path / "other", replace(TINY, seed=1), mel=MEL).folder)
    assert not all(torch.equal(tensor, after[name]) for name, tensor in other.items())


def test_the_step_that_does_best_on_held_out_recordings_is_kept(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[int, list[torch.Tensor]] = {}
    validation_loss = MelTrainer.validation_loss

    def overfits(self: MelTrainer, average: list[torch.Tensor]) -> float | None:
        assert validation_loss(self, average) is not None
        seen[len(seen)] = [tensor.clone() for tensor in average]
        return [0.5, 0.2, 0.3][len(seen) - 1]

    monkeypatch.setattr(MelTrainer, "validation_loss", overfits)
    with pytest.raises(Killed):  # what was best is known after a resume, too
        fit([source], tmp_path / "out", TINY, mel=MEL, reporter=killed_at(5))
    result = fit([source], tmp_path / "out", TINY, mel=MEL)
    assert result.kept_step == 4
    assert json.loads((result.folder / "training.json").read_text())["kept_step"] == 4
    kept = weights(result.folder)["conv_in.weight"]
    best, last = (seen[number][0].half().float() for number in (1, 2))
    assert torch.equal(kept, best) and not torch.equal(kept, last)
    said = "0.2000 on held-out recordings, after step 4, whose weights these are"
    assert said in card_of(result.folder)


@pytest.mark.parametrize(("validate_every", "step"), [(2, 1), (2, 4), (3, 4)])
def test_a_killed_run_goes_on_and_ends_with_the_same_weights(
    source: Source, tmp_path: Path, validate_every: int, step: int
) -> None:
    config = replace(TINY, validate_every=validate_every)
    undisturbed = fit([source], tmp_path / "undisturbed", config, mel=MEL)
    with pytest.raises(Killed):
        fit([source], tmp_path / "killed", config, mel=MEL, reporter=killed_at(step))
    assert not (tmp_path / "killed" / "model_index.json").exists()
    torch.manual_seed(12345)  # another process would not have this one's random state
    watching = Watching()
    resumed = fit([source], tmp_path / "killed", config, mel=MEL, reporter=watching)
    assert watching.steps[0] == step  # the step that was not saved is done again, none before
    expected, actual = weights(undisturbed.folder), weights(resumed.folder)
    assert expected.keys() == actual.keys()
    assert all(torch.equal(expected[name], actual[name]) for name in expected)
    for one, other in zip(resumed.log, undisturbed.log, strict=True):
        assert {**one, "elapsed_s": 0} == {**other, "elapsed_s": 0}


@pytest.mark.parametrize(
    ("file", "error"),
    [
        ("diffusion_pytorch_model.safetensors", OSError(errno.ENOSPC, "No space left on device")),
        ("trained_on.json", OSError(errno.ENOSPC, "No space left on device")),
        (CHECKPOINT_FILE, OSError(errno.ENOSPC, "No space left on device")),
        ("model_index.json", Killed()),
    ],
)
def test_a_disk_that_is_full_or_a_kill_at_the_end_and_the_same_command_goes_on(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, error: BaseException
) -> None:
    """A full disk is one line. The folder is finished only when what it was trained on is known."""
    put = Path.replace

    def stop(path: Path, target: Path) -> Path:
        if target.name == file:
            raise error
        return put(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", stop)
        with pytest.raises(Killed if isinstance(error, Killed) else UskError) as raised:
            fit([source], tmp_path / "out", ONE_STEP, mel=MEL)
    assert isinstance(error, Killed) or f"the disk of {tmp_path / 'out'}" in str(raised.value)
    there = {path.name for path in (tmp_path / "out").iterdir()}
    assert "model_index.json" not in there and ("trained_on.json" in there) is (file == "model_index.json")
    assert file != CHECKPOINT_FILE or there == {"fit.json"}, "nothing half written"
    result = fit([source], tmp_path / "out", ONE_STEP, mel=MEL)
    assert load_generator(result.folder) and result.trained_on["sources"]


@pytest.mark.parametrize("content", [b"", b"half of a file", None, b"altered"])
def test_a_damaged_checkpoint_is_one_line(source: Source, tmp_path: Path, content: bytes | None) -> None:
    config = replace(TINY, steps=3)
    with pytest.raises(Killed):
        fit([source], tmp_path / "out", config, mel=MEL, reporter=killed_at(2))
    checkpoint = tmp_path / "out" / CHECKPOINT_FILE
    whole = checkpoint.read_bytes()
    half = len(whole) // 2
    altered = bytearray(whole)
    altered[half] ^= 1  # in a weight: torch says nothing of it
    checkpoint.write_bytes({None: whole[:half], b"altered": altered}.get(content, content or b""))
    with pytest.raises(UsageError, match="is damaged") as raised:
        fit([source], tmp_path / "out", config, mel=MEL)
    assert raised.value.field == "out" and "\n" not in str(raised.value)
    checkpoint.unlink()
    assert fit([source], tmp_path / "out", config, mel=MEL).log


@pytest.mark.parametrize(
    ("change", "options", "different"),
    [
        ({"seed": 1}, {}, "seed"),
        ({"channels": (8, 8), "learning_rate": 0.5}, {}, "learning rate, channels"),
        ({}, {"mel": replace(MEL, hop_samples=120)}, "mel"),
        ({}, {"test_folds": (2,)}, "clips"),
    ],
)
def test_a_folder_begun_with_other_settings_or_clips_is_refused(
    source: Source, tmp_path: Path, change: dict[str, Any], options: dict[str, Any], different: str
) -> None:
    with pytest.raises(Killed):
        fit([source], tmp_path / "out", TINY, mel=MEL, reporter=killed_at(1))
    with pytest.raises(UsageError, match=rf"\(different {different}\)") as raised:
        fit([source], tmp_path / "out", replace(TINY, **change), **{"mel": MEL, **options})
    assert raised.value.field == "out"


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda out: (out.mkdir(), (out / "thesis.txt").write_text("x")), "holds other files"),
        (lambda out: (out.mkdir(), (out / "fit.json").write_text("[" * 100_000)), "fit.json cannot be read"),
        (lambda out: out.write_text("x"), "is a file"),
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


def test_one_process_at_a_time_fits_in_a_folder(source: Source, tmp_path: Path) -> None:
    refused = []

    def another_begins(step: int) -> None:
        with pytest.raises(UsageError) as raised:
            fit([source], tmp_path / "out", ONE_STEP, mel=MEL)
        refused.append((raised.value.field, raised.value.message))

    result = fit([source], tmp_path / "out", ONE_STEP, mel=MEL, reporter=Watching(another_begins))
    assert set(refused) == {("out", "is being filled by another usk fit")}
    assert result.log and not (result.folder / LOCK_FILE).exists()


def test_images_are_the_clips_beginnings_and_short_ones_are_known(source: Source, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="images of 16 x 31 cannot be halved 1 times"):
        fit([source], tmp_path / "out", TINY, mel=replace(MEL, n_frames=31))
    decoded = decode_source(source, 8_000)
    images, frames = images_of(decoded, MEL)
    expected, _ = audio_to_image(stack_padded([decoded.audio(5)], MEL.image_samples), MEL)
    np.testing.assert_allclose(images[5], expected[0, 0].numpy(), atol=1e-3)
    # 0.55 s fill the image of 32 frames, 0.3 s are 2,400 samples, 18 hops of 128 and a rest.
    assert frames.tolist() == [MEL.n_frames if clip.duration_s > 0.5 else 18 for clip in decoded.source.clips]


def test_an_image_of_a_clip_that_begins_silent_has_its_sound(tmp_path: Path) -> None:
    for name, silent_s in (("late", 2.0), ("early", 0.0)):
        samples = np.concatenate([np.zeros(int(silent_s * 8_000), np.float32), tone(700, 2.0, 8_000)])
        write_wav(tmp_path / "own" / name / "r" / "a.wav", samples, 8_000)
    images, _ = images_of(decode_source(open_source(tmp_path / "own"), 8_000), MEL)
    early, late = images.astype(np.float32)
    np.testing.assert_allclose(late[:, 2:], early[:, 2:], atol=0.2)  # but for where it begins


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
def test_training_lowers_the_validation_loss(source: Source, tmp_path: Path, prediction_type: str) -> None:
    fast = {
        "steps": 60,
        "learning_rate": 3e-3,
        "validate_every": 20,
        "ema_decay": 0.9,
        "checkpoint_every_s": 60.0,
    }
    log = fit([source], tmp_path / "out", replace(TINY, prediction_type=prediction_type, **fast), mel=MEL).log
    assert log[-1]["validation_loss"] < 0.8 * log[0]["validation_loss"]


# --- clips, classes, draws ---------------------------------------------------------------------------------


def test_a_short_clip_is_repeated_and_rolled_and_without_a_shift_left_as_it_is() -> None:
    short = np.array([[1, 2, 3, 0, 0, 0, 0, 0], [4, 5, 6, 0, 0, 0, 0, 0]], dtype=np.float16)
    long = np.arange(16, dtype=np.float16).reshape(2, 8)
    zeros = np.zeros(2, dtype=np.int64)
    clips = FitClips(np.stack((short, long)), np.array([3, 8]), zeros, zeros.astype(bool))
    np.testing.assert_array_equal(clips.image(0), short)
    assert clips.image(0, 2).tolist() == [[3, 1, 2, 3, 1, 2, 3, 1], [6, 4, 5, 6, 4, 5, 6, 4]]
    np.testing.assert_array_equal(clips.image(1, 3), np.roll(long, -3, axis=1))


def test_training_takes_short_clips_both_as_they_are_and_repeated(source: Source) -> None:
    trainer = trainer_of(source, replace(TINY, batch=64))
    short = trainer.training.frames < MEL.n_frames
    trainer.training = trainer.training[short]
    ends = trainer.draw(0).images[:, 0, :, -4:].amax(dim=(1, 2))
    silent = int((ends == -1).sum())
    assert 16 < silent < 48


def test_a_class_conditional_generator_follows_its_classes(source: Source, tmp_path: Path) -> None:
    config = replace(
        TINY, class_conditional=True, steps=80, batch=8, learning_rate=5e-3, ema_decay=0.9, checkpoint_every_s=60.0,
        validate_every=1_000,
    )  # fmt: skip
    result = fit([source], tmp_path / "out", config, mel=MEL)
    generator = load_generator(str(result.folder), device="cpu", precision="fp32")
    index = json.loads((result.folder / "model_index.json").read_text())
    assert index["id2label"] == {"0": "high", "1": "low"} and generator.class_names == ("high", "low")
    assert "| classes | high, low |" in card_of(result.folder)
    held = [row for row, clip in enumerate(source.clips) if clip.group in held_of(source)]
    images, _ = images_of(decode_source(source, 8_000), MEL)
    images = torch.from_numpy(images[held].astype(np.float32))[:, None]
    right = [source.class_names[source.clips[row].label] for row in held]
    wrong = [{"low": "high", "high": "low"}[name] for name in right]
    assert {*right} == {"low", "high"}

    def loss(names: list[str]) -> float:
        losses = []
        for timestep in (500, 700, 900):
            alpha = generator.schedule.alpha(timestep)
            noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(timestep))
            output = generator.predictor(Condition(names))(
                alpha**0.5 * images + (1 - alpha) ** 0.5 * noise, timestep
            )
            target = alpha**0.5 * noise - (1 - alpha) ** 0.5 * images
            losses.append(float((output - target).square().mean()))
        return float(np.mean(losses))

    assert loss(right) < 0.9 * loss(wrong)
    record = json.loads((result.folder / "training.json").read_text())
    assert record["class_effect"] == generator.class_effect > LEAST_CLASS_EFFECT


def test_labels_left_out_are_the_last_one(source: Source) -> None:
    names = ("high", "low")
    conditioned, unconditioned, some = (
        trainer_of(source, replace(TINY, batch=400, class_dropout=share, class_conditional=True), names)
        for share in (0.0, 1.0, 0.15)
    )
    labels = conditioned.draw(0).labels
    assert set(labels.tolist()) == {0, 1}
    assert set(unconditioned.draw(0).labels.tolist()) == {2}
    mixed = some.draw(0).labels
    left_out = mixed == 2
    assert torch.equal(mixed[~left_out], labels[~left_out])
    assert 0.10 < float(left_out.float().mean()) < 0.20
    unconditioned.config = replace(unconditioned.config, batch=4)
    unconditioned.gradients(unconditioned.learner(), 0)
    gradient = unconditioned.network.class_embedding.weight.grad.abs().sum(dim=1)
    assert gradient[2] > 0 and gradient[:2].sum() == 0


def test_every_step_is_drawn_anew_and_again_the_same(source: Source) -> None:
    trainer = trainer_of(source, TINY)
    draws = {step: trainer.draw(step) for step in range(3)}
    for step, drawn in draws.items():
        assert all(torch.equal(a, b) for a, b in zip(drawn, trainer.draw(step), strict=True))
    noise = [tuple(drawn.noise.flatten()[:8].tolist()) for drawn in draws.values()]
    assert len(set(noise)) == len(noise)


def moved(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    """Mean absolute difference of two sets of weights."""
    return float(np.mean([float((a[name] - b[name]).abs().mean()) for name in a]))


@pytest.mark.gpu
def test_recorded_steps_learn_as_plain_ones_do(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(TINY, device="cuda", class_conditional=True, steps=20, learning_rate=1e-2, ema_decay=0.0)
    monkeypatch.setattr("usk.diffusion.fit.write_preview", lambda *_: None)

    def fitted(name: str) -> tuple[list[float], dict[str, torch.Tensor]]:
        watching = Watching()
        made = fit([source], tmp_path / name, config, mel=MEL, reporter=watching)
        return watching.losses, weights(made.folder)

    kept: list[ReplayedStep] = []

    class Watched(ReplayedStep):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            kept.append(self)

    monkeypatch.setattr(training, "ReplayedStep", Watched)
    recorded = fitted("recorded")
    assert [learn._graph is not None for learn in kept] == [True] * len(kept) and kept
    monkeypatch.setattr(MelTrainer, "recordable", False)
    plain, other = fitted("plain"), fitted("again")
    assert len(set(recorded[0])) == 20
    np.testing.assert_allclose(recorded[0], plain[0], rtol=0.02)
    drift = moved(plain[1], other[1])  # kernels may sum in another order each time
    assert moved(recorded[1], plain[1]) < 1e-4 + 3 * drift


@pytest.mark.gpu
def test_recorded_steps_go_on_from_a_checkpoint(source: Source, tmp_path: Path) -> None:
    config = replace(TINY, device="cuda", steps=16, learning_rate=1e-2)
    whole, first, rest = Watching(), killed_at(9), Watching()
    fit([source], tmp_path / "whole", config, mel=MEL, reporter=whole)
    with pytest.raises(Killed):
        fit([source], tmp_path / "out", config, mel=MEL, reporter=first)
    fit([source], tmp_path / "out", config, mel=MEL, reporter=rest)
    np.testing.assert_allclose(first.losses[:8] + rest.losses, whole.losses, rtol=0.02)


def test_where_a_step_does_not_fit_activations_are_computed_twice(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(TINY, steps=4, learning_rate=0.2, ema_decay=0.0)
    kept = fit([source], tmp_path / "kept", config, mel=MEL)
    loss = MelTrainer.loss

    def short_of_memory(self: MelTrainer, drawn: MelBatch) -> torch.Tensor:
        if not self.network.is_gradient_checkpointing:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return loss(self, drawn)

    monkeypatch.setattr(MelTrainer, "loss", short_of_memory)
    monkeypatch.setattr(MelTrainer, "validation_loss", lambda self, average: None)
    again = fit([source], tmp_path / "again", config, mel=MEL)
    a, b = weights(kept.folder), weights(again.folder)
    assert all(torch.allclose(a[name], b[name], atol=1e-3) for name in a)

    def no_memory(self: MelTrainer, drawn: MelBatch) -> torch.Tensor:
        return torch.empty(1 << 60)  # of a CPU

    monkeypatch.setattr(MelTrainer, "loss", no_memory)
    with pytest.raises(UskError) as raised:
        fit([source], tmp_path / "none", config, mel=MEL)
    assert raised.value.field == "batch"


# --- stopping ----------------------------------------------------------------------------------------------


@pytest.fixture
def takes_ctrl_c() -> Iterator[None]:
    """A job in the background ignores Ctrl-C, and so would these tests."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def single_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where bf16 is possible, runs of the command line choose by the clock; runs that are compared must not."""
    monkeypatch.setattr(training, "default_precision", lambda device, training: "fp32")


@pytest.mark.usefixtures("single_precision", "takes_ctrl_c")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_the_step_and_the_same_command_goes_on(
    usk: Callable[..., Any],
    tone_folder: Path,
    tiny_pipeline: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    code: int,
) -> None:
    def command(out: str) -> Any:
        return usk(
            "fit", "--real", tone_folder, "--from", tiny_pipeline(), "--out", tmp_path / out, "--steps", 6, "--batch", 2,
            "--learning-rate", 0.1, "--device", "cpu", "--quiet",
        )  # fmt: skip

    assert command("undisturbed").code == 0
    draw = MelTrainer.draw

    def draw_and_stop(trainer: MelTrainer, step: int) -> MelBatch:
        if step == 3:  # drawn ahead, in the third step
            os.kill(os.getpid(), number)
        return draw(trainer, step)

    handlers = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    with monkeypatch.context() as patch:
        patch.setattr(MelTrainer, "draw", draw_and_stop)
        ran = command("stopped")
    assert (ran.code, ran.out) == (code, "")
    assert ran.err.startswith("usk: stopped after step 3") and ran.err.count("\n") == 1
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == handlers
    kept = read_checked(tmp_path / "stopped" / "unet-checkpoint.pt")
    assert kept is not None and torch.load(io.BytesIO(kept))["step"] == 3
    assert command("stopped").code == 0
    expected, actual = weights(tmp_path / "undisturbed"), weights(tmp_path / "stopped")
    assert all(torch.equal(expected[name], actual[name]) for name in expected)


@pytest.mark.usefixtures("takes_ctrl_c")
def test_a_second_ctrl_c_stops_at_once() -> None:
    with pytest.raises(KeyboardInterrupt), StopSignals() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.number == signal.SIGINT
        signal.raise_signal(signal.SIGINT)


def test_ignored_signals_stay_ignored_and_other_threads_train_too(source: Source, tmp_path: Path) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as under nohup
    try:
        with StopSignals() as stop:
            signal.raise_signal(signal.SIGINT)
            assert not stop.number
    finally:
        signal.signal(signal.SIGINT, before)
    thread = threading.Thread(target=lambda: fit([source], tmp_path / "out", ONE_STEP, mel=MEL))
    thread.start()
    thread.join()
    assert (tmp_path / "out" / "model_index.json").is_file()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("batch", 0),
        ("batch", 1 << 17),
        ("steps", 0),
        ("seed", -1),
        ("minutes", 0.0),
        ("minutes", 1e308),
        ("learning_rate", math.nan),
    ],
)
def test_numbers_out_of_range_are_usage_errors(field: str, value: float) -> None:
    with pytest.raises(UsageError) as raised:
        FitConfig(**{field: value}).resolved()
    assert raised.value.field == field


def test_too_few_recordings_to_hold_any_out_still_train(tone_folder: Path, tmp_path: Path) -> None:
    config = replace(TINY, minutes=1e-9)  # which is one step
    unnamed = replace(open_source(tone_folder), has_groups=False)
    result = fit([unnamed], tmp_path / "out", config, mel=MEL)
    assert not result.trained_on["sources"][0]["held_out_groups"]
    assert [row["validation_loss"] for row in result.log] == [None]
    card = card_of(result.folder)
    assert "validation loss" not in card and "**This source names no recordings**" in card


@pytest.mark.parametrize("steps", [6, 1])  # the last step has no loss after it
def test_a_training_that_diverges_leaves_no_generator(source: Source, tmp_path: Path, steps: int) -> None:
    config = replace(TINY, steps=steps, learning_rate=1e30, validate_every=100)
    with pytest.raises(UskError, match=r"diverged (in|by) step \d+") as raised:
        fit([source], tmp_path / "out", config, mel=MEL)
    assert raised.value.field == "learning_rate"
    assert not (tmp_path / "out" / "model_index.json").exists()


def test_a_training_that_diverges_late_ends_with_the_best_weights_before(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gradients = MelTrainer.gradients
    monkeypatch.setattr(
        MelTrainer,
        "gradients",
        lambda self, learn, step: gradients(self, learn, step) * (math.nan if step == 2 else 1),
    )
    reporter = Reporter()
    with monkeypatch.context() as patch, pytest.raises(TypeError):
        patch.setattr("usk.diffusion.fit.write_preview", None)
        fit([source], tmp_path / "out", TINY, mel=MEL)
    result = fit([source], tmp_path / "out", TINY, mel=MEL, reporter=reporter)  # it does so again
    assert result.kept_step == 2 and "diverged in step 3" in reporter.warnings[-1]
    assert json.loads((tmp_path / "out" / "training.json").read_text())["diverged_step"] == 3
    generator = load_generator(str(tmp_path / "out"), "cpu", "fp32")
    assert all(torch.isfinite(parameter).all() for parameter in generator.unet.parameters())
