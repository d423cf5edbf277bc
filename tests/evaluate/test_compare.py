"""Run folders in, comparisons out: what is paired, what is never pooled, and what is refused."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests import runs
from tests.runs import rewrite
from usk.errors import SourceError, UsageError
from usk.evaluate.compare import (
    Comparison,
    MixRow,
    compare,
    compare_runs,
)

CLASS_NAMES = ["air", "bark", "drill", "siren"]
N_CLIPS = 80


def write_run(root: Path, mix: str = "real", fold: int = 1, seed: int = 0, **changes: Any) -> Path:
    """A run of `tests.runs` on four classes, whose folder says which it is. Nobody tests the siren."""
    name = f"{mix.replace(',', '+')}-{changes.get('data', '')}fold{fold}-{seed}"
    options = {"name": name, "class_names": CLASS_NAMES, "n_clips": N_CLIPS, "n_tested": 3, "epochs": 5}
    return runs.write_run(root, mix, seed, fold, **(options | changes))


def write_grid(root: Path, gain: float = 0.2, seeds: tuple[int, ...] = (0, 1)) -> None:
    """2 mixes x 2 folds x 2 seeds."""
    for fold in (1, 2):
        for seed in seeds:
            write_run(root, "real,synth", fold, seed, skill=0.6 + gain)
            write_run(root, "real", fold, seed, skill=0.6)


def only(comparisons: list[Comparison]) -> Comparison:
    assert len(comparisons) == 1
    return comparisons[0]


def row_of(comparison: Comparison, mix: str) -> MixRow:
    return next(row for row in comparison.rows if row.mix == mix)


def test_two_mixes_two_folds_two_seeds(tmp_path: Path) -> None:
    write_grid(tmp_path / "runs")
    comparison = only(compare_runs(tmp_path / "runs"))
    assert (comparison.baseline, comparison.classifier, comparison.data) == ("real", "small", "abcdefabcdef")
    assert [row.mix for row in comparison.rows] == ["real", "real,synth"]
    real, both = comparison.rows
    assert (real.is_baseline, real.difference, real.p_value, real.n_unpaired) == (True, None, None, 0)
    assert (both.n_runs, both.n_folds, both.n_seeds) == (4, 2, 2)
    assert (both.n_real, both.n_synthetic, both.dropped) == (100, 90, 12)
    assert (real.accuracy.mean, both.accuracy.mean) == pytest.approx((0.6, 0.8))
    assert both.accuracy.half_width == pytest.approx(0)
    assert both.difference is not None
    assert both.difference.difference_points == pytest.approx(20)
    assert (both.pairs_up, both.pairs, both.difference.n_groups) == (4, 4, 40)
    assert both.p_value == both.p_value_holm == pytest.approx(0.125)
    assert both.sentence.startswith("+20.0 points, 95 % interval +")
    assert both.sentence.endswith(
        "4 of 4 fold-seed pairs up, two seeds (the luck of training is hardly in the interval): "
        "too few pairs to tell it from none (the exact test needs 6 or more)"
    )
    assert comparison.warning is None and comparison.notes == []


def test_trainings_that_learnt_nothing_are_named_with_the_difference_without_them(tmp_path: Path) -> None:
    write_grid(tmp_path, gain=0.1, seeds=(0, 1, 2))
    assert not [note for note in only(compare_runs(tmp_path)).notes if "nothing" in note]
    before = row_of(only(compare_runs(tmp_path)), "real,synth").difference
    rewrite(tmp_path / "real-fold1-0", "predicted", [1] * N_CLIPS)
    comparison = only(compare_runs(tmp_path))
    (note,) = [note for note in comparison.notes if "nothing" in note]
    assert note.startswith(
        "1 of 6 runs of real learnt nothing and took all test clips for one class; real,synth is +10.0 points ("
    )
    assert note.endswith(") where none did, in 5 pairs")
    after = row_of(comparison, "real,synth").difference
    assert before is not None and after is not None and after.difference_points > before.difference_points


def test_classes_carry_support_and_recall(tmp_path: Path) -> None:
    write_grid(tmp_path)
    classes = only(compare_runs(tmp_path)).classes
    assert [row.class_name for row in classes] == CLASS_NAMES
    assert [row.support for row in classes] == [54, 54, 52, 0]  # distinct clips, not clips x seeds
    assert classes[3].recall == {"real": None, "real,synth": None}
    assert classes[3].difference_points == {"real,synth": None}
    for row in classes[:3]:
        real, both = row.recall["real"], row.recall["real,synth"]
        assert real is not None and both is not None
        assert row.difference_points["real,synth"] == pytest.approx(100 * (both - real))


def test_the_baseline_can_be_named_and_turns_the_sign(tmp_path: Path) -> None:
    write_grid(tmp_path, seeds=(0, 1, 2))
    comparison = only(compare_runs(tmp_path, baseline="real,synth"))
    assert [row.mix for row in comparison.rows] == ["real,synth", "real"]
    assert comparison.rows[1].sentence.endswith("0 of 6 fold-seed pairs up: worse than real,synth")
    with pytest.raises(UsageError, match="--baseline nothing"):
        compare_runs(tmp_path, baseline="nothing")


def test_without_real_the_oldest_mix_is_the_baseline(tmp_path: Path) -> None:
    write_run(tmp_path, "synth", created="2026-02-02T00:00:00")
    write_run(tmp_path, "real:0.1", created="2026-02-01T00:00:00")
    assert only(compare_runs(tmp_path)).baseline == "real:0.1"


def test_rows_are_matched_by_clip_whatever_their_order_in_the_file(tmp_path: Path) -> None:
    write_run(tmp_path, "real")
    write_run(tmp_path, "same", order=np.arange(N_CLIPS)[::-1])
    row = row_of(only(compare_runs(tmp_path)), "same")
    assert row.difference is not None
    assert (row.difference.difference_points, row.difference.low_points, row.difference.high_points) == (
        0,
        0,
        0,
    )
    assert row.sentence.startswith("+0.0 points, 95 % interval +0.0 to +0.0, one fold-seed pair: too few")


def test_unpaired_runs_are_counted_and_left_out(tmp_path: Path) -> None:
    write_grid(tmp_path)
    write_run(tmp_path, "real", 3, 0)
    write_run(tmp_path, "real,synth", 4, 0, skill=0.1)
    write_run(tmp_path, "synth", 5, 0)
    comparison = only(compare_runs(tmp_path))
    both = row_of(comparison, "real,synth")
    assert (both.n_runs, both.pairs, both.n_unpaired) == (5, 4, 2)
    assert both.difference is not None and both.difference.difference_points == pytest.approx(20)
    alone = row_of(comparison, "synth")
    assert (alone.difference, alone.p_value, alone.p_value_holm) == (None, None, None)
    assert "no run shares a split and seed with real" in alone.sentence
    assert any("no partner with the same split and seed for 2 runs" in note for note in comparison.notes)
    assert comparison.classes[0].difference_points["synth"] is None


@pytest.mark.parametrize(
    "change",
    [
        {"data": "000000000000"},
        {"protocol": "holdout"},
        {"classifier": "cnn"},
        {"augment": "strong"},
        {"learning_rate": 1e-6},
        {"batch": 8},
        {"recipe_hash": "00000000"},
        {"augmentations": "shift"},
        {"classifier_revision": "0" * 40},
    ],
)
def test_what_differs_in_more_than_the_mix_is_never_pooled(tmp_path: Path, change: dict[str, str]) -> None:
    write_grid(tmp_path)
    write_run(tmp_path, "real", 1, 0, name="other", created="2026-03-01T00:00:00", skill=0.1, **change)
    first, second, *best = compare_runs(tmp_path)
    assert [row.n_runs for row in first.rows] == [4, 4]
    assert [row.n_runs for row in second.rows] == [1]
    assert len(best) == ("augment" in change) and not first.choices and not second.choices
    for one in best:  # each mix with its better augmentation alone, never both
        assert [row.n_runs for row in one.rows] == [4, 4] and one.choices[0].augment == "none"
    assert first.title != second.title


def test_real_clips_are_called_as_their_source_and_by_fingerprint_where_that_is_not_enough(
    tmp_path: Path,
) -> None:
    def called(name: str) -> dict[str, Any]:
        return {"real": {"name": name, "revision": "1", "clips": 60}}

    write_run(tmp_path, "real", sources=called("streets"))
    assert [one.title for one in compare_runs(tmp_path)] == [
        "small, protocol folds, augment none, data streets"
    ]
    write_run(tmp_path, "real", data="111111111111", sources=called("parks"))
    write_run(tmp_path, "real", data="222222222222", sources=called("streets"))
    write_run(tmp_path, "real", data="333333333333")  # does not say
    names = {one.title.rpartition("data ")[2] for one in compare_runs(tmp_path)}
    assert names == {"streets abcdefabcdef", "parks", "streets 222222222222", "333333333333"}


def test_the_newest_of_repeated_runs_counts(tmp_path: Path) -> None:
    write_grid(tmp_path)
    write_run(tmp_path, "real", 1, 0, name="again", created="2026-03-01T00:00:00", skill=1.0)
    comparison = only(compare_runs(tmp_path))
    assert comparison.rows[0].n_runs == 4
    assert comparison.rows[0].accuracy.mean == pytest.approx((1.0 + 3 * 0.6) / 4)
    assert any("1 older runs" in note for note in comparison.notes)


def test_optimistic_runs_carry_the_warning(tmp_path: Path) -> None:
    for seed in range(6):
        for mix in ("real", "real,synth"):
            protocol = {"protocol": "seed-9010", "split": f"seed{seed}-9010"}
            write_run(tmp_path, mix, 1, seed, optimistic=True, **protocol)
    comparison = only(compare_runs(tmp_path))
    assert comparison.optimistic
    assert comparison.warning == "epoch chosen on the test part: optimistic"
    assert "0 of 6 split-seed pairs up: not distinguishable from none" in comparison.rows[1].sentence


def test_unequal_work_and_many_mixes_are_noted(tmp_path: Path) -> None:
    write_grid(tmp_path)
    for fold in (1, 2):
        for seed in (0, 1):
            write_run(tmp_path, "synth", fold, seed, steps=70, epochs=7, skill=0.5)
    comparison = only(compare_runs(tmp_path))
    assert any("5, 7 epochs" in note for note in comparison.notes)
    assert row_of(comparison, "synth").sentence.endswith(
        "not comparable, 4 of 4 pairs took unequal numbers of optimizer steps; train both with the same --epochs and --batch"
    )
    assert "too few pairs" in row_of(comparison, "real,synth").sentence
    assert any("Holm" in note for note in comparison.notes)
    assert [row.p_value_holm for row in comparison.rows] == [None, pytest.approx(0.25), pytest.approx(0.25)]


def test_folds_of_other_sizes_may_have_other_numbers_of_epochs(tmp_path: Path) -> None:
    for mix in ("real", "synth"):
        write_run(tmp_path, mix, 1, 0, epochs=30)
        write_run(tmp_path, mix, 2, 0, epochs=42)
    assert not any("epochs" in note for note in only(compare_runs(tmp_path)).notes)


def test_as_dict_is_strict_json(tmp_path: Path) -> None:
    write_grid(tmp_path)
    made = [comparison.as_dict() for comparison in compare_runs(tmp_path)]
    again = json.loads(json.dumps(made, allow_nan=False))
    assert again == made
    assert again[0]["rows"][1]["difference"]["n_pairs"] == 4
    assert again[0]["classes"][3]["recall"]["real"] is None


def test_runs_are_found_at_any_depth_and_through_links(tmp_path: Path) -> None:
    write_grid(tmp_path / "all" / "A" / "of" / "one" / "runs", seeds=(0,))
    write_grid(tmp_path / "elsewhere", seeds=(1,))
    (tmp_path / "all" / "B").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "all" / "A" / "loop").symlink_to(tmp_path / "all")
    write_grid(tmp_path / "all" / ".hidden", seeds=(2,))
    assert row_of(only(compare_runs(tmp_path / "all")), "real,synth").n_runs == 4


def test_no_runs(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(SourceError, match=r"no runs under .*\. Train some"):
            compare_runs(folder)
    assert compare([]) == []


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("clip_id", [f"x-{i:03d}" for i in range(N_CLIPS)]),
        ("label", np.zeros(N_CLIPS, dtype=np.int64)),
        ("group", ["one"] * N_CLIPS),
    ],
)
def test_a_pair_must_be_tested_on_the_same_clips(tmp_path: Path, column: str, values: Any) -> None:
    write_run(tmp_path, "real")
    rewrite(write_run(tmp_path, "synth"), column, values)
    with pytest.raises(SourceError, match="tested on different clips or labels"):
        compare_runs(tmp_path)


def test_same_data_with_other_classes_is_refused(tmp_path: Path) -> None:
    write_run(tmp_path, "real")
    write_run(tmp_path, "synth", class_names=["a", "b", "c", "d"])
    with pytest.raises(SourceError, match="different classes"):
        compare_runs(tmp_path)


def test_the_p_value_is_the_larger_of_both(tmp_path: Path) -> None:
    """Nine pairs go up, one recording's doing: the exact test finds it, other recordings might not show it."""
    for seed in range(9):
        for mix, right in (("real", 0), ("synth", 20)):
            rewrite(
                folder := write_run(tmp_path, mix, 1, seed),
                "group",
                ["loud"] * 20 + [f"r{i}" for i in range(60)],
            )
            labels = pq.read_table(folder / "predictions.parquet")["label"].to_numpy()
            rewrite(folder, "predicted", np.where(np.arange(N_CLIPS) < right, labels, (labels + 1) % 4))
    row = only(compare_runs(tmp_path)).rows[1]
    assert row.p_value_exact == 2 / 2**9 and row.difference is not None and row.difference.p_value is not None
    assert row.p_value == row.difference.p_value > 0.05
    assert row.sentence.endswith("(p 0.0039, but the interval over other recordings holds 0)")


