"""`usk synth` with a number of training clips: a dataset of its own for every number of training clips, test fold and seed, of those clips alone."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from usk.data.source import Source
from usk.data.train_subset import TrainSubset
from usk.diffusion.generator import Generator
from usk.engine.engine import LOCAL
from usk.engine.part import Part
from usk.engine.select import require_engine
from usk.errors import UsageError, UskError
from usk.manifest import MANIFEST_FILE
from usk.reporter import Reporter
from usk.synth.chosen_generator import ready_generator
from usk.synth.prepare import Prepared, prepare
from usk.synth.settings import SynthConfig
from usk.synth.synthesize import SynthResult, render
from usk.text import abbreviate_list


def synthesize_subsets(
    source: Source,
    out: str | os.PathLike[str],
    subsets: Sequence[TrainSubset],
    config: SynthConfig | None = None,
    *,
    model: str | Generator = "auto",
    device: str = "auto",
    reporter: Reporter | None = None,
    part: Part = Part(),
    engine: str = LOCAL,
) -> list[SynthResult]:
    """Make one dataset for each of `subsets` under `out`, where `usk train` finds it.

    Takes what `synthesize` takes. All are prepared before the first is rendered.
    """
    config, reporter = config or SynthConfig(), reporter or Reporter()
    require_engine(engine, part)
    if (Path(out) / MANIFEST_FILE).exists():
        raise UsageError("is one dataset", field="out", value=out, hint="Choose another folder.")
    for subset in subsets:
        subset.split(source.clips)  # refused now, not after hours of other clips
    named = model
    if config.render.row.mix is not None:
        model = ready_generator(model, device, config.render)
    prepared: dict[str, Prepared] = {}
    failed: dict[str, UskError] = {}
    for subset in subsets:
        try:
            own = replace(config, train_clips=subset, test_folds=(subset.test_fold,))
            one = prepare(source, own, model=model, device=device, reporter=reporter)
            prepared[subset.name] = replace(one, given=replace(one.given, model=named))
        except UskError as error:
            failed[subset.name] = error
    if failed:
        raise _together(failed, len(subsets))
    return [
        render(one, Path(out) / name, reporter=reporter, part=part, engine=engine)
        for name, one in prepared.items()
    ]


def _together(failed: dict[str, UskError], n_subsets: int) -> UskError:
    """What is wrong with the first dataset that cannot be made, and the names of the others."""
    (name, first), *others = failed.items()
    if n_subsets == 1:
        return first
    more = f" (nor can {abbreviate_list([other for other, _ in others])})" if others else ""
    return type(first)(
        f"{name} cannot be made{more}: {first.message}", field=first.field, value=first.value, hint=first.hint
    )
