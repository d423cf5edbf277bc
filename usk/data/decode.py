"""Decode the clips of a source to mono at one rate, and cache them in one memory-mapped file for each source and rate.

The cache holds 16-bit integers relative to each clip's peak. That is exact for 16-bit files at their own rate.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from usk.data.audio_file import MAX_DURATION_S, AudioRef, BadAudioError, Sound
from usk.data.cache import cache_root, checked, evict, mark_used, read_checked, size_limit
from usk.data.clip import Clip
from usk.data.kept_audio import PART_CLIPS, DecodedClip, KeptPart, UnreadError, as_kept, checksum, from_kept
from usk.data.source import Source
from usk.errors import TOO_MANY_OPEN, SourceError
from usk.files import atomic_write
from usk.reporter import Reporter
from usk.text import abbreviate_list, pluralize

MIN_DURATION_S = 0.01
SILENT_PEAK = 10 ** (-80 / 20)  # of full scale: above the noise of rounding silence to 16 bits
QUIET = 10 ** (-50 / 20)
CACHE_VERSION = 7
DEFAULT_CACHE_BYTES = 200 * 2**30  # of decoded audio of all sources
SAMPLES_FILE, INDEX_FILE = "samples.i16", "index.json"
CAN_MOVE_MAPPED_FILES = os.name != "nt"  # whether a folder with a memory-mapped file in it can be renamed


def to_mono(samples: np.ndarray) -> np.ndarray:
    """Return the mean of all channels: [n] or [n, channels] to float32 [n]."""
    return (
        samples.mean(axis=1, dtype=np.float32)
        if samples.ndim == 2
        else samples.astype(np.float32, copy=False)
    )


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
    _samples: np.ndarray  # int16, memory-mapped
    _offsets: np.ndarray  # [n + 1]
    _peaks: np.ndarray  # [n]
    _rows: np.ndarray  # row of the source -> row of the cache
    _checksums: np.ndarray  # [n]
    _verified: np.ndarray  # bool [n]: the checksum was compared
    _folder: Path

    def __len__(self) -> int:
        return len(self.source)

    def audio(self, row: int) -> np.ndarray:
        """Return one clip: mono float32 [n] at `sample_rate_hz`."""
        cached = self._rows[row]
        samples = self._samples[self._offsets[cached] : self._offsets[cached + 1]]
        if not self._verified[cached]:
            if checksum(samples) != self._checksums[cached]:
                return self._decode_damaged(row)
            self._verified[cached] = True
        return from_kept(samples, self._peaks[cached])

    def _decode_damaged(self, row: int) -> np.ndarray:
        """Decode a clip whose samples in the cache are damaged. The next `decode_source` decodes the whole source again."""
        (self._folder / INDEX_FILE).unlink(missing_ok=True)
        try:
            return from_kept(*as_kept(decode(self.source.audio[row], self.sample_rate_hz)))
        except (BadAudioError, OSError) as error:
            raise SourceError(
                f"{self.source.clips[row].clip_id} is damaged in the cache at {cache_root()}, and cannot be decoded again ({error})",
                hint="Run it again once its file can be read.",
            ) from error

    def n_samples(self, row: int) -> int:
        """Return the length of one clip in samples."""
        cached = self._rows[row]
        return int(self._offsets[cached + 1] - self._offsets[cached])

    def class_name(self, row: int) -> str:
        return self.source.class_names[self.source.clips[row].label]

    def subset(self, keep: list[int] | np.ndarray) -> DecodedSource:
        return replace(
            self,
            source=self.source.subset(int(row) for row in keep),
            _rows=self._rows[np.asarray(keep, dtype=np.int64)],
        )


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
    index, samples = _read_cache(folder, source) or _build(
        source, sample_rate_hz, folder, reporter or Reporter()
    )
    bad: dict[str, str] = index["bad"]
    lengths = np.array(index["lengths"], dtype=np.int64)
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    row_of = {name: row for row, name in enumerate(index["names"])}
    kept = [row for row, clip in enumerate(source.clips) if clip.clip_id not in bad]
    names = {clip.clip_id for clip in source.clips}
    reasons = [f"{_short_name(name)} ({reason})" for name, reason in bad.items() if name in names]
    if reasons and (not skip_bad or not kept):
        raise SourceError(
            f"{source.location}: {len(reasons)} of {len(source)} clips cannot be used: {abbreviate_list(reasons)}",
            hint="Repair or remove them, or skip bad clips.",
        )
    rows = np.array([row_of[source.clips[row].clip_id] for row in kept], dtype=np.int64)
    good = source.subset(kept)
    clips = tuple(
        replace(clip, duration_s=float(lengths[row] / sample_rate_hz), sound=index["sounds"][row])
        for clip, row in zip(good.clips, rows, strict=True)
    )
    notes = [*source.notes]
    if reasons:
        skipped = pluralize(len(reasons), "clip")
        notes.append(f"skipped {skipped} that cannot be used: {abbreviate_list(reasons)}")
    notes += _remark_notes(index["remarks"], clips)
    if copies := _copies_in_other_recordings(clips):
        notes.append(
            f"{pluralize(len(copies), 'clip')} with the same sound as a clip of another recording ({abbreviate_list(copies)}): one may train "
            "where the other is tested; remove the copies, or give both the same recording"
        )
    good = replace(good, clips=clips, notes=tuple(notes))
    peaks = np.array(index["peaks"], dtype=np.float64)
    checksums = np.array(index["checksums"], dtype=np.uint32)
    verified = np.zeros(len(lengths), dtype=bool)
    return DecodedSource(good, sample_rate_hz, samples, offsets, peaks, rows, checksums, verified, folder)


def _remark_notes(remarks: Mapping[str, str], clips: Sequence[Clip]) -> list[str]:
    """Return a note for each different remark about decoded files. `remarks` are by clip id."""
    names_of: dict[str, list[str]] = defaultdict(list)
    for clip in clips:
        if clip.clip_id in remarks:
            names_of[remarks[clip.clip_id]].append(_short_name(clip.clip_id))
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


def _read_cache(folder: Path, source: Source) -> tuple[dict[str, Any], np.ndarray] | None:
    """Return the cache's index and samples, or None if it is damaged, lacks a clip, or has a clip that should be tried again."""
    try:  # map the samples first: they stay mapped if another process replaces the folder
        with (folder / SAMPLES_FILE).open("rb") as file:
            samples = _map_samples(file)
    except (OSError, ValueError):  # ValueError: an odd number of bytes
        return None
    content = read_checked(folder / INDEX_FILE)
    if content is None:
        return None
    index = json.loads(content)
    if len(samples) != sum(index["lengths"]) or index["retry"]:
        return None
    mark_used(folder)
    known = set(index["names"])
    return (index, samples) if all(clip.clip_id in known for clip in source.clips) else None