def test_datasets_of_one_name_that_changed_between_runs_are_noted(tmp_path: Path) -> None:
    for fold in (1, 2):
        for mix in ("real,synth", "real,full"):
            name, revision = (
                ("synth", f"of fold {fold}") if mix == "real,synth" else (f"full/fold{fold}", str(fold))
            )
            write_run(tmp_path, mix, fold, sources={name: {"revision": revision}})
    notes = [text for text in only(compare_runs(tmp_path)).notes if "of that name" in text]
    assert notes == ["real,synth: its runs were trained on 2 different datasets of that name"]


def test_what_no_run_can_rule_out_is_said_with_the_verdict(tmp_path: Path) -> None:
    for mix, caveats in (
        ("real", []),
        ("real,synth", ["of few train_clips"]),
        ("real,own", ["of few train_clips"]),
    ):
        leaks = ["city names no recordings"] if mix != "real,own" else ["city names no recordings", "unknown"]
        write_run(tmp_path, mix, leaks=leaks, caveats=[*leaks, *caveats])
    assert only(compare_runs(tmp_path)).notes[:3] == [
        "city names no recordings", "real,own; real,synth: of few train_clips", "real,own: unknown",
    ]  # fmt: skip


def test_clips_that_all_seeds_share_are_noted(tmp_path: Path) -> None:
    for fold, seed in itertools.product((1, 2), (0, 1)):
        for mix, revision in (("real,synth", "s"), ("real,own", f"seed{seed}"), ("real", "")):
            sources = {name: {"revision": name} for name in ("real", revision) if name}
            write_run(tmp_path, mix, fold, seed, sources=sources, n_synthetic=90 if revision else 0)
        if not seed:
            write_run(tmp_path, "real,once", fold, seed, sources={"once": {"revision": "o"}}, n_synthetic=90)
    note = "all seeds trained on the same synthetic clips, so the luck of making them is in no interval"
    assert [text for text in only(compare_runs(tmp_path)).notes if "luck" in text] == [
        f"real,once: {note.replace('seeds', 'splits')}",
        f"real,synth: {note}",
    ]


