"""`usk.synthesize`: real clips in, a synthetic dataset out."""

from __future__ import annotations

import os
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from usk.data.clip import NO_MODEL
from usk.data.decode import DecodedSource, Progress, decode_source
from usk.data.licenses import strictest_license
from usk.data.pinned import looks_like_hub_id
from usk.data.source import Source
from usk.data.splits import in_several_folds
from usk.data.train_subset import TrainSubset
from usk.device import resolve_device
from usk.diffusion.generator import Generator
from usk.diffusion.load import load_generator
from usk.diffusion.pipeline import EMBEDDED, resolve_model
from usk.errors import ModelError, SourceError, UsageError, UskError
from usk.files import require_own_folder
from usk.manifest import MANIFEST_FILE, Asked, Manifest, SourceRecord, TrainedOn, TrainSubsetRecord
from usk.synth.card import dataset_card
from usk.synth.clip_renderer import ClipRenderer
from usk.synth.dataset_folder import DatasetFolder, FilteredDatasetFolder, ShardSpan
from usk.synth.filter import ClipFilter, FilterConfig, best, filter_of
from usk.synth.latents import keep, latents_key, reuse
from usk.synth.plan import Alpha, Plan, draw_plan
from usk.synth.render import DiffusionRenderer, Stages, batch_of
from usk.synth.settings import RenderConfig
from usk.synth.strategies import strategy_named
from usk.synth.waveform import SAMPLE_RATE_HZ, WAVEFORM_RENDERERS
from usk.text import abbreviate_list, pluralize

ROWS_PER_SHARD = 128
SHARDS_BEHIND = 2  # rendered and not yet written: what a kill may cost, and how much memory waits


@dataclass(frozen=True)
class SynthConfig:
    """What to make. `per_class` clips of each class, from parents of the given classes and folds (all, if empty).

    With a clip_filter that is how many are kept; more are made.
    """

    per_class: int = 100
    alpha: str = "0.5"  # as `Alpha.parse` reads it
    seed: int = 0
    classes: tuple[str, ...] = ()
    folds: tuple[int, ...] = ()
    across_folds: bool = False
    train_clips: TrainSubset | None = None  # parents are these train_clips alone, paired whatever their folds
    skip_bad: bool = False
    render: RenderConfig = field(default_factory=RenderConfig)
    clip_filter: FilterConfig | None = None

    def __post_init__(self) -> None:
        if self.per_class < 1:
            raise UsageError(f"--per-class must be at least 1, not {self.per_class}")
        if Alpha.parse(self.alpha) != Alpha() and not strategy_named(self.render.strategy).weighted:
            raise UsageError(
                f"--alpha {self.alpha}: --strategy {self.render.strategy} weighs no parents; leave it out"
            )
        if self.clip_filter is not None and self.across_folds and not self.one_filter:
            raise UsageError(
                "--filter with --across-folds needs one clip_filter for all clips: name the folds that will be tested with --test-folds"
            )

    @property
    def to_make(self) -> int:
        """Clips of each class to make, of which a clip_filter keeps `per_class`."""
        return self.per_class if self.clip_filter is None else self.clip_filter.to_make(self.per_class)

    @property
    def one_filter(self) -> bool:
        """Whether one clip_filter hears all that parents are drawn from, for the dataset is meant for one round."""
        return self.clip_filter is not None and bool(self.clip_filter.test_folds)


@dataclass(frozen=True)
class SynthResult:
    """What was made: the folder, clips by class and fold, and how fast."""

    folder: Path
    plan: Plan  # of the clips that the dataset has
    n_made: int  # in this call; the others were there already
    elapsed_s: float
    model: str
    notes: tuple[str, ...]
    settings: dict[str, Any]
    rejected: Plan | None = None  # of the clips that a clip_filter did not keep
    filter_scores: dict[str, float] = field(default_factory=dict)  # of all clips, by id


