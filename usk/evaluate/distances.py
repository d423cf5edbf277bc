"""How a set of clips lies to another in an embedding: KAD, density, coverage, nearest neighbours. Pure.

Embeddings are [clips, dimensions]; labels [clips]; recordings are names [clips].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

NEIGHBOURS = 5  # k of density and coverage, as in the paper
N_RESAMPLES = 200
INTERVAL_CLIPS = 4

Measure = Callable[[np.ndarray, np.ndarray], np.ndarray]


def squared_distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Between the rows of [n, d] and [m, d]: [n, m], without a block of n x m x d numbers."""
    first, second = first.astype(np.float64), second.astype(np.float64)
    norms = (first**2).sum(axis=1)[:, None] + (second**2).sum(axis=1)[None]
    return np.maximum(norms - 2 * first @ second.T, 0.0)


def median_distance(values: np.ndarray) -> float:
    """The median distance between two different rows of [n, d]; 1 where there is none, or it is 0."""
    if len(values) < 2:
        return 1.0
    apart = np.sqrt(squared_distances(values, values))[np.triu_indices(len(values), 1)]
    return float(np.median(apart)) or 1.0


def _kernel(first: np.ndarray, second: np.ndarray, width: float) -> np.ndarray:
    return np.exp(-squared_distances(first, second) / (2 * width**2))


def _unbiased(within_first: np.ndarray, within_second: np.ndarray, between: np.ndarray) -> float:
    """The estimate from kernels [n, n], [m, m] and [n, m], times 100."""
    n, m = between.shape
    first = (within_first.sum() - within_first.trace()) / (n * (n - 1))
    second = (within_second.sum() - within_second.trace()) / (m * (m - 1))
    return float(100 * (first + second - 2 * between.mean()))


def mmd(first: np.ndarray, second: np.ndarray, width: float) -> float:
    """Unbiased squared maximum mean discrepancy of [n, d] and [m, d], Gaussian kernel of `width`, times 100.

    Gretton et al. 2012, eq. 3. Near zero, and as often below as above it, for draws from one distribution. Needs two of
    each.
    """
    n, m = len(first), len(second)
    if n < 2 or m < 2:
        raise ValueError("an unbiased discrepancy needs two clips on each side")
    return _unbiased(
        _kernel(first, first, width), _kernel(second, second, width), _kernel(first, second, width)
    )


def kad(real: np.ndarray, made: np.ndarray) -> float:
    """Kernel audio distance (arXiv 2502.15602): `mmd` of untouched embeddings [n, d] and [m, d] with the median distance
    between real ones as the kernel's width."""
    return mmd(made, real, median_distance(real))


def neighbourhoods(real: np.ndarray, k: int = NEIGHBOURS) -> np.ndarray:
    """Squared radius about each real clip that holds its `k` nearest real ones, [n]. Needs k + 1 of them."""
    if len(real) <= k:
        raise ValueError(f"{k} neighbours need {k + 1} real clips, not {len(real)}")
    apart = squared_distances(real, real)
    np.fill_diagonal(apart, np.inf)
    return np.partition(apart, k - 1, axis=1)[:, k - 1]


def densities(real: np.ndarray, made: np.ndarray, k: int = NEIGHBOURS) -> np.ndarray:
    """Of each made clip, in how many real clips' neighbourhoods it lies, over `k`: [m]. Their mean is the density (arXiv
    2002.09797): about 1 for clips like the real ones, above it where they crowd, below where they stray."""
    return (squared_distances(real, made) <= neighbourhoods(real, k)[:, None]).sum(axis=0) / k


def covered(real: np.ndarray, made: np.ndarray, k: int = NEIGHBOURS) -> np.ndarray:
    """Of each real clip, whether a made one lies in its neighbourhood: bool [n]. Their mean is the coverage (arXiv
    2002.09797): towards 1, the more of the real clips' variety the made ones have."""
    return np.asarray((squared_distances(real, made) <= neighbourhoods(real, k)[:, None]).any(axis=1))


@dataclass(frozen=True)
class Distance:
    """KAD to real clips, its 95 % interval, and how many clips stand on each side. None where there are too few: an
    interval takes `INTERVAL_CLIPS` of a class."""

    mmd: float | None
    low: float | None
    high: float | None
    n: int
    n_real: int


@dataclass(frozen=True)
class Score:
    """A figure, its 95 % interval, and how many clips (made, real) it stands on. None where there are too few."""

    value: float | None
    low: float | None
    high: float | None
    n: int
    n_real: int


