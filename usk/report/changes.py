"""Test clips on which a mix and its baseline differ: wrong before and right now, or the reverse."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from itertools import zip_longest

import numpy as np

from usk.data.leaks import leaking
from usk.data.source import Source
from usk.data.splits import fold_split
from usk.evaluate.details import ComparisonDetails
from usk.evaluate.pairing import pair_runs

SHOWN = 40  # of each mix in a comparison, those that changed in most runs


@dataclass(frozen=True)
class Change:
    """One test clip over the pairs of a mix and its baseline: how often each was right, and what the wrong one said."""

    comparison: str
    baseline: str
    mix: str
    row: int  # of the real source
    fold: int | None  # that tested
    datasets: frozenset[str]  # revisions of what the mix trained on
    n_before: int = field(default=0)  # runs of the baseline that were right
    n_now: int = 0
    n_pairs: int = 0
    wrong: str = ""  # the class that was said where the answer was wrong, most often

    @property
    def is_better(self) -> bool:
        return self.n_now > self.n_before


def changes_of(details: ComparisonDetails, real: Source) -> list[Change]:
    """For each mix the clips that changed in most pairs, better and worse ones in turn; none where runs tested other content."""
    row_of = {clip.clip_id: row for row, clip in enumerate(real.clips)}
    baseline, *others = details.comparison.by_mix
    found: list[Change] = []
    for mix in others:
        of_mix = _changes(details, baseline, mix, row_of, real.revision)
        of_mix.sort(key=lambda one: (-abs(one.n_now - one.n_before), one.row))
        sides = ([one for one in of_mix if one.is_better is side] for side in (True, False))
        turns = (one for pair in zip_longest(*sides) for one in pair if one is not None)
        found += list(turns)[:SHOWN]
    return found


def _changes(
    details: ComparisonDetails, baseline: str, mix: str, row_of: dict[str, int], revision: str
) -> list[Change]:
    by_mix = details.comparison.by_mix
    right: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(3, dtype=int))
    said: dict[str, tuple[Counter[int], Counter[int]]] = defaultdict(lambda: (Counter(), Counter()))
    run_of = {}
    for pair in pair_runs(by_mix[baseline], by_mix[mix]):
        if any(run.real.revision != revision for run in pair):
            continue
        for at, clip_id in enumerate(pair[0].predictions.clip_ids.tolist()):
            right[clip_id] += [pair[0].correct[at], pair[1].correct[at], 1]
            run_of[clip_id] = pair[1]
            for side, run in enumerate(pair):
                if not run.correct[at]:
                    said[clip_id][side][int(run.predictions.predicted[at])] += 1
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
            wrong=run_of[clip_id].class_names[said[clip_id][int(now < before)].most_common(1)[0][0]],
        )
        for clip_id, (before, now, n) in right.items()
        if before != now and clip_id in row_of
    ]


def may_train(synthetic: Source, real: Source, fold: int | None) -> np.ndarray:
    """Which synthetic clips no rule keeps out of a training that a fold tests: bool [clips]. None without a fold."""
    if fold not in real.folds or len(real.folds) < 2:
        return np.zeros(len(synthetic), dtype=bool)
    return ~leaking(synthetic, real, fold_split(real.clips, fold))
