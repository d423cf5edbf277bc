"""`usk synth`: make a synthetic dataset from real clips."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Option

from usk.cli.options import (
    ColumnsOption,
    DeviceOption,
    EngineOption,
    ModelOption,
    PartOption,
    PromptOption,
    ReadOptions,
    RealOption,
    SkipBadOption,
    display_for,
    split_names,
    split_numbers,
)
from usk.errors import UsageError
from usk.synth.strategies import DEFAULT_STRATEGIES, STRATEGIES
from usk.text import pluralize

if TYPE_CHECKING:
    from usk.cli.display import Display
    from usk.data.source import Source
    from usk.synth.settings import SynthConfig
    from usk.synth.synthesize import SynthResult

FOLLOWS = " \\[default: follows --quality]"
BY_KIND = [", ".join(n for n, row in STRATEGIES.items() if row.is_control == one) for one in (False, True)]


def command(
    ctx: typer.Context,
    per_class: Annotated[int, Option(help="Clips to make of each class.")] = 100,
    real: RealOption = None,
    out: Annotated[str, Option(help="Folder of the dataset.")] = "synth",
    model: ModelOption = "auto",
    alpha: Annotated[str, Option(help="Share of the second parent: a number, or a range low:high.")] = "0.5",
    quality: Annotated[
        str, Option(help="draft, standard, or published (the published recipe).")
    ] = "standard",
    strategy: Annotated[
        str | None,
        Option(
            help=f"One, or several joined by commas, which share the clips: {'; or a control: '.join(BY_KIND)}. "
            f"\\[default: {', '.join(DEFAULT_STRATEGIES)} where the generator knows the classes, else {DEFAULT_STRATEGIES[0]}]"
        ),
    ] = None,
    strength: Annotated[
        float | None, Option(help=f"Noise strength to mix at, above 0 up to 1 (pure noise).{FOLLOWS}")
    ] = None,
    steps: Annotated[
        int | None,
        Option(help="Solver steps each way. \\[default: follows --quality, --strategy and --strength]"),
    ] = None,
    guidance: Annotated[
        float | None, Option(help=f"Weight of classifier-free guidance; 1 is without guidance.{FOLLOWS}")
    ] = None,
    phase: Annotated[
        str | None,
        Option(
            help="Where clips of mel generators get their phase: random, or parents (and texture). \\[default: random]"
        ),
    ] = None,
    prompt: PromptOption = None,
    batch: Annotated[
        int | None, Option(help="Clips that are rendered together. \\[default: what fits]")
    ] = None,
    classes: Annotated[str | None, Option(help="Only these classes, joined by commas.")] = None,
    test_folds: Annotated[
        str | None, Option(help="Folds held out for testing: all others give parents.")
    ] = None,
    filter: Annotated[
        str | None,
        Option(
            metavar="SHARE|hf:MODEL",
            help="Keep the best share of each class by a classifier, such as 0.5, or the clips that fit their class's prompt by a "
            "CLAP model, such as hf:laion/clap-htsat-unfused.",
        ),
    ] = None,
    trained_on: Annotated[
        str | None,
        Option(
            metavar="FILE",
            help="Recordings that the model was trained on: Freesound ids, one a line, or a CSV file.",
        ),
    ] = None,
    seed: Annotated[int, Option(help="Random seed of the plan.")] = 0,
    device: DeviceOption = "auto",
    workers: Annotated[
        int | None, Option(min=1, help="Processes that render. \\[default: one, or one for each CUDA device]")
    ] = None,
    part: PartOption = None,
    engine: EngineOption = "local",
    dry_run: Annotated[bool, Option("--dry-run", help="Show the plan and make nothing.")] = False,
    skip_bad: SkipBadOption = False,
    columns: ColumnsOption = None,
) -> None:
    """Make synthetic clips from real ones: a Hugging Face dataset in OUT.

    Run it again after an interruption and it goes on where it stopped.
    """
    display, reading = display_for(ctx), ReadOptions.parse(columns, skip_bad)
    from usk.engine.part import Part
    from usk.engine.select import require_engine
    from usk.synth.settings import SynthConfig, render_configs

    job_part = Part.parse(part)
    require_engine(engine, job_part)
    if classes is not None and not split_names(classes):
        raise UsageError("names no class", field="classes", value=classes, hint="Join names by commas.")
    config = SynthConfig(
        per_class=per_class,
        alpha=alpha,
        seed=seed,
        classes=split_names(classes),
        test_folds=split_numbers(test_folds, "test_folds"),
        skip_bad=reading.skip_bad,
        render=render_configs(
            quality,
            strategy=strategy,
            strength=strength,
            steps=steps,
            guidance=guidance,
            phase=phase,
            prompt=prompt,
            batch=batch,
        ),
        filter=_share_or_model(filter),
        trained_on=trained_on,
    )
    source = reading.open(real)
    for note in source.notes:
        display.warn(note)
    from usk.synth.synthesize import synthesize

    if dry_run:
        _show_plan(display, source, config, out, model, device)
        return
    job: dict[str, Any] = {"model": model, "device": device, "part": job_part, "workers": workers}
    job |= {"engine": engine, "arguments": _clip_arguments(sys.argv[1:])}
    result = synthesize(source, out, config, reporter=display, **job)
    options = reading.as_text(real=real, synth=out if out != "synth" else None, test_folds=test_folds)
    _show_result(display, result, options)


def _share_or_model(filter: str | None) -> float | str | None:
    try:
        return float(filter) if filter is not None else None
    except ValueError:
        return filter


def _show_plan(
    display: Display, source: Source, config: SynthConfig, out: str, model: str, device: str
) -> None:
    """Show the plan, for `--dry-run`."""
    from usk.cli.display import pairs_table, plan_table
    from usk.synth.prepare import dry_run

    plan, notes = dry_run(source, config, model, device, out, display)
    for note in notes:
        display.warn(note)
    counts = plan_table(plan.counts(), f"plan: {pluralize(len(plan), 'clip')}")
    display.result(plan.rows(), counts, pairs_table(list(islice(plan.rows(), 10)), len(plan)))


def _show_result(display: Display, result: SynthResult, train_options: str) -> None:
    """Show the dataset, and the next command with `train_options`."""
    from usk.cli.display import plan_table

    filter_lines: list[str] = []
    if result.rejected is not None:
        kept_score, rejected_score = (
            sum(result.filter_scores[clip.clip_id] for clip in part.clips) / max(1, len(part))
            for part in (result.plan, result.rejected)
        )
        filter_lines = [
            f"classifier filter: {len(result.plan)} kept (mean score {kept_score:.2f}), "
            f"{len(result.rejected)} rejected ({rejected_score:.2f})"
        ]
    settings = {
        strategy: {**render, "precision": result.manifest.precision} if "precision" in render else render
        for strategy, render in result.manifest.render.items()
    }
    made = "all were there"
    if result.n_made:
        each_s = result.elapsed_s / result.n_made
        made = f"{result.n_made} made now in {result.elapsed_s:.0f} s ({each_s:.2f} s a clip)"
    next_step = f"Next: usk train --mix real,synth{train_options}"
    if result.missing:
        next_step = f"{result.missing}: the last part finishes the dataset"
    display.result(
        {
            "folder": str(result.folder),
            "clips": len(result.plan),
            "made": result.n_made,
            "elapsed_s": round(result.elapsed_s, 2),
            "counts": result.plan.counts(),
            "model": result.manifest.model,
            "notes": list(result.notes),
            "settings": settings,
            **({"rejected": len(result.rejected)} if result.rejected is not None else {}),
            **({"missing": result.missing} if result.missing else {}),
        },
        plan_table(
            result.plan.counts(),
            f"{pluralize(len(result.plan), 'clip')} {'planned ' if result.missing else ''}in {result.folder}",
        ),
        *filter_lines,
        made,
        next_step,
    )


JOB_OPTIONS = {"--out": 1, "--part": 1, "--workers": 1, "--engine": 1, "--json": 0, "--quiet": 0, "-q": 0}
"""Options without an effect on the clips, and their number of values."""


def _clip_arguments(arguments: Sequence[str]) -> list[str]:
    """Return the command line without `JOB_OPTIONS`, as the manifest stores it: the same for all parts and folders."""
    kept: list[str] = []
    remaining = iter(arguments)
    for argument in remaining:
        name, equals, _ = argument.partition("=")
        if name not in JOB_OPTIONS:
            kept.append(argument)
        elif JOB_OPTIONS[name] and not equals:
            next(remaining, None)  # skip its value
    return kept
