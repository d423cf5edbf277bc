"""`--train-clips`: synthetic clips made from the same real clips, resumed sweeps, and `usk eval` by train clips."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.classify.conftest import tiny_classifier  # noqa: F401
from usk.data.decode import decode_source
from usk.data.open import open_source
from usk.data.train_subset import TrainSubset
from usk.errors import UskError
from usk.synth.settings import SynthConfig, render_config
from usk.synth.subsets import synthesize_subsets

Command = Callable[..., Any]
SUMS = SynthConfig(2, render=render_config(strategy="waveform"))
pytestmark = pytest.mark.usefixtures("tiny_classifier")


@pytest.fixture
def few(urbansound8k_folder: Path, tmp_path: Path) -> Path:
    """Datasets of waveform sums of 6 and 9 train clips, for test fold 2 and two seeds."""
    subsets = [TrainSubset(n, 2, seed) for seed in (0, 1) for n in (6, 9)]
    made = synthesize_subsets(open_source(urbansound8k_folder), tmp_path / "few", subsets, SUMS)
    assert [one.folder.name for one in made] == [subset.name for subset in subsets]
    return tmp_path / "few"


def train(usk: Command, real: Path, out: Path, more: str) -> Any:
    few = "train --classifier tiny --seeds 1 --test-folds 2 --device cpu --json"
    return usk(f"{few} --real {real} --out {out} {more}")


def find_parents(folder: Path) -> set[str]:
    rows = pq.read_table(folder / "data").to_pylist()
    return {parent for row in rows for parent in row["parents"]}


def test_clips_are_made_from_the_clips_that_train_with_them(
    usk: Command, few: Path, urbansound8k_folder: Path, tmp_path: Path
) -> None:
    seeds = [row["seed"] for folder in few.iterdir() for row in pq.read_table(folder / "data").to_pylist()]
    assert len(seeds) == 4 * 6 == len(set(seeds)), "datasets of several draws share no noise"
    clips = decode_source(open_source(urbansound8k_folder)).source.clips
    for train_clips in (6, 9):
        for seed in (0, 1):
            subset = TrainSubset(train_clips, 2, seed)
            trained = {clips[row].sound for row in subset.split(clips).train}
            assert find_parents(few / subset.name) <= trained
    real, out = urbansound8k_folder, tmp_path / "runs"
    mixes = f"--mix real --mix real,synth --synth {few} --seeds 2"
    ran = train(usk, real, out, "--train-clips 999")
    assert ran.code == 2 and not out.exists()
    assert ran.err.splitlines()[-1].startswith("usk: --train-clips 999: the training part of fold2 has")
    ran = train(usk, real, out, f"{mixes} --train-clips 6,9,full")
    assert ran.code in (1, 2) and "has no clips for the full training part" in ran.err
    runs = train(usk, real, out, f"{mixes} --train-clips 6,9").done().value["runs"]
    told = ("seed", "train_clips", "mix", "n_real", "n_synthetic", "dropped")
    assert [tuple(run[name] for name in told) for run in runs] == [
        (seed, train_clips, mix, train_clips, 6 if "synth" in mix else 0, 0)
        for seed in (0, 1)
        for train_clips in (6, 9)
        for mix in ("real", "real,synth")
    ]
    assert len({run["steps"] for run in runs}) == 1

    # A larger sweep finds the finished runs and trains the others.
    first, rest = train(usk, real, out, "--mix real --train-clips 6,full").done().value["runs"]
    assert first["folder"] == runs[0]["folder"] != rest["folder"]
    assert rest["train_clips"] is None

    shown = usk(f"eval {out} --json").value
    both = ["real", "real,synth"]
    found = [(c["train_clips"], [row["mix"] for row in c["rows"]]) for c in shown]
    assert found == [(6, both), (9, both), (None, ["real"])]
    assert [c["rows"][1]["difference"]["n_pairs"] for c in shown[:2]] == [2, 2]
    tables = usk(f"eval {out}").out
    assert "by train clips: " in tables and "classifier tiny, augment" in tables
    assert ", 6 train clips" in tables


def test_clips_of_larger_draws_are_left_out_of_smaller_ones(
    usk: Command, few: Path, urbansound8k_folder: Path, tmp_path: Path
) -> None:
    """The same rule holds for a single dataset as for the folder of subsets."""
    big = few / "9-train_clips-fold2-seed0"
    clips = decode_source(open_source(urbansound8k_folder)).source.clips
    train_clips = {clips[row].sound for row in TrainSubset(6, 2, 0).split(clips).train}
    rows = pq.read_table(big / "data").to_pylist()
    usable = sum(train_clips.issuperset(row["parents"]) for row in rows)
    assert 0 < usable < len(rows)
    more = f"--mix real,synth --synth {big} --train-clips 6,9 --no-baseline"
    runs = train(usk, urbansound8k_folder, tmp_path / "runs", more).done().value["runs"]
    expected = [(usable, len(rows) - usable), (len(rows), 0)]
    assert [(run["n_synthetic"], run["dropped"]) for run in runs] == expected


def test_what_is_made_is_found_and_its_record_names_the_subset(few: Path, urbansound8k_folder: Path) -> None:
    subsets, source = [TrainSubset(6, 2), TrainSubset(None, 2)], open_source(urbansound8k_folder)
    assert [made.n_made for made in synthesize_subsets(source, few, subsets, SUMS)] == [0, 6]
    kept = json.loads((few / "full-fold2" / "usk.json").read_text())["train_clips"]
    assert kept == {"train_clips": None, "test_fold": 2, "seed": 0}


@pytest.mark.parametrize(
    ("out", "subsets", "message"),
    [
        ("out", [TrainSubset(999, 1)], "train_clips 999: the training part of fold1 has"),
        ("few/6-train_clips-fold2-seed0", [TrainSubset(6, 2)], "is one dataset. Choose another folder"),
        ("out", [TrainSubset(18, 2), TrainSubset(3, 2), TrainSubset(3, 2, 1)],
         r"train_clips 3: 3-train_clips-fold2-seed0 cannot be made \(nor can 3-train_clips-fold2-seed1\): too few: class"),
    ],
)  # fmt: skip
def test_what_cannot_be_made_is_refused_before_anything_is(
    few: Path, urbansound8k_folder: Path, tmp_path: Path, out: str, subsets: list[TrainSubset], message: str
) -> None:
    with pytest.raises(UskError, match=message):
        synthesize_subsets(open_source(urbansound8k_folder), tmp_path / out, subsets, SUMS)
    assert not (tmp_path / "out").exists()
