"""`--train-clips` through the real entry point: synth and train agree, sweeps resume, eval tells train_clips apart."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from torch import nn

from usk.audio.features import FeatureSettings
from usk.audio.mel import MelSettings
from usk.classify import recipe, registry
from usk.data.decode import decode_source
from usk.data.open import open_source
from usk.data.train_subset import TrainSubset

Command = Callable[..., Any]


@pytest.fixture(autouse=True)
def _tiny_classifier(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    mel = MelSettings(n_fft=1_024, hop_samples=512, n_mels=16, n_frames=8)

    def build(n_classes: int) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(16 * 8, n_classes))

    tiny = recipe.ClassifierPreset(build, FeatureSettings(mel, True), 2, 32, 1e-2, 0.0, False, 0.0, "none")
    monkeypatch.setitem(registry.CLASSIFIERS, "tiny", tiny)
    yield


@pytest.fixture
def few(usk: Command, urbansound8k_folder: Path, tmp_path: Path) -> Path:
    """Waveform sums of 6 and 9 train_clips, for test fold 2, two seeds."""
    ran = usk(
        "synth", "--real", urbansound8k_folder, "--strategy", "waveform", "--out", tmp_path / "few",
        "--per-class", 2, "--train-clips", "6,9", "--test-folds", 2, "--seeds", 2, "--json",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    assert [Path(made["folder"]).name for made in ran.value["datasets"]] == [
        "6-train_clips-fold2-seed0", "9-train_clips-fold2-seed0", "6-train_clips-fold2-seed1", "9-train_clips-fold2-seed1",
    ]  # fmt: skip
    return tmp_path / "few"


def train(usk: Command, real: Path, out: Path, *more: object) -> Any:
    return usk(
        "train --classifier tiny --seeds 1 --test-folds 2 --device cpu --json",
        "--real",
        real,
        "--out",
        out,
        *more,
    )


def parents_in(folder: Path) -> set[str]:
    rows = pq.read_table(folder / "data").to_pylist()
    return {parent for row in rows for parent in row["parents"]}


def test_datasets_of_several_draws_share_no_noise(few: Path) -> None:
    seeds = [row["seed"] for folder in few.iterdir() for row in pq.read_table(folder / "data").to_pylist()]
    assert len(seeds) == 4 * 6 == len(set(seeds))


def test_clips_are_made_from_the_clips_that_train_with_them(
    usk: Command, few: Path, urbansound8k_folder: Path, tmp_path: Path
) -> None:
    clips = decode_source(open_source(urbansound8k_folder)).source.clips
    for train_clips in (6, 9):
        for seed in (0, 1):
            subset = TrainSubset(train_clips, 2, seed)
            trained = {clips[row].sound for row in subset.split(clips).train}
            assert parents_in(few / subset.name) <= trained
    mixes = ["--mix", "real", "--mix", "real,synth", "--synth", few]
    ran = train(
        usk, urbansound8k_folder, tmp_path / "runs", *mixes, "--train-clips", "6,9,full", "--seeds", 2,
        "--mix", "real,synth:0.5",
    )  # fmt: skip
    assert ran.code == 2 or ran.code == 1
    assert "has no clips for the full training part" in ran.err
    assert "`usk synth`, train clips full, test fold 2" in ran.err
    ran = train(usk, urbansound8k_folder, tmp_path / "runs", *mixes, "--train-clips", "6,9", "--seeds", 2)
    assert ran.code == 0, ran.err
    runs = ran.value["runs"]
    assert [
        (r["seed"], r["train_clips"], r["mix"], r["n_real"], r["n_synthetic"], r["dropped"]) for r in runs
    ] == [
        (seed, train_clips, mix, train_clips, 6 if "synth" in mix else 0, 0)
        for seed in (0, 1)
        for train_clips in (6, 9)
        for mix in ("real", "real,synth")
    ]
    assert len({run["steps"] for run in runs}) == 1

    # The same sweep, further: what is there is found, the rest is trained.
    ran = train(
        usk, urbansound8k_folder, tmp_path / "runs", "--mix", "real", "--train-clips", "6,full", "--seeds", 1
    )
    assert ran.code == 0, ran.err
    assert [run["folder"] == runs[0]["folder"] for run in ran.value["runs"]] == [True, False]
    assert ran.value["runs"][1]["train_clips"] is None

    shown = usk("eval", tmp_path / "runs", "--json").value
    assert [(c["train_clips"], [row["mix"] for row in c["rows"]]) for c in shown] == [
        (6, ["real", "real,synth"]),
        (9, ["real", "real,synth"]),
        (None, ["real"]),
    ]
    assert [c["rows"][1]["difference"]["n_pairs"] for c in shown[:2]] == [2, 2]
    tables = usk("eval", tmp_path / "runs").out
    assert "by train clips: " in tables and "classifier tiny, augment" in tables
    assert ", 6 train clips" in tables


def test_a_draw_is_the_same_on_a_machine_of_its_own(
    usk: Command, few: Path, urbansound8k_folder: Path, tmp_path: Path
) -> None:
    ran = usk(
        "synth", "--real", urbansound8k_folder, "--strategy", "waveform", "--out", tmp_path / "alone",
        "--per-class", 2, "--train-clips", "6,full", "--test-folds", 2, "--seed", 1, "--json",
    )  # fmt: skip
    made = [Path(dataset["folder"]) for dataset in ran.value["datasets"]]
    assert [folder.name for folder in made] == ["6-train_clips-fold2-seed1", "full-fold2"]
    assert pq.read_table(made[0] / "data").equals(pq.read_table(few / made[0].name / "data"))
    refused = usk("synth", "--real", urbansound8k_folder, "--train-clips", 6, "--seed", -1)
    assert refused.code == 2 and refused.err.splitlines()[-1] == "usk: --seed -1: must be at least 0"


def test_what_it_says_to_do_next_trains_on_all_datasets(
    usk: Command, urbansound8k_folder: Path, tmp_path: Path
) -> None:
    few = tmp_path / "few"
    made = usk(
        "synth", "--real", urbansound8k_folder, "--strategy", "waveform", "--out", few, "--per-class", 1,
        "--train-clips", "6", "--test-folds", "2,3", "--seed", 1, "--seeds", 2,
    )  # fmt: skip
    _, _, following = made.out.replace("\n", " ").partition("Next: usk ")
    assert "--test-folds 2,3 --seed 1 --seeds 2" in following, made.out
    more = ("--classifier", "tiny", "--device", "cpu", "--out", tmp_path / "runs", "--json")
    runs = usk(*shlex.split(following), *more).value["runs"]
    found = {(run["fold"], run["seed"]) for run in runs if run["n_synthetic"]}
    assert found == {(2, 1), (2, 2), (3, 1), (3, 2)}


@pytest.mark.slow
def test_a_sweep_in_several_processes_is_the_same_sweep(
    usk: Command, few: Path, urbansound8k_folder: Path, tmp_path: Path
) -> None:
    sweep = [
        "--mix", "real", "--mix", "real,synth", "--synth", few, "--train-clips", "6,9", "--classifier", "small", "--epochs", 1,
        "--batch", 2,
    ]  # fmt: skip
    said = [
        train(
            usk, urbansound8k_folder, tmp_path / f"runs{workers}", *sweep, "--workers", workers, "--verbose"
        )
        for workers in (1, 2)
    ]
    assert [ran.code for ran in said] == [0, 0], said[1].err
    assert "workers 2" in said[1].err and "workers" not in said[0].err
    ignored = ("took_s", "created", "folder")
    first, second = (
        [{key: value for key, value in run.items() if key not in ignored} for run in ran.value["runs"]]
        for ran in said
    )
    assert first == second and len(first) == 4


def test_clips_of_larger_draws_are_left_out_of_smaller_ones(
    usk: Command, few: Path, urbansound8k_folder: Path, tmp_path: Path
) -> None:
    """One dataset by name instead of the folder of all: the rule decides, not the folder's name."""
    big = few / "9-train_clips-fold2-seed0"
    clips = decode_source(open_source(urbansound8k_folder)).source.clips
    train_clips = {clips[row].sound for row in TrainSubset(6, 2, 0).split(clips).train}
    rows = pq.read_table(big / "data").to_pylist()
    usable = sum(train_clips.issuperset(row["parents"]) for row in rows)
    assert 0 < usable < len(rows)
    ran = train(
        usk,
        urbansound8k_folder,
        tmp_path / "runs",
        "--mix",
        "real,synth",
        "--synth",
        big,
        "--train-clips",
        "6,9",
        "--no-baseline",
    )
    assert ran.code == 0, ran.err
    assert [(r["n_synthetic"], r["dropped"]) for r in ran.value["runs"]] == [
        (usable, len(rows) - usable),
        (len(rows), 0),
    ]


