"""How sure a figure is: intervals over runs, paired differences over resampled recordings, an exact test, Holm.

Pure: arrays in, numbers out, the same numbers for the same arrays.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95
SIGNIFICANCE = 1 - CONFIDENCE
N_RESAMPLES = 10_000
ALL_FLIPS = 36  # pairs up to which every pattern of signs is counted
N_FLIPS = 2**15  # patterns drawn where there are more
FEWEST_FOLDS = 4  # from which intervals are over folds too; fewer know too little of how folds differ
_CHUNK_WEIGHTS = 4_000_000  # weights held at once: bounds memory where each clip is its own recording


@dataclass(frozen=True)
class MeanInterval:
    """A mean and half the width of its 95 % interval, in the values' unit; one value has no spread: None."""

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
    """Two classifiers (baseline and other) trained with one split and seed, and tested on the same clips.

    `groups` names each clip's recording, [clips]; `baseline_correct` and `other_correct` are bool [clips].
    """

    split: str
    seed: int
    groups: np.ndarray
    baseline_correct: np.ndarray
    other_correct: np.ndarray

    @property
    def difference(self) -> float:
        """Other minus baseline accuracy, a fraction; exactly 0 for a tie."""
        gained = int(np.sum(self.other_correct)) - int(np.sum(self.baseline_correct))
        return gained / len(self.groups)


@dataclass(frozen=True)
class PairedDifference:
    """Other minus baseline accuracy in percentage points, its 95 % interval, and on how much it stands.

    `p_value` is the interval's: it holds 0 where that is above 0.05. All three are None where some test part holds a single
    recording: nothing can be resampled there. `over_folds`: whether the interval is also about other folds; otherwise it is
    about the folds that were tested.
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
    """Mean and Student t interval, mean +- t(n - 1) s / sqrt(n), over fold x seed runs.

    It describes how much runs differ. Runs share training clips, so they are not independent, and it is no
    basis for comparing two mixes: `paired_bootstrap` is. Raises ValueError without values.
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
    """Mean difference in accuracy over (split, seed) pairs, with an interval over folds, recordings and seeds.

    Each split counts as much, however many seeds it has. Each resample draws, with replacement, n - 1 of n units, which
    makes the bootstrap variance of a mean unbiased however small n is (Rao & Wu 1988), and adds two deviations from the mean:

    * of test data, at the level of larger variance: recordings within each split (the same draw for both mixes and all seeds;
      splits that share recordings are one pool), or, from `FEWEST_FOLDS` on that share none, whole folds with all their
      recordings (the cluster bootstrap, Field & Welsh 2007). With fewer folds the interval is conditional on them.
    * of seeds, one draw for all splits and both mixes, shrunk so that both together have the variance of two-way clusters,
      V(data) + V(seeds) - V(cells) (Cameron, Gelbach & Miller 2011). With one seed it cannot be there.

    Each resample's deviation is divided by the root of a chi-squared draw over its degrees of freedom (Satterthwaite 1946),
    which turns normal tails into Student's. Bounds are percentiles; the p value is twice the share of resamples beyond 0.
    `docs/studies/error_rate.py` simulates how often it is wrong.

    Deterministic in `seed`, and independent of the order of `pairs`. Raises ValueError without pairs, or
    for a pair without clips.
    """
    if not pairs or any(len(pair.groups) == 0 for pair in pairs):
        raise ValueError("a paired difference needs at least one pair, and clips in each")
    pairs = sorted(pairs, key=lambda pair: (pair.split, pair.seed))
    differences = np.array([pair.difference for pair in pairs])
    shares = _shares(pairs)
    mean = float((shares * differences).mean())
    seeds = np.array([pair.seed for pair in pairs])
    strata = _strata(pairs)
    counts = [_counts([pairs[i] for i in members]) for members in strata]
    low = high = p_value = None
    if all(len(gains) > 1 for gains, _ in counts):
        rng = np.random.default_rng(seed)
        drawn = np.empty((n_resamples, len(pairs)))
        for members, both in zip(strata, counts, strict=True):
            drawn[:, members] = _resampled(*both, n_resamples, rng)
        of_data = _weighted_mean(drawn, np.broadcast_to(shares, drawn.shape)) - mean
        weights = shares * _seed_weights(seeds.tolist(), n_resamples, rng)
        of_seeds = _weighted_mean(np.broadcast_to(differences, weights.shape), weights) - mean
        cells = _cells(shares * (differences - mean) / len(pairs), seeds, strata)
        spread = _spread(differences, shares, seeds, strata, counts, cells)
        if spread.of_folds:
            n = len(cells)
            of_data = _draw_weights(n, n_resamples, rng) @ cells.sum(axis=1) * (n / (n - 1))
        deviations = of_data + spread.shrink_seeds * of_seeds
        deviations *= np.sqrt(spread.freedom / rng.chisquare(spread.freedom, n_resamples))
        resampled = 100 * (mean + deviations)
        tail = 50 * (1 - confidence)
        low, high = (float(bound) for bound in np.nanpercentile(resampled, (tail, 100 - tail)))
        beyond = min(int(np.sum(resampled <= 0)), int(np.sum(resampled >= 0)))
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
        over_folds=len(strata) >= FEWEST_FOLDS,
    )


