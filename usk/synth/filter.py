"""The classifier filter of `usk synth`: classifiers score the synthetic clips, and the best clips are kept.

By default a clip is scored by a classifier that was trained on the folds of the clip's parents alone. The clip may then train
wherever these folds are not tested. If test folds are named, one classifier is trained on all other folds. In both cases a
classifier is trained only on recordings that parents are drawn from and that have no clips in other folds. The manifest and the
rows record what it was trained on. `usk train` and `usk audit` apply the leak rules to it, as they do to generators.
"""

from __future__ import annotations

import hashlib
import io
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from usk.audio.features import features_at, features_of
from usk.classify.config import DEFAULT_CLASSIFIER
from usk.classify.feature_table import FeatureTable
from usk.classify.loop import BATCH_NORM_CLIPS, StepSettings, Training, evenly_spaced
from usk.classify.recipe import ClassifierPreset
from usk.classify.registry import preset
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
MIN_STEPS = 150
BATCH = 128

Folds = tuple[int, ...]
"""The folds that a classifier was trained on. They identify it."""

# --- training data and selection: pure functions --------------------------------------------------------------


def scorer_of(clip: PlannedClip, single: Folds) -> Folds:
    """Return the classifier that scores a clip: the `single` one, or without it (`()`) the one of the parents' folds."""
    return single or tuple(sorted(set(clip.parent_folds)))


def usable_rows(
    pool: Sequence[Clip], known_clips: Sequence[Clip], scorers: Iterable[Folds]
) -> dict[Folds, list[int]]:
    """Return the rows of `pool` that each scorer may be based on.

    Recordings that are held out for validation or have clips in other folds are left out. `known_clips` are all clips of the
    source.
    """
    held_out = held_out_groups(known_clips)
    folds_of: dict[str, set[int]] = defaultdict(set)
    for clip in known_clips:
        folds_of[clip.group].add(clip.fold)
    return {
        scorer: [
            row
            for row, clip in enumerate(pool)
            if clip.group not in held_out and folds_of[clip.group] <= set(scorer)
        ]
        for scorer in scorers
    }


def training_rows(
    pool: Sequence[Clip],
    known_clips: Sequence[Clip],
    planned: Sequence[PlannedClip],
    class_names: Sequence[str],
    is_single: bool,
) -> dict[Folds, list[int]]:
    """Return the classifiers that the planned clips need, and the rows of `pool` that each is trained on.

    Args:
        pool: the clips that parents are drawn from.
        known_clips: all clips of the source.
        is_single: whether one classifier is trained on the whole pool, instead of one for each fold.

    Raises SourceError for a classifier with one class, or with too few recordings of a planned class.
    """
    all_folds = tuple(sorted({clip.fold for clip in pool}))
    labels_of: dict[Folds, set[int]] = defaultdict(set)
    for planned_clip in planned:
        labels_of[scorer_of(planned_clip, all_folds if is_single else ())].add(planned_clip.label)
    rows_of = usable_rows(pool, known_clips, sorted(labels_of))
    for folds, rows in rows_of.items():
        recordings: dict[int, set[str]] = defaultdict(set)
        for row in rows:
            recordings[pool[row].label].add(pool[row].group)
        if is_single:
            who, more = "its classifier", "Add recordings."
        else:
            who = f"the classifier of fold {', '.join(map(str, folds))}"
            more = "Or name the test folds: one classifier then learns all others."
        if len(recordings) < 2:
            raise SourceError(
                f"{who} would be trained on clips of one class and could not tell it from others",
                field="filter",
                hint=f"Filter more classes at once. {more}",
            )
        for label in sorted(labels_of[folds]):
            if len(recordings[label]) < MIN_RECORDINGS:
                raise SourceError(
                    f"{who} cannot learn the class {class_names[label]}: it has {len(recordings[label])} of at least "
                    f"{MIN_RECORDINGS} recordings",
                    field="filter",
                    hint=f"Leave the class out. {more}",
                )
    return rows_of


def training_records(
    pool: Sequence[Clip], rows_of: Mapping[Folds, Sequence[int]]
) -> tuple[FilterTrainedOn, ...]:
    """Return the manifest's records of scorers that are based on these rows of `pool`."""
    clips_of = {folds: [pool[row] for row in rows] for folds, rows in rows_of.items()}
    return tuple(
        FilterTrainedOn(
            folds,
            len(clips),
            tuple(sorted({clip.group for clip in clips})),
            tuple(sorted({clip.identity for clip in clips})),
        )
        for folds, clips in clips_of.items()
    )


def select_best(
    planned: Sequence[PlannedClip], scorers: Sequence[Folds], scores: Sequence[float], per_class: int
) -> set[str]:
    """Return the ids of the best `per_class` clips of each class.

    The scores of different classifiers are not compared, nor those of different strategies: of each, clips are kept in
    proportion to those that were made. Equal scores are ordered by id.
    """
    members: dict[int, dict[tuple[Folds, str], list[int]]] = defaultdict(lambda: defaultdict(list))
    for index, clip in enumerate(planned):
        members[clip.label][scorers[index], clip.strategy].append(index)
    kept: set[str] = set()
    for of_class in members.values():
        groups = [indices for _, indices in sorted(of_class.items())]
        for indices, n in zip(groups, proportional(per_class, [len(some) for some in groups]), strict=True):
            ranked = sorted(indices, key=lambda index: (-scores[index], planned[index].clip_id))
            kept |= {planned[index].clip_id for index in ranked[:n]}
    return kept