def test_other_audio_under_the_same_names_is_not_comparable(tmp_path: Path) -> None:
    for fold, seed in itertools.product((1, 2), (0, 1, 2)):
        for mix, content, skill in (
            ("real", "noisy", 0.5),
            ("real,synth", "clean", 0.9),
            ("real,old", "noisy", 0.9),
        ):
            write_run(tmp_path, mix, fold, seed, skill=skill, sources={"real": {"revision": content}})
        write_run(tmp_path, "real,unsaid", fold, seed, skill=0.9)
    comparison = only(compare_runs(tmp_path))
    assert row_of(comparison, "real,synth").sentence.endswith(
        "not comparable, 6 of 6 pairs are of real clips that changed under the same names from one run to the other; train both on "
        "the same files"
    )
    assert not any("changed" in row_of(comparison, mix).sentence for mix in ("real,old", "real,unsaid"))


def test_folds_with_other_seeds_count_as_much_and_are_named(tmp_path: Path) -> None:
    for fold, seeds, gain in ((1, (0, 1), -0.2), (2, (0, 1, 2, 3, 5), 0.2)):
        for seed in seeds:
            write_run(tmp_path, "real", fold, seed, skill=0.5)
            write_run(tmp_path, "real,synth", fold, seed, skill=0.5 + gain)
    comparison = only(compare_runs(tmp_path))
    difference = row_of(comparison, "real,synth").difference
    assert difference is not None and difference.difference_points == pytest.approx(0)
    assert (
        "real,synth: pairs of other seeds in one split than in another (fold1: 0 to 1; fold2: 0 to 3, 5), each split counts as much; "
        "train all with the same --seeds"
    ) in comparison.notes


