"""Tests of the statistics: properties, known values and coverage of the intervals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from usk.evaluate.stats import (
    MAX_EXACT_PAIRS,
    SIGNIFICANCE,
    Pair,
    PairedDifference,
    _analyze_variance,
    _Grid,
    exact_test,
    holm,
    mean_interval,
    min_pairs,
    paired_bootstrap,
    sign_flip_test,
)


def make_pairs(
    rng: np.random.Generator,
    n_splits: int = 2,
    n_seeds: int = 3,
    n_groups: int = 12,
    clips_a_group: int = 4,
    gain: float = 0.0,
) -> list[Pair]:
    """Return pairs of independent clips. The baseline is right with probability 0.6, the other with 0.6 + gain."""
    pairs = []
    for split in range(n_splits):
        groups = np.repeat([f"{split}-{group}" for group in range(n_groups)], clips_a_group)
        for seed in range(n_seeds):
            first, second = rng.random((2, len(groups)))
            pairs.append(Pair(f"fold{split}", seed, groups, first < 0.6, second < 0.6 + gain))
    return pairs


def bounds(result: PairedDifference) -> tuple[float, float]:
    assert result.low_points is not None and result.high_points is not None
    return result.low_points, result.high_points


def width(result: PairedDifference) -> float:
    low, high = bounds(result)
    return high - low


grids = st.tuples(st.integers(0, 2**32 - 1), st.integers(1, 3), st.integers(1, 3), st.integers(2, 8))


@settings(max_examples=25, deadline=None)
@given(grids)
def test_identical_runs_have_no_difference_and_others_the_mean_over_pairs(
    grid: tuple[int, int, int, int],
) -> None:
    """In any order of the pairs. Swapped mixes negate the difference."""
    number, n_splits, n_seeds, n_groups = grid
    rng = np.random.default_rng(number)
    pairs = make_pairs(rng, n_splits, n_seeds, n_groups, gain=0.1)
    same = paired_bootstrap([replace(p, other_correct=p.baseline_correct) for p in pairs], n_resamples=200)
    assert (same.difference_points, *bounds(same)) == (0, 0, 0)
    assert (same.n_pairs, same.n_pairs_up) == (n_splits * n_seeds, 0)
    assert (same.n_splits, same.n_seeds, same.n_groups) == (n_splits, n_seeds, n_splits * n_groups)
    assert same.n_clips == n_splits * n_groups * 4
    result = paired_bootstrap(pairs, 200)
    mean = np.mean([p.other_correct.mean() - p.baseline_correct.mean() for p in pairs])
    assert result.difference_points == pytest.approx(100 * mean)
    shuffled = [pairs[i] for i in rng.permutation(len(pairs))]
    assert paired_bootstrap(shuffled, 200) == result == paired_bootstrap(pairs, 200)
    swapped = [replace(p, baseline_correct=p.other_correct, other_correct=p.baseline_correct) for p in pairs]
    back = paired_bootstrap(swapped, 200)
    assert back.difference_points == pytest.approx(-result.difference_points, abs=1e-9)
    assert bounds(back) == pytest.approx((-bounds(result)[1], -bounds(result)[0]), abs=1e-4)


def test_clips_of_one_recording_are_not_independent_evidence() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat([f"g{i}" for i in range(40)], 9)
    first, second = np.repeat(rng.random((2, 40)) < 0.6, 9, axis=1)  # the same for all clips of a recording
    by_group = paired_bootstrap([Pair("fold1", 0, groups, first, second)])
    alone = np.array([f"c{i}" for i in range(len(groups))])
    by_clip = paired_bootstrap([Pair("fold1", 0, alone, first, second)])
    assert width(by_group) == pytest.approx(3 * width(by_clip), rel=0.15)  # sqrt(9): nine clips are one unit


def test_all_seeds_of_a_split_share_the_draw_of_recordings() -> None:
    """Three seeds with the same predictions are no more evidence than one seed."""
    pair = make_pairs(np.random.default_rng(1), 1, 1, n_groups=30)[0]
    thrice = [replace(pair, seed=seed) for seed in range(3)]
    assert width(paired_bootstrap(thrice)) == pytest.approx(width(paired_bootstrap([pair])), rel=0.08)


def test_a_recording_tested_in_two_splits_counts_once() -> None:
    pair = make_pairs(np.random.default_rng(2), 1, 1, n_groups=30)[0]
    apart = np.array([f"other {name}" for name in pair.groups])
    twice = paired_bootstrap([pair, replace(pair, split="again")])
    fresh = paired_bootstrap([pair, replace(pair, split="again", groups=apart)])
    assert (twice.n_groups, fresh.n_groups) == (30, 60)
    assert width(twice) == pytest.approx(width(paired_bootstrap([pair])), rel=0.08)
    assert width(fresh) == pytest.approx(width(twice) / 2**0.5, rel=0.1)


def test_the_interval_covers_the_variance_of_seeds() -> None:
    """Seeds that differ by ten points widen the interval even if recordings hardly differ."""
    groups = np.repeat([f"g{i}" for i in range(50)], 10)
    wrong = np.zeros(500, dtype=bool)
    pairs = [Pair("fold1", s, groups, wrong, np.tile(np.arange(10) < s + 2, 50)) for s in range(3)]
    result = paired_bootstrap(pairs)
    assert result.difference_points == pytest.approx(30)
    expected = 4.303 * 10 / 3**0.5  # Student's t with two degrees of freedom
    assert bounds(result) == pytest.approx((30 - expected, 30 + expected), abs=1)


def test_recordings_of_unequal_size_have_fewer_degrees_of_freedom() -> None:
    """Satterthwaite's formula by hand: sizes 4, 4, 2, 2 are equivalent to 40^2 / 544 recordings of equal size."""
    sizes, gains = np.array([[4.0], [4], [2], [2]]), np.array([[1.0], [-1], [2], [0]])
    grid = _Grid(np.array([2 / 12]), np.ones(1), np.array([0]), [[0]], [(gains, sizes)])
    assert _analyze_variance(grid).degrees_of_freedom == pytest.approx(1600 / 544 - 1)


