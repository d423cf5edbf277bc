"""Tests of how runs are grouped and paired, and of augmentations that validation clips choose."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.evaluate.grids import N_CLIPS, row_of, write_grid, write_run
from tests.runs import rewrite
from usk.errors import SourceError
from usk.evaluate import verdict
from usk.evaluate.compare import compare_runs
from usk.evaluate.stats import paired_bootstrap
from usk.evaluate.verdict import Verdict

OTHER = {"data": "0" * 12, "protocol": "seed-9010", "classifier": "cnn", "augment": "strong"}
OTHER |= {"learning_rate": 1e-6, "batch": 8, "recipe_hash": "0" * 8, "augmentations": "shift"}
OTHER |= {"classifier_revision": "0" * 40}


@pytest.mark.parametrize("field", OTHER)
def test_runs_that_differ_in_more_than_the_mix_are_never_pooled(tmp_path: Path, field: str) -> None:
    write_grid(tmp_path)
    changes = {"created": "2026-03-01T00:00:00", "skill": 0.1, field: OTHER[field]}
    write_run(tmp_path, "real", 1, 0, name="other", **changes)
    first, second, *best = compare_runs(tmp_path)
    assert [row.n_runs for row in first.rows] == [4, 4]
    assert [row.n_runs for row in second.rows] == [1]
    assert len(best) == (field == "augment") and not first.choices and not second.choices
    for one in best:  # each mix has one augmentation
        assert [row.n_runs for row in one.rows] == [4, 4] and one.choices[0].augment == "none"
    assert first.title != second.title


def test_real_clips_have_the_name_of_their_source_and_the_hash_if_it_is_not_unique(
    tmp_path: Path,
) -> None:
    def source(name: str) -> dict[str, Any]:
        return {"real": {"name": name, "revision": "1", "clips": 60}}

    write_run(tmp_path, "real", sources=source("streets"))
    assert [one.title for one in compare_runs(tmp_path)] == ["streets: classifier small, augment none"]
    write_run(tmp_path, "real", data="111111111111", sources=source("parks"))
    write_run(tmp_path, "real", data="222222222222", sources=source("streets"))
    write_run(tmp_path, "real", data="333333333333")  # its record has no name
    names = {one.title.partition(":")[0] for one in compare_runs(tmp_path)}
    assert names == {"streets abcdefabcdef", "parks", "streets 222222222222", "333333333333"}


def test_a_pair_must_be_tested_on_the_same_clips_and_classes(tmp_path: Path) -> None:
    names, labels = [f"x-{i:03d}" for i in range(N_CLIPS)], np.zeros(N_CLIPS, dtype=np.int64)
    for column, values in (("clip_id", names), ("label", labels), ("group", ["one"] * N_CLIPS)):
        write_run(tmp_path / column, "real")
        rewrite(write_run(tmp_path / column, "synth"), column, values)
        with pytest.raises(SourceError, match="tested on different clips or labels"):
            compare_runs(tmp_path / column)
    write_run(tmp_path / "classes", "real")
    write_run(tmp_path / "classes", "synth", class_names=["a", "b", "c", "d"])
    with pytest.raises(SourceError, match="different classes"):
        compare_runs(tmp_path / "classes")


def write_augmented(
    root: Path, mix: str, augment: str, skill: float, validation: float | None, **changes: Any
) -> None:
    options = {"augment": augment, "skill": skill, "validation_accuracy": validation, **changes}
    for seed in range(6):
        name = f"{mix}-{augment}-{seed}-{changes.get('train_clips', '')}"
        write_run(root, mix, seed=seed, name=name, **options)


def test_each_mix_is_compared_with_the_augmentation_that_validation_clips_choose(tmp_path: Path) -> None:
    write_augmented(tmp_path, "real", "none", skill=0.6, validation=0.5)
    write_augmented(tmp_path, "real", "strong", skill=0.65, validation=0.7)
    write_augmented(tmp_path, "real", "basic", skill=0.7, validation=0.6)  # better only on test clips
    write_augmented(tmp_path, "real,synth", "basic", skill=0.8, validation=0.9)
    comparisons = compare_runs(tmp_path)
    assert sorted(one.augment for one in comparisons[:-1]) == ["basic", "none", "strong"]
    best = comparisons[-1]
    assert {choice.mix: choice.augment for choice in best.choices} == {
        "real": "strong",
        "real,synth": "basic",
    }
    real, both = best.rows
    assert (real.mix, real.accuracy.mean) == ("real", pytest.approx(0.65))
    assert both.difference is not None and both.difference.difference_points == pytest.approx(15)
    assert both.pairs == 6 and both.verdict is Verdict.HELPS
    assert both.same_augment is not None and both.same_augment.difference_points == pytest.approx(10)
    assert real.same_augment is None and "(with basic for both +10.0, +" in both.sentence
    assert sorted(best.augments) == ["basic", "none", "strong"] and "best augmentation" in best.title
    assert best.as_dict()["choices"][0]["validation_accuracy"]["none"] == pytest.approx(0.5)
    basic = next(one for one in comparisons if one.augment == "basic")
    assert row_of(basic, "real,synth").difference != both.difference and basic.choices == []


def test_the_effect_of_another_augmentation_is_not_credited_to_synthetic_clips(tmp_path: Path) -> None:
    """Validation clips narrowly choose the worse augmentation for real clips, and the better one for the mix."""
    write_augmented(tmp_path, "real", "basic", skill=0.6, validation=0.61)
    write_augmented(tmp_path, "real", "strong", skill=0.8, validation=0.60)
    write_augmented(tmp_path, "real,synth", "strong", skill=0.8, validation=0.61)
    row = row_of(compare_runs(tmp_path)[-1], "real,synth")
    assert row.difference is not None and row.difference.low_points is not None
    assert row.difference.low_points > 0 and (row.p_value_holm or 1) < 0.05
    assert row.verdict is Verdict.NOT_DISTINGUISHABLE and "with strong for both" in row.sentence
    assert row.same_augment is not None and row.same_augment.difference_points == pytest.approx(0)


def test_without_runs_of_the_same_augmentation_there_is_no_credit(tmp_path: Path) -> None:
    """The runs of real clips with `strong` have other seeds, so the augmentation may be the cause."""
    write_augmented(tmp_path, "real", "basic", skill=0.6, validation=0.61)
    write_run(tmp_path, "real", seed=9, name="other seed", augment="strong", validation_accuracy=0.5)
    write_run(tmp_path, "real", seed=9, name="both", augment="basic", validation_accuracy=0.6)
    write_augmented(tmp_path, "real,synth", "strong", skill=0.8, validation=0.61)
    row = row_of(compare_runs(tmp_path)[-1], "real,synth")
    assert (row.p_value_holm or 1) < 0.05 and row.same_augment is None
    assert row.verdict is Verdict.NOT_DISTINGUISHABLE and "was not trained with strong" in row.sentence


def test_each_split_chooses_on_its_own_validation_clips(tmp_path: Path) -> None:
    """The validation clips of one split may be test clips of another, so they must not choose there."""
    scores = {("none", 1): 0.9, ("none", 2): 0.4, ("basic", 1): 0.5, ("basic", 2): 0.5}
    skills = {("none", 1): 0.5, ("none", 2): 0.7, ("basic", 1): 0.7, ("basic", 2): 0.5}
    for (augment, fold), seed in itertools.product(scores, range(3)):
        options = {"augment": augment, "validation_accuracy": scores[augment, fold]}
        named = {"name": f"r{augment}{fold}{seed}", "skill": skills[augment, fold]}
        write_run(tmp_path, "real", fold, seed, **named, **options)
        if augment == "basic":
            write_run(tmp_path, "real,synth", fold, seed, name=f"s{fold}{seed}", skill=0.8, **options)
    best = compare_runs(tmp_path)[-1]
    real, both = best.rows
    assert [choice.by_split for choice in best.choices] == [
        {"fold1": "none", "fold2": "basic"}, {"fold1": "basic", "fold2": "basic"},
    ]  # fmt: skip
    assert real.accuracy.mean == pytest.approx(0.5)
    assert best.choices[0].augment == "none in 1 of 2 splits, basic in 1 of 2 splits"
    assert both.difference is not None and both.difference.difference_points == pytest.approx(30)
    assert both.same_augment is not None and both.same_augment.difference_points == pytest.approx(20)


def test_augmentations_are_chosen_on_their_shared_seeds(tmp_path: Path) -> None:
    write_run(tmp_path, seed=0, name="a", augment="none", validation_accuracy=0.5)
    # An easy seed that `basic` does not have.
    write_run(tmp_path, seed=1, name="b", augment="none", validation_accuracy=0.9)
    write_run(tmp_path, seed=0, name="c", augment="basic", validation_accuracy=0.6)
    (choice,) = compare_runs(tmp_path)[-1].choices
    assert (choice.augment, choice.validation_accuracy) == ("basic", {"none": 0.5, "basic": 0.6})


@pytest.mark.parametrize(
    "changes",
    [{"optimistic": True, "protocol": "seed-9010"}, {"validation_accuracy": None}],
    ids=["validation is the test", "not recorded"],
)
def test_no_augmentation_is_chosen_without_separate_validation_clips(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    write_run(tmp_path, name="a", augment="none", **changes)
    write_run(tmp_path, name="b", augment="basic", **changes)
    assert [one.augment for one in compare_runs(tmp_path)] == ["none", "basic"]


def test_augmentations_are_chosen_for_each_number_of_train_clips(tmp_path: Path) -> None:
    for train_clips, better in ((50, "basic"), (None, "none")):
        for augment in ("none", "basic"):
            score = 0.8 if augment == better else 0.4
            write_augmented(tmp_path, "real", augment, skill=0.6, validation=score, train_clips=train_clips)
    best = [one for one in compare_runs(tmp_path) if one.choices]
    assert [(one.train_clips, one.choices[0].augment) for one in best] == [(50, "basic"), (None, "none")]
    assert len({one.setting for one in best}) == 1  # so they share a table and a chart


def test_pairs_of_two_comparisons_are_resampled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for mix, augment in itertools.product(("real", "real,synth"), ("none", "basic")):
        write_augmented(tmp_path, mix, augment, skill=0.6, validation=0.5 + 0.1 * (augment == "basic"))
    calls = []

    def counted(*arguments: Any) -> Any:
        calls.append(arguments)
        return paired_bootstrap(*arguments)

    monkeypatch.setattr(verdict, "paired_bootstrap", counted)
    _, basic, best = sorted(
        compare_runs(tmp_path), key=lambda one: (bool(one.choices), one.augment == "basic")
    )
    assert len(calls) == 2 and best.rows[1].difference == basic.rows[1].difference


def test_choices_at_two_learning_rates_have_different_titles(tmp_path: Path) -> None:
    for rate, augment in itertools.product((1e-3, 1e-4), ("none", "basic")):
        options = {"augment": augment, "learning_rate": rate, "validation_accuracy": 0.5}
        write_run(tmp_path, name=f"{augment}{rate}", **options)
    best = [one for one in compare_runs(tmp_path) if one.choices]
    assert len(best) == 2 and len({one.title for one in best}) == 2
    assert all("learning rate" in one.title for one in best)


def test_only_augmentations_of_the_baseline_can_be_chosen(
    tmp_path: Path,
) -> None:
    write_augmented(tmp_path, "real", "none", skill=0.5, validation=0.5)
    write_augmented(tmp_path, "real,synth", "none", skill=0.5, validation=0.5)
    write_augmented(tmp_path, "real,synth", "basic", skill=0.8, validation=0.8)
    assert not any(one.choices for one in compare_runs(tmp_path))
    write_augmented(tmp_path, "real", "mask", skill=0.6, validation=0.6)
    best = compare_runs(tmp_path)[-1]
    assert {choice.mix: choice.augment for choice in best.choices} == {"real": "mask", "real,synth": "none"}
