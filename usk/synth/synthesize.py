"""`usk.synthesize`: real clips in, a synthetic dataset out. What `usk.synth.prepare` decided is rendered unit by unit."""

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

from usk.data.source import Source
from usk.device import resolve_device, threads_of_torch, visible_devices
from usk.diffusion.generator import Generator
from usk.engine.engine import LOCAL, Job, RunUnit, Workers
from usk.engine.part import Part
from usk.engine.select import create_engine, require_engine
from usk.errors import UsageError
from usk.manifest import Manifest
from usk.reporter import Reporter, Task
from usk.synth.card import dataset_card
from usk.synth.clip_renderer import ClipRenderer
from usk.synth.dataset_folder import DatasetFolder
from usk.synth.filter import kept_by
from usk.synth.plan import Plan
from usk.synth.prepare import Given, Prepared, prepare
from usk.synth.render import DiffusionRenderer
from usk.synth.settings import SynthConfig
from usk.synth.units import WORK_FOLDER, Unit, cut_into_units
from usk.synth.waveform import WAVEFORM_RENDERERS
from usk.text import pluralize

ROWS_PER_SHARD = 128
FINISH_WAIT_S = 3600.0  # of a part that has made its own, for another one that finishes the dataset meanwhile
UNITS_BEHIND = 2  # rendered and not yet written: what a kill may cost, and how much memory waits


@dataclass(frozen=True)
class SynthResult:
    """What was made: the folder, clips by class and fold, and how fast."""

    folder: Path
    plan: Plan  # of the clips that the dataset has
    n_made: int  # in this call; the others were there already
    elapsed_s: float
    manifest: Manifest
    notes: tuple[str, ...]
    rejected: Plan | None = None  # of the clips that the classifier filter did not keep
    filter_scores: dict[str, float] = field(default_factory=dict)  # of all clips, by id
    # Of a part: the units of other parts that are not made yet; the dataset is not finished
    missing: str = ""


