"""Distances of the benchmarks: MMD in a standardized embedding, one kernel width for all classes.

(`usk audit` takes KAD, whose width and embedding are the paper's. The tables in the README were measured with this, while pairs of
one recording still counted.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from usk.audit.distances import Distance, RealClips, median_distance

Embed = Callable[[Sequence[np.ndarray]], np.ndarray]


class RealReference:
    """Real clips by class that others are measured against, in one embedding."""

    def __init__(
        self,
        audio: Sequence[np.ndarray],
        labels: Sequence[int],
        recordings: Sequence[str],
        embedding: Embed,
    ) -> None:
        raw = embedding(audio)
        self.embedding = embedding
        self.center, self.spread = raw.mean(axis=0), raw.std(axis=0) + 1e-6
        self.clips = RealClips((raw - self.center) / self.spread, labels, recordings)
        self.width = median_distance(self.clips.values)
        self.clips.widths = dict.fromkeys(self.clips.widths, self.width)

    def place(self, audio: Sequence[np.ndarray]) -> np.ndarray:
        """Clips in the reference's standardized embedding: [n, dimensions]."""
        return (self.embedding(audio) - self.center) / self.spread

    def distance(self, values: np.ndarray, labels: Sequence[int]) -> Distance:
        """Of placed clips: the mean over classes of their MMD to the real clips of their class, with its interval."""
        return self.clips.distances(values, labels)[1]