def made_by(
    strategy: str = "slerp", model: str = "fold1@aa", name: str = "few/50-train_clips-fold1-seed0"
) -> dict[str, Any]:
    return {"sources": {name: {"strategies": [strategy], "generators": [model]}}}


@pytest.mark.parametrize(
    ("changed", "note"),
    [
        (made_by("sample", name="few/50-train_clips-fold2-seed3"), "the clips of few are of one strategy in some runs and of another in others (sample; slerp)"),
        (made_by(model="fold1@bb"), "the clips of few for one split are of several generators"),
        ({"n_synthetic": 900, **made_by()}, "runs of one split have from 90 to 900 synthetic clips"),
        ({"n_synthetic": 100, **made_by()}, None),
        (made_by(name="few/50-train_clips-fold1-seed3"), None),
    ],
)  # fmt: skip
def test_runs_of_one_mix_whose_clips_were_made_otherwise_are_named(
    tmp_path: Path, changed: dict[str, Any], note: str | None
) -> None:
    for fold, seed in itertools.product((1, 2), (0, 1)):
        write_run(tmp_path, "real", fold, seed)
        made = made_by(model=f"fold{fold}@aa", name=f"few/50-train_clips-fold{fold}-seed{seed}")
        write_run(
            tmp_path,
            "real,few",
            fold,
            seed,
            **{"n_synthetic": 90, **made, **(changed if (fold, seed) == (1, 1) else {})},
        )
    found = [text for text in only(compare_runs(tmp_path)).notes if "few" in text and "luck" not in text]
    assert found == ([f"real,few: {note}"] if note else [])


