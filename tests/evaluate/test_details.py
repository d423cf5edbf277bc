"""Tests of the data behind a comparison: it agrees with the comparison and leaves out runs that do not count."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import usk.evaluate.verdict
import usk.runs
from tests.runs import write_run
from usk.evaluate.details import ComparisonDetails, compare_in_detail, read_history, train_clips_sweeps
from usk.evaluate.tables import comparison_tables
from usk.report.charts import comparison_charts


def grid(root: Path) -> ComparisonDetails:
    for seed in (0, 1):
        for fold in (1, 2):
            write_run(root, "real", seed, fold, skill=0.5)
            write_run(root, "real,synth", seed, fold, skill=0.7 + 0.1 * seed)
    (details,) = compare_in_detail(root)
    return details


def test_runs_are_read_once_and_each_mix_is_bootstrapped_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: Counter[str] = Counter()

    def counted(module: ModuleType, name: str) -> None:
        original = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *arguments: calls.update([name]) or original(*arguments))

    counted(usk.runs, "read_record")
    counted(usk.runs, "read_predictions")
    counted(usk.evaluate.verdict, "paired_bootstrap")
    details = grid(tmp_path)
    comparison_charts(details)
    comparison_tables(details.comparison)
    assert calls == {"read_record": 8, "read_predictions": 8, "paired_bootstrap": 1}


def test_runs_pairs_and_confusion_matrices_agree_with_the_comparison(tmp_path: Path) -> None:
    details = grid(tmp_path)
    for row in details.comparison.rows:
        accuracies = [run.accuracy for run in details.runs if run.mix == row.mix]
        assert len(accuracies) == row.n_runs == 4
        assert np.mean(accuracies) == pytest.approx(row.accuracy.mean)
    differences = [points for _, points in details.pairs]
    assert len(differences) == 4
    difference = details.comparison.rows[1].difference
    assert difference is not None
    assert np.mean(differences) == pytest.approx(difference.difference_points)
    real, both = details.confusion_matrix("real"), details.confusion_matrix("real,synth")
    np.testing.assert_allclose([real.sum(axis=1), both.sum(axis=1)], 1)
    # what is not right is predicted as the next class
    assert both[0, 0] > real[0, 0]
    assert real[0, 1:].tolist() == pytest.approx([1 - real[0, 0], 0])


def test_training_curves_have_the_epochs_that_every_run_recorded(tmp_path: Path) -> None:
    """Some runs have fewer epochs, and some epochs no validation; all have a loss."""
    write_run(tmp_path / "fewer", "real", 0, epochs=4)
    write_run(tmp_path / "fewer", "real", 1, epochs=3)
    (details,) = compare_in_detail(tmp_path / "fewer")
    epochs, values = details.curves("validation_accuracy")["real"]
    assert epochs == [1, 2, 3]
    np.testing.assert_allclose(sorted(values.tolist()), [(0.1, 0.2, 0.3), (0.11, 0.21, 0.31)])
    for seed in (0, 1):
        run = write_run(tmp_path / "not all", "real", seed, epochs=6)
        history = json.loads((run / "history.json").read_text())
        for entry in history[:: 2 + seed]:  # the first and third, the first and fourth
            del entry["validation_accuracy"]
        (run / "history.json").write_text(json.dumps(history))
    (details,) = compare_in_detail(tmp_path / "not all")
    assert details.curves("loss")["real"][0] == [1, 2, 3, 4, 5, 6]
    epochs, values = details.curves("validation_accuracy")["real"]
    assert epochs == [2, 6] and values.mean(axis=0) == pytest.approx((0.205, 0.605))
    (chart,) = [chart for chart in comparison_charts(details) if chart.name == "curve-validation_accuracy"]
    assert [row[0] for row in chart.table.rows] == ["2", "6"]


def test_a_damaged_history_gives_a_note_and_no_curve(tmp_path: Path) -> None:
    run = write_run(tmp_path, "real")
    (run / "history.json").write_text("[{")
    (details,) = compare_in_detail(tmp_path)
    assert details.curves("loss") == {}
    assert "history.json cannot be read" in details.notes[0]
    (run / "history.json").unlink()
    assert read_history(run) == []


def test_each_number_of_train_clips_is_a_comparison_and_a_point_of_the_sweep(tmp_path: Path) -> None:
    for seed in (0, 1):
        for train_clips, n_real, skill in ((100, 100, 0.4), (None, 800 + seed, 0.6), (50, 50, 0.3)):
            few = {} if train_clips is None else {"train_clips": train_clips}
            write_run(
                tmp_path, "real,synth", seed, n_real=n_real, skill=round(skill + 0.2 + 0.1 * seed, 2), **few
            )
            write_run(tmp_path, "real", seed, n_real=n_real, skill=skill, **few)
            write_run(tmp_path, "synth", seed, n_real=0, skill=skill, **few)
    write_run(tmp_path, "real,late", train_clips=50, n_real=50, skill=0.5)
    write_run(tmp_path, "real", n_real=100, augment="basic")  # a setting with one number of train_clips
    write_run(tmp_path, "real", n_real=50, data="000000000000", train_clips=50)
    all_details = compare_in_detail(tmp_path)
    assert [(one.comparison.train_clips, len(one.runs)) for one in all_details[:3]] == [
        (50, 7),
        (100, 6),
        (None, 6),
    ]
    for one in all_details:
        for row in one.comparison.rows:
            assert sum(run.mix == row.mix for run in one.runs) == row.n_runs
    (sweep,) = train_clips_sweeps([details.comparison for details in all_details[::-1]])
    assert sweep.setting == "abcdefabcdef: classifier small, augment none"
    assert sweep.warning == all_details[0].comparison.warning is None
    points = {(p.series, p.n_clips): (round(p.mean, 2), p.n_runs) for p in sweep.points}
    assert points == {
        ("real", 50): (0.3, 2), ("real", 100): (0.4, 2), ("real", 800): (0.6, 2),
        ("real,synth", 50): (0.55, 2), ("real,synth", 100): (0.65, 2), ("real,synth", 800): (0.85, 2),
        ("real,late", 50): (0.5, 1),
    }  # fmt: skip
    assert next(iter(points)) == ("real", 50)  # the baseline comes first although it was trained last
    both = [point for point in sweep.points if point.series == "real,synth"]
    assert [(round(p.low, 2), round(p.high, 2)) for p in both] == [(0.5, 0.6), (0.6, 0.7), (0.8, 0.9)]
