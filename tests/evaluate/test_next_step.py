"""Tests of the suggested number of seeds, and of the estimated time."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.runs import write_run
from usk.evaluate.compare import compare_runs
from usk.evaluate.next_step import MoreSeeds, next_step
from usk.evaluate.verdict import Verdict


def suggestion(root: Path, folds: tuple[int, ...], n_seeds: int, better: float = 0.0) -> MoreSeeds | None:
    for fold in folds:
        for seed in range(n_seeds):
            write_run(root, "real", seed, fold, skill=0.5, took_s=10.0)
            write_run(root, "real,synth", seed, fold, skill=0.5 + better, took_s=20.0)
    return next_step(compare_runs(root)[0])


@pytest.mark.parametrize(
    ("folds", "n_seeds", "seeds", "train_s"),
    [
        ((1,), 1, 6, 150.0),  # six pairs are needed: five more of 30 s
        ((1, 2), 1, 3, 120.0),
        ((1, 2, 3), 2, 4, 180.0),  # enough pairs but no difference: twice as many
    ],
)
def test_missing_seeds_are_estimated_to_take_as_long_as_finished_ones(
    tmp_path: Path, folds: tuple[int, ...], n_seeds: int, seeds: int, train_s: float
) -> None:
    assert suggestion(tmp_path, folds, n_seeds) == MoreSeeds(("real,synth",), seeds, seeds - n_seeds, train_s)


def test_nothing_is_suggested_once_clips_help(tmp_path: Path) -> None:
    assert suggestion(tmp_path, (1, 2, 3), 3, better=0.3) is None
    assert compare_runs(tmp_path)[0].rows[1].verdict is Verdict.HELPS


def test_nothing_is_suggested_where_the_baseline_makes_no_errors(tmp_path: Path) -> None:
    for mix in ("real", "real,synth"):
        for seed in range(6):
            write_run(tmp_path, mix, seed, skill=1.0)
    (comparison,) = compare_runs(tmp_path)
    assert comparison.rows[1].verdict is Verdict.NOT_DISTINGUISHABLE
    assert next_step(comparison) is None
    assert any("no mix can be better" in note for note in comparison.notes)
