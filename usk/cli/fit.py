"""`usk fit`: train a generator."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer import Option

from usk.cli.options import (
    ColumnsOption,
    DeviceOption,
    PromptOption,
    ReadOptions,
    SkipBadOption,
    display_for,
    shell_quoted,
    split_numbers,
)


def command(
    ctx: typer.Context,
    real: Annotated[
        list[str] | None,
        Option(
            metavar="SRC",
            help="Clips to train on; repeatable. \\[default: $USK_REAL, else the Hub's UrbanSound8K]",
        ),
    ] = None,
    out: Annotated[str, Option(help="Folder of the generator.")] = "generator",
    test_folds: Annotated[
        str | None, Option(help="Folds held out for testing, joined by commas; all others train.")
    ] = None,
    steps: Annotated[int, Option(rich_help_panel="Training", help="Training steps.")] = 4_000,
    minutes: Annotated[float | None, Option(help="Stop after this long instead of after --steps.")] = None,
    batch: Annotated[int, Option(help="Images in a training batch.")] = 16,
    learning_rate: Annotated[
        float | None, Option(help="Peak learning rate. \\[default: 4e-4, with --from 1e-4]")
    ] = None,
    base: Annotated[
        str | None,
        Option(
            "--from",
            metavar="MODEL",
            help="Train this generator further: embedded, a pipeline folder, or a Hub id (user/name@revision).",
        ),
    ] = None,
    lora: Annotated[
        bool,
        Option(
            "--lora",
            help="Train LoRA weights of a text-to-audio model: a few MB beside a reference to --from.",
        ),
    ] = False,
    prompt: PromptOption = None,
    class_conditional: Annotated[
        bool,
        Option(
            "--class-conditional",
            help="Condition the UNet on each clip's class: needed for `usk synth --strategy sample`.",
        ),
    ] = False,
    device: DeviceOption = "auto",
    skip_bad: SkipBadOption = False,
    columns: ColumnsOption = None,
) -> None:
    """Train a generator and write its pipeline folder. Run it again after an interruption and it goes on."""
    display, reading = display_for(ctx), ReadOptions.parse(columns, skip_bad)
    from usk.diffusion.fit_config import FitConfig

    config = FitConfig(
        steps=steps,
        minutes=minutes,
        batch=batch,
        learning_rate=learning_rate,
        class_conditional=class_conditional,
        base=base,
        lora=lora,
        prompt=prompt,
        device=device,
    ).resolved()
    held_out = split_numbers(test_folds, "test_folds")
    locations: list[str | None] = [*real] if real else [None]
    sources = [reading.open(location) for location in locations]

    from usk.diffusion.card import write_generator_card
    from usk.diffusion.fit import fit

    for source in sources:
        for note in source.notes:
            display.warn(note)
    result = fit(sources, out, config, test_folds=held_out, skip_bad=reading.skip_bad, reporter=display)
    write_generator_card(result.folder)
    options = reading.as_text(real=real[0] if real else None, test_folds=test_folds)
    _show(display, result, len(sources), options)


def _show(display: Any, result: Any, n_sources: int, options: str) -> None:
    """Show the result of training on `n_sources`, and the next command with `options`."""
    from usk.cli.display import facts_table

    def recordings(kind: str) -> set[str]:
        """Return the recordings of the sources. Those of the base generator come before them."""
        return set().union(*(part.get(kind, ()) for part in result.trained_on["sources"][-n_sources:]))

    trained = recordings("groups")
    preview = result.folder / "preview.png"
    best: dict[str, Any] = next((row for row in reversed(result.log) if row["step"] == result.kept_step), {})
    facts = {
        "folder": str(result.folder),
        "recordings": len(trained),
        "held out": len(recordings("held_out_groups") - trained),
        "license": result.trained_on["license"],
        **({"preview": str(preview)} if preview.is_file() else {}),
        **best,
    }
    next_step = f"Next: usk synth --model {shell_quoted(str(result.folder))}{options}"
    names = {"held out": "validation recordings", "step": "step of the weights", "elapsed_s": "seconds"}
    shown = {
        names.get(name, name.replace("_", " ")): value for name, value in facts.items() if value is not None
    }
    display.result(facts, facts_table("generator", shown), next_step)
