"""Every wrong input of the main job through the real entry point: one line that names the fix, and nothing lost."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

Command = Callable[..., Any]


@dataclass
class World:
    """Good input, to be spoilt by a case: `urban` and `tones` are sources, `model` is a generator."""

    root: Path
    urban: Path
    tones: Path
    model: Path

    @property
    def out(self) -> Path:
        return self.root / "out"

    def clip(self, class_name: str = "low") -> Path:
        return self.tones / class_name / f"{class_name}0" / "cut0.wav"

    def synth(self, real: object = None, *more: object) -> list[object]:
        return [
            "synth", "--real", real or self.urban, "--model", self.model, "--out", self.out, "--per-class", 2,
            "--steps", 1, *more,
        ]  # fmt: skip

    def tones_synth(self, *more: object) -> list[object]:
        return self.synth(self.tones, "--across-folds", *more)

    def train(self, *more: object) -> list[object]:
        return [
            "train",
            "--real",
            self.urban,
            "--out",
            self.out,
            "--epochs",
            1,
            "--seeds",
            1,
            "--test-folds",
            1,
            *more,
        ]


@pytest.fixture
def world(
    tmp_path: Path, urbansound8k_folder: Path, tone_folder: Path, tiny_pipeline: Callable[..., Path]
) -> World:
    return World(tmp_path, urbansound8k_folder, tone_folder, tiny_pipeline())


def snapshot(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


# Each case spoils a world and gives the command, its exit code, and what its line must name.
Case = tuple[list[object], int, list[str]]


def missing_folder(world: World) -> Case:
    return world.synth(world.root / "nowhere"), 1, ["nowhere: no such folder", "--real"]


def empty_folder(world: World) -> Case:
    (world.root / "empty").mkdir()
    return world.synth(world.root / "empty"), 1, ["empty is empty", "A source is a folder"]


def folder_without_audio(world: World) -> Case:
    (world.root / "notes" / "a").mkdir(parents=True)
    (world.root / "notes" / "a" / "x.txt").write_text("x")
    return world.synth(world.root / "notes"), 1, ["it has no audio files in sub-folders"]


def file_as_source(world: World) -> Case:
    return world.synth(world.clip()), 1, ["--real", "is a file. A source is a folder"]


def empty_source_name(world: World) -> Case:
    return ["info", ""], 1, ["no source is named"]


def rows_without_audio(world: World) -> Case:
    for file in sorted((world.urban / "audio" / "fold2").iterdir())[:5]:
        file.unlink()
    return world.synth(), 1, ["5 of 54 clips in its metadata have no audio file", "skip bad clips"]


def no_audio_at_all(world: World) -> Case:
    shutil.rmtree(world.urban / "audio")
    return world.synth(None, "--skip-bad"), 1, ["none of the 54 clips", "Download it again"]


def metadata_without_rows(world: World) -> Case:
    file = world.urban / "metadata" / "UrbanSound8K.csv"
    file.write_text(file.read_text().splitlines()[0] + "\n")
    return world.synth(), 1, ["UrbanSound8K.csv lacks rows", "unpack UrbanSound8K again"]


def metadata_out_of_the_folder(world: World) -> Case:
    file = world.urban / "metadata" / "UrbanSound8K.csv"
    rows = list(csv.reader(file.open()))
    rows[1][0] = "../../../etc/passwd"
    with file.open("w", newline="") as out:
        csv.writer(out).writerows(rows)
    return world.synth(), 1, ["line 2", "leads out of the fold's folder"]


def zero_bytes(world: World) -> Case:
    world.clip().write_bytes(b"")
    return world.tones_synth(), 1, ["1 of 24 clips cannot be used", "cut0.wav (empty file)", "skip bad clips"]


def truncated(world: World) -> Case:
    world.clip().write_bytes(world.clip().read_bytes()[:3000])
    return world.tones_synth(), 1, ["cut0.wav (truncated)", "skip bad clips"]


def truncated_header(world: World) -> Case:
    world.clip().write_bytes(world.clip().read_bytes()[:20])
    return world.tones_synth(), 1, ["cut0.wav (truncated)", "skip bad clips"]


def renamed(world: World) -> Case:
    world.clip().write_bytes(b"%PDF-1.7 not audio at all " * 100)
    return world.tones_synth(), 1, ["cut0.wav (not an audio file that libsndfile can read)", "skip bad clips"]


def silence(world: World) -> Case:
    soundfile.write(world.clip(), np.zeros(8_000), 22_050)
    return world.tones_synth(), 1, ["cut0.wav (silent)", "skip bad clips"]


def one_sample(world: World) -> Case:
    soundfile.write(world.clip(), np.ones(1), 22_050)
    return world.tones_synth(), 1, ["cut0.wav (too short (1 sample))", "skip bad clips"]


def nan_samples(world: World) -> Case:
    soundfile.write(world.clip(), np.full(8_000, np.nan, np.float32), 22_050, subtype="FLOAT")
    return world.tones_synth(), 1, ["cut0.wav (has NaN or infinite samples)", "skip bad clips"]


def bad_clips_in_training(world: World) -> Case:
    world.clip().write_bytes(b"")
    return (
        ["train", "--real", world.tones, "--out", world.out],
        1,
        ["cut0.wav (empty file)", "skip bad clips"],
    )


def nothing_usable(world: World) -> Case:
    for file in world.tones.rglob("*.wav"):
        file.write_bytes(b"")
    return world.tones_synth("--skip-bad"), 1, ["24 of 24 clips cannot be used"]


def class_with_one_recording(world: World) -> Case:
    for recording in (1, 2, 3):
        shutil.rmtree(world.tones / "high" / f"high{recording}")
    return (
        world.tones_synth(),
        1,
        ["class high cannot be interpolated", "it has 1 in all", "Leave the class out"],
    )


def class_with_one_clip(world: World) -> Case:
    for recording in (1, 2, 3):
        shutil.rmtree(world.tones / "high" / f"high{recording}")
    (world.tones / "high" / "high0" / "cut1.wav").unlink()
    return world.tones_synth(), 1, ["class high cannot be interpolated", "Leave the class out"]


def recordings_in_different_folds(world: World) -> Case:
    return world.synth(world.tones), 1, ["cannot be interpolated", "in any one fold", "Pair across folds"]


def unknown_class(world: World) -> Case:
    return world.synth(None, "--classes", "siren,meow"), 2, ["--classes meow", "car_horn, dog_bark, siren"]


def unknown_fold(world: World) -> Case:
    return world.synth(None, "--test-folds", "1,9"), 2, ["--test-folds 9", "it has 1, 2, 3"]


def unknown_test_fold(world: World) -> Case:
    return world.train("--test-folds", 9), 2, ["--test-folds 9", "it has 1, 2, 3"]


def fold_that_is_no_number(world: World) -> Case:
    return world.synth(None, "--test-folds", "two"), 2, ["--test-folds two", "for example 1,3"]


def per_class_zero(world: World) -> Case:
    return world.synth(None, "--per-class", 0), 2, ["--per-class 0: must be at least 1"]


def per_class_negative(world: World) -> Case:
    return world.synth(None, "--per-class", -3), 2, ["--per-class -3: must be at least 1"]


def negative_seed(world: World) -> Case:
    return world.synth(None, "--seed", -1), 2, ["--seed -1: must be at least 0"]


def bad_alpha(world: World) -> Case:
    return world.synth(None, "--alpha", "much"), 2, ["--alpha much", "0.3:0.7"]


def bad_strategy(world: World) -> Case:
    return world.synth(None, "--strategy", "best"), 2, ["--strategy best", "decomposed, slerp"]


def bad_quality(world: World) -> Case:
    return world.synth(None, "--quality", "best"), 2, ["--quality best", "draft, standard, published"]


def sample_without_classes(world: World) -> Case:
    return world.synth(None, "--strategy", "sample"), 2, ["--strategy sample", "usk fit"]


def guidance_without_classes(world: World) -> Case:
    return world.synth(None, "--guidance", 2), 2, ["--guidance 2.0: has no effect"]


def guidance_of_the_published_recipe(world: World) -> Case:
    return world.synth(None, "--guidance", 2, "--quality", "published"), 2, ["--guidance 2.0: has no effect"]


def level_that_is_no_number(world: World) -> Case:
    return world.synth(None, "--strength", "nan"), 2, ["--strength nan: must lie above 0 and up to 1"]


def fit_with_a_negative_seed(world: World) -> Case:
    command = ["fit", "--real", world.urban, "--out", world.out, "--seed", -1]
    return command, 2, ["--seed -1", "at least 0"]


def sample_at_a_level(world: World) -> Case:
    return (
        world.synth(None, "--strategy", "sample", "--strength", 0.5),
        2,
        ["--strength 0.5", "sample works at 1"],
    )


def bad_steps(world: World) -> Case:
    return world.synth(None, "--steps", 2_000), 2, ["--steps 2000: "]


def out_holds_something_else(world: World) -> Case:
    world.out.mkdir()
    (world.out / "thesis.tex").write_text("years of work")
    return world.synth(), 2, ["--out", "holds something else", "Choose a new or empty folder"]


def fit_out_holds_something_else(world: World) -> Case:
    world.out.mkdir()
    (world.out / "thesis.tex").write_text("years of work")
    return (
        ["fit", "--real", world.tones, "--out", world.out, "--steps", 1],
        2,
        ["--out", "holds something else"],
    )


def out_is_a_file(world: World) -> Case:
    world.out.write_text("kept")
    return world.synth(), 2, ["--out", "is a file. Choose a folder"]


def out_cannot_be_written(world: World) -> Case:
    (world.root / "file").write_text("kept")
    return (
        world.synth(None, "--out", world.root / "file" / "out"),
        2,
        ["--out", "cannot be written", "another folder"],
    )


def runs_cannot_be_written(world: World) -> Case:
    (world.root / "file").write_text("kept")
    return (
        world.train("--out", world.root / "file" / "runs"),
        2,
        ["--out", "cannot be written", "another folder"],
    )


def generator_cannot_be_written(world: World) -> Case:
    (world.root / "file").write_text("kept")
    command = ["fit", "--real", world.tones, "--out", world.root / "file" / "gen", "--steps", 1]
    return command, 2, ["--out", "cannot be written", "another folder"]


def synth_without_cuda(world: World) -> Case:
    return world.synth(None, "--device", "cuda"), 2, ["--device cuda", "cpu"]


def train_without_cuda(world: World) -> Case:
    return world.train("--device", "cuda"), 2, ["--device cuda", "cpu"]


def fit_without_cuda(world: World) -> Case:
    return ["fit", "--real", world.tones, "--out", world.out, "--device", "cuda"], 2, ["--device cuda"]


def unknown_device(world: World) -> Case:
    return world.synth(None, "--device", "gpu9"), 2, ["--device gpu9", "auto, cpu or cuda"]


def model_without_an_index(world: World) -> Case:
    return (
        world.synth(None, "--model", world.tones),
        1,
        ["--model", "is not a pipeline folder", "model_index.json"],
    )


def model_that_is_missing(world: World) -> Case:
    return (
        world.synth(None, "--model", world.root / "none"),
        1,
        ["--model", "no such pipeline folder", "embedded"],
    )


def model_of_another_kind(world: World) -> Case:
    broken = shutil.copytree(world.model, world.root / "model")
    (broken / "model_index.json").write_text(json.dumps({"unet": ["diffusers", "UNet2DModel"]}))
    return world.synth(None, "--model", broken), 1, ["is not an audio-diffusion pipeline"]


def model_with_damaged_weights(world: World) -> Case:
    broken = shutil.copytree(world.model, world.root / "model")
    weights = broken / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:500])
    return world.synth(None, "--model", broken), 1, ["--model", "its weights cannot be loaded"]


def unknown_mix(world: World) -> Case:
    return world.train("--mix", "real,bogus"), 2, ["--mix bogus", "neither real, synth nor a source"]


def mix_with_a_bad_fraction(world: World) -> Case:
    return world.train("--mix", "real:2"), 2, ["--mix", "the fraction of real must lie above 0 and up to 1"]


def mix_without_its_synth(world: World) -> Case:
    return (
        world.train("--mix", "real,synth", "--synth", "nothing-here"),
        2,
        ["--synth nothing-here", "usk synth"],
    )


def mix_without_its_synth_path(world: World) -> Case:
    return world.train("--mix", "synth", "--synth", world.root / "none"), 2, ["--synth", "usk synth"]


def unknown_classifier(world: World) -> Case:
    return world.train("--classifier", "vgg"), 2, ["--classifier vgg", "small, medium, cnn"]


def unknown_protocol(world: World) -> Case:
    return world.train("--protocol", "loo"), 2, ["--protocol", "loo", "folds", "seed-9010"]


def no_runs(world: World) -> Case:
    return ["eval", world.root / "none"], 1, ["no runs under", "usk train"]


def default_source_without_network(world: World) -> Case:
    return ["synth", "--out", world.out], 1, ["danavery/urbansound8K", "$USK_REAL", "usk demo"]


def hub_source_without_network(world: World) -> Case:
    return world.synth("someone/clips@v1"), 1, ["someone/clips", "$USK_REAL", "usk demo"]


def hub_source_in_training_without_network(world: World) -> Case:
    return ["train", "--out", world.out], 1, ["$USK_REAL", "usk demo"]


def hub_model_without_network(world: World) -> Case:
    return world.synth(None, "--model", "someone/model"), 1, ["--model someone/model", "embedded generator"]


def unknown_label_column(world: World) -> Case:
    dataset_of(world.root / "set", ["a", "b"] * 3)
    return ["synth", "--real", world.root / "set", "--columns", "label=kind", "--out", world.out], 2, [
        "--columns kind", "it has label",
    ]  # fmt: skip


def dataset_without_labels(world: World) -> Case:
    dataset_of(world.root / "set", ["a", "b"] * 3, column="mood")
    return (
        ["synth", "--real", world.root / "set", "--out", world.out],
        1,
        ["--columns", "no label column"],
    )


def real_that_is_empty(world: World) -> Case:
    return ["synth", "--real", "", "--out", world.out], 1, ["no source is named", "--real"]


def audit_of_what_is_no_dataset(world: World) -> Case:
    (world.root / "runs" / "one").mkdir(parents=True)
    return ["audit", world.root / "runs", "--real", world.urban], 1, ["is not a source of clips"]


def audit_of_nothing(world: World) -> Case:
    return ["audit", "nowhere", "--real", world.urban], 1, ["DATASET nowhere: no such folder"]


def report_of_no_dataset(world: World) -> Case:
    command = ["report", "--synth", "nowhere", "--real", world.urban]
    return command, 1, ["--synth nowhere: no such folder"]


def report_of_no_runs(world: World) -> Case:
    return ["report", "nowhere"], 2, ["RUNS nowhere: no such folder", "usk train"]


def info_on_nothing(world: World) -> Case:
    return ["info", "nowhere"], 1, ["nowhere: no such folder"]


def push_of_nothing(world: World) -> Case:
    return ["push", "nowhere", "me/x"], 2, ["nowhere: no such folder", "usk synth"]


def predict_without_a_run(world: World) -> Case:
    return ["predict", "nowhere", world.clip()], 2, ["RUN nowhere: is not a run", "usk train"]


def predictions_into_no_folder(world: World) -> Case:
    return ["predict", "runs", world.clip(), "--csv", "nowhere/x.csv"], 2, ["--csv", "no folder", "Make it"]


def fit_on_an_unknown_fold(world: World) -> Case:
    command = ["fit", "--real", world.urban, "--out", world.out, "--test-folds", 99]
    return command, 2, ["--test-folds 99", "1, 2, 3"]


def train_with_clips_that_are_no_number(world: World) -> Case:
    return world.train("--train-clips", "x"), 2, ["--train-clips x", "50,100,full"]


def train_without_seeds(world: World) -> Case:
    return world.train("--seeds", 0), 2, ["--seeds", "greater than or equal to 1"]


def train_without_workers(world: World) -> Case:
    return world.train("--workers", 0), 2, ["--workers", "greater than or equal to 1"]


def filter_that_keeps_too_much(world: World) -> Case:
    return world.synth(None, "--filter", 2), 2, ["--filter 2.0: must lie above 0 and up to 1"]


def demo_without_epochs(world: World) -> Case:
    return ["demo", "--out", world.out, "--epochs", 0], 2, ["--epochs", "greater than or equal to 1"]


def unknown_option(world: World) -> Case:
    return world.synth(None, "--per-clas", 3), 2, ["--per-clas", "--per-class", "see usk synth --help"]


def option_without_its_value(world: World) -> Case:
    return world.synth(None, "--classes"), 2, ["'--classes' requires", "see usk synth --help"]


def option_of_the_wrong_type(world: World) -> Case:
    return world.train("--seeds", "many"), 2, ["'--seeds'", "integer", "see usk train --help"]


def argument_that_is_missing(world: World) -> Case:
    return ["push", world.tones], 2, ["missing argument 'USER/NAME'", "see usk push --help"]


def argument_too_many(world: World) -> Case:
    return ["eval", "runs", "more"], 2, ["(more)", "see usk eval --help"]


def unknown_command(world: World) -> Case:
    return ["evaluate"], 2, ["no such command 'evaluate'", "see usk --help"]


def unknown_option_before_the_command(world: World) -> Case:
    return ["--loud", "eval"], 2, ["--loud", "see usk --help"]


def folds_as_classes(world: World) -> Case:
    return (
        world.synth(world.urban / "audio"),
        1,
        ["fold1, fold2, fold3 are named like parts", "metadata.csv"],
    )


def files_of_other_kinds(world: World) -> Case:
    for file in world.tones.rglob("*.wav"):
        file.rename(file.with_suffix(".m4a"))
    return world.synth(world.tones), 1, ["24 files (.m4a) are all that it has", "convert them"]


def one_class(world: World) -> Case:
    for name in ("low", "middle"):
        shutil.rmtree(world.tones / name)
    return ["train", "--real", world.tones, "--out", world.out], 2, ["has one class, high"]


def columns_of_a_folder(world: World) -> Case:
    return (
        world.synth(world.tones, "--columns", "group=tape"),
        2,
        ["--columns tape", "a folder of files"],
    )


def the_real_clips_by_another_name(world: World) -> Case:
    mix = f"real,{world.urban}"
    return (
        world.train("--mix", mix, "--train-clips", 9),
        2,
        [f"{world.urban} is the real clips themselves"],
    )


def one_dataset_under_two_names(world: World) -> Case:
    shutil.copytree(dataset_of(world.root / "set", ["siren", "dog_bark"] * 4), world.root / "copy" / "set")
    mix = "real,set,copy/set"
    return world.train("--mix", mix), 2, ["copy/set is the same dataset as set. Name it once"]


def folder_of_datasets(world: World) -> Case:
    for name in ("9-train_clips-fold1-seed0", "9-train_clips-fold1-seed1"):
        (world.root / "few" / name).mkdir(parents=True)
        (world.root / "few" / name / "usk.json").write_text("{}")
    return ["info", "few"], 1, ["it holds 2 datasets (9-train_clips-fold1-seed0, 9-train_clips-fold1-seed1)"]


def unfinished_generator(world: World) -> Case:
    (world.root / "generator").mkdir()
    (world.root / "generator" / "fit.json").write_text("{}")
    command = ["synth", "--real", world.urban, "--model", "generator", "--out", world.out]
    return command, 1, ["--model generator: is not finished. Run the same `usk fit` again"]


def saved_dataset_without_rows(world: World) -> Case:
    import datasets

    datasets.Dataset.from_dict({"audio": [], "label": []}).save_to_disk(str(world.root / "none"))
    return ["info", "none"], 1, ["none holds no clips"]


def nothing_to_predict(world: World) -> Case:
    return ["predict", world.model, ""], 2, ["a name of what to classify is empty"]


def empty_folds(world: World) -> Case:
    return ["train", "--real", world.urban, "--test-folds", ""], 2, ["--test-folds: not fold numbers"]


CASES = [
    folds_as_classes, files_of_other_kinds, one_class, columns_of_a_folder, the_real_clips_by_another_name,
    one_dataset_under_two_names, folder_of_datasets, unfinished_generator, saved_dataset_without_rows,
    nothing_to_predict, empty_folds,
    missing_folder, empty_folder, folder_without_audio, file_as_source, empty_source_name, rows_without_audio,
    no_audio_at_all, metadata_without_rows, metadata_out_of_the_folder, zero_bytes, truncated, truncated_header,
    renamed, silence, one_sample, nan_samples, bad_clips_in_training, nothing_usable, class_with_one_recording,
    class_with_one_clip, recordings_in_different_folds, unknown_class, unknown_fold, unknown_test_fold,
    fold_that_is_no_number, per_class_zero, per_class_negative, negative_seed, bad_alpha, bad_strategy, bad_steps, bad_quality,
    sample_without_classes, sample_at_a_level,
    guidance_without_classes, guidance_of_the_published_recipe, level_that_is_no_number, fit_with_a_negative_seed,
    out_holds_something_else, fit_out_holds_something_else, out_is_a_file, out_cannot_be_written,
    runs_cannot_be_written, generator_cannot_be_written, synth_without_cuda, train_without_cuda, fit_without_cuda,
    unknown_device, model_without_an_index, model_that_is_missing, model_of_another_kind, model_with_damaged_weights,
    unknown_mix, mix_with_a_bad_fraction, mix_without_its_synth, mix_without_its_synth_path, unknown_classifier,
    unknown_protocol, no_runs, default_source_without_network, hub_source_without_network,
    hub_source_in_training_without_network, hub_model_without_network, unknown_label_column, dataset_without_labels,
    real_that_is_empty, audit_of_what_is_no_dataset, audit_of_nothing, report_of_no_dataset, report_of_no_runs,
    info_on_nothing, push_of_nothing, predict_without_a_run, predictions_into_no_folder, fit_on_an_unknown_fold,
    train_with_clips_that_are_no_number, train_without_seeds, filter_that_keeps_too_much, demo_without_epochs,
    unknown_option, option_without_its_value, option_of_the_wrong_type, argument_that_is_missing, argument_too_many,
    unknown_command, unknown_option_before_the_command,
]  # fmt: skip


def dataset_of(folder: Path, labels: list[Any], column: str = "label") -> Path:
    """A Parquet dataset, one recording a row, without folds."""
    from usk.synth.dataset_folder import encode_flac

    folder.mkdir()
    audio = [
        {
            "bytes": encode_flac(0.3 * np.sin(np.arange(4_000) * (0.1 + 0.01 * row)), 8_000),
            "path": f"{row}.flac",
        }
        for row in range(len(labels))
    ]
    pq.write_table(pa.table({"audio": audio, column: labels}), folder / "clips.parquet")
    return folder


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_wrong_input_is_one_line_that_names_the_fix_and_loses_nothing(
    usk: Command, world: World, monkeypatch: pytest.MonkeyPatch, case: Callable[[World], Case]
) -> None:
    import torch

    if case in (synth_without_cuda, train_without_cuda, fit_without_cuda):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.chdir(world.root)
    monkeypatch.delenv("USK_REAL", raising=False)
    command, code, named = case(world)
    before = snapshot(world.root)
    ran = usk("--quiet", *command)
    assert ran.code == code, ran.err
    assert ran.out == ""
    assert ran.err.startswith("usk: ")
    assert ran.err.endswith("\n")
    assert ran.err.count("\n") == 1
    for text in named:
        assert text in ran.err
    assert snapshot(world.root) == before


@pytest.mark.parametrize("case", [unknown_option, unknown_command, missing_folder, no_runs, per_class_zero])
def test_an_error_beside_json_leaves_standard_output_empty(
    usk: Command, world: World, case: Callable[[World], Case]
) -> None:
    command, code, _ = case(world)
    ran = usk("--json", *command)
    assert (ran.code, ran.out, ran.err.count("\n")) == (code, "", 1)


def test_an_empty_name_is_no_way_to_the_source_in_the_environment(
    usk: Command, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("USK_REAL", str(world.urban))
    assert usk(*world.synth(), "--dry-run", "--quiet").code == 0
    for command in ("synth", "train", "audit", "report"):
        monkeypatch.chdir(world.root)
        (world.root / "synth").mkdir(exist_ok=True)
        ran = usk(command, "--real", "", "--quiet")
        assert (ran.code, ran.err.count("\n")) == (1, 1)


def test_a_class_name_with_a_line_break_still_makes_one_line(usk: Command, world: World) -> None:
    (world.tones / "high").rename(world.tones / "hi\ngh")
    for recording in (1, 2, 3):
        shutil.rmtree(world.tones / "hi\ngh" / f"high{recording}")
    ran = usk(*world.tones_synth(), "--quiet")
    assert (ran.code, ran.err.count("\n")) == (1, 1)
    assert "class hi gh cannot be interpolated" in ran.err


def test_an_option_of_the_wrong_type_exits_2_without_a_traceback(usk: Command) -> None:
    ran = usk("synth", "--per-class", "many")
    assert ran.code == 2
    assert "--per-class" in ran.err
    assert "Traceback" not in ran.err


@pytest.mark.parametrize("spoil", [rows_without_audio, zero_bytes, silence, nan_samples, one_sample, renamed])
def test_skip_bad_goes_on_and_says_what_it_left_out(
    usk: Command, world: World, spoil: Callable[[World], Case]
) -> None:
    command, _, _ = spoil(world)
    ran = usk(*command, "--skip-bad", "--json")
    assert ran.code == 0
    assert ran.value["made"] == 6
    assert "skipped" in ran.err


def test_a_dry_run_leaves_out_the_same_clips(usk: Command, world: World) -> None:
    command, _, _ = zero_bytes(world)
    planned = usk(*command, "--skip-bad", "--dry-run", "--json").value
    assert usk(*command, "--skip-bad", "--quiet").code == 0
    assert [json.loads(line) for line in (world.out / "plan.jsonl").read_text().splitlines()] == planned
    assert not any("low/low0/cut0" in parent for row in planned for parent in row["parents"])


def test_classes_leaves_out_the_class_that_cannot_be_interpolated(usk: Command, world: World) -> None:
    command, _, _ = class_with_one_recording(world)
    ran = usk(*command, "--classes", "low,middle", "--json")
    assert set(ran.value["counts"]) == {"low", "middle"}


@pytest.mark.parametrize("labels", [["b", "a"] * 4, [7, 3] * 4, [1.5, 0.5] * 4, [True, False] * 4])
def test_labels_may_be_strings_or_numbers(usk: Command, world: World, labels: list[Any]) -> None:
    value = usk("info", dataset_of(world.root / "set", labels), "--json").value
    assert [row["class"] for row in value["classes"]] == [str(label) for label in sorted(set(labels))]
    assert [row["clips"] for row in value["classes"]] == [4, 4]
    made = usk(*world.synth(world.root / "set", "--across-folds", "--dry-run", "--json")).value
    assert {row["class"] for row in made} == {str(label) for label in labels}


def test_info_takes_the_columns_that_its_error_names(usk: Command, world: World) -> None:
    folder = dataset_of(world.root / "set", ["b", "a"] * 4, column="Was ist das?")
    refused = usk("info", folder)
    assert refused.code == 1 and "has no label column among Was ist das?" in refused.err
    value = usk("info", folder, "--columns", "label=Was ist das?", "--json").value
    assert [row["class"] for row in value["classes"]] == ["a", "b"]


def test_a_bug_keeps_its_traceback(usk: Command, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("usk.synth.synthesize.draw_plan", None)
    with pytest.raises(TypeError):
        usk(*world.synth(None, "--dry-run"))


def test_notes_stay_apart_from_the_error_line(usk: Command, world: World) -> None:
    command, _, _ = class_with_one_recording(world)
    lines = usk(*command).err.splitlines()
    assert [line for line in lines if line.startswith("usk: ")] == lines[-1:]
    assert all(line.startswith("note: ") for line in lines[:-1]), lines


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs a named pipe")
def test_other_files_in_a_source_are_passed_over(usk: Command, world: World) -> None:
    os.mkfifo(world.tones / "low" / "pipe.wav")
    (world.tones / ".DS_Store").write_text("x")
    (world.tones / "low" / "notes.txt").write_text("x")
    (world.tones / "low" / "._cut0.wav").write_text("x")
    (world.tones / "low" / ".ipynb_checkpoints").mkdir()
    (world.tones / "low" / ".ipynb_checkpoints" / "cut0.wav").write_text("x")
    (world.tones / "low" / "memo.m4a").write_text("x")
    (world.tones / "low" / "memo.wma").write_text("x")
    info = usk("info", world.tones, "--json").value
    assert (info["clips"], info["recordings"]) == (24, 12)
    assert (
        "2 files (.m4a, .wma) are passed over, for usk does not read them; convert them, for example to FLAC"
        in info["notes"]
    )


def test_a_synth_that_no_mix_names_is_refused(usk: Command, world: World) -> None:
    ran = usk(*world.train("--synth", "made"))
    assert ran.code == 2
    assert (
        ran.err
        == "usk: --synth made: no mix names synth. Add a mix that names it, such as real,synth, or leave it out.\n"
    )
