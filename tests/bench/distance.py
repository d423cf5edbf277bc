"""How far synthetic clips are from real ones: MMD of log-mel statistics, with its interval."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from usk.classify.features import FOUR_SECONDS, FeatureSettings, fit_length, log_mel


def features_of(audio: Sequence[np.ndarray], settings: FeatureSettings = FOUR_SECONDS) -> torch.Tensor:
    """Log-mel features in dB of clips at the settings' rate: [n, n_mels, n_frames]."""
    n = settings.mel.image_samples
    fitted = [fit_length(samples, n, settings.repeat_short) for samples in audio]
    return torch.cat(
        [
            log_mel(torch.from_numpy(np.stack(fitted[begin : begin + 64])), settings.mel)
            for begin in range(0, len(fitted), 64)
        ]
    )


def statistics(features: torch.Tensor) -> np.ndarray:
    """Per-band mean, deviation and mean absolute change over time of log-mel in dB, loudness removed: [n, 3 * n_mels]."""
    features = features.float() - features.float().mean(dim=(1, 2), keepdim=True)
    change = features.diff(dim=2).abs().mean(dim=2)
    return torch.cat((features.mean(dim=2), features.std(dim=2), change), dim=1).numpy()


def _kernel(first: np.ndarray, second: np.ndarray, width: float) -> np.ndarray:
    return np.exp(-((first[:, None] - second[None]) ** 2).sum(-1) / (2 * width**2))


def mmd(first: np.ndarray, second: np.ndarray, width: float) -> float:
    """Unbiased squared maximum mean discrepancy (Gretton et al. 2012, eq. 3), Gaussian kernel, times 100."""
    n, m = len(first), len(second)
    within_first = (_kernel(first, first, width).sum() - n) / (n * (n - 1))
    within_second = (_kernel(second, second, width).sum() - m) / (m * (m - 1))
    return float(100 * (within_first + within_second - 2 * _kernel(first, second, width).mean()))


class RealReference:
    """Real clips by class that others are measured against."""

    def __init__(self, audio: Sequence[np.ndarray], labels: Sequence[int]) -> None:
        raw = statistics(features_of(audio))
        self.centre, self.spread = raw.mean(axis=0), raw.std(axis=0) + 1e-6
        self.values, self.labels = (raw - self.centre) / self.spread, np.array(labels)
        self.width = float(np.median(np.linalg.norm(self.values[:, None] - self.values[None], axis=-1)))

    def distance(
        self, audio: Sequence[np.ndarray], labels: Sequence[int], n_resamples: int = 200
    ) -> dict[str, float]:
        """Mean over classes of the MMD, with a 95 % interval that resamples the clips on the left."""
        values = (statistics(features_of(audio)) - self.centre) / self.spread
        of = np.array(labels)
        usable = [
            label for label in np.unique(of) if (of == label).sum() > 1 and (self.labels == label).sum() > 1
        ]

        def mean(rows_of: dict[int, np.ndarray]) -> float:
            parts = [
                mmd(values[rows_of[label]], self.values[self.labels == label], self.width) for label in usable
            ]
            return float(np.mean(parts))

        rows = {label: np.flatnonzero(of == label) for label in usable}
        rng = np.random.default_rng(0)
        # Subsamples, not bootstrap draws: a clip beside its own copy would look like a kernel distance of nothing.
        half = {label: max(2, len(chosen) // 2) for label, chosen in rows.items()}
        resampled = [
            mean({label: rng.choice(chosen, half[label], replace=False) for label, chosen in rows.items()})
            for _ in range(n_resamples)
        ]
        value = mean(rows)
        # Halves without replacement spread about as much as the whole sample does (Politis & Romano 1994).
        low, high = np.percentile(np.array(resampled) - np.mean(resampled), [2.5, 97.5])
        return {"mmd": round(value, 2), "low": round(value + low, 2), "high": round(value + high, 2)}
