"""The classifier filter of `usk synth`: a classifier scores each synthetic clip, and the best are kept.

A clip is scored by a classifier that was trained on its parents' folds alone, so that it may train wherever those are not tested;
where the folds to be tested are named, by one that was trained on all others. Either knows nothing but recordings that parents are
drawn from, none of which also occurs in another fold. What it was trained on goes into the manifest and the rows, and `usk train`
and `usk audit` hold the clips to it as they do for generators.
"""

from __future__ import annotations

import hashlib
import io
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from usk.audio.features import features_at, features_of
from usk.classify.feature_table import FeatureTable
from usk.classify.loop import BATCH_NORM_CLIPS, StepSettings, Training, evenly_spaced
from usk.classify.recipe import ClassifierPreset
from usk.classify.registry import DEFAULT_CLASSIFIER, preset
from usk.data.cache import checked, read_checked
from usk.data.clip import Clip
from usk.data.decode import DecodedSource
from usk.data.splits import held_out_groups
from usk.device import default_precision
from usk.errors import SourceError, disk_errors
from usk.files import atomic_write, creation_lock
from usk.manifest import FilterRecord, FilterTrainedOn
from usk.reporter import Reporter, Task
from usk.synth.plan import PlannedClip, proportional
from usk.synth.settings import SynthConfig

MIN_RECORDINGS = 2  # of a class, for a classifier to learn it
MIN_STEPS = 150  # however few the clips
BATCH = 128

Folds = tuple[int, ...]
"""The folds that a classifier was trained on, which name it."""

# --- who is trained on what, and what is kept: pure -----------------------------------------------------------


def filter_trainings(
    pool: Sequence[Clip],
    known_clips: Sequence[Clip],
    planned: Sequence[PlannedClip],
    class_names: Sequence[str],
    one_for_all: bool,
) -> dict[Folds, list[int]]:
    """The classifiers that the planned clips need, each with the rows of `pool` that it is trained on.

    Args:
        pool: clips that parents are drawn from.
        known_clips: all clips of the source; they decide what is held out, and which recordings lie in other folds too.
        one_for_all: one that is trained on all of the pool, instead of one a fold.

    Raises SourceError for a classifier with a single class, and for a planned class that a classifier cannot learn.
    """
    held = held_out_groups(known_clips)
    folds_of: dict[str, set[int]] = defaultdict(set)
    for clip in known_clips:
        folds_of[clip.group].add(clip.fold)
    everywhere = tuple(sorted({clip.fold for clip in pool}))
    wanted: dict[Folds, set[int]] = defaultdict(set)
    for one in planned:
        wanted[scored_by(one, everywhere if one_for_all else ())].add(one.label)
    made = {}
    for name, labels in sorted(wanted.items()):
        rows = [
            row
            for row, clip in enumerate(pool)
            if clip.group not in held and folds_of[clip.group] <= set(name)
        ]
        recordings: dict[int, set[str]] = defaultdict(set)
        for row in rows:
            recordings[pool[row].label].add(pool[row].group)
        who = "its classifier" if one_for_all else f"the classifier of fold {', '.join(map(str, name))}"
        more = (
            "Add recordings."
            if one_for_all
            else "Or name the test folds: one classifier then learns all others."
        )
        if len(recordings) < 2:
            raise SourceError(
                f"{who} would be trained on clips of one class and could not tell it from others",
                field="filter",
                hint=f"Filter more classes at once. {more}",
            )
        for label in sorted(labels):
            if len(recordings[label]) < MIN_RECORDINGS:
                raise SourceError(
                    f"{who} cannot learn the class {class_names[label]}: it has {len(recordings[label])} of at least "
                    f"{MIN_RECORDINGS} recordings",
                    field="filter",
                    hint=f"Leave the class out. {more}",
                )
        made[name] = rows
    return made


