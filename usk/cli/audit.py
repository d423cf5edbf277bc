"""`usk audit`: leaks, defects, near-copies and distances of a synthetic dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from usk.cli.options import (
    JsonOption,
    QuietOption,
    Reading,
    RealOption,
    display_for,
    reads_clips,
    split_numbers,
)

FOUND_LEAKS = 3


@reads_clips(skip_bad=True)
def command(
    ctx: typer.Context,
    dataset: Annotated[str, typer.Argument(metavar="[SRC]", help="Synthetic dataset.")] = "synth",
    real: RealOption = None,
    test_folds: Annotated[
        str | None,
        typer.Option("--test-folds", help="Folds that no clip may leak into, joined by commas."),
    ] = None,
    run: Annotated[
        str | None,
        typer.Option(
            "--run",
            metavar="RUN|ID",
            help="Embed with this run's classifier (a folder, or a Hub id), not log-mel statistics.",
        ),
    ] = None,
    save: Annotated[
        bool,
        typer.Option("--save", help="Keep the figures in the dataset's folder and show them in its card."),
    ] = False,
    reading: Reading = Reading(),
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Look a synthetic dataset over against the real clips it was made from. Ends with exit code 3 if it found leaks."""
    display = display_for(ctx, as_json, quiet)
    from usk.classify.predict import find_classifier
    from usk.data.sources import open_source
    from usk.evaluate.quality import audit
    from usk.share.cards import save_audit
    from usk.show.console import audit_tables

    classifier = find_classifier(run) if run is not None else None
    synthetic = open_source(dataset, flag="usk audit")
    source = reading.open(real)
    for note in source.notes:
        display.warn(note)
    with display.progress() as bars:
        found = audit(
            synthetic,
            source,
            test_folds=split_numbers(test_folds, "--test-folds"),
            run=classifier,
            progress=bars("decoding"),
        )
    if save:
        save_audit(Path(dataset), found.as_dict(), f"{source.name} ({source.revision})")
    display.result(found.as_dict(), *audit_tables(found))
    if found.leaks:
        raise typer.Exit(FOUND_LEAKS)