def test_all_splits_have_the_same_weight() -> None:
    """More seeds in the split with the largest difference do not enlarge the mean or narrow its interval."""
    rng = np.random.default_rng(8)
    good, bad = make_pairs(rng, 1, 12, gain=0.3), make_pairs(rng, 1, 3, gain=-0.3)
    bad = [replace(pair, split="bad", groups=np.char.add("b", pair.groups)) for pair in bad]
    result = paired_bootstrap([*good, *bad])
    means = [np.mean([pair.difference for pair in of]) for of in (good, bad)]
    assert result.difference_points == pytest.approx(100 * np.mean(means))
    assert abs(result.difference_points) < 100 * np.mean([pair.difference for pair in [*good, *bad]])
    doubled = [replace(pair, seed=pair.seed + 100 * copy) for pair in good for copy in range(4)]
    again = paired_bootstrap([*doubled, *bad])
    assert again.difference_points == pytest.approx(result.difference_points)
    low, high = bounds(paired_bootstrap(bad))
    assert width(again) > 0.45 * (high - low)  # half of the mean still depends on three seeds
    even = [*make_pairs(rng, 2, 3)]
    assert exact_test(even) == sign_flip_test([pair.difference for pair in even])
    # With weights 1/4, 1/4 and 1/2, two of eight sign patterns have a sum as far from 0 as (+, +, +).
    assert exact_test([good[0], good[1], replace(good[2], split="bad")]) == 2 / 8


def test_one_recording_gives_no_interval_and_missing_clips_raise() -> None:
    right = np.array([True, True, False])
    result = paired_bootstrap([Pair("fold1", 0, np.array(["a"] * 3), ~right, right)])
    assert result.difference_points == pytest.approx(100 / 3)
    assert result.low_points is None and result.high_points is None
    few = paired_bootstrap([Pair("fold1", 0, np.array(["a", "a", "b"]), ~right, right)])
    assert (few.low_points, few.high_points) == (-100, 100), "accuracies differ by 100 points at most"
    empty = Pair("fold1", 0, np.array([], dtype=str), np.array([], bool), np.array([], bool))
    for pairs in ([], [empty]):
        with pytest.raises(ValueError):
            paired_bootstrap(pairs)


def test_resamples_without_any_recording_of_a_pair_are_skipped() -> None:
    pairs = make_pairs(np.random.default_rng(3), 1, 1, n_groups=20)
    few = Pair("small", 0, pairs[0].groups[:4], pairs[0].baseline_correct[:4], pairs[0].other_correct[:4])
    assert np.isfinite(bounds(paired_bootstrap([*pairs, few]))).all()


