"""`usk.train`: mixes x splits x train_clips x seeds of one classifier, with equal work for every mix.

All mixes of a split get the same number of optimizer steps (passes over its real training part, more of them where that
is small: see `training_length`), the same seeds, and the same validation and test clips. The epoch is chosen on the
validation part.
"""

from __future__ import annotations

import datetime
import hashlib
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from usk.audio.features import features_of
from usk.classify.card import run_card
from usk.classify.checkpoint import Checkpoint
from usk.classify.loop import (
    FeatureTable,
    TrainedClassifier,
    TrainTask,
    figure,
    fit_classifier,
    tables_of,
)
from usk.classify.processes import Workers, fit_in_processes, workers_for
from usk.classify.registry import DEFAULT_CLASSIFIER, TRANSFORMER, ClassifierPreset, preset
from usk.classify.runs import classifier_settings, save_run
from usk.classify.sweep import Parts, PlannedRun, plan_runs, trained_beyond_the_subset
from usk.data.clip import NO_MODEL
from usk.data.decode import DecodedSource, Progress, decode_source
from usk.data.leaks import foreign_parents, recordings_of, unknown_generator
from usk.data.licenses import strictest_license
from usk.data.mix import label_map, parse_mix
from usk.data.source import Source
from usk.data.splits import PROTOCOLS
from usk.data.train_subset import SUBSET_NAME, parse_train_clips
from usk.device import default_precision, resolve_device
from usk.errors import UsageError, disk_errors
from usk.evaluate import metrics
from usk.runs import Predictions, RunIdentity, RunRecord, RunSource, find_run
from usk.text import abbreviate_list, pluralize

VALIDATIONS = (
    10  # of a run, at most; where the learning rate decays, those of the last third choose the epoch
)
SELECTION_WINDOW = 3  # validations whose mean chooses the epoch
EPOCH_CLIPS = 500  # an epoch counts at least as many
FULL_RECIPE_CLIPS = 1000  # with fewer in training, a recipe has more epochs by default


@dataclass(frozen=True)
class TrainConfig:
    """What to train and how. None (or `auto`) takes the classifier preset's value."""

    classifier: str = DEFAULT_CLASSIFIER
    protocol: str = "folds"
    folds: tuple[int, ...] = ()  # test folds; empty: every fold that all mixes can be tested on
    seeds: int = 1  # how many
    seed: int = 0  # the first of them
    train_clips: str = "full"  # real clips in all, joined by commas: 50,100,full
    epochs: int | None = None  # None: the preset's, more where real clips are few
    batch: int | None = None
    learning_rate: float | None = None
    augment: str = "auto"  # several joined by commas: every mix is trained with each of them
    device: str = "auto"
    precision: str = "auto"
    workers: int | None = None  # processes that each train a run at the same time; None: as many as pay
    skip_bad: bool = False


@dataclass(frozen=True)
class TrainProgress:
    """What training reports after each epoch."""

    run: int  # from 0, those that were there already included
    n_runs: int
    done_steps: int  # optimizer steps so far, in this call
    all_steps: int  # of all runs that this call trains
    label: str
    epoch: int
    epochs: int
    validation_accuracy: float  # the last there is; NaN before the first, and without validation clips


@dataclass(frozen=True)
class TrainResult:
    """Finished runs in order, sentences the user should read, and the test parts that were left out and why."""

    runs: tuple[RunRecord, ...]
    fresh: tuple[bool, ...]  # of each run: trained in this call, not found in the folder
    notes: tuple[str, ...]
    settings: dict[str, Any]