def plan_for(
    source: Source, config: SynthConfig, sample_rate_hz: int = 22_050, decoding: Progress | None = None
) -> tuple[DecodedSource, Plan]:
    """The parents, decoded, and the plan: what `usk synth` renders and `--dry-run` shows.

    Clips that cannot be used are found by decoding them, so the plan is drawn after it.
    """
    if source.has_synthetic:
        raise UsageError(
            f"{source.location} holds synthetic clips: what is made of them would name them as its parents, and leaks could not "
            "be ruled out; name the real clips that they were made from with --real"
        )
    everything = decode_source(source, sample_rate_hz, skip_bad=config.skip_bad, progress=decoding)
    folds = _parents_folds(everything.source, config)
    wanted = {clip.clip_id for clip in everything.source.select(config.classes, folds).clips}
    if config.train_clips is not None:
        train_clips = config.train_clips.split(everything.source.clips).train
        wanted &= {everything.source.clips[row].clip_id for row in train_clips.tolist()}
    decoded = everything.subset(
        [row for row, clip in enumerate(everything.source.clips) if clip.clip_id in wanted]
    )
    try:
        plan = draw_plan(
            decoded.source.clips,
            source.class_names,
            config.to_make,
            seed=config.seed,
            name=config.train_clips.name if config.train_clips is not None else "",
            alpha=config.alpha,
            n_parents=config.render.n_parents,
            across_folds=config.across_folds or config.train_clips is not None,
            known_clips=everything.source.clips,
        )
    except SourceError as error:
        if config.train_clips is None or config.train_clips.train_clips is None:
            raise
        raise SourceError(f"--train-clips {config.train_clips.train_clips} is too few: {error}") from error
    return decoded, plan


def _parents_folds(source: Source, config: SynthConfig) -> tuple[int, ...]:
    """The folds that give parents: those chosen, all if empty, without the ones that a clip_filter must not hear."""
    tested = config.clip_filter.test_folds if config.clip_filter is not None else ()
    if not tested:
        return config.folds
    for fold in tested:
        if fold not in source.folds:
            known = ", ".join(map(str, source.folds))
            raise UsageError(f"--test-folds {fold}: {source.location} has no such fold; it has {known}")
        if fold in config.folds:
            raise UsageError(
                f"--folds and --test-folds both name fold {fold}; a tested fold gives no parents"
            )
    left = tuple(fold for fold in config.folds or source.folds if fold not in tested)
    if not left:
        raise UsageError(f"--test-folds names every fold of {source.location}; none is left to give parents")
    return left