def test_each_of_many_comparisons_says_that_it_is_one_of_many(tmp_path: Path) -> None:
    for train_clips in (50, 100):
        write_run(tmp_path, "real", name=f"real{train_clips}", train_clips=train_clips)
        write_run(tmp_path, "real,synth", name=f"both{train_clips}", train_clips=train_clips)
    write_run(tmp_path, "real", name="all")  # nothing is judged there
    for comparison in compare_runs(tmp_path):
        assert comparison.notes[-1].startswith(
            "one of 2 comparisons, whose p values are corrected within each alone"
        )


def test_clips_that_several_seeds_share_are_noted_in_every_protocol(tmp_path: Path) -> None:
    shared, other = {"synth": {"revision": "s"}}, {"synth": {"revision": "another"}}
    for seed in (0, 1, 2):
        holdout = {"protocol": "holdout", "split": f"holdout{seed}"}
        write_run(tmp_path / "holdout", "real,synth", seed=seed, sources=shared, **holdout)
        write_run(tmp_path / "holdout", "real", seed=seed, **holdout)
        write_run(tmp_path / "folds", "real,synth", seed=seed, sources=shared if seed < 2 else other)
        write_run(tmp_path / "folds", "real", seed=seed)
    said = "seeds trained on the same synthetic clips, so the luck of making them is in no interval"
    for seed in (0, 1, 2, 3):  # two datasets, each of two seeds
        write_run(tmp_path / "two", "real,synth", seed=seed, sources=shared if seed < 2 else other)
        write_run(tmp_path / "two", "real", seed=seed)
    for fold in (1, 2, 3):  # one seed, of which two splits share clips
        write_run(tmp_path / "one", "real,synth", fold, sources=shared if fold < 3 else other)
        write_run(tmp_path / "one", "real", fold)
    notes = only(compare_runs(tmp_path / "one")).notes
    assert [text for text in notes if "luck" in text] == [
        f"real,synth: several splits {said.removeprefix('seeds ')}"
    ]
    for protocol, which in (("holdout", "all"), ("folds", "several"), ("two", "several")):
        notes = only(compare_runs(tmp_path / protocol)).notes
        assert [text for text in notes if "luck" in text] == [f"real,synth: {which} {said}"]


