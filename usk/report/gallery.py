"""Clips to look at and listen to: synthetic ones beside their parents, compressed, within a budget.

Every sound becomes an MP3 and a WebP picture of its mel spectrogram; all pictures share one scale in dB, so that
loudness can be compared by eye. What does not fit into the budget is left out evenly: classes take turns, and folds
within them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import zip_longest
from pathlib import Path

import numpy as np

from usk.audit.distances import median_distance
from usk.audit.embeddings import log_mel_statistics
from usk.data.clip import Clip
from usk.data.decode import DecodedSource, decode_source
from usk.data.leaks import Origins, parents_in
from usk.data.open import open_source
from usk.data.source import Source
from usk.errors import SourceError
from usk.evaluate.study import Study
from usk.report.changes import Change, changes_of, may_train
from usk.report.media import PICTURE, RANGE_DB, Paint, Sound, compress, decibels, picture
from usk.reporter import Reporter
from usk.text import pluralize

REJECTED_FOLDER = "rejected"  # of a dataset's folder: what the classifier filter rejected
LOUDEST_PERCENTILE = 99.9  # of the bins of the sounds that set the top of the scale
SCALE_SOUNDS = 128
BASE64 = 4 / 3  # characters a byte
REJECTED_SHARE, CHANGED_SHARE = 0.2, 0.15  # of the budget, at most
NEAREST = 2  # synthetic clips beside a test clip that changed
BYTES_A_SECOND = 5_000  # of MP3 and picture
ROW_BYTES = 900  # of the page, for what is written about a clip
DISTANCE_CLIPS = 400  # real clips that the unit of distance is measured on


@dataclass(frozen=True)
class ShownClip:
    """A synthetic clip and its parents; a parent is None where the real source does not hold it.

    `distances` are to each parent in the space of log-mel statistics: 1 is what lies between two real clips of the
    page, in the median. None for parents that are not there.
    """

    clip: Clip
    sound: Sound
    parents: tuple[Sound | None, ...]
    distances: tuple[float | None, ...]
    rejected: bool

    @property
    def nearest(self) -> float | None:
        return min((distance for distance in self.distances if distance is not None), default=None)


@dataclass(frozen=True)
class ShownChange:
    """A test clip that changed, and the nearest clips of the page that its mix could train on, in log-mel statistics."""

    change: Change
    sound: Sound
    nearest: tuple[Sound, ...]


@dataclass(frozen=True)
class Gallery:
    """What fits into the budget, classes taking turns; `n_all` and `n_all_rejected` count what there is."""

    name: str
    clips: tuple[ShownClip, ...]
    changes: tuple[ShownChange, ...]
    places: dict[
        str, tuple[float, float]
    ]  # of sounds by their id, in two principal components of log-mel statistics, 0 to 1
    n_all: int
    n_all_rejected: int
    classes: tuple[tuple[str, int, float], ...]  # name, clips and seconds of each, in the whole dataset
    loudest_db: float
    range_db: float
    real_name: str | None
    real_license: str | None
    license: str
    notes: tuple[str, ...]

    @property
    def sounds(self) -> list[Sound]:
        """Each sound once: parents are shared."""
        found = [sound for clip in self.clips for sound in (clip.sound, *clip.parents) if sound is not None]
        found += [one.sound for one in self.changes]
        return list({sound.clip_id: sound for sound in found}.values())


def rejected_source(folder: Path) -> Source | None:
    """The clips that the classifier filter rejected, where the dataset's folder keeps them."""
    place = folder / REJECTED_FOLDER
    if not any(place.glob("*.parquet")) and not any(place.glob("data/*.parquet")):
        return None
    return open_source(place)


