"""`usk synth --train-clips`: a dataset of its own for every number of train_clips, test fold and seed, made from those train_clips alone."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from usk.data.decode import Progress, decode_source
from usk.data.source import Source
from usk.data.train_subset import TrainSubset
from usk.diffusion.generator import Generator
from usk.diffusion.load import load_generator
from usk.errors import UsageError, UskError
from usk.manifest import MANIFEST_FILE
from usk.synth.filter import filter_trainings
from usk.synth.strategies import strategy_named
from usk.synth.synthesize import SAMPLE_RATE_HZ, SynthConfig, SynthResult, plan_for, synthesize
from usk.text import abbreviate_list


def train_subsets(
    source: Source,
    train_clips: Sequence[int | None],
    test_folds: Sequence[int] = (),
    seeds: int = 1,
    first_seed: int = 0,
) -> list[TrainSubset]:
    """The datasets to make, `usk train`'s order: folds (all, if none are named), then seeds, then train_clips.

    Draws are numbered from `first_seed` on. `full` draws nothing, so it comes once a fold. Raises UsageError for train_clips or
    folds that the source has not.
    """
    if seeds < 1:
        raise UsageError(f"--seeds must be at least 1, not {seeds}")
    if first_seed < 0:
        raise UsageError(f"--seed must be 0 or more, not {first_seed}")
    if missing := sorted(set(test_folds) - set(source.folds)):
        raise UsageError(
            f"--test-folds {','.join(map(str, missing))}: {source.location} has no such fold; "
            f"it has {', '.join(map(str, source.folds))}"
        )
    subsets = [
        TrainSubset(n, fold, 0 if n is None else first_seed + draw)
        for fold in test_folds or source.folds
        for draw in range(seeds)
        for n in train_clips
        if n is not None or draw == 0
    ]
    for subset in subsets:
        subset.split(source.clips)  # refused now, not after hours of other clips
    return subsets


def of_subset(config: SynthConfig, subset: TrainSubset) -> SynthConfig:
    """`config` for one dataset. Its clip_filter, if there is one, hears the dataset's train_clips alone."""
    if config.folds:
        raise UsageError(
            "--train-clips takes its clips from the training part of --test-folds; leave --folds out"
        )
    clip_filter = (
        None if config.clip_filter is None else replace(config.clip_filter, test_folds=(subset.test_fold,))
    )
    return replace(config, train_clips=subset, clip_filter=clip_filter)


def refuse_one_dataset(out: str | os.PathLike[str]) -> None:
    """Raise UsageError where `out` is a dataset itself and can hold none."""
    if (Path(out) / MANIFEST_FILE).exists():
        raise UsageError(
            f"--out {out} is one dataset; choose another folder for the datasets of --train-clips"
        )


def synthesize_subsets(
    source: Source,
    out: str | os.PathLike[str],
    subsets: Sequence[TrainSubset],
    config: SynthConfig | None = None,
    *,
    model: str | Generator = "auto",
    device: str = "auto",
    compiled: bool = False,
    progress: Progress | None = None,
    decoding: Progress | None = None,
    filtering: Progress | None = None,
    announce: Callable[[dict[str, Any]], None] = lambda _: None,
    arguments: Sequence[str] = (),
) -> list[SynthResult]:
    """Make one dataset for each of `subsets` (of `train_subsets`) under `out`, where `usk train --synth OUT` finds it.

    Takes what `synthesize` takes; `progress` counts over all of them.
    """
    config = config or SynthConfig()
    refuse_one_dataset(out)
    configs = [of_subset(config, subset) for subset in subsets]
    if isinstance(model, str) and strategy_named(config.render.strategy).mix is not None:
        model = load_generator(model, device, config.render.precision)
        model = model.compiled() if compiled else model
    rate_hz = model.sample_rate_hz if isinstance(model, Generator) else SAMPLE_RATE_HZ
    _refuse_impossible(source, subsets, configs, rate_hz, decoding)
    results: list[SynthResult] = []

    def whole(done: int, of: int) -> None:
        if progress is not None:
            progress(sum(len(made.plan) for made in results) + done, len(subsets) * of)

    for subset, of_it in zip(subsets, configs, strict=True):
        results.append(
            synthesize(
                source,
                Path(out) / subset.name,
                of_it,
                model=model,
                device=device,
                progress=whole,
                decoding=decoding,
                filtering=filtering,
                announce=announce if not results else lambda _: None,
                arguments=arguments,
            )
        )
    return results


def _refuse_impossible(
    source: Source,
    subsets: Sequence[TrainSubset],
    configs: Sequence[SynthConfig],
    rate_hz: int,
    decoding: Progress | None,
) -> None:
    """Raise what is wrong with a dataset before the first is made, not after hours of others."""
    failed: dict[str, UskError] = {}
    for subset, config in zip(subsets, configs, strict=True):
        try:
            decoded, plan = plan_for(source, config, rate_hz, decoding)
            if config.clip_filter is not None:
                known = decode_source(source, rate_hz, skip_bad=config.skip_bad).source.clips
                filter_trainings(
                    decoded.source.clips, known, plan.clips, decoded.source.class_names, config.one_filter
                )
        except UskError as error:
            failed[subset.name] = error
    if not failed:
        return
    (name, first), *others = failed.items()
    if len(subsets) == 1:
        raise first
    more = f" (nor can {abbreviate_list([other for other, _ in others])})" if others else ""
    raise type(first)(f"{name} cannot be made{more}: {first}") from first
