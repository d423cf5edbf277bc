"""The control without a generator: the very pairs that would be interpolated, their waveforms summed.

What diffusion adds to training is what its clips do beyond these, which cost nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from usk.data.clip import NO_MODEL
from usk.data.decode import DecodedSource
from usk.synth.maker import ClipMaker, rms_db
from usk.synth.plan import Plan, PlannedClip
from usk.synth.settings import RenderConfig

SAMPLE_RATE_HZ = 22_050
BATCH = 64


class WaveformSums(ClipMaker):
    """Parents brought to one level, repeated or cut to the mean of their lengths, and summed by their weights."""

    def __init__(self, plan: Plan, decoded: DecodedSource, config: RenderConfig) -> None:
        super().__init__(plan, decoded, config, NO_MODEL, None)

    def batches(self, begin: int, end: int) -> list[list[int]]:
        return [list(range(first, min(first + BATCH, end))) for first in range(begin, end, BATCH)]

    def audio(self, planned: Sequence[PlannedClip]) -> list[np.ndarray]:
        return [self._sum(clip) for clip in planned]

    def _sum(self, clip: PlannedClip) -> np.ndarray:
        total = np.zeros(self.length(clip), np.float32)
        for parent, weight in zip(clip.parents, clip.weights, strict=True):
            samples = self.decoded.audio(self.row_of[parent])
            total += weight * np.resize(samples, len(total)) / np.float32(10 ** (rms_db(samples) / 20))
        return total
