"""Statistics: mean intervals, a paired bootstrap of accuracy differences, an exact sign-flip test, and Holm's correction.

The functions do no I/O. The same arrays always give the same numbers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95
SIGNIFICANCE = 1 - CONFIDENCE
N_RESAMPLES = 10_000
MAX_EXACT_PAIRS = 36  # up to this many pairs the sign-flip test counts all patterns of signs
N_DRAWN_FLIPS = 2**15  # patterns that it draws for more pairs
MIN_FOLDS = (
    4  # from this many folds on intervals cover other folds too; fewer say too little about how folds differ
)
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
    differences = np.array([pair.difference for pair in pairs])
    weights = _pair_weights(pairs)
    mean = float((weights * differences).mean())
    seeds = np.array([pair.seed for pair in pairs])
    strata = _strata(pairs)
    counts = [_count_by_recording([pairs[i] for i in members]) for members in strata]
    low = high = p_value = None
    if all(len(gains) > 1 for gains, _ in counts):
        rng = np.random.default_rng(seed)
        resampled = np.empty((n_resamples, len(pairs)))
        for members, (gains, sizes) in zip(strata, counts, strict=True):
            resampled[:, members] = _resample_recordings(gains, sizes, n_resamples, rng)
        data_deviations = _weighted_mean(resampled, np.broadcast_to(weights, resampled.shape)) - mean
        seed_weights = weights * _draw_seed_weights(seeds.tolist(), n_resamples, rng)
        seed_means = _weighted_mean(np.broadcast_to(differences, seed_weights.shape), seed_weights)
        cells = _sum_cells(weights * (differences - mean) / len(pairs), seeds, strata)
        variance = _analyze_variance(differences, weights, seeds, strata, counts, cells)
        if variance.resample_folds:
            n = len(cells)
            data_deviations = _draw_weights(n, n_resamples, rng) @ cells.sum(axis=1) * (n / (n - 1))
        deviations = data_deviations + variance.seed_scale * (seed_means - mean)
        freedom = variance.degrees_of_freedom
        deviations *= np.sqrt(freedom / rng.chisquare(freedom, n_resamples))
        means = 100 * (mean + deviations)
        tail = 50 * (1 - confidence)
        low, high = (float(bound) for bound in np.nanpercentile(means, (tail, 100 - tail)))
        beyond = min(int(np.sum(means <= 0)), int(np.sum(means >= 0)))
        p_value = min(1.0, 2 * (beyond + 1) / (n_resamples + 1))
    return PairedDifference(
        difference_points=100 * mean,
        low_points=low,
        high_points=high,
        p_value=p_value,
        n_pairs=len(pairs),
        n_pairs_up=int(np.sum(differences > 0)),
        n_splits=len({pair.split for pair in pairs}),
        n_seeds=len({pair.seed for pair in pairs}),
        n_groups=sum(len(gains) for gains, _ in counts),
        n_clips=sum({pair.split: len(pair.groups) for pair in pairs}.values()),
        over_folds=len(strata) >= MIN_FOLDS,
    )


@dataclass(frozen=True)
class _Variance:
    """How to combine the deviations of test data and seeds.

    `resample_folds`: resample whole folds instead of recordings. `seed_scale` multiplies the deviations of seeds, so that the
    total has the variance of two-way clusters. `degrees_of_freedom` are those of the total.
    """

    resample_folds: bool
    seed_scale: float
    degrees_of_freedom: float


def _pair_weights(pairs: Sequence[Pair]) -> np.ndarray:
    """Return the weight of each pair: 1 on average, and the same total for each split."""
    in_split = Counter(pair.split for pair in pairs)
    return np.array([len(pairs) / (len(in_split) * in_split[pair.split]) for pair in pairs])


def _sum_cells(values: np.ndarray, seeds: np.ndarray, strata: Sequence[Sequence[int]]) -> np.ndarray:
    """Sum the values of pairs [pairs] in each stratum and seed: [strata, seeds]."""
    names, numbers = np.unique(seeds, return_inverse=True)
    return np.stack(
        [np.bincount(numbers[list(members)], values[list(members)], len(names)) for members in strata]
    )


def _analyze_variance(
    differences: np.ndarray,
    weights: np.ndarray,
    seeds: np.ndarray,
    strata: Sequence[Sequence[int]],
    counts: Sequence[tuple[np.ndarray, np.ndarray]],
    cells: np.ndarray,
) -> _Variance:
    """Estimate the variances of test data, seeds and cells, as `paired_bootstrap` explains.

    Args:
        differences, weights, seeds: of each pair.
        strata: the pair numbers of each stratum.
        counts: `_count_by_recording` of each stratum.
        cells: how much each stratum and seed moves the mean difference, [strata, seeds].
    """
    data_variance = cell_variance = squares = (
        0.0  # `squares`: the denominator of Satterthwaite's degrees of freedom
    )
    for members, (gains, sizes) in zip(strata, counts, strict=True):
        pairs = list(members)
        # How much each recording moves the mean difference through each pair, [recordings, pairs].
        scale = weights[pairs] / (sizes.sum(axis=0) * len(differences))
        effects = (gains - sizes * differences[pairs]) * scale
        columns = [effects[:, seeds[pairs] == seed].sum(axis=1) for seed in np.unique(seeds[pairs])]
        by_seed = np.stack(columns, axis=1)
        n, n_seeds = by_seed.shape
        variance = n / (n - 1) * float(np.sum(by_seed.sum(axis=1) ** 2))
        if n_seeds > 1:
            residuals = by_seed - by_seed.mean(axis=1, keepdims=True)
            cell_variance += n / (n - 1) * n_seeds / (n_seeds - 1) * float(np.sum(residuals**2))
        clips = sizes.sum(axis=1, dtype=np.float64)
        # How many recordings of equal size would have the same information.
        n_effective = float(np.sum(clips**2) ** 2 / np.sum(clips**4))
        data_variance += variance
        squares += variance**2 / max(n_effective - 1, 1.0)
    n_folds, n_seeds = cells.shape
    fold_variance = n_folds / max(n_folds - 1, 1) * float(np.sum(cells.sum(axis=1) ** 2))
    resample_folds = n_folds >= MIN_FOLDS and fold_variance > data_variance
    if resample_folds:
        data_variance, squares = fold_variance, fold_variance**2 / (n_folds - 1)
        residuals = cells - cells.mean(axis=1, keepdims=True) - cells.mean(axis=0)
        cell_variance = n_folds / (n_folds - 1) * n_seeds / max(n_seeds - 1, 1) * float(np.sum(residuals**2))
    seed_variance = 0.0
    if n_seeds > 1:
        seed_variance = n_seeds / (n_seeds - 1) * float(np.sum(cells.sum(axis=0) ** 2))
        squares += seed_variance**2 / (n_seeds - 1)
    kept = max(0.0, seed_variance - cell_variance) / seed_variance if seed_variance else 0.0
    freedom = (data_variance + seed_variance) ** 2 / squares if squares else 1.0
    return _Variance(resample_folds, kept**0.5, freedom)


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


def _draw_seed_weights(seeds: Sequence[int], n_resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Draw seeds, the same for all splits. Return how often each pair is drawn, [resamples, pairs]."""
    names, numbers = np.unique(np.asarray(seeds), return_inverse=True)
    return _draw_weights(len(names), n_resamples, rng)[:, numbers]


def _weighted_mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the mean over pairs of values [resamples, pairs], without NaN values; NaN if all are NaN."""
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