def synthesize(
    source: Source,
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
    """Make a Hugging Face dataset of clips interpolated between pairs of `source`'s clips.

    Called again with the same arguments after an interruption it goes on where it stopped, and ends with the same rows.

    Args:
        arguments: of the command line, for the dataset's record.
        part: of the job that this process does; the one that finds all others done finishes the dataset.
        workers: processes that render; by default this one alone, or one for each CUDA device where there are several.
        engine: who renders: `local`, processes of this machine, or `ray`, those of a cluster.

    Raises: UskError with one line that names the fix.
    """
    config, reporter = config or SynthConfig(), reporter or Reporter()
    require_engine(engine, part)
    prepared = prepare(source, config, model=model, device=device, reporter=reporter, arguments=arguments)
    return render(prepared, out, reporter=reporter, part=part, workers=workers, engine=engine)


# --- render --------------------------------------------------------------------------------------------------------


def render(
    prepared: Prepared,
    out: str | os.PathLike[str],
    *,
    reporter: Reporter | None = None,
    part: Part = Part(),
    workers: int | None = None,
    engine: str = LOCAL,
) -> SynthResult:
    """Render the clips that `out` lacks, of `part` alone, and finish the dataset there once all are made. Raises UskError."""
    started = time.monotonic()
    reporter = reporter or Reporter()
    work = Path(out) / WORK_FOLDER
    renderer = _renderer(prepared, work)
    units = cut_into_units(len(prepared.plan), ROWS_PER_SHARD, renderer.batches, prepared.manifest.key)
    n_units = sum(part.has(unit.number) for unit in units)
    of_job = workers_for(workers, prepared.given, n_units, engine)
    folder = DatasetFolder(Path(out), prepared.plan, prepared.manifest, ROWS_PER_SHARD, units, of_job.threads)
    with contextlib.ExitStack() as claimed:
        claimed.enter_context(folder.claim(part, reporter))
        if not part.is_whole:  # others come meanwhile
            claimed.close()
        made_with = "" if prepared.generator is None else f", generator {prepared.manifest.model}"
        n_clips = pluralize(len(prepared.plan), "clip")
        reporter.note(f"{n_clips}: strategy {prepared.render.strategy}{made_with}")
        reporter.detail(_settings_note(prepared))
        todo = [unit for unit in folder.missing() if part.has(unit.number)]
        if todo and prepared.clip_filter is not None:
            prepared.clip_filter.prepare(work, reporter)
        with reporter.task("rendering", "clips", len(prepared.plan)) as task:
            of_job = replace(of_job, threads=folder.threads)
            n_made = _render_all(prepared, folder, renderer, todo, of_job, task)
        if not part.is_whole:
            claimed.enter_context(folder.claim(part, reporter, FINISH_WAIT_S))
        result = _finish(folder)
    return replace(result, n_made=n_made, elapsed_s=time.monotonic() - started, notes=prepared.notes)


def _finish(folder: DatasetFolder) -> SynthResult:
    """Make a dataset of the units if all are there."""
    plan = folder.plan
    if folder.missing():
        return SynthResult(
            folder.folder, plan, 0, 0.0, folder.manifest, (), missing=folder.missing_of_parts()
        )
    if (record := folder.manifest.clip_filter) is None:
        folder.assemble()
        folder.finish(dataset_card(folder.manifest, plan, folder.folder))
        return SynthResult(folder.folder, plan, 0, 0.0, folder.manifest, ())
    scores = folder.scores()
    ids = kept_by(record, plan.clips, scores, folder.manifest.asked.per_class)
    folder.assemble(ids)
    kept, rejected = plan.only(ids), plan.only({clip.clip_id for clip in plan.clips} - ids)
    folder.finish(dataset_card(folder.manifest, kept, folder.folder))
    return SynthResult(folder.folder, kept, 0, 0.0, folder.manifest, (), rejected, scores)


def _settings_note(prepared: Prepared) -> str:
    """What the clips are rendered with, `auto` replaced by what it came to."""
    generator, settings = prepared.generator, dict(prepared.manifest.render)
    if generator is not None:
        settings |= {"precision": generator.precision}
    parts = [f"{name} {value}" for name, value in settings.items() if value is not None]
    return f"model {prepared.manifest.model}; {', '.join(parts)}"


def _renderer(prepared: Prepared, work: Path) -> ClipRenderer:
    """What makes the clips."""
    generator, plan, pool = prepared.generator, prepared.plan, prepared.pool
    if generator is None:
        return WAVEFORM_RENDERERS[prepared.render.strategy](plan, pool, prepared.render)
    return DiffusionRenderer(plan, pool, generator, prepared.render, work, prepared.manifest.prompts)


def workers_for(workers: int | None, given: Given, n_units: int, engine: str = LOCAL) -> Workers:
    """The processes for so many units. With a generator that was loaded by the caller it is this one."""
    devices, loaded = visible_devices(resolve_device(given.device)), isinstance(given.model, Generator)
    if loaded and engine != LOCAL:
        why = "cannot do what a generator that is loaded here makes"
        raise UsageError(why, field="engine", value=engine, hint="Name the generator.")
    chosen = workers if engine == LOCAL else None
    processes = max(1, min(1 if loaded else chosen or len(devices), n_units))
    threads = max(1, torch.get_num_threads() // processes)
    return Workers(processes, threads, devices).on_engine(engine, workers, n_units)


@dataclass(frozen=True)
class Rendering:
    """Renders units of a folder that was claimed for what is `given`: what a worker process does."""

    given: Given
    folder: Path

    def __call__(self, device: str) -> RunUnit:
        given = self.given
        prepared = prepare(given.source, given.config, model=given.model, device=device)
        folder = DatasetFolder(self.folder, prepared.plan, prepared.manifest, ROWS_PER_SHARD, ())
        renderer = _renderer(prepared, folder.work)
        if prepared.clip_filter is not None:
            prepared.clip_filter.prepare(folder.work, Reporter())

        def do(unit: Unit, _say: Callable[..., None]) -> int:
            return _render(prepared, folder, renderer, [unit], Task())

        return do


def _render_all(
    prepared: Prepared,
    folder: DatasetFolder,
    renderer: ClipRenderer,
    todo: Sequence[Unit],
    workers: Workers,
    task: Task,
) -> int:
    """Render the units `todo`, here or in worker processes; how many clips were made."""
    if workers.processes == 1 and workers.engine == LOCAL:
        with threads_of_torch(workers.threads):
            return _render(prepared, folder, renderer, todo, task)
    n_done, made = folder.n_done(), list[int]()

    def on_result(_number: int, n_made: int) -> None:
        made.append(n_made)
        task.update(n_done + sum(made))

    given = prepared.given
    setup, source = Rendering(given, folder.folder), given.source
    # Of the Hub's: in the cache of this machine
    files = [getattr(ref, "path", "") for ref in source.audio[:1]]
    with create_engine(workers, [folder.folder, source.location, str(given.model), *files]) as engine:
        engine.run(Job(len(todo), setup, todo.__getitem__, on_result=on_result))
    return sum(made)


def _render(
    prepared: Prepared,
    folder: DatasetFolder,
    renderer: ClipRenderer,
    todo: Sequence[Unit],
    task: Task,
) -> int:
    """Render the units `todo`; how many clips were made. Compressing and writing go on in the background meanwhile."""
    plan, clip_filter = prepared.plan, prepared.clip_filter
    done, n_made = folder.n_done(), 0
    task.update(done)

    def package(unit: Unit, audio: Sequence[Any]) -> None:
        clips = [plan.clips[row] for row in unit.rows]
        rows = [renderer.row(clip, samples) for clip, samples in zip(clips, audio, strict=True)]
        if clip_filter is not None:
            clip_filter.score(clips, rows, prepared.manifest.sample_rate_hz)
        folder.write_unit(unit, rows)

    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="units") as background:
        behind: deque[Future[None]] = deque()
        for unit in todo:
            if not folder.is_made(unit):  # by another process meanwhile
                behind.append(
                    background.submit(package, unit, renderer.audio([plan.clips[row] for row in unit.rows]))
                )
                n_made += len(unit.rows)
            task.update(done := done + len(unit.rows))
            while len(behind) > UNITS_BEHIND:
                behind.popleft().result()
        for left in behind:
            left.result()
    return n_made