def show_order(clips: Sequence[Clip], seed: int = 0) -> list[int]:
    """Rows in the order in which they are shown until the budget ends: classes in turn, folds in turn within them."""
    rng = np.random.default_rng(seed)
    turns: dict[tuple[int, int], int] = defaultdict(int)
    ranks: dict[int, tuple[int, int]] = {}
    for row in rng.permutation(len(clips)).tolist():
        place = clips[row].label, clips[row].fold
        ranks[row] = (turns[place], clips[row].fold)
        turns[place] += 1
    of_class: dict[int, list[int]] = defaultdict(list)
    for row in sorted(ranks, key=lambda row: (*ranks[row], row)):
        of_class[clips[row].label].append(row)
    order = []
    for turn in range(max(map(len, of_class.values()), default=0)):
        order += [rows[turn] for _, rows in sorted(of_class.items()) if turn < len(rows)]
    return order


def gallery(
    synthetic: Source,
    real: Source | None,
    paint: Paint,
    *,
    rejected: Source | None = None,
    studies: Sequence[Study] = (),
    budget_bytes: int | None = None,
    embedded: bool = True,
    reporter: Reporter | None = None,
) -> Gallery:
    """Compress as many clips, with their parents, as fit into `budget_bytes` (None: all of them).

    Args:
        paint: the color scale of the pictures.
        studies: comparisons whose test clips are in `real`: what changed in them is shown too.
        embedded: count base64's third on top, for media inside a page.

    Raises: SourceError if `synthetic` names no parents, or none of them is in `real`.
    """
    reporter = reporter or Reporter()
    if not synthetic.is_synthetic:
        raise SourceError(
            f"{synthetic.location} is not a synthetic dataset: its clips name no parents, so there is nothing to compare"
        )

    def decoded(source: Source) -> DecodedSource:
        return decode_source(source, PICTURE.sample_rate_hz, skip_bad=True, reporter=reporter)

    made = decoded(synthetic)
    parts = [(made, False)] if rejected is None else [(decoded(rejected), True), (made, False)]
    studio = _Studio(None if real is None else decoded(real), paint)
    notes = [] if studio.originals is None else _missing_parents(made.source, studio.originals.source)
    studio.set_scale([made.audio(row) for row in show_order(made.source.clips)[:SCALE_SOUNDS]])
    weight = BASE64 if embedded else 1.0
    if budget_bytes is not None:
        studio.small = weight * BYTES_A_SECOND * studio.seconds(made.source) > budget_bytes
        if studio.small:
            notes.append("sounds are small previews (Opus), so that more fit; a split page has them as MP3")
    changes, spent = _changes(studio, studies, budget_bytes, weight)
    chosen = _fill(studio, parts, budget_bytes, weight, spent, reporter)
    if not chosen:
        raise SourceError(
            f"no clip of {synthetic.location} fits into the page",
            hint="Write sounds and pictures beside the page (split).",
        )
    todo = sum(len(part) for part, _ in parts)
    if len(chosen) < todo:
        notes.append(
            f"{len(chosen):,} of {todo:,} clips are on this page, drawn evenly over classes and folds"
        )
    chosen.sort(key=lambda one: (one.rejected, one.clip.label, one.clip.clip_id))
    return Gallery(
        name=synthetic.name,
        clips=tuple(studio.with_distances(chosen)),
        changes=tuple(studio.with_nearest(changes, made.source, chosen)),
        places=studio.places(),
        n_all=len(made),
        n_all_rejected=todo - len(made),
        classes=tuple(_classes(made)),
        loudest_db=studio.loudest_db,
        range_db=RANGE_DB,
        real_name=None if real is None else real.name,
        real_license=None if real is None else real.license,
        license=synthetic.license,
        notes=tuple(notes),
    )


def _missing_parents(synthetic: Source, real: Source) -> list[str]:
    """A note on parents that are not in `real`, if any. Raises SourceError where none is."""
    origins = parents_in(synthetic, real)
    missing = len(origins.foreign)
    return [f"{pluralize(missing, 'parent')} without sound, not in {real.name}"] if missing else []


