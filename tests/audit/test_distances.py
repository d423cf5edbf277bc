"""Distances between sets of clips: what is same, what is other, known values, and intervals that hold."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.sounds import tone
from usk.audit.distances import (
    RealClips,
    _Kernels,
    apart,
    covered,
    densities,
    kad,
    median_distance,
    mmd,
    nearest_apart,
    neighbourhoods,
)
from usk.audit.embeddings import log_mel_statistics


@given(st.integers(0, 1000), st.floats(0.5, 5), st.integers(2, 30), st.integers(2, 30))
def test_mmd_does_not_depend_on_sides_or_order(seed: int, width: float, n: int, m: int) -> None:
    rng = np.random.default_rng(seed)
    first, second = rng.standard_normal((n, 4)), rng.standard_normal((m, 4)) + 0.5
    value = mmd(first, second, width)
    assert value == pytest.approx(mmd(second, first, width), abs=1e-9)
    assert value == pytest.approx(mmd(rng.permutation(first), second, width), abs=1e-9)


def test_mmd_is_unbiased_and_rises_with_the_distance() -> None:
    rng = np.random.default_rng(0)

    def draw(shift: float) -> list[float]:
        return [
            mmd(rng.standard_normal((12, 3)), rng.standard_normal((15, 3)) + shift, 1.7) for _ in range(300)
        ]

    same = np.array(draw(0.0))
    assert abs(same.mean()) < 3 * same.std() / np.sqrt(len(same))  # a biased one would be above zero
    assert same.mean() + 3 < np.mean(draw(0.5)) < np.mean(draw(1.5))


@pytest.mark.parametrize(("n", "m"), [(1, 5), (5, 1), (0, 5)])
def test_mmd_of_a_single_clip_is_refused(n: int, m: int) -> None:
    with pytest.raises(ValueError, match="two clips on each side"):
        mmd(np.zeros((n, 2)), np.zeros((m, 2)), 1.0)


def test_kad_takes_the_median_distance_of_the_real_clips_as_its_width() -> None:
    real, made = np.array([[0.0], [1.0], [3.0]]), np.array([[0.0], [2.0]])
    assert median_distance(real) == 2.0  # of 1, 2 and 3

    def k(distance: float) -> float:
        return float(np.exp(-(distance**2) / 8))

    between = np.mean([k(d) for d in (0, 1, 3, 2, 1, 1)])
    expected = 100 * (np.mean([k(1), k(2), k(3)]) + k(2) - 2 * between)
    assert kad(real, made) == pytest.approx(expected)
    assert median_distance(np.zeros((4, 2))) == median_distance(np.zeros((1, 2))) == 1.0


@given(st.integers(0, 1000), st.floats(0.01, 100))
def test_kad_does_not_depend_on_the_unit(seed: int, unit: float) -> None:
    rng = np.random.default_rng(seed)
    real, made = rng.standard_normal((9, 3)), rng.standard_normal((7, 3)) + 0.3
    assert kad(unit * real, unit * made) == pytest.approx(kad(real, made), abs=1e-6)


def test_density_and_coverage_known_values() -> None:
    real = np.arange(5.0)[:, None]  # with k = 1 each neighbourhood has radius 1
    assert neighbourhoods(real, 1).tolist() == [1, 1, 1, 1, 1]
    assert densities(real, np.array([[1.5], [0.0], [9.0]]), 1).tolist() == [2, 2, 0]
    assert covered(real, np.array([[1.5], [0.0], [9.0]]), 1).tolist() == [True, True, True, False, False]
    assert np.isnan(neighbourhoods(real)).all(), "five clips have no five neighbors each"


def test_density_and_coverage_look_past_the_cuts_of_one_recording() -> None:
    """Three recordings of four cuts each, all but on one spot; new clips lie between them, as new recordings would."""
    rng = np.random.default_rng(0)
    real = np.repeat([[0.0], [1.0], [2.0]], 4, axis=0) + 1e-3 * rng.standard_normal((12, 1))
    of_real = [{f"r{row // 4}"} for row in range(12)]
    made, of_made = np.array([[0.4], [1.5]]), [{"x"}, {"r1"}]
    assert densities(real, made, 3).tolist() == [0, 0] and not covered(real, made, 3).any()
    found = densities(real, made, 3, (of_real, of_made))
    # 8 clips are of other recordings: a neighbourhood holds 3 of 9, and 0.4 lies in those of 8 clips (0 and 1) of 12.
    assert found[0] == pytest.approx(8 / (12 * 3 / 9))
    # 1.5, made from r1, lies in those of r2 alone, of the 8 clips that count.
    assert found[1] == pytest.approx(4 / (8 * 3 / 9))
    assert covered(real, made, 3, (of_real, of_made)).tolist() == [1] * 12
    assert np.isnan(densities(real, made, 3, (of_real, [{"r0", "r1", "r2"}] * 2))).all(), "nothing counts"
    only = covered(real, made[:1], 3, (of_real, [{"r0"}]))
    assert np.isnan(only[:4]).all() and only[4:].tolist() == [1, 1, 1, 1, 0, 0, 0, 0]


def test_real_clips_have_a_density_and_coverage_of_their_own() -> None:
    rng = np.random.default_rng(3)
    recordings = [f"r{row // 8}" for row in range(320)]
    values = np.repeat(rng.standard_normal((40, 3)), 8, axis=0) + 0.01 * rng.standard_normal((320, 3))
    clips = RealClips(values, [0] * 320, recordings)
    baseline = clips.baseline_score(0, densities)
    assert 1 < baseline < 2, "the fifth clip of another recording brings the rest of it with it"  # type: ignore[operator]
    assert clips.baseline_score(0, covered) > 0.5  # type: ignore[operator]
    by_number = [clips.baseline_score(0, covered, n) for n in (5, 20, 10_000)]
    assert 0 < by_number[0] < by_number[1] < by_number[2] == clips.baseline_score(0, covered)  # type: ignore[operator]
    of_new = clips.density(rng.standard_normal((60, 3)), [0] * 60)
    assert 1.2 < of_new.value < 2.4  # type: ignore[operator]
    assert densities(values[:160], values[160:]).mean() < 0.1, "what cuts of one recording make of new ones"
    few = RealClips(values[:8], [0] * 8, recordings[:8])
    assert few.baseline_score(0, densities) is None, "a half has four clips, of one recording"


@given(st.integers(0, 1000), st.integers(7, 30), st.integers(1, 30))
def test_density_and_coverage_know_neither_place_nor_unit_nor_order(seed: int, n: int, m: int) -> None:
    rng = np.random.default_rng(seed)
    real, made = rng.standard_normal((n, 3)), rng.standard_normal((m, 3))
    moved = (8 * real + 3, 8 * made + 3)
    assert np.array_equal(densities(real, made), densities(*moved))
    assert np.array_equal(covered(real, made), covered(*moved))
    assert densities(real, made).mean() == pytest.approx(densities(rng.permutation(real), made).mean())
    more = np.concatenate((made, rng.standard_normal((3, 3))))
    assert (covered(real, made) <= covered(real, more)).all(), "more clips cover no less"
    assert covered(real, real).all()


def test_density_and_coverage_are_what_the_paper_says_of_equal_distributions() -> None:
    """Density 1; coverage 1 - (N-1)...(N-k) / (M+N-1)...(M+N-k) (arXiv 2002.09797, section 3.3)."""
    rng = np.random.default_rng(0)
    n, m, k = 40, 30, 5
    both = [
        (densities(real, made, k).mean(), covered(real, made, k).mean())
        for real, made in ((rng.standard_normal((n, 4)), rng.standard_normal((m, 4))) for _ in range(200))
    ]
    expected = 1 - np.prod([(n - i) / (m + n - i) for i in range(1, k + 1)])
    assert np.mean(both, axis=0) == pytest.approx((1, expected), abs=0.03)


def test_density_finds_crowding_and_coverage_what_is_left_out() -> None:
    rng = np.random.default_rng(1)
    real = np.concatenate((rng.standard_normal((40, 2)), rng.standard_normal((40, 2)) + 20))
    one_mode = 0.3 * rng.standard_normal((80, 2))
    clips = RealClips(real, [0] * 80, [f"r{i // 2}" for i in range(80)])
    density, coverage = clips.density(one_mode, [0] * 80), clips.coverage(one_mode, [0] * 80)
    assert density.low > 1  # type: ignore[operator]
    assert 0.3 < coverage.low <= coverage.value <= coverage.high < 0.7  # type: ignore[operator]
    assert (density.n, density.n_real, coverage.n_real) == (80, 80, 80)


def test_the_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(2)
    real = rng.standard_normal((60, 3))
    clips = RealClips(real, [0] * 60, [f"r{i}" for i in range(60)])
    big = rng.standard_normal((4_000, 3)) * 1.2
    truth = (densities(real, big).mean(), mmd(big, real, clips.widths[0]))
    hits = np.zeros(2)
    for _ in range(100):
        some = rng.standard_normal((40, 3)) * 1.2
        density, distance = clips.density(some, [0] * 40), clips.distance(some, [0] * 40)
        hits += [
            density.low <= truth[0] <= density.high,  # type: ignore[operator]
            distance.low <= truth[1] <= distance.high,  # type: ignore[operator]
        ]
    assert (hits >= 85).all(), hits


def cut(
    rng: np.random.Generator, n_recordings: int, clips_each: int, name: str
) -> tuple[np.ndarray, list[str]]:
    """Clips of as many recordings, that differ less within one than between two, and their recordings' names."""
    of_recording = np.repeat(rng.standard_normal((n_recordings, 6)), clips_each, axis=0)
    names = [f"{name}{i // clips_each}" for i in range(len(of_recording))]
    return of_recording + 0.5 * rng.standard_normal(of_recording.shape), names


