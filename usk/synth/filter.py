"""The clip_filter of `usk synth --filter`: a classifier that scores each synthetic clip, fitted on what may train beside it.

A clip trains in every round that tests none of its parents' folds, so a clip_filter that one dataset can serve all rounds with
may have heard those folds alone: a clip is judged by the classifier of its own fold. Where the folds to be tested are
named, one clip_filter hears all the others. Either way it hears nothing but recordings that parents are drawn from: none that
are held out for validation, none that also occur in a fold that it must not know. What it heard goes into the manifest and
the rows, and `usk train` and `usk audit` hold the clips to it as they do for generators.
"""

from __future__ import annotations

import hashlib
import io
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from usk.audio.features import Features, fit_length
from usk.classify.loop import BATCH_NORM_CLIPS, FeatureTable, Training, evenly
from usk.classify.recipe import ClassifierPreset
from usk.classify.registry import DEFAULT_CLASSIFIER, preset
from usk.data.clip import Clip
from usk.data.decode import DecodedSource, Progress
from usk.data.splits import held_out_groups
from usk.device import default_precision
from usk.errors import SourceError, UsageError, disk_errors
from usk.files import atomic_write
from usk.manifest import FilterRecord, FilterTrainedOn
from usk.synth.plan import PlannedClip, proportional

DEFAULT_KEEP = 0.5
MIN_RECORDINGS = 2  # of a class, for a clip_filter to know it
MIN_STEPS = 150  # however few the clips
BATCH = 128

FilterName = tuple[int, ...]
"""The folds that a clip_filter has heard, which name it."""


@dataclass(frozen=True)
class FilterConfig:
    """How synthetic clips are judged. Neither `keep` nor `threshold`: the better half is kept."""

    keep: float | None = None  # the share of the clips of a class that is kept
    threshold: float | None = None  # the score from which a clip may be kept
    test_folds: tuple[
        int, ...
    ] = ()  # will be tested: one clip_filter hears all others, parents come from them
    classifier: str = DEFAULT_CLASSIFIER

    def __post_init__(self) -> None:
        if self.keep is not None and not 0 < self.keep <= 1:
            raise UsageError(f"--keep must lie above 0 and up to 1, not {self.keep:g}")
        if self.threshold is not None and not 0 < self.threshold < 1:
            raise UsageError(f"--filter-threshold must lie between 0 and 1, not {self.threshold:g}")
        preset(self.classifier)

    @property
    def share(self) -> float:
        """Of the clips that are made, the share that is kept at most."""
        if self.keep is None:
            return DEFAULT_KEEP if self.threshold is None else 1.0
        return self.keep

    def to_make(self, n_kept: int) -> int:
        """How many clips to make for `n_kept`."""
        return math.ceil(n_kept / self.share - 1e-9)


# --- who hears what, and what is kept: pure -------------------------------------------------------------------


@dataclass(frozen=True)
class FilterTraining:
    """What one clip_filter is fitted on: rows of the clips that parents are drawn from."""

    folds: FilterName
    rows: tuple[int, ...]
    groups: frozenset[str]
    sounds: frozenset[str]


def filter_trainings(
    pool: Sequence[Clip],
    known_clips: Sequence[Clip],
    planned: Sequence[PlannedClip],
    class_names: Sequence[str],
    one_filter: bool,
) -> dict[FilterName, FilterTraining]:
    """The clip_filters that the planned clips need.

    Args:
        pool: clips that parents are drawn from.
        known_clips: all clips of the source; they decide what is held out, and which recordings lie in other folds too.
        one_filter: one that hears all of the pool, instead of one a fold.

    Raises SourceError for a clip_filter with a single class, and for a planned class that a clip_filter cannot know.
    """
    held = held_out_groups(known_clips)
    folds_of: dict[str, set[int]] = defaultdict(set)
    for clip in known_clips:
        folds_of[clip.group].add(clip.fold)
    everywhere = tuple(sorted({clip.fold for clip in pool}))
    wanted: dict[FilterName, set[int]] = defaultdict(set)
    for one in planned:
        wanted[filter_of(one, everywhere if one_filter else ())].add(one.label)
    made = {}
    for name, labels in sorted(wanted.items()):
        rows = tuple(
            row
            for row, clip in enumerate(pool)
            if clip.group not in held and folds_of[clip.group] <= set(name)
        )
        recordings: dict[int, set[str]] = defaultdict(set)
        for row in rows:
            recordings[pool[row].label].add(pool[row].group)
        who = "the clip_filter" if one_filter else f"the clip_filter of fold {', '.join(map(str, name))}"
        more = (
            "add recordings"
            if one_filter
            else "or let one clip_filter hear all folds but those of --test-folds"
        )
        if len(recordings) < 2:
            raise SourceError(
                f"--filter: {who} hears clips of one class only and cannot tell it from others; clip_filter more classes at once, {more}"
            )
        for label in sorted(labels):
            if len(recordings[label]) < MIN_RECORDINGS:
                raise SourceError(
                    f"--filter: {who} cannot know the class {class_names[label]}: it hears {len(recordings[label])} of the "
                    f"{MIN_RECORDINGS} recordings that take part at least; leave the class out with --classes, {more}"
                )
        made[name] = FilterTraining(
            name,
            rows,
            frozenset(pool[row].group for row in rows),
            frozenset(pool[row].identity for row in rows),
        )
    return made