def _decode_rows(source: Source, sample_rate_hz: int, rows: range) -> Iterator[DecodedClip]:
    """Decode rows of a source in threads."""

    def decode_row(row: int) -> DecodedClip:
        name = source.clips[row].clip_id
        try:
            mono, rate_hz, remark = read_mono(source.audio[row])
            samples = resampled(mono, rate_hz, sample_rate_hz)
            return DecodedClip(name, samples, sound_of(mono, rate_hz), remark)
        except BadAudioError as error:
            return DecodedClip(name, error)
        except OSError as error:
            if error.errno in TOO_MANY_OPEN:
                raise
            return DecodedClip(name, UnreadError(error.strerror or "cannot be read"))

    window = 64  # clips in memory at a time
    with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
        for begin in range(rows.start, rows.stop, window):
            yield from pool.map(decode_row, range(begin, min(begin + window, rows.stop)))


def _build(
    source: Source, sample_rate_hz: int, folder: Path, reporter: Reporter
) -> tuple[dict[str, Any], np.ndarray]:
    """Decode all clips into a temporary folder and rename it to `folder`. Return the index and the samples.

    Until then every `PART_CLIPS` clips are stored in a file of their own, so that after a kill the next call decodes the rest.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(prefix="building-", dir=folder.parent))
    except OSError as error:
        raise _unwritable(error) from error
    parts = folder.with_name(f"{folder.name}-parts")
    all_clips = KeptPart(folder / INDEX_FILE)
    try:
        decoding = reporter.task("decoding", "clips", len(source))
        with decoding, (building / SAMPLES_FILE).open("w+b") as file:
            for begin in range(0, len(source), PART_CLIPS):
                rows = range(begin, min(begin + PART_CLIPS, len(source)))
                part = KeptPart.in_folder(parts, [source.clips[row].clip_id for row in rows])
                decoded = () if part.read() else _decode_rows(source, sample_rate_hz, rows)
                for done, clip in enumerate(decoded, start=begin + 1):
                    part.add(clip)
                    decoding.update(done)
                if not decoded:  # an earlier call decoded this part
                    decoding.update(rows.stop)
                elif len(source) > PART_CLIPS:
                    part.write()
                all_clips.add_facts(part)
                file.write(part.samples)
            file.flush()
            os.fsync(file.fileno())
            if CAN_MOVE_MAPPED_FILES:  # after the move other processes may replace or delete the file
                samples = _map_samples(file)
        index = {**all_clips.facts, "retry": all_clips.retry, "source": source.location}
        with contextlib.suppress(FileNotFoundError):  # the cache was deleted meanwhile; mapped files stay
            atomic_write(building / INDEX_FILE, checked(json.dumps(index).encode()))
            _put_in_place(building, folder)
        shutil.rmtree(parts, ignore_errors=True)
        evict(folder.parent, size_limit(DEFAULT_CACHE_BYTES), folder)
        if not CAN_MOVE_MAPPED_FILES:
            with (folder / SAMPLES_FILE).open("rb") as file:
                samples = _map_samples(file)
    except OSError as error:
        if error.errno in TOO_MANY_OPEN:
            raise
        raise _unwritable(error) from error
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return index, samples


def _map_samples(file: BinaryIO) -> np.ndarray:
    """Map all samples of a file into memory: int16 [n]. They stay available if the file is deleted."""
    return np.memmap(file, dtype="<i2", mode="r") if os.fstat(file.fileno()).st_size else np.zeros(0, "<i2")


def _put_in_place(building: Path, folder: Path) -> None:
    """Rename a finished folder to its final name. If several processes do this, the last one wins."""
    for attempt in range(10):
        old = building.with_name(f"{building.name}-old-{attempt}")
        with contextlib.suppress(FileNotFoundError):
            folder.rename(old)
        shutil.rmtree(old, ignore_errors=True)
        try:
            building.rename(folder)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise


def _unwritable(error: OSError) -> SourceError:
    return SourceError(
        f"the cache at {cache_root()} cannot be written ({error.strerror}); "
        "free some space, or set $USK_CACHE to a folder that can"
    )
