"""Make a dataset for each training subset: for every number of training clips, test fold and seed, from those clips alone."""

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
    """Make one dataset for each of `subsets` in a subfolder of `out`, where `usk train` finds it.

    The arguments are those of `synthesize`. All datasets are prepared before the first is rendered. Raises UskError.
    """
    config, reporter = config or SynthConfig(), reporter or Reporter()
    require_engine(engine, part)
    if (Path(out) / MANIFEST_FILE).exists():
        raise UsageError("is one dataset", field="out", value=out, hint="Choose another folder.")
    for subset in subsets:
        subset.split(source.clips)  # raises before hours of work on other subsets
    model_name = model
    if config.uses_generator:
        model = ready_generator(model, device, config.renders)
    prepared: dict[str, Prepared] = {}
    errors: dict[str, UskError] = {}
    for subset in subsets:
        try:
            own = replace(config, train_clips=subset, test_folds=(subset.test_fold,))
            one = prepare(source, own, model=model, device=device, reporter=reporter)
            prepared[subset.name] = replace(one, request=replace(one.request, model=model_name))
        except UskError as error:
            errors[subset.name] = error
    if errors:
        raise _combined(errors, len(subsets))
    return [
        render(one, Path(out) / name, reporter=reporter, part=part, engine=engine)
        for name, one in prepared.items()
    ]


def _combined(errors: dict[str, UskError], n_subsets: int) -> UskError:
    """Return one error: the first subset's message, and the names of the other subsets that failed."""
    (name, first), *others = errors.items()
    if n_subsets == 1:
        return first
    more = f" (nor can {abbreviate_list([other for other, _ in others])})" if others else ""
    return type(first)(
        f"{name} cannot be made{more}: {first.message}", field=first.field, value=first.value, hint=first.hint
    )