class RealClips:
    """Real clips by class, in one embedding, that others are measured against."""

    def __init__(self, values: np.ndarray, labels: Sequence[int], recordings: Sequence[str]) -> None:
        self.values, self.labels = values, np.array(labels, dtype=np.int64)
        self.recordings = np.array(recordings, dtype=str)
        self.widths = {
            int(label): median_distance(values[self.labels == label]) for label in np.unique(self.labels)
        }

    def distance(self, values: np.ndarray, labels: Sequence[int]) -> Distance:
        """Of clips [n, d]: the mean over classes of their KAD to the real clips of their class.

        The interval comes from halves of the clips drawn without replacement, which spread about as the whole does
        (Politis & Romano 1994); a bootstrap would put clips beside their own copies.
        """
        of = np.array(labels, dtype=np.int64)
        rows = {
            int(label): np.flatnonzero(of == label)
            for label in np.unique(of)
            if (of == label).sum() > 1 and (self.labels == label).sum() > 1
        }
        n, n_real = len(of), int(np.isin(self.labels, list(rows) or np.unique(of)).sum())
        if not rows:
            return Distance(None, None, None, n, n_real)
        kernels = []
        for label, own in rows.items():
            real, width = self.values[self.labels == label], self.widths[label]
            kernels.append(
                (
                    _kernel(values[own], values[own], width),
                    _kernel(real, real, width),
                    _kernel(values[own], real, width),
                )
            )
        value = float(np.mean([_unbiased(*of_class) for of_class in kernels]))
        if min(len(own) for own in rows.values()) < INTERVAL_CLIPS:
            return Distance(round(value, 2), None, None, n, n_real)
        rng = np.random.default_rng(0)
        halves = []
        for _ in range(N_RESAMPLES):
            parts = []
            for within, real_within, between in kernels:
                half = rng.choice(len(within), len(within) // 2, replace=False)
                parts.append(_unbiased(within[np.ix_(half, half)], real_within, between[half]))
            halves.append(np.mean(parts))
        low, high = np.percentile(np.array(halves) - np.mean(halves), [2.5, 97.5])
        return Distance(
            round(value, 2), round(value + float(low), 2), round(value + float(high), 2), n, n_real
        )

    def baseline(self, label: int) -> Distance:
        """How far real clips of a class are from each other: half of its recordings to the other half."""
        of_class = self.labels == label
        names = sorted(set(self.recordings[of_class].tolist()))
        first = set(np.random.default_rng(0).permutation(names)[: len(names) // 2].tolist())
        in_first = np.array([name in first for name in self.recordings.tolist()], dtype=bool)
        left, right = self.values[of_class & in_first], self.values[of_class & ~in_first]
        if len(left) < 2 or len(right) < 2:
            return Distance(None, None, None, len(left), len(right))
        return Distance(round(mmd(left, right, self.widths[label]), 2), None, None, len(left), len(right))

    def density(self, values: np.ndarray, labels: Sequence[int]) -> Score:
        """The mean over classes of their clips' density among the real clips of the class; its interval draws clips."""
        return self._score(values, labels, densities, by_real=False)

    def coverage(self, values: np.ndarray, labels: Sequence[int]) -> Score:
        """The mean over classes of the share of real clips that the clips cover; its interval draws whole recordings."""
        return self._score(values, labels, covered, by_real=True)

    def _score(self, values: np.ndarray, labels: Sequence[int], measure: Measure, by_real: bool) -> Score:
        of = np.array(labels, dtype=np.int64)
        rng = np.random.default_rng(0)
        means, draws, n_real, few = [], [], 0, False
        for label in np.unique(of):
            real = self.labels == label
            if real.sum() <= NEIGHBOURS:
                continue
            figures = np.asarray(measure(self.values[real], values[of == label]), dtype=np.float64)
            n_real += int(real.sum())
            units = self.recordings[real] if by_real else np.arange(len(figures))
            few = few or len(np.unique(units)) < INTERVAL_CLIPS
            means.append(figures.mean())
            draws.append(_drawn_means(figures, units, rng))
        if not means:
            return Score(None, None, None, len(of), n_real)
        value = round(float(np.mean(means)), 3)
        if few:
            return Score(value, None, None, len(of), n_real)
        low, high = np.percentile(np.mean(draws, axis=0), [2.5, 97.5])
        return Score(value, round(float(low), 3), round(float(high), 3), len(of), n_real)


def _drawn_means(figures: np.ndarray, units: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Means of `figures` [n] over as many `units` as there are, drawn with replacement: [resamples]."""
    names, numbers = np.unique(units, return_inverse=True)
    sums, sizes = np.bincount(numbers, figures), np.bincount(numbers)
    drawn = rng.integers(len(names), size=(N_RESAMPLES, len(names)))
    return sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)


@dataclass(frozen=True)
class Nearness:
    """Medians over clips of the distance to the nearer parent and to the nearest real clip; over real clips to the nearest
    of another recording. None without any."""

    to_parents: float | None
    to_real: float | None
    real_to_real: float | None


def nearest_apart(values: np.ndarray, recordings: np.ndarray) -> np.ndarray:
    """Distance of each clip [n, d] to the nearest one of another recording: [n], infinite without one."""
    apart = np.sqrt(squared_distances(values, values))
    apart[recordings[:, None] == recordings[None]] = np.inf
    return apart.min(axis=1) if len(values) else np.zeros(0)
