"""Wrong input to all commands gives one line with the fix, and loses nothing."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

Command = Callable[..., Any]


@dataclass
class World:
    """Valid input that each case damages: the sources `urban` and `tones`, and the generator `model`."""

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
        return self.synth(self.tones, *more)

    def train(self, *more: object) -> list[object]:
        few = ("--epochs", 1, "--seeds", 1, "--test-folds", 1)
        return ["train", "--real", self.urban, "--out", self.out, *few, *more]


@pytest.fixture
def world(
    tmp_path: Path, urbansound8k_folder: Path, tone_folder: Path, tiny_pipeline: Callable[..., Path]
) -> World:
    (tmp_path / "file").write_text("kept")
    (tmp_path / "years").mkdir()
    (tmp_path / "years" / "thesis.tex").write_text("of work")
    return World(tmp_path, urbansound8k_folder, tone_folder, tiny_pipeline())


def snapshot(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


# Each case damages a world and returns the command, its exit code, and texts that its line must contain.
Case = tuple[list[object], int, list[str]]


def rows_without_audio(world: World) -> Case:
    for file in sorted((world.urban / "audio" / "fold2").iterdir())[:5]:
        file.unlink()
    return (
        world.synth(),
        1,
        ["5 of 54 clips in its metadata have no audio file", "leave them out with --skip-bad"],
    )


def zero_bytes(world: World) -> Case:
    world.clip().write_bytes(b"")
    return (
        world.tones_synth(),
        1,
        ["1 of 24 clips cannot be used", "cut0.wav (empty file)", "leave them out with --skip-bad"],
    )


def bad_clips_in_training(world: World) -> Case:
    world.clip().write_bytes(b"")
    return (
        ["train", "--real", world.tones, "--out", world.out],
        1,
        ["cut0.wav (empty file)", "leave them out with --skip-bad"],
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


def model_of_another_kind(world: World) -> Case:
    broken = shutil.copytree(world.model, world.root / "model")
    (broken / "model_index.json").write_text(json.dumps({"unet": ["diffusers", "UNet2DModel"]}))
    return world.synth(None, "--model", broken), 1, ["is not an audio-diffusion pipeline"]


def model_with_damaged_weights(world: World) -> Case:
    broken = shutil.copytree(world.model, world.root / "model")
    weights = broken / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:500])
    return world.synth(None, "--model", broken), 1, ["--model", "its weights cannot be loaded"]


def unknown_label_column(world: World) -> Case:
    dataset_of(world.root / "set", ["a", "b"] * 3)
    return ["synth", "--real", world.root / "set", "--columns", "label=kind", "--out", world.out], 2, [
        "--columns kind", "it has label",
    ]  # fmt: skip


def files_of_other_kinds(world: World) -> Case:
    for file in world.tones.rglob("*.wav"):
        file.rename(file.with_suffix(".m4a"))
    return world.synth(world.tones), 1, ["24 files (.m4a) are all that it has", "convert them"]


def one_class(world: World) -> Case:
    for name in ("low", "middle"):
        shutil.rmtree(world.tones / name)
    return ["train", "--real", world.tones, "--out", world.out], 2, ["has one class, high"]


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


# Cases on valid input: exit code, command (SYNTH and TRAIN stand for complete commands), texts in the line.
WORDS: list[tuple[int, str, list[str]]] = [
    (1, "SYNTH --real {root}/nowhere", ["nowhere: no such folder", "--real"]),
    (1, "SYNTH --real {tones}/low/low0/cut0.wav", ["--real", "is a file. Name the folder"]),
    (1, "SYNTH --real {urban}/audio", ["fold1, fold2, fold3 are named like parts", "metadata.csv"]),
    (2, "SYNTH --out years", ["--out", "holds other files", "Choose a new or empty folder"]),
    (2, "SYNTH --out file", ["--out", "is a file. Choose a folder"]),
    (2, "SYNTH --out file/out", ["--out", "cannot be written", "another folder"]),
    (2, "TRAIN --out file/runs", ["--out", "cannot be written", "another folder"]),
    (2, "fit --real {tones} --out file/gen --steps 1", ["--out", "cannot be written", "another folder"]),
    (2, "fit --real {tones} --out years --steps 1", ["--out", "holds other files"]),
    (1, "audit years --real {urban}", ["is not a source of clips"]),
    (1, "SYNTH --real ''", ["no source is named", "--real"]),
    (2, "SYNTH --real {tones} --columns group=tape", ["--columns tape", "a folder of files"]),
    (2, "SYNTH --classes siren,meow", ["--classes meow", "car_horn, dog_bark, siren"]),
    (2, "SYNTH --test-folds 1,9", ["--test-folds 9", "it has 1, 2, 3"]),
    (2, "SYNTH --test-folds two", ["--test-folds two", "for example 1,3"]),
    (2, "SYNTH --per-class 0", ["--per-class 0: must be at least 1"]),
    (2, "SYNTH --per-class -3", ["--per-class -3: must be at least 1"]),
    (2, "SYNTH --seed -1", ["--seed -1: must be at least 0"]),
    (2, "SYNTH --alpha much", ["--alpha much", "0.3:0.7"]),
    (2, "SYNTH --strategy best", ["--strategy best", "decomposed, slerp"]),
    (2, "SYNTH --quality best", ["--quality best", "draft, standard, published"]),
    (2, "SYNTH --strategy sample", ["--strategy sample", "usk fit"]),
    (2, "SYNTH --strategy sample --strength 0.5", ["--strength 0.5", "sample works at 1"]),
    (2, "SYNTH --guidance 2", ["--guidance 2.0: has no effect"]),
    (2, "SYNTH --guidance 2 --quality published", ["--guidance 2.0: has no effect"]),
    (2, "SYNTH --strength nan", ["--strength nan: must lie above 0 and up to 1"]),
    (2, "SYNTH --steps 2000", ["--steps 2000: "]),
    (2, "SYNTH --filter 2", ["--filter 2.0: must lie above 0 and up to 1"]),
    (
        2,
        "SYNTH --filter laion/clap",
        ["--filter laion/clap: is neither a share such as 0.5 nor hf: and a CLAP model"],
    ),
    (2, "SYNTH --device cuda", ["--device cuda", "cpu"]),
    (2, "SYNTH --device gpu9", ["--device gpu9", "auto, cpu or cuda"]),
    (1, "SYNTH --model {tones}", ["--model", "is not a pipeline folder", "model_index.json"]),
    (1, "SYNTH --model {root}/none", ["--model", "no such pipeline folder", "embedded"]),
    (1, "SYNTH --real someone/clips@v1", ["someone/clips", "$USK_REAL", "usk demo"]),
    (1, "SYNTH --model someone/model", ["--model someone/model", "embedded generator"]),
    (1, "synth --out {out}", ["danavery/urbansound8K", "$USK_REAL", "usk demo"]),
    (1, "train --out {out}", ["$USK_REAL", "usk demo"]),
    (2, "TRAIN --test-folds 9", ["--test-folds 9", "it has 1, 2, 3"]),
    (2, "TRAIN --test-folds ''", ["--test-folds: is not a list of fold numbers"]),
    (2, "TRAIN --mix real,bogus", ["--mix bogus", "neither real, synth nor a source"]),
    (2, "TRAIN --mix real,synth --synth nothing-here", ["--synth nothing-here", "usk synth"]),
    (2, "TRAIN --mix synth --synth {root}/none", ["--synth", "usk synth"]),
    (2, "TRAIN --mix real,{urban} --train-clips 9", ["is the real clips themselves"]),
    (2, "TRAIN --synth made", ["--synth made: no mix names synth. Add a mix that names it"]),
    (2, "TRAIN --classifier vgg", ["--classifier vgg", "small, medium, cnn"]),
    (2, "TRAIN --protocol loo", ["--protocol", "loo", "folds", "seed-9010"]),
    (2, "TRAIN --train-clips x", ["--train-clips x", "50,100,full"]),
    (2, "TRAIN --seeds 0", ["--seeds", "must be at least 1"]),
    (2, "TRAIN --workers 0", ["--workers", "must be at least 1"]),
    (2, "TRAIN --seeds many", ["'--seeds'", "integer", "see usk train --help"]),
    (2, "TRAIN --device cuda", ["--device cuda", "cpu"]),
    (2, "fit --real {urban} --out {out} --test-folds 99", ["--test-folds 99", "1, 2, 3"]),
    (2, "fit --real {tones} --out {out} --device cuda", ["--device cuda"]),
    (1, "eval {root}/none", ["no runs under", "usk train"]),
    (1, "audit nowhere --real {urban}", ["DATASET nowhere: no such folder. Make it with `usk synth`"]),
    (1, "report --synth nowhere --real {urban}", ["--synth nowhere: no such folder"]),
    (2, "report nowhere", ["RUNS nowhere: no such folder", "usk train"]),
    (1, "info ''", ["no source is named"]),
    (1, "info nowhere", ["nowhere: no such folder"]),
    (2, "push nowhere me/x", ["nowhere: no such folder", "usk synth"]),
    (2, "predict nowhere clip.wav", ["RUN nowhere: is not a run", "usk train"]),
    (2, "predict runs clip.wav --csv nowhere/x.csv", ["--csv", "no folder", "Make it"]),
    (2, "predict {model} ''", ["the name of an input is empty"]),
    (2, "SYNTH --per-clas 3", ["--per-clas", "--per-class", "see usk synth --help"]),
    (2, "SYNTH --per-class many", ["'--per-class'", "integer", "see usk synth --help"]),
    (2, "SYNTH --classes", ["'--classes' requires", "see usk synth --help"]),
    (2, "push {tones}", ["missing argument 'USER/NAME'", "see usk push --help"]),
    (2, "eval runs more", ["(more)", "see usk eval --help"]),
    (2, "studdy", ["no such command 'studdy'. Did you mean 'study'? see usk --help"]),
    (2, "--loud eval", ["--loud", "see usk --help"]),
]


def parse(world: World, words: str) -> list[object]:
    """Return the command of a row of the table."""
    first, *more = (word.format(**vars(world), out=world.out) for word in shlex.split(words))
    whole = {"SYNTH": partial(world.synth, None), "TRAIN": world.train}
    return whole[first](*more) if first in whole else [first, *more]


CASES = [
    one for one in list(globals().values()) if getattr(one, "__annotations__", {}).get("return") == "Case"
]


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


@pytest.mark.parametrize(
    "case", [*CASES, *WORDS], ids=lambda case: case.__name__ if callable(case) else case[1]
)
def test_wrong_input_is_one_line_that_names_the_fix_and_loses_nothing(
    usk: Command, world: World, monkeypatch: pytest.MonkeyPatch, case: Any
) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.chdir(world.root)
    monkeypatch.delenv("USK_REAL", raising=False)
    command, code, named = case(world) if callable(case) else (parse(world, case[1]), case[0], case[2])
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


@pytest.mark.parametrize(
    ("code", "words"), [(2, "evaluate"), (1, "SYNTH --real {root}/nowhere"), (1, "eval none")]
)
def test_an_error_beside_json_leaves_standard_output_empty(
    usk: Command, world: World, code: int, words: str
) -> None:
    usk("--json", *parse(world, words)).refused(code)


def test_an_empty_name_is_no_way_to_the_source_in_the_environment(
    usk: Command, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("USK_REAL", str(world.urban))
    assert usk(*world.synth(), "--dry-run", "--quiet").code == 0
    for command in ("synth", "train", "audit", "report"):
        monkeypatch.chdir(world.root)
        (world.root / "synth").mkdir(exist_ok=True)
        usk(command, "--real", "", "--quiet").refused(1)


def test_a_class_name_with_a_line_break_still_makes_one_line(usk: Command, world: World) -> None:
    (world.tones / "high").rename(world.tones / "hi\ngh")
    for recording in (1, 2, 3):
        shutil.rmtree(world.tones / "hi\ngh" / f"high{recording}")
    usk(*world.tones_synth(), "--quiet").refused(1, "class hi gh cannot be interpolated")


@pytest.mark.parametrize("spoil", [rows_without_audio, zero_bytes])
def test_skip_bad_goes_on_and_says_what_it_left_out_and_a_dry_run_leaves_out_the_same(
    usk: Command, world: World, spoil: Callable[[World], Case]
) -> None:
    command, _, _ = spoil(world)
    planned = usk(*command, "--skip-bad", "--dry-run", "--json").value
    ran = usk(*command, "--skip-bad", "--json")
    assert ran.code == 0
    assert ran.value["made"] == 6
    assert "skipped" in ran.err
    assert [json.loads(line) for line in (world.out / "plan.jsonl").read_text().splitlines()] == planned
    assert not any("low/low0/cut0" in parent for row in planned for parent in row["parents"])


def test_notes_stay_apart_from_the_error_line_and_the_class_that_it_names_can_be_left_out(
    usk: Command, world: World
) -> None:
    command, _, _ = class_with_one_recording(world)
    lines = usk(*command).err.splitlines()
    assert [line for line in lines if line.startswith("usk: ")] == lines[-1:]
    assert all(line.startswith("note: ") for line in lines[:-1]), lines
    ran = usk(*command, "--classes", "low,middle", "--json")
    assert set(ran.value["counts"]) == {"low", "middle"}


def test_info_takes_the_columns_that_its_error_names(usk: Command, world: World) -> None:
    folder = dataset_of(world.root / "set", ["b", "a"] * 4, column="Was ist das?")
    refused = usk("info", folder)
    assert refused.code == 1 and "has no label column among Was ist das?" in refused.err
    value = usk("info", folder, "--columns", "label=Was ist das?", "--json").value
    assert [row["class"] for row in value["classes"]] == ["a", "b"]


def test_columns_that_usk_found_are_no_option_of_the_user(usk: Command, world: World) -> None:
    sounds = shutil.copytree(world.clip().parent, world.root / "set" / "sounds")
    table = sounds.with_name("clips.csv")
    table.write_text("path,sound\nsounds/cut0.wav,1\nsounds/cut1.wav,2\n")
    usk("info", table.parent).refused(1, "--columns: ", "no label column among sound (")
    table.write_text("path,label\nsounds/cut0.wav,a\nsounds/cut0.wav,b\n")
    usk("info", table.parent).refused(1, "usk: column label: ", "has two labels")
    usk("info", table.parent, "--columns", "label=label").refused(1, "--columns label: ")


def test_a_bug_keeps_its_traceback(usk: Command, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("usk.synth.prepare.draw_plan", None)
    with pytest.raises(TypeError):
        usk(*world.synth(None, "--dry-run"))
