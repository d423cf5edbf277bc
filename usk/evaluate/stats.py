"""Statistics: mean intervals, a paired bootstrap of accuracy differences, an exact sign-flip test, and Holm's correction.

The functions do no I/O. The same arrays always give the same numbers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

CONFIDENCE = 0.95
SIGNIFICANCE = 1 - CONFIDENCE
N_RESAMPLES = 10_000
MAX_EXACT_PAIRS = 36  # up to this many pairs the sign-flip test counts all patterns of signs
N_DRAWN_FLIPS = 2**15  # patterns that it draws for more pairs
MIN_FOLDS = 4  # from so many on intervals cover other folds too; fewer say too little of how folds differ
_CHUNK_WEIGHTS = 4_000_000  # resampling weights in memory at once


@dataclass(frozen=True)
class MeanInterval:
    """A mean and half the width of its 95 % interval, in the values' unit. The interval of a single value is None."""

    mean: float
    half_width: float | None

    @property
    def low(self) -> float | None:
        return None if self.half_width is None else self.mean - self.half_width

    @property
    def high(self) -> float | None:
        return None if self.half_width is None else self.mean + self.half_width


@dataclass(frozen=True, eq=False)
class Pair:
    """Results of two classifiers (baseline and other) that were trained with the same split and seed, on the same test clips.

    `groups` are the recordings of the clips, [clips]. `baseline_correct` and `other_correct` are bool [clips].
    """

    split: str
    seed: int
    groups: np.ndarray
    baseline_correct: np.ndarray
    other_correct: np.ndarray

    @property
    def difference(self) -> float:
        """The other accuracy minus the baseline's, a fraction. It is exactly 0 for a tie."""
        gained = int(np.sum(self.other_correct)) - int(np.sum(self.baseline_correct))
        return gained / len(self.groups)


@dataclass(frozen=True)
class PairedDifference:
    """The mean accuracy difference (other minus baseline) in percentage points, its 95 % interval, and the amount of data.

    `p_value` agrees with the interval: it is above 0.05 if the interval contains 0. Both bounds and `p_value` are None if some
    test part has a single recording, because then there is nothing to resample. `over_folds`: whether the interval also covers
    folds that were not tested.
    """

    difference_points: float
    low_points: float | None
    high_points: float | None
    p_value: float | None
    n_pairs: int
    n_pairs_up: int
    n_splits: int
    n_seeds: int
    n_groups: int
    n_clips: int
    over_folds: bool = False