def _fill(
    studio: _Studio,
    parts: Sequence[tuple[DecodedSource, bool]],
    budget_bytes: int | None,
    weight: float,
    spent: float,
    reporter: Reporter,
) -> list[ShownClip]:
    """Clips of each part, rejected or not, in the order in which they are shown, until the budget is spent."""
    chosen: list[ShownClip] = []
    with reporter.task("compressing", "clips", sum(len(part) for part, _ in parts)) as task:
        for part, is_rejected in parts:
            share = REJECTED_SHARE if is_rejected else 1.0
            limit = None if budget_bytes is None else share * budget_bytes
            parents = studio.parents_of(part.source)
            for row in show_order(part.source.clips):
                shown, new_bytes = studio.show(part, row, parents[row], is_rejected)
                cost = ROW_BYTES + weight * new_bytes
                if limit is not None and spent + cost > limit:
                    studio.forget_new()
                    break
                spent += cost
                studio.keep_new()
                chosen.append(shown)
                task.update(len(chosen))
    return chosen


def _changes(
    studio: _Studio, studies: Sequence[Study], budget_bytes: int | None, weight: float
) -> tuple[list[tuple[Change, Sound]], float]:
    """Test clips that changed, those of every mix in turn, until their share of the budget is spent; and what was spent."""
    if studio.originals is None:
        return [], 0.0
    of_mix: dict[tuple[str, str], list[Change]] = defaultdict(list)
    for one in (change for study in studies for change in changes_of(study, studio.originals.source)):
        of_mix[one.comparison, one.mix].append(one)
    shown, spent = [], 0.0
    for one in (one for turn in zip_longest(*of_mix.values()) for one in turn if one is not None):
        sound = studio.real_sound(one.row)
        cost = ROW_BYTES + weight * sum(new.n_bytes for new in studio.new.values())
        if budget_bytes is not None and spent + cost > CHANGED_SHARE * budget_bytes:
            studio.forget_new()
            break
        studio.keep_new()
        spent += cost
        shown.append((one, sound))
    return shown, spent


def _classes(made: DecodedSource) -> Iterable[tuple[str, int, float]]:
    """Clips and seconds of each class."""
    for label, name in enumerate(made.source.class_names):
        lengths_s = [clip.duration_s for clip in made.source.clips if clip.label == label]
        yield name, len(lengths_s), round(sum(lengths_s), 1)


