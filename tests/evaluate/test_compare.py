"""Tests of comparisons of runs: pairs, differences, verdicts, notes and errors."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.evaluate.grids import CLASS_NAMES, N_CLIPS, only, row_of, write_grid, write_run
from tests.runs import rewrite
from usk.errors import UsageError
from usk.evaluate.compare import compare_runs
from usk.evaluate.verdict import Verdict


def test_two_mixes_with_two_folds_and_two_seeds_and_their_classes_in_strict_json(tmp_path: Path) -> None:
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
    assert (real.verdict, both.verdict) == (Verdict.BASELINE, Verdict.TOO_FEW_PAIRS)
    assert both.sentence.startswith("+20.0 percentage points, 95 % interval +")
    assert comparison.warning is None and comparison.notes == []
    classes = comparison.classes
    assert [row.class_name for row in classes] == CLASS_NAMES
    assert [row.support for row in classes] == [54, 54, 52, 0]  # distinct clips, not clips x seeds
    assert classes[3].recall == {"real": None, "real,synth": None}
    assert classes[3].difference_points == {"real,synth": None}
    for row in classes[:3]:
        plain, mixed = row.recall["real"], row.recall["real,synth"]
        assert plain is not None and mixed is not None
        assert row.difference_points["real,synth"] == pytest.approx(100 * (mixed - plain))
    made = comparison.as_dict()
    assert json.loads(json.dumps(made, allow_nan=False)) == made
    as_json = made["rows"][1]
    assert (as_json["verdict"], as_json["difference"]["n_pairs"]) == ("too_few_pairs", 4)
    assert "by_mix" not in made and made["classes"][3]["recall"]["real"] is None


def test_another_baseline_turns_the_sign(tmp_path: Path) -> None:
    write_grid(tmp_path, seeds=(0, 1, 2))
    comparison = only(compare_runs(tmp_path, baseline="real,synth"))
    assert [row.mix for row in comparison.rows] == ["real,synth", "real"]
    assert comparison.rows[1].verdict is Verdict.WORSE
    with pytest.raises(UsageError) as refused:
        compare_runs(tmp_path, baseline="nothing")
    assert refused.value.field == "baseline"


def test_without_real_the_oldest_mix_is_the_baseline(tmp_path: Path) -> None:
    write_run(tmp_path, "synth", created="2026-02-02T00:00:00")
    write_run(tmp_path, "real,a", created="2026-02-01T00:00:00")
    assert only(compare_runs(tmp_path)).baseline == "real,a"


def test_predictions_are_matched_by_clip_in_any_order(tmp_path: Path) -> None:
    write_run(tmp_path, "real")
    write_run(tmp_path, "same", order=np.arange(N_CLIPS)[::-1])
    row = row_of(only(compare_runs(tmp_path)), "same")
    assert row.difference is not None
    difference = row.difference
    assert (difference.difference_points, difference.low_points, difference.high_points) == (0, 0, 0)


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
    assert alone.verdict is Verdict.NOT_PAIRED
    assert comparison.classes[0].difference_points["synth"] is None


def test_the_newest_of_repeated_runs_counts(tmp_path: Path) -> None:
    write_grid(tmp_path)
    write_run(tmp_path, "real", 1, 0, name="again", created="2026-03-01T00:00:00", skill=1.0)
    comparison = only(compare_runs(tmp_path))
    assert comparison.rows[0].n_runs == 4
    assert comparison.rows[0].accuracy.mean == pytest.approx((1.0 + 3 * 0.6) / 4)
    assert any("1 older run of" in note for note in comparison.notes)


def test_optimistic_runs_have_a_warning(tmp_path: Path) -> None:
    for seed in range(6):
        for mix in ("real", "real,synth"):
            protocol = {"protocol": "seed-9010", "split": f"seed{seed}-9010"}
            write_run(tmp_path, mix, 1, seed, optimistic=True, **protocol)
    comparison = only(compare_runs(tmp_path))
    assert comparison.optimistic
    assert comparison.warning == "epoch chosen on the test part: optimistic"
    assert comparison.rows[1].verdict is Verdict.NOT_DISTINGUISHABLE
    assert "0 of 6 split-seed pairs up" in comparison.rows[1].sentence


def test_unequal_work_is_not_comparable(tmp_path: Path) -> None:
    write_grid(tmp_path)
    for fold in (1, 2):
        for seed in (0, 1):
            write_run(tmp_path, "synth", fold, seed, steps=70, epochs=7, skill=0.5)
    comparison = only(compare_runs(tmp_path))
    assert row_of(comparison, "synth").verdict is Verdict.NOT_COMPARABLE
    assert row_of(comparison, "real,synth").verdict is Verdict.TOO_FEW_PAIRS
    assert [row.p_value_holm for row in comparison.rows] == [None, pytest.approx(0.25), pytest.approx(0.25)]


def test_runs_are_found_at_any_depth_and_through_links(tmp_path: Path) -> None:
    write_grid(tmp_path / "all" / "A" / "of" / "one" / "runs", seeds=(0,))
    write_grid(tmp_path / "elsewhere", seeds=(1,))
    (tmp_path / "all" / "B").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "all" / "A" / "loop").symlink_to(tmp_path / "all")
    write_grid(tmp_path / "all" / ".hidden", seeds=(2,))
    assert row_of(only(compare_runs(tmp_path / "all")), "real,synth").n_runs == 4


def test_the_p_value_is_the_larger_of_both(tmp_path: Path) -> None:
    """One recording makes nine pairs better. The exact test finds it, but the interval over recordings contains 0."""
    for seed in range(9):
        for mix, n_correct in (("real", 0), ("synth", 20)):
            folder = write_run(tmp_path, mix, 1, seed)
            rewrite(folder, "group", ["loud"] * 20 + [f"r{i}" for i in range(60)])
            labels = pq.read_table(folder / "predictions.parquet")["label"].to_numpy()
            rewrite(folder, "predicted", np.where(np.arange(N_CLIPS) < n_correct, labels, (labels + 1) % 4))
    row = only(compare_runs(tmp_path)).rows[1]
    assert row.p_value_exact == 2 / 2**9 and row.difference is not None and row.difference.p_value is not None
    assert row.p_value == row.difference.p_value > 0.05
    assert row.verdict is Verdict.NOT_DISTINGUISHABLE and "but the interval holds 0" in row.sentence


def test_different_audio_with_the_same_names_is_not_comparable(tmp_path: Path) -> None:
    for fold, seed in itertools.product((1, 2), (0, 1, 2)):
        for mix, content, skill in (
            ("real", "noisy", 0.5),
            ("real,synth", "clean", 0.9),
            ("real,old", "noisy", 0.9),
        ):
            write_run(tmp_path, mix, fold, seed, skill=skill, sources={"real": {"revision": content}})
        write_run(tmp_path, "real,unsaid", fold, seed, skill=0.9)
    comparison = only(compare_runs(tmp_path))
    not_comparable = {row.mix: row.verdict is Verdict.NOT_COMPARABLE for row in comparison.rows}
    assert not_comparable == {"real": False, "real,synth": True, "real,old": False, "real,unsaid": False}


def test_folds_with_different_seeds_have_the_same_weight(tmp_path: Path) -> None:
    for fold, seeds, gain in ((1, (0, 1), -0.2), (2, (0, 1, 2, 3, 5), 0.2)):
        for seed in seeds:
            write_run(tmp_path, "real", fold, seed, skill=0.5)
            write_run(tmp_path, "real,synth", fold, seed, skill=0.5 + gain)
    comparison = only(compare_runs(tmp_path))
    difference = row_of(comparison, "real,synth").difference
    assert difference is not None and difference.difference_points == pytest.approx(0)


def test_each_of_several_comparisons_notes_their_number(tmp_path: Path) -> None:
    for train_clips in (50, 100):
        write_run(tmp_path, "real", name=f"real{train_clips}", train_clips=train_clips)
        write_run(tmp_path, "real,synth", name=f"both{train_clips}", train_clips=train_clips)
    write_run(tmp_path, "real", name="all")  # nothing is compared there
    for comparison in compare_runs(tmp_path):
        assert comparison.notes[-1].startswith("one of 2 comparisons")


def test_only_added_synthetic_clips_can_be_said_to_help(tmp_path: Path) -> None:
    write_grid(tmp_path, seeds=(0, 1, 2))
    assert row_of(only(compare_runs(tmp_path)), "real,synth").verdict is Verdict.HELPS
    for fold, seed in itertools.product((1, 2), (0, 1, 2)):  # fewer real clips: not synthetic clips alone
        write_run(tmp_path, "real:0.1,synth", fold, seed, skill=0.9, n_real=10)
    both = row_of(only(compare_runs(tmp_path)), "real,synth")
    assert both.verdict is Verdict.TOO_FEW_PAIRS, "two mixes are compared"
    assert (both.p_value_exact, both.p_value, both.p_value_holm) == (2 / 64, 2 / 64, 4 / 64)
    for run in tmp_path.glob("real+synth-*"):
        shutil.rmtree(run)
    assert only(compare_runs(tmp_path)).rows[1].verdict is Verdict.BETTER


def test_a_mix_with_enough_pairs_for_its_step_of_holm_gets_a_verdict(tmp_path: Path) -> None:
    for seed in range(16):
        write_run(tmp_path, "real", seed=seed, skill=0.5)
        write_run(tmp_path, "a", seed=seed, skill=0.9)
    for seed in range(6):
        write_run(tmp_path, "b", seed=seed, skill=0.9)
    row = row_of(only(compare_runs(tmp_path)), "b")
    assert row.p_value_holm == pytest.approx(0.03125) and row.verdict is Verdict.BETTER