def filter_of(clip: PlannedClip, everywhere: FilterName) -> FilterName:
    """Who clip_filters a clip: the one clip_filter of all folds, else the one of its parents' fold."""
    return everywhere or tuple(sorted(set(clip.parent_folds)))


def best(
    planned: Sequence[PlannedClip],
    clip_filters: Sequence[FilterName],
    scores: Sequence[float],
    per_class: int,
    config: FilterConfig,
) -> set[str]:
    """Ids of the clips to keep: of each class and clip_filter, in proportion to the clips made, the best that reach the
    threshold. Scores of different clip_filters are not compared. Ties go by id."""
    subsets: dict[int, dict[FilterName, list[int]]] = defaultdict(lambda: defaultdict(list))
    for index, clip in enumerate(planned):
        subsets[clip.label][clip_filters[index]].append(index)
    kept: set[str] = set()
    for of_class in subsets.values():
        places = proportional(per_class, [len(members) for _, members in sorted(of_class.items())])
        for (_, members), n in zip(sorted(of_class.items()), places, strict=True):
            ranked = sorted(members, key=lambda index: (-scores[index], planned[index].clip_id))
            kept |= {
                planned[index].clip_id
                for index in ranked[:n]
                if config.threshold is None or scores[index] >= config.threshold
            }
    return kept


def _file_name(folds: FilterName) -> str:
    """A clip_filter's folds, in few letters where they are many: a fold may be a speaker."""
    named = "-".join(map(str, folds))
    return named if len(named) <= 40 else hashlib.sha256(named.encode()).hexdigest()[:12]


# --- the clip_filters ------------------------------------------------------------------------------------------------


