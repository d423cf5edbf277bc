"""What to train where runs do not tell yet: how many seeds, and how long that takes by the runs' own time. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

from usk.evaluate.compare import Comparison
from usk.evaluate.stats import fewest_pairs
from usk.evaluate.verdict import Verdict


@dataclass(frozen=True)
class MoreSeeds:
    """Train these mixes with `seeds` seeds in all."""

    mixes: tuple[str, ...]
    seeds: int
    more: int  # of them, those that are not there yet
    train_s: float  # of the runs that are missing, one after the other


def next_step(comparison: Comparison) -> MoreSeeds | None:
    """For mixes with too few pairs as many seeds as the exact test needs, for those that cannot be told apart twice as many;
    None where nothing is open."""
    open_rows = [
        row
        for row in comparison.rows
        if row.verdict in (Verdict.TOO_FEW_PAIRS, Verdict.NOT_DISTINGUISHABLE) and row.difference is not None
    ]
    if not open_rows:
        return None
    now = max(row.difference.n_seeds for row in open_rows if row.difference)
    seeds = 2 * now
    if any(row.verdict is Verdict.TOO_FEW_PAIRS for row in open_rows):
        n_compared = sum(row.difference is not None for row in comparison.rows)
        per_seed = min(row.pairs / row.difference.n_seeds for row in open_rows if row.difference)
        seeds = max(now + 1, math.ceil(fewest_pairs(n_compared) / per_seed))
    mixes = tuple(row.mix for row in open_rows)
    runs = [run for mix in (comparison.baseline, *mixes) for run in comparison.by_mix[mix]]
    return MoreSeeds(mixes, seeds, seeds - now, sum(run.took_s for run in runs) * (seeds - now) / now)
