"""`usk.train`: train one classifier on every mix, split, number of train clips and seed.

All mixes of a split get the same number of optimizer steps (see `training_length`), the same seeds, and the same validation and
test clips. The validation part chooses the epoch.
"""

from __future__ import annotations

import datetime
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from usk.audio.features import features_of
from usk.classify.card import run_card
from usk.classify.caveats import run_caveats, sweep_notes
from usk.classify.checkpoint import Checkpoint
from usk.classify.classifier import classifier_settings
from usk.classify.config import ClipUse, TrainConfig, training_length
from usk.classify.feature_table import FeatureTable
from usk.classify.loop import TrainedClassifier, TrainTask, round_or_none
from usk.classify.recipe import ClassifierPreset
from usk.classify.registry import preset
from usk.classify.run_folder import data_hash, remove_leftovers, run_source, save_run
from usk.classify.sweep import MixSources, PlannedRun, Sweep, parse_mixes, plan_runs
from usk.classify.workers import RunTrainer, SharedTables, workers_for
from usk.data.decode import DecodedSource, decode_source
from usk.data.licenses import strictest_license
from usk.data.mix import Mix, label_map
from usk.data.open import SourceLike, open_source
from usk.data.train_subset import parse_train_clips
from usk.device import default_precision, resolve_device
from usk.engine.engine import LOCAL, Job, Workers
from usk.engine.part import Part, part_number
from usk.engine.select import create_engine, require_engine
from usk.errors import UsageError, disk_errors
from usk.evaluate import metrics
from usk.reporter import Reporter
from usk.runs import Predictions, RunIdentity, RunRecord, find_run
from usk.text import PERCENT, abbreviate_list, pluralize

MAX_VALIDATIONS = 10  # of a run; with a decaying learning rate, only the last third can be selected
SELECTION_WINDOW = 3  # number of validations whose mean selects the epoch


@dataclass(frozen=True)
class TrainResult:
    """Finished runs in order, and notes for the user."""

    runs: tuple[RunRecord, ...]
    fresh: tuple[bool, ...]  # for each run, whether this call trained it or found it in the folder
    notes: tuple[str, ...]
    settings: dict[str, Any]
    folders: tuple[Path, ...]  # of all planned runs, also of those that are missing
    missing: str = ""  # names the runs of other parts that are not trained yet


def train(
    real: SourceLike,
    mixes: str | Sequence[str] = ("real",),
    *,
    synth: SourceLike | None = None,
    out: str | os.PathLike[str] = "runs",
    config: TrainConfig | None = None,
    reporter: Reporter | None = None,
    part: Part = Part(),
    engine: str = LOCAL,
) -> TrainResult:
    """Train `config.classifier` on every mix, split and seed, except runs that are already in `out`.

    Args:
        real: the real clips, or their location, from which the validation and test parts are taken.
        mixes: one or more, such as `real` and `real,synth`. A part of a mix can be the location of any source.
        synth: the source that `synth` means in a mix.
        part: the part of the runs that this process trains. Other processes can train other parts in the same folder.
        engine: `local` for processes of this machine, or `ray` for a cluster.

    With `config.train_clips`, a run trains on that many real clips, and only on synthetic clips made from them. `synth` is then
    one dataset, or a folder of `usk study` with a dataset for each run.

    Raises: LeakError if leaks leave a mix without synthetic clips on every test part; UsageError for invalid options.
    """
    config, reporter = config or TrainConfig(), reporter or Reporter()
    config.check()
    require_engine(engine, part)
    real = open_source(real, skip_bad=config.skip_bad)
    real.require_real("test clips must be real")
    recipe = preset(config.classifier)
    # Check all options and open all sources before any is decoded.
    augments = recipe.parse_augments(config.augment)
    device = resolve_device(config.device)
    parsed_mixes = parse_mixes(mixes, synth, config.baseline)
    train_clips = parse_train_clips(config.train_clips)
    sources = MixSources.open(real, parsed_mixes, synth, config.skip_bad)
    n_compared = max(1, sum(mix.parts != ("real",) for mix in parsed_mixes))
    most_seeds = config.seeds_for(len(config.test_folds) or 1, n_compared)
    sources = sources.open_subsets(config.test_folds, most_seeds, train_clips)
    decoded = _decode(sources, recipe.features.sample_rate_hz, config.skip_bad, reporter)
    sources = replace(sources, opened={name: one.source for name, one in decoded.items()})
    sweep = _plan(sources, parsed_mixes, config, train_clips, augments, n_compared)
    notes = sweep_notes(sweep, sources.opened)
    for note in notes:
        reporter.warn(note)
    with disk_errors(Path(out)):
        Path(out).mkdir(parents=True, exist_ok=True)
        remove_leftovers(Path(out))
    trainer = _Trainer(decoded, recipe, config, device, Path(out), sweep, part)
    workers = trainer.workers(engine)
    settings = trainer.settings(workers, augments, train_clips)
    main = ("mixes", "test parts", "seeds", "train clips", "classifier", "device")
    summary = ", ".join(f"{name} {settings[name]}" for name in main if name in settings)
    reporter.note(f"{pluralize(len(trainer.records), 'run')}: {summary}")
    reporter.detail(", ".join(f"{name} {value}" for name, value in settings.items() if name not in main))
    was_found = [record is not None for record in trainer.records]
    runs = trainer.run(workers, reporter)
    fresh = tuple(not found for found, record in zip(was_found, trainer.records, strict=True) if record)
    folders = tuple(Path(out) / identity.folder_name for identity in trainer.identities)
    return TrainResult(tuple(runs), fresh, tuple(notes), settings, folders, trainer.missing())


def _decode(
    sources: MixSources, rate_hz: int, skip_bad: bool, reporter: Reporter
) -> dict[str, DecodedSource]:
    """Decode all sources. Raises UsageError if the real clips have fewer than two classes."""
    decoded = {
        name: decode_source(source, rate_hz, skip_bad=skip_bad, reporter=reporter)
        for name, source in sources.opened.items()
    }
    real = decoded["real"].source
    if len(present := [name for name, n in real.counts().items() if n]) < 2:
        raise UsageError(
            f"{real.location} has one class, {', '.join(present)}: a classifier needs at least two"
        )
    return decoded


def _plan(
    sources: MixSources,
    mixes: Sequence[Mix],
    config: TrainConfig,
    train_clips: Sequence[int | None],
    augments: Sequence[str],
    n_compared: int,
) -> Sweep:
    """Plan all runs. Without a given number of seeds, choose as many as `n_compared` mixes need for a verdict on the test folds."""
    folds = tuple(dict.fromkeys(config.test_folds))
    plan = partial(
        plan_runs,
        sources,
        mixes,
        config.protocol,
        folds,
        train_clips=train_clips,
        augments=augments,
        use=config.use,
    )
    if config.seeds is not None:
        return plan(config.seeds_for(1))
    sweep = plan([config.seed])  # finds the test folds
    seeds = sources.seeds_with_subsets(
        config.seeds_for(len(sweep.splits), n_compared), sweep.splits, train_clips
    )
    return sweep if len(seeds) == 1 else plan(seeds)


class _Trainer:
    """Trains the runs of one sweep that `out` does not have."""

    def __init__(
        self,
        decoded: dict[str, DecodedSource],
        recipe: ClassifierPreset,
        config: TrainConfig,
        device: torch.device,
        out: Path,
        sweep: Sweep,
        part: Part = Part(),
    ) -> None:
        self.part = part
        self.decoded, self.recipe, self.config, self.device, self.out = decoded, recipe, config, device, out
        self.sweep, self.planned = sweep, sweep.runs
        self.sources = {name: one.source for name, one in decoded.items()}
        self.real = self.sources["real"]
        self.precision = default_precision(device) if config.precision == "auto" else config.precision
        self.labels = {
            name: torch.from_numpy(label_map(source, self.real)[[clip.label for clip in source.clips]])
            for name, source in self.sources.items()
        }
        self.run_sources = {name: run_source(name, source) for name, source in self.sources.items()}
        self.recipe_hash = recipe.fingerprint(len(self.real.class_names))
        self.data = data_hash(self.real)
        self.identities = [self._identity(run) for run in self.planned]
        self.records = [find_run(out, identity) for identity in self.identities]  # None: not trained yet
        # Indices of the runs to train in this process.
        self.todo = [index for index, run in enumerate(self.records) if run is None and part.has(index)]

    def workers(self, engine: str) -> Workers:
        """Return the workers for the runs that are to be trained."""
        n_steps = sum(self.identities[index].steps for index in self.todo)
        batch = self.config.batch or self.recipe.batch
        wanted, n_runs = self.config.workers, len(self.todo)
        local = wanted if engine == LOCAL else None
        workers = workers_for(local, self.config.classifier, n_runs, n_steps * batch, self.device)
        return workers.on_engine(engine, wanted, n_runs)

    def settings(
        self, workers: Workers, augments: Sequence[str], train_clips: Sequence[int | None]
    ) -> dict[str, Any]:
        """Return the resolved settings by name, for the user."""
        first = self.identities[0]

        def join(values: Sequence[Any]) -> str:
            return " ".join(str(value) for value in values)

        return {
            "mixes": " and ".join(dict.fromkeys(run.mix.text for run in self.sweep.runs)),
            "classifier": first.classifier,
            **({} if self.config.use == ClipUse() else {"use": self.config.use.name}),
            **({"revision": first.classifier_revision} if first.classifier_revision else {}),
            "protocol": first.protocol,
            "batch": first.batch,
            "learning rate": first.learning_rate,
            "precision": first.precision,
            "epochs": join(sorted({identity.epochs for identity in self.identities})),
            "augment": join(augments),
            "device": str(self.device),
            **({"workers": workers.processes} if workers.processes > 1 else {}),
            "test parts": join([split.name for split in self.sweep.splits]),
            "seeds": join(self.sweep.seeds),
            **({} if train_clips == (None,) else {"train clips": join([n or "full" for n in train_clips])}),
        }

    def missing(self) -> str:
        """Return a sentence on the runs of other parts that `out` does not have yet, or an empty string."""
        missing = [
            index
            for index, identity in enumerate(self.identities)
            if self.records[index] is None and find_run(self.out, identity) is None
        ]
        if not missing:
            return ""
        numbers = sorted({part_number(index, self.part.of) for index in missing})
        parts = abbreviate_list([str(number) for number in numbers])
        return f"{len(missing)} of {len(self.planned)} runs are missing, of part {parts} of {self.part.of}"

    def run(self, workers: Workers, reporter: Reporter) -> list[RunRecord]:
        """Train the runs of this part. Return all runs in `out`."""
        tasks = [self._task(self.planned[index], self.identities[index]) for index in self.todo]
        steps_done, several = [0] * len(tasks), len({run.augment for run in self.planned}) > 1
        with reporter.task("training", PERCENT, sum(task.steps for task in tasks)) as progress:

            def on_progress(number: int, epoch: int, accuracy: float) -> None:
                index, task = self.todo[number], tasks[number]
                steps_done[number] = epoch * task.steps // task.epochs
                validation = "" if math.isnan(accuracy) else f" · validation {accuracy:.0%}"
                label = f"run {index + 1}/{len(self.planned)} · {self.planned[index].label(several)}"
                progress.update(sum(steps_done), text=f"{label} · epoch {epoch}/{task.epochs}{validation}")

            def on_result(number: int, trained: TrainedClassifier) -> None:
                index = self.todo[number]
                self.records[index] = self._save(self.planned[index], self.identities[index], trained)
                tables.release(tasks[number])

            with create_engine(workers, [self.out]) as engine:
                tables = SharedTables(self._make_table, engine.share, tasks)
                setup = RunTrainer(self.config.classifier)

                def make_unit(number: int) -> Any:
                    return tasks[number], tables.get(tasks[number])

                engine.run(Job(len(tasks), setup, make_unit, on_progress, on_result))
        return [record for record in self.records if record is not None]

    def _make_table(self, name: str) -> FeatureTable:
        features = features_of(self.decoded[name], self.recipe.features)
        return FeatureTable(features.to(self.device), self.labels[name])

    def _identity(self, plan: PlannedRun) -> RunIdentity:
        split, config, recipe = plan.split, self.config, self.recipe
        batch = config.batch or recipe.batch
        usual = (recipe.epochs, recipe.min_steps)
        epochs, steps = training_length(len(split.train), batch, usual, config.epochs)
        trained = set(plan.mix.parts)
        return RunIdentity(
            mix=plan.mix.text,
            classifier=config.classifier,
            classifier_revision=recipe.revision,
            recipe_hash=self.recipe_hash,
            protocol=config.protocol,
            split=split.name,
            fold=int(split.name.removeprefix("fold")) if split.of_fold else None,
            seed=plan.seed,
            train_clips=split.train_clips,
            optimistic=split.optimistic,
            augment=plan.augment,
            augmentations="+".join(recipe.augmentations(plan.augment)),
            epochs=epochs,
            steps=steps,
            batch=batch,
            learning_rate=config.learning_rate or recipe.learning_rate,
            precision=self.precision,
            **vars(plan.use),
            data=self.data,
            class_names=tuple(self.real.class_names),
            sources=tuple(
                replace(self.run_sources[name], trained=name in trained)
                for name in dict.fromkeys(["real", *sorted(trained)])
            ),
        )

    def _task(self, plan: PlannedRun, identity: RunIdentity) -> TrainTask:
        epochs = identity.epochs
        validate_every, window = math.ceil(epochs / MAX_VALIDATIONS), SELECTION_WINDOW
        select_after = 2 * epochs // 3 if self.recipe.cosine else 0
        if plan.split.optimistic:  # as published: the single best of all epochs
            validate_every, select_after, window = 1, 0, 1
        return TrainTask(
            classifier=classifier_settings(
                identity.classifier, self.recipe, identity.class_names, identity.precision, plan.augment
            ),
            augment=plan.augment,
            seed=plan.seed,
            epochs=epochs,
            steps=identity.steps,
            batch=identity.batch,
            learning_rate=identity.learning_rate,
            precision=identity.precision,
            validate_every=validate_every,
            select_after=select_after,
            window=window,
            parts=tuple(plan.rows.parts),
            synthetic=plan.rows.synthetic(self.sources),
            use=plan.use,
            validation=plan.split.validation,
            test=plan.split.test,
            out=self.out,
            name=identity.folder_name,
        )

    def _save(self, plan: PlannedRun, identity: RunIdentity, trained: TrainedClassifier) -> RunRecord:
        split, rows = plan.split, plan.rows
        tested = [self.real.clips[row] for row in split.test]
        predictions = Predictions(
            clip_ids=np.array([clip.clip_id for clip in tested]),
            groups=np.array([clip.group for clip in tested]),
            labels=self.labels["real"][split.test].numpy(),
            predicted=trained.probabilities.argmax(axis=1),
            probabilities=trained.probabilities,
        )
        used = [self.sources[source.dataset] for source in identity.sources]
        leaks, caveats = run_caveats(plan, self.sources, self.decoded, used)
        record = RunRecord(
            **vars(identity),
            accuracy=metrics.accuracy(predictions.labels, predictions.predicted),
            macro_f1=metrics.macro_f1(predictions.labels, predictions.predicted, len(identity.class_names)),
            best_epoch=trained.best_epoch,
            validation_accuracy=round_or_none(trained.validation_accuracy),
            n_real=rows.count(self.sources, synthetic=False),
            n_synthetic=rows.count(self.sources, synthetic=True),
            dropped=rows.dropped,
            n_validation=len(split.validation),
            n_test=len(split.test),
            n_test_recordings=len({clip.group for clip in tested}),
            leaks=tuple(leaks),
            caveats=(*leaks, *caveats),
            license=strictest_license(source.license for source in used),
            device=str(self.device),
            took_s=round(trained.took_s, 1),
            created=datetime.datetime.now(datetime.UTC),
        )
        card = run_card(record, predictions, trained.classifier)
        saved = save_run(self.out, record, predictions, trained.classifier, trained.history, card)
        Checkpoint(self.out, identity.folder_name, self.device).remove()
        return saved