def test_synthetic_clips_that_help_are_said_to(tmp_path: Path) -> None:
    write_grid(tmp_path, seeds=(0, 1, 2))
    for fold, seed in itertools.product((1, 2), (0, 1, 2)):  # fewer real clips: not synthetic clips alone
        write_run(tmp_path, "real:0.1,synth", fold, seed, skill=0.9, n_real=10)
    comparison = only(compare_runs(tmp_path))
    both = row_of(comparison, "real,synth")
    assert both.sentence.endswith(
        "6 of 6 fold-seed pairs up: too few pairs to tell it from none (the exact test needs 7 or more)"
    ), "two mixes are compared"
    assert (both.p_value_exact, both.p_value, both.p_value_holm) == (2 / 64, 2 / 64, 4 / 64)
    for run in tmp_path.glob("real:0.1*"):
        shutil.rmtree(run)
    assert row_of(only(compare_runs(tmp_path)), "real,synth").sentence.endswith(
        "6 of 6 fold-seed pairs up: synthetic clips help"
    )


def test_mistakes_that_changed_are_named_largest_first(tmp_path: Path) -> None:
    labels = np.arange(N_CLIPS) % 3
    for mix, wrong in (("real", 12), ("real,synth", 2)):
        for fold in (1, 2):
            folder = write_run(tmp_path, mix, fold, skill=1.0)
            predicted = labels.copy()
            predicted[np.flatnonzero(labels == 1)[:wrong]] = 2  # barks taken for drills
            predicted[np.flatnonzero(labels == 0)[: fold if mix == "real" else 0]] = 3
            rewrite(folder, "predicted", predicted)
    first, second = only(compare_runs(tmp_path)).as_dict()["confusions"]
    assert (first["mix"], first["class_name"], first["taken_for"]) == ("real,synth", "bark", "drill")
    assert (first["support"], first["baseline_clips"], first["clips"]) == (27, 12, 2)
    assert first["difference_points"] == pytest.approx(-1000 / 27)
    assert (second["class_name"], second["taken_for"], second["baseline_clips"]) == ("air", "siren", 1.5)


def write_augmented(
    root: Path, mix: str, augment: str, skill: float, validation: float | None, **changes: Any
) -> None:
    for seed in range(6):
        name = f"{mix}-{augment}-{seed}-{changes.get('train_clips', '')}"
        write_run(
            root,
            mix,
            seed=seed,
            name=name,
            augment=augment,
            skill=skill,
            validation_accuracy=validation,
            **changes,
        )


