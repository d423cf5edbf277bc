"""`usk synth`: real clips to a synthetic dataset."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from itertools import chain, islice
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any

import typer

from usk.cli.options import (
    ColumnsOption,
    DeviceOption,
    EngineOption,
    ModelOption,
    PartOption,
    PromptOption,
    Reading,
    RealOption,
    SeedOption,
    SkipBadOption,
    display_for,
    split_names,
    split_numbers,
    typed,
)
from usk.errors import UsageError
from usk.synth.strategies import STRATEGIES
from usk.text import pluralize

if TYPE_CHECKING:
    from usk.cli.display import Display
    from usk.data.source import Source
    from usk.data.train_subset import TrainSubset
    from usk.synth.settings import SynthConfig
    from usk.synth.synthesize import SynthResult

FOLLOWS = " \\[default: follows --quality]"
BY_KIND = [", ".join(n for n, row in STRATEGIES.items() if row.is_control == one) for one in (False, True)]


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
            help=f"{'; or a control: '.join(BY_KIND)}{FOLLOWS}",
        ),
    ] = None,
    strength: Annotated[
        float | None,
        typer.Option("--strength", help=f"Noise strength to mix at, above 0 up to 1 (pure noise).{FOLLOWS}"),
    ] = None,
    steps: Annotated[int | None, typer.Option("--steps", help=f"Solver steps each way.{FOLLOWS}")] = None,
    guidance: Annotated[
        float | None,
        typer.Option("--guidance", help=f"How strongly the class is pushed; 1 is not at all.{FOLLOWS}"),
    ] = None,
    phase: Annotated[
        str | None,
        typer.Option(
            "--phase",
            help="Where clips of mel generators get their phase: random, or parents (and texture). \\[default: random]",
        ),
    ] = None,
    prompt: PromptOption = None,
    batch: Annotated[
        int | None, typer.Option("--batch", help="Clips that are rendered together. \\[default: what fits]")
    ] = None,
    classes: Annotated[
        str | None, typer.Option("--classes", help="Only these classes, joined by commas.")
    ] = None,
    train_clips: Annotated[
        str | None,
        typer.Option(
            "--train-clips",
            help="Real clips in all that give parents, the same as with usk train --train-clips: 50,100,full. Makes a dataset for each number, test fold and seed.",
        ),
    ] = None,
    test_folds: Annotated[
        str | None,
        typer.Option(
            "--test-folds",
            help="Folds held out for testing: all others give parents. With --train-clips: a dataset for each (default: all).",
        ),
    ] = None,
    seeds: Annotated[
        int,
        typer.Option(
            "--seeds", help="With --train-clips: how often they are drawn, from --seed on, as by usk train."
        ),
    ] = 1,
    across_folds: Annotated[
        bool, typer.Option("--across-folds", help="Pair parents of different folds too.")
    ] = False,
    share_kept: Annotated[
        float | None,
        typer.Option(
            "--filter",
            metavar="SHARE",
            help="Score the clips with a classifier and keep this share of each class, the best: 0.5.",
        ),
    ] = None,
    filter_model: Annotated[
        str | None,
        typer.Option(
            "--filter-model",
            metavar="hf:MODEL",
            help="Keep clips that fit their class's prompt by a CLAP model, such as hf:laion/clap-htsat-unfused.",
        ),
    ] = None,
    trained_on: Annotated[
        str | None,
        typer.Option(
            "--trained-on",
            metavar="FILE",
            help="Recordings that the model was trained on: Freesound ids, one a line, or a CSV file.",
        ),
    ] = None,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers", min=1, help="Processes that render. \\[default: one, or one for each CUDA device]"
        ),
    ] = None,
    part: PartOption = None,
    engine: EngineOption = "local",
    finish: Annotated[
        bool,
        typer.Option(
            "--finish", help="Finish the dataset in OUT that parts have made; or say which are missing."
        ),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and make nothing.")] = False,
    skip_bad: SkipBadOption = False,
    columns: ColumnsOption = None,
) -> None:
    """Make synthetic clips by interpolating pairs of real ones: a Hugging Face dataset in OUT.

    Run it again after an interruption and it goes on where it stopped.
    """
    display, reading = display_for(ctx), Reading.of(columns, skip_bad)
    from usk.engine.chosen import require_engine
    from usk.engine.part import Part
    from usk.synth.settings import SynthConfig, render_config

    its_part = Part.parse(part)
    require_engine(engine, its_part)
    if finish:
        _finish(display, out, _train_flags(real, out, reading))
        return

    tested = split_numbers(test_folds, "test_folds")
    if seeds != 1 and train_clips is None:
        raise UsageError(
            "has no effect without numbers of training clips", field="seeds", value=seeds, hint="Remove it."
        )
    if classes is not None and not split_names(classes):
        raise UsageError("names no class", field="classes", value=classes, hint="Join names by commas.")
    numbers = None
    if train_clips is not None:
        from usk.data.train_subset import parse_train_clips

        numbers = parse_train_clips(train_clips)
    config = SynthConfig(
        per_class=per_class,
        alpha=alpha,
        seed=seed if numbers is None else 0,  # each dataset of --train-clips draws by its name
        classes=split_names(classes),
        test_folds=tested if numbers is None else (),
        across_folds=across_folds,
        skip_bad=reading.skip_bad,
        render=render_config(
            quality,
            strategy=strategy,
            strength=strength,
            steps=steps,
            guidance=guidance,
            phase=phase,
            prompt=prompt,
            batch=batch,
        ),
        filter=share_kept,
        filter_model=filter_model,
        trained_on=trained_on,
    )
    source = reading.open(real)
    for note in source.notes:
        display.warn(note)
    from usk.synth.subsets import synthesize_subsets, train_subsets
    from usk.synth.synthesize import synthesize

    subsets: list[TrainSubset] | None = None
    if numbers is not None:
        subsets = train_subsets(source, numbers, tested, seeds, first_seed=seed)
    if dry_run:
        _show_plan(display, source, config, subsets, out, model, device)
        return
    given: dict[str, Any] = {"model": model, "device": device, "part": its_part, "workers": workers}
    given |= {"engine": engine, "arguments": _what_decides_clips(sys.argv[1:])}
    if subsets is not None:
        results = synthesize_subsets(source, out, subsets, config, reporter=display, **given)
        _show_subsets(display, source, _train_flags(real, out, reading), out, train_clips, subsets, results)
        return
    result = synthesize(source, out, config, reporter=display, **given)
    _show_result(display, result, _train_flags(real, out, reading))


def _show_plan(
    display: Display,
    source: Source,
    config: SynthConfig,
    subsets: list[TrainSubset] | None,
    out: str,
    model: str,
    device: str,
) -> None:
    """The result of `--dry-run`."""
    from usk.cli.display import pairs_table, plan_table
    from usk.synth.prepare import decode, plan_for, refuse_early
    from usk.synth.subsets import of_subset, refuse_one_dataset

    if subsets is not None:
        refuse_one_dataset(out)
    refuse_early(config, model, device, out if subsets is None else None)
    everything = decode(source, config, reporter=display)
    rows: list[Iterator[dict[str, Any]]] = []
    first: list[dict[str, Any]] = []
    n_clips = 0
    tables: list[Any] = []
    for subset in subsets if subsets is not None else (None,):
        _, plan = plan_for(everything, config if subset is None else of_subset(config, subset))
        for note in plan.notes:
            display.warn(note)
        named = {} if subset is None else {"dataset": subset.name}
        rows.append(map(partial(or_, named), plan.rows()))
        first += islice(plan.rows(), 10 - len(first))
        n_clips += len(plan)
        where = "" if subset is None else f" in {subset.name}"
        tables.append(plan_table(plan.counts(), f"plan: {pluralize(len(plan), 'clip')}{where}"))
    display.result(chain.from_iterable(rows), *tables, pairs_table(first, n_clips))


def _show_result(display: Display, result: SynthResult, train_flags: str) -> None:
    from usk.cli.display import plan_table

    for note in result.notes:
        display.warn(note)
    filtered: list[str] = []
    if result.rejected is not None:
        means = [
            sum(result.filter_scores[clip.clip_id] for clip in part.clips) / max(1, len(part))
            for part in (result.plan, result.rejected)
        ]
        filtered = [
            f"classifier filter: {len(result.plan)} kept (mean score {means[0]:.2f}), {len(result.rejected)} rejected "
            f"({means[1]:.2f})"
        ]
    render = result.manifest.render
    settings = {**render, "precision": result.manifest.precision} if "precision" in render else render
    each_s = result.elapsed_s / result.n_made if result.n_made else 0.0
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
        *filtered,
        f"{result.n_made} made now in {result.elapsed_s:.0f} s ({each_s:.2f} s a clip). "
        + (
            f"{result.missing}: the last part finishes the dataset"
            if result.missing
            else f"Next: usk train --mix real,synth{train_flags}"
        ),
    )


def _finish(display: Display, out: str, train_flags: str) -> None:
    """`--finish`: of one dataset, or of all that `--train-clips` made in a folder."""
    from usk.cli.display import facts_table
    from usk.synth.subsets import datasets_in
    from usk.synth.synthesize import finish

    results = [finish(folder) for folder in datasets_in(out)]
    if len(results) == 1:
        _show_result(display, results[0], train_flags)
        return
    clips = {str(result.folder): len(result.plan) for result in results}
    display.result(clips, facts_table(f"{pluralize(len(results), 'dataset')} in {out}", clips))


NOT_OF_CLIPS = {"--out": 1, "--part": 1, "--workers": 1, "--engine": 1, "--json": 0, "--quiet": 0, "-q": 0}
"""Options that decide no clip, and whether each has a value."""


def _what_decides_clips(arguments: Sequence[str]) -> list[str]:
    """The command line as a dataset's record keeps it: the same whatever folder it lies in, and whoever made it."""
    kept: list[str] = []
    left = iter(arguments)
    for argument in left:
        name, equals, _ = argument.partition("=")
        if name not in NOT_OF_CLIPS:
            kept.append(argument)
        elif NOT_OF_CLIPS[name] and not equals:
            next(left, None)  # its value
    return kept


