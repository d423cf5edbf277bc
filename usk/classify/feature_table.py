"""Tables of features and labels: of one source, and of the clips that a classifier trains on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch


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
