"""Make a synthetic dataset from real clips: `usk.synthesize`. The dataset is prepared, and then rendered unit by unit."""

from __future__ import annotations

import contextlib
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from usk.data.open import SourceLike, open_source
from usk.device import resolve_device, threads_of_torch, visible_devices
from usk.diffusion.generator import Generator
from usk.engine.engine import LOCAL, Job, RunUnit, Workers
from usk.engine.part import Part
from usk.engine.select import create_engine, require_engine
from usk.errors import UsageError
from usk.manifest import Manifest
from usk.reporter import Reporter, Task
from usk.synth.card import dataset_card
from usk.synth.clip_renderer import ClipRenderer, Renderers
from usk.synth.dataset_folder import DatasetFolder
from usk.synth.filter import select_clips
from usk.synth.plan import Plan
from usk.synth.prepare import Prepared, Request, prepare
from usk.synth.render import DiffusionRenderer
from usk.synth.settings import SynthConfig
from usk.synth.units import WORK_FOLDER, Unit, cut_into_units
from usk.synth.waveform import WAVEFORM_RENDERERS
from usk.text import pluralize

ROWS_PER_SHARD = 128
FINISH_WAIT_S = 3600.0  # how long a part that is done waits for another part that finishes the dataset
MAX_UNWRITTEN_UNITS = 2  # rendered, but not yet written: they take memory, and a kill loses them


@dataclass(frozen=True)
class SynthResult:
    """The dataset that was made, or the part of it."""

    folder: Path
    plan: Plan = field(repr=False)  # of the clips in the dataset
    manifest: Manifest = field(repr=False)
    n_made: int = 0  # clips made in this call; the others were there already
    elapsed_s: float = 0.0
    notes: tuple[str, ...] = ()
    rejected: Plan | None = None  # of the clips that the classifier filter rejected
    filter_scores: dict[str, float] = field(default_factory=dict, repr=False)  # of all clips, by id
    missing: str = ""  # the units of other parts that are missing, if the dataset is not finished


def synthesize(
    source: SourceLike,
    out: str | os.PathLike[str] = "synth",
    config: SynthConfig | None = None,
    *,
    model: str | Generator = "auto",
    device: str = "auto",
    reporter: Reporter | None = None,
    arguments: Sequence[str] = (),
    part: Part = Part(),
    workers: int | None = None,
    engine: str = LOCAL,
) -> SynthResult:
    """Make a Hugging Face dataset of synthetic clips, each from one or two clips of `source` (a source, or its location).

    After an interruption, the same call continues the work, and ends with the same rows.

    Args:
        arguments: of the command line, for the manifest.
        part: the part of the job to do. The last part to be done finishes the dataset.
        workers: the number of processes that render; by default one, or one for each CUDA device.
        engine: `local` (processes on this machine) or `ray` (a Ray cluster).

    Raises UskError with a one-line message that names the fix.
    """
    config, reporter = config or SynthConfig(), reporter or Reporter()
    require_engine(engine, part)
    source = open_source(source, skip_bad=config.skip_bad)
    prepared = prepare(source, config, model=model, device=device, reporter=reporter, arguments=arguments)
    for note in prepared.notes:
        reporter.warn(note)
    return render(prepared, out, reporter=reporter, part=part, workers=workers, engine=engine)


def render(
    prepared: Prepared,
    out: str | os.PathLike[str],
    *,
    reporter: Reporter | None = None,
    part: Part = Part(),
    workers: int | None = None,
    engine: str = LOCAL,
) -> SynthResult:
    """Render the missing clips of `part` into `out`, and finish the dataset if all clips are there. Raises UskError."""
    started = time.monotonic()
    reporter = reporter or Reporter()
    work = Path(out) / WORK_FOLDER
    renderer = _new_renderer(prepared, work)
    units = cut_into_units(len(prepared.plan), ROWS_PER_SHARD, renderer.batches, prepared.manifest.key)
    n_units = sum(part.has(unit.number) for unit in units)
    chosen = workers_for(workers, prepared.request, n_units, engine)
    folder = DatasetFolder(Path(out), prepared.plan, prepared.manifest, ROWS_PER_SHARD, units, chosen.threads)
    with contextlib.ExitStack() as claims:
        claims.enter_context(folder.claim(part, reporter))
        if not part.is_whole:  # release the folder, so that other parts can render at the same time
            claims.close()
        made_with = "" if prepared.generator is None else f", generator {prepared.manifest.model}"
        n_clips = pluralize(len(prepared.plan), "clip")
        strategies = ",".join(one.strategy for one in prepared.renders)
        reporter.note(f"{n_clips}: strategy {strategies}{made_with}")
        reporter.detail(_settings_note(prepared))
        todo = [unit for unit in folder.missing() if part.has(unit.number)]
        if todo and prepared.clip_filter is not None:
            prepared.clip_filter.prepare(work, reporter)
        with reporter.task("rendering", "clips", len(prepared.plan)) as task:
            chosen = replace(chosen, threads=folder.threads)
            n_made = _render_units(prepared, folder, renderer, todo, chosen, task)
        if not part.is_whole:
            claims.enter_context(folder.claim(part, reporter, FINISH_WAIT_S))
        result = _finish(folder)
    return replace(result, n_made=n_made, elapsed_s=time.monotonic() - started, notes=prepared.notes)


