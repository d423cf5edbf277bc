"""Show a comparison in the terminal, and suggest the next command."""

from __future__ import annotations

import shlex

from rich.console import RenderableType

from usk import tables
from usk.classify.config import DEFAULT_CLASSIFIER, FOLDS, USES, ClipUse
from usk.cli.display import escape
from usk.evaluate.compare import Comparison
from usk.evaluate.next_step import next_step
from usk.evaluate.tables import comparison_tables
from usk.text import about


def comparison_output(comparison: Comparison, *next_lines: str) -> list[RenderableType | tables.Table]:
    """Return the tables and notes of a comparison, the statistics and the answer of each mix, and `next_lines`."""
    others = [row for row in comparison.rows if not row.is_baseline]
    return [
        *comparison_tables(comparison),
        *(f"[dim]{escape(note)}[/dim]" for note in comparison.notes),
        *(f"{escape(row.mix)}: {escape(row.sentence)}" for row in others),
        *(f"[bold]{escape(row.mix)}: {escape(row.answer)}[/bold]" for row in others),
        *next_lines,
    ]


def next_command(comparison: Comparison, folder: str) -> list[str]:
    """Return the line with the command that trains the runs missing for an answer, and its duration; else an empty list."""
    step = next_step(comparison)
    if step is None:
        return []
    runs = [run for mix in step.mixes for run in comparison.by_mix[mix]]
    run = runs[0]
    clip_use = ClipUse(run.real_share, run.synthetic_weight, run.real_last)
    use = next((name for name, known in USES.items() if known == clip_use and known != ClipUse()), "")
    suffix = f" ({use})" if use else ""
    mixes = [mix.removesuffix(suffix) for mix in step.mixes if mix.endswith(suffix)]
    options = {
        "--test-folds": ",".join(map(str, sorted({run.fold for run in runs if run.fold}))),
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
    sources = "--real and --synth" if any("synth" in mix for mix in mixes) else "--real"
    return [f"Next, with the same {sources} ({about(step.train_s)}): {escape(shlex.join(words))}"]
