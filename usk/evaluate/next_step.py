"""Suggest more seeds for comparisons without a clear result, and estimate how long they train. This module does no I/O."""

from __future__ import annotations

import math
from dataclasses import dataclass

from usk.evaluate.compare import Comparison
from usk.evaluate.stats import min_pairs
from usk.evaluate.verdict import Verdict


@dataclass(frozen=True)
class MoreSeeds:
    """A suggestion to train `mixes` with `seeds` seeds in total."""

    mixes: tuple[str, ...]
    seeds: int
    more: int  # how many of the seeds are missing
    train_s: float  # estimated time of the missing runs, one after another


def next_step(comparison: Comparison) -> MoreSeeds | None:
    """Suggest as many seeds as the exact test needs, or else twice as many as there are.

    Return None if all mixes are clear, or there are enough pairs and the baseline makes no errors.
    """
    can_gain = any(run.accuracy < 1 for run in comparison.by_mix[comparison.baseline])
    is_open = (Verdict.TOO_FEW_PAIRS, *[Verdict.NOT_DISTINGUISHABLE] * can_gain)
    open_rows = [row for row in comparison.rows if row.verdict in is_open and row.difference is not None]
    if not open_rows:
        return None
    now = max(row.difference.n_seeds for row in open_rows if row.difference)
    seeds = 2 * now
    if any(row.verdict is Verdict.TOO_FEW_PAIRS for row in open_rows):
        n_compared = sum(row.difference is not None for row in comparison.rows)
        per_seed = min(row.pairs / row.difference.n_seeds for row in open_rows if row.difference)
        seeds = max(now + 1, math.ceil(min_pairs(n_compared) / per_seed))
    mixes = tuple(row.mix for row in open_rows)
    runs = [run for mix in (comparison.baseline, *mixes) for run in comparison.by_mix[mix]]
    return MoreSeeds(mixes, seeds, seeds - now, sum(run.took_s for run in runs) * (seeds - now) / now)