def _finish(folder: DatasetFolder) -> SynthResult:
    """Assemble the dataset from its units, unless some are missing."""
    plan = folder.plan
    if folder.missing():
        return SynthResult(folder.folder, plan, folder.manifest, missing=folder.describe_missing())
    if (record := folder.manifest.clip_filter) is None:
        folder.assemble()
        folder.finish(dataset_card(folder.manifest, plan, folder.folder))
        return SynthResult(folder.folder, plan, folder.manifest)
    scores = folder.scores()
    kept_ids = select_clips(record, plan.clips, scores, folder.manifest.asked.per_class)
    folder.assemble(kept_ids)
    kept, rejected = plan.select(kept_ids), plan.select({clip.clip_id for clip in plan.clips} - kept_ids)
    folder.finish(dataset_card(folder.manifest, kept, folder.folder))
    return SynthResult(folder.folder, kept, folder.manifest, rejected=rejected, filter_scores=scores)


def _settings_note(prepared: Prepared) -> str:
    """Return the settings in words, with the precision that was chosen for `auto`."""
    parts = [f"model {prepared.manifest.model}"]
    for strategy, settings in prepared.manifest.render.items():
        if prepared.generator is not None and "precision" in settings:
            settings = settings | {"precision": prepared.generator.precision}
        values = [f"{name} {value}" for name, value in settings.items() if value is not None]
        parts.append(f"{strategy}: {', '.join(values)}")
    return "; ".join(parts)


def _new_renderer(prepared: Prepared, work: Path) -> Renderers:
    generator, plan, pool = prepared.generator, prepared.plan, prepared.pool
    renderers: dict[str, ClipRenderer] = {}
    for one in prepared.renders:
        if generator is None or one.strategy_row.mix is None:
            renderers[one.strategy] = WAVEFORM_RENDERERS[one.strategy](plan, pool, one)
        else:
            prompts = prepared.manifest.prompts
            renderers[one.strategy] = DiffusionRenderer(plan, pool, generator, one, work, prompts)
    return Renderers(renderers)


def workers_for(workers: int | None, request: Request, n_units: int, engine: str = LOCAL) -> Workers:
    """Choose the workers for a job. A generator that the caller has loaded can be used in this process alone."""
    devices, is_loaded = visible_devices(resolve_device(request.device)), isinstance(request.model, Generator)
    if is_loaded and engine != LOCAL:
        why = "cannot do what a generator that is loaded here makes"
        raise UsageError(why, field="engine", value=engine, hint="Name the generator.")
    wanted = workers if engine == LOCAL else None
    processes = max(1, min(1 if is_loaded else wanted or len(devices), n_units))
    threads = max(1, torch.get_num_threads() // processes)
    return Workers(processes, threads, devices).on_engine(engine, workers, n_units)


@dataclass(frozen=True)
class RenderSetup:
    """Prepares a worker process to render units of a dataset folder, which another process has claimed."""

    request: Request
    folder: Path

    def __call__(self, device: str) -> RunUnit:
        request = self.request
        prepared = prepare(request.source, request.config, model=request.model, device=device)
        folder = DatasetFolder(self.folder, prepared.plan, prepared.manifest, ROWS_PER_SHARD, ())
        renderer = _new_renderer(prepared, folder.work)
        if prepared.clip_filter is not None:
            prepared.clip_filter.prepare(folder.work, Reporter())

        def run_unit(unit: Unit, _on_progress: Callable[..., None]) -> int:
            return _render_in_process(prepared, folder, renderer, [unit], Task())

        return run_unit


def _render_units(
    prepared: Prepared,
    folder: DatasetFolder,
    renderer: Renderers,
    todo: Sequence[Unit],
    workers: Workers,
    task: Task,
) -> int:
    """Render the units `todo`, in this process or in workers. Return the number of clips made."""
    if workers.processes == 1 and workers.engine == LOCAL:
        with threads_of_torch(workers.threads):
            return _render_in_process(prepared, folder, renderer, todo, task)
    n_done, made = folder.n_done(), list[int]()

    def on_result(_number: int, n_made: int) -> None:
        made.append(n_made)
        task.update(n_done + sum(made))

    source, model = prepared.request.source, str(prepared.request.model)
    setup = RenderSetup(prepared.request, folder.folder)
    # A Hub dataset lies in this machine's cache.
    first_file = [getattr(ref, "path", "") for ref in source.audio[:1]]
    with create_engine(workers, [folder.folder, source.location, model, *first_file]) as engine:
        engine.run(Job(len(todo), setup, todo.__getitem__, on_result=on_result))
    return sum(made)


def _render_in_process(
    prepared: Prepared, folder: DatasetFolder, renderer: Renderers, todo: Sequence[Unit], task: Task
) -> int:
    """Render the units `todo`, while a thread compresses and writes those before. Return the number of clips made."""
    plan, clip_filter = prepared.plan, prepared.clip_filter
    done, n_made = folder.n_done(), 0
    task.update(done)

    def write(unit: Unit, audio: Sequence[Any]) -> None:
        clips = [plan.clips[row] for row in unit.rows]
        rows = [renderer.row(clip, samples) for clip, samples in zip(clips, audio, strict=True)]
        if clip_filter is not None:
            clip_filter.score(clips, rows, prepared.manifest.sample_rate_hz)
        folder.write_unit(unit, rows)

    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="units") as writer:
        unwritten: deque[Future[None]] = deque()
        for unit in todo:
            if not folder.is_made(unit):  # another process may have made it
                audio = renderer.audio([plan.clips[row] for row in unit.rows])
                unwritten.append(writer.submit(write, unit, audio))
                n_made += len(unit.rows)
            task.update(done := done + len(unit.rows))
            while len(unwritten) > MAX_UNWRITTEN_UNITS:
                unwritten.popleft().result()
        for future in unwritten:
            future.result()
    return n_made
