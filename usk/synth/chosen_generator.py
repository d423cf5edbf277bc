"""Load the generator of a dataset, check that it supports the settings, and describe it for the manifest and the user."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from usk.data.decode import DecodedSource
from usk.diffusion.generator import Generator
from usk.diffusion.load import load_generator
from usk.diffusion.pipeline import LEAST_CLASS_EFFECT, GeneratorInfo
from usk.diffusion.text_pipeline import TextGenerator
from usk.errors import ModelError, UsageError, no_effect
from usk.manifest import TrainedOn
from usk.synth.plan import Plan
from usk.synth.settings import RenderConfig
from usk.text import abbreviate_list, pluralize

URBANSOUND8K = "urbansound8k"


def ready_generator(model: str | Generator, device: str, renders: Sequence[RenderConfig]) -> Generator:
    """Load the generator. Raises UsageError if it does not support a strategy that is not optional, and ModelError if it
    cannot be loaded."""
    precision = next(one.precision for one in renders if one.strategy_row.mix is not None)
    if isinstance(model, Generator):
        generator = model if precision == "auto" else replace(model, precision=precision)
    else:
        generator = load_generator(model, device, precision)
    for one in renders:
        if not one.optional and one.strategy_row.mix is not None:
            require_supported(generator, generator.model_id, one)
            generator.scales(one.sampler)  # raises for steps that do not fit the strength
    negative = next((one.negative_prompt for one in renders if one.negative_prompt), "")
    if isinstance(generator, TextGenerator) and negative != generator.negative_prompt:
        generator = replace(generator, negative_prompt=negative, embeddings={}, encoded={})
    return generator


def supported_renders(
    generator: Generator, renders: Sequence[RenderConfig], class_names: Collection[str]
) -> tuple[RenderConfig, ...]:
    """Return the settings without those of optional strategies, if the generator does not know the classes well."""
    effect = generator.class_effect
    tells_apart = effect is None or effect >= LEAST_CLASS_EFFECT
    knows_all = tells_apart and set(class_names) <= set(generator.class_names)
    kept = [one for one in renders if not one.optional or (knows_all and one.condition_on_class)]
    return tuple(replace(one, optional=False) for one in kept)


def require_supported(generator: GeneratorInfo, name: str, settings: RenderConfig) -> None:
    """Raise UsageError for settings that the generator does not support."""
    conditioned = generator.takes_classes and settings.condition_on_class
    if settings.strategy == "sample" and not conditioned:
        raise UsageError(
            f"needs a generator of classes or prompts, which {name} is not",
            field="strategy",
            value="sample",
            hint="Train one that knows classes with `usk fit`, or choose another strategy.",
        )
    if settings.guidance not in (None, 1.0) and not conditioned:
        raise no_effect("guidance", settings.guidance, f"{name} is not conditioned on the class here")
    for field in ("prompt", "negative_prompt"):
        if getattr(settings, field) and not generator.takes_prompts:
            raise UsageError(
                f"has no effect: {name} takes no prompts",
                field=field,
                value=getattr(settings, field),
                hint="Remove it, or name a text-to-audio model.",
            )
    strategy = settings.strategy_row
    if strategy.inverts and strategy.samples and not generator.inverts:
        raise UsageError(
            f"inverts the parents, which {name} cannot: it is distilled",
            field="strategy",
            value=settings.strategy,
            hint="Choose the strategy variation or sample, or name the model that it was distilled from.",
        )


def used_generator(generator: Generator | None, renders: Sequence[RenderConfig]) -> Generator | None:
    """Return the generator if the clips depend on its weights. Return None if they depend on its mel settings alone."""
    rows = [one.strategy_row for one in renders]
    if generator is not None and any(row.mix and (row.samples or generator.trained_codec) for row in rows):
        return generator
    return None


def unknown_classes(generator: Generator | None, renders: Sequence[RenderConfig], plan: Plan) -> list[str]:
    """Return the classes of the plan that a class-conditional generator does not know.

    Raises UsageError for unknown classes if a strategy draws clips from the class alone.
    """
    conditioned = [one.strategy for one in renders if one.strategy_row.samples and one.condition_on_class]
    if generator is None or not generator.class_names or not conditioned:
        return []
    unknown = [name for name in plan.counts() if name not in generator.class_names]
    if unknown and "sample" in conditioned:
        raise UsageError(
            f"{generator.model_id} does not know {abbreviate_list(unknown)}; it knows {', '.join(generator.class_names)}",
            field="strategy",
            value="sample",
            hint="Choose among these classes, or train a generator on yours with `usk fit`.",
        )
    return unknown


def training_sources(generator: Generator | None) -> tuple[TrainedOn, ...]:
    """Return what the generator was trained on, for the manifest. Raises ModelError."""
    try:
        return TrainedOn.parse_list(generator.trained_on) if generator is not None else ()
    except ValueError as error:
        raise ModelError(
            f"what the generator was trained on is not as usk fit records it: {error}", field="model"
        ) from error


def generator_notes(
    generator: Generator | None,
    renders: Sequence[RenderConfig],
    pool: DecodedSource,
    unconditioned: list[str],
    untrained: list[str],
    left_out: Sequence[str],
) -> list[str]:
    """Return notes for the user before clips are made.

    Args:
        pool: the clips that parents are drawn from.
        unconditioned: classes that the generator does not know.
        untrained: classes that an adapter was not trained on.
        left_out: optional strategies that the generator does not support.
    """
    if generator is None:
        return []
    notes = []
    if unconditioned:
        notes.append(
            f"the generator does not know {abbreviate_list(unconditioned)}: their clips are made without a class. "
            "Such clips have not helped so far: train a generator on these classes (usk fit) and compare"
        )
    elif left_out and not generator.takes_prompts:
        notes.append(
            f"no clips of {', '.join(left_out)}: the generator does not know the classes, or hardly tells them apart. With one that does "
            "(usk fit can train one), clips were worth more"
        )
    effect = generator.class_effect
    draws = any(one.strategy == "sample" for one in renders)
    if draws and effect is not None and effect < LEAST_CLASS_EFFECT:
        notes.append(
            "the generator hardly tells its classes apart, and clips that are drawn from a class alone would hurt: train it longer "
            "(usk fit), or use another strategy"
        )
    if untrained:
        notes.append(
            f"the adapter was not trained on {abbreviate_list(untrained)}: their prompts are those of a model without one"
        )
    knows_freesound = any("Freesound" in str(part.get("note")) for part in generator.trained_on)
    if pool.source.name == URBANSOUND8K and knows_freesound:
        notes.append(
            "UrbanSound8K comes from Freesound, which the generator's family was or may have been trained on: it may know recordings that "
            "are tested here, and the leak rules cannot tell"
        )
    longest_s = generator.longest_s
    if too_long := sum(clip.duration_s > longest_s + 0.02 for clip in pool.source.clips):
        notes.append(
            f"longer than the {longest_s:.2f} s that the generator makes: {pluralize(too_long, 'parent')}, whose first "
            f"{longest_s:.2f} s count (from their first sound on where those are next to silent)"
        )
    return notes
