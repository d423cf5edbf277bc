"""`usk audit`: leaks, defects, near-copies and distances of a synthetic dataset."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from usk.cli.options import (
    DeviceOption,
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
            help="Compare sounds in what this run's classifier (a folder, or a Hub id) makes of them.",
        ),
    ] = None,
    embedding: Annotated[
        str,
        typer.Option(
            "--embedding",
            help="auto (--run, else the run under ./runs trained on most real clips and no others, else log-mel), log-mel, or an audio model of transformers: a folder or a Hub id\\[@revision].",
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
    save: Annotated[
        bool,
        typer.Option("--save", help="Keep the figures in the dataset's folder and show them in its card."),
    ] = False,
    reading: Reading = Reading(),
) -> None:
    """Look a synthetic dataset over against the real clips it was made from. Ends with exit code 3 if it found leaks."""
    display = display_for(ctx)
    from usk.audit.embeddings import embedding_named
    from usk.audit.quality import audit
    from usk.audit.transfer import train_on_synthetic
    from usk.classify.predict import find_classifier
    from usk.classify.train import TrainProgress
    from usk.cli.display import audit_tables
    from usk.data.open import open_source
    from usk.device import resolve_device
    from usk.errors import LeakError, SourceError, UsageError, UskError
    from usk.synth.card import open_own_dataset, save_audit

    for flag, given in (
        ("--seeds", seeds != 1),
        ("--epochs", epochs is not None),
        ("--device", device != "auto"),
    ):
        if given and not tstr:
            raise UsageError(f"{flag} belongs to --tstr; add --tstr, or leave it out")
    if seeds < 1 or (epochs is not None and epochs < 1):
        raise UsageError(f"--{'seeds' if seeds < 1 else 'epochs'} must be at least 1")
    resolve_device(device)
    if save:
        open_own_dataset(Path(dataset))  # before the work
    if run is not None and embedding != "auto":
        raise UsageError(f"--run and --embedding {embedding} are two embeddings; give one of them")
    classifier = find_classifier(run) if run is not None else None
    synthetic = open_source(dataset, flag="usk audit")
    source = reading.open(real)
    for note in source.notes:
        display.warn(note)
    folds = split_numbers(test_folds, "test_folds")
    untrained: UskError | None = None
    with display.progress() as bars:
        found = audit(
            synthetic,
            source,
            test_folds=folds,
            embedding=embedding_named(embedding, classifier, class_names=source.class_names),
            progress=bars("decoding"),
            embedding_progress=bars("embedding"),
        )
        if tstr:
            training = bars("training")

            def report(state: TrainProgress) -> None:
                training(state.done_steps, state.all_steps, state.label)

            try:
                transfer = train_on_synthetic(
                    synthetic, source, folds, epochs=epochs, seeds=seeds, device=device, report=report
                )
                found = replace(found, transfer=tuple(transfer))
            except (LeakError, SourceError) as error:  # what else was found is worth showing
                untrained = error
    if save:
        save_audit(Path(dataset), found.as_dict(), f"{source.name} ({source.revision})")
    display.result(found.as_dict(), *audit_tables(found))
    if untrained is not None:
        if not found.leaks:
            raise untrained
        display.warn(f"--tstr was left out: {untrained}")
    if found.leaks:
        raise typer.Exit(FOUND_LEAKS)