def train(
    real: Source,
    mixes: str | Sequence[str] = ("real",),
    *,
    synth: Source | str | os.PathLike[str] | None = None,
    out: str | os.PathLike[str] = "runs",
    config: TrainConfig | None = None,
    report: Callable[[TrainProgress], None] = lambda _: None,
    preparing: Progress | None = None,
    announce: Callable[[dict[str, Any]], None] = lambda _: None,
) -> TrainResult:
    """Train `config.classifier` on every mix, split and seed, skipping runs that are already in `out`.

    Args:
        real: the real clips; its splits define validation and test.
        mixes: one or more, such as `real`, `real,synth`, `real:0.1`; any source's location may stand for a name.
        synth: the source that `synth` means.

    With `config.train_clips`, a run trains on that many real clips, and on synthetic clips made from those alone: `synth` may
    be one dataset, or the folder of `usk synth --train-clips`, where each run finds its own.

    Raises: LeakError if a mix would be left without synthetic clips on every test part; UsageError for options.
    """
    config = config or TrainConfig()
    config = replace(config, folds=tuple(dict.fromkeys(config.folds)))
    recipe = preset(config.classifier)
    if config.protocol not in PROTOCOLS:
        raise UsageError(f"--protocol {config.protocol} is not known; choose one of {', '.join(PROTOCOLS)}")
    if real.has_synthetic:
        raise UsageError(
            f"--real {real.location} holds synthetic clips, and what is tested must be real: name the real clips that they were "
            "made from, and these with --synth or in --mix"
        )
    if config.seeds < 1:
        raise UsageError(f"--seeds must be at least 1, not {config.seeds}")
    if config.seed < 0:
        raise UsageError(f"--seed must be at least 0, not {config.seed}")
    if config.epochs is not None and config.epochs < 1:
        raise UsageError(f"--epochs must be at least 1, not {config.epochs}")
    if config.batch is not None and config.batch < 1:
        raise UsageError(f"--batch must be at least 1, not {config.batch}")
    if config.workers is not None and config.workers < 1:
        raise UsageError(f"--workers must be at least 1, not {config.workers}")
    if (config.workers or 1) > 1 and config.classifier.startswith(TRANSFORMER):
        raise UsageError(
            f"--workers {config.workers}: {TRANSFORMER} classifiers train one after another, each with all cores; leave it out"
        )
    if config.learning_rate is not None and not 0 < config.learning_rate < math.inf:
        raise UsageError(f"--learning-rate must be above 0 and finite, not {config.learning_rate:g}")
    if config.folds and config.protocol != "folds":
        raise UsageError(f"--folds belongs to --protocol folds, not to {config.protocol}")
    augments = recipe.augments_of(config.augment)  # refused before anything is decoded
    device = resolve_device(config.device)
    place = synth.location if isinstance(synth, Source) else synth
    listed = [mixes] if isinstance(mixes, str) else mixes
    parsed = list(dict.fromkeys(parse_mix(text, place) for text in listed))
    if not parsed:
        raise UsageError("--mix names nothing to train on; write for example --mix real,synth")
    train_clips = parse_train_clips(config.train_clips)
    seeds = range(config.seed, config.seed + config.seeds)
    rate_hz = recipe.features.sample_rate_hz
    # All are opened before any is decoded.
    parts = Parts.open(real, parsed, synth, config.folds, seeds, train_clips, config.skip_bad)
    decoded = {
        name: decode_source(source, rate_hz, skip_bad=config.skip_bad, progress=preparing)
        for name, source in parts.opened.items()
    }
    sources = {name: part.source for name, part in decoded.items()}
    base = sources["real"]
    if len(present := [name for name, n in base.counts().items() if n]) < 2:
        raise UsageError(
            f"{real.location} has one class, {', '.join(present)}: a classifier needs two to tell apart"
        )
    notes = [note for source in sources.values() for note in source.notes]
    notes += filter(None, (foreign_parents(source, base) for source in sources.values()))
    notes += filter(None, map(unknown_generator, sources.values()))
    planned, splits, left_out = plan_runs(
        replace(parts, opened=sources), parsed, config.protocol, config.folds, seeds, train_clips, augments
    )
    notes += [*left_out, *trained_beyond_the_subset(planned, sources), *_untrained(planned, sources)]
    if splits and splits[0].optimistic:
        notes.append(
            "protocol seed-9010 chooses the epoch on its test part and cuts recordings apart: optimistic"
        )
        notes += [note for run in planned for note in _trained_on_what_it_tests(run, sources)]
    if any(not len(split.validation) for split in splits):
        notes.append(
            "too few recordings to hold any out for validation: the last epoch counts, none is chosen"
        )
    settings = {
        "classifier": config.classifier,
        **({"classifier_revision": recipe.revision} if recipe.revision else {}),
        "protocol": config.protocol,
        "batch": config.batch or recipe.batch,
        "learning_rate": config.learning_rate or recipe.learning_rate,
        "precision": default_precision(device) if config.precision == "auto" else config.precision,
    }
    with disk_errors(Path(out)):
        Path(out).mkdir(parents=True, exist_ok=True)
    job = _Job(decoded, sources, recipe, settings, device, Path(out), planned, config.epochs)
    share = job.share(config.workers)
    announce(
        {
            **settings,
            "epochs": sorted({identity.epochs for identity in job.identities}),
            "augment": list(augments),
            "device": str(device),
            **({"workers": share.processes} if share.processes > 1 else {}),
            "splits": [split.name for split in splits],
            "seeds": list(seeds),
            **(
                {}
                if train_clips == (None,)
                else {"train_clips": ["full" if n is None else n for n in train_clips]}
            ),
        }
    )
    runs = job.sweep(share, report)
    fresh = tuple(index in job.todo for index in range(len(runs)))
    return TrainResult(tuple(runs), fresh, tuple(dict.fromkeys(notes)), settings)


