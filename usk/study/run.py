"""`usk.study`: run the steps of a study that are not done yet, then write its results."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from usk.classify.config import DEFAULT_USE, USES, TrainConfig
from usk.data.clip import NO_MODEL
from usk.data.location import default_real
from usk.data.mix import parse_mix
from usk.data.open import open_source
from usk.data.source import Source
from usk.data.train_subset import TrainSubset
from usk.engine.engine import LOCAL
from usk.engine.part import Part
from usk.engine.select import require_engine
from usk.errors import UsageError, UskError, disk_errors
from usk.files import exclusive_lock, expanded, is_text
from usk.manifest import read_manifest
from usk.reporter import Reporter, Task
from usk.study.config import FULL, StudyConfig, read_study
from usk.text import abbreviate_list, pluralize

if TYPE_CHECKING:
    from usk.study.results import StudyResult
    from usk.synth.settings import SynthConfig

RUNS = "runs"


OnProgress = Callable[[float, str], None]
"""Called with the fraction of a step that is done, from 0 to 1, and a text."""


class _StepReporter(Reporter):
    """Reports the progress of a step with `n_tasks` tasks of the given label. Other tasks and all notes are not shown."""

    def __init__(self, label: str, on_progress: OnProgress, n_tasks: int = 1) -> None:
        super().__init__()
        self.label, self.on_progress, self.n_tasks, self.n_started = label, on_progress, n_tasks, 0

    def task(self, label: str, unit: str = "", total: int = 0) -> Task:
        if label != self.label:
            return Task()
        self.n_started += 1
        return _StepTask(self, total)


class _StepTask(Task):
    def __init__(self, reporter: _StepReporter, total: int) -> None:
        self.reporter, self.total = reporter, total

    def update(self, done: int, total: int | None = None, text: str | None = None) -> None:
        self.total = total or self.total
        tasks_done = self.reporter.n_started - 1 + done / max(self.total, 1)
        self.reporter.on_progress(tasks_done / self.reporter.n_tasks, text or "")


@dataclass(frozen=True)
class Step:
    """One step of a study. `run(device, on_progress)` skips what was done before."""

    label: str
    weight: int  # roughly how long the step takes, relative to other steps
    run: Callable[[str, OnProgress], None]


def study(
    file: str | os.PathLike[str],
    *,
    real: str | None = None,
    work: str | os.PathLike[str] | None = None,
    device: str = "auto",
    dry_run: bool = False,
    reporter: Reporter | None = None,
    part: Part = Part(),
    engine: str = LOCAL,
) -> StudyResult:
    """Fit generators, make clips, train and compare as a TOML file says, and write the results into the file's folder.

    A second call continues a study that was stopped, and extends a finished one: it reuses what is in `work`. It ignores runs
    there that the file does not plan, and refuses generators and clips that were made with other settings than the file's. The current folder is `work` during the call, because mixes and run records name
    clips by paths relative to it.

    Args:
        file: see `usk.study.config.StudyConfig`.
        real: the source of the real clips, instead of the file's.
        work: folder of generators, clips and runs; by default `work` in the file's folder.
        dry_run: only return the labels of the steps.
        part: the part of the work that this process does. Part 1 fits all generators. The call raises UskError when it needs
            something that another part has not made yet. Call it again later to continue.
        engine: where clips are rendered and classifiers trained: `local` (this machine) or `ray` (a cluster). Generators are
            always fitted in this process.

    Raise UsageError if the file is wrong, and whatever fitting, synthesizing and training raise.
    """
    from usk.study.results import StudyResult, write_results

    require_engine(engine, part)
    path, reporter = expanded(file).absolute(), reporter or Reporter()
    config = read_study(path)
    work_folder = expanded(work).absolute() if work is not None else path.parent / "work"
    start = Path.cwd() if real else path.parent
    location = _resolve_location(real or config.real or default_real(), start)
    _check_mixes(config, path, work_folder)
    study_steps = _StudySteps(config, location, path.parent, part, engine, reporter)
    steps = study_steps.in_order()
    labels = tuple(step.label for step in steps)
    if dry_run:
        return StudyResult(labels, {})
    if not is_text(work_folder):
        raise UsageError(
            "is not valid UTF-8, so records cannot contain it",
            field="work",
            value=work_folder,
            hint="Choose another folder.",
        )
    with disk_errors(work_folder, field="work"):
        work_folder.mkdir(parents=True, exist_ok=True)
    lock = (
        exclusive_lock(work_folder, "usk study", reporter=reporter)
        if part.is_whole
        else contextlib.nullcontext()
    )
    with lock, contextlib.chdir(work_folder):
        with reporter.task("study", "%", sum(1000 * step.weight for step in steps)) as task:
            _run_steps(steps, device, task)
        return write_results(config, study_steps.run_folders, path.parent, labels)


def _check_mixes(config: StudyConfig, file: Path, work: Path) -> None:
    """Raise UsageError for a part of a mix that is neither in `clips` nor can be a source: a name misspelled."""
    for mix in itertools.chain.from_iterable(config.mixes.values()):
        for part in set(parse_mix(mix).parts) - {"real", "demo", *config.clips}:
            if "/" not in part and not (work / part).exists():
                raise UsageError(
                    f"{file}: the mix {mix} names {part}, which is not in clips",
                    hint=f"clips has {', '.join(config.clips) or 'no names'}.",
                )


def _run_steps(steps: list[Step], device: str, task: Task) -> None:
    done = 0
    for number, step in enumerate(steps, 1):
        title, weight = f"{number}/{len(steps)} {step.label}", 1000 * step.weight

        def on_progress(
            fraction: float, text: str, done: int = done, weight: int = weight, title: str = title
        ) -> None:
            task.update(done + round(weight * fraction), text=f"{title} · {text}" if text else title)

        on_progress(0.0, "")
        step.run(device, on_progress)
        done += weight


def _resolve_location(location: str, start: Path) -> str:
    """Return the absolute path of a location relative to `start`, or the location itself if nothing exists there."""
    path = start / expanded(location)
    return str(path.resolve()) if path.exists() else location


class _StudySteps:
    """Creates the steps of a study. It opens each source once, when the first step needs it."""

    def __init__(
        self, config: StudyConfig, location: str, start: Path, part: Part, engine: str, reporter: Reporter
    ) -> None:
        self.config, self.location, self.start = config, location, start
        self.part, self.engine, self.reporter = part, engine, reporter
        self._sources: dict[str, Source] = {}
        self._incomplete: dict[Path, str] = {}  # datasets that other parts must complete: what is missing
        self.run_folders: list[Path] = []  # of the runs that the trainings planned

    def source(self, location: str | None = None) -> Source:
        name = self.location if location is None else _resolve_location(location, self.start)
        if name not in self._sources:
            self._sources[name] = open_source(name)
            for note in self._sources[name].notes:
                self.reporter.warn(note)
        return self._sources[name]

    def in_order(self) -> list[Step]:
        """Return all steps. A part makes all of its clips before it trains, because trainings need the clips of other parts."""
        config = self.config
        steps = [self._fit(name, table) for name, table in config.generators.items()]
        postponed: list[Step] = []
        for size in config.train_clips:
            for name in config.clips_of(size):
                steps += [self._synthesize(name, size, fold) for fold in config.test_folds[size]]
            trainings = steps if self.part.is_whole else postponed
            for classifier in config.classifiers:
                trainings.append(self._train(classifier, size, ("real",), config.augments[size]))
                mixes, augments = config.mixes[size], config.mix_augments
                trainings += [self._train(classifier, size, mixes, augments, use) for use in config.uses]
        return steps + postponed

    def _fit(self, name: str, table: dict[str, Any]) -> Step:
        from usk.diffusion.fit_config import FitConfig

        settings = dict(table)
        locations = settings.pop("real", None)
        if isinstance(locations, str):
            locations = [locations]
        test_folds = settings.pop("test_folds", [])
        if "from" in settings:
            settings["base"] = self._generator(settings.pop("from"))
        if unknown := sorted(set(settings) - {entry.name for entry in fields(FitConfig)}):
            raise UsageError(f"generators.{name}: {unknown[0]} is not a setting of a generator's training")
        config = FitConfig(**settings).resolved()
        out = Path("generators") / name

        def run(device: str, on_progress: OnProgress) -> None:
            from usk.diffusion.card import write_generator_card
            from usk.diffusion.fit import differing_settings, fit
            from usk.diffusion.pipeline import is_pipeline

            if is_pipeline(out):
                _require_same(out, differing_settings(out, config, test_folds))
                return
            if self.part.number > 1:
                raise self._needs_other_parts(f"part 1 has not fitted {name}")
            sources = [self.source(location) for location in locations or [None]]
            reporter = _StepReporter("training", on_progress)
            result = fit(sources, out, config, test_folds=test_folds, reporter=reporter)
            write_generator_card(result.folder)

        without = f" without fold {abbreviate_list([str(fold) for fold in test_folds])}" if test_folds else ""
        return Step(f"fit {name}{without}", 20, run)

    def _needs_other_parts(self, reason: str) -> UskError:
        return UskError(f"part {self.part} cannot go on: {reason}", hint="Run the same command again later.")

    def _model_for(self, fold: int) -> str:
        model = self.config.model
        return self._generator(model if isinstance(model, str) else model[str(fold)])

    def _generator(self, name: str) -> str:
        """Return the location of a generator of the study, or of another one."""
        is_own = name in self.config.generators
        return str(Path("generators") / name) if is_own else _resolve_location(name, self.start)

    def _synthesize(self, name: str, size: str, fold: int) -> Step:
        from usk.synth.settings import RenderConfig, SynthConfig, render_configs

        settings = dict(self.config.clips[name])
        per_class = settings.pop("per_class", self.config.per_class[size])
        share_kept = settings.pop("filter", None)
        known = {"quality", *(entry.name for entry in fields(RenderConfig))} - {"optional"}
        if unknown := sorted(set(settings) - known):
            raise UsageError(f"clips.{name}: {unknown[0]} is not a setting of `usk synth`")
        synth = SynthConfig(per_class, render=render_configs(**settings), filter=share_kept)
        # All seeds of `full` would be the same, because it draws no subset.
        seeds = [0] if size == FULL else list(self.config.seeds_of(size))
        subsets = [TrainSubset(None if size == FULL else int(size), fold, seed) for seed in seeds]

        def run(device: str, on_progress: OnProgress) -> None:
            from usk.synth.subsets import synthesize_subsets

            model, folders = self._model_for(fold), [Path(name) / subset.name for subset in subsets]
            finished = [folder for folder in folders if (folder / "README.md").is_file()]  # written last
            for folder in finished:
                _require_same(folder, _differing_settings(folder, synth, model))
            if finished == folders:
                return
            results = synthesize_subsets(
                self.source(),
                name,
                subsets,
                synth,
                model=model,
                device=device,
                reporter=_StepReporter("rendering", on_progress, len(subsets)),
                part=self.part,
                engine=self.engine,
            )
            self._incomplete.update({result.folder: result.missing for result in results if result.missing})

        label = f"make {name} of {size} real clips, test fold {fold}, {pluralize(len(seeds), 'seed')}"
        return Step(label, len(seeds), run)

    def _train(
        self,
        classifier: str,
        size: str,
        mixes: Sequence[str],
        augments: Sequence[str],
        use: str = DEFAULT_USE,
    ) -> Step:
        config = self.config
        folds, seeds = config.test_folds[size], config.seeds[size]

        def run(device: str, on_progress: OnProgress) -> None:
            from usk.classify.train import train

            for folder, missing in self._incomplete.items():
                if not (folder / "README.md").is_file():
                    raise self._needs_other_parts(f"in {folder}, {missing}")
            settings = TrainConfig(
                classifier,
                test_folds=tuple(folds),
                seeds=seeds,
                seed=config.first_seed,
                train_clips=size,
                epochs=config.epochs.get(size),
                augment=",".join(augments),
                use=USES[use],
                device=device,
                baseline=False,
            )
            result = train(
                self.source(),
                mixes,
                synth="synth",
                out=RUNS,
                config=settings,
                reporter=_StepReporter("training", on_progress),
                part=self.part,
                engine=self.engine,
            )
            self.run_folders += result.folders

        n_runs = len(mixes) * len(augments) * len(folds) * seeds
        mix_names = abbreviate_list(list(mixes)) + ("" if use == DEFAULT_USE else f", {use},")
        label = f"train {classifier} on {mix_names} with {size} real clips, {pluralize(n_runs, 'run')}"
        return Step(label, n_runs, run)


def _differing_settings(folder: Path, wanted: SynthConfig, model: str) -> list[str]:
    """Return the settings in which a finished dataset differs from those wanted, without those that its device decides."""
    from usk.diffusion.pipeline import is_id_of

    made = read_manifest(folder)
    names: list[str] = []
    needed = {one.strategy for one in wanted.renders if not one.optional}
    if not needed <= {*made.render} <= {one.strategy for one in wanted.renders}:
        names.append("strategy")
    for one in wanted.renders:
        found = made.render.get(one.strategy, {})
        settings = {name: value for name, value in one.as_dict().items() if value not in (None, "auto")}
        names += [name for name, value in settings.items() if found.get(name, value) != value]
    kept = made.clip_filter and (
        made.clip_filter.share_kept if made.clip_filter.least_score is None else "hf:"
    )
    is_same = {
        "per_class": made.asked.per_class == wanted.per_class,
        "filter": kept == ("hf:" if isinstance(wanted.filter, str) else wanted.filter),
        "model": made.model == NO_MODEL or model == "auto" or is_id_of(made.model, model),
    }
    return names + [name for name, same in is_same.items() if not same]


def _require_same(folder: Path, differing: Sequence[str]) -> None:
    """Raise UsageError if a part of the study that was made earlier differs in some settings."""
    if differing:
        raise UsageError(
            f"{folder} was made with other settings than the study's ({', '.join(differing).replace('_', ' ')})",
            hint="Delete it to make it again, or choose another work folder.",
        )
