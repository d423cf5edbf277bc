"""A comparison in the terminal: its tables, a sentence for each mix, and small charts."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from rich.console import RenderableType

from usk import tables
from usk.classify.config import DEFAULT_CLASSIFIER, FOLDS, USES, ClipUse
from usk.cli.display import escape
from usk.evaluate.compare import Comparison
from usk.evaluate.next_step import next_step
from usk.evaluate.stats import MeanInterval
from usk.evaluate.study import Study
from usk.evaluate.tables import comparison_tables
from usk.text import about

SPARKS = "▁▂▃▄▅▆▇█"
STRIP_CELLS = 36


def comparison_shown(comparison: Comparison, *next_lines: str) -> list[RenderableType | tables.Table]:
    """The tables of a comparison, what to know beside, a sentence with the statistics of each mix, and last the answers, followed
    by what to do next."""
    others = [row for row in comparison.rows if not row.is_baseline]
    return [
        *comparison_tables(comparison),
        *(f"[dim]{escape(note)}[/dim]" for note in comparison.notes),
        *(f"{escape(row.mix)}: {escape(row.sentence)}" for row in others),
        *(f"[bold]{escape(row.mix)}: {escape(row.answer)}[/bold]" for row in others),
        *next_lines,
    ]


def next_command(comparison: Comparison, folder: str) -> list[str]:
    """The line that trains what is missing in `folder` for an answer, and how long that takes; none where nothing is."""
    step = next_step(comparison)
    if step is None:
        return []
    runs = [run for mix in step.mixes for run in comparison.by_mix[mix]]
    run = runs[0]
    clip_use = ClipUse(run.real_share, run.synthetic_weight, run.real_last)
    use = next((name for name, one in USES.items() if one == clip_use and one != ClipUse()), "")
    named = f" ({use})" if use else ""
    mixes = [mix.removesuffix(named) for mix in step.mixes if mix.endswith(named)]
    options = {
        "--test-folds": ",".join(map(str, sorted({one.fold for one in runs if one.fold}))),
        "--train-clips": run.train_clips,
        "--seeds": step.seeds,
        "--classifier": "" if run.classifier == DEFAULT_CLASSIFIER else run.classifier,
        "--protocol": "" if run.protocol == FOLDS else run.protocol,
        "--augment": ",".join(comparison.augments),
        "--use": use,
        "--epochs": run.epochs,
        "--batch": run.batch,
        "--learning-rate": f"{run.learning_rate:g}",
        "--out": "" if folder == "runs" else folder,
    }
    words = ["usk", "train", *(word for mix in mixes for word in ("--mix", mix))]
    words += [word for name, value in options.items() if value for word in (name, str(value))]
    given = "--real and --synth" if any("synth" in mix for mix in mixes) else "--real"
    return [f"Next, with the same {given} ({about(step.train_s)}): {escape(shlex.join(words))}"]


def sparkline(values: Sequence[float], cells: int = 24) -> str:
    """Values as a row of bars between their own extremes, at most `cells` wide (means of neighbors)."""
    n = min(cells, len(values))
    parts = [values[len(values) * i // n : len(values) * (i + 1) // n] for i in range(n)]
    means = [sum(part) / len(part) for part in parts]
    low, high = min(means, default=0.0), max(means, default=0.0)
    step = (high - low) / (len(SPARKS) - 1) or 1.0
    return "".join(SPARKS[round((mean - low) / step)] for mean in means)


def strip(
    values: Sequence[float], interval: MeanInterval, low: float, high: float, cells: int = STRIP_CELLS
) -> str:
    """Dots on a line from `low` to `high`: ● a value, ┃ the mean, ━ its interval."""

    def cell(value: float) -> int:
        return min(cells - 1, max(0, round((value - low) / ((high - low) or 1.0) * (cells - 1))))

    line = ["·"] * cells
    if interval.low is not None and interval.high is not None:
        for place in range(cell(interval.low), cell(interval.high) + 1):
            line[place] = "━"
    for value in values:
        line[cell(value)] = "●"
    line[cell(interval.mean)] = "┃"
    return "".join(line)


def strips_table(study: Study) -> tables.Table:
    """Every run of one `usk.evaluate.study.Study` as a dot, and how its training went."""
    rows = study.comparison.rows
    bounds = [run.accuracy for run in study.runs]
    bounds += [bound for row in rows for bound in (row.accuracy.low, row.accuracy.high) if bound is not None]
    low, high = min(bounds), max(bounds)
    curves = {curve.mix: curve.mean for curve in study.curves if curve.figure == "validation_accuracy"}
    names = ("mix", f"{100 * low:.1f} % to {100 * high:.1f} %", *["validation by epoch"] * bool(curves))
    table = tables.Table("accuracy: ● a run, ┃ mean, ━ 95 % interval", tables.columns(*names))
    for row in rows:
        values = [run.accuracy for run in study.runs if run.mix == row.mix]
        table.add(
            row.mix,
            strip(values, row.accuracy, low, high),
            *[sparkline(curves.get(row.mix, ()))] * bool(curves),
        )
    return table
