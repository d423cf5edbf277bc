"""Tests of distances between sets of clips: invariances, known values and coverage of the intervals."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.sounds import tone
from usk.audit.distances import (
    Distance,
    Neighbors,
    RealClips,
    _Discrepancy,
    kad,
    median_distance,
    mmd,
    nearest_other_recording,
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
def test_mmd_of_a_single_clip_raises(n: int, m: int) -> None:
    with pytest.raises(ValueError, match="two clips on each side"):
        mmd(np.zeros((n, 2)), np.zeros((m, 2)), 1.0)


def test_the_kernel_width_of_kad_is_the_median_distance_of_real_clips() -> None:
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


def distance(clips: RealClips, *args: Any) -> Distance:
    """Return the mean distance over classes."""
    return clips.distances(*args)[1]


def test_the_interval_has_its_nominal_coverage() -> None:
    rng = np.random.default_rng(2)
    real = rng.standard_normal((60, 3))
    clips = RealClips(real, [0] * 60, [f"r{i}" for i in range(60)])
    truth = mmd(rng.standard_normal((1_500, 3)) * 1.2, real, clips.widths[0])
    hits = 0
    for _ in range(60):
        found = distance(clips, rng.standard_normal((40, 3)) * 1.2, [0] * 40)
        hits += found.low <= truth <= found.high  # type: ignore[operator]
    assert hits >= 51


def cut(
    rng: np.random.Generator, n_recordings: int, clips_each: int, name: str
) -> tuple[np.ndarray, list[str]]:
    """Return clips of several recordings, with less variance within recordings than between them, and the recordings' names."""
    centers = np.repeat(rng.standard_normal((n_recordings, 6)), clips_each, axis=0)
    names = [f"{name}{i // clips_each}" for i in range(len(centers))]
    return centers + 0.5 * rng.standard_normal(centers.shape), names


@pytest.mark.parametrize(("n_parents", "clips_each"), [(40, 1), (10, 5)])
def test_several_clips_of_a_recording_do_not_bias_kad(n_parents: int, clips_each: int) -> None:
    rng = np.random.default_rng(5)
    corrected, naive, n_wrong = [], [], 0
    for _ in range(40):
        real, recordings = cut(rng, 20, 5, "r")
        made, parents = cut(rng, n_parents, clips_each, "p")
        clips = RealClips(real, [0] * len(real), recordings)
        one = distance(clips, made, [0] * len(made), [{name} for name in parents])
        corrected.append(one.kad)
        naive.append(kad(real, made))
        n_wrong += not one.low <= 0 <= one.high  # type: ignore[operator]
    error = np.std(corrected) / len(corrected) ** 0.5
    assert abs(np.mean(corrected)) < 3 * error < 1 < np.mean(naive)
    assert n_wrong <= 4


def test_clips_made_from_real_ones_do_not_bias_kad() -> None:
    """A clip that is close to its parents is not closer to other clips of the class."""
    rng = np.random.default_rng(6)
    corrected, naive = [], []
    for _ in range(40):
        real, recordings = cut(rng, 20, 5, "r")
        clips = RealClips(real, [0] * len(real), recordings)
        chosen = rng.integers(len(real), size=50)
        made = real[chosen] + 0.1 * rng.standard_normal((50, 6))
        corrected.append(distance(clips, made, [0] * 50, [{recordings[i]} for i in chosen]).kad)
        naive.append(distance(clips, made, [0] * 50).kad)
    assert abs(np.mean(corrected)) < 0.5 and np.mean(naive) < -1


