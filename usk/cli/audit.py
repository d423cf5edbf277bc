"""`usk audit`: leaks, defects, near-copies and distances of a synthetic dataset."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from usk.cli.options import (
    DeviceOption,
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
        Path | None, typer.Option("--run", help="Compare sounds in what this run's classifier makes of them.")
    ] = None,
    embedding: Annotated[
        str,
        typer.Option(
            "--embedding",
            help="auto (--run, else the newest run under ./runs trained on real alone, else log-mel), log-mel, or an audio model of transformers: a folder or a Hub id\\[@revision].",
        ),
    ] = "auto",
    tstr: Annotated[
        bool,
        typer.Option(
            "--tstr", help="Also train on synthetic clips alone, test on real ones: a few minutes a fold."
        ),
    ] = False,
    seeds: Annotated[int, typer.Option("--seeds", help="With --tstr: trainings with different seeds.")] = 1,
    epochs: Annotated[int | None, typer.Option("--epochs", help="With --tstr: epochs of each.")] = None,
    device: DeviceOption = "auto",
    label_column: LabelColumnOption = None,
    group_column: GroupColumnOption = None,
    fold_column: FoldColumnOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Look a synthetic dataset over against the real clips it was made from. Ends with exit code 3 if it found leaks."""
    display = display_for(ctx, as_json, quiet)
    from usk.classify.runs import RUN_FILE
    from usk.classify.train import TrainProgress
    from usk.data.sources import open_source
    from usk.errors import UsageError
    from usk.evaluate.embeddings import embedding_named
    from usk.evaluate.quality import audit
    from usk.evaluate.transfer import train_on_synthetic
    from usk.show.console import audit_tables

    if run is not None and not (run / RUN_FILE).is_file():
        raise UsageError(
            f"--run {run} is no run; give a folder that usk train made, for example under ./runs"
        )
    for flag, given in (("--seeds", seeds != 1), ("--epochs", epochs is not None)):
        if given and not tstr:
            raise UsageError(f"{flag} belongs to --tstr; add --tstr, or leave it out")
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
    folds = split_numbers(test_folds, "--test-folds")
    with display.progress() as bars:
        found = audit(
            synthetic,
            source,
            test_folds=folds,
            embedding=embedding_named(embedding, run, class_names=source.class_names),
            progress=bars("decoding"),
            embedding_progress=bars("embedding"),
        )
        if tstr:
            training = bars("training")

            def report(state: TrainProgress) -> None:
                training(state.run * state.epochs + state.epoch, state.n_runs * state.epochs, state.label)

            transfer = train_on_synthetic(
                synthetic, source, folds, epochs=epochs, seeds=seeds, device=device, report=report
            )
            found = replace(found, transfer=tuple(transfer))
    display.result(found.as_dict(), *audit_tables(found))
    if found.leaks:
        raise typer.Exit(FOUND_LEAKS)