def mean_interval(values: Sequence[float] | np.ndarray, confidence: float = CONFIDENCE) -> MeanInterval:
    """Return the mean of fold x seed runs and its Student t interval, mean +- t(n - 1) s / sqrt(n).

    The interval describes how much runs differ. Do not use it to compare mixes: runs share training clips, so they are not
    independent. Use `paired_bootstrap` instead. Raise ValueError without values.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.size == 0:
        raise ValueError("a mean needs at least one value")
    mean = float(array.mean())
    if array.size == 1:
        return MeanInterval(mean, None)
    from scipy.stats import t

    quantile = float(t.ppf(0.5 + confidence / 2, array.size - 1))
    return MeanInterval(mean, quantile * float(array.std(ddof=1)) / array.size**0.5)


def paired_bootstrap(
    pairs: Sequence[Pair], n_resamples: int = N_RESAMPLES, seed: int = 0, confidence: float = CONFIDENCE
) -> PairedDifference:
    """Return the mean accuracy difference of (split, seed) pairs, with an interval over folds, recordings and seeds.

    All splits have the same weight, however many seeds they have. Each resample draws n - 1 of n units with replacement, so
    that the bootstrap variance of a mean is unbiased even for small n (Rao & Wu 1988). It adds two deviations to the mean:

    * The deviation of test data. Its units are recordings within each split, with the same draw for both mixes and all seeds;
      splits that share recordings are one pool. From `MIN_FOLDS` disjoint folds on, its units are whole folds (the cluster
      bootstrap, Field & Welsh 2007) if that gives the larger variance. With fewer folds the interval is conditional on them.
    * The deviation of seeds, with the same draw for all splits and both mixes. It is scaled down so that the total has the
      variance of two-way clusters, V(data) + V(seeds) - V(cells) (Cameron, Gelbach & Miller 2011). One seed has none.

    Each resample's deviation is divided by the root of a chi-squared draw over its degrees of freedom (Satterthwaite 1946).
    This turns normal tails into Student's. The bounds are percentiles; the p value is twice the fraction of resamples beyond
    0. `docs/studies/error_rate.py` simulates how often the result is wrong.

    The result depends on `seed` and not on the order of `pairs`. Raise ValueError without pairs, or for a pair without clips.
    """
    if not pairs or any(len(pair.groups) == 0 for pair in pairs):
        raise ValueError("a paired difference needs at least one pair, and clips in each")
    pairs = sorted(pairs, key=lambda pair: (pair.split, pair.seed))
    grid = _Grid.of(pairs)
    low = high = p_value = None
    if all(len(gains) > 1 for gains, _ in grid.counts):
        deviations = _draw_deviations(grid, n_resamples, np.random.default_rng(seed))
        low, high, p_value = _summarize(100 * (grid.mean + deviations), confidence)
    return PairedDifference(
        difference_points=100 * grid.mean,
        low_points=low,
        high_points=high,
        p_value=p_value,
        n_pairs=len(pairs),
        n_pairs_up=int(np.sum(grid.differences > 0)),
        n_splits=len({pair.split for pair in pairs}),
        n_seeds=grid.n_seeds,
        n_groups=sum(len(gains) for gains, _ in grid.counts),
        n_clips=sum({pair.split: len(pair.groups) for pair in pairs}.values()),
        over_folds=len(grid.strata) >= MIN_FOLDS,
    )


@dataclass(frozen=True, eq=False)
class _Grid:
    """Pairs as arrays [pairs]. A stratum is the pairs that share recordings, as those of one split do: see `_strata`."""

    differences: np.ndarray  # fractions
    weights: np.ndarray  # `_pair_weights`
    seeds: np.ndarray  # numbered from 0
    strata: list[list[int]]  # numbers of pairs
    counts: list[tuple[np.ndarray, np.ndarray]]  # `_count_by_recording` of each stratum

    @classmethod
    def of(cls, pairs: Sequence[Pair]) -> _Grid:
        differences, strata = np.array([pair.difference for pair in pairs]), _strata(pairs)
        _, seeds = np.unique([pair.seed for pair in pairs], return_inverse=True)
        counts = [_count_by_recording([pairs[i] for i in members]) for members in strata]
        return cls(differences, _pair_weights(pairs), seeds, strata, counts)

    @property
    def n_seeds(self) -> int:
        return int(self.seeds.max()) + 1

    @property
    def mean(self) -> float:
        return float((self.weights * self.differences).mean())

    @property
    def cells(self) -> np.ndarray:
        """How much each stratum and seed moves the mean difference: [strata, seeds], with a sum of 0."""
        moves = self.weights * (self.differences - self.mean) / len(self.differences)
        return np.stack([np.bincount(self.seeds[of], moves[of], self.n_seeds) for of in self.strata])


def _pair_weights(pairs: Sequence[Pair]) -> np.ndarray:
    """Return the weight of each pair: 1 on average, and the same total for each split."""
    in_split = Counter(pair.split for pair in pairs)
    return np.array([len(pairs) / (len(in_split) * in_split[pair.split]) for pair in pairs])


def _draw_deviations(grid: _Grid, n_resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Draw how far the mean difference deviates, as a fraction [resamples]."""
    resampled = np.empty((n_resamples, len(grid.weights)))
    for members, (gains, sizes) in zip(grid.strata, grid.counts, strict=True):
        resampled[:, members] = _resample_recordings(gains, sizes, n_resamples, rng)
    of_data = _weighted_mean(resampled, grid.weights) - grid.mean
    seed_weights = grid.weights * _draw_weights(grid.n_seeds, n_resamples, rng)[:, grid.seeds]
    of_seeds = _weighted_mean(grid.differences, seed_weights) - grid.mean
    variance = _analyze_variance(grid)
    if variance.resample_folds:
        n = len(grid.strata)
        of_data = _draw_weights(n, n_resamples, rng) @ grid.cells.sum(axis=1) * (n / (n - 1))
    freedom = variance.degrees_of_freedom
    return (of_data + variance.seed_scale * of_seeds) * np.sqrt(freedom / rng.chisquare(freedom, n_resamples))


def _summarize(means: np.ndarray, confidence: float) -> tuple[float, float, float]:
    """Return the bounds of resampled means [resamples], at most 100 percentage points from 0, and the p value of 0."""
    tail = 50 * (1 - confidence)
    low, high = np.clip(np.nanpercentile(means, (tail, 100 - tail)), -100, 100).tolist()
    beyond = min(int(np.sum(means <= 0)), int(np.sum(means >= 0)))
    return low, high, min(1.0, 2 * (beyond + 1) / (len(means) + 1))


class _Variance(NamedTuple):
    """How to combine the deviations of test data and seeds."""

    resample_folds: bool  # whole folds instead of recordings
    seed_scale: float  # of the deviations of seeds, so that the total has the variance of two-way clusters
    degrees_of_freedom: float  # of the total


