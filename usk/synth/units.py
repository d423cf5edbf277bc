"""Cut a plan into units, the pieces that are rendered and stored as one file each. Pure functions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

WORK_FOLDER = ".work"


@dataclass(frozen=True)
class Unit:
    """Clips of one shard that are rendered as one batch and stored as one file."""

    number: int  # from 0, in the order of the plan
    shard: int
    rows: tuple[int, ...]  # places in the plan
    key: str  # of the dataset's manifest

    @property
    def file(self) -> str:
        """Return the file's path in the dataset folder. The key keeps the units of different datasets apart, since a file
        system without locks may let both into one folder."""
        return f"{WORK_FOLDER}/made-{self.number:06d}-{self.key}.parquet"


def cut_into_units(
    n_rows: int, rows_per_shard: int, batches: Callable[[int, int], list[list[int]]], key: str
) -> tuple[Unit, ...]:
    """Return the units of a plan. `batches(begin, end)` groups the rows of one shard into batches."""
    shard_begins = range(0, n_rows, rows_per_shard)
    cut = [
        (shard, tuple(rows))
        for shard, begin in enumerate(shard_begins)
        for rows in batches(begin, min(begin + rows_per_shard, n_rows))
    ]
    return tuple(Unit(number, shard, rows, key) for number, (shard, rows) in enumerate(cut))
