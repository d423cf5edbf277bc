"""Features of clips in memory, or mapped from a file: those of a source, and those that a classifier trains on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch


class Gathered:
    """Features of rows of several tables in turn, where they lie: nothing is copied but the rows that are asked for."""

    def __init__(self, parts: Sequence[tuple[torch.Tensor, np.ndarray]]) -> None:
        self.parts = [(features, torch.from_numpy(rows).to(features.device)) for features, rows in parts]
        self.device = self.parts[0][0].device
        self.ends = torch.tensor([len(rows) for _, rows in self.parts], device=self.device).cumsum(0)

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, places: torch.Tensor) -> torch.Tensor:
        """[len(places), bands, frames], on the device that the tables and `places` are on."""
        first = self.parts[0][0]
        found = torch.empty(len(places), *first.shape[1:], dtype=first.dtype, device=self.device)
        part_of = torch.bucketize(places, self.ends, right=True)
        for number, (features, rows) in enumerate(self.parts):
            mine = torch.nonzero(part_of == number).flatten()
            found[mine] = features[rows[places[mine] - self.ends[number] + len(rows)]]
        return found


@dataclass(frozen=True, eq=False)
class TrainingData:
    """Clips that a classifier trains on: features [n, bands, frames] on the device, labels int64 [n]."""

    features: torch.Tensor | Gathered
    labels: torch.Tensor


@dataclass(frozen=True, eq=False)
class FeatureTable(TrainingData):
    """What a source is to a classifier: all its clips."""

    features: torch.Tensor
