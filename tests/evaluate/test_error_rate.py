"""Tests of the simulation docs/studies/error_rate.py: its pairs, and that no mix is better on average."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from docs.studies import error_rate
from docs.studies.error_rate import study_without_gain


def test_no_mix_is_better_on_average_and_all_have_the_same_baseline() -> None:
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


def test_a_seed_has_the_same_effect_on_all_folds() -> None:
    rng = np.random.default_rng(0)
    folds = [np.full(40, 5), np.full(40, 5)]
    for seed_sd, low, high in ((0.0, -0.3, 0.3), (0.3, 0.8, 1.0)):
        pairs = study_without_gain(rng, folds, seeds=60, mixes=1, tau=0.0, seed_sd=seed_sd)[0]
        first, second = (
            [pair.difference for pair in pairs if pair.split == f"fold{fold}"] for fold in (0, 1)
        )
        assert low < np.corrcoef(first, second)[0, 1] < high


def test_looking_after_each_seed_finds_more_than_one_last_look(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """If only the first seeds look significant, only an early look finds a difference."""

    def p_value(pairs: list[error_rate.Pair], *_: object) -> float:
        return 0.01 if len(pairs) < 9 else 1.0  # three folds: less than three seeds

    monkeypatch.setattr(error_rate, "exact_test", p_value)
    monkeypatch.setattr(
        error_rate, "paired_bootstrap", lambda *given: type("_", (), {"p_value": p_value(*given)})
    )
    found = []
    for words in ([], ["--look-from", "2"], ["--look-from", "3"]):
        monkeypatch.setattr(
            sys, "argv", ["error_rate", "--seeds", "4", "--mixes", "1", "--studies", "5", *words]
        )
        error_rate.main()
        found.append(capsys.readouterr().out.rpartition("'any verdict': ")[2][:1])
    assert found == ["0", "5", "0"]