def test_each_mix_is_compared_with_the_augmentation_that_validation_clips_choose(tmp_path: Path) -> None:
    write_augmented(tmp_path, "real", "none", skill=0.6, validation=0.5)
    write_augmented(tmp_path, "real", "strong", skill=0.65, validation=0.7)
    write_augmented(
        tmp_path, "real", "basic", skill=0.7, validation=0.6
    )  # better on test clips, which choose nothing
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
    assert both.pairs == 6 and both.sentence.endswith("): synthetic clips help")
    assert both.same_augment is not None and both.same_augment.difference_points == pytest.approx(10)
    assert real.same_augment is None and "pairs up (with basic for both +10.0, +" in both.sentence
    assert sorted(best.augments) == ["basic", "none", "strong"] and "best augmentation" in best.title
    assert "real: strong (validation accuracy: " in best.notes[0] and "strong 70.0" in best.notes[0]
    assert best.as_dict()["choices"][0]["validation_accuracy"]["none"] == pytest.approx(0.5)
    basic = next(one for one in comparisons if one.augment == "basic")
    assert row_of(basic, "real,synth").difference != both.difference and basic.choices == []


def test_what_another_augmentation_does_is_not_credited_to_synthetic_clips(tmp_path: Path) -> None:
    """Validation clips choose the worse augmentation for real clips, by a hair, and the better one for the mix."""
    write_augmented(tmp_path, "real", "basic", skill=0.6, validation=0.61)
    write_augmented(tmp_path, "real", "strong", skill=0.8, validation=0.60)
    write_augmented(tmp_path, "real,synth", "strong", skill=0.8, validation=0.61)
    row = row_of(compare_runs(tmp_path)[-1], "real,synth")
    assert row.difference is not None and row.difference.low_points is not None
    assert row.difference.low_points > 0 and (row.p_value_holm or 1) < 0.05
    assert "+20.0 points" in row.sentence
    assert row.sentence.endswith(
        "(with strong for both +0.0, +0.0 to +0.0): not distinguishable from none with strong for both"
    )
    made = compare_runs(tmp_path)[-1].as_dict()["rows"][1]["same_augment"]
    assert made["difference_points"] == pytest.approx(0)


def test_without_runs_of_the_same_augmentation_nothing_is_credited(tmp_path: Path) -> None:
    """Real clips with `strong` were trained with other seeds: whether it is the augmentation's doing cannot be told."""
    write_augmented(tmp_path, "real", "basic", skill=0.6, validation=0.61)
    write_run(tmp_path, "real", seed=9, name="other seed", augment="strong", validation_accuracy=0.5)
    write_run(tmp_path, "real", seed=9, name="both", augment="basic", validation_accuracy=0.6)
    write_augmented(tmp_path, "real,synth", "strong", skill=0.8, validation=0.61)
    row = row_of(compare_runs(tmp_path)[-1], "real,synth")
    assert (row.p_value_holm or 1) < 0.05 and row.same_augment is None
    assert row.sentence.endswith(
        "not distinguishable from none, for real was not trained with strong for the same seeds"
    )


def test_each_split_chooses_on_its_own_validation_clips(tmp_path: Path) -> None:
    """What validates one split may be tested in another: it must choose nothing there."""
    scores = {("none", 1): 0.9, ("none", 2): 0.4, ("basic", 1): 0.5, ("basic", 2): 0.5}
    skills = {("none", 1): 0.5, ("none", 2): 0.7, ("basic", 1): 0.7, ("basic", 2): 0.5}
    for (augment, fold), seed in itertools.product(scores, range(3)):
        options = {"augment": augment, "validation_accuracy": scores[augment, fold]}
        write_run(
            tmp_path,
            "real",
            fold,
            seed,
            name=f"r{augment}{fold}{seed}",
            skill=skills[augment, fold],
            **options,
        )
        if augment == "basic":
            write_run(tmp_path, "real,synth", fold, seed, name=f"s{fold}{seed}", skill=0.8, **options)
    best = compare_runs(tmp_path)[-1]
    real, both = best.rows
    assert [choice.by_split for choice in best.choices] == [
        {"fold1": "none", "fold2": "basic"}, {"fold1": "basic", "fold2": "basic"},
    ]  # fmt: skip
    assert (
        real.accuracy.mean == pytest.approx(0.5)
        and "real: none in 1 of 2 splits, basic in 1" in best.notes[0]
    )
    assert both.difference is not None and both.difference.difference_points == pytest.approx(30)
    assert both.same_augment is not None and both.same_augment.difference_points == pytest.approx(20)
    assert "with basic for both +20.0" in both.sentence