def trained_on(pool: Sequence[Clip], rows_of: Mapping[Folds, Sequence[int]]) -> tuple[FilterTrainedOn, ...]:
    """What a manifest says of filters that know these rows of `pool`."""
    known = {folds: [pool[row] for row in rows] for folds, rows in rows_of.items()}
    return tuple(
        FilterTrainedOn(
            folds,
            len(clips),
            tuple(sorted({clip.group for clip in clips})),
            tuple(sorted({clip.identity for clip in clips})),
        )
        for folds, clips in known.items()
    )


def scored_by(clip: PlannedClip, everywhere: Folds) -> Folds:
    """Which classifier scores a clip: the one of all folds, else the one of its parents' fold."""
    return everywhere or tuple(sorted(set(clip.parent_folds)))


def best(
    planned: Sequence[PlannedClip], scorers: Sequence[Folds], scores: Sequence[float], per_class: int
) -> set[str]:
    """Ids of the clips to keep: of each class and classifier, in proportion to the clips made, the best.

    Scores of different classifiers are not compared. Ties go by id.
    """
    members: dict[int, dict[Folds, list[int]]] = defaultdict(lambda: defaultdict(list))
    for index, clip in enumerate(planned):
        members[clip.label][scorers[index]].append(index)
    kept: set[str] = set()
    for of_class in members.values():
        places = proportional(per_class, [len(indices) for _, indices in sorted(of_class.items())])
        for (_, indices), n in zip(sorted(of_class.items()), places, strict=True):
            ranked = sorted(indices, key=lambda index: (-scores[index], planned[index].clip_id))
            kept |= {planned[index].clip_id for index in ranked[:n]}
    return kept


def kept_by(
    record: FilterRecord, planned: Sequence[PlannedClip], scores: Mapping[str, float], per_class: int
) -> set[str]:
    """Ids of the clips to keep. `scores`: of all clips, by id. Raises SourceError where an outside model keeps none."""
    if record.least_score is None:
        everywhere = record.trained_on[0].folds if record.test_folds else ()
        scorers = [scored_by(clip, everywhere) for clip in planned]
        return best(planned, scorers, [scores[clip.clip_id] for clip in planned], per_class)
    kept = {clip.clip_id for clip in planned if scores[clip.clip_id] >= record.least_score}
    if not kept:
        raise SourceError(
            f"keeps none of {len(planned)} clips: the best score is {max(scores.values()):.2f} of the real clips' median",
            field="filter_model",
            value=record.classifier,
            hint="Listen to them: the generator may not know these classes.",
        )
    return kept


def _file_name(folds: Folds) -> str:
    """A classifier's folds, in few letters where they are many: a fold may be a speaker."""
    named = "-".join(map(str, folds))
    return named if len(named) <= 40 else hashlib.sha256(named.encode()).hexdigest()[:12]


# --- the classifiers ------------------------------------------------------------------------------------------