@dataclass(frozen=True)
class _Spread:
    """Which level of test data counts, by how much deviations of seeds shrink so that both together have the variance of
    two-way clusters, and the degrees of freedom of that."""

    of_folds: bool
    shrink_seeds: float
    freedom: float


def _shares(pairs: Sequence[Pair]) -> np.ndarray:
    """What each pair counts, 1 on average: every split as much, whether it has many seeds or few."""
    in_split = Counter(pair.split for pair in pairs)
    return np.array([len(pairs) / (len(in_split) * in_split[pair.split]) for pair in pairs])


def _cells(parts: np.ndarray, seeds: np.ndarray, strata: Sequence[Sequence[int]]) -> np.ndarray:
    """The parts of pairs summed by stratum and seed, [strata, seeds]."""
    names, numbers = np.unique(seeds, return_inverse=True)
    return np.stack([np.bincount(numbers[list(of)], parts[list(of)], len(names)) for of in strata])


def _spread(
    differences: np.ndarray,
    shares: np.ndarray,
    seeds: np.ndarray,
    strata: Sequence[Sequence[int]],
    counts: Sequence[tuple[np.ndarray, np.ndarray]],
    cells: np.ndarray,
) -> _Spread:
    """From the differences, shares and seeds of all pairs, each stratum's pair numbers and counts, and what each stratum
    and seed adds to the mean difference (`_cells`)."""
    of_data = of_both = squares = 0.0
    for members, (gains, sizes) in zip(strata, counts, strict=True):
        # What each recording adds to the mean difference through each pair, less what an average one of its size does.
        here = list(members)
        parts = (gains - sizes * differences[here]) * (shares[here] / (sizes.sum(axis=0) * len(differences)))
        of_stratum = seeds[here]
        by_seed = np.stack(
            [parts[:, of_stratum == seed].sum(axis=1) for seed in np.unique(of_stratum)], axis=1
        )
        n, n_seeds = by_seed.shape
        variance = n / (n - 1) * float(np.sum(by_seed.sum(axis=1) ** 2))
        if n_seeds > 1:
            alone = by_seed - by_seed.mean(axis=1, keepdims=True)
            of_both += n / (n - 1) * n_seeds / (n_seeds - 1) * float(np.sum(alone**2))
        clips = sizes.sum(axis=1, dtype=np.float64)
        equal = float(np.sum(clips**2) ** 2 / np.sum(clips**4))  # so many recordings of one size know as much
        of_data += variance
        squares += variance**2 / max(equal - 1, 1.0)
    n_folds, n_seeds = cells.shape
    of_folds = n_folds / max(n_folds - 1, 1) * float(np.sum(cells.sum(axis=1) ** 2))
    by_folds = n_folds >= FEWEST_FOLDS and of_folds > of_data
    if by_folds:
        of_data, squares = of_folds, of_folds**2 / (n_folds - 1)
        alone = cells - cells.mean(axis=1, keepdims=True) - cells.mean(axis=0)
        of_both = n_folds / (n_folds - 1) * n_seeds / max(n_seeds - 1, 1) * float(np.sum(alone**2))
    of_seeds = 0.0
    if n_seeds > 1:
        of_seeds = n_seeds / (n_seeds - 1) * float(np.sum(cells.sum(axis=0) ** 2))
        squares += of_seeds**2 / (n_seeds - 1)
    kept = max(0.0, of_seeds - of_both) / of_seeds if of_seeds else 0.0
    return _Spread(by_folds, kept**0.5, (of_data + of_seeds) ** 2 / squares if squares else 1.0)


def _strata(pairs: Sequence[Pair]) -> list[list[int]]:
    """Pair numbers to resample together: those linked by shared recordings, as the pairs of a split are."""
    strata: list[tuple[set[str], list[int]]] = []
    for number, pair in enumerate(pairs):
        groups, members = set(pair.groups.tolist()), [number]
        linked = [stratum for stratum in strata if not groups.isdisjoint(stratum[0])]
        strata = [stratum for stratum in strata if groups.isdisjoint(stratum[0])]
        for other_groups, other_members in linked:
            groups, members = groups | other_groups, other_members + members
        strata.append((groups, sorted(members)))
    return [members for _, members in strata]


