"""Tables of features and labels: of one source, and of the clips that a classifier trains on, drawn in batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from usk.classify.config import ClipUse


class ConcatenatedRows:
    """Chosen rows of several feature tables, one after another, as one table. Indexing copies only the rows asked for."""

    def __init__(self, parts: Sequence[tuple[torch.Tensor, np.ndarray]]) -> None:
        self.parts = [(features, torch.from_numpy(rows).to(features.device)) for features, rows in parts]
        self.device = self.parts[0][0].device
        self.ends = torch.tensor([len(rows) for _, rows in self.parts], device=self.device).cumsum(0)

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, index: torch.Tensor) -> torch.Tensor:
        """Return features [len(index), bands, frames]. The tables and `index` are on one device."""
        first = self.parts[0][0]
        result = torch.empty(len(index), *first.shape[1:], dtype=first.dtype, device=self.device)
        part_of = torch.bucketize(index, self.ends, right=True)
        for number, (features, rows) in enumerate(self.parts):
            in_part = torch.nonzero(part_of == number).flatten()
            start = self.ends[number] - len(rows)
            result[in_part] = features[rows[index[in_part] - start]]
        return result


@dataclass(frozen=True, eq=False)
class TrainingData:
    """Clips that a classifier trains on: features [n, bands, frames], in memory or mapped from a file, labels int64 [n]."""

    features: torch.Tensor | ConcatenatedRows
    labels: torch.Tensor


@dataclass(frozen=True, eq=False)
class FeatureTable(TrainingData):
    """The features and labels of all clips of one source."""

    features: torch.Tensor


class BatchSampler:
    """Draws the rows of each batch, as a `ClipUse` says. A pool is shuffled again whenever all its rows were taken."""

    def __init__(
        self, synthetic: torch.Tensor, use: ClipUse, batch: int, steps: int, generator: torch.Generator
    ) -> None:
        """`synthetic` marks the rows of synthetic clips, bool [n]. `steps` is the number of batches in all."""
        self.use, self.batch, self.generator = use, batch, generator
        self.real_only_from = steps - round(use.real_last * steps)
        pools = {"all": torch.ones_like(synthetic), "real": ~synthetic, "synthetic": synthetic}
        self.pools = {name: torch.nonzero(members).flatten() for name, members in pools.items()}
        self.queues = {name: torch.empty(0, dtype=torch.int64) for name in pools}  # shuffled, unused rows

    def next_rows(self, step: int) -> torch.Tensor:
        """Return the rows of the batch of a step, counted from 0."""
        if step >= self.real_only_from:
            return self._take("real", self.batch)
        if self.use.real_share is None:
            return self._take("all", self.batch)
        n_real = max(1, round(self.use.real_share * self.batch))
        return torch.cat((self._take("real", n_real), self._take("synthetic", self.batch - n_real)))

    def _take(self, pool: str, n: int) -> torch.Tensor:
        rows, queue = self.pools[pool], self.queues[pool]
        while len(queue) < n:
            queue = torch.cat((queue, rows[torch.randperm(len(rows), generator=self.generator)]))
        self.queues[pool] = queue[n:]
        return queue[:n]