@pytest.mark.parametrize(("n_parents", "clips_each"), [(40, 1), (10, 5)])
def test_clips_of_one_recording_do_not_make_sets_of_one_distribution_seem_apart(
    n_parents: int, clips_each: int
) -> None:
    rng = np.random.default_rng(5)
    found, blind, n_wrong = [], [], 0
    for _ in range(60):
        real, recordings = cut(rng, 20, 5, "r")
        made, parents = cut(rng, n_parents, clips_each, "p")
        clips = RealClips(real, [0] * len(real), recordings)
        distance = clips.distance(made, [0] * len(made), [{name} for name in parents])
        found.append(distance.mmd)
        blind.append(kad(real, made))
        n_wrong += not distance.low <= 0 <= distance.high  # type: ignore[operator]
    error = np.std(found) / len(found) ** 0.5
    assert abs(np.mean(found)) < 3 * error < 1 < np.mean(blind)
    assert n_wrong <= 6


def test_clips_made_of_the_real_ones_are_not_near_them_for_that() -> None:
    """A copy of a real clip is as far from the others as the clip is; what is near its parents is no nearer to its class."""
    rng = np.random.default_rng(6)
    found, towards_parents = [], []
    for _ in range(60):
        real, recordings = cut(rng, 20, 5, "r")
        clips = RealClips(real, [0] * len(real), recordings)
        chosen = rng.integers(len(real), size=50)
        made = real[chosen] + 0.1 * rng.standard_normal((50, 6))
        found.append(clips.distance(made, [0] * 50, [{recordings[i]} for i in chosen]).mmd)
        towards_parents.append(clips.distance(made, [0] * 50).mmd)
    assert abs(np.mean(found)) < 0.5 and np.mean(towards_parents) < -1


