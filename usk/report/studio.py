"""Compresses the sounds of a page, each parent once, and knows how far apart they are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from usk.audit.distances import median_distance
from usk.audit.embeddings import log_mel_statistics
from usk.data.clip import Clip
from usk.data.decode import DecodedSource
from usk.data.leaks import Origins
from usk.data.source import Source
from usk.device import cores_allowed
from usk.report.changes import Change, may_train
from usk.report.media import OPUS_KBPS, Paint, Sound, compress, decibels, peaks, picture

LOUDEST_PERCENTILE = 99.9  # of the bins of the sounds that set the top of the scale
NEAREST = 2  # synthetic clips beside a test clip that changed
BYTES_A_SECOND = 5_000  # of MP3 and picture
PICTURE_BYTES_A_SECOND = 300  # of a small one
# Of the page, for what is written about a clip and about each of its sounds
ROW_BYTES, SOUND_BYTES = 750, 460
OGG_BYTES = 250  # of a small sound, however short
SPARE = 0.03  # of the room for sounds: encoders come near to a bit rate
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


class Studio:
    """Compresses sounds, each parent once, and keeps their log-mel statistics for the distances."""

    def __init__(
        self,
        originals: DecodedSource | None,
        paint: Paint,
        budget_bytes: int | None = None,
        weight: float = 1.0,
    ) -> None:
        """`budget_bytes` of a page (None: no end to it); a byte of media takes `weight` of them."""
        self.originals, self.paint, self.loudest_db = originals, paint, 0.0
        self.budget_bytes, self.weight, self.spent = budget_bytes, weight, 0.0
        self.kbps: float | None = None  # of Opus, where all clips as MP3 would not fit
        self.real_names: set[str] = set()
        self.ready: dict[str, tuple[Sound, np.ndarray]] = {}  # compressed ahead, with their statistics
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

    def choose_size(self, made: Source, changed: Sequence[int]) -> None:
        """Choose how small sounds are, from the length of all clips with their parents and of real clips that changed."""
        if self.budget_bytes is None:
            return
        rows = {row for rows in self.parents_of(made) for row in rows if row is not None} | set(changed)
        seconds = sum(clip.duration_s for clip in made.clips)
        if self.originals is not None:
            seconds += sum(self.originals.source.clips[row].duration_s for row in rows)
        written = ROW_BYTES * (len(made) + len(changed)) + SOUND_BYTES * (len(made) + len(rows))
        for_all = self.weight * OGG_BYTES * (len(made) + len(rows))
        for_media = (1 - SPARE) * (self.budget_bytes - written) - for_all
        bytes_a_second = for_media / (self.weight * max(seconds, 0.1))
        if bytes_a_second < BYTES_A_SECOND:
            self.kbps = float(np.clip((bytes_a_second - PICTURE_BYTES_A_SECOND) * 8e-3, *OPUS_KBPS))

    def prepare(
        self, part: DecodedSource, rows: Sequence[int], parents: Sequence[tuple[int | None, ...]]
    ) -> None:
        """Compress clips and their parents on all cores (the encoders let go of Python's lock)."""
        jobs = {self._name(part, row): (part, row) for row in rows}
        if self.originals is not None:
            of_real = {at for row in rows for at in parents[row] if at is not None}
            jobs |= {self._name(self.originals, at): (self.originals, at) for at in sorted(of_real)}
        jobs = {name: job for name, job in jobs.items() if name not in self.kept}
        with ThreadPoolExecutor(cores_allowed()) as pool:
            self.ready = dict(zip(jobs, pool.map(lambda job: self._make(*job), jobs.values()), strict=True))

    def show(
        self, part: DecodedSource, row: int, parent_rows: Sequence[int | None], is_rejected: bool
    ) -> ShownClip:
        """One clip with its parents."""
        clip = part.source.clips[row]
        sound = self._sound(part, row)
        parents = tuple(None if at is None else self.real_sound(at) for at in parent_rows)
        return ShownClip(clip, sound, parents, (None,) * len(parents), is_rejected)

    def fits(self, share: float = 1.0) -> bool:
        """Keep the sounds that are new if all kept ones then take no more than `share` of the budget; else forget them."""
        cost = ROW_BYTES + sum(SOUND_BYTES + self.weight * one.n_bytes for one in self.new.values())
        fits = self.budget_bytes is None or self.spent + cost <= share * self.budget_bytes
        if fits:
            self.kept |= self.new
            self.spent += cost
        else:
            self.statistics = {name: one for name, one in self.statistics.items() if name not in self.new}
        self.new = {}
        return fits

    def real_sound(self, row: int) -> Sound:
        assert self.originals is not None
        self.real_names.add(self._name(self.originals, row))
        return self._sound(self.originals, row)

    def _name(self, part: DecodedSource, row: int) -> str:
        clip_id = part.source.clips[row].clip_id
        return clip_id if part is self.originals else f"synthetic/{clip_id}"

    def _sound(self, part: DecodedSource, row: int) -> Sound:
        name = self._name(part, row)
        if name in self.kept:
            return self.kept[name]
        if name not in self.new:
            made = self.ready.pop(name) if name in self.ready else self._make(part, row)
            self.new[name], self.statistics[name] = made
        return self.new[name]

    def _make(self, part: DecodedSource, row: int) -> tuple[Sound, np.ndarray]:
        clip, audio = part.source.clips[row], part.audio(row)
        sound = Sound(
            clip_id=self._name(part, row),
            class_name=part.class_name(row),
            group=clip.group,
            fold=clip.fold,
            duration_s=len(audio) / part.sample_rate_hz,
            peaks=peaks(audio),
            audio=compress(audio, part.sample_rate_hz, self.kbps),
            picture=picture(audio, self.loudest_db, self.paint, self.kbps is not None),
        )
        return sound, log_mel_statistics([audio])[0]

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
