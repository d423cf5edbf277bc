"""What a study's runs say: results.json, tables in Markdown and charts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from usk.errors import disk_errors
from usk.evaluate.compare import Comparison, compare
from usk.evaluate.study import Study, sweeps_by_train_clips
from usk.files import atomic_write
from usk.report.charts import accuracy_chart, train_clips_charts
from usk.runs import RunRecord, read_runs
from usk.study.config import FULL, StudyConfig
from usk.tables import Table, columns, markdown

RESULTS_FILE, TABLES_FILE = "results.json", "tables.md"


@dataclass(frozen=True)
class StudyResult:
    """What a study did: its steps in words, its results as plain values and tables, and the files that were written."""

    steps: tuple[str, ...]
    results: dict[str, Any]
    tables: tuple[Table, ...] = ()
    files: tuple[Path, ...] = ()


def write_results(config: StudyConfig, runs_folder: Path, out: Path, steps: tuple[str, ...]) -> StudyResult:
    """Compare the runs that the study names, and write results.json, tables.md and charts into `out`."""
    runs = [run for run in read_runs(runs_folder) if names(config, run)]
    studies = [Study(comparison) for comparison in compare(runs)]
    results, tables = as_dict(config, runs, studies), tables_of(config, studies)
    files = {
        RESULTS_FILE: json.dumps(results, indent=1) + "\n",
        TABLES_FILE: "\n\n".join(f"## {table.title}\n\n{markdown(table)}" for table in tables) + "\n",
    }
    charts = [*train_clips_charts(sweeps_by_train_clips(studies))] or [accuracy_chart(one) for one in studies]
    with disk_errors(out, field="study"):
        for name, text in files.items():
            atomic_write(out / name, text.encode())
        pictures = [out / f"accuracy-{number}.png" for number in range(1, len(charts) + 1)]
        for chart, picture in zip(charts, pictures, strict=True):
            chart.png(picture)
    return StudyResult(steps, results, tuple(tables), (*(out / name for name in files), *pictures))


def size_of(run_or_size: int | None) -> str:
    return FULL if run_or_size is None else str(run_or_size)


def names(config: StudyConfig, run: RunRecord) -> bool:
    """Whether the study asks for this run."""
    n = size_of(run.train_clips)
    return (
        n in config.train_clips
        and run.classifier in config.classifiers
        and run.fold in config.test_folds[n]
        and run.seed in config.seeds_of(n)
        and run.mix in ("real", *config.mixes_of(n))
    )


def has_mix(runs: Sequence[RunRecord], mix: str) -> bool:
    return any(run.mix == mix for run in runs)


def as_dict(config: StudyConfig, runs: Sequence[RunRecord], studies: Sequence[Study]) -> dict[str, Any]:
    """Everything as plain values, without what is said of single classes."""
    comparisons = [one.comparison.as_dict() for one in studies]
    for comparison in comparisons:
        del comparison["classes"]
    mixed = {run.augment for run in runs if run.mix != "real"}
    augmented = [run for run in runs if run.augment in mixed]
    controlled = config.control and has_mix(augmented, config.control)
    return {
        "config": asdict(config),
        "validation": validation_gains(studies),
        "comparisons": comparisons,
        "against_control": [brief(one) for one in compare(augmented, config.control)] if controlled else [],
        "by_fold": {
            str(fold): [brief(one) for one in compare(of_fold, "real")]
            for fold in config.all_folds
            if has_mix(of_fold := [run for run in augmented if run.fold == fold], "real")
        },
    }


def brief(comparison: Comparison) -> dict[str, Any]:
    """A comparison by its rows' accuracy and difference."""
    kept = ("mix", "n_runs", "difference", "p_value_exact", "p_value", "p_value_holm", "verdict", "sentence")
    rows = [
        {"accuracy": row["accuracy"]["mean"]} | {name: row[name] for name in kept}
        for row in comparison.as_dict()["rows"]
    ]
    shared = ("train_clips", "classifier", "augment", "baseline")
    return {name: getattr(comparison, name) for name in shared} | {"rows": rows}


def validation_gains(studies: Sequence[Study]) -> list[dict[str, Any]]:
    """What each mix was worth on validation recordings, which may choose defaults where test clips may not.

    Percentage points above real clips with the same augmentation: the mean and its standard error over classifiers,
    augmentations, numbers of real clips, folds and seeds.
    """
    scores: dict[str, dict[tuple[Any, ...], float]] = {}
    for one in studies:
        shared = (one.comparison.classifier, one.comparison.augment, one.comparison.train_clips)
        for run in one.runs:
            if run.validation_accuracy is not None and not one.comparison.choices:
                scores.setdefault(run.mix, {})[(*shared, run.split, run.seed)] = run.validation_accuracy
    real = scores.pop("real", {})
    rows = []
    for mix, of in scores.items():
        gains = [100 * (score - real[place]) for place, score in of.items() if place in real]
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


def tables_of(config: StudyConfig, studies: Sequence[Study]) -> list[Table]:
    """One table a classifier and augmentation: a row a mix, a column a number of real clips."""
    shown: dict[tuple[str, str], list[Comparison]] = {}
    for one in studies:
        shown.setdefault((one.comparison.classifier, one.comparison.augment), []).append(one.comparison)
    tables = []
    for (classifier, augment), comparisons in shown.items():
        by_size = {size_of(one.train_clips): one for one in comparisons}
        sizes = sorted(by_size, key=lambda n: float("inf") if n == FULL else int(n))
        title = (
            f"{classifier}, augmentation {augment}: accuracy %, and percentage points above real clips alone"
        )
        table = Table(title, columns("trained on", numbers=[f"{n} real clips" for n in sizes]))
        mixes = dict.fromkeys(row.mix for one in comparisons for row in one.rows)
        for mix in mixes:
            rows = [next((row for row in by_size[n].rows if row.mix == mix), None) for n in sizes]
            table.add(mix, *("" if row is None else _cell(row) for row in rows))
        tables.append(table)
    return tables


def _cell(row: Any) -> str:
    text, found = f"{100 * row.accuracy.mean:.1f}", row.difference
    if found is None:
        return text
    text += f", {found.difference_points:+z.1f}"
    if found.low_points is not None:
        text += f" ({found.low_points:+.1f} to {found.high_points:+.1f})"
    return f"{text}, {row.pairs_up} of {row.pairs} pairs up"
