"""`usk eval`: compare every run under a folder."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer import Option

from usk.cli.options import display_for


def command(
    ctx: typer.Context,
    runs: Annotated[str, typer.Argument(metavar="RUNS", help="Folder of the runs.")] = "runs",
    baseline: Annotated[
        str | None, Option(help="Mix that the others are compared with. \\[default: real]")
    ] = None,
) -> None:
    """Say whether synthetic clips help: accuracy of each mix, paired differences with intervals, recall by class.

    Choose seeds and folds before you look. If you add seeds until clips help, useless clips seem to help.
    """
    display = display_for(ctx)
    from usk.cli.comparison import comparison_output, next_command
    from usk.evaluate.compare import compare_runs
    from usk.evaluate.tables import train_clips_tables

    comparisons = compare_runs(runs, baseline)
    output: list[Any] = [*train_clips_tables(comparisons)]
    for comparison in comparisons:
        output += comparison_output(comparison, *next_command(comparison, runs))
    display.result([comparison.as_dict() for comparison in comparisons], *output)
