"""Units: the pieces that a plan is rendered in. Each is one file, written whole. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

WORK_FOLDER = ".work"


@dataclass(frozen=True)
class Unit:
    """Clips that are rendered together and kept as one file: a batch of one shard's rows of the plan."""

    number: int  # from 0, in the order of the plan
    shard: int
    rows: tuple[int, ...]
    key: str  # of the dataset's manifest

    @property
    def file(self) -> str:
        """Its name in the folder. A unit of another dataset has another: where there are no locks, both may come into one folder."""
        return f"{WORK_FOLDER}/made-{self.number:06d}-{self.key}.parquet"


def cut_into_units(
    n_rows: int, rows_per_shard: int, batches: Callable[[int, int], list[list[int]]], key: str
) -> tuple[Unit, ...]:
    """The units of a plan. `batches(begin, end)` says which of these rows of one shard are rendered together."""
    cut = [
        (shard, tuple(rows))
        for shard, begin in enumerate(range(0, n_rows, rows_per_shard))
        for rows in batches(begin, min(begin + rows_per_shard, n_rows))
    ]
    return tuple(Unit(number, shard, rows, key) for number, (shard, rows) in enumerate(cut))
