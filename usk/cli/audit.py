"""`usk audit`: leaks, defects, near-copies and distances of a synthetic dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from usk.cli.options import (
    FoldColumnOption,
    GroupColumnOption,
    JsonOption,
    LabelColumnOption,
    QuietOption,
    RealOption,
    display_for,
    real_location,
    split_numbers,
)

FOUND_LEAKS = 3


def command(
    ctx: typer.Context,
    dataset: Annotated[str, typer.Argument(metavar="[SRC]", help="Synthetic dataset.")] = "synth",
    real: RealOption = None,
    test_folds: Annotated[
        str | None,
        typer.Option("--test-folds", help="Folds that no clip may leak into, joined by commas."),
    ] = None,
    run: Annotated[
        Path | None, typer.Option("--run", help="Embed with this run's classifier, not log-mel statistics.")
    ] = None,
    label_column: LabelColumnOption = None,
    group_column: GroupColumnOption = None,
    fold_column: FoldColumnOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Look a synthetic dataset over against the real clips it was made from. Ends with exit code 3 if it found leaks."""
    display = display_for(ctx, as_json, quiet)
    from usk.classify.runs import RUN_FILE
    from usk.data.sources import open_source
    from usk.errors import UsageError
    from usk.evaluate.quality import audit
    from usk.show.console import audit_tables

    if run is not None and not (run / RUN_FILE).is_file():
        raise UsageError(
            f"--run {run} is no run; give a folder that usk train made, for example under ./runs"
        )
    synthetic = open_source(dataset)
    source = open_source(
        real_location(real),
        skip_bad=True,
        label_column=label_column,
        group_column=group_column,
        fold_column=fold_column,
    )
    for note in source.notes:
        display.warn(note)
    with display.progress() as bars:
        found = audit(
            synthetic,
            source,
            test_folds=split_numbers(test_folds, "--test-folds"),
            run=run,
            progress=bars("decoding"),
        )
    display.result(found.as_dict(), *audit_tables(found))
    if found.leaks:
        raise typer.Exit(FOUND_LEAKS)
