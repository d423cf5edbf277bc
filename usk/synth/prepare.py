"""All that is decided of a synthetic dataset before anything is written or rendered: generator, parents, plan, manifest."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from usk.data.clip import NO_MODEL
from usk.data.decode import DecodedSource, decode_source
from usk.data.licenses import strictest_license
from usk.data.pinned import looks_like_hub_id
from usk.data.prompts import DEFAULT_PROMPT, Prompts, read_prompts
from usk.data.recording_list import read_recordings
from usk.data.source import Source
from usk.data.splits import in_several_folds
from usk.device import resolve_device
from usk.diffusion.generator import Generator
from usk.diffusion.pipeline import EMBEDDED, resolve_model
from usk.diffusion.text_pipeline import TextGenerator
from usk.errors import SourceError, UsageError
from usk.files import expanded, require_own_folder
from usk.manifest import MANIFEST_FILE, ClipRequest, Manifest, SourceRecord
from usk.reporter import Reporter
from usk.synth.chosen_generator import (
    notes_on_generator,
    ready_generator,
    refuse_unready,
    unconditioned_classes,
    what_it_was_trained_on,
    with_a_part,
)
from usk.synth.filter import ClipFilter
from usk.synth.plan import Plan, draw_plan
from usk.synth.render import batch_of
from usk.synth.settings import RenderConfig, SynthConfig
from usk.synth.text_filter import TextFilter
from usk.synth.waveform import SAMPLE_RATE_HZ


@dataclass(frozen=True)
class Given:
    """What a dataset is prepared from: a worker process prepares the same again."""

    source: Source
    config: SynthConfig
    model: str | Generator
    device: str


@dataclass(frozen=True)
class Prepared:
    """All that is decided before anything is written or rendered."""

    render: RenderConfig  # with the guidance that the generator gets
    generator: Generator | None
    pool: DecodedSource  # what parents are drawn from
    plan: Plan
    clip_filter: ClipFilter | TextFilter | None
    manifest: Manifest
    notes: tuple[str, ...]
    given: Given


def prepare(
    source: Source,
    config: SynthConfig,
    *,
    model: str | Generator = "auto",
    device: str = "auto",
    reporter: Reporter | None = None,
    arguments: Sequence[str] = (),
) -> Prepared:
    """Load the generator, decode the clips, draw the plan. Raises UskError for whatever cannot be made."""
    generator, settings, given = None, config.render, Given(source, config, model, device)
    own: Mapping[str, tuple[str, ...]] = {}  # prompts of an adapter
    listed = read_recordings(config.trained_on, source.name) if config.trained_on is not None else None
    prompts_of(source, config)  # a file that will not do is refused before weights are loaded
    if settings.row.mix is not None:
        generator = ready_generator(model, device, settings)
        if listed:
            known = [part for part in generator.trained_on if not part.get("note")]
            generator = replace(generator, trained_on=[*known, listed])
        own = generator.prompts if settings.prompt is None else {}
        settings = settings.resolved(generator.takes_classes and generator.inverts, generator.takes_prompts)
        settings = replace(settings, batch=batch_of(settings, generator))
        config = replace(config, render=settings)
    rate_hz = generator.sample_rate_hz if generator is not None else SAMPLE_RATE_HZ
    everything = decode(source, config, rate_hz, reporter)
    pool, plan = plan_for(everything, config, own)
    prompts = prompts_of(source, config, own)
    if prompts and isinstance(generator, TextGenerator):
        generator.refuse_long([prompt for some in prompts.of_class.values() for prompt in some])
    unconditioned = unconditioned_classes(generator, settings, plan)
    weights = with_a_part(generator, settings)
    manifest = Manifest(
        source=SourceRecord(source.name, source.kind, source.revision, source.license, source.hub_id),
        class_names=tuple(source.class_names),
        model=weights.model_id if weights is not None else NO_MODEL,
        trained_on=what_it_was_trained_on(weights),
        mel=generator.mel.as_dict() if generator is not None and generator.mel is not None else None,
        sample_rate_hz=rate_hz,
        render=settings.as_dict(),
        alpha=config.alpha,
        seed=config.seed,
        asked=ClipRequest(config.per_class, config.classes, config.test_folds, config.skip_bad),
        has_groups=source.has_groups,
        license=strictest_license([source.license, *([weights.license] if weights is not None else [])]),
        plan_sha256=plan.sha256,
        shards={},
        prompts=dict(prompts.of_class) if prompts is not None else {},
        precision=weights.precision if weights is not None else None,
        unconditioned=tuple(unconditioned),
        train_clips=config.train_clips,
        recordings_of_several_folds={
            group: tuple(folds) for group, folds in in_several_folds(source.clips).items()
        },
        arguments=tuple(arguments),
    )
    on = generator.device if generator is not None else resolve_device(device)
    clip_filter: ClipFilter | TextFilter | None = None
    if config.filter is not None:
        clip_filter = ClipFilter(pool, everything.source.clips, plan.clips, config, on)
    elif config.filter_model is not None:
        of_class = prompts or read_prompts(DEFAULT_PROMPT, config.classes or source.class_names)
        clip_filter = TextFilter(pool, everything.source.clips, plan.clips, config, of_class, on)
    if clip_filter is not None:
        manifest = replace(manifest, clip_filter=clip_filter.record())
    untrained = [name for name in plan.counts() if own and name not in own]
    notes = (*notes_on_generator(generator, pool, unconditioned, untrained), *pool.source.notes, *plan.notes)
    return Prepared(settings, generator, pool, plan, clip_filter, manifest, notes, given)


def decode(
    source: Source,
    config: SynthConfig,
    sample_rate_hz: int = SAMPLE_RATE_HZ,
    reporter: Reporter | None = None,
) -> DecodedSource:
    """All clips of `source` that can be used. Raises UsageError for a source of synthetic clips."""
    source.require_real("clips made of them could leak")
    return decode_source(source, sample_rate_hz, skip_bad=config.skip_bad, reporter=reporter)


def plan_for(
    everything: DecodedSource, config: SynthConfig, own: Mapping[str, tuple[str, ...]] = {}
) -> tuple[DecodedSource, Plan]:
    """The clips that parents are drawn from, and the plan: what is rendered, and what a dry run shows."""
    source = everything.source
    left = tuple(fold for fold in source.folds if fold not in config.test_folds)
    source.require_folds(config.test_folds)
    if not left:
        raise UsageError(
            f"names every fold of {source.location}, so none is left to give parents",
            field="test_folds",
            value=",".join(map(str, config.test_folds)),
        )
    wanted = {clip.clip_id for clip in source.select(config.classes, left).clips}
    if config.train_clips is not None:
        subset = config.train_clips.split(source.clips).train
        wanted &= {source.clips[row].clip_id for row in subset.tolist()}
    pool = everything.subset([row for row, clip in enumerate(source.clips) if clip.clip_id in wanted])
    try:
        plan = draw_plan(
            pool.source.clips,
            source.class_names,
            config.to_make,
            seed=config.seed,
            name=config.train_clips.name if config.train_clips is not None else "",
            alpha=config.alpha,
            n_parents=config.render.row.n_parents,
            across_folds=config.train_clips is not None,
            known_clips=source.clips,
        )
    except SourceError as error:
        if config.train_clips is None or config.train_clips.train_clips is None:
            raise
        raise SourceError(
            f"too few: {error.message}",
            field="train_clips",
            value=config.train_clips.train_clips,
            hint=error.hint,
        ) from error
    prompts = prompts_of(source, config, own)
    return pool, plan.with_prompts(prompts.draw) if prompts else plan


def prompts_of(
    source: Source, config: SynthConfig, own: Mapping[str, tuple[str, ...]] = {}
) -> Prompts | None:
    """The prompts of the classes asked for, where prompts are asked for; a class has its `own`. Raises UsageError."""
    if config.render.prompt is None:
        return None
    read = read_prompts(config.render.prompt, config.classes or source.class_names)
    return Prompts({name: own.get(name, prompts) for name, prompts in read.of_class.items()})


def refuse_early(
    config: SynthConfig, model: str = "auto", device: str = "auto", out: str | os.PathLike[str] | None = None
) -> None:
    """Raise what `synthesize` would of a device, of a generator that is on this machine, and of a folder that holds something
    else; nothing is downloaded or written."""
    if out is not None:
        require_own_folder(Path(out), MANIFEST_FILE)
    name = resolve_model(model, resolve_device(device).type)
    here = name == EMBEDDED or expanded(name).exists() or not looks_like_hub_id(name)
    if config.render.row.mix is not None and here:
        refuse_unready(name, device, config.render)
