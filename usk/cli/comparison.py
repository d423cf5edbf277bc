"""Show a comparison in the terminal, and suggest the next command."""

from __future__ import annotations

import shlex
from itertools import chain

from rich.console import RenderableType

from usk import tables
from usk.classify.config import DEFAULT_CLASSIFIER, DEFAULT_USE, FOLDS, RECIPES, ClipUse, training_length
from usk.cli.display import escape
from usk.evaluate.compare import Comparison
from usk.evaluate.next_step import next_step
from usk.evaluate.pairing import DEFAULT_BASELINE
from usk.evaluate.tables import comparison_tables
from usk.text import about


def comparison_output(comparison: Comparison, *next_lines: str) -> list[RenderableType | tables.Table]:
    """Return the tables and notes of a comparison, the answer on each mix, and `next_lines`."""
    return [
        *comparison_tables(comparison),
        *(f"[dim]{escape(note)}[/dim]" for note in comparison.notes),
        *(f"[bold]{escape(f'{r.mix}: {r.sentence}')}[/bold]" for r in comparison.rows if not r.is_baseline),
        *next_lines,
    ]


def next_command(comparison: Comparison, folder: str) -> list[str]:
    """Return the line with the command that trains the runs missing for an answer, and its duration; else an empty list."""
    step = next_step(comparison)
    if step is None:
        return []
    firsts = [
        comparison.by_mix[mix][0] for mix in (comparison.baseline, *step.mixes) if mix != DEFAULT_BASELINE
    ]
    uses = [ClipUse(run.real_share, run.synthetic_weight, run.real_last) for run in firsts]
    run, use = firsts[0], uses[0]
    if " " in use.name:  # the library's own, which no option names
        return []
    # One command trains one use. It trains the default baseline, too.
    suffix = use.add_to("")
    mixes = [
        one.mix.removesuffix(suffix) for one, its_use in zip(firsts, uses, strict=True) if its_use == use
    ]
    runs = [run for mix in step.mixes for run in comparison.by_mix[mix]]
    epochs, batch, learning_rate, *_, augment, min_steps = RECIPES.get(run.classifier, (0, 0, 0.0, "", 0))
    usual_length = all(
        (one.epochs, one.steps) == training_length(one.n_real, one.batch, (epochs, min_steps), None)
        for one in comparison.by_mix[comparison.baseline]
    )
    options = {  # values and defaults
        "--test-folds": (",".join(map(str, sorted({run.fold for run in runs if run.fold}))), ""),
        "--train-clips": (run.train_clips, None),
        "--seeds": (step.seeds, 0),
        "--classifier": (run.classifier, DEFAULT_CLASSIFIER),
        "--protocol": (run.protocol, FOLDS),
        "--augment": (",".join(comparison.augments), augment),
        "--use": (use.name, DEFAULT_USE),
        "--epochs": (run.epochs, run.epochs if usual_length else 0),
        "--batch": (run.batch, batch),
        "--learning-rate": (run.learning_rate, learning_rate),
        "--out": (folder, "runs"),
    }
    given = [("--mix", mix) for mix in mixes]
    given += [(name, str(value)) for name, (value, usual) in options.items() if value != usual]
    command = shlex.join(["usk", "train", *chain(*given)])
    reading = "--real, --synth" if any("synth" in mix for mix in mixes) else "--real"
    return [f"Next, with {reading} and --skip-bad as before ({about(step.train_s)}): {escape(command)}"]