class ClipFilter:
    """The clip_filters of one dataset: fitted once, kept beside the plan until the dataset is finished."""

    def __init__(
        self,
        decoded: DecodedSource,
        known_clips: Sequence[Clip],
        planned: Sequence[PlannedClip],
        config: FilterConfig,
        one_filter: bool,
        seed: int,
        device: torch.device,
    ) -> None:
        """`decoded` is what parents are drawn from. Raises what `filter_trainings` raises."""
        pool = decoded.source
        self.decoded, self.config, self.seed, self.device = decoded, config, seed, device
        self.recipe: ClassifierPreset = preset(config.classifier)
        self.filter_trainings = filter_trainings(
            pool.clips, known_clips, planned, pool.class_names, one_filter
        )
        self.everywhere: FilterName = next(iter(self.filter_trainings)) if one_filter else ()
        self.clip_filters: dict[FilterName, nn.Module] = {}

    def record(self) -> FilterRecord:
        """What the manifest says of it."""
        return FilterRecord(
            classifier=self.config.classifier,
            share_kept=self.config.share,
            test_folds=self.config.test_folds,
            trained_on=tuple(
                FilterTrainedOn(
                    one.folds, len(one.rows), tuple(sorted(one.groups)), tuple(sorted(one.sounds))
                )
                for one in self.filter_trainings.values()
            ),
        )

    def prepare(self, work: Path, progress: Progress | None = None) -> None:
        """Fit the clip_filters, or read those that an interrupted run has left in `work`."""
        from safetensors.torch import load, save

        n_steps = {name: self._n_steps(one) for name, one in self.filter_trainings.items()}
        done = 0
        for name, filter_training in self.filter_trainings.items():
            path = work / f"filter-{_file_name(name)}.safetensors"
            try:
                model = self._network()
                model.load_state_dict(load(path.read_bytes()))
            except FileNotFoundError:
                report = None if progress is None else partial(self._report, progress, done, n_steps)
                model = self._fit(filter_training, n_steps[name], report)
                weights = {key: tensor.contiguous().cpu() for key, tensor in model.state_dict().items()}
                with disk_errors(work.parent):
                    atomic_write(path, save(weights))
            self.clip_filters[name] = model.to(self.device).eval()
            done += n_steps[name]

    @staticmethod
    def _report(progress: Progress, before: int, n_steps: Mapping[FilterName, int], step: int) -> None:
        progress(before + step, sum(n_steps.values()))

    def _n_steps(self, filter_training: FilterTraining) -> int:
        return max(MIN_STEPS, self.recipe.epochs * math.ceil(len(filter_training.rows) / self.recipe.batch))

    def _network(self, probe: torch.Tensor | None = None) -> nn.Module:
        return self.recipe.model(len(self.decoded.source.class_names), probe)

    def _fit(self, filter_training: FilterTraining, n_steps: int, report: Any) -> nn.Module:
        """One classifier, trained as `usk train` trains its preset, to the last step: no epoch is chosen.

        Its draws are its own, whatever was drawn before: fitted again, it is the same.
        """
        recipe, device = self.recipe, self.device
        audio = (self.decoded.audio(row) for row in filter_training.rows)
        features = features_at(audio, self.decoded.sample_rate_hz, recipe.features).to(device)
        labels = torch.tensor(
            [self.decoded.source.clips[row].label for row in filter_training.rows], device=device
        )
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(self.seed)
            model = self._network(features.float().cpu()).to(device).train()
            training = Training(
                model,
                recipe,
                FeatureTable(features, labels),
                steps=n_steps,
                batch=recipe.batch,
                learning_rate=recipe.learning_rate,
                augment=recipe.augment,
                precision=default_precision(device),
                seed=self.seed,
            )
            for step in range(n_steps):
                training.step()
                if report is not None:
                    report(step + 1)
            training.reestimate_batch_norm(evenly(features, BATCH_NORM_CLIPS))
        return model

    def score(self, planned: Sequence[PlannedClip], rows: Sequence[dict[str, Any]], rate_hz: int) -> None:
        """Write its score, and the folds that its clip_filter has heard, into the row of each planned clip.

        The audio judged is the row's own, as it is stored.
        """
        import soundfile

        names = [filter_of(clip, self.everywhere) for clip in planned]
        for name in sorted(set(names)):
            own = [index for index, clip_filter in enumerate(names) if clip_filter == name]
            stored = (io.BytesIO(rows[index]["audio"]["bytes"]) for index in own)
            audio = (soundfile.read(file, dtype="float32")[0] for file in stored)
            features = features_at(audio, rate_hz, self.recipe.features)
            probabilities = self.probabilities(name, features)
            for place, index in enumerate(own):
                rows[index]["filter_score"] = round(float(probabilities[place, planned[index].label]), 6)
                rows[index]["filter_folds"] = list(name)

    def probabilities(self, name: FilterName, features: torch.Tensor) -> np.ndarray:
        """What one clip_filter makes of log-mel features in dB: [n, classes]."""
        parts = []
        with torch.no_grad():
            for batch in features.split(BATCH):
                logits = self.clip_filters[name](batch.to(self.device).float())
                parts.append(logits.float().softmax(dim=1).cpu())
        return torch.cat(parts).numpy()


def features_at(audio: Iterable[np.ndarray], rate_hz: int, settings: Features) -> torch.Tensor:
    """Features of clips at any rate: float16 [n, bands, frames].

    Real and synthetic clips come at the generator's rate, so that a clip_filter knows neither by its bandwidth.
    """
    import soxr

    parts, n_samples = [], settings.n_samples
    batch: list[np.ndarray] = []

    def flush() -> None:
        if batch:
            parts.append(settings.of_audio(torch.from_numpy(np.stack(batch))).half())
            batch.clear()

    for samples in audio:
        if rate_hz != settings.sample_rate_hz:
            samples = soxr.resample(samples, rate_hz, settings.sample_rate_hz, quality="HQ")
        batch.append(fit_length(np.ascontiguousarray(samples, np.float32), n_samples, settings.repeat_short))
        if len(batch) == 64:
            flush()
    flush()
    return torch.cat(parts)
