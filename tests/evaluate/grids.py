"""Write grids of runs with four classes, and look up rows of their comparisons."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests import runs
from usk.evaluate.compare import Comparison, MixRow

CLASS_NAMES = ["air", "bark", "drill", "siren"]
N_CLIPS = 80


def write_run(root: Path, mix: str = "real", fold: int = 1, seed: int = 0, **changes: Any) -> Path:
    """Write a run of `tests.runs` with four classes into a folder named after it. No test clip is a siren."""
    name = f"{mix.replace(',', '+')}-{changes.get('data', '')}fold{fold}-{seed}"
    options = {"name": name, "class_names": CLASS_NAMES, "n_clips": N_CLIPS, "n_tested": 3, "epochs": 5}
    return runs.write_run(root, mix, seed, fold, **(options | changes))


def write_grid(root: Path, gain: float = 0.2, seeds: tuple[int, ...] = (0, 1)) -> None:
    """Write runs of 2 mixes x 2 folds x seeds."""
    for fold in (1, 2):
        for seed in seeds:
            write_run(root, "real,synth", fold, seed, skill=0.6 + gain)
            write_run(root, "real", fold, seed, skill=0.6)


def only(comparisons: list[Comparison]) -> Comparison:
    assert len(comparisons) == 1
    return comparisons[0]


def row_of(comparison: Comparison, mix: str) -> MixRow:
    return next(row for row in comparison.rows if row.mix == mix)
