"""The simulated studies: what is paired, and that no mix is better."""

from __future__ import annotations

import numpy as np

from tests.bench.error_rate import study_without_gain


def test_no_mix_is_better_on_average_and_all_share_a_baseline() -> None:
    rng = np.random.default_rng(0)
    folds = [np.array([1, 3, 5]), np.array([2, 2, 9])]
    studies = [study_without_gain(rng, folds, seeds=2, mixes=3, tau=0.2) for _ in range(200)]
    first = studies[0]
    assert [(pair.split, pair.seed, len(pair.groups)) for pair in first[0]] == [
        ("fold0", 0, 9), ("fold0", 1, 9), ("fold1", 0, 13), ("fold1", 1, 13),
    ]  # fmt: skip
    for pairs in zip(*first, strict=True):
        assert all(pair.baseline_correct is pairs[0].baseline_correct for pair in pairs)
    gains = np.array([[[pair.difference for pair in pairs] for pairs in study] for study in studies])
    means = gains.mean(axis=(1, 2))
    assert abs(means.mean()) < 3 * means.std() / len(means) ** 0.5
    assert gains.std() > 0.1
