"""Decode the clips of a source to mono at one rate, and cache them (`usk.data.audio_cache`)."""

from __future__ import annotations

import contextlib
import hashlib
import os
import zlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from usk.data.audio_cache import (
    PART_CLIPS,
    CachedClip,
    IndexEntry,
    NewClip,
    dequantize,
    encode_clip,
    quantize,
    read_parts,
    write_part,
)
from usk.data.audio_file import MAX_DURATION_S, AudioRef, BadAudioError, Sound
from usk.data.cache import cache_root, evict, mark_used, size_limit
from usk.data.clip import Clip
from usk.data.source import Source
from usk.errors import TOO_MANY_OPEN, SourceError
from usk.reporter import Reporter
from usk.text import abbreviate_list, pluralize

MIN_DURATION_S = 0.01
SILENT_PEAK = 10 ** (-80 / 20)  # of full scale: above the noise of rounding silence to 16 bits
QUIET = 10 ** (-50 / 20)
CACHE_VERSION = 8
DEFAULT_CACHE_BYTES = 200 * 2**30  # of decoded audio of all sources


def to_mono(samples: np.ndarray) -> np.ndarray:
    """Return the mean of all channels: [n] or [n, channels] to float32 [n]."""
    if samples.ndim == 2:
        return samples.mean(axis=1, dtype=np.float32)
    return samples.astype(np.float32, copy=False)


def peak_level(mono: np.ndarray) -> float:
    """Return the largest distance of samples [n] from their mean, as a share of full scale."""
    return float(np.abs(mono - mono.mean(dtype=np.float64)).max()) if len(mono) else 0.0


def is_silent(mono: np.ndarray) -> bool:
    return peak_level(mono) < SILENT_PEAK


def read_mono(ref: AudioRef) -> Sound:
    """Read one clip as mono samples [n] at its own rate. Raise BadAudioError with the reason in a few words."""
    samples, rate_hz, remark = ref.read()
    if not np.isfinite(samples).all():
        raise BadAudioError("has NaN or infinite samples")
    mono = to_mono(samples)
    if len(mono) < MIN_DURATION_S * rate_hz:
        raise BadAudioError(f"too short ({len(mono)} sample{'s' if len(mono) != 1 else ''})")
    if len(mono) > MAX_DURATION_S * rate_hz:
        raise BadAudioError(f"longer than {MAX_DURATION_S:.0f} s; cut it into clips")
    if is_silent(mono):
        raise BadAudioError("silent")
    return Sound(mono, rate_hz, remark)


def resampled(mono: np.ndarray, rate_hz: int, sample_rate_hz: int) -> np.ndarray:
    """Return mono samples [n] at another rate, as float32."""
    import soxr

    if rate_hz != sample_rate_hz:
        mono = soxr.resample(mono, rate_hz, sample_rate_hz, quality="HQ")
    return np.ascontiguousarray(mono, dtype=np.float32)


def decode(ref: AudioRef, sample_rate_hz: int) -> np.ndarray:
    """Read one clip as mono float32 [n] at `sample_rate_hz`. Raise BadAudioError with the reason in a few words."""
    mono, rate_hz, _ = read_mono(ref)
    return resampled(mono, rate_hz, sample_rate_hz)


def sound_of(mono: np.ndarray, rate_hz: int) -> str:
    """Return `Clip.sound`: 16 hex digits of a hash of the decoded samples at the file's own rate.

    Lossless copies of a clip (WAV, FLAC) have the same hash.
    """
    content = np.ascontiguousarray(mono + np.float32(0), dtype="<f4").tobytes()  # + 0 turns -0.0 into 0.0
    return hashlib.sha256(f"{rate_hz}\n".encode() + content).hexdigest()[:16]


def beginning(samples: np.ndarray, n: int | None) -> np.ndarray:
    """Return the `n` samples of a clip that a generator uses (None: all): normally the first ones.

    If those are almost silent (below `QUIET` of the clip's level), the samples begin with the first sound, or earlier if fewer
    than `n` samples follow it.
    """
    if n is None or len(samples) <= n:
        return samples
    power = np.square(samples, dtype=np.float64)
    if power[:n].mean() >= QUIET**2 * power.mean():
        return samples[:n]
    first = int(np.argmax(np.abs(samples) >= QUIET * np.abs(samples).max()))
    begin = min(first, len(samples) - n)
    return samples[begin : begin + n]


@dataclass(frozen=True)
class DecodedSource:
    """A source with its decoded audio, memory-mapped from the cache."""

    source: Source
    sample_rate_hz: int
    _clips: Sequence[CachedClip]
    _verified: np.ndarray  # bool [n]: the checksum was compared

    def __len__(self) -> int:
        return len(self.source)

    def audio(self, row: int) -> np.ndarray:
        """Return one clip: mono float32 [n] at `sample_rate_hz`."""
        clip = self._clips[row]
        if not self._verified[row]:
            if zlib.crc32(clip.samples.data) != clip.entry.checksum:
                return self._decode_damaged(row)
            self._verified[row] = True
        return clip.audio()

    def _decode_damaged(self, row: int) -> np.ndarray:
        """Decode a clip whose samples in the cache are damaged. The next `decode_source` decodes its whole part again."""
        with contextlib.suppress(OSError):  # a cache that may only be read
            self._clips[row].index_file.unlink()
        try:
            return dequantize(*quantize(decode(self.source.audio[row], self.sample_rate_hz)))
        except (BadAudioError, OSError) as error:
            message = f"{self.source.clips[row].clip_id} is damaged in the cache at {cache_root()}, and cannot be decoded again ({error})"
            raise SourceError(message, hint="Run it again once its file can be read.") from error

    def n_samples(self, row: int) -> int:
        """Return the length of one clip in samples."""
        return len(self._clips[row].samples)

    def class_name(self, row: int) -> str:
        return self.source.class_names[self.source.clips[row].label]

    def subset(self, keep: list[int] | np.ndarray) -> DecodedSource:
        rows = [int(row) for row in keep]
        clips = [self._clips[row] for row in rows]
        return replace(self, source=self.source.subset(rows), _clips=clips, _verified=self._verified[rows])


