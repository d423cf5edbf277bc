"""`usk synth --shots`: a dataset of its own for every number of shots, test fold and seed, made from those shots alone."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from usk.data.decode import Progress, decode_source
from usk.data.hf_datasets import MANIFEST_FILE
from usk.data.shots import ShotsOf
from usk.data.source import Source
from usk.diffusion.load import Generator, load_generator
from usk.errors import UsageError, UskError, sample_of
from usk.synth.judge import hearings
from usk.synth.strategies import strategy_named
from usk.synth.synthesize import SAMPLE_RATE_HZ, SynthConfig, SynthResult, plan_for, synthesize


def shots_cells(
    source: Source,
    shots: Sequence[int | None],
    test_folds: Sequence[int] = (),
    seeds: int = 1,
    first_seed: int = 0,
) -> list[ShotsOf]:
    """The datasets to make, `usk train`'s order: folds (all, if none are named), then seeds, then shots.

    Draws are numbered from `first_seed` on. `full` draws nothing, so it comes once a fold. Raises UsageError for shots or
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
    cells = [
        ShotsOf(n, fold, 0 if n is None else first_seed + draw)
        for fold in test_folds or source.folds
        for draw in range(seeds)
        for n in shots
        if n is not None or draw == 0
    ]
    for cell in cells:
        cell.split(source.clips)  # refused now, not after hours of other clips
    return cells


def of_cell(config: SynthConfig, cell: ShotsOf) -> SynthConfig:
    """`config` for one dataset. Its judge, if there is one, hears the dataset's shots alone."""
    if config.folds:
        raise UsageError("--shots takes its clips from the training part of --test-folds; leave --folds out")
    judge = None if config.judge is None else replace(config.judge, test_folds=(cell.test_fold,))
    return replace(config, shots=cell, judge=judge)


def refuse_one_dataset(out: str | os.PathLike[str]) -> None:
    """Raise UsageError where `out` is a dataset itself and can hold none."""
    if (Path(out) / MANIFEST_FILE).exists():
        raise UsageError(f"--out {out} is one dataset; choose another folder for the datasets of --shots")


def synthesize_shots(
    source: Source,
    out: str | os.PathLike[str],
    cells: Sequence[ShotsOf],
    config: SynthConfig | None = None,
    *,
    model: str | Generator = "auto",
    device: str = "auto",
    compiled: bool = False,
    progress: Progress | None = None,
    decoding: Progress | None = None,
    judging: Progress | None = None,
    announce: Callable[[dict[str, Any]], None] = lambda _: None,
) -> list[SynthResult]:
    """Make one dataset for each of `cells` (of `shots_cells`) under `out`, where `usk train --synth OUT` finds it.

    Takes what `synthesize` takes; `progress` counts over all of them.
    """
    config = config or SynthConfig()
    refuse_one_dataset(out)
    configs = [of_cell(config, cell) for cell in cells]
    if isinstance(model, str) and strategy_named(config.render.strategy).mix is not None:
        model = load_generator(model, device, config.render.precision)
        model = model.compiled() if compiled else model
    rate_hz = model.mel.sample_rate_hz if isinstance(model, Generator) else SAMPLE_RATE_HZ
    _refuse_impossible(source, cells, configs, rate_hz, decoding)
    results: list[SynthResult] = []

    def whole(done: int, of: int) -> None:
        if progress is not None:
            progress(sum(len(made.plan) for made in results) + done, len(cells) * of)

    for cell, of_it in zip(cells, configs, strict=True):
        results.append(
            synthesize(
                source,
                Path(out) / cell.name,
                of_it,
                model=model,
                device=device,
                progress=whole,
                decoding=decoding,
                judging=judging,
                announce=announce if not results else lambda _: None,
            )
        )
    return results


def _refuse_impossible(
    source: Source,
    cells: Sequence[ShotsOf],
    configs: Sequence[SynthConfig],
    rate_hz: int,
    decoding: Progress | None,
) -> None:
    """Raise what is wrong with a dataset before the first is made, not after hours of others."""
    failed: dict[str, UskError] = {}
    for cell, config in zip(cells, configs, strict=True):
        try:
            decoded, plan = plan_for(source, config, rate_hz, decoding)
            if config.judge is not None:
                known = decode_source(source, rate_hz, skip_bad=config.skip_bad).source.clips
                hearings(
                    decoded.source.clips, known, plan.clips, decoded.source.class_names, config.one_judge
                )
        except UskError as error:
            failed[cell.name] = error
    if not failed:
        return
    (name, first), *others = failed.items()
    if len(cells) == 1:
        raise first
    more = f" (nor can {sample_of([other for other, _ in others])})" if others else ""
    raise type(first)(f"{name} cannot be made{more}: {first}") from first
