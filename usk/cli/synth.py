"""`usk synth`: real clips to a synthetic dataset."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from usk.cli.options import (
    DeviceOption,
    ModelOption,
    Reading,
    RealOption,
    SeedOption,
    display_for,
    reads_clips,
    split_names,
    split_numbers,
    typed,
)
from usk.errors import UsageError
from usk.text import pluralize

if TYPE_CHECKING:
    from usk.cli.display import Display
    from usk.data.source import Source
    from usk.data.train_subset import TrainSubset
    from usk.synth.synthesize import SynthResult


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
            help="decomposed, slerp, midpoint, corrected, barycentre, variation, sample, waveform or classical.",
        ),
    ] = None,
    parents: Annotated[
        int | None, typer.Option("--parents", help="Parents of a clip, for the strategy barycentre.")
    ] = None,
    strength: Annotated[
        float | None,
        typer.Option("--strength", help="Noise strength to mix at, above 0 up to 1 (pure noise)."),
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
    train_clips: Annotated[
        str | None,
        typer.Option(
            "--train-clips",
            help="Only parents that usk train --train-clips trains on, 50,100,full: OUT gets a dataset for each, test fold and seed.",
        ),
    ] = None,
    test_folds: Annotated[
        str | None,
        typer.Option(
            "--test-folds",
            help="Folds to be tested. With --train-clips: a dataset for each (default: all). With --filter: one clip_filter hears all others.",
        ),
    ] = None,
    seeds: Annotated[
        int,
        typer.Option("--seeds", help="With --train-clips: draws of them, from --seed on, as for usk train."),
    ] = 1,
    across_folds: Annotated[
        bool, typer.Option("--across-folds", help="Pair parents of different folds too.")
    ] = False,
    clip_filter: Annotated[
        bool,
        typer.Option("--filter", help="Score the clips with classifiers of their folds and keep the best."),
    ] = False,
    keep: Annotated[
        float | None,
        typer.Option(
            "--keep", help="With --filter: the share of the clips made that is kept. \\[default: 0.5]"
        ),
    ] = None,
    judge_threshold: Annotated[
        float | None,
        typer.Option("--filter-threshold", help="With --filter: keep only clips with this score or more."),
    ] = None,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and make nothing.")] = False,
    reading: Reading = Reading(),
) -> None:
    """Make synthetic clips by interpolating pairs of real ones: a Hugging Face dataset in OUT.

    Run it again after an interruption and it goes on where it stopped.
    """
    display = display_for(ctx)
    from usk.data.train_subset import parse_train_clips
    from usk.synth.filter import FilterConfig
    from usk.synth.settings import render_config
    from usk.synth.strategies import strategy_named
    from usk.synth.subsets import of_subset, refuse_one_dataset, synthesize_subsets, train_subsets
    from usk.synth.synthesize import SynthConfig, plan_for, synthesize

    chosen: dict[str, Any] = {
        "strategy": strategy,
        "n_parents": parents,
        "strength": strength,
        "steps": steps,
        "solver": solver,
        "refinements": refinements,
        "eta": eta,
        "guidance": guidance,
        "precision": precision,
        "batch": batch,
    }
    for flag, value in (("--keep", keep), ("--filter-threshold", judge_threshold)):
        if value is not None and not clip_filter:
            raise UsageError(f"{flag} {value} belongs to --filter; add --filter, or leave it out")
    tested = split_numbers(test_folds, "test_folds")
    if tested and not clip_filter and train_clips is None:
        raise UsageError(
            f"--test-folds {test_folds} belongs to --train-clips or --filter; add one, or leave it out"
        )
    if seeds != 1 and train_clips is None:
        raise UsageError("--seeds belongs to --train-clips; add --train-clips, or leave it out")
    if classes is not None and not split_names(classes):
        raise UsageError(
            f"--classes {classes!r} names no class; write them joined by commas, or leave it out"
        )
    config = SynthConfig(
        per_class=per_class,
        alpha=alpha,
        seed=seed if train_clips is None else 0,  # each dataset of --train-clips draws by its name
        classes=split_names(classes),
        folds=split_numbers(folds, "folds"),
        across_folds=across_folds,
        skip_bad=reading.skip_bad,
        render=render_config(quality, **chosen),
        clip_filter=FilterConfig(keep, judge_threshold, tested if train_clips is None else ())
        if clip_filter
        else None,
    )
    if compiled and strategy_named(config.render.strategy).mix is None:
        raise UsageError(
            f"--compile: --strategy {config.render.strategy} has no generator that it could tell; leave it out"
        )
    source = reading.open(real)
    for note in source.notes:
        display.warn(note)
    subsets: list[TrainSubset] | None = None
    if train_clips is not None:
        subsets = train_subsets(source, parse_train_clips(train_clips), tested, seeds, first_seed=seed)
    if dry_run:
        from usk.cli.display import pairs_table, plan_table
        from usk.synth.synthesize import refuse_early

        if subsets is not None:
            refuse_one_dataset(out)
        refuse_early(config, model, device, out if subsets is None else None)

        rows: list[dict[str, Any]] = []
        tables: list[Any] = []
        with display.progress() as bars:
            for subset in subsets if subsets is not None else (None,):
                _, plan = plan_for(
                    source, config if subset is None else of_subset(config, subset), decoding=bars("decoding")
                )
                for note in plan.notes:
                    display.warn(note)
                named = {} if subset is None else {"dataset": subset.name}
                rows += [
                    {**asdict(clip), "class": plan.class_names[clip.label], **named} for clip in plan.clips
                ]
                title = f"plan: {pluralize(len(plan), 'clip')}" + (
                    f" in {subset.name}" if subset is not None else ""
                )
                tables.append(plan_table(plan.counts(), title))
        display.result(rows, *tables, pairs_table(rows[:10], len(rows)))
        return
    from usk.cli.display import plan_table, settings_line

    def announce(settings: dict[str, Any]) -> None:
        resolved = {**_resolved(settings), "batch": settings["batch"]}
        resolved = {name: value for name, value in resolved.items() if value is not None}
        display.note(f"model {settings['model']}; {settings_line(resolved)}")

    with display.progress() as bars:
        options: dict[str, Any] = {
            "model": model,
            "device": device,
            "compiled": compiled,
            "progress": bars("rendering clips"),
            "decoding": bars("decoding"),
            "filtering": bars("fitting clip_filters"),
            "announce": announce,
            "arguments": _without_out(sys.argv[1:]),
        }
        if subsets is not None:
            results = synthesize_subsets(source, out, subsets, config, **options)
        else:
            result = synthesize(source, out, config, **options)
    if subsets is not None:
        _show_subsets(display, source, _train_flags(real, out, reading), out, train_clips, subsets, results)
        return
    for note in result.notes:
        if note not in source.notes:
            display.warn(note)
    judged: list[str] = []
    if result.rejected is not None:
        means = [
            sum(result.filter_scores[clip.clip_id] for clip in part.clips) / max(1, len(part))
            for part in (result.plan, result.rejected)
        ]
        judged = [
            f"clip_filter: {len(result.plan)} kept (mean score {means[0]:.2f}), {len(result.rejected)} rejected ({means[1]:.2f})"
        ]
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
            "settings": _resolved(result.settings),
            **({"rejected": len(result.rejected)} if result.rejected is not None else {}),
        },
        plan_table(result.plan.counts(), f"{pluralize(len(result.plan), 'clip')} in {result.folder}"),
        *judged,
        f"{result.n_made} made now in {result.elapsed_s:.0f} s ({each_s:.2f} s a clip). Next: usk train --mix real --mix real,synth"
        + _train_flags(real, out, reading),
    )


def _without_out(arguments: Sequence[str]) -> list[str]:
    """The command line as a dataset's record keeps it: whatever folder it lies in, its clips are the same."""
    at = arguments.index("--out") if "--out" in arguments else None
    kept = arguments if at is None else [*arguments[:at], *arguments[at + 2 :]]
    return [argument for argument in kept if not argument.startswith("--out=")]


