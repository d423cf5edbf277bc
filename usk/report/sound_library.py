"""Compress the sounds of a page, each of them once, and measure distances between them."""

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
from usk.report.changes import Change, usable_for_training
from usk.report.media import (
    OPUS_KBPS,
    Sound,
    compress,
    decibels,
    draw_spectrogram,
    waveform_peaks,
)

LOUDEST_PERCENTILE = 99.9  # of the spectrogram of a sound
N_NEAREST = 2  # synthetic clips that are shown with a changed test clip
BYTES_PER_SECOND = 5_000  # of MP3 and picture
SMALL_PICTURE_BYTES_PER_SECOND = 300
ROW_BYTES, SOUND_BYTES = 750, 460  # of the page's data on a clip, and on each of its sounds
BASE64 = 4 / 3  # characters in the page per byte of media
OGG_BYTES = 250  # overhead of each Opus file
SPARE_FRACTION = 0.03  # of the budget, because encoders do not match a bit rate exactly
N_DISTANCE_CLIPS = 400  # real clips that determine the unit of distance


@dataclass(frozen=True)
class ShownClip:
    """A synthetic clip and its parents. A parent that is not in the real source is None, and so is its distance.

    `distances` from the parents are measured in log-mel statistics. The unit is the median distance between two real clips
    of the page.
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
    """A changed test clip, and the nearest synthetic clips of the page that its mix may be trained on."""

    change: Change
    sound: Sound
    nearest: tuple[Sound, ...]


class SoundLibrary:
    """Compresses sounds, and keeps them with their log-mel statistics for distances.

    Sounds are `new` until `keep_new_if_fits` keeps or discards them.
    """

    def __init__(self, originals: DecodedSource | None, budget_bytes: int | None = None) -> None:
        """Create an empty library for a page of `budget_bytes` with the media in it; None: a page with media in files."""
        self.originals, self.loudest_db = originals, 0.0
        self.budget_bytes, self.spent = budget_bytes, 0.0
        self.kbps: float | None = None  # of Opus if not all clips would fit as MP3
        self.real_names: set[str] = set()
        self.prepared: dict[str, tuple[Sound, np.ndarray]] = {}  # compressed in advance, with statistics
        self.kept: dict[str, Sound] = {}
        self.new: dict[str, Sound] = {}
        self.statistics: dict[str, np.ndarray] = {}

    def set_scale(self, audio: Sequence[np.ndarray]) -> None:
        """Choose the top of the scale of all pictures from some sounds."""
        loudest = [float(np.percentile(decibels(one), LOUDEST_PERCENTILE)) for one in audio]
        self.loudest_db = float(np.ceil(np.percentile(loudest, 90))) if loudest else 0.0

    def parents_of(self, source: Source) -> list[tuple[int | None, ...]]:
        """Return the rows of each clip's parents among the real clips, or None for missing parents."""
        if self.originals is None:
            return [(None,) * len(clip.parents) for clip in source.clips]
        origins = Origins(source, self.originals.source).rows
        return [tuple(rows[0] if rows else None for rows in parents) for parents in origins]

    def choose_bit_rate(self, synthetic: Source, changed: Sequence[int]) -> None:
        """Choose Opus and its bit rate if all clips, their parents and changed real clips would not fit as MP3."""
        if self.budget_bytes is None:
            return
        rows = {row for rows in self.parents_of(synthetic) for row in rows if row is not None} | set(changed)
        seconds = sum(clip.duration_s for clip in synthetic.clips)
        if self.originals is not None:
            seconds += sum(self.originals.source.clips[row].duration_s for row in rows)
        n_rows, n_sounds = len(synthetic) + len(changed), len(synthetic) + len(rows)
        data_bytes = ROW_BYTES * n_rows + SOUND_BYTES * n_sounds
        media_bytes = (1 - SPARE_FRACTION) * (self.budget_bytes - data_bytes)
        media_bytes -= BASE64 * OGG_BYTES * n_sounds
        bytes_per_second = media_bytes / (BASE64 * max(seconds, 0.1))
        if bytes_per_second < BYTES_PER_SECOND:
            kbps = (bytes_per_second - SMALL_PICTURE_BYTES_PER_SECOND) * 8e-3
            self.kbps = float(np.clip(kbps, *OPUS_KBPS))

    def prepare(
        self, part: DecodedSource, rows: Sequence[int], parents: Sequence[tuple[int | None, ...]]
    ) -> None:
        """Compress clips and their parents in threads. The encoders release Python's global lock."""
        jobs = {self._name(part, row): (part, row) for row in rows}
        if self.originals is not None:
            parent_rows = {parent for row in rows for parent in parents[row] if parent is not None}
            jobs |= {self._name(self.originals, row): (self.originals, row) for row in sorted(parent_rows)}
        jobs = {name: job for name, job in jobs.items() if name not in self.kept}
        with ThreadPoolExecutor(cores_allowed()) as pool:
            results = pool.map(lambda job: self._compress(*job), jobs.values())
            self.prepared = dict(zip(jobs, results, strict=True))

    def shown_clip(
        self, part: DecodedSource, row: int, parent_rows: Sequence[int | None], is_rejected: bool
    ) -> ShownClip:
        """Compress a clip with its parents. Their distances are not known yet."""
        clip = part.source.clips[row]
        sound = self._sound(part, row)
        parents = tuple(None if parent is None else self.real_sound(parent) for parent in parent_rows)
        return ShownClip(clip, sound, parents, (None,) * len(parents), is_rejected)

    def keep_new_if_fits(self, fraction: float = 1.0) -> bool:
        """Keep the new sounds if all kept ones then fit into this fraction of the budget. Otherwise discard them."""
        cost = ROW_BYTES + sum(SOUND_BYTES + BASE64 * sound.n_bytes for sound in self.new.values())
        fits = self.budget_bytes is None or self.spent + cost <= fraction * self.budget_bytes
        if fits:
            self.kept |= self.new
            self.spent += cost
        else:
            for name in self.new:
                del self.statistics[name]
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
            result = self.prepared.pop(name) if name in self.prepared else self._compress(part, row)
            self.new[name], self.statistics[name] = result
        return self.new[name]

    def _compress(self, part: DecodedSource, row: int) -> tuple[Sound, np.ndarray]:
        clip, audio = part.source.clips[row], part.audio(row)
        sound = Sound(
            clip_id=self._name(part, row),
            class_name=part.class_name(row),
            group=clip.group,
            fold=clip.fold,
            duration_s=len(audio) / part.sample_rate_hz,
            peaks=waveform_peaks(audio),
            audio=compress(audio, part.sample_rate_hz, self.kbps),
            picture=draw_spectrogram(audio, self.loudest_db, small=self.kbps is not None),
        )
        return sound, log_mel_statistics([audio])[0]

    @cached_property
    def vectors(self) -> dict[str, np.ndarray]:
        """Log-mel statistics, standardized by real sounds and scaled to their median distance; empty without two real sounds."""
        real = [values for name, values in self.statistics.items() if name in self.real_names]
        if len(real) < 2:
            return {}
        mean, deviation = np.mean(real, axis=0), np.std(real, axis=0) + 1e-6
        rows = np.random.default_rng(0).permutation(len(real))[:N_DISTANCE_CLIPS]
        unit = median_distance((np.stack(real)[rows] - mean) / deviation)
        return {name: (values - mean) / deviation / unit for name, values in self.statistics.items()}

    def with_distances(self, shown: Sequence[ShownClip]) -> list[ShownClip]:
        """Return the clips with their distances from their parents."""
        vectors = self.vectors

        def distance(first: Sound, second: Sound | None) -> float | None:
            if second is None or not vectors:
                return None
            return round(float(np.linalg.norm(vectors[first.clip_id] - vectors[second.clip_id])), 3)

        return [
            replace(clip, distances=tuple(distance(clip.sound, parent) for parent in clip.parents))
            for clip in shown
        ]

    def with_nearest(
        self, changes: Sequence[tuple[Change, Sound]], synthetic: Source, shown: Sequence[ShownClip]
    ) -> Iterable[ShownChange]:
        """Yield the changes with the nearest synthetic clips, if their mix was trained on this dataset."""
        assert self.originals is not None or not changes
        rows = {clip.clip_id: row for row, clip in enumerate(synthetic.clips)}
        kept = [clip for clip in shown if not clip.rejected]
        usable: dict[int | None, np.ndarray] = {}
        for change, sound in changes:
            candidates: list[ShownClip] = []
            if self.vectors and synthetic.revision in change.datasets and self.originals is not None:
                if change.fold not in usable:
                    usable[change.fold] = usable_for_training(synthetic, self.originals.source, change.fold)
                candidates = [clip for clip in kept if usable[change.fold][rows[clip.clip.clip_id]]]
                vector = self.vectors[sound.clip_id]
                candidates.sort(
                    key=lambda clip: float(np.linalg.norm(self.vectors[clip.sound.clip_id] - vector))
                )
            yield ShownChange(change, sound, tuple(clip.sound for clip in candidates[:N_NEAREST]))

    def positions(self) -> dict[str, tuple[float, float]]:
        """Return the position of each sound on the map: two principal components, scaled to 0 to 1."""
        if len(self.vectors) < 3:
            return {}
        table = np.stack(list(self.vectors.values()))
        table = table - table.mean(axis=0)
        xy = table @ np.linalg.svd(table, full_matrices=False)[2][:2].T
        xy = (xy - xy.min(axis=0)) / (np.ptp(xy, axis=0) + 1e-9)
        return {name: (float(x), float(y)) for name, (x, y) in zip(self.vectors, xy.round(3), strict=True)}