def _analyze_variance(grid: _Grid) -> _Variance:
    """Combine the variances of test data, seeds and cells, as `paired_bootstrap` explains.

    With V(seeds) = k / (k - 1) sum over k seeds (sum over strata of `cells`)^2, the scale is sqrt((V(seeds) - V(cells)) / V(seeds)),
    and the degrees of freedom are (V(data) + V(seeds))^2 / (V(data)^2 / f(data) + V(seeds)^2 / (k - 1)).
    """
    cells, n_seeds = grid.cells, grid.n_seeds
    data = _variance_over_recordings(grid)
    over_folds = _variance_over_folds(cells) if len(cells) >= MIN_FOLDS else data
    resample_folds = over_folds.variance > data.variance
    if resample_folds:
        data = over_folds
    of_seeds, squares = 0.0, data.squares
    if n_seeds > 1:
        of_seeds = n_seeds / (n_seeds - 1) * float(np.sum(cells.sum(axis=0) ** 2))
        squares += of_seeds**2 / (n_seeds - 1)
    kept = max(0.0, of_seeds - data.of_cells) / of_seeds if of_seeds else 0.0
    return _Variance(resample_folds, kept**0.5, (data.variance + of_seeds) ** 2 / squares if squares else 1.0)


class _DataVariance(NamedTuple):
    """V(data), V(cells), and V(data)^2 / f(data) with the degrees of freedom f."""

    variance: float
    of_cells: float
    squares: float


def _variance_over_recordings(grid: _Grid) -> _DataVariance:
    """Estimate the variances with recordings as units: sums over strata, which are independent.

    Recording g moves the mean difference by e[g, s] through the pairs of seed s (the linear part of a ratio of sums). With n
    recordings and k seeds, V(data) = n / (n - 1) sum_g (sum_s e[g, s])^2 and V(cells) = n / (n - 1) k / (k - 1) sum_gs (e[g, s] -
    mean_s e[g, s])^2. As recordings have unequal numbers of clips c, f(data) = (sum c^2)^2 / sum c^4 - 1.
    """
    variance = of_cells = squares = 0.0
    for members, (gains, sizes) in zip(grid.strata, grid.counts, strict=True):
        scale = grid.weights[members] / (sizes.sum(axis=0) * len(grid.weights))
        by_pair, seeds = (gains - sizes * grid.differences[members]) * scale, grid.seeds[members]
        effects = np.stack([by_pair[:, seeds == seed].sum(axis=1) for seed in np.unique(seeds)], axis=1)
        n, n_seeds = effects.shape
        of_stratum = n / (n - 1) * float(np.sum(effects.sum(axis=1) ** 2))
        residuals = effects - effects.mean(axis=1, keepdims=True)  # 0 for one seed
        of_cells += n / (n - 1) * n_seeds / max(n_seeds - 1, 1) * float(np.sum(residuals**2))
        clips = sizes.sum(axis=1, dtype=np.float64)
        n_effective = float(np.sum(clips**2) ** 2 / np.sum(clips**4))
        variance += of_stratum
        squares += of_stratum**2 / max(n_effective - 1, 1.0)
    return _DataVariance(variance, of_cells, squares)


def _variance_over_folds(cells: np.ndarray) -> _DataVariance:
    """Estimate the variances with n whole folds as units: V(data) = n / (n - 1) sum_f (sum_s cells[f, s])^2 and f(data) = n - 1."""
    n, n_seeds = cells.shape
    variance = n / (n - 1) * float(np.sum(cells.sum(axis=1) ** 2))
    residuals = cells - cells.mean(axis=1, keepdims=True) - cells.mean(axis=0)
    of_cells = n / (n - 1) * n_seeds / max(n_seeds - 1, 1) * float(np.sum(residuals**2))
    return _DataVariance(variance, of_cells, variance**2 / (n - 1))


def _strata(pairs: Sequence[Pair]) -> list[list[int]]:
    """Return lists of pair numbers that are resampled together: pairs that share recordings, as the pairs of one split do."""
    strata: list[tuple[set[str], list[int]]] = []
    for number, pair in enumerate(pairs):
        groups, members = set(pair.groups.tolist()), [number]
        linked = [stratum for stratum in strata if not groups.isdisjoint(stratum[0])]
        strata = [stratum for stratum in strata if groups.isdisjoint(stratum[0])]
        for other_groups, other_members in linked:
            groups, members = groups | other_groups, other_members + members
        strata.append((groups, sorted(members)))
    return [members for _, members in strata]


def _count_by_recording(pairs: Sequence[Pair]) -> tuple[np.ndarray, np.ndarray]:
    """Return the net number of clips gained over the baseline, and the number of clips: both float32 [recordings, pairs]."""
    names, numbers = np.unique(np.concatenate([pair.groups for pair in pairs]), return_inverse=True)
    gains, sizes = (np.zeros((len(names), len(pairs)), dtype=np.float32) for _ in range(2))
    start = 0
    for column, pair in enumerate(pairs):
        members = numbers[start : start + len(pair.groups)]
        start += len(pair.groups)
        gained = np.asarray(pair.other_correct, dtype=np.float64) - np.asarray(pair.baseline_correct)
        gains[:, column] = np.bincount(members, gained, minlength=len(names))
        sizes[:, column] = np.bincount(members, minlength=len(names))
    return gains, sizes


