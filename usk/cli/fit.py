"""`usk fit`: train a generator on one's own clips."""

from __future__ import annotations

from typing import Annotated

import typer

from usk.cli.options import (
    DeviceOption,
    JsonOption,
    QuietOption,
    SkipBadOption,
    display_for,
    real_location,
    split_numbers,
)


def command(
    ctx: typer.Context,
    real: Annotated[
        list[str] | None,
        typer.Option(
            "--real",
            metavar="SRC",
            help="Clips to train on; repeatable. [default: $USK_REAL, else the Hub's UrbanSound8K]",
        ),
    ] = None,
    out: Annotated[str, typer.Option("--out", help="Folder of the generator.")] = "generator",
    folds: Annotated[
        str | None,
        typer.Option("--folds", help="Only these folds, joined by commas; keep your test fold out."),
    ] = None,
    steps: Annotated[int, typer.Option("--steps", help="Training steps.")] = 4_000,
    minutes: Annotated[
        float | None, typer.Option("--minutes", help="Stop after this long instead of after --steps.")
    ] = None,
    batch: Annotated[int, typer.Option("--batch", help="Images in a training batch.")] = 16,
    learning_rate: Annotated[float, typer.Option("--learning-rate")] = 4e-4,
    latent: Annotated[
        bool, typer.Option("--latent", help="Train a small VAE first and the UNet on its latents.")
    ] = False,
    class_conditional: Annotated[
        bool,
        typer.Option(
            "--class-conditional",
            help="Tell the UNet each clip's class: needed for `usk synth --strategy sample`.",
        ),
    ] = False,
    seed: Annotated[int, typer.Option("--seed")] = 0,
    device: DeviceOption = "auto",
    skip_bad: SkipBadOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Train a generator and write its pipeline folder. Run it again after an interruption and it goes on."""
    display = display_for(ctx, as_json, quiet)
    from usk.data.sources import open_source
    from usk.diffusion.fit import FitConfig, FitProgress, fit
    from usk.share.cards import write_generator_card
    from usk.show.console import facts_table

    config = FitConfig(
        steps=steps,
        minutes=minutes,
        batch=batch,
        learning_rate=learning_rate,
        latent=latent,
        class_conditional=class_conditional,
        seed=seed,
        device=device,
    )
    sources = [open_source(location, skip_bad=skip_bad) for location in real or [real_location(None)]]
    for source in sources:
        for note in source.notes:
            display.warn(note)
    with display.progress() as bars:
        training = bars("training")

        def report(state: FitProgress) -> None:
            text = f"{state.stage} step {state.step} · loss {state.loss:.4f}"
            if state.validation_loss is not None:
                text += f" · validation {state.validation_loss:.4f}"
            training(round(1_000 * state.done), 1_000, text)

        result = fit(
            sources,
            out,
            config,
            folds=split_numbers(folds, "--folds"),
            skip_bad=skip_bad,
            report=report,
            decoding=bars("decoding"),
        )
    write_generator_card(result.folder)
    last = result.log[-1] if result.log else {}
    facts = {
        "folder": str(result.folder),
        "recordings": sum(len(part["groups"]) for part in result.trained_on["sources"]),
        "held out": sum(len(part["held_out_groups"]) for part in result.trained_on["sources"]),
        "licence": result.trained_on["license"],
        "preview": str(result.folder / "preview.png"),
        **last,
    }
    display.result(facts, facts_table("generator", facts), f"Next: usk synth --model {result.folder}")
