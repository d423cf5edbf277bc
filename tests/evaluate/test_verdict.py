"""The plain sentence: what it says of a difference, and what it takes to say that clips help."""

from __future__ import annotations

import pytest

from usk.evaluate.stats import PairedDifference
from usk.evaluate.verdict import Compared, verdict


@pytest.mark.parametrize(
    ("low", "high", "n_pairs", "n_seeds", "expected"),
    [
        (
            1.0,
            5.2,
            9,
            3,
            "+3.1 points, 95 % interval +1.0 to +5.2, 9 of 9 fold-seed pairs up: better than real",
        ),
        (
            -1.0,
            7.2,
            9,
            3,
            "not distinguishable from real (p 0.0039, but the interval over other recordings holds 0)",
        ),
        (
            -0.03,  # below zero, however it is rounded
            6.2,
            9,
            3,
            "95 % interval -0.0 to +6.2, 9 of 9 fold-seed pairs up: not distinguishable from real (p 0.0039, but the interval "
            "over other recordings holds 0)",
        ),
        (
            1.0,
            5.2,
            2,
            2,
            "2 of 2 fold-seed pairs up, two seeds (the luck of training is hardly in the interval): "
            "too few pairs to tell it from real (the exact test needs 6 or more)",
        ),
        (
            1.0,
            5.2,
            1,
            1,
            "+5.2, one fold-seed pair: too few pairs to tell it from real (the exact test needs 6 or more)",
        ),
        (1.0, 5.2, 6, 1, "one seed (the luck of training is not in the interval): better than real"),
        (
            None,
            None,
            9,
            3,
            "no interval, a test part holds a single recording; not distinguishable from real",
        ),
    ],
)
def test_the_plain_sentence(low: float, high: float, n_pairs: int, n_seeds: int, expected: str) -> None:
    of_interval = None if low is None else 0.01 if low > 0 else 0.2
    made = PairedDifference(3.1, low, high, of_interval, n_pairs, n_pairs, 3, n_seeds, 100, 400)
    exact = 2 / 2**n_pairs
    p_value = max(exact, 1.0 if of_interval is None else of_interval)
    assert verdict(Compared(made, exact, p_value, p_value), "real").endswith(expected)


@pytest.mark.parametrize(
    ("of_interval", "exact", "n_compared", "expected"),
    [
        (0.01, 0.02, 1, "synthetic clips help"),
        (0.002, 0.002, 7, "synthetic clips help"),
        (0.2, 0.2, 1, "not distinguishable from none"),
        (
            0.01,
            0.12,
            1,
            "not distinguishable from none (the interval is clear of 0, but not the exact test: p 0.12)",
        ),
        (
            0.2,
            0.02,
            1,
            "not distinguishable from none (p 0.02, but the interval over other recordings holds 0)",
        ),
        (0.02, 0.001, 7, "not distinguishable from none (p 0.14 for 7 mixes compared)"),
        (0.001, 0.02, 7, "not distinguishable from none (p 0.14 for 7 mixes compared)"),
    ],
)
@pytest.mark.parametrize("sign", [1, -1])
def test_interval_and_exact_test_must_agree_after_correction(
    of_interval: float, exact: float, n_compared: int, expected: str, sign: int
) -> None:
    low, high = sorted((sign * (1.0 if of_interval <= 0.05 else -1.0), sign * 5.2))
    made = PairedDifference(sign * 3.1, low, high, of_interval, 9, 9, 3, 3, 100, 400)
    p_value = max(of_interval, exact)
    compared = Compared(made, exact, p_value, p_value * n_compared, n_compared)
    said = verdict(compared, "real", adds_synthetic=True)
    assert said.partition(" pairs up: ")[2] == (expected if sign > 0 else expected.replace("help", "hurt"))
