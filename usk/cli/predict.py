"""`usk predict`: what a trained classifier says of files."""

from __future__ import annotations

from typing import Annotated

import typer

from usk.cli.options import JsonOption, QuietOption, display_for

SOME_UNREAD = 1


def command(
    ctx: typer.Context,
    what: Annotated[list[str], typer.Argument(metavar="FILE|FOLDER|SRC...", help="What to classify.")],
    run: Annotated[
        str, typer.Option("--run", help="Folder of a run, or of runs that holds only one.")
    ] = "runs",
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Classify audio files, folders of them, or sources. Goes on past a bad file, and then ends with exit code 1."""
    display = display_for(ctx, as_json, quiet)
    from usk.classify.predict import predict
    from usk.show.console import predictions_table

    with display.progress() as bars:
        predictions = predict(what, run, progress=bars("classifying"))
    display.result([one.as_dict() for one in predictions], predictions_table(predictions))
    if any(one.problem for one in predictions):
        raise typer.Exit(SOME_UNREAD)
