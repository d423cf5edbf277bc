"""What stands behind a comparison, as plain rows to draw: every run, every pair, confusions, sweeps, learning curves.

Nothing here decides anything that `usk.evaluate.compare` does not, and nothing is read or computed before it is asked for.
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

from usk.evaluate.compare import Comparison, compare_runs, pooled_confusions
from usk.runs import RunRecord

CURVE_FIGURES = ("validation_accuracy", "loss")
SAID_ELSEWHERE = {"format", "mix", "class_names", "created", "took_s", "seed", "fold", "split"}


@dataclass(frozen=True)
class PairPoint:
    """One fold-seed pair: the difference in accuracy to the baseline, in percentage points."""

    mix: str
    split: str
    seed: int
    difference_points: float


@dataclass(frozen=True)
class Confusion:
    """Shares of each true class's test clips by predicted class, [true][predicted], over all runs of a mix.

    A row is None for a class without test clips.
    """

    mix: str
    shares: tuple[tuple[float, ...] | None, ...]


@dataclass(frozen=True)
class SweepPoint:
    """Runs of one series at one size of its training data: mean accuracy and its extremes, fractions."""

    series: str
    n_clips: int
    mean: float
    low: float
    high: float
    n_runs: int


@dataclass(frozen=True)
class Sweep:
    """Comparisons that differ in train clips alone, one after the other: a point for each mix and number of train clips."""

    setting: str  # `Comparison.setting`, which they share
    warning: str | None  # and their warning
    points: tuple[SweepPoint, ...]  # by mix, each from the fewest real clips on


@dataclass(frozen=True)
class Curve:
    """A value of training over the epochs of a mix's runs that noted it: the mean and the extremes, one of each an epoch."""

    mix: str
    figure: str  # one of `CURVE_FIGURES`
    epochs: tuple[int, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    n_runs: int


@dataclass(frozen=True)
class Study:
    """One comparison and what stands behind it."""

    comparison: Comparison

    @cached_property
    def runs(self) -> tuple[RunRecord, ...]:
        """The runs that count, by mix, the baseline's first."""
        return tuple(run for members in self.comparison.by_mix.values() for run in members)

    @cached_property
    def pairs(self) -> tuple[PairPoint, ...]:
        """By mix, in the order of its runs."""
        baseline = self.comparison.baseline
        partners = {run.key: run for run in self.comparison.by_mix[baseline]}
        return tuple(
            PairPoint(run.mix, run.split, run.seed, 100 * (run.accuracy - partners[run.key].accuracy))
            for run in self.runs
            if run.mix != baseline and run.key in partners
        )

    @cached_property
    def confusions(self) -> tuple[Confusion, ...]:
        """The confusion matrix of each mix, baseline first."""
        return tuple(Confusion(mix, _shares(runs)) for mix, runs in self.comparison.by_mix.items())

    @cached_property
    def histories(self) -> dict[Path, list[dict[str, Any]] | None]:
        """`read_history` of each run's folder."""
        return {run.folder: read_history(run.folder) for run in self.runs}

    @cached_property
    def curves(self) -> tuple[Curve, ...]:
        found = (
            _curve(mix, value, [self.histories[run.folder] or [] for run in runs])
            for value in CURVE_FIGURES
            for mix, runs in self.comparison.by_mix.items()
        )
        return tuple(curve for curve in found if curve is not None)

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The entries of run.json in which all runs agree, without what is said elsewhere."""
        first, *others = (run.as_dict() for run in self.runs)
        return {
            name: value
            for name, value in first.items()
            if name not in SAID_ELSEWHERE and all(record.get(name) == value for record in others)
        }

    @cached_property
    def notes(self) -> tuple[str, ...]:
        return tuple(
            f"{folder.name}: history.json cannot be read, so its learning curve is missing"
            for folder, history in self.histories.items()
            if history is None
        )


def study_runs(folder: str | Path = "runs", baseline: str | None = None) -> list[Study]:
    """A study for each comparison of the runs under `folder`."""
    return [Study(comparison) for comparison in compare_runs(folder, baseline)]


def _shares(runs: Sequence[RunRecord]) -> tuple[tuple[float, ...] | None, ...]:
    return tuple(tuple((row / row.sum()).tolist()) if row.sum() else None for row in pooled_confusions(runs))


def sweeps_by_train_clips(studies: Sequence[Study]) -> list[Sweep]:
    """Accuracy by real clips in training, for each setting that was run with several numbers of train clips.

    A mix without real clips has no place on that scale and is left out.
    """
    alike: dict[str, list[Study]] = defaultdict(list)
    for one in studies:
        alike[one.comparison.setting].append(one)
    return [
        Sweep(setting, members[0].comparison.warning, points)
        for setting, members in alike.items()
        if len({one.comparison.train_clips for one in members}) > 1
        and (points := _points_by_train_clips(members))
    ]


def _points_by_train_clips(studies: Sequence[Study]) -> tuple[SweepPoint, ...]:
    """Mixes in order of their first comparison, baseline first."""
    found: dict[str, list[SweepPoint]] = defaultdict(list)
    for one in studies:
        for row in one.comparison.rows:
            if row.n_real:
                values = [run.accuracy for run in one.comparison.by_mix[row.mix]]
                mean, low, high = float(np.mean(values)), min(values), max(values)
                found[row.mix].append(SweepPoint(row.mix, row.n_real, mean, low, high, len(values)))
    return tuple(
        point for points in found.values() for point in sorted(points, key=lambda point: point.n_clips)
    )


def read_history(folder: Path) -> list[dict[str, Any]] | None:
    """What `usk train` noted of each epoch; empty for a run without, None where the file cannot be read."""
    file = folder / "history.json"
    if not file.is_file():
        return []
    try:
        return [dict(epoch) for epoch in json.loads(file.read_text(encoding="utf-8"))]
    except (OSError, TypeError, ValueError, RecursionError):
        return None


def _curve(mix: str, value: str, histories: Sequence[list[dict[str, Any]]]) -> Curve | None:
    """Over the epochs of which every run with a history noted the value; None where those are fewer than two."""
    noted = []
    for history in histories:
        values = {
            number: float(epoch[value])
            for number, epoch in enumerate(history, 1)
            if isinstance(epoch.get(value), int | float) and math.isfinite(epoch[value])
        }
        if values:
            noted.append(values)
    epochs = sorted(set.intersection(*map(set, noted))) if noted else []
    if len(epochs) < 2:
        return None
    table = np.array([[one[epoch] for epoch in epochs] for one in noted])
    mean, low, high = (tuple(of(axis=0).tolist()) for of in (table.mean, table.min, table.max))
    return Curve(mix, value, tuple(epochs), mean, low, high, len(noted))