def _counts(pairs: Sequence[Pair]) -> tuple[np.ndarray, np.ndarray]:
    """Clips won less lost, and clips, of each recording in each pair: two float32 [recordings, pairs]."""
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
    """How often each unit is drawn when n - 1 of n are, with replacement: float32 [resamples, units]."""
    drawn = rng.integers(n_units, size=(n_resamples, max(n_units - 1, 1)))
    flat = (drawn + n_units * np.arange(n_resamples)[:, None]).ravel()
    return np.bincount(flat, minlength=n_resamples * n_units).reshape(n_resamples, n_units).astype(np.float32)


def _resampled(
    gains: np.ndarray, sizes: np.ndarray, n_resamples: int, rng: np.random.Generator
) -> np.ndarray:
    """Accuracy differences over drawn recordings, [resamples, pairs]; NaN where none of a pair's is drawn."""
    n_groups = gains.shape[0]
    chunk = max(1, _CHUNK_WEIGHTS // n_groups)
    parts = []
    for start in range(0, n_resamples, chunk):
        weights = _draw_weights(n_groups, min(chunk, n_resamples - start), rng)
        clips = (weights @ sizes).astype(np.float64)
        parts.append(np.divide(weights @ gains, clips, out=np.full(clips.shape, np.nan), where=clips > 0))
    return np.concatenate(parts)


def _seed_weights(seeds: Sequence[int], n_resamples: int, rng: np.random.Generator) -> np.ndarray:
    """How often each pair counts when seeds are drawn jointly for all splits: [resamples, pairs]."""
    names, numbers = np.unique(np.asarray(seeds), return_inverse=True)
    return _draw_weights(len(names), n_resamples, rng)[:, numbers]


def _weighted_mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean over pairs of values [resamples, pairs] that are not NaN; NaN where none is left."""
    weights = np.where(np.isnan(values), 0.0, weights)
    total = weights.sum(axis=1)
    summed = (np.nan_to_num(values) * weights).sum(axis=1)
    return np.divide(summed, total, out=np.full(total.shape, np.nan), where=total > 0)


def exact_test(pairs: Sequence[Pair]) -> float:
    """The p value of `sign_flip_test` for the mean difference of `paired_bootstrap`, in which each split counts as much."""
    return sign_flip_test(_shares(pairs) * [pair.difference for pair in pairs])


def sign_flip_test(differences: Sequence[float] | np.ndarray, seed: int = 0) -> float:
    """Exact two-sided paired test: how often the mean would lie as far from 0 if every sign were a fair coin.

    Fisher's randomization test over (split, seed) pairs. Were a mix's networks drawn as the baseline's are, either of a
    pair could have been either's, so the p value is exact for these data, however few the pairs; that other recordings
    might have been tested is in the interval, not here. All sign patterns count up to `ALL_FLIPS` pairs; beyond,
    `N_FLIPS` drawn ones and the observed one (Phipson & Smyth 2010). 1.0 without a difference.

    (`scipy.stats.permutation_test` tells ties apart by rounding errors where the mean is small.)
    """
    values = np.asarray(differences, dtype=np.float64)
    values = values[values != 0]  # a zero flips into itself
    n = len(values)
    if n == 0:
        return 1.0
    least = abs(values.sum()) - 1e-9 * np.abs(values).max()
    if least <= 0:
        return 1.0
    if n <= ALL_FLIPS:
        # Every sum is one of the first half of the pairs and one of the second: 2^18 of each stand for 2^36.
        first, second = (_signed_sums(half) for half in np.array_split(values, 2))
        beyond = len(second) - np.searchsorted(np.sort(second), least - first)
        return 2 * int(beyond.sum()) / 2**n  # as many lie as far below 0
    signs = 1 - 2 * np.random.default_rng(seed).integers(2, size=(N_FLIPS, n))
    return (int(np.sum(np.abs(signs @ values) >= least)) + 1) / (N_FLIPS + 1)


def _signed_sums(values: np.ndarray) -> np.ndarray:
    """The sums of `values` [n] under all patterns of signs, [2^n]."""
    sums = np.zeros(1)
    for value in values:
        sums = np.concatenate((sums + value, sums - value))
    return sums


def fewest_pairs(n_comparisons: int = 1) -> int:
    """Pairs from which `sign_flip_test` can fall to 0.05 after `holm` over so many comparisons: 6 for one."""
    n = 1
    while n_comparisons * 2 / 2**n > SIGNIFICANCE:
        n += 1
    return n


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction (1979): p values, in the given order, that hold for all comparisons.

    The i-th smallest of m is multiplied by m - i + 1, never falls below its predecessor, and ends at 1.
    """
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted
