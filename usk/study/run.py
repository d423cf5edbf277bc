"""`usk.study`: everything that a study's TOML file asks for and its folder does not hold yet, then its results."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from usk.classify.config import DEFAULT_USE, USES
from usk.data.open import open_source
from usk.data.source import Source
from usk.data.train_subset import TrainSubset
from usk.engine.chosen import require_engine
from usk.engine.engine import LOCAL
from usk.engine.part import Part
from usk.errors import UsageError, UskError, disk_errors
from usk.files import exclusive_lock, expanded, is_text
from usk.reporter import Reporter, Task
from usk.study.config import FULL, StudyConfig, read_study
from usk.text import abbreviate_list, pluralize

if TYPE_CHECKING:
    from usk.study.results import StudyResult

DEFAULT_REAL = "danavery/urbansound8K"
RUNS = "runs"


class _Share(Reporter):
    """Hands the progress of tasks of one label on as their share of all that are to come; notes are in the records of what is
    made."""

    def __init__(self, label: str, tell: Callable[[float, str], None], n_tasks: int = 1) -> None:
        super().__init__()
        self.label, self.tell, self.n_tasks, self.n_begun = label, tell, n_tasks, 0

    def task(self, label: str, unit: str = "", total: int = 0) -> Task:
        if label != self.label:
            return Task()
        self.n_begun += 1
        return _SharedTask(self, total)


class _SharedTask(Task):
    def __init__(self, of: _Share, total: int) -> None:
        self.of, self.total = of, total

    def update(self, done: int, total: int | None = None, text: str | None = None) -> None:
        self.total = total or self.total
        share = self.of.n_begun - 1 + done / max(self.total, 1)
        self.of.tell(share / self.of.n_tasks, text or "")


@dataclass(frozen=True)
class Step:
    """One piece of a study's work. `run(device, tell)` does what of it is not done yet; `tell(share, text)` takes progress."""

    label: str
    weight: int  # about how long it takes beside the others
    run: Callable[[str, Callable[[float, str], None]], None]