def test_augmentations_are_chosen_over_the_runs_that_all_of_them_have(tmp_path: Path) -> None:
    write_run(tmp_path, seed=0, name="a", augment="none", validation_accuracy=0.5)
    write_run(
        tmp_path, seed=1, name="b", augment="none", validation_accuracy=0.9
    )  # an easy seed, without a partner
    write_run(tmp_path, seed=0, name="c", augment="basic", validation_accuracy=0.6)
    (choice,) = compare_runs(tmp_path)[-1].choices
    assert (choice.augment, choice.validation_accuracy) == ("basic", {"none": 0.5, "basic": 0.6})


@pytest.mark.parametrize(
    "changes",
    [{"optimistic": True, "protocol": "seed-9010"}, {"validation_accuracy": None}],
    ids=["validation is the test", "not said"],
)
def test_no_augmentation_is_chosen_without_validation_clips_of_its_own(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    write_run(tmp_path, name="a", augment="none", **changes)
    write_run(tmp_path, name="b", augment="basic", **changes)
    assert [one.augment for one in compare_runs(tmp_path)] == ["none", "basic"]


def test_augmentations_are_chosen_for_each_number_of_shots(tmp_path: Path) -> None:
    for train_clips, better in ((50, "basic"), (None, "none")):
        for augment in ("none", "basic"):
            score = 0.8 if augment == better else 0.4
            write_augmented(tmp_path, "real", augment, skill=0.6, validation=score, train_clips=train_clips)
    best = [one for one in compare_runs(tmp_path) if one.choices]
    assert [(one.train_clips, one.choices[0].augment) for one in best] == [(50, "basic"), (None, "none")]
    assert len({one.setting for one in best}) == 1  # one table and one chart by train_clips


def test_choices_at_two_learning_rates_are_told_apart(tmp_path: Path) -> None:
    for rate in (1e-3, 1e-4):
        for augment in ("none", "basic"):
            write_run(
                tmp_path,
                name=f"{augment}{rate}",
                augment=augment,
                learning_rate=rate,
                validation_accuracy=0.5,
            )
    best = [one for one in compare_runs(tmp_path) if one.choices]
    assert len(best) == 2 and len({one.title for one in best}) == 2
    assert all("learning rate" in one.title for one in best)


def test_augmentations_that_real_clips_were_not_trained_with_are_not_credited_to_synthetic_ones(
    tmp_path: Path,
) -> None:
    write_augmented(tmp_path, "real", "none", skill=0.5, validation=0.5)
    write_augmented(tmp_path, "real,synth", "none", skill=0.5, validation=0.5)
    write_augmented(tmp_path, "real,synth", "basic", skill=0.8, validation=0.8)
    assert not any(one.choices for one in compare_runs(tmp_path))
    write_augmented(tmp_path, "real", "mask", skill=0.6, validation=0.6)
    best = compare_runs(tmp_path)[-1]
    assert {choice.mix: choice.augment for choice in best.choices} == {"real": "mask", "real,synth": "none"}


def test_runs_in_two_precisions_are_paired_and_named(tmp_path: Path) -> None:
    write_run(tmp_path, "real", precision="bf16")
    write_run(tmp_path, "real,synth", precision="fp32")
    comparison = only(compare_runs(tmp_path))
    assert comparison.rows[1].pairs == 1 and "runs in bf16 and fp32 stand side by side" in comparison.notes


def test_a_mix_with_pairs_enough_for_its_own_step_of_holm_is_judged(tmp_path: Path) -> None:
    for seed in range(16):
        write_run(tmp_path, "real", seed=seed, skill=0.5)
        write_run(tmp_path, "a", seed=seed, skill=0.9)
    for seed in range(6):
        write_run(tmp_path, "b", seed=seed, skill=0.9)
    row = row_of(only(compare_runs(tmp_path)), "b")
    assert row.p_value_holm == pytest.approx(0.03125) and row.sentence.endswith("better than real")
