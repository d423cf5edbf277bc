"""`usk eval`: compare every run under a folder."""

from __future__ import annotations

from typing import Annotated

import typer

from usk.cli.options import JsonOption, QuietOption, display_for


def command(
    ctx: typer.Context,
    runs: Annotated[str, typer.Argument(metavar="[RUNS]", help="Folder of the runs.")] = "runs",
    baseline: Annotated[
        str | None,
        typer.Option("--baseline", help="Mix that the others are compared with. \\[default: real]"),
    ] = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Compare mixes: accuracy and macro F1 with intervals, paired differences, recall by class."""
    display = display_for(ctx, as_json, quiet)
    from usk.evaluate.compare import compare_runs
    from usk.show.console import comparison_tables, shots_tables, strips_table

    comparisons = compare_runs(runs, baseline)
    drawn = []
    if display.draws:
        from usk.evaluate.study import study_runs

        drawn = [strips_table(study) for study in study_runs(runs, baseline)]
    display.result(
        [comparison.as_dict() for comparison in comparisons],
        *shots_tables(comparisons),
        *(shown for comparison in comparisons for shown in comparison_tables(comparison)),
        *drawn,
    )
