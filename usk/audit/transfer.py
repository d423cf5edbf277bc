"""Train on synthetic clips, test on real ones (arXiv 1905.10887): what a classifier learns from the clips alone.

Beside it the same classifier trained on the real clips, with as many steps: what there was to learn.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from usk.audit.distances import Score
from usk.classify.train import TrainConfig, TrainProgress, train
from usk.data.source import Source
from usk.evaluate.stats import Pair, paired_bootstrap
from usk.runs import RunRecord, read_runs


@dataclass(frozen=True)
class Transfer:
    """Accuracy on real test clips (of one class: its recall), trained on synthetic and on real clips; fractions.

    In `Score`, `n` are the clips trained on, on average over the runs (of all classes), `n_real` those tested.
    """

    class_name: str  # "all" for all of them
    synthetic: Score
    real: Score


def train_on_synthetic(
    synthetic: Source,
    real: Source,
    test_folds: Sequence[int] = (),
    *,
    epochs: int | None = None,
    seeds: int = 1,
    device: str = "auto",
    report: Callable[[TrainProgress], None] = lambda _: None,
) -> list[Transfer]:
    """`usk train` on `synth` and on `real`, tested on `test_folds` (every clean one, if empty): all classes, then each.

    Leaks are dropped as in training. Intervals resample whole recordings. The classifiers are not kept.

    Raises LeakError where no clip may train, UsageError for a fold that is not there.
    """
    config = TrainConfig(folds=tuple(test_folds), epochs=epochs, seeds=seeds, device=device, skip_bad=True)
    with tempfile.TemporaryDirectory(prefix="usk-transfer-") as folder:
        train(real, ["synth", "real"], synth=synthetic, out=folder, config=config, report=report)
        runs = read_runs(folder)
    by_mix = {mix: [run for run in runs if run.mix == mix] for mix in ("synth", "real")}
    names = [("all", None), *((name, label) for label, name in enumerate(runs[0].class_names))]
    return [
        Transfer(name, _score(by_mix["synth"], label), _score(by_mix["real"], label))
        for name, label in names
        if label is None or any((run.labels == label).any() for run in runs)
    ]


def _score(runs: Sequence[RunRecord], label: int | None) -> Score:
    pairs = []
    for run in runs:
        rows = np.ones(len(run.labels), bool) if label is None else run.labels == label
        if rows.any():
            never = np.zeros(int(rows.sum()), bool)  # against one that is never right: the accuracy itself
            pairs.append(Pair(run.split, run.seed, run.groups[rows], never, run.correct[rows]))
    made: Any = paired_bootstrap(pairs)
    alike = (
        made.low_points == made.high_points
    )  # all are right, or none: how far others may differ is not known
    low, high = (
        None if bound is None or alike else round(min(max(bound / 100, 0.0), 1.0), 4)
        for bound in (made.low_points, made.high_points)
    )
    n = round(float(np.mean([run.n_real + run.n_synthetic for run in runs])))
    return Score(round(made.difference_points / 100, 4), low, high, n, made.n_clips)