def test_a_half_has_half_of_the_recordings() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.standard_normal((16, 3)), rng.standard_normal((16, 3))
    names = [{f"r{row // 2}"} for row in range(16)]
    halves = []
    for chosen in itertools.combinations(range(8), 4):
        rows = np.flatnonzero(np.isin(np.arange(16) // 2, chosen))
        of = [names[row] for row in rows]
        halves.append(mmd(first[rows], second[rows], 1.7, (of, of)))
    drawn = _Discrepancy.compute(first, second, (names, names), 1.7).of_halves(rng)
    assert all(np.isclose(halves, value, rtol=0, atol=1e-9).any() for value in drawn)


def test_mmd_without_pairs_of_different_recordings_is_nan() -> None:
    assert np.isnan(mmd(np.zeros((2, 1)), np.ones((2, 1)), 1.0, ([{"a"}, {"a"}], [{"b"}, {"c"}])))


def test_few_recordings_have_no_interval_or_no_value() -> None:
    rng = np.random.default_rng(0)
    clips = RealClips(rng.standard_normal((15, 2)), [0] * 10 + [1] * 5, ["a"] * 5 + ["c"] * 5 + ["b"] * 5)
    assert distance(clips, rng.standard_normal((1, 2)), [0]).kad is None
    assert distance(clips, rng.standard_normal((3, 2)), [1] * 3).kad is None, "one recording"
    two_recordings = distance(clips, rng.standard_normal((30, 2)), [0] * 30)
    assert two_recordings.kad is not None and two_recordings.low is None


def test_the_nearest_clip_of_another_recording() -> None:
    values = np.array([[0.0], [0.1], [2.0]])
    assert nearest_other_recording(values, np.array(["a", "a", "b"])) == pytest.approx([2, 1.9, 1.9])
    assert np.isinf(nearest_other_recording(values, np.array(["a", "a", "a"]))).all()


def test_kad_is_small_for_similar_sounds_and_large_for_others() -> None:
    rng = np.random.default_rng(0)

    def sounds() -> np.ndarray:
        return log_mel_statistics(
            [
                tone(frequency_hz * (1 + 0.02 * rng.standard_normal()), 0.5)
                + 0.02 * rng.standard_normal(11_025).astype(np.float32)
                for frequency_hz in [300] * 16 + [1_500] * 16
            ]
        )

    labels = [0] * 16 + [1] * 16
    clips = RealClips(sounds(), labels, [f"r{i}" for i in range(32)])
    noisy = sounds()
    same, swapped = distance(clips, noisy, labels), distance(clips, sounds(), labels[::-1])
    assert same.kad == pytest.approx(
        np.mean([kad(clips.values[side], noisy[side]) for side in (slice(0, 16), slice(16, 32))]), abs=0.01
    )
    assert same.low <= same.kad <= same.high  # type: ignore[operator]
    assert abs(same.kad) < 10 < swapped.low  # type: ignore[operator, arg-type]
    assert (same.n, same.n_real) == (32, 32)
    baseline = clips.baseline(0)
    assert abs(baseline.kad) < 10 and (baseline.n, baseline.n_real) == (8, 8)  # type: ignore[arg-type]


def test_halves_without_pairs_do_not_narrow_an_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    """The halves of four classes have a standard deviation of 1 point if they have pairs, so their mean has half a point."""
    rng = np.random.default_rng(3)
    real, made = rng.standard_normal((80, 3)), rng.standard_normal((40, 3))
    clips = RealClips(real, [i % 4 for i in range(80)], [f"r{i}" for i in range(80)])

    def values(empty_fraction: float) -> Callable[..., np.ndarray]:
        def values_of(_: _Discrepancy, subsets: np.ndarray) -> np.ndarray:
            if len(subsets) == 1:
                return np.array([5.0])
            return np.where(
                rng.random(len(subsets)) < empty_fraction, np.nan, rng.standard_normal(len(subsets))
            )

        return values_of

    monkeypatch.setattr(_Discrepancy, "values", values(0.6))
    found = distance(clips, made, [i % 4 for i in range(40)])
    assert found.high - found.low == pytest.approx(2 * 1.96 / 2, rel=0.2)  # type: ignore[operator]
    monkeypatch.setattr(_Discrepancy, "values", values(1.0))
    empty = distance(clips, made, [i % 4 for i in range(40)])
    assert (empty.kad, empty.low, empty.high) == (5.0, None, None)


def test_the_block_size_does_not_change_distances(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    clips = RealClips(
        rng.standard_normal((50, 3)), [i % 2 for i in range(50)], [f"r{i // 2}" for i in range(50)]
    )
    made, labels = rng.standard_normal((40, 3)), [i % 2 for i in range(40)]
    recordings = [{f"r{i // 4}", f"p{i}"} for i in range(40)]
    expected = clips.distances(made, labels, recordings)
    monkeypatch.setattr("usk.audit.distances.BLOCK", 7)
    assert clips.distances(made, labels, recordings) == expected
    by_class, mean = expected
    assert mean.kad == pytest.approx(np.mean([one.kad for one in by_class.values()]), abs=0.01)


def test_copies_among_real_clips_do_not_hide_near_copies() -> None:
    rng = np.random.default_rng(0)
    values = rng.standard_normal((60, 8)).astype(np.float32)
    values[:4] = values[4:8]  # copies under the names of other recordings
    near = (values[20:22] + 1e-2).astype(np.float32)
    real = RealClips(values, [0] * 60, [f"r{number}" for number in range(60)])
    neighbors = Neighbors(near, np.full(2, np.inf), real)
    assert neighbors.near_copy_below is not None and neighbors.near_copy_below > 0.5
    assert neighbors.near_copies() == [0, 1]
