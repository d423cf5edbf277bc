"""The data behind a comparison for charts: runs, pairs, confusion matrices, training curves, results by number of train clips.

Everything is computed when it is first used. Verdicts come from `usk.evaluate.compare` alone.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from usk.evaluate.compare import Comparison, compare_runs, pooled_confusion_matrix
from usk.runs import RunRecord

NOT_SETTINGS = {"format", "mix", "class_names", "sources", "seed", "fold", "split"}


@dataclass(frozen=True)
class SweepPoint:
    """The accuracy of one mix with one number of train clips: mean, lowest and highest run, as fractions."""

    series: str
    n_clips: int
    mean: float
    low: float
    high: float
    n_runs: int


@dataclass(frozen=True)
class TrainClipsSweep:
    """The accuracy of each mix by number of train clips, from comparisons that differ only in this number."""

    setting: str  # `Comparison.setting` and `Comparison.warning` of all of them
    warning: str | None
    points: tuple[SweepPoint, ...]  # by mix, then by increasing number of real clips


@dataclass(frozen=True)
class ComparisonDetails:
    """A comparison with the data behind it."""

    comparison: Comparison

    @cached_property
    def runs(self) -> tuple[RunRecord, ...]:
        """The compared runs by mix, the baseline first."""
        return tuple(run for members in self.comparison.by_mix.values() for run in members)

    @cached_property
    def pairs(self) -> tuple[tuple[RunRecord, float], ...]:
        """Runs that are paired with a baseline run, and their differences in accuracy (percentage points), by mix."""
        baseline = self.comparison.baseline
        partners = {run.key: run for run in self.comparison.by_mix[baseline]}
        return tuple(
            (run, 100 * (run.accuracy - partners[run.key].accuracy))
            for run in self.runs
            if run.mix != baseline and run.key in partners
        )

    def confusion_matrix(self, mix: str) -> np.ndarray:
        """Return the confusion matrix of all runs of a mix, [true, predicted]. Each row sums to 1, or is NaN without test clips."""
        counts = pooled_confusion_matrix(self.comparison.by_mix[mix])
        with np.errstate(invalid="ignore"):
            return np.asarray(counts / counts.sum(axis=1, keepdims=True))

    @cached_property
    def histories(self) -> dict[Path, list[dict[str, Any]] | None]:
        """The training history of each run, by folder; see `read_history`."""
        return {run.folder: read_history(run.folder) for run in self.runs}

    def curves(self, metric: str) -> dict[str, tuple[list[int], np.ndarray]]:
        """Return a training metric, such as `loss`, by mix: epochs for which all runs have a value, and values [runs, epochs].

        Mixes with fewer than two such epochs are left out.
        """
        curves = {
            mix: _training_curve(metric, [self.histories[run.folder] or [] for run in runs])
            for mix, runs in self.comparison.by_mix.items()
        }
        return {mix: curve for mix, curve in curves.items() if len(curve[0]) > 1}

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The settings that are the same for all runs."""
        first, *others = (run.identity for run in self.runs)
        return {
            name: value
            for name, value in first.items()
            if name not in NOT_SETTINGS and all(record.get(name) == value for record in others)
        }

    @cached_property
    def notes(self) -> tuple[str, ...]:
        return tuple(
            f"{folder.name}: history.json cannot be read, so its learning curve is missing"
            for folder, history in self.histories.items()
            if history is None
        )


def compare_in_detail(folder: str | Path = "runs", baseline: str | None = None) -> list[ComparisonDetails]:
    """Compare all runs in a folder, as `usk.evaluate.compare.compare_runs` does, with details."""
    return [ComparisonDetails(comparison) for comparison in compare_runs(folder, baseline)]


def train_clips_sweeps(comparisons: Sequence[Comparison]) -> list[TrainClipsSweep]:
    """Return a sweep for each setting with several numbers of train clips. Mixes without real clips are left out."""
    by_setting: dict[str, list[Comparison]] = defaultdict(list)
    for comparison in comparisons:
        by_setting[comparison.setting].append(comparison)
    sweeps = []
    for setting, members in by_setting.items():
        if len({one.train_clips for one in members}) > 1 and (points := _sweep_points(members)):
            sweeps.append(TrainClipsSweep(setting, members[0].warning, points))
    return sweeps


def _sweep_points(comparisons: Sequence[Comparison]) -> tuple[SweepPoint, ...]:
    by_mix: dict[str, list[SweepPoint]] = defaultdict(list)
    for comparison in comparisons:
        for row in comparison.rows:
            if row.n_real:
                values = [run.accuracy for run in comparison.by_mix[row.mix]]
                mean, low, high = float(np.mean(values)), min(values), max(values)
                by_mix[row.mix].append(SweepPoint(row.mix, row.n_real, mean, low, high, len(values)))
    return tuple(
        point for points in by_mix.values() for point in sorted(points, key=lambda point: point.n_clips)
    )


def read_history(folder: Path) -> list[dict[str, Any]] | None:
    """Read what `usk train` recorded of each epoch: empty if there is no history, None if the file cannot be read."""
    file = folder / "history.json"
    if not file.is_file():
        return []
    try:
        return [dict(epoch) for epoch in json.loads(file.read_text(encoding="utf-8"))]
    except (OSError, TypeError, ValueError, RecursionError):
        return None


def _training_curve(metric: str, histories: Sequence[list[dict[str, Any]]]) -> tuple[list[int], np.ndarray]:
    runs: list[dict[int, float]] = []  # the values of each run by epoch
    for history in histories:
        values = {
            epoch: float(record[metric])
            for epoch, record in enumerate(history, 1)
            if isinstance(record.get(metric), int | float) and math.isfinite(record[metric])
        }
        if values:
            runs.append(values)
    epochs = sorted(set.intersection(*map(set, runs))) if runs else []
    return epochs, np.array([[values[epoch] for epoch in epochs] for values in runs])
