"""`usk train`: train classifiers on mixes of real and synthetic clips."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Option

from usk import tables
from usk.cli.options import (
    ColumnsOption,
    DeviceOption,
    EngineOption,
    PartOption,
    ReadOptions,
    RealOption,
    SkipBadOption,
    display_for,
    shell_quoted,
    split_numbers,
)

if TYPE_CHECKING:
    from usk.runs import RunRecord


def command(
    ctx: typer.Context,
    mix: Annotated[
        list[str] | None,
        Option(
            metavar="MIX",
            help="What to train on: real, synth, real,synth, or any SRC. Repeatable. \\[default: real]",
        ),
    ] = None,
    real: RealOption = None,
    synth: Annotated[
        str | None, Option(metavar="SRC", help="What synth means in a mix. \\[default: synth]")
    ] = None,
    out: Annotated[str, Option(help="Folder of the runs.")] = "runs",
    classifier: Annotated[
        str, Option(help="small, medium, cnn (the published one), or hf:FOLDER-OR-ID.")
    ] = "small",
    protocol: Annotated[str, Option(help="folds, or seed-9010 (as published; optimistic).")] = "folds",
    test_folds: Annotated[
        str | None, Option(help="Test folds, joined by commas. \\[default: all without leaks]")
    ] = None,
    seeds: Annotated[
        int | None,
        Option(
            help="Train this many times with different seeds. \\[default: so that folds times seeds are six, or more with several mixes]"
        ),
    ] = None,
    train_clips: Annotated[
        str,
        Option(
            help="Number of real clips to train on in all; several joined by commas: 50,100,full. Synthetic clips must be made from "
            "these clips alone."
        ),
    ] = "full",
    epochs: Annotated[
        int | None,
        Option(
            help="Epochs. One is a pass over the real clips, or over 500 clips if they are fewer. \\[default: the classifier's; "
            "more with few clips]"
        ),
    ] = None,
    batch: Annotated[int | None, Option(help="Clips in a training batch.")] = None,
    learning_rate: Annotated[float | None, Option(help="Peak learning rate.")] = None,
    augment: Annotated[
        str,
        Option(
            help="auto (the classifier's), none, basic, strong, or names: shift+mask+mixup. Several joined by commas: "
            "none,basic,strong."
        ),
    ] = "auto",
    use: Annotated[
        str,
        Option(
            help="How a mix uses synthetic clips: as-is (as they come), balanced (half of each batch real), real-last "
            "(the last third of the steps on real clips alone) or balanced-real-last."
        ),
    ] = "as-is",
    device: DeviceOption = "auto",
    workers: Annotated[
        int | None,
        Option(
            help="Train this many runs at the same time. \\[default: as many as cores and memory allow, on a GPU eight at most]"
        ),
    ] = None,
    part: PartOption = None,
    engine: EngineOption = "local",
    no_baseline: Annotated[
        bool, Option("--no-baseline", help="Do not also train on the real clips of each mix alone.")
    ] = False,
    skip_bad: SkipBadOption = False,
    columns: ColumnsOption = None,
) -> None:
    """Train a classifier on mixes of real and synthetic clips, and save runs under OUT. Finished runs are kept.

    The real clips of each mix are also trained alone. The number of seeds is what `usk eval` needs for a verdict.
    """
    display, reading = display_for(ctx), ReadOptions.parse(columns, skip_bad)
    from usk.classify.config import TrainConfig, use_named
    from usk.data.mix import parse_mix
    from usk.engine.part import Part
    from usk.engine.select import require_engine
    from usk.errors import UsageError
    from usk.text import abbreviate_list, pluralize

    config = TrainConfig(
        classifier=classifier,
        protocol=protocol,
        test_folds=split_numbers(test_folds, "test_folds"),
        seeds=seeds,
        train_clips=train_clips,
        epochs=epochs,
        batch=batch,
        learning_rate=learning_rate,
        augment=augment,
        use=use_named(use),
        device=device,
        workers=workers,
        skip_bad=reading.skip_bad,
        baseline=not no_baseline,
    )
    config.check()
    job_part = Part.parse(part)
    require_engine(engine, job_part)
    names = {name for text in mix or () for name in parse_mix(text).parts}
    if synth is not None and "synth" not in names:
        hint = "Add a mix that names it, such as real,synth, or leave it out."
        raise UsageError("no mix names synth", field="synth", value=synth, hint=hint)
    source = reading.open(real)
    from usk.classify.train import train

    job: dict[str, Any] = {"synth": synth or "synth", "out": out, "part": job_part, "engine": engine}
    result = train(source, mix or ["real"], config=config, reporter=display, **job)
    if failed := [run.folder.name for run in result.runs if run.learned_nothing]:
        display.warn(
            f"{pluralize(len(failed), 'run')} of {len(result.runs)} learned nothing and took all test clips for one class "
            f"({abbreviate_list(failed)}): more --epochs or a lower --learning-rate may help"
        )
    n_trained_before = result.fresh.count(False)
    display.result(
        {
            "runs": [{**run.as_dict(), "folder": str(run.folder)} for run in result.runs],
            "notes": list(result.notes),
            **({"missing": result.missing} if result.missing else {}),
        },
        _runs_table(result.runs),
        *([f"trained before: {n_trained_before} of {len(result.runs)}"] if n_trained_before else []),
        result.missing or "Next: usk eval" + (f" {shell_quoted(out)}" if out != "runs" else ""),
    )


def _runs_table(runs: Sequence[RunRecord]) -> tables.Table:
    """Return a table with one row for each finished run."""
    with_train_clips = any(run.train_clips for run in runs)
    with_augment = len({run.augment for run in runs}) > 1
    names = ["mix", *["augment"] * with_augment, "classifier", "test part"]
    numbers = ["seed", "real", "synth", "dropped", "best epoch", "accuracy %", "s"]
    table = tables.Table("runs", tables.columns(*names, numbers=["train clips"] * with_train_clips + numbers))
    for run in runs:
        table.add(
            run.mix,
            *[run.augment] * with_augment,
            run.classifier,
            run.split,
            *[run.train_clips or "all"] * with_train_clips,
            run.seed,
            run.n_real,
            run.n_synthetic,
            run.dropped,
            f"{run.best_epoch}/{run.epochs}",
            f"{100 * run.accuracy:.1f}",
            f"{run.took_s:.0f}",
        )
    return table