def training_length(n_train: int, batch: int, recipe_epochs: int, epochs: int | None) -> tuple[int, int]:
    """Epochs, and optimizer steps in all, of every mix beside `n_train` real training clips.

    An epoch is a pass over the real clips; fewer than `EPOCH_CLIPS` are passed over several times, for an epoch of 50 clips
    would be two steps. Where `epochs` does not say how many, they are the recipe's, stretched so that a training part
    below `FULL_RECIPE_CLIPS` is trained on for nearly as many steps as one of that size: at most twice as many epochs.
    """
    per_epoch = max(n_train, EPOCH_CLIPS)
    if epochs is None:
        epochs = max(recipe_epochs, recipe_epochs * FULL_RECIPE_CLIPS // per_epoch)
    return epochs, epochs * math.ceil(per_epoch / batch)


def _source_of(name: str, source: Source, trained: bool) -> RunSource:
    """What a run's record says of one source; `trained` if it is part of the mix, not just of the test."""
    folder, _, last = name.rpartition("/")
    part, subset = (folder, last) if folder and SUBSET_NAME.fullmatch(last) else (name, "")
    made = [clip for clip in source.clips if clip.is_synthetic]
    return RunSource(
        part=part,
        subset=subset,
        name=source.name,
        kind=source.kind,
        revision=source.revision,
        hub_id=source.hub_id,
        license=source.license,
        clips=len(source),
        trained=trained,
        generators=tuple(sorted({clip.model for clip in made} - {NO_MODEL})),
        strategies=tuple(sorted({clip.strategy for clip in made})),
        urbansound8k=any(
            group.startswith("urbansound8k/") for clip in source.clips for group in clip.lineage
        ),
    )


def _not_ruled_out(others: Sequence[Source], real: Source) -> list[str]:
    """Sentences on leaks between sources and the real one that nothing here can rule out, without paths."""
    others = [replace(source, location=source.hub_id or source.name) for source in others]
    real = replace(real, location=real.hub_id or real.name)
    found = [
        warning(source)
        for source in others
        for warning in (unknown_generator, partial(foreign_parents, real=real))
    ]
    if not real.has_groups:
        found.append(
            f"{real.name} does not name the recordings of all clips: several clips of one may lie on both sides"
        )
    return [sentence for sentence in found if sentence]


def _untrained(planned: Sequence[PlannedRun], sources: dict[str, Source]) -> list[str]:
    """Sentences on classes that are tested without a clip to learn them from: their recall is 0 whatever is trained."""

    def classes(name: str, rows: np.ndarray) -> set[str]:
        return {sources[name].class_names[sources[name].clips[row].label] for row in rows.tolist()}

    found = []
    for run in planned:
        trained = set().union(*(classes(name, rows) for name, rows in run.rows.parts))
        if missing := sorted(classes("real", run.split.test) - trained):
            found.append(
                f"{run.mix.text}, test part {run.split.name}: no clips of {abbreviate_list(missing)} train there, so none can be "
                "recognized"
            )
    return found


def _trained_on_what_it_tests(plan: PlannedRun, sources: dict[str, Source]) -> list[str]:
    """Sentences on what has heard test recordings where the protocol cuts recordings apart, and so rules it out for none."""
    if plan.split.by_group:
        return []
    tested = {sources["real"].clips[row].group for row in plan.split.test.tolist()}
    found = []
    for part in plan.mix.parts:
        source = sources[part.name]
        heard = {
            "generator": bool(recordings_of(source.generator_trained_on, sources["real"]) & tested),
            "clip_filter": any(clip.filter_folds for clip in source.clips),
        }
        found += [
            f"the {who} of {part.name} has heard recordings that seed-9010 tests: more optimistic still"
            for who, has in heard.items()
            if has
        ]
    return found


def _tested_under_another_name(plan: PlannedRun, decoded: dict[str, DecodedSource]) -> list[str]:
    """A sentence on test clips whose very sound trains or validates too, as a clip of another name or in a synthetic one."""
    real = decoded["real"]
    tested = {
        real.source.clips[row].sound: real.source.clips[row].clip_id for row in plan.split.test.tolist()
    }
    used = [real.source.clips[row] for row in plan.split.validation.tolist()]
    used += [decoded[name].source.clips[row] for name, rows in plan.rows.parts for row in rows.tolist()]
    sounds = {sound for clip in used for sound in (clip.sound, *clip.parents)}
    if not (both := sorted(tested[sound] for sound in sounds & tested.keys())):
        return []
    of_all = f"{pluralize(len(both), 'sound')} of {len(plan.split.test):,} test clips"
    return [
        f"{plan.split.name}: {of_all} train or validate too, under another name ({abbreviate_list(both)}): scores are too high"
    ]


def _data_of(real: Source) -> str:
    """A fingerprint of all that decides what a run is tested on: clips, labels, recordings and folds."""
    rows = sorted(f"{c.clip_id}\t{real.class_names[c.label]}\t{c.group}\t{c.fold}" for c in real.clips)
    return hashlib.sha256("\n".join([real.name, *rows]).encode()).hexdigest()[:12]


class _Job:
    """Everything that the runs of one call share."""

    def __init__(
        self,
        decoded: dict[str, DecodedSource],
        sources: dict[str, Source],
        recipe: ClassifierPreset,
        settings: dict[str, Any],
        device: torch.device,
        out: Path,
        planned: Sequence[PlannedRun],
        epochs: int | None,
    ) -> None:
        self.decoded, self.sources, self.recipe = decoded, sources, recipe
        self.settings, self.device, self.out, self.planned = settings, device, out, planned
        self.epochs = epochs  # None: by the clips of each run's training part
        self._tables: dict[str, FeatureTable] = {}
        self.fingerprint = recipe.fingerprint(len(sources["real"].class_names))
        self.data = _data_of(sources["real"])
        self.labels = {
            name: torch.from_numpy(label_map(source, sources["real"])[[clip.label for clip in source.clips]])
            for name, source in sources.items()
        }
        self.identities = [self._identity(run) for run in planned]
        self.found = [find_run(out, identity) for identity in self.identities]
        self.todo = [index for index, run in enumerate(self.found) if run is None]

    def table(self, name: str) -> FeatureTable:
        """Features of one source on the device, computed on first use, and its labels."""
        if name not in self._tables:
            self._tables[name] = self._new_table(name)
        return self._tables[name]

    def _new_table(self, name: str) -> FeatureTable:
        return FeatureTable(
            features_of(self.decoded[name], self.recipe.features).to(self.device), self.labels[name]
        )

    def share(self, workers: int | None) -> Workers:
        """How many processes train what is missing."""
        steps = sum(self.identities[index].steps for index in self.todo)
        name, clips = self.settings["classifier"], steps * self.settings["batch"]
        largest = max(
            (sum(len(rows) for _, rows in self.planned[i].rows.parts) for i in self.todo), default=0
        )
        data_bytes = 2 * largest * math.prod(self.recipe.features.shape)
        return workers_for(workers, name, len(self.todo), clips, self.device, data_bytes)

    def sweep(self, share: Workers, report: Callable[[TrainProgress], None]) -> list[RunRecord]:
        """Every planned run, trained where `out` has not got it."""
        planned, identities, runs, todo = self.planned, self.identities, self.found, self.todo
        steps = {index: identities[index].steps for index in todo}
        all_steps = sum(steps.values())
        done_steps = dict.fromkeys(todo, 0)

        def after_epoch(index: int, epoch: int, accuracy: float) -> None:
            epochs = identities[index].epochs
            done_steps[index] = epoch * steps[index] // epochs
            label, done = planned[index].label, sum(done_steps.values())
            report(TrainProgress(index, len(planned), done, all_steps, label, epoch, epochs, accuracy))

        def ended(index: int, fitted: TrainedClassifier) -> None:
            runs[index] = self._save(planned[index], identities[index], fitted)

        tasks = [self._assignment(planned[index], identities[index]) for index in todo]
        if share.processes > 1:
            fit_in_processes(
                tasks,
                self.settings["classifier"],
                self._new_table,
                self.device,
                share,
                lambda task, epoch, accuracy: after_epoch(todo[task], epoch, accuracy),
                lambda task, fitted: ended(todo[task], fitted),
            )
        else:
            last_use = {name: place for place, task in enumerate(tasks) for name in tables_of(task)}
            for place, (index, task) in enumerate(zip(todo, tasks, strict=True)):
                tables = {name: self.table(name) for name in tables_of(task)}
                ended(
                    index, fit_classifier(task, self.recipe, tables, self.device, partial(after_epoch, index))
                )
                for name in [name for name, last in last_use.items() if last == place]:
                    del self._tables[name]  # many few-shot datasets would not fit together
        return [run for run in runs if run is not None]

    def _identity(self, plan: PlannedRun) -> RunIdentity:
        """All that decides a run."""
        split, settings = plan.split, self.settings
        epochs, steps = training_length(len(split.train), settings["batch"], self.recipe.epochs, self.epochs)
        parts = {part.name for part in plan.mix.parts}
        return RunIdentity(
            mix=plan.mix.text,
            classifier=settings["classifier"],
            classifier_revision=self.recipe.revision,
            recipe_hash=self.fingerprint,
            protocol=settings["protocol"],
            split=split.name,
            fold=int(split.name.removeprefix("fold")) if split.of_fold else None,
            seed=plan.seed,
            train_clips=split.train_clips,
            optimistic=split.optimistic,
            augment=plan.augment,
            augmentations="+".join(self.recipe.augmentations(plan.augment)),
            epochs=epochs,
            steps=steps,
            batch=settings["batch"],
            learning_rate=settings["learning_rate"],
            precision=settings["precision"],
            data=self.data,
            class_names=tuple(self.sources["real"].class_names),
            sources=tuple(
                _source_of(name, self.sources[name], name in parts)
                for name in dict.fromkeys(["real", *sorted(parts)])
            ),
        )

    def _assignment(self, plan: PlannedRun, identity: RunIdentity) -> TrainTask:
        names, precision = self.sources["real"].class_names, identity.precision
        return TrainTask(
            classifier_settings(identity.classifier, self.recipe, names, precision, plan.augment),
            plan.augment,
            plan.seed,
            identity.epochs,
            identity.steps,
            identity.batch,
            identity.learning_rate,
            precision,
            *self._choice(plan.split.optimistic, identity.epochs),
            tuple(plan.rows.parts),
            plan.split.validation,
            plan.split.test,
            self.out,
            identity.folder_name,
        )

    def _choice(self, optimistic: bool, epochs: int) -> tuple[int, int, int]:
        """How the epoch is chosen: every how many are validated, after how many one may be chosen, and the validations
        whose mean chooses."""
        if optimistic:  # as published: the single best one
            return 1, 0, 1
        return math.ceil(epochs / VALIDATIONS), 2 * epochs // 3 if self.recipe.cosine else 0, SELECTION_WINDOW

    def _save(self, plan: PlannedRun, identity: RunIdentity, fitted: TrainedClassifier) -> RunRecord:
        real, rows, split = self.sources["real"], plan.rows, plan.split
        tested = [real.clips[row] for row in split.test]
        predictions = Predictions(
            np.array([clip.clip_id for clip in tested]),
            np.array([clip.group for clip in tested]),
            self.labels["real"][split.test].numpy(),
            fitted.probabilities.argmax(axis=1),
            fitted.probabilities,
        )
        used = [self.sources[source.dataset] for source in identity.sources]
        leaks = _not_ruled_out([source for source in used if source is not real], real)
        record = RunRecord(
            **vars(identity),
            accuracy=metrics.accuracy(predictions.labels, predictions.predicted),
            macro_f1=metrics.macro_f1(predictions.labels, predictions.predicted, len(real.class_names)),
            best_epoch=fitted.best_epoch,
            validation_accuracy=figure(fitted.validation_accuracy),
            n_real=rows.count(self.sources, synthetic=False),
            n_synthetic=rows.count(self.sources, synthetic=True),
            dropped=rows.dropped,
            n_validation=len(split.validation),
            n_test=len(split.test),
            n_test_recordings=len({clip.group for clip in tested}),
            leaks=tuple(leaks),
            caveats=(
                *leaks,
                *trained_beyond_the_subset([plan], self.sources),
                *_trained_on_what_it_tests(plan, self.sources),
                *(_tested_under_another_name(plan, self.decoded) if split.by_group else []),
            ),
            license=strictest_license(source.license for source in used),
            device=str(self.device),
            took_s=round(fitted.took_s, 1),
            created=datetime.datetime.now(datetime.UTC),
        )
        card = run_card(record, predictions, fitted.classifier)
        saved = save_run(self.out, record, predictions, fitted.classifier, fitted.history, card)
        Checkpoint(self.out, identity.folder_name, self.device).remove()
        return saved
