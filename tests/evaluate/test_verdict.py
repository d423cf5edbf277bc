"""Tests of verdicts and their sentences."""

from __future__ import annotations

from typing import Any

import pytest

from usk.evaluate.stats import PairedDifference
from usk.evaluate.verdict import (
    MixResult,
    SameAugmentation,
    Verdict,
    decide_verdict,
    write_answer,
    write_sentence,
)


def difference(low: float | None, high: float | None, **changes: Any) -> PairedDifference:
    values: dict[str, Any] = {
        "difference_points": 3.1, "low_points": low, "high_points": high, "p_value": None, "n_pairs": 9,
        "n_pairs_up": 9, "n_splits": 3, "n_seeds": 3, "n_groups": 100, "n_clips": 400,
    }  # fmt: skip
    return PairedDifference(**(values | changes))


def result(p_interval: float | None, p_exact: float, n_compared: int = 1, **changes: Any) -> MixResult:
    """Return a result with +3.1 points in 9 pairs. The interval contains 0 if `p_interval` is above 0.05."""
    low, high = (None, None) if p_interval is None else (1.0 if p_interval <= 0.05 else -1.0, 5.2)
    p_value = max(1.0 if p_interval is None else p_interval, p_exact)
    fields = {name: changes.pop(name) for name in list(changes) if name in MixResult.__dataclass_fields__}
    return MixResult(
        difference(low, high, **changes), p_exact, p_value, p_value * n_compared, n_compared, **fields
    )


@pytest.mark.parametrize(
    ("p_interval", "p_exact", "n_compared", "expected", "why"),
    [
        (0.01, 0.02, 1, Verdict.BETTER, ""),
        (0.002, 0.002, 7, Verdict.BETTER, ""),
        (0.2, 0.2, 1, Verdict.NOT_DISTINGUISHABLE, ""),
        (0.01, 0.12, 1, Verdict.NOT_DISTINGUISHABLE, "the exact test is not: p 0.12"),
        (0.2, 0.02, 1, Verdict.NOT_DISTINGUISHABLE, "exact test p 0.02, but the interval holds 0"),
        (0.02, 0.001, 7, Verdict.NOT_DISTINGUISHABLE, "p 0.14 for 7 mixes compared"),
        (0.001, 0.02, 7, Verdict.NOT_DISTINGUISHABLE, "p 0.14 for 7 mixes compared"),
        (None, 0.004, 1, Verdict.NOT_DISTINGUISHABLE, "no interval"),
    ],
)
def test_interval_and_exact_test_must_agree_after_correction(
    p_interval: float | None, p_exact: float, n_compared: int, expected: Verdict, why: str
) -> None:
    mix = result(p_interval, p_exact, n_compared)
    assert decide_verdict(mix) is expected
    assert why in write_sentence(mix, "real")


@pytest.mark.parametrize(
    ("points", "adds_synthetic", "expected", "direction"),
    [
        (3.1, True, Verdict.HELPS, 1),
        (3.1, False, Verdict.BETTER, 1),
        (-3.1, True, Verdict.HURTS, -1),
        (-3.1, False, Verdict.WORSE, -1),
    ],
)
def test_a_verdict_has_a_direction(
    points: float, adds_synthetic: bool, expected: Verdict, direction: int
) -> None:
    verdict = decide_verdict(result(0.01, 0.01, difference_points=points, adds_synthetic=adds_synthetic))
    assert (verdict, verdict.direction) == (expected, direction)


@pytest.mark.parametrize(
    ("changes", "expected", "next_step"),
    [
        ({"n_pairs": 5}, Verdict.TOO_FEW_PAIRS, "needs 6 or more); train more seeds or test folds"),
        ({}, Verdict.NOT_DISTINGUISHABLE, "a study of more seeds or test folds"),
        ({"n_unequal_steps": 2}, Verdict.NOT_COMPARABLE, "the same epochs and batch"),
        ({"n_changed_clips": 2}, Verdict.NOT_COMPARABLE, "train both on the same files"),
    ],
)
def test_a_sentence_without_a_clear_result_says_what_to_do_next(
    changes: dict[str, Any], expected: Verdict, next_step: str
) -> None:
    mix = result(0.2, 0.2, **changes)
    assert decide_verdict(mix) is expected and next_step in write_sentence(mix, "real")


def test_without_pairs_there_is_nothing_to_compare() -> None:
    assert decide_verdict(None) is Verdict.NOT_PAIRED and Verdict.NOT_PAIRED.direction == 0
    assert "no run shares a split and seed with real" in write_sentence(None, "real")


@pytest.mark.parametrize(
    ("same", "expected"),
    [
        (difference(0.5, 4.0), Verdict.BETTER),
        (difference(-0.5, 4.0), Verdict.NOT_DISTINGUISHABLE),
        (None, Verdict.NOT_DISTINGUISHABLE),
    ],
)
def test_the_difference_must_be_clear_with_the_same_augmentation_too(
    same: PairedDifference | None, expected: Verdict
) -> None:
    mix = result(0.01, 0.01, same_augment=SameAugmentation("strong", same))
    assert decide_verdict(mix) is expected


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "+3.1 percentage points, 95 % interval +1.0 to +5.2 on these 3 folds, 9 of 9 fold-seed pairs up: better than real"),
        ({"over_folds": True, "n_splits": 8}, "interval +1.0 to +5.2, 9 of"),
        ({"n_splits": 1}, "+5.2 on this fold, "),
        ({"by_folds": False}, "+5.2, 9 of 9 split-seed pairs up: "),
        ({"n_seeds": 1}, "one seed (the luck of training is not in the interval)"),
        ({"n_seeds": 2}, "two seeds (the luck of training is hardly in the interval)"),
        ({"low_points": -0.03}, "95 % interval -0.03 to +5.2"),  # rounding keeps the sign
        ({"n_pairs": 1}, "one fold-seed pair"),
    ],
)  # fmt: skip
def test_the_sentence_says_what_the_interval_covers(changes: dict[str, Any], expected: str) -> None:
    assert expected in write_sentence(result(0.01, 0.01, **changes), "real")


def test_the_answer_is_the_verdict_and_the_interval() -> None:
    helps = result(0.01, 0.01, adds_synthetic=True)
    assert (
        write_answer(helps) == "Synthetic clips help: +3.1 percentage points, anything from +1.0 to +5.2 fits"
    )
    unsure = result(0.4, 0.4, low_points=-0.004)
    assert write_answer(unsure) == "Not shown yet: +3.1 percentage points, anything from -0.004 to +5.2 fits"
    assert write_answer(result(None, 1.0, n_pairs=1)) == "Too few pairs to tell: +3.1 percentage points"
    assert write_answer(None) == "Not comparable"