class ClipFilter:
    """The classifiers of one dataset: trained once, kept beside the plan until the dataset is finished."""

    def __init__(
        self,
        pool: DecodedSource,
        known_clips: Sequence[Clip],
        planned: Sequence[PlannedClip],
        config: SynthConfig,
        device: torch.device,
        classifier: str = DEFAULT_CLASSIFIER,
    ) -> None:
        """`pool` is what parents are drawn from. Raises what `filter_trainings` raises."""
        self.pool, self.config, self.device, self.classifier = pool, config, device, classifier
        self.recipe: ClassifierPreset = preset(classifier)
        clips, names = pool.source.clips, pool.source.class_names
        one_for_all = bool(config.test_folds)
        self.trainings = filter_trainings(clips, known_clips, planned, names, one_for_all)
        self.everywhere: Folds = next(iter(self.trainings)) if one_for_all else ()
        self.classifiers: dict[Folds, nn.Module] = {}

    def record(self) -> FilterRecord:
        """What the manifest says of it."""
        return FilterRecord(
            classifier=self.classifier,
            share_kept=self.config.filter or 1.0,
            test_folds=self.config.test_folds,
            trained_on=trained_on(self.pool.source.clips, self.trainings),
        )

    def prepare(self, work: Path, reporter: Reporter) -> None:
        """Train the classifiers, or read those that an interrupted run has left in `work`."""
        from safetensors.torch import load, save

        n_steps = {
            name: max(MIN_STEPS, self.recipe.epochs * math.ceil(len(rows) / self.recipe.batch))
            for name, rows in self.trainings.items()
        }
        with reporter.task("training the classifier filter", "steps", sum(n_steps.values())) as task:
            done = 0
            for name, rows in self.trainings.items():
                path = work / f"filter-{_file_name(name)}.safetensors"
                with disk_errors(work.parent), creation_lock(path):  # one process trains it
                    weights = read_checked(path)
                    if weights is None:
                        model = self._train(rows, n_steps[name], task, done)
                        tensors = {key: one.contiguous().cpu() for key, one in model.state_dict().items()}
                        weights = save(tensors)
                        atomic_write(path, checked(weights))
                    model = self._network()
                    model.load_state_dict(load(weights))
                self.classifiers[name] = model.to(self.device).eval()
                done += n_steps[name]
                task.update(done)

    def _network(self, probe: torch.Tensor | None = None) -> nn.Module:
        return self.recipe.model(len(self.pool.source.class_names), probe)

    def _train(self, rows: list[int], n_steps: int, task: Task, done: int) -> nn.Module:
        """One classifier, trained as `usk train` trains its preset, to the last step: no epoch is chosen.

        Its draws are its own, whatever was drawn before: trained again, it is the same.
        """
        recipe, device = self.recipe, self.device
        # At the generator's rate, as synthetic clips are: a classifier knows neither by its bandwidth.
        features = features_of(self.pool.subset(rows), recipe.features).to(device)
        labels = torch.tensor([self.pool.source.clips[row].label for row in rows], device=device)
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(self.config.seed)
            model = self._network(features.float().cpu()).to(device).train()
            settings = StepSettings(
                steps=n_steps,
                batch=recipe.batch,
                learning_rate=recipe.learning_rate,
                augment=recipe.augment,
                precision=default_precision(device),
                seed=self.config.seed,
            )
            training = Training(model, recipe, FeatureTable(features, labels), settings)
            for step in range(n_steps):
                training.step()
                task.update(done + step + 1)
            training.reestimate_batch_norm(evenly_spaced(features, BATCH_NORM_CLIPS))
        return model

    def score(self, planned: Sequence[PlannedClip], rows: Sequence[dict[str, Any]], rate_hz: int) -> None:
        """Write its score, and the folds that its classifier was trained on, into the row of each planned clip.

        The audio scored is the row's own, as it is stored.
        """
        import soundfile

        names = [scored_by(clip, self.everywhere) for clip in planned]
        for name in sorted(set(names)):
            own = [index for index, scorer in enumerate(names) if scorer == name]
            stored = (io.BytesIO(rows[index]["audio"]["bytes"]) for index in own)
            audio = (soundfile.read(file, dtype="float32")[0] for file in stored)
            features = features_at(audio, len(own), rate_hz, self.recipe.features)
            probabilities = self.probabilities(name, features)
            for place, index in enumerate(own):
                rows[index]["filter_score"] = round(float(probabilities[place, planned[index].label]), 6)
                rows[index]["filter_folds"] = list(name)

    def probabilities(self, name: Folds, features: torch.Tensor) -> np.ndarray:
        """What one classifier makes of log-mel features in dB: [n, classes]."""
        parts = []
        with torch.no_grad():
            for batch in features.split(BATCH):
                logits = self.classifiers[name](batch.to(self.device).float())
                parts.append(logits.float().softmax(dim=1).cpu())
        return torch.cat(parts).numpy()