def uneven_study(
    rng: np.random.Generator,
    n_folds: int,
    n_seeds: int,
    n_groups: int,
    fold_sd: float = 0.0,
    seed_sd: float = 0.0,
) -> list[Pair]:
    """Return pairs without a mean gain. Each recording has a random gain, and so has each fold and seed with the given deviations."""
    pairs = []
    for fold in range(n_folds):
        sizes = rng.integers(1, 7, n_groups)
        groups = np.repeat([f"{fold}-{i}" for i in range(n_groups)], sizes)
        fold_gain = rng.normal(0, fold_sd) + np.repeat(rng.normal(0, 0.1, n_groups), sizes)
        for seed in range(n_seeds):
            first, second = rng.random((2, len(groups)))
            gain = fold_gain + rng.normal(0, seed_sd)
            pairs.append(Pair(f"fold{fold}", seed, groups, first < 0.5, second < 0.5 + gain))
    return pairs


@pytest.mark.parametrize(("n_groups", "seed_sd"), [(8, 0.0), (25, 0.0), (60, 0.04)])
def test_the_interval_has_its_nominal_coverage(n_groups: int, seed_sd: float) -> None:
    """With 2 folds x 4 seeds. The half width is at most 1.35 times 1.96 standard deviations of the results, 1.7 times with few units."""
    rng = np.random.default_rng(4)
    studies = (uneven_study(rng, 2, 4, n_groups, seed_sd=seed_sd) for _ in range(150))
    results = [paired_bootstrap(pairs, n_resamples=500) for pairs in studies]
    covered = [low <= 0 <= high for low, high in map(bounds, results)]
    assert np.mean(covered) >= 0.9
    for result, holds in zip(results, covered, strict=True):
        assert result.p_value is not None
        assert (result.p_value > SIGNIFICANCE) == holds or abs(result.p_value - 0.05) < 0.01
    spread = 1.96 * np.std([result.difference_points for result in results])
    half_width = np.median([width(result) / 2 for result in results])
    assert 0.9 < half_width / spread < (1.35 if n_groups > 20 else 1.7)


@pytest.mark.parametrize("n_folds", [4, 8])
def test_coverage_holds_if_folds_have_different_gains(n_folds: int) -> None:
    """Longer simulations are in docs/studies/error_rate.py."""
    rng = np.random.default_rng(n_folds)
    studies = (uneven_study(rng, n_folds, 3, 25, fold_sd=0.03) for _ in range(120))
    intervals = [bounds(paired_bootstrap(pairs, n_resamples=400)) for pairs in studies]
    assert np.mean([low <= 0 <= high for low, high in intervals]) >= 0.92


def test_folds_are_resampled_if_they_vary_more_than_their_recordings() -> None:
    """The expected interval is Student's t of the fold means, because all recordings of a fold have the same gain."""
    gains = [2, 4, 6, 12]  # of 20 clips of each recording
    groups = np.repeat([f"g{i}" for i in range(50)], 20)
    wrong = np.zeros(1000, dtype=bool)
    pairs = [
        Pair(f"fold{k}", 0, np.char.add(str(k), groups), wrong, np.tile(np.arange(20) < gain, 50))
        for k, gain in enumerate(gains)
    ]
    result = paired_bootstrap(pairs)
    expected = mean_interval([100 * gain / 20 for gain in gains])
    assert result.over_folds and expected.half_width is not None
    assert width(result) / 2 == pytest.approx(expected.half_width, rel=0.1)
    few = paired_bootstrap(pairs[:3])
    # The interval is about these folds only, and all their recordings have the same gain.
    assert not few.over_folds and width(few) < 1


def test_similar_folds_do_not_narrow_the_interval_of_their_recordings() -> None:
    pair = make_pairs(np.random.default_rng(3), 1, 1, n_groups=40)[0]
    copies = [replace(pair, split=f"fold{k}", groups=np.char.add(str(k), pair.groups)) for k in range(6)]
    assert width(paired_bootstrap(copies)) == pytest.approx(width(paired_bootstrap([pair])) / 6**0.5, rel=0.1)


def test_thousands_of_recordings_are_resampled_in_chunks() -> None:
    pairs = make_pairs(np.random.default_rng(6), 1, 1, n_groups=3000, clips_a_group=1)
    few = paired_bootstrap(pairs, n_resamples=2000)
    expected = 2 * 1.96 * 100 * (2 * 0.6 * 0.4 / 3000) ** 0.5
    assert width(few) == pytest.approx(expected, rel=0.08)


