"""Find test clips that a mix classifies better or worse than its baseline."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np

from usk.data.leaks import leaking
from usk.data.source import Source
from usk.data.splits import fold_split
from usk.evaluate.details import ComparisonDetails
from usk.evaluate.pairing import pair_runs

MAX_CHANGES = 40  # of each mix in a comparison


@dataclass(frozen=True)
class Change:
    """The results of one test clip in the pairs of a mix and its baseline."""

    comparison: str
    baseline: str
    mix: str
    row: int  # in the real source
    fold: int | None  # the test fold
    datasets: frozenset[str]  # revisions of the datasets that the mix was trained on
    n_before: int  # correct runs of the baseline
    n_now: int  # correct runs of the mix
    n_pairs: int
    wrong: str  # the most frequent wrong prediction

    @property
    def is_better(self) -> bool:
        return self.n_now > self.n_before


def find_changes(details: ComparisonDetails, real: Source) -> list[Change]:
    """Return the clips of each mix that changed in most pairs of runs on `real`, alternately better and worse ones."""
    row_of = {clip.clip_id: row for row, clip in enumerate(real.clips)}
    baseline, *others = details.comparison.by_mix
    changes: list[Change] = []
    for mix in others:
        of_mix = _changes_of_mix(details, baseline, mix, row_of, real.revision)
        of_mix.sort(key=lambda change: (-abs(change.n_now - change.n_before), change.row))
        better = [change for change in of_mix if change.is_better]
        worse = [change for change in of_mix if not change.is_better]
        alternating = [change for pair in zip_longest(better, worse) for change in pair if change is not None]
        changes += alternating[:MAX_CHANGES]
    return changes


def _changes_of_mix(
    details: ComparisonDetails, baseline: str, mix: str, row_of: dict[str, int], revision: str
) -> list[Change]:
    by_mix = details.comparison.by_mix
    # Numbers of correct runs before, correct runs now, and pairs.
    counts: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(3, dtype=int))
    wrong: dict[str, tuple[Counter[int], Counter[int]]] = defaultdict(lambda: (Counter(), Counter()))
    run_of = {}  # a run of the mix that tested the clip
    for pair in pair_runs(by_mix[baseline], by_mix[mix]):
        if any(run.real.revision != revision for run in pair):
            continue
        for i, clip_id in enumerate(pair[0].predictions.clip_ids.tolist()):
            counts[clip_id] += [pair[0].correct[i], pair[1].correct[i], 1]
            run_of[clip_id] = pair[1]
            for side, run in enumerate(pair):
                if not run.correct[i]:
                    wrong[clip_id][side][int(run.predictions.predicted[i])] += 1
    return [
        Change(
            comparison=details.comparison.title,
            baseline=baseline,
            mix=mix,
            row=row_of[clip_id],
            fold=run_of[clip_id].fold,
            datasets=frozenset(source.revision for source in run_of[clip_id].sources if source.trained),
            n_before=int(before),
            n_now=int(now),
            n_pairs=int(n),
            wrong=run_of[clip_id].class_names[wrong[clip_id][int(now < before)].most_common(1)[0][0]],
        )
        for clip_id, (before, now, n) in counts.items()
        if before != now and clip_id in row_of
    ]


def usable_for_training(synthetic: Source, real: Source, fold: int | None) -> np.ndarray:
    """Return which synthetic clips may be trained on if `fold` is tested: bool [clips]. No clip may without several folds."""
    if fold not in real.folds or len(real.folds) < 2:
        return np.zeros(len(synthetic), dtype=bool)
    return ~leaking(synthetic, real, fold_split(real.clips, fold))