def decode_source(
    source: Source,
    sample_rate_hz: int = 22_050,
    *,
    skip_bad: bool = False,
    reporter: Reporter | None = None,
) -> DecodedSource:
    """Return `source` with the audio, `sound` and duration of every clip, from the cache if they are there.

    Raise SourceError, which counts and names the clips that cannot be used, unless `skip_bad` leaves them out.
    """
    folder = cache_root() / "audio" / f"{source.cache_key}-{sample_rate_hz}-v{CACHE_VERSION}"
    cached = read_parts(folder)
    mark_used(folder)
    missing = [row for row, clip in enumerate(source.clips) if clip.clip_id not in cached]
    if missing:
        cached |= _decode_into_cache(source, missing, sample_rate_hz, folder, reporter or Reporter())
    found = [cached[clip.clip_id] for clip in source.clips]
    problems = [
        f"{_short_name(clip.entry.name)} ({clip.entry.problem})" for clip in found if clip.entry.problem
    ]
    kept = [row for row, clip in enumerate(found) if not clip.entry.problem]
    if problems and (not skip_bad or not kept):
        message = f"{source.location}: {len(problems)} of {len(source)} clips cannot be used: {abbreviate_list(problems)}"
        raise SourceError(message, hint="Repair or remove them, or leave them out with `skip_bad`.")
    good, found = source.subset(kept), [found[row] for row in kept]
    clips = tuple(
        replace(clip, duration_s=len(decoded.samples) / sample_rate_hz, sound=decoded.entry.sound)
        for clip, decoded in zip(good.clips, found, strict=True)
    )
    notes = [*source.notes]
    if problems:
        skipped = pluralize(len(problems), "clip")
        notes.append(f"skipped {skipped} that cannot be used: {abbreviate_list(problems)}")
    notes += _remark_notes(found)
    if copies := _copies_in_other_recordings(clips):
        notes.append(
            f"{pluralize(len(copies), 'clip')} with the same sound as a clip of another recording ({abbreviate_list(copies)}): one may train "
            "where the other is tested; remove the copies, or give both the same recording"
        )
    good = replace(good, clips=clips, notes=tuple(notes))
    return DecodedSource(good, sample_rate_hz, found, np.zeros(len(found), dtype=bool))


def _remark_notes(clips: Sequence[CachedClip]) -> list[str]:
    """Return a note for each different remark about decoded files."""
    names_of: dict[str, list[str]] = defaultdict(list)
    for clip in clips:
        if clip.entry.remark:
            names_of[clip.entry.remark].append(_short_name(clip.entry.name))
    return [
        f"{pluralize(len(names), 'file')} ({abbreviate_list(names)}): {remark}"
        for remark, names in names_of.items()
    ]


def _copies_in_other_recordings(clips: Sequence[Clip]) -> list[str]:
    """Return the real clips with the same sound as an earlier clip of another recording, as `name as earlier name`."""
    first: dict[str, Clip] = {}
    found = []
    for clip in clips:
        if not clip.is_synthetic:
            earlier = first.setdefault(clip.sound, clip)
            if earlier.group != clip.group:
                found.append(f"{_short_name(clip.clip_id)} as {_short_name(earlier.clip_id)}")
    return found


def _short_name(clip_id: str) -> str:
    """Return a clip's name without the source's name."""
    return clip_id.partition("/")[2] or clip_id


def _decode_into_cache(
    source: Source, rows: Sequence[int], sample_rate_hz: int, folder: Path, reporter: Reporter
) -> dict[str, CachedClip]:
    """Decode rows of a source into parts of the cache. After a kill, the next call decodes the parts that are missing."""
    cached: dict[str, CachedClip] = {}
    n_done = len(source) - len(rows)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with reporter.task("decoding", "clips", len(source)) as decoding:
            for begin in range(0, len(rows), PART_CLIPS):
                clips = []
                for clip in _decode_rows(source, sample_rate_hz, rows[begin : begin + PART_CLIPS]):
                    clips.append(clip)
                    n_done += 1
                    decoding.update(n_done)
                cached |= write_part(folder, clips)
        evict(folder.parent, size_limit(DEFAULT_CACHE_BYTES), folder)
    except OSError as error:
        if error.errno in TOO_MANY_OPEN:
            raise
        raise SourceError(
            f"the cache at {cache_root()} cannot be written ({error.strerror}); "
            "free some space, or set $USK_CACHE to a folder that can"
        ) from error
    return cached


def _decode_rows(source: Source, sample_rate_hz: int, rows: Sequence[int]) -> Iterator[NewClip]:
    """Decode rows of a source in threads."""

    def decode_row(row: int) -> NewClip:
        name = source.clips[row].clip_id
        try:
            mono, rate_hz, remark = read_mono(source.audio[row])
            samples = resampled(mono, rate_hz, sample_rate_hz)
            return encode_clip(name, samples, sound_of(mono, rate_hz), remark)
        except BadAudioError as error:
            return NewClip(IndexEntry(name, problem=str(error)))
        except OSError as error:
            if error.errno in TOO_MANY_OPEN:
                raise
            return NewClip(IndexEntry(name, problem=error.strerror or "cannot be read"), retry=True)

    window = 64  # limits the decoded clips that wait in memory
    with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
        for begin in range(0, len(rows), window):
            yield from pool.map(decode_row, rows[begin : begin + window])