def _draw_weights(n_units: int, n_resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Draw n - 1 of n units with replacement. Return how often each is drawn, float32 [resamples, units]."""
    drawn = rng.integers(n_units, size=(n_resamples, max(n_units - 1, 1)))
    flat = (drawn + n_units * np.arange(n_resamples)[:, None]).ravel()
    return np.bincount(flat, minlength=n_resamples * n_units).reshape(n_resamples, n_units).astype(np.float32)


def _resample_recordings(
    gains: np.ndarray, sizes: np.ndarray, n_resamples: int, rng: np.random.Generator
) -> np.ndarray:
    """Return accuracy differences over drawn recordings, [resamples, pairs]; NaN if no recording of a pair is drawn."""
    n_groups = gains.shape[0]
    chunk = max(1, _CHUNK_WEIGHTS // n_groups)
    parts = []
    for start in range(0, n_resamples, chunk):
        weights = _draw_weights(n_groups, min(chunk, n_resamples - start), rng)
        clips = (weights @ sizes).astype(np.float64)
        parts.append(np.divide(weights @ gains, clips, out=np.full(clips.shape, np.nan), where=clips > 0))
    return np.concatenate(parts)


def _weighted_mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the mean over pairs, [resamples], without NaN values; NaN if all are NaN. One argument may lack resamples."""
    values, weights = np.broadcast_arrays(values, weights)
    weights = np.where(np.isnan(values), 0.0, weights)
    total_weight = weights.sum(axis=1)
    total = (np.nan_to_num(values) * weights).sum(axis=1)
    return np.divide(total, total_weight, out=np.full(total.shape, np.nan), where=total_weight > 0)


def exact_test(pairs: Sequence[Pair]) -> float:
    """Return the p value of `sign_flip_test` for the same mean as in `paired_bootstrap`: all splits have the same weight."""
    return sign_flip_test(_pair_weights(pairs) * [pair.difference for pair in pairs])


def sign_flip_test(differences: Sequence[float] | np.ndarray, seed: int = 0) -> float:
    """Return the p value of Fisher's exact two-sided randomization test over (split, seed) pairs.

    The p value is the probability of a mean at least as far from 0 if the sign of each difference were a coin toss. If the
    mix had no effect, the two networks of a pair could be swapped, so the p value is exact for the tested clips, even with few
    pairs. Unlike the interval, it says nothing about other recordings. Up to `MAX_EXACT_PAIRS` pairs all sign patterns count.
    Beyond, `N_DRAWN_FLIPS` random patterns and the observed one count (Phipson & Smyth 2010). Without a difference it is 1.0.

    (`scipy.stats.permutation_test` breaks ties by rounding errors if the mean is small.)
    """
    values = np.asarray(differences, dtype=np.float64)
    values = values[values != 0]  # flipping a zero changes nothing
    n = len(values)
    if n == 0:
        return 1.0
    threshold = abs(values.sum()) - 1e-9 * np.abs(values).max()  # the margin makes ties robust to rounding
    if threshold <= 0:
        return 1.0
    if n <= MAX_EXACT_PAIRS:
        # The sum of a pattern is a sum of the first half plus one of the second: 2^18 sums of each cover 2^36 patterns.
        first, second = (_signed_sums(half) for half in np.array_split(values, 2))
        beyond = len(second) - np.searchsorted(np.sort(second), threshold - first)
        return 2 * int(beyond.sum()) / 2**n  # by symmetry as many lie below -threshold
    signs = 1 - 2 * np.random.default_rng(seed).integers(2, size=(N_DRAWN_FLIPS, n))
    return (int(np.sum(np.abs(signs @ values) >= threshold)) + 1) / (N_DRAWN_FLIPS + 1)


def _signed_sums(values: np.ndarray) -> np.ndarray:
    """Return the sums of `values` [n] with all patterns of signs, [2^n]."""
    sums = np.zeros(1)
    for value in values:
        sums = np.concatenate((sums + value, sums - value))
    return sums


def min_pairs(n_comparisons: int = 1) -> int:
    """Return how many pairs `sign_flip_test` needs to reach 0.05 after `holm` over `n_comparisons`: 6 for one."""
    n = 1
    while n_comparisons * 2 / 2**n > SIGNIFICANCE:
        n += 1
    return n


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p values in the same order, corrected for multiple comparisons by Holm's step-down method (1979).

    The i-th smallest of m is multiplied by m - i + 1. It is never below its predecessor and at most 1.
    """
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted
