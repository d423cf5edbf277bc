"""Write the results of a study: results.json, tables in Markdown and charts."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from usk.errors import disk_errors
from usk.evaluate.compare import Comparison, compare
from usk.evaluate.details import ComparisonDetails, train_clips_sweeps
from usk.files import atomic_write
from usk.report.charts import accuracy_chart, train_clips_charts
from usk.runs import RUN_FILE, RunRecord, read_run
from usk.study.config import FULL, StudyConfig
from usk.tables import Table, columns, markdown

RESULTS_FILE, TABLES_FILE = "results.json", "tables.md"


@dataclass(frozen=True)
class StudyResult:
    """The result of a study: labels of its steps, results as plain values and as tables, and the files that were written."""

    steps: tuple[str, ...]
    results: dict[str, Any]
    tables: tuple[Table, ...] = ()
    files: tuple[Path, ...] = ()


def write_results(
    config: StudyConfig, run_folders: Sequence[Path], out: Path, steps: tuple[str, ...]
) -> StudyResult:
    """Compare the runs that the study planned, those that exist, and write results.json, tables.md and charts into `out`."""
    runs = [read_run(folder) for folder in run_folders if (folder / RUN_FILE).is_file()]
    comparisons = compare(runs)
    results, tables = results_as_dict(config, runs, comparisons), accuracy_tables(comparisons)
    files = {
        RESULTS_FILE: json.dumps(results, indent=1) + "\n",
        TABLES_FILE: "\n\n".join(f"## {table.title}\n\n{markdown(table)}" for table in tables) + "\n",
    }
    charts = train_clips_charts(train_clips_sweeps(comparisons))
    if not charts:
        charts = [accuracy_chart(ComparisonDetails(comparison)) for comparison in comparisons]
    with disk_errors(out, field="study"):
        for name, text in files.items():
            atomic_write(out / name, text.encode())
        pictures = [out / f"accuracy-{number}.png" for number in range(1, len(charts) + 1)]
        for chart, picture in zip(charts, pictures, strict=True):
            chart.png(picture)
    return StudyResult(steps, results, tuple(tables), (*(out / name for name in files), *pictures))


def results_as_dict(
    config: StudyConfig, runs: Sequence[RunRecord], comparisons: Sequence[Comparison]
) -> dict[str, Any]:
    """Return the content of results.json. It leaves out the results of single classes.

    The comparisons with the control and by fold use only the runs whose augmentation some mix has too.
    """
    plain_comparisons = [comparison.as_dict() for comparison in comparisons]
    for plain in plain_comparisons:
        del plain["classes"]
    mix_augments = {run.augment for run in runs if run.mix != "real"}
    runs = [run for run in runs if run.augment in mix_augments]
    against_control = []
    if config.control in {run.mix for run in runs}:
        against_control = [summary(comparison) for comparison in compare(runs, config.control)]
    by_fold = {}
    for fold in config.all_folds:
        fold_runs = [run for run in runs if run.fold == fold]
        if any(run.mix == "real" for run in fold_runs):
            by_fold[str(fold)] = [summary(comparison) for comparison in compare(fold_runs, "real")]
    return {
        "config": asdict(config),
        "validation": validation_gains(comparisons),
        "comparisons": plain_comparisons,
        "against_control": against_control,
        "by_fold": by_fold,
    }


def summary(comparison: Comparison) -> dict[str, Any]:
    """Return the accuracies, differences and p-values of a comparison."""
    kept = ("mix", "n_runs", "difference", "p_value_exact", "p_value", "p_value_holm", "verdict", "sentence")
    rows = [
        {"accuracy": row["accuracy"]["mean"]} | {name: row[name] for name in kept}
        for row in comparison.as_dict()["rows"]
    ]
    shared = ("train_clips", "classifier", "augment", "baseline")
    return {name: getattr(comparison, name) for name in shared} | {"rows": rows}


def validation_gains(comparisons: Sequence[Comparison]) -> list[dict[str, Any]]:
    """Return the gain of each mix in validation accuracy. Unlike test accuracy, it may be used to choose defaults.

    The gain is the difference (percentage points) from real clips with the same augmentation: the mean over classifiers,
    augmentations, numbers of real clips, folds and seeds, with its standard error.
    """
    scores: dict[str, dict[tuple[Any, ...], float]] = {}
    for comparison in comparisons:
        if comparison.choices:
            continue
        shared = (comparison.classifier, comparison.augment, comparison.train_clips)
        for run in itertools.chain.from_iterable(comparison.by_mix.values()):
            if run.validation_accuracy is not None:
                scores.setdefault(run.mix, {})[(*shared, run.split, run.seed)] = run.validation_accuracy
    real = scores.pop("real", {})
    rows = []
    for mix, mix_scores in scores.items():
        gains = [100 * (score - real[key]) for key, score in mix_scores.items() if key in real]
        if gains:
            error = float(np.std(gains, ddof=1) / len(gains) ** 0.5) if len(gains) > 1 else None
            rows.append(
                {
                    "mix": mix,
                    "gain_points": round(float(np.mean(gains)), 2),
                    "standard_error": None if error is None else round(error, 2),
                    "runs": len(gains),
                    "runs_up": sum(gain > 0 for gain in gains),
                }
            )
    return sorted(rows, key=lambda row: -row["gain_points"])


def accuracy_tables(comparisons: Sequence[Comparison]) -> list[Table]:
    """Return a table for each classifier and augmentation, with a row for each mix and a column for each number of real clips."""
    groups: dict[tuple[str, str], list[Comparison]] = {}
    for comparison in comparisons:
        groups.setdefault((comparison.classifier, comparison.augment), []).append(comparison)
    tables = []
    for (classifier, augment), members in groups.items():
        by_size = {str(comparison.train_clips or FULL): comparison for comparison in members}
        sizes = sorted(by_size, key=lambda size: float("inf") if size == FULL else int(size))
        title = (
            f"{classifier}, augmentation {augment}: accuracy %, and percentage points above real clips alone"
        )
        table = Table(title, columns("trained on", numbers=[f"{size} real clips" for size in sizes]))
        mixes = dict.fromkeys(row.mix for comparison in members for row in comparison.rows)
        for mix in mixes:
            rows = [next((row for row in by_size[size].rows if row.mix == mix), None) for size in sizes]
            table.add(mix, *("" if row is None else _cell(row) for row in rows))
        tables.append(table)
    return tables


def _cell(row: Any) -> str:
    text, difference = f"{100 * row.accuracy.mean:.1f}", row.difference
    if difference is None:
        return text
    text += f", {difference.difference_points:+z.1f}"
    if difference.low_points is not None:
        text += f" ({difference.low_points:+.1f} to {difference.high_points:+.1f})"
    return f"{text}, {row.pairs_up} of {row.pairs} pairs up"
