"""What stands behind a comparison, as plain rows to draw: every run, every pair, confusions, sweeps, learning curves.

Pure but for reading `history.json` beside each run; nothing here decides anything that `usk.evaluate.compare` does not.
"""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from usk.evaluate.compare import Comparison, comparable, compare
from usk.evaluate.metrics import confusion_matrix
from usk.runs import RunRecord, read_runs

CURVE_FIGURES = ("validation_accuracy", "loss")


@dataclass(frozen=True)
class RunPoint:
    """One run that counts; `accuracy` and `macro_f1` are fractions."""

    name: str
    mix: str
    split: str
    seed: int
    accuracy: float
    macro_f1: float
    n_real: int
    n_synthetic: int
    dropped: int
    best_epoch: int | None
    epochs: int
    validation_accuracy: float | None


@dataclass(frozen=True)
class PairPoint:
    """One fold-seed pair: a mix's accuracy less the baseline's, in points."""

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
    """Comparisons that differ in train_clips alone, one after the other: a point for each mix and number of train_clips."""

    setting: str  # `Comparison.setting`, which they share
    warning: str | None  # and their warning
    points: tuple[SweepPoint, ...]  # by mix, each from the fewest real clips on


@dataclass(frozen=True)
class Curve:
    """One figure of training over the epochs of a mix's runs that noted it: the mean and the extremes, one value an epoch."""

    mix: str
    figure: str
    epochs: tuple[int, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    n_runs: int


@dataclass(frozen=True)
class Study:
    """One comparison and what stands behind it."""

    comparison: Comparison
    runs: tuple[RunPoint, ...]
    pairs: tuple[PairPoint, ...]
    confusions: tuple[Confusion, ...]  # baseline first, as in the comparison
    by_real: tuple[SweepPoint, ...]  # empty where only one size was run
    by_synthetic: tuple[SweepPoint, ...]
    curves: tuple[Curve, ...]
    settings: dict[str, Any]  # what the runs share in run.json
    notes: tuple[str, ...] = ()


def study_runs(folder: str | Path = "runs", baseline: str | None = None) -> list[Study]:
    """`study` over every run under `folder`."""
    return study(read_runs(folder), baseline)


def studies_of(revision: str, folder: str | Path = "runs", baseline: str | None = None) -> list[Study]:
    """Those of `study_runs` that say what a dataset was worth: all runs that count of some mix in them were trained on
    this revision of it, or, of few train_clips, one was: there each seed and test fold has a dataset of its own."""

    def is_of_it(comparison: Comparison, members: dict[str, list[RunRecord]]) -> bool:
        holds = [
            [revision in run.revisions for run in of_mix]
            for mix, of_mix in members.items()
            if mix != comparison.baseline
        ]
        return any(all(found) if comparison.train_clips is None else any(found) for found in holds)

    return [
        _study(comparison, members)
        for comparison, members in _compared(read_runs(folder), baseline)
        if is_of_it(comparison, members)
    ]


def study(runs: Sequence[RunRecord], baseline: str | None = None) -> list[Study]:
    """One study for each comparison of `usk.evaluate.compare.compare`, from the runs that count in it."""
    return [_study(comparison, members) for comparison, members in _compared(runs, baseline)]


def _compared(
    runs: Sequence[RunRecord], baseline: str | None
) -> list[tuple[Comparison, dict[str, list[RunRecord]]]]:
    """Each comparison with the runs that count in it, by mix."""
    return [
        (comparison, _members(comparison, alike.runs))
        for comparison, alike in zip(compare(runs, baseline), comparable(runs, baseline), strict=True)
    ]


def _members(comparison: Comparison, runs: Sequence[RunRecord]) -> dict[str, list[RunRecord]]:
    """By mix, baseline first: of several `runs`, oldest first, of one mix, split and seed the newest."""
    newest = {(run.mix, *run.key): run for run in runs}
    members: dict[str, list[RunRecord]] = {row.mix: [] for row in comparison.rows}
    for run in newest.values():
        if run.mix in members:
            members[run.mix].append(run)
    return {mix: sorted(found, key=lambda run: run.key) for mix, found in members.items() if found}


def _study(comparison: Comparison, members: dict[str, list[RunRecord]]) -> Study:
    partners = {run.key: run for run in members.get(comparison.baseline, [])}
    pairs = [
        PairPoint(mix, run.split, run.seed, 100 * (run.accuracy - partners[run.key].accuracy))
        for mix, found in members.items()
        if mix != comparison.baseline
        for run in found
        if run.key in partners
    ]
    everything = [run for found in members.values() for run in found]
    return Study(
        comparison=comparison,
        runs=tuple(_point(run) for run in everything),
        pairs=tuple(pairs),
        confusions=tuple(Confusion(mix, _shares(found)) for mix, found in members.items()),
        by_real=_sweep(everything, "n_real"),
        by_synthetic=_sweep(everything, "n_synthetic"),
        curves=tuple(
            curve
            for figure in CURVE_FIGURES
            for mix, found in members.items()
            if (curve := _curve(mix, figure, found)) is not None
        ),
        settings=_shared_settings(everything),
        notes=tuple(
            f"{run.folder.name}: history.json cannot be read, so its learning curve is missing"
            for run in everything
            if read_history(run.folder) is None
        ),
    )


def _point(run: RunRecord) -> RunPoint:
    return RunPoint(
        name=run.folder.name,
        mix=run.mix,
        split=run.split,
        seed=run.seed,
        accuracy=run.accuracy,
        macro_f1=run.macro_f1,
        n_real=run.n_real,
        n_synthetic=run.n_synthetic,
        dropped=run.dropped,
        best_epoch=run.best_epoch,
        epochs=run.epochs,
        validation_accuracy=run.validation_accuracy,
    )


def _shares(runs: Sequence[RunRecord]) -> tuple[tuple[float, ...] | None, ...]:
    n_classes = len(runs[0].class_names)
    counts = sum(
        (confusion_matrix(run.labels, run.predicted, n_classes) for run in runs),
        np.zeros((n_classes, n_classes), dtype=np.int64),
    )
    return tuple(tuple((row / row.sum()).tolist()) if row.sum() else None for row in counts)


def series_of(mix: str, count: str) -> str:
    """A mix without the fractions of what is pluralize (`n_real` or `n_synthetic` clips): `real:0.1,synth` and `real,synth`
    are two sizes of one series by real clips; by synthetic ones they are two series."""

    def swept(part: str) -> str:
        whole = re.sub(r":[0-9.]+$", "", part)
        return whole if (whole == "real") == (count == "n_real") else part

    return ",".join(map(swept, mix.split(",")))


def _sweep(runs: Sequence[RunRecord], count: str) -> tuple[SweepPoint, ...]:
    """Accuracy by number of clips, for each series that was run at two sizes or more."""
    found: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    whole: dict[tuple[str, str], list[int]] = defaultdict(list)
    for run in runs:  # folds differ by a few clips: a size is a mix's mean over its runs
        whole[series_of(run.mix, count), run.mix].append(getattr(run, count))
    for run in runs:
        series = series_of(run.mix, count)
        size = round(float(np.mean(whole[series, run.mix])))
        found[series][size].append(run.accuracy)
    swept = {series: sizes for series, sizes in found.items() if len(sizes) > 1}
    if count == "n_synthetic":  # where a series begins: the same real clips and none of its own
        for series, sizes in swept.items():
            without = found.get(
                ",".join(part for part in series.split(",") if re.match("real(:|$)", part)), {}
            )
            sizes.setdefault(0, []).extend(without.get(0, []))
            if not sizes[0]:
                del sizes[0]
    return tuple(
        _sweep_point(series, size, values)
        for series, sizes in swept.items()
        for size, values in sorted(sizes.items())
    )


def _sweep_point(series: str, size: int, values: Sequence[float]) -> SweepPoint:
    return SweepPoint(series, size, float(np.mean(values)), min(values), max(values), len(values))


def sweeps_by_train_clips(studies: Sequence[Study]) -> list[Sweep]:
    """Accuracy by real clips in training, for each setting that was run with several numbers of train_clips.

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
                values = [run.accuracy for run in one.runs if run.mix == row.mix]
                found[row.mix].append(_sweep_point(row.mix, row.n_real, values))
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
    except (OSError, TypeError, ValueError):
        return None


def _curve(mix: str, figure: str, runs: Sequence[RunRecord]) -> Curve | None:
    """Over the epochs of which every run with a history noted the figure; None where those are fewer than two."""
    noted = []
    for run in runs:
        values = {
            number: float(epoch[figure])
            for number, epoch in enumerate(read_history(run.folder) or [], 1)
            if isinstance(epoch.get(figure), int | float) and math.isfinite(epoch[figure])
        }
        if values:
            noted.append(values)
    epochs = sorted(set.intersection(*map(set, noted))) if noted else []
    if len(epochs) < 2:
        return None
    table = np.array([[one[epoch] for epoch in epochs] for one in noted])
    return Curve(
        mix,
        figure,
        tuple(epochs),
        tuple(table.mean(axis=0).tolist()),
        tuple(table.min(axis=0).tolist()),
        tuple(table.max(axis=0).tolist()),
        len(noted),
    )


def _shared_settings(runs: Sequence[RunRecord]) -> dict[str, Any]:
    """The entries of run.json in which all runs agree, without what is said elsewhere."""
    records = [run.as_dict() for run in runs]
    spoken = {"format", "mix", "class_names", "created", "took_s", "seed", "fold", "split"}
    return {
        name: value
        for name, value in records[0].items()
        if name not in spoken and all(record.get(name) == value for record in records[1:])
    }