def _train_flags(real: str | None, out: str, reading: Reading) -> str:
    """What `usk train` needs to find and read the real clips, and the dataset in `out`."""
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
                    "model": result.manifest.model,
                    "notes": list(result.notes),
                    **({"missing": result.missing} if result.missing else {}),
                }
                for subset, result in zip(subsets, results, strict=True)
            ],
        },
        facts_table(
            f"{pluralize(len(subsets), 'dataset')} in {out}",
            {
                subset.name: result.missing or pluralize(len(result.plan), "clip")
                for subset, result in zip(subsets, results, strict=True)
            },
        ),
        f"{made} made now in {elapsed_s:.0f} s. Next: usk train --mix real,synth --train-clips {train_clips}"
        f"{_subset_flags(subsets)}{train_flags}",
    )


def _subset_flags(subsets: Sequence[TrainSubset]) -> str:
    """What `usk train` needs to train where these datasets were made for."""
    folds = sorted({subset.test_fold for subset in subsets})
    seeds = sorted({subset.seed for subset in subsets if subset.train_clips is not None}) or [0]
    first = f" --seed {seeds[0]}" if seeds[0] else ""
    several = f" --seeds {len(seeds)}" if len(seeds) > 1 else ""
    return f" --test-folds {','.join(map(str, folds))}{first}{several}"