def test_mean_interval() -> None:
    made = mean_interval([0.6, 0.7, 0.8])
    assert (made.mean, made.half_width) == pytest.approx((0.7, 4.302653 * 0.1 / 3**0.5))
    assert (made.low, made.high) == pytest.approx((0.7 - 0.248414, 0.7 + 0.248414), abs=1e-5)
    single = mean_interval([0.5])
    assert (single.mean, single.half_width, single.low, single.high) == (0.5, None, None, None)
    with pytest.raises(ValueError):
        mean_interval([])


def test_sign_flip_test_has_known_values() -> None:
    assert sign_flip_test([1.0] * 9) == sign_flip_test([-1.0] * 9) == 2 / 2**9
    assert sign_flip_test([3.0, 2.0, -1.0]) == 4 / 8  # sums of +-6 and +-4 are at least as far from 0 as 4
    assert sign_flip_test([3.0, 2.0, -1.0, 0.0]) == 4 / 8  # zeros do not count
    assert sign_flip_test([0.1, 0.2, -0.3]) == 1.0  # a tie in spite of rounding
    assert sign_flip_test([0.0, 0.0]) == sign_flip_test([]) == sign_flip_test([0.2]) == 1.0


@given(st.lists(st.integers(-20, 20), min_size=1, max_size=9), st.floats(0.001, 1000))
def test_sign_flip_test_agrees_with_scipy_for_any_sign_order_and_unit(whole: list[int], unit: float) -> None:
    from scipy.stats import permutation_test

    p = sign_flip_test(whole)
    assert p == sign_flip_test([-value for value in whole]) == sign_flip_test(whole[::-1])
    assert p == sign_flip_test([unit * value for value in whole])
    if len(whole) > 1 and any(whole):
        theirs = permutation_test((np.array(whole, float),), np.sum, permutation_type="samples")
        # SciPy doubles the one-sided count, which is the same by symmetry.
        assert p == pytest.approx(theirs.pvalue)


def test_drawn_sign_patterns_agree_with_all_patterns() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(0.3, 1, MAX_EXACT_PAIRS)
    more = np.concatenate((values, 1e-7 * values[:2]))  # two more pairs with almost no effect
    assert 0.01 < sign_flip_test(more) == pytest.approx(sign_flip_test(values), abs=0.01)
    assert sign_flip_test(np.ones(30)) == 2 / 2**30
    assert sign_flip_test(np.ones(40)) == 1 / (2**15 + 1), "never zero"


@pytest.mark.parametrize("n_comparisons", [1, 2, 4, 9])
def test_the_fewest_pairs_are_those_that_the_corrected_test_needs(n_comparisons: int) -> None:
    n = min_pairs(n_comparisons)
    corrected = [
        holm([sign_flip_test([1.0] * pairs)] * n_comparisons)[0] <= SIGNIFICANCE for pairs in (n - 1, n)
    ]
    assert corrected == [False, True]


def test_where_mixes_do_the_same_the_verdict_is_wrong_at_most_as_often_as_it_says() -> None:
    """2 folds x 4 seeds, no mix better; the exact test alone, and both together."""
    rng = np.random.default_rng(7)
    n_trials = 400
    studies = [make_pairs(rng, 2, 4, 15, 3) for _ in range(n_trials)]
    found = [pairs for pairs in studies if exact_test(pairs) <= SIGNIFICANCE]
    both = [pairs for pairs in found if (paired_bootstrap(pairs, 300).p_value or 1) <= SIGNIFICANCE]
    assert len(both) <= len(found) <= n_trials * (0.05 + 3 * (0.05 * 0.95 / n_trials) ** 0.5)
    assert len(found) >= 0.01 * n_trials, "a test that never finds anything would pass too"


def test_holm_known_values() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.04]) == [0.04]
    assert holm([]) == []
    assert holm([0.9, 0.8]) == [1.0, 1.0]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_keeps_the_order_and_never_flatters(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    assert all(p <= q <= 1 for p, q in zip(p_values, adjusted, strict=True))
    assert all(
        q <= min(1, len(p_values) * p) for p, q in zip(p_values, adjusted, strict=True) if p == min(p_values)
    )
    ranked = [q for _, q in sorted(zip(p_values, adjusted, strict=True))]
    assert ranked == sorted(ranked)