def synthesize(
    source: Source,
    out: str | os.PathLike[str] = "synth",
    config: SynthConfig | None = None,
    *,
    model: str | Generator = "auto",
    device: str = "auto",
    compiled: bool = False,
    progress: Progress | None = None,
    decoding: Progress | None = None,
    filtering: Progress | None = None,
    announce: Callable[[dict[str, Any]], None] = lambda _: None,
    stages: Stages | None = None,
    keep_latents: bool = True,
    arguments: Sequence[str] = (),
) -> SynthResult:
    """Make a Hugging Face dataset of clips interpolated between pairs of `source`'s clips.

    Called again with the same arguments after an interruption it goes on where it stopped, and ends with the same
    rows. `announce` gets the resolved settings before the work begins; `progress` (done, of) after each batch;
    `stages` is for timing them. `compiled` compiles the network first. `keep_latents` leaves the parents' latents in the
    cache and takes those that an earlier dataset left there.

    Raises: UskError with one line that names the fix.
    """
    config = config or SynthConfig()
    started = time.monotonic()
    render = config.render
    generator = None
    if strategy_named(render.strategy).mix is not None:
        generator = _ready_generator(model, device, render, compiled)
        render = render.resolved(bool(generator.class_names))
    rate_hz = generator.sample_rate_hz if generator is not None else SAMPLE_RATE_HZ
    decoded, plan = plan_for(source, config, rate_hz, decoding)
    unconditioned = _classes_unconditioned(generator, render, plan)
    notes = (
        [
            f"the generator does not know {abbreviate_list(unconditioned)}: their clips are made without telling it a class"
        ]
        if unconditioned
        else []
    )
    manifest = Manifest(
        source=SourceRecord(source.name, source.kind, source.revision, source.license, source.hub_id),
        class_names=tuple(source.class_names),
        model=generator.model_id if generator is not None else NO_MODEL,
        trained_on=_trained_on(generator),
        mel=generator.mel.as_dict() if generator is not None and generator.mel is not None else None,
        sample_rate_hz=rate_hz,
        render=render.as_dict(),
        alpha=config.alpha,
        seed=config.seed,
        asked=Asked(
            config.per_class,
            tuple(config.classes),
            config.clip_filter.test_folds if config.clip_filter is not None else (),
            config.across_folds,
            config.skip_bad,
        ),
        has_groups=source.has_groups,
        license=strictest_license([source.license, *_licenses(generator)]),
        plan_sha256=plan.sha256,
        shards={},
        precision=generator.precision if generator is not None else None,
        unconditioned=tuple(unconditioned),
        train_clips=TrainSubsetRecord(**asdict(config.train_clips))
        if config.train_clips is not None
        else None,
        recordings_of_several_folds={
            group: tuple(folds) for group, folds in in_several_folds(source.clips).items()
        },
        arguments=tuple(arguments),
    )
    clip_filter: ClipFilter | None = None
    store: DatasetFolder
    if config.clip_filter is None:
        store = DatasetFolder(Path(out), plan, manifest, ROWS_PER_SHARD)
    else:
        known = decode_source(source, rate_hz, skip_bad=config.skip_bad).source.clips
        judge_device = generator.device if generator is not None else resolve_device(device)
        clip_filter = ClipFilter(
            decoded, known, plan.clips, config.clip_filter, config.one_filter, config.seed, judge_device
        )
        manifest = replace(manifest, clip_filter=clip_filter.record())
        store = FilteredDatasetFolder(Path(out), plan, manifest, ROWS_PER_SHARD)
    settings = {"model": manifest.model, "render": manifest.render, "precision": manifest.precision}
    with store.claim():
        announce({**settings, "batch": batch_of(render, generator.device) if generator is not None else None})
        done_before = store.n_done()
        done = done_before
        if clip_filter is not None and store.missing():
            clip_filter.prepare(store.work, filtering)
        if progress is not None:
            progress(done, len(plan))
        stages = stages or Stages()
        renderer: ClipRenderer
        key = ""
        if generator is not None:
            renderer = DiffusionRenderer(plan, decoded, generator, render, store.work, stages)
            key = latents_key(renderer.latents.rows_of_crop, decoded, generator, render, renderer.batch)
            if keep_latents and store.missing():
                reuse(store.work, key)
        else:
            renderer = WAVEFORM_RENDERERS[render.strategy](plan, decoded, render)

        def package(shard: ShardSpan, audio: dict[int, Any]) -> None:
            clips = plan.clips[shard.begin : shard.end]
            rows = [renderer.row(clip, audio[shard.begin + place]) for place, clip in enumerate(clips)]
            if clip_filter is not None:
                clip_filter.score(clips, rows, rate_hz)
            store.write_shard(shard, rows)

        # Compressing and writing go on in the background while the device renders the next shard.
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="shards") as background:
            behind: deque[Future[None]] = deque()
            for shard in store.missing():
                audio: dict[int, Any] = {}
                for indices in renderer.batches(shard.begin, shard.end):
                    made = renderer.audio([plan.clips[index] for index in indices])
                    audio.update(zip(indices, made, strict=True))
                    done += len(made)
                    if progress is not None:
                        progress(done, len(plan))
                behind.append(background.submit(package, shard, audio))
                while len(behind) > SHARDS_BEHIND:
                    behind.popleft().result()
            with stages("writing left over"):
                while behind:
                    behind.popleft().result()
        made_plan, rejected, scores = plan, None, dict[str, float]()
        if isinstance(store, FilteredDatasetFolder) and clip_filter is not None:
            scores = store.scores()
            plan, rejected = _filtered(plan, clip_filter, scores, config.per_class)
            store.divide({clip.clip_id for clip in plan.clips})
            notes += _filter_notes(plan, made_plan, scores, clip_filter.config.threshold, config.per_class)
        if keep_latents and isinstance(renderer, DiffusionRenderer):
            keep(store.work, key)
        store.finish(dataset_card(store.manifest, plan, store.folder))
    notes += [*decoded.source.notes, *plan.notes]
    longest_s = generator.longest_s if generator is not None else float("inf")
    too_long = sum(clip.duration_s > longest_s + 0.02 for clip in decoded.source.clips)
    if too_long:
        notes.append(
            f"longer than the generator's {longest_s:.2f} s image: {pluralize(too_long, 'parent')}, whose first {longest_s:.2f} s count "
            "(from their first sound on where those are next to silent)"
        )
    return SynthResult(
        folder=store.folder,
        plan=plan,
        n_made=len(made_plan) - done_before,
        elapsed_s=time.monotonic() - started,
        model=generator.model_id if generator is not None else NO_MODEL,
        notes=tuple(notes),
        settings=settings,
        rejected=rejected,
        filter_scores=scores,
    )


