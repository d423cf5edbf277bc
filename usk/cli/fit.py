"""`usk fit`: train a generator on one's own clips."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from usk.cli.options import (
    DeviceOption,
    Reading,
    display_for,
    reads_clips,
    split_numbers,
    typed,
)


@reads_clips()
def command(
    ctx: typer.Context,
    real: Annotated[
        list[str] | None,
        typer.Option(
            "--real",
            metavar="SRC",
            help="Clips to train on; repeatable. \\[default: $USK_REAL, else the Hub's UrbanSound8K]",
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
    accumulate: Annotated[
        int,
        typer.Option(
            "--accumulate", help="Batches a step: as a batch that many times larger, in the memory of one."
        ),
    ] = 1,
    learning_rate: Annotated[
        float | None,
        typer.Option("--learning-rate", help="By default 4e-4, with --from 1e-4."),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="MODEL",
            help="Train this generator further: embedded, a pipeline folder, or a Hub id (user/name@revision).",
        ),
    ] = None,
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
    checkpointing: Annotated[
        bool,
        typer.Option(
            "--checkpointing", help="Compute activations twice instead of keeping them: less memory, slower."
        ),
    ] = False,
    seed: Annotated[int, typer.Option("--seed")] = 0,
    device: DeviceOption = "auto",
    reading: Reading = Reading(),
) -> None:
    """Train a generator and write its pipeline folder. Run it again after an interruption and it goes on.

    On several GPUs: torchrun --nproc-per-node N -m usk fit ...
    """
    from usk.cli.display import facts_table
    from usk.diffusion.card import write_generator_card
    from usk.diffusion.fit import FitConfig, FitProgress, fit
    from usk.diffusion.train import Stopped
    from usk.diffusion.workers import is_main_process

    display = display_for(ctx, quiet=not is_main_process())

    config = FitConfig(
        steps=steps,
        minutes=minutes,
        batch=batch,
        accumulate=accumulate,
        learning_rate=learning_rate,
        latent=latent,
        class_conditional=class_conditional,
        base=base,
        checkpointing=checkpointing,
        seed=seed,
        device=device,
    )
    locations: list[str | None] = [*real] if real else [None]
    sources = [reading.open(location) for location in locations]
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

        try:
            result = fit(
                sources,
                out,
                config,
                folds=split_numbers(folds, "folds"),
                skip_bad=reading.skip_bad,
                report=report,
                decoding=bars("decoding"),
                warn=display.warn,
            )
        except Stopped as stopped:
            if is_main_process():
                raise
            raise typer.Exit(stopped.exit_code) from None
    if not is_main_process():
        return
    write_generator_card(result.folder)
    kept: dict[str, Any] = next((row for row in reversed(result.log) if row["step"] == result.kept_step), {})

    def all_of(kind: str) -> set[str]:
        """Of every source, and of what a base had heard before: each once."""
        return set().union(*(part.get(kind, ()) for part in result.trained_on["sources"]))

    heard = all_of("groups")
    facts = {
        "folder": str(result.folder),
        "recordings": len(heard),
        "held out": len(all_of("held_out_groups") - heard),
        "license": result.trained_on["license"],
        "preview": str(result.folder / "preview.png"),
        **kept,
    }
    given = (f" --real {typed(real[0])}" if real else "") + reading.given
    display.result(
        facts, facts_table("generator", facts), f"Next: usk synth --model {typed(str(result.folder))}{given}"
    )
