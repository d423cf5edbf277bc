"""`usk synth`: real clips to a synthetic dataset."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from usk.cli.options import (
    DeviceOption,
    JsonOption,
    ModelOption,
    QuietOption,
    Reading,
    RealOption,
    SeedOption,
    display_for,
    reads_clips,
    split_names,
    split_numbers,
)


@reads_clips()
def command(
    ctx: typer.Context,
    per_class: Annotated[int, typer.Option("--per-class", help="Clips to make of each class.")] = 100,
    real: RealOption = None,
    out: Annotated[str, typer.Option("--out", help="Folder of the dataset.")] = "synth",
    model: ModelOption = "auto",
    alpha: Annotated[
        str,
        typer.Option("--alpha", help="Share of the second parent: a number, a range low:high, or beta:0.4."),
    ] = "0.5",
    quality: Annotated[
        str, typer.Option("--quality", help="draft, standard, or published (the published recipe).")
    ] = "standard",
    strategy: Annotated[
        str | None,
        typer.Option(
            "--strategy",
            help="decomposed, slerp, midpoint, corrected, barycentre, variation, sample or waveform.",
        ),
    ] = None,
    parents: Annotated[
        int | None, typer.Option("--parents", help="Parents of a clip, for the strategy barycentre.")
    ] = None,
    level: Annotated[
        float | None, typer.Option("--level", help="Noise level to mix at, above 0 up to 1 (pure noise).")
    ] = None,
    steps: Annotated[int | None, typer.Option("--steps", help="Solver steps each way.")] = None,
    solver: Annotated[str | None, typer.Option("--solver", help="second-order or ddim.")] = None,
    refinements: Annotated[
        int | None,
        typer.Option(
            "--refinements",
            help="Further looks of the inversion: at each step of ddim, at the first of second-order.",
        ),
    ] = None,
    eta: Annotated[
        float | None, typer.Option("--eta", help="Fresh noise on the way down: 0 none, 1 as DDPM.")
    ] = None,
    guidance: Annotated[
        float | None,
        typer.Option("--guidance", help="Towards the class, of class-conditional generators; 1 is none."),
    ] = None,
    precision: Annotated[str | None, typer.Option("--precision", help="auto, bf16 or fp32.")] = None,
    batch: Annotated[
        int | None, typer.Option("--batch", help="Clips that are rendered together. \\[default: what fits]")
    ] = None,
    compiled: Annotated[
        bool, typer.Option("--compile", help="Compile the network first: pays for thousands of clips.")
    ] = False,
    classes: Annotated[
        str | None, typer.Option("--classes", help="Only these classes, joined by commas.")
    ] = None,
    folds: Annotated[
        str | None, typer.Option("--folds", help="Only parents of these folds, joined by commas.")
    ] = None,
    across_folds: Annotated[
        bool, typer.Option("--across-folds", help="Pair parents of different folds too.")
    ] = False,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and make nothing.")] = False,
    reading: Reading = Reading(),
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Make synthetic clips by interpolating pairs of real ones: a Hugging Face dataset in OUT.

    Run it again after an interruption and it goes on where it stopped.
    """
    display = display_for(ctx, as_json, quiet)
    from usk.synth.settings import render_config
    from usk.synth.synthesize import SynthConfig, plan_for, synthesize

    chosen: dict[str, Any] = {
        "strategy": strategy,
        "n_parents": parents,
        "level": level,
        "steps": steps,
        "solver": solver,
        "refinements": refinements,
        "eta": eta,
        "guidance": guidance,
        "precision": precision,
        "batch": batch,
    }
    config = SynthConfig(
        per_class=per_class,
        alpha=alpha,
        seed=seed,
        classes=split_names(classes),
        folds=split_numbers(folds, "--folds"),
        across_folds=across_folds,
        skip_bad=reading.skip_bad,
        render=render_config(quality, **chosen),
    )
    source = reading.open(real)
    for note in source.notes:
        display.warn(note)
    if dry_run:
        from usk.show.console import pairs_table, plan_table

        with display.progress() as bars:
            _, plan = plan_for(source, config, decoding=bars("decoding"))
        for note in plan.notes:
            display.warn(note)
        rows = [{**asdict(clip), "class": plan.class_names[clip.label]} for clip in plan.clips]
        display.result(
            rows, plan_table(plan.counts(), f"plan: {len(plan)} clips"), pairs_table(rows[:10], len(plan))
        )
        return
    from usk.show.console import plan_table, settings_line

    def announce(settings: dict[str, Any]) -> None:
        resolved = {**settings["render"], "precision": settings["precision"], "batch": settings["batch"]}
        resolved = {name: value for name, value in resolved.items() if value is not None}
        display.note(f"model {settings['model']}; {settings_line(resolved)}")

    with display.progress() as bars:
        result = synthesize(
            source,
            out,
            config,
            model=model,
            device=device,
            compiled=compiled,
            progress=bars("rendering clips"),
            decoding=bars("decoding"),
            announce=announce,
        )
    for note in result.notes:
        if note not in source.notes:
            display.warn(note)
    each_s = result.elapsed_s / result.n_made if result.n_made else 0.0
    display.result(
        {
            "folder": str(result.folder),
            "clips": len(result.plan),
            "made": result.n_made,
            "elapsed_s": round(result.elapsed_s, 2),
            "counts": result.plan.counts(),
            "model": result.model,
            "notes": list(result.notes),
            "settings": result.settings["render"],
        },
        plan_table(result.plan.counts(), f"{len(result.plan)} clips in {result.folder}"),
        f"{result.n_made} made now in {result.elapsed_s:.0f} s ({each_s:.2f} s a clip). Next: usk train --mix real --mix real,synth",
    )
