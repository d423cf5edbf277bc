"""`usk train`: classifiers on mixes of real and synthetic clips."""

from __future__ import annotations

from math import isnan
from typing import Annotated

import typer

from usk.cli.options import (
    DeviceOption,
    Reading,
    RealOption,
    display_for,
    reads_clips,
    split_numbers,
    typed,
)


@reads_clips()
def command(
    ctx: typer.Context,
    mix: Annotated[
        list[str] | None,
        typer.Option(
            "--mix",
            help="What to train on: real, synth, real,synth, real:0.1, or any SRC. Repeatable. \\[default: real]",
        ),
    ] = None,
    real: RealOption = None,
    synth: Annotated[
        str | None,
        typer.Option("--synth", metavar="SRC", help="What synth means in a mix. \\[default: synth]"),
    ] = None,
    out: Annotated[str, typer.Option("--out", help="Folder of the runs.")] = "runs",
    classifier: Annotated[
        str,
        typer.Option(
            "--classifier",
            help="small, medium, cnn (the published one), sb-cnn, resnet, or hf:FOLDER-OR-ID.",
        ),
    ] = "small",
    protocol: Annotated[
        str, typer.Option("--protocol", help="folds, holdout, or seed-9010 (as published; optimistic).")
    ] = "folds",
    folds: Annotated[
        str | None,
        typer.Option("--folds", help="Test folds, joined by commas. \\[default: all that are clean]"),
    ] = None,
    seeds: Annotated[int, typer.Option("--seeds", help="Train this many times with different seeds.")] = 1,
    seed: Annotated[
        int, typer.Option("--seed", help="The first of them: several machines can share a sweep.")
    ] = 0,
    train_clips: Annotated[
        str,
        typer.Option(
            "--train-clips",
            help="Real clips to train on in all, joined by commas: 50,100,full. Synthetic ones count only if made from those alone.",
        ),
    ] = "full",
    epochs: Annotated[
        int | None,
        typer.Option(
            "--epochs",
            help="Epochs, each of the real clips, or of 500 where there are fewer. \\[default: the classifier's; up to "
            "twice as many with fewer than 1,000 clips]",
        ),
    ] = None,
    batch: Annotated[int | None, typer.Option("--batch", help="Clips in a training batch.")] = None,
    learning_rate: Annotated[
        float | None, typer.Option("--learning-rate", help="Peak learning rate.")
    ] = None,
    augment: Annotated[
        str,
        typer.Option(
            "--augment",
            help="auto (the classifier's), none, basic, strong, or names: shift+mask+mixup. Several joined by commas: "
            "none,basic,strong.",
        ),
    ] = "auto",
    device: DeviceOption = "auto",
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers",
            help="Train this many runs at the same time. \\[default: as many as cores and memory allow, on a GPU eight at most]",
        ),
    ] = None,
    reading: Reading = Reading(),
) -> None:
    """Train the classifier on one or more mixes; each run is saved under OUT. Finished runs are not trained again."""
    display = display_for(ctx)
    from usk.classify.train import TrainConfig, TrainProgress, train
    from usk.cli.display import runs_table, settings_line
    from usk.data.mix import parse_mix
    from usk.errors import UsageError
    from usk.text import abbreviate_list, pluralize

    config = TrainConfig(
        classifier=classifier,
        protocol=protocol,
        folds=split_numbers(folds, "folds"),
        seeds=seeds,
        seed=seed,
        train_clips=train_clips,
        epochs=epochs,
        batch=batch,
        learning_rate=learning_rate,
        augment=augment,
        device=device,
        workers=workers,
        skip_bad=reading.skip_bad,
    )
    parts = {part.name for text in mix or () for part in parse_mix(text).parts}
    if synth is not None and "synth" not in parts:
        raise UsageError(f"--synth {synth}: no --mix names synth; add --mix real,synth, or leave it out")
    source = reading.open(real)
    with display.progress() as bars:
        training = bars("training")

        def report(state: TrainProgress) -> None:
            chosen_on = (
                "" if isnan(state.validation_accuracy) else f" · validation {state.validation_accuracy:.0%}"
            )
            text = f"run {state.run + 1}/{state.n_runs} · {state.label} · epoch {state.epoch}/{state.epochs}"
            training(state.done_steps, state.all_steps, text + chosen_on)

        result = train(
            source,
            mix or ["real"],
            synth=synth or "synth",
            out=out,
            config=config,
            report=report,
            preparing=bars("decoding"),
            announce=lambda settings: display.note(settings_line(settings)),
        )
    for note in result.notes:
        display.warn(note)
    if failed := [run.folder.name for run in result.runs if run.learnt_nothing]:
        display.warn(
            f"{pluralize(len(failed), 'run')} of {len(result.runs)} learnt nothing and took all test clips for one class ({abbreviate_list(failed)}): "
            "more --epochs or a lower --learning-rate may help"
        )
    display.result(
        {
            "runs": [{**run.as_dict(), "folder": str(run.folder)} for run in result.runs],
            "notes": list(result.notes),
        },
        runs_table(result.runs),
        *(
            []
            if all(result.fresh)
            else [f"trained before: {result.fresh.count(False)} of {len(result.runs)}"]
        ),
        "Next: usk eval" + (f" {typed(out)}" if out != "runs" else ""),
    )