def select_clips(
    record: FilterRecord, planned: Sequence[PlannedClip], scores: Mapping[str, float], per_class: int
) -> set[str]:
    """Return the ids of the clips to keep, given the scores by clip id. Raises SourceError if an outside model keeps none."""
    if record.least_score is None:
        single = record.trained_on[0].folds if record.test_folds else ()
        scorers = [scorer_of(clip, single) for clip in planned]
        return select_best(planned, scorers, [scores[clip.clip_id] for clip in planned], per_class)
    kept = {clip.clip_id for clip in planned if scores[clip.clip_id] >= record.least_score}
    if not kept:
        raise SourceError(
            f"keeps none of {len(planned)} clips: the best score is {max(scores.values()):.2f} of the real clips' median",
            field="filter",
            value=record.classifier,
            hint="Listen to them: the generator may not know these classes.",
        )
    return kept


# --- the classifiers ------------------------------------------------------------------------------------------


class ClipFilter:
    """The classifiers of a dataset. They are trained once and stored in the work folder until the dataset is finished."""

    def __init__(
        self,
        pool: DecodedSource,
        known_clips: Sequence[Clip],
        planned: Sequence[PlannedClip],
        config: SynthConfig,
        device: torch.device,
        classifier: str = DEFAULT_CLASSIFIER,
    ) -> None:
        """`pool` has the clips that parents are drawn from. Raises what `training_rows` raises."""
        self.pool, self.config, self.device, self.classifier = pool, config, device, classifier
        self.recipe: ClassifierPreset = preset(classifier)
        is_single = bool(config.test_folds)
        class_names = pool.source.class_names
        self.rows_of = training_rows(pool.source.clips, known_clips, planned, class_names, is_single)
        self.single: Folds = next(iter(self.rows_of)) if is_single else ()
        self.classifiers: dict[Folds, nn.Module] = {}

    def record(self) -> FilterRecord:
        """Return the filter's entry in the manifest."""
        return FilterRecord(
            classifier=self.classifier,
            share_kept=self.config.share_kept,
            test_folds=self.config.test_folds,
            trained_on=training_records(self.pool.source.clips, self.rows_of),
        )

    def prepare(self, work: Path, reporter: Reporter) -> None:
        """Train the classifiers, or read those that an interrupted run left in `work`."""
        from safetensors.torch import load, save

        n_steps = {
            folds: max(MIN_STEPS, self.recipe.epochs * math.ceil(len(rows) / self.recipe.batch))
            for folds, rows in self.rows_of.items()
        }
        with reporter.task("training the classifier filter", "steps", sum(n_steps.values())) as task:
            done = 0
            for folds, rows in self.rows_of.items():
                key = hashlib.sha256(repr(folds).encode()).hexdigest()[:12]
                path = work / f"filter-{key}.safetensors"
                with disk_errors(work.parent), creation_lock(path):  # one process trains it
                    weights = read_checked(path)
                    if weights is None:
                        model = self._train(rows, n_steps[folds], task, done)
                        tensors = {key: one.contiguous().cpu() for key, one in model.state_dict().items()}
                        weights = save(tensors)
                        atomic_write(path, checked(weights))
                    model = self._new_network()
                    model.load_state_dict(load(weights))
                self.classifiers[folds] = model.to(self.device).eval()
                done += n_steps[folds]
                task.update(done)

    def _new_network(self, probe: torch.Tensor | None = None) -> nn.Module:
        return self.recipe.model(len(self.pool.source.class_names), probe)

    def _train(self, rows: list[int], n_steps: int, task: Task, done: int) -> nn.Module:
        """Train a classifier with its preset, to the last step: no epoch is chosen.

        Its random numbers do not depend on earlier draws, so that training again gives the same weights.
        """
        recipe, device = self.recipe, self.device
        # At the generator's sample rate, so that bandwidth does not tell real clips from synthetic ones
        features = features_of(self.pool.subset(rows), recipe.features).to(device)
        labels = torch.tensor([self.pool.source.clips[row].label for row in rows], device=device)
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(self.config.seed)
            model = self._new_network(features.float().cpu()).to(device).train()
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
        """Write the score of each planned clip, and its classifier's folds, into the clip's row.

        The audio is read from the row, as it will be stored.
        """
        import soundfile

        scorers = [scorer_of(clip, self.single) for clip in planned]
        for folds in sorted(set(scorers)):
            own = [index for index, scorer in enumerate(scorers) if scorer == folds]
            files = (io.BytesIO(rows[index]["audio"]["bytes"]) for index in own)
            audio = (soundfile.read(file, dtype="float32")[0] for file in files)
            features = features_at(audio, len(own), rate_hz, self.recipe.features)
            probabilities = self._probabilities(folds, features)
            for place, index in enumerate(own):
                rows[index]["filter_score"] = round(float(probabilities[place, planned[index].label]), 6)
                rows[index]["filter_folds"] = list(folds)

    def _probabilities(self, folds: Folds, features: torch.Tensor) -> np.ndarray:
        """Return a classifier's probabilities [n, classes] for log-mel features in dB."""
        parts = []
        with torch.no_grad():
            for batch in features.split(BATCH):
                logits = self.classifiers[folds](batch.to(self.device).float())
                parts.append(logits.float().softmax(dim=1).cpu())
        return torch.cat(parts).numpy()