def test_synth_goes_on_where_it_stopped_and_shows_its_plan(
    usk: Command, few: Path, urbansound8k_folder: Path
) -> None:
    arguments = [
        "synth", "--real", urbansound8k_folder, "--strategy", "waveform", "--out", few, "--per-class", 2,
        "--train-clips", "6,full", "--test-folds", 2,
    ]  # fmt: skip
    planned = usk(*arguments, "--dry-run", "--json").value
    assert {row["dataset"] for row in planned} == {"6-train_clips-fold2-seed0", "full-fold2"}
    assert usk(*arguments[:-1], "2,2", "--dry-run", "--json").value == planned
    ran = usk(*arguments, "--json")
    assert [made["made"] for made in ran.value["datasets"]] == [0, 6]
    assert json.loads((few / "full-fold2" / "usk.json").read_text())["train_clips"] == {
        "train_clips": None, "test_fold": 2, "seed": 0,
    }  # fmt: skip
    assert "2 datasets in" in usk(*arguments).out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["--train-clips", "some"],
            "--train-clips some: not numbers of real clips",
        ),
        (["--train-clips", 6, "--test-folds", 9], "--test-folds 9: "),
        (["--train-clips", 999], "--train-clips 999: the training part of fold1 has"),
        (["--train-clips", 6, "--seeds", 0], "--seeds 0: must be at least 1"),
        (["--seeds", 2], "--seeds 2: has no effect without numbers of training clips"),
        (["--train-clips", 3, "--test-folds", 2], "--train-clips 3: too few: class"),
    ],
)
def test_wrong_train_clips_for_synth(
    usk: Command, urbansound8k_folder: Path, tmp_path: Path, arguments: list[object], said: str
) -> None:
    ran = usk(
        "synth", "--real", urbansound8k_folder, "--strategy", "waveform", "--out", tmp_path / "out", *arguments
    )  # fmt: skip
    assert ran.code in (1, 2)
    assert ran.err.splitlines()[-1].startswith(f"usk: {said}")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--train-clips", "0"], "--train-clips 0: not numbers of real clips"),
        (["--train-clips", "999"], "--train-clips 999: the training part of fold2 has"),
    ],
)
def test_wrong_train_clips_for_train(
    usk: Command, urbansound8k_folder: Path, tmp_path: Path, arguments: list[object], said: str
) -> None:
    ran = train(usk, urbansound8k_folder, tmp_path / "runs", *arguments)
    assert ran.code == 2
    assert ran.err.splitlines()[-1].startswith(f"usk: {said}")
    assert not (tmp_path / "runs").exists()


def test_train_clips_into_a_dataset_are_refused(
    usk: Command, few: Path, urbansound8k_folder: Path, tmp_path: Path
) -> None:
    ran = usk(
        "synth", "--real", urbansound8k_folder, "--strategy", "waveform", "--out", few / "6-train_clips-fold2-seed0",
        "--train-clips", 6,
    )  # fmt: skip
    assert ran.code == 2
    assert "is one dataset. Choose another folder" in ran.err


def test_train_clips_that_cannot_be_made_are_refused_before_the_others_are(
    usk: Command, urbansound8k_folder: Path, tmp_path: Path
) -> None:
    ran = usk(
        "synth", "--real", urbansound8k_folder, "--strategy", "waveform", "--out", tmp_path / "out",
        "--train-clips", "18,3", "--test-folds", 2, "--per-class", 1, "--seeds", 2,
    )  # fmt: skip
    assert ran.code == 1 and not (tmp_path / "out").exists()
    assert ran.err.splitlines()[-1].startswith(
        "usk: --train-clips 3: 3-train_clips-fold2-seed0 cannot be made (nor can 3-train_clips-fold2-seed1): too few: class"
    )