def _filtered(
    plan: Plan, clip_filter: ClipFilter, scores: dict[str, float], per_class: int
) -> tuple[Plan, Plan]:
    """The clips that are kept, and the rejected ones. Raises UskError if none is kept."""
    in_order = [scores[clip.clip_id] for clip in plan.clips]
    clip_filters = [filter_of(clip, clip_filter.everywhere) for clip in plan.clips]
    kept = best(plan.clips, clip_filters, in_order, per_class, clip_filter.config)
    if not kept:
        raise UskError(
            f"--filter-threshold {clip_filter.config.threshold}: no clip reaches it, the best has {max(in_order)}; "
            "choose a lower one and a new --out"
        )
    return (
        replace(plan, clips=tuple(clip for clip in plan.clips if clip.clip_id in kept)),
        replace(plan, clips=tuple(clip for clip in plan.clips if clip.clip_id not in kept)),
    )


def _filter_notes(
    kept: Plan, made: Plan, scores: Mapping[str, float], threshold: float | None, per_class: int
) -> list[str]:
    """Notes naming classes of which the clip_filter kept fewer than were asked for: because too few reach the threshold, and
    because too few do in one fold, whose places (`--keep`) those of another cannot take."""
    if threshold is None:
        return []
    n_kept = {name: sum(by_fold.values()) for name, by_fold in kept.counts().items()}
    reach = Counter(made.class_names[clip.label] for clip in made.clips if scores[clip.clip_id] >= threshold)
    few = [f"{name} ({reach[name]})" for name in made.counts() if reach[name] < per_class]
    lost = [
        f"{name} ({n_kept.get(name, 0)} of {reach[name]})"
        for name in made.counts()
        if n_kept.get(name, 0) < min(per_class, reach[name])
    ]
    notes = [f"fewer than {per_class} clips reach --filter-threshold: {', '.join(few)}"] if few else []
    if lost:
        notes.append(
            f"--keep counts fold by fold, so fewer than {per_class} clips are kept of those that reach --filter-threshold: "
            f"{', '.join(lost)}"
        )
    return notes


def _ready_generator(model: str | Generator, device: str, render: RenderConfig, compiled: bool) -> Generator:
    """The generator, if it can do what the settings ask of it: refused before anything is written."""
    if isinstance(model, Generator):
        generator = model if render.precision == "auto" else replace(model, precision=render.precision)
    else:
        generator = load_generator(model, device, render.precision)
    if render.strategy == "sample" and not (generator.class_names and render.condition_on_class):
        raise UsageError(
            f"--strategy sample needs a class-conditional generator, which {generator.model_id} is not; "
            "make one with usk fit --class-conditional, or choose another strategy"
        )
    if render.guidance not in (None, 1.0) and not (generator.class_names and render.condition_on_class):
        raise UsageError(
            f"--guidance {render.guidance:g} needs a class-conditional generator that is told the class, which "
            f"{generator.model_id} is not here; leave it out"
        )
    generator.scales(render.sampler)  # steps that do not fit the strength
    return generator.compiled() if compiled else generator


def refuse_early(
    config: SynthConfig, model: str = "auto", device: str = "auto", out: str | os.PathLike[str] | None = None
) -> None:
    """Raise what `synthesize` would of a device, of a generator that is on this machine, and of a folder that holds something
    else; nothing is downloaded or written."""
    if out is not None:
        require_own_folder(Path(out), MANIFEST_FILE)
    on = resolve_device(device)
    name = resolve_model(model, on.type)
    here = name == EMBEDDED or Path(name).expanduser().exists() or not looks_like_hub_id(name)
    if strategy_named(config.render.strategy).mix is not None and here:
        _ready_generator(name, device, config.render, compiled=False)


def _classes_unconditioned(generator: Generator | None, render: RenderConfig, plan: Plan) -> list[str]:
    """Classes that a class-conditional generator does not know.

    Raises UsageError where the class is all that a clip is drawn from.
    """
    if generator is None or not generator.class_names or not render.condition_on_class:
        return []
    unknown = [name for name in plan.counts() if name not in generator.class_names]
    if unknown and render.strategy == "sample":
        raise UsageError(
            f"--strategy sample: {generator.model_id} does not know {abbreviate_list(unknown)}; it knows "
            f"{', '.join(generator.class_names)}. Choose among them with --classes, or fit a generator to these clips"
        )
    return unknown


def _trained_on(generator: Generator | None) -> tuple[TrainedOn, ...]:
    """Raises ModelError where the generator does not say it as `usk fit` does."""
    try:
        return TrainedOn.parts_of(generator.trained_on) if generator is not None else ()
    except ValueError as error:
        raise ModelError(
            f"what the generator was trained on is not as usk fit records it: {error}", field="model"
        ) from error


def _licenses(generator: Generator | None) -> Sequence[str]:
    """What the generator passes on; unknown where it does not say what it was trained on."""
    return [generator.license] if generator is not None else []
