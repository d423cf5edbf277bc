"""How far clips are from their parents: from the average of their mel images, and from the nearest one's.

A clip that is next to its parents' average could be had without a generator (the strategy `average`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from usk.audio.mel import MelSettings, audio_to_image
from usk.data.decode import DecodedSource, beginning
from usk.data.leaks import Origins

MEL = MelSettings(n_mels=64)
MOST_CLIPS = 200  # of a dataset that are looked at, evenly spread
# Of UrbanSound8K, correlation with the average: 0.99 decomposed, 0.996 the average itself by Griffin-Lim, 0.97 by filtering the parents'
# sum, 0.93 sums of waveforms, 0.86 a parent alone (docs/studies/phase).
NEXT_TO_AVERAGE = 0.98


@dataclass(frozen=True)
class Likeness:
    """Medians over clips of what their mel images in dB have in common with their parents': correlation, and the mean absolute
    difference in dB without that in level. `nearest` is the parent with the highest correlation."""

    clips: int
    average_correlation: float
    average_db: float
    nearest_correlation: float
    nearest_db: float

    @property
    def next_to_average(self) -> bool:
        return self.average_correlation > NEXT_TO_AVERAGE


def likeness(made: DecodedSource, originals: DecodedSource) -> Likeness | None:
    """Of the clips in `made` whose parents are all among `originals`; None without any."""
    origins = Origins(made.source, originals.source).rows
    known = [row for row, parents in enumerate(origins) if parents and all(parents)]
    chosen = [
        known[place] for place in np.linspace(0, len(known) - 1, min(len(known), MOST_CLIPS)).astype(int)
    ]
    if not chosen:
        return None
    found = []
    for row in chosen:
        clip, samples = made.source.clips[row], made.audio(row)
        parents = [
            np.resize(beginning(originals.audio(parent[0]), len(samples)), len(samples))
            for parent in origins[row]
        ]
        weights = (1 - clip.alpha, clip.alpha) if len(parents) == 2 else [1 / len(parents)] * len(parents)
        found.append(compared(samples, parents, weights))
    medians = np.median(found, axis=0).round(4).tolist()
    return Likeness(len(chosen), *medians)


def compared(
    samples: np.ndarray, parents: Sequence[np.ndarray], weights: Sequence[float]
) -> tuple[float, float, float, float]:
    """(correlation, dB) with the parents' average, then with the nearest of them; all are equally long."""
    images, _ = audio_to_image(torch.from_numpy(np.stack([samples, *parents])).float(), MEL)
    decibels = images[:, 0].numpy().astype(np.float64) * MEL.top_db / 2
    decibels -= decibels.mean(axis=(1, 2), keepdims=True)
    made, *others = decibels
    others.append(np.tensordot(weights, decibels[1:], axes=1))
    pairs = [(_correlation(made, other), float(np.abs(made - other).mean())) for other in others]
    return (*pairs[-1], *max(pairs[:-1]))


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Of two images that are 0 on average; 0 where one is flat."""
    size = float(np.sqrt((first**2).sum() * (second**2).sum()))
    return float((first * second).sum()) / size if size else 0.0