def _resolved(settings: dict[str, Any]) -> dict[str, Any]:
    """What clips were rendered with, `auto` replaced by what it came to."""
    render: dict[str, Any] = settings["render"]
    return {**render, "precision": settings["precision"]} if "precision" in render else render


def _train_flags(real: str | None, out: str, reading: Reading) -> str:
    """What `usk train` must be told to find and read the real clips, and the dataset in `out`."""
    given = {"--real": real, "--synth": out if out != "synth" else None}
    places = (f" {flag} {typed(place)}" for flag, place in given.items() if place is not None)
    return "".join(places) + reading.given


def _show_subsets(
    display: Display,
    source: Source,
    train_flags: str,
    out: str,
    train_clips: str | None,
    subsets: list[TrainSubset],
    results: list[SynthResult],
) -> None:
    """The result of `--train-clips`: a line a dataset."""
    from usk.cli.display import facts_table

    for note in dict.fromkeys(note for result in results for note in result.notes):
        if note not in source.notes:
            display.warn(note)
    made, elapsed_s = sum(result.n_made for result in results), sum(result.elapsed_s for result in results)
    display.result(
        {
            "folder": out,
            "made": made,
            "elapsed_s": round(elapsed_s, 2),
            "datasets": [
                {
                    "folder": str(result.folder),
                    **asdict(subset),
                    "clips": len(result.plan),
                    "made": result.n_made,
                    "parents": len({parent for clip in result.plan.clips for parent in clip.parents}),
                    "model": result.model,
                    "notes": list(result.notes),
                }
                for subset, result in zip(subsets, results, strict=True)
            ],
        },
        facts_table(
            f"{pluralize(len(subsets), 'dataset')} in {out}",
            {
                subset.name: pluralize(len(result.plan), "clip")
                for subset, result in zip(subsets, results, strict=True)
            },
        ),
        f"{made} made now in {elapsed_s:.0f} s. Next: usk train --mix real,synth --train-clips {train_clips}"
        f"{_subset_flags(subsets)}{train_flags}",
    )


def _subset_flags(subsets: Sequence[TrainSubset]) -> str:
    """What `usk train` must be told to train where these datasets were made for."""
    folds = sorted({subset.test_fold for subset in subsets})
    seeds = sorted({subset.seed for subset in subsets if subset.train_clips is not None}) or [0]
    first = f" --seed {seeds[0]}" if seeds[0] else ""
    several = f" --seeds {len(seeds)}" if len(seeds) > 1 else ""
    return f" --test-folds {','.join(map(str, folds))}{first}{several}"