def test_a_half_is_of_half_of_the_recordings_each_once() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.standard_normal((16, 3)), rng.standard_normal((16, 3))
    names = [{f"r{row // 2}"} for row in range(16)]
    halves = []
    for chosen in itertools.combinations(range(8), 4):
        rows = np.flatnonzero(np.isin(np.arange(16) // 2, chosen))
        of = [names[row] for row in rows]
        halves.append(mmd(first[rows], second[rows], 1.7, (of, of)))
    kernels = _Kernels.of(first, second, 1.7, names, names)
    drawn = [kernels.half(rng) for _ in range(30)]
    assert all(np.isclose(halves, value, rtol=0, atol=1e-9).any() for value in drawn)


def test_pairs_of_clips_without_a_recording_in_common() -> None:
    of_clips = [{"a", "b"}, {"b", "c"}, {"c"}]
    assert apart(of_clips, of_clips).tolist() == [
        [False, False, True],
        [False, False, False],
        [True, False, False],
    ]
    assert np.isnan(mmd(np.zeros((2, 1)), np.ones((2, 1)), 1.0, ([{"a"}, {"a"}], [{"b"}, {"c"}])))


def test_few_clips_have_no_interval_and_fewer_no_figure() -> None:
    rng = np.random.default_rng(0)
    clips = RealClips(rng.standard_normal((15, 2)), [0] * 10 + [1] * 5, ["a"] * 5 + ["c"] * 5 + ["b"] * 5)
    of_one = clips.density(rng.standard_normal((2, 2)), [0, 0])
    assert of_one.value is not None and of_one.low is None
    assert clips.coverage(rng.standard_normal((9, 2)), [0] * 9).low is None, "two recordings"
    none = clips.density(rng.standard_normal((9, 2)), [1] * 9)
    assert (none.value, none.n, none.n_real) == (None, 9, 0), "five real clips of one recording"
    assert clips.distance(rng.standard_normal((1, 2)), [0]).mmd is None
    assert clips.distance(rng.standard_normal((3, 2)), [1] * 3).mmd is None, "one recording"
    of_two = clips.distance(rng.standard_normal((30, 2)), [0] * 30)
    assert of_two.mmd is not None and of_two.low is None


def test_the_nearest_of_another_recording() -> None:
    values = np.array([[0.0], [0.1], [2.0]])
    assert nearest_apart(values, np.array(["a", "a", "b"])) == pytest.approx([2, 1.9, 1.9])
    assert np.isinf(nearest_apart(values, np.array(["a", "a", "a"]))).all()


def test_the_distance_to_the_same_sounds_is_nothing_and_to_others_is_not() -> None:
    rng = np.random.default_rng(0)

    def both() -> np.ndarray:
        return log_mel_statistics(
            [
                tone(frequency_hz * (1 + 0.02 * rng.standard_normal()), 0.5)
                + 0.02 * rng.standard_normal(11_025).astype(np.float32)
                for frequency_hz in [300] * 16 + [1_500] * 16
            ]
        )

    labels = [0] * 16 + [1] * 16
    clips = RealClips(both(), labels, [f"r{i}" for i in range(32)])
    noisy = both()
    same, swapped = clips.distance(noisy, labels), clips.distance(both(), labels[::-1])
    assert same.mmd == pytest.approx(
        np.mean([kad(clips.values[side], noisy[side]) for side in (slice(0, 16), slice(16, 32))]), abs=0.01
    )
    assert same.low <= same.mmd <= same.high  # type: ignore[operator]
    assert abs(same.mmd) < 10 < swapped.low  # type: ignore[operator, arg-type]
    assert (same.n, same.n_real) == (32, 32)
    baseline = clips.baseline(0)
    assert abs(baseline.mmd) < 10 and (baseline.n, baseline.n_real) == (8, 8)  # type: ignore[arg-type]


def test_halves_that_say_nothing_do_not_narrow_an_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four classes whose halves spread by 1 point, where they say anything: their mean by half a point."""
    rng = np.random.default_rng(3)
    real, made = rng.standard_normal((80, 3)), rng.standard_normal((40, 3))
    clips = RealClips(real, [i % 4 for i in range(80)], [f"r{i}" for i in range(80)])

    def half(kernels: _Kernels, draw: np.random.Generator) -> float:
        return float("nan") if draw.random() < 0.6 else float(draw.standard_normal())

    monkeypatch.setattr(_Kernels, "half", half)
    found = clips.distance(made, [i % 4 for i in range(40)])
    assert found.high - found.low == pytest.approx(2 * 1.96 / 2, rel=0.2)  # type: ignore[operator]
    monkeypatch.setattr(_Kernels, "half", lambda *_: float("nan"))
    silent = clips.distance(made, [i % 4 for i in range(40)])
    assert (silent.mmd, silent.low, silent.high) == (found.mmd, None, None)
