"""Decide everything about a synthetic dataset before anything is rendered or written: generator, parents, plan, manifest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

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
    generator_notes,
    ready_generator,
    supported_renders,
    training_sources,
    unknown_classes,
    used_generator,
)
from usk.synth.filter import ClipFilter
from usk.synth.plan import Plan, draw_plan
from usk.synth.render import batch_of
from usk.synth.settings import RenderConfig, SynthConfig
from usk.synth.text_filter import TextFilter
from usk.synth.waveform import SAMPLE_RATE_HZ

ClassPrompts = Mapping[str, tuple[str, ...]]
NO_PROMPTS: ClassPrompts = MappingProxyType({})


@dataclass(frozen=True)
class Request:
    """The inputs of `prepare`. A worker process prepares the same dataset from them."""

    source: Source
    config: SynthConfig
    model: str | Generator
    device: str


@dataclass(frozen=True)
class Prepared:
    """A dataset that is ready to be rendered."""

    renders: tuple[
        RenderConfig, ...
    ]  # with the guidance, prompt and batch that were resolved for the generator
    generator: Generator | None
    pool: DecodedSource  # the clips that parents are drawn from
    plan: Plan
    clip_filter: ClipFilter | TextFilter | None
    manifest: Manifest
    notes: tuple[str, ...]
    request: Request


def prepare(
    source: Source,
    config: SynthConfig,
    *,
    model: str | Generator = "auto",
    device: str = "auto",
    reporter: Reporter | None = None,
    arguments: Sequence[str] = (),
) -> Prepared:
    """Load the generator, decode the clips and draw the plan. Raises UskError if the dataset cannot be made."""
    request = Request(source, config, model, device)
    prompts_of(source, config)  # raises for an unusable file before weights are loaded
    generator = None
    if config.uses_generator:
        generator = _known_generator(source, config, model, device)
        config = replace(config, render=_renders_for(generator, source, config))
    adapter_prompts = NO_PROMPTS
    if generator is not None and _prompt(request.config) is None:
        adapter_prompts = generator.prompts  # an adapter brings the prompts it was trained on
    decoded = decode(source, config, _sample_rate_hz(generator), reporter)
    pool, plan = plan_for(decoded, config, adapter_prompts)
    prompts = prompts_of(source, config, adapter_prompts)
    if prompts and isinstance(generator, TextGenerator):
        generator.require_short([prompt for of_class in prompts.of_class.values() for prompt in of_class])
    unconditioned = unknown_classes(generator, config.renders, plan)
    clip_filter = _clip_filter(pool, decoded, plan, config, prompts, generator, device)
    manifest = replace(
        _manifest(source, config, generator, plan, prompts),
        unconditioned=tuple(unconditioned),
        arguments=tuple(arguments),
        clip_filter=clip_filter.record() if clip_filter is not None else None,
    )
    untrained = [name for name in plan.counts() if adapter_prompts and name not in adapter_prompts]
    kept = [one.strategy for one in config.renders]
    left_out = [one.strategy for one in request.config.renders if one.strategy not in kept]
    notes = (
        *generator_notes(generator, config.renders, pool, unconditioned, untrained, left_out),
        *pool.source.notes,
        *plan.notes,
    )
    return Prepared(config.renders, generator, pool, plan, clip_filter, manifest, notes, request)


def _known_generator(source: Source, config: SynthConfig, model: str | Generator, device: str) -> Generator:
    """Load the generator. If the user lists what it was trained on, that replaces its own notes on it."""
    listed = read_recordings(config.trained_on, source.name) if config.trained_on is not None else None
    generator = ready_generator(model, device, config.renders)
    if not listed:
        return generator
    recorded = [part for part in generator.trained_on if not part.get("note")]
    return replace(generator, trained_on=[*recorded, listed])


def _renders_for(generator: Generator, source: Source, config: SynthConfig) -> tuple[RenderConfig, ...]:
    """Return the strategies that the generator supports, with its guidance, prompt and batch where the user gave none."""
    takes_classes = generator.takes_classes and generator.inverts
    supported = supported_renders(generator, config.renders, config.classes or source.class_names)
    resolved = [one.resolved(takes_classes, generator.takes_prompts) for one in supported]
    return tuple(replace(one, batch=batch_of(one, generator)) for one in resolved)


def _prompt(config: SynthConfig) -> str | None:
    """Return the prompt, which is the same for all strategies that take one."""
    return next((one.prompt for one in config.renders if one.prompt is not None), None)


def _sample_rate_hz(generator: Generator | None) -> int:
    return generator.sample_rate_hz if generator is not None else SAMPLE_RATE_HZ


def _clip_filter(
    pool: DecodedSource,
    decoded: DecodedSource,
    plan: Plan,
    config: SynthConfig,
    prompts: Prompts | None,
    generator: Generator | None,
    device: str,
) -> ClipFilter | TextFilter | None:
    if config.filter is None:
        return None
    filter_device = generator.device if generator is not None else resolve_device(device)
    if isinstance(config.filter, str):
        wanted = prompts or read_prompts(DEFAULT_PROMPT, config.classes or decoded.source.class_names)
        return TextFilter(pool, decoded.source.clips, plan.clips, config, wanted, filter_device)
    return ClipFilter(pool, decoded.source.clips, plan.clips, config, filter_device)


def _manifest(
    source: Source, config: SynthConfig, generator: Generator | None, plan: Plan, prompts: Prompts | None
) -> Manifest:
    used = used_generator(generator, config.renders)
    return Manifest(
        source=SourceRecord(source.name, source.kind, source.revision, source.license, source.hub_id),
        class_names=tuple(source.class_names),
        model=used.model_id if used is not None else NO_MODEL,
        trained_on=training_sources(used),
        mel=generator.mel.as_dict() if generator is not None and generator.mel is not None else None,
        sample_rate_hz=_sample_rate_hz(generator),
        render={one.strategy: one.as_dict() for one in config.renders},
        alpha=config.alpha,
        seed=config.seed,
        asked=ClipRequest(config.per_class, config.classes, config.test_folds, config.skip_bad),
        has_groups=source.has_groups,
        license=strictest_license([source.license, *([used.license] if used is not None else [])]),
        plan_sha256=plan.sha256,
        shards={},
        prompts=dict(prompts.of_class) if prompts is not None else {},
        precision=used.precision if used is not None else None,
        train_clips=config.train_clips,
        recordings_of_several_folds={
            group: tuple(folds) for group, folds in in_several_folds(source.clips).items()
        },
    )


def decode(
    source: Source,
    config: SynthConfig,
    sample_rate_hz: int = SAMPLE_RATE_HZ,
    reporter: Reporter | None = None,
) -> DecodedSource:
    """Decode all usable clips of a source. Raises UsageError for a source of synthetic clips."""
    source.require_real("clips made of them could leak")
    return decode_source(source, sample_rate_hz, skip_bad=config.skip_bad, reporter=reporter)


def plan_for(
    decoded: DecodedSource, config: SynthConfig, adapter_prompts: ClassPrompts = NO_PROMPTS
) -> tuple[DecodedSource, Plan]:
    """Return the clips that parents are drawn from, and the plan. Raises UsageError and SourceError."""
    source = decoded.source
    source.require_folds(config.test_folds)
    parent_folds = tuple(fold for fold in source.folds if fold not in config.test_folds)
    if not parent_folds:
        raise UsageError(
            f"names every fold of {source.location}, so none is left to give parents",
            field="test_folds",
            value=",".join(map(str, config.test_folds)),
        )
    usable = {clip.clip_id for clip in source.select(config.classes, parent_folds).clips}
    subset = config.train_clips
    if subset is not None:
        usable &= {source.clips[row].clip_id for row in subset.split(source.clips).train.tolist()}
    pool = decoded.subset([row for row, clip in enumerate(source.clips) if clip.clip_id in usable])
    try:
        plan = draw_plan(
            pool.source.clips,
            source.class_names,
            config.to_make,
            seed=config.seed,
            name=subset.name if subset is not None else "",
            alpha=config.alpha,
            strategies=[one.strategy for one in config.renders],
            across_folds=subset is not None,
            known_clips=source.clips,
        )
    except SourceError as error:
        if subset is None or subset.train_clips is None:
            raise
        raise SourceError(
            f"too few: {error.message}", field="train_clips", value=subset.train_clips, hint=error.hint
        ) from error
    prompts = prompts_of(source, config, adapter_prompts)
    return pool, plan.with_prompts(prompts.draw) if prompts else plan


def prompts_of(
    source: Source, config: SynthConfig, adapter_prompts: ClassPrompts = NO_PROMPTS
) -> Prompts | None:
    """Return the prompts of the classes to make, or None without prompts. An adapter's own prompts come first.

    Raises UsageError for a prompt or file that cannot be used.
    """
    if (prompt := _prompt(config)) is None:
        return None
    read = read_prompts(prompt, config.classes or source.class_names)
    return Prompts({name: adapter_prompts.get(name, prompts) for name, prompts in read.of_class.items()})


def dry_run(
    source: Source, config: SynthConfig, model: str, device: str, out: str, reporter: Reporter
) -> tuple[Plan, tuple[str, ...]]:
    """Return the plan and the notes of a dataset. Nothing is downloaded or written.

    Raises what `synthesize` would raise, if the generator is on this machine.
    """
    require_own_folder(Path(out), MANIFEST_FILE)
    name = resolve_model(model, resolve_device(device).type)
    is_local = name == EMBEDDED or expanded(name).exists() or not looks_like_hub_id(name)
    if is_local or not config.uses_generator:
        if isinstance(config.filter, str):  # a model that may be on the Hub
            config = replace(config, filter=None)
        prepared = prepare(source, config, model=name, device=device, reporter=reporter)
        return prepared.plan, prepared.notes
    optional = [one.strategy for one in config.renders if one.optional]
    config = replace(config, render=tuple(one for one in config.renders if not one.optional))
    _, plan = plan_for(decode(source, config, reporter=reporter), config)
    also = f". If it knows all of them, half are of {', '.join(optional)}" if optional else ""
    note = f"{name} is not loaded for this: which classes it knows is said when clips are made{also}"
    return plan, (*plan.notes, note)
