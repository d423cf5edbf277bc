"""`usk predict`: what a trained classifier says of files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from usk.cli.options import display_for

NONE_READ = 1


def command(
    ctx: typer.Context,
    what: Annotated[list[str], typer.Argument(metavar="FILE|FOLDER|SRC...", help="What to classify.")],
    run: Annotated[
        str,
        typer.Option(
            "--run",
            metavar="RUN|ID",
            help="Folder of a run, or of runs that holds only one; or a Hub id\\[@revision].",
        ),
    ] = "runs",
    csv_file: Annotated[
        str | None, typer.Option("--csv", metavar="PATH", help="Write a CSV file; - is standard output.")
    ] = None,
) -> None:
    """Classify audio files, folders of them, or sources. Goes on past a bad file; exit code 1 if none could be read."""
    display = display_for(ctx)
    from usk.classify.predict import predict, write_csv
    from usk.cli.display import predictions_table
    from usk.errors import UsageError
    from usk.text import abbreviate_list

    if csv_file == "-" and display.as_json:
        raise UsageError("--csv - and --json both want standard output; give --csv a file")
    if csv_file is not None and not Path(csv_file).absolute().parent.is_dir():
        raise UsageError(
            f"--csv {csv_file}: there is no folder {Path(csv_file).parent}; make it, or name another"
        )
    with display.progress() as bars:
        predictions = predict(what, run, progress=bars("classifying"))
    if csv_file is not None:
        write_csv(predictions, csv_file)
    if csv_file != "-":
        display.result([one.as_dict() for one in predictions], predictions_table(predictions))
    bad = [f"{one.file} ({one.problem})" for one in predictions if one.problem]
    if bad:
        display.warn(f"{len(bad)} of {len(predictions)} clips could not be read: {abbreviate_list(bad)}")
    if len(bad) == len(predictions):
        raise typer.Exit(NONE_READ)
