"""`usk predict`: classify audio files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Option

from usk import tables
from usk.cli.options import display_for
from usk.text import abbreviate_list, pluralize

ALL_FAILED = 1  # exit code


def command(
    ctx: typer.Context,
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN", help="Folder of a run, or of runs that holds only one; or a Hub id\\[@revision]."
        ),
    ],
    what: Annotated[list[str], typer.Argument(metavar="FILES...", help="Files, folders or SRC to classify.")],
    csv_file: Annotated[
        str | None, Option("--csv", metavar="PATH", help="Write a CSV file; - is standard output.")
    ] = None,
) -> None:
    """Classify audio files, folders of them, or sources.

    Bad files are skipped. The exit code is 1 if no file could be read.
    """
    display = display_for(ctx)
    from usk.errors import UsageError

    if csv_file == "-" and display.as_json:
        raise UsageError(
            "and JSON cannot both use standard output", field="csv", value="-", hint="Name a file."
        )
    if csv_file is not None and not (folder := Path(csv_file).absolute().parent).is_dir():
        raise UsageError(f"there is no folder {folder}", field="csv", value=csv_file, hint="Make it first.")
    from usk.classify.predict import predict, write_csv

    predictions = predict(what, run, reporter=display)
    display.close()
    if csv_file is not None:
        write_csv(predictions, csv_file)
    if csv_file != "-":
        display.result([one.as_dict() for one in predictions], _table(predictions))
    bad = [f"{one.file} ({one.problem})" for one in predictions if one.problem]
    if bad:
        display.warn(f"{len(bad)} of {len(predictions)} clips could not be read: {abbreviate_list(bad)}")
    if len(bad) == len(predictions):
        raise typer.Exit(ALL_FAILED)


def _table(predictions: Sequence[Any]) -> tables.Table:
    """Return a table with the class of each clip, or the problem that prevents a prediction."""
    columns = tables.columns("clip", "class", "next best", numbers=["probability"])
    table = tables.Table(pluralize(len(predictions), "clip"), columns)
    for one in predictions:
        if one.problem is not None:
            table.add(one.file, one.problem, "", "")
            continue
        next_best = f"{one.next_class} {one.next_probability:.2f}" if one.next_class else ""
        table.add(one.file, one.class_name, next_best, f"{one.probability:.2f}")
    return table
