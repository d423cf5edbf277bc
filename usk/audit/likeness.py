"""Compare mel images of clips with their parents' average and with the nearest parent.

If clips are almost the average of their parents, the strategy `average` gives the same without a generator.
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
MAX_CLIPS = 200  # evenly spaced clips of a dataset
# Correlations with the average on UrbanSound8K: 0.99 `decomposed`; the average itself 0.996 by Griffin-Lim and 0.97 by filtering
# the parents' sum; 0.93 sums of waveforms; 0.86 one parent (docs/studies/phase).
NEXT_TO_AVERAGE = 0.98


@dataclass(frozen=True)
class Likeness:
    """Medians over clips of the correlation and the mean absolute difference (dB) between mel images.

    Differences in level are removed. `nearest` is the parent with the highest correlation.
    """

    clips: int
    average_correlation: float
    average_db: float
    nearest_correlation: float
    nearest_db: float

    @property
    def next_to_average(self) -> bool:
        return self.average_correlation > NEXT_TO_AVERAGE


def measure_likeness(synthetic: DecodedSource, originals: DecodedSource) -> Likeness | None:
    """Compare the synthetic clips whose parents are all in `originals`. Return None if there are no such clips."""
    origins = Origins(synthetic.source, originals.source).rows
    candidates = [row for row, parents in enumerate(origins) if parents and all(parents)]
    if not candidates:
        return None
    candidates = [row for row in candidates if len(origins[row]) > 1] or candidates  # those that mix parents
    n_chosen = min(len(candidates), MAX_CLIPS)
    chosen = [candidates[i] for i in np.linspace(0, len(candidates) - 1, n_chosen).astype(int)]
    results = []
    for row in chosen:
        clip, samples = synthetic.source.clips[row], synthetic.audio(row)
        parents = [
            np.resize(beginning(originals.audio(parent[0]), len(samples)), len(samples))
            for parent in origins[row]
        ]
        weights = (1 - clip.alpha, clip.alpha) if len(parents) == 2 else [1 / len(parents)] * len(parents)
        results.append(compare_mels(samples, parents, weights))
    medians = np.median(results, axis=0).round(4).tolist()
    return Likeness(len(chosen), *medians)


def compare_mels(
    samples: np.ndarray, parents: Sequence[np.ndarray], weights: Sequence[float]
) -> tuple[float, float, float, float]:
    """Return correlation and difference (dB) from the parents' average, then from the nearest parent, for equally long sounds."""
    images, _ = audio_to_image(torch.from_numpy(np.stack([samples, *parents])).float(), MEL)
    decibels = images[:, 0].numpy().astype(np.float64) * MEL.top_db / 2
    decibels -= decibels.mean(axis=(1, 2), keepdims=True)
    clip, *others = decibels
    others.append(np.tensordot(weights, decibels[1:], axes=1))
    results = [(_correlation(clip, other), float(np.abs(clip - other).mean())) for other in others]
    return (*results[-1], *max(results[:-1]))


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Return the correlation of two images with zero mean, or 0 if one of them is constant."""
    size = float(np.sqrt((first**2).sum() * (second**2).sum()))
    return float((first * second).sum()) / size if size else 0.0