def study(
    file: str | os.PathLike[str],
    *,
    real: str | None = None,
    work: str | os.PathLike[str] | None = None,
    device: str = "auto",
    dry_run: bool = False,
    only_results: bool = False,
    reporter: Reporter | None = None,
    part: Part = Part(),
    engine: str = LOCAL,
) -> StudyResult:
    """Fit, synthesize, train and compare what a study's TOML file names, and write its results beside it.

    What `work` holds already is not made again: a study that was stopped goes on, a finished one can be widened. Runs that
    other studies left there are not looked at. Mixes name their clips by folders
    below `work`, and so do the runs' records: it is the process's working folder meanwhile.

    Args:
        file: see `usk.study.config.StudyConfig`.
        real: the source of the real clips, in place of the file's.
        work: folder of generators, clips and runs; by default `work` beside the file.
        dry_run: only say what the steps would be.
        only_results: compare what has been trained so far.
        part: of the work that this process does. It waits for nobody: where it cannot go on without what other parts have not done
            yet, it says so, and the same call goes on later. Generators are all fitted by part 1.
        engine: who renders and trains: `local`, this machine, or `ray`, a cluster. Generators are fitted here.

    Raises: UsageError where the file cannot be meant; what fitting, synthesizing and training raise; UskError for what other
    parts have not done yet.
    """
    from usk.study.results import StudyResult, write_results

    require_engine(engine, part)
    path, reporter = expanded(file).absolute(), reporter or Reporter()
    config = read_study(path)
    work_folder = expanded(work).absolute() if work is not None else path.parent / "work"
    location = _place(
        real or config.real or os.environ.get("USK_REAL") or DEFAULT_REAL, Path.cwd() if real else path.parent
    )
    steps = _Steps(config, location, path.parent, part, engine).all()
    names = tuple(step.label for step in steps)
    if dry_run:
        return StudyResult(names, {})
    if not is_text(work_folder):
        raise UsageError(
            "is not UTF-8, and records could not say it",
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
        if not only_results:
            with reporter.task("study", "%", sum(1000 * step.weight for step in steps)) as task:
                _work_through(steps, device, task)
        return write_results(config, Path(RUNS), path.parent, names)


def _work_through(steps: list[Step], device: str, task: Task) -> None:
    done = 0
    for number, step in enumerate(steps, 1):
        head = f"{number}/{len(steps)} {step.label}"

        def tell(share: float, text: str, done: int = done, step: Step = step, head: str = head) -> None:
            task.update(
                done + round(1000 * step.weight * share), text=f"{head}{f' · {text}' if text else ''}"
            )

        tell(0.0, "")
        step.run(device, tell)
        done += 1000 * step.weight


def _place(location: str, start: Path) -> str:
    """A path that begins at `start` where there is such a file or folder, else the location as it is."""
    path = start / expanded(location)
    return str(path.resolve()) if path.exists() else location


class _Steps:
    """A study's work in its order. Its source is opened once, when the first step needs it."""

    def __init__(self, config: StudyConfig, location: str, start: Path, part: Part, engine: str) -> None:
        self.config, self.location, self.start, self.part, self.engine = config, location, start, part, engine
        self._opened: dict[str, Source] = {}
        self._not_made: dict[Path, str] = {}  # datasets, and what other parts have not made of them

    def source(self, location: str | None = None) -> Source:
        name = self.location if location is None else _place(location, self.start)
        if name not in self._opened:
            self._opened[name] = open_source(name)
        return self._opened[name]

    def all(self) -> list[Step]:
        config = self.config
        first = [self._fit(name, table) for name, table in config.generators.items()]
        then: list[Step] = []  # of a part, which waits for others' clips: all of its own come first
        for n in config.train_clips:
            for name in config.clips_of(n):
                first += [self._synthesize(name, n, fold) for fold in config.test_folds[n]]
            trainings = first if self.part.is_whole else then
            for classifier in config.classifiers:
                trainings.append(self._train(classifier, n, ("real",), config.augments[n]))
                augments = config.mix_augments
                trainings += [
                    self._train(classifier, n, config.mixes[n], augments, use) for use in config.uses
                ]
        return first + then

    def _fit(self, name: str, table: dict[str, Any]) -> Step:
        from usk.diffusion.fit_config import FitConfig

        settings = dict(table)
        places = settings.pop("real", None)
        held = settings.pop("test_folds", [])
        settings = {{"from": "base"}.get(key, key): value for key, value in settings.items()}
        if unknown := sorted(set(settings) - {entry.name for entry in fields(FitConfig)}):
            raise UsageError(f"generators.{name}: {unknown[0]} is not a setting of a generator's training")
        config = FitConfig(**settings).resolved()
        out = Path("generators") / name

        def run(device: str, tell: Callable[[float, str], None]) -> None:
            from usk.diffusion.card import write_generator_card
            from usk.diffusion.fit import fit

            if (out / "model_index.json").is_file():
                return
            if self.part.number > 1:
                raise self._waits(f"part 1 has not fitted {name}")
            sources = [
                self.source(place) for place in ([places] if isinstance(places, str) else places or [None])
            ]
            result = fit(sources, out, config, test_folds=held, reporter=_Share("training", tell))
            write_generator_card(result.folder)

        without = f" without fold {abbreviate_list([str(fold) for fold in held])}" if held else ""
        return Step(f"fit {name}{without}", 20, run)

    def _waits(self, what: str) -> UskError:
        return UskError(f"part {self.part} cannot go on: {what}", hint="Run the same command again later.")

    def _model_for(self, fold: int) -> str:
        model = self.config.model
        name = model if isinstance(model, str) else model[str(fold)]
        return str(Path("generators") / name) if name in self.config.generators else _place(name, self.start)

    def _synthesize(self, name: str, n: str, fold: int) -> Step:
        from usk.synth.settings import RenderConfig, SynthConfig, render_config

        settings = dict(self.config.clips[name])
        per_class = settings.pop("per_class", self.config.per_class[n])
        share_kept = settings.pop("filter", None)
        if unknown := sorted(set(settings) - {"quality", *(entry.name for entry in fields(RenderConfig))}):
            raise UsageError(f"clips.{name}: {unknown[0]} is not a setting of `usk synth`")
        synth = SynthConfig(per_class, render=render_config(**settings), filter=share_kept)
        seeds = [0] if n == FULL else list(self.config.seeds_of(n))  # `full` draws nothing
        subsets = [TrainSubset(None if n == FULL else int(n), fold, seed) for seed in seeds]

        def run(device: str, tell: Callable[[float, str], None]) -> None:
            from usk.synth.subsets import synthesize_subsets

            if all((Path(name) / subset.name / "README.md").is_file() for subset in subsets):  # written last
                return
            made = synthesize_subsets(
                self.source(),
                name,
                subsets,
                synth,
                model=self._model_for(fold),
                device=device,
                reporter=_Share("rendering", tell, len(subsets)),
                part=self.part,
                engine=self.engine,
            )
            self._not_made.update({one.folder: one.missing for one in made if one.missing})

        label = f"make {name} of {n} real clips, test fold {fold}, {pluralize(len(seeds), 'seed')}"
        return Step(label, len(seeds), run)

    def _train(
        self, classifier: str, n: str, mixes: Sequence[str], augments: Sequence[str], use: str = DEFAULT_USE
    ) -> Step:
        config = self.config
        folds, seeds = config.test_folds[n], config.seeds[n]

        def run(device: str, tell: Callable[[float, str], None]) -> None:
            from usk.classify.config import TrainConfig
            from usk.classify.train import train

            for folder, missing in self._not_made.items():
                if not (folder / "README.md").is_file():
                    raise self._waits(f"of {folder} {missing}")
            settings = TrainConfig(
                classifier,
                test_folds=tuple(folds),
                seeds=seeds,
                seed=config.first_seed,
                train_clips=n,
                epochs=config.epochs,
                augment=",".join(augments),
                use=USES[use],
                device=device,
                baseline=False,
            )
            train(
                self.source(),
                mixes,
                out=RUNS,
                config=settings,
                reporter=_Share("training", tell),
                part=self.part,
                engine=self.engine,
            )

        runs = len(mixes) * len(augments) * len(folds) * seeds
        used = "" if use == DEFAULT_USE else f", {use},"
        what = f"train {classifier} on {abbreviate_list(list(mixes))}{used} with {n} real clips"
        return Step(f"{what}, {pluralize(runs, 'run')}", runs, run)