class _Studio:
    """Compresses sounds, each parent once, and keeps their log-mel statistics for the distances."""

    def __init__(self, originals: DecodedSource | None, paint: Paint) -> None:
        self.originals, self.paint, self.loudest_db = originals, paint, 0.0
        self.small = False  # Opus, where all clips as MP3 would not fit
        self.real_names: set[str] = set()
        self.kept: dict[str, Sound] = {}
        self.new: dict[str, Sound] = {}
        self.statistics: dict[str, np.ndarray] = {}

    def set_scale(self, audio: Sequence[np.ndarray]) -> None:
        loudest = [float(np.percentile(decibels(one), LOUDEST_PERCENTILE)) for one in audio]
        self.loudest_db = float(np.ceil(np.percentile(loudest, 90))) if loudest else 0.0

    def parents_of(self, source: Source) -> list[tuple[int | None, ...]]:
        """Of each clip, the rows of its parents among the real clips; None where one is not there."""
        if self.originals is None:
            return [(None,) * len(clip.parents) for clip in source.clips]
        origins = Origins(source, self.originals.source).rows
        return [tuple(rows[0] if rows else None for rows in found) for found in origins]

    def seconds(self, source: Source) -> float:
        """Of all clips and their parents, each once."""
        parents = {row for rows in self.parents_of(source) for row in rows if row is not None}
        of_real = 0.0
        if self.originals is not None:
            of_real = sum(self.originals.source.clips[row].duration_s for row in parents)
        return of_real + sum(clip.duration_s for clip in source.clips)

    def show(
        self, part: DecodedSource, row: int, parent_rows: Sequence[int | None], is_rejected: bool
    ) -> tuple[ShownClip, int]:
        """One clip with its parents, and the bytes that it adds."""
        clip = part.source.clips[row]
        sound = self._sound(f"synthetic/{clip.clip_id}", part, row)
        parents = tuple(None if at is None else self.real_sound(at) for at in parent_rows)
        shown = ShownClip(clip, sound, parents, (None,) * len(parents), is_rejected)
        return shown, sum(one.n_bytes for one in self.new.values())

    def real_sound(self, row: int) -> Sound:
        assert self.originals is not None
        name = self.originals.source.clips[row].clip_id
        self.real_names.add(name)
        return self._sound(name, self.originals, row)

    def _sound(self, name: str, part: DecodedSource, row: int) -> Sound:
        if name in self.kept:
            return self.kept[name]
        if name not in self.new:
            clip, audio = part.source.clips[row], part.audio(row)
            self.statistics[name] = log_mel_statistics([audio])[0]
            self.new[name] = Sound(
                clip_id=name,
                class_name=part.class_name(row),
                group=clip.group,
                fold=clip.fold,
                duration_s=len(audio) / part.sample_rate_hz,
                audio=compress(audio, part.sample_rate_hz, self.small),
                picture=picture(audio, self.loudest_db, self.paint, self.small),
            )
        return self.new[name]

    def keep_new(self) -> None:
        self.kept |= self.new
        self.new = {}

    def forget_new(self) -> None:
        for name in self.new:
            del self.statistics[name]
        self.new = {}

    @cached_property
    def vectors(self) -> dict[str, np.ndarray]:
        """Each sound in log-mel statistics, as spread as real ones are, where 1 is the median distance between two of those;
        empty without two real ones."""
        of_real = [self.statistics[name] for name in self.statistics if name in self.real_names]
        if len(of_real) < 2:
            return {}
        real = np.stack(of_real)
        spread = real.std(axis=0) + 1e-6
        rows = np.random.default_rng(0).permutation(len(real))[:DISTANCE_CLIPS]
        unit = median_distance((real[rows] - real.mean(axis=0)) / spread)
        return {
            name: (values - real.mean(axis=0)) / spread / unit for name, values in self.statistics.items()
        }

    def with_distances(self, shown: Sequence[ShownClip]) -> list[ShownClip]:
        vectors = self.vectors

        def between(first: Sound, second: Sound | None) -> float | None:
            if second is None or not vectors:
                return None
            return round(float(np.linalg.norm(vectors[first.clip_id] - vectors[second.clip_id])), 3)

        return [
            replace(one, distances=tuple(between(one.sound, parent) for parent in one.parents))
            for one in shown
        ]

    def with_nearest(
        self, changes: Sequence[tuple[Change, Sound]], synthetic: Source, shown: Sequence[ShownClip]
    ) -> Iterable[ShownChange]:
        """The changes with the nearest clips of the page that could train, where their mix trained on this dataset."""
        assert self.originals is not None or not changes
        rows = {clip.clip_id: row for row, clip in enumerate(synthetic.clips)}
        kept = [one for one in shown if not one.rejected]
        usable: dict[int | None, np.ndarray] = {}
        for change, sound in changes:
            near: list[ShownClip] = []
            if self.vectors and synthetic.revision in change.datasets and self.originals is not None:
                if change.fold not in usable:
                    usable[change.fold] = may_train(synthetic, self.originals.source, change.fold)
                near = [one for one in kept if usable[change.fold][rows[one.clip.clip_id]]]
                here = self.vectors[sound.clip_id]
                near.sort(key=lambda one: float(np.linalg.norm(self.vectors[one.sound.clip_id] - here)))
            yield ShownChange(change, sound, tuple(one.sound for one in near[:NEAREST]))

    def places(self) -> dict[str, tuple[float, float]]:
        """Two principal components of the vectors, each scaled to 0 to 1."""
        if len(self.vectors) < 3:
            return {}
        table = np.stack(list(self.vectors.values()))
        table = table - table.mean(axis=0)
        found = table @ np.linalg.svd(table, full_matrices=False)[2][:2].T
        found = (found - found.min(axis=0)) / (np.ptp(found, axis=0) + 1e-9)
        return {name: (float(x), float(y)) for name, (x, y) in zip(self.vectors, found.round(3), strict=True)}
