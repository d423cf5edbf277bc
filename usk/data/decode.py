"""Decoded audio of a source: mono, resampled, cached on disk as one memory-mapped file.

The cache has one folder a source and rate. Samples are kept as 16-bit integers relative to each clip's own peak, which is exact
for what 16-bit files hold at their own rate.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
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
# Of full scale, the one limit of what is silent: what rounding to 16 bits leaves of silence stays below
SILENT_PEAK = 10 ** (-80 / 20)
QUIET = 10 ** (-50 / 20)
CACHE_VERSION = 7
KEPT_BYTES = 200 * 2**30  # of decoded audio of all sources
SAMPLES_FILE, INDEX_FILE = "samples.i16", "index.json"
OPEN_FILES_MOVE = os.name != "nt"  # whether a folder can be renamed that has a mapped file in it


def to_mono(samples: np.ndarray) -> np.ndarray:
    """The mean of all channels: [n] or [n, channels] to float32 [n]."""
    return (
        samples.astype(np.float32, copy=False)
        if samples.ndim == 1
        else samples.mean(axis=1, dtype=np.float32)
    )


def peak_level(mono: np.ndarray) -> float:
    """How far samples [n] leave their mean, of full scale."""
    return float(np.abs(mono - mono.mean(dtype=np.float64)).max()) if len(mono) else 0.0


def is_silent(mono: np.ndarray) -> bool:
    """Whether it is silence."""
    return peak_level(mono) < SILENT_PEAK


def read_mono(ref: AudioRef) -> Sound:
    """One clip as mono samples [n] at its own rate. Raises BadAudioError with the reason in a few words."""
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
    """float32 [n] at another rate."""
    import soxr

    if rate_hz != sample_rate_hz:
        mono = soxr.resample(mono, rate_hz, sample_rate_hz, quality="HQ")
    return np.ascontiguousarray(mono, dtype=np.float32)


def decode(ref: AudioRef, sample_rate_hz: int) -> np.ndarray:
    """One clip as mono float32 [n] at `sample_rate_hz`. Raises BadAudioError with the reason in a few words."""
    mono, rate_hz, _ = read_mono(ref)
    return resampled(mono, rate_hz, sample_rate_hz)


def sound_of(mono: np.ndarray, rate_hz: int) -> str:
    """`Clip.sound`: 16 hex digits of a hash of decoded samples at the file's own rate.

    Lossless copies (WAV, FLAC) have the same, whatever they are called and wherever they lie; every other sound has another.
    """
    content = np.ascontiguousarray(mono + np.float32(0), dtype="<f4").tobytes()  # + 0: no negative zeros
    return hashlib.sha256(f"{rate_hz}\n".encode() + content).hexdigest()[:16]


def beginning(samples: np.ndarray, n: int | None) -> np.ndarray:
    """The `n` samples (None: all) of a longer clip that a generator takes: its first ones, or where those are next to silence
    (`QUIET` of the clip's level), those from its first sound on, as far as that leaves `n` of them."""
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
    """A source whose every clip is decoded: `audio(row)` is float32 [n] at `sample_rate_hz`."""

    source: Source
    sample_rate_hz: int
    _samples: np.ndarray  # int16, memory-mapped
    _offsets: np.ndarray  # [n + 1]
    _peaks: np.ndarray  # [n]
    _rows: np.ndarray  # row of the source -> row of the cache
    _checksums: np.ndarray  # [n], of each clip's samples
    _checked: np.ndarray  # bool [n]: which of them were compared
    _folder: Path

    def __len__(self) -> int:
        return len(self.source)

    def audio(self, row: int) -> np.ndarray:
        """Mono float32 samples of one clip."""
        cached = self._rows[row]
        kept = self._samples[self._offsets[cached] : self._offsets[cached + 1]]
        if not self._checked[cached]:
            if checksum(kept) != self._checksums[cached]:
                return self._damaged(row)
            self._checked[cached] = True
        return from_kept(kept, self._peaks[cached])

    def _damaged(self, row: int) -> np.ndarray:
        """A clip whose samples in the cache are not what was written there, decoded again; the next call decodes all again."""
        (self._folder / INDEX_FILE).unlink(missing_ok=True)
        try:
            return from_kept(*as_kept(decode(self.source.audio[row], self.sample_rate_hz)))
        except (BadAudioError, OSError) as error:
            raise SourceError(
                f"{self.source.clips[row].clip_id} is damaged in the cache at {cache_root()}, and cannot be decoded again ({error})",
                hint="Run it again once its file can be read.",
            ) from error

    def n_samples(self, row: int) -> int:
        """How long one clip is."""
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
    """Every clip of `source`, from the cache or decoded into it, with its `sound` and its length.

    Raises SourceError that counts and names the clips which cannot be used, unless `skip_bad` leaves them out.
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
    here = {clip.clip_id for clip in source.clips}
    reasons = [f"{_below(name)} ({reason})" for name, reason in bad.items() if name in here]
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
    notes += _remarks(index["remarks"], clips)
    if copies := _copies_of_other_recordings(clips):
        notes.append(
            f"{pluralize(len(copies), 'clip')} with the same sound as a clip of another recording ({abbreviate_list(copies)}): one may train "
            "where the other is tested; remove the copies, or give both the same recording"
        )
    good = replace(good, clips=clips, notes=tuple(notes))
    peaks = np.array(index["peaks"], dtype=np.float64)
    checksums = np.array(index["checksums"], dtype=np.uint32)
    unchecked = np.zeros(len(lengths), dtype=bool)
    return DecodedSource(good, sample_rate_hz, samples, offsets, peaks, rows, checksums, unchecked, folder)


def _remarks(remarks: Mapping[str, str], clips: Sequence[Clip]) -> list[str]:
    """What was odd about files that were read nevertheless, each kind once."""
    found: dict[str, list[str]] = {}
    for clip in clips:
        if clip.clip_id in remarks:
            found.setdefault(remarks[clip.clip_id], []).append(_below(clip.clip_id))
    return [
        f"{pluralize(len(names), 'file')} ({abbreviate_list(names)}): {remark}"
        for remark, names in found.items()
    ]


def _copies_of_other_recordings(clips: Sequence[Clip]) -> list[str]:
    """The real clips that sound like one of another recording before them, as `this (as that)`."""
    first: dict[str, Clip] = {}
    found = []
    for clip in clips:
        if not clip.is_synthetic:
            before = first.setdefault(clip.sound, clip)
            if before.group != clip.group:
                found.append(f"{_below(clip.clip_id)} as {_below(before.clip_id)}")
    return found


def _below(clip_id: str) -> str:
    """A clip's name without its source's."""
    return clip_id.partition("/")[2] or clip_id


def _read_cache(folder: Path, source: Source) -> tuple[dict[str, Any], np.ndarray] | None:
    """The cache's index and samples if it is whole, knows every clip, and has none that should be tried again."""
    try:  # the samples first: what is mapped stays there, whoever replaces the folder
        with (folder / SAMPLES_FILE).open("rb") as file:
            samples = _mapped(file)
    except (OSError, ValueError):  # the latter: half a sample
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
    def attempt(row: int) -> DecodedClip:
        name = source.clips[row].clip_id
        try:
            mono, rate_hz, remark = read_mono(source.audio[row])
            return DecodedClip(
                name, resampled(mono, rate_hz, sample_rate_hz), sound_of(mono, rate_hz), remark
            )
        except BadAudioError as error:
            return DecodedClip(name, error)
        except OSError as error:
            if error.errno in TOO_MANY_OPEN:
                raise
            return DecodedClip(name, UnreadError(error.strerror or "cannot be read"))

    window = 64  # bounds the memory: a window is decoded, written, and forgotten
    with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
        for begin in range(rows.start, rows.stop, window):
            yield from pool.map(attempt, range(begin, min(begin + window, rows.stop)))


def _build(
    source: Source, sample_rate_hz: int, folder: Path, reporter: Reporter
) -> tuple[dict[str, Any], np.ndarray]:
    """Decode everything into a new folder beside `folder`, move it there in one step, and return what is in it.

    Every `PART_CLIPS` clips are kept in a file of their own until then: after a kill, the next call decodes what is missing.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(prefix="building-", dir=folder.parent))
    except OSError as error:
        raise _unwritable(error) from error
    parts = folder.with_name(f"{folder.name}-parts")
    whole = KeptPart(folder / INDEX_FILE)
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
                if not decoded:  # an earlier call did
                    decoding.update(rows.stop)
                elif len(source) > PART_CLIPS:
                    part.write()
                whole.join(part)
                file.write(part.samples)
            file.flush()
            os.fsync(file.fileno())
            if OPEN_FILES_MOVE:  # now: afterwards others may replace or delete it
                mapped = _mapped(file)
        index = {**whole.facts, "retry": whole.retry, "source": source.location}
        with contextlib.suppress(FileNotFoundError):  # the cache was deleted meanwhile: what is mapped stays
            atomic_write(building / INDEX_FILE, checked(json.dumps(index).encode()))
            _put_in_place(building, folder)
        shutil.rmtree(parts, ignore_errors=True)
        evict(folder.parent, size_limit(KEPT_BYTES), folder)
        if not OPEN_FILES_MOVE:
            with (folder / SAMPLES_FILE).open("rb") as file:
                mapped = _mapped(file)
    except OSError as error:
        if error.errno in TOO_MANY_OPEN:
            raise
        raise _unwritable(error) from error
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return index, mapped


def _mapped(file: BinaryIO) -> np.ndarray:
    """All samples in a file, int16 [n], without reading them; they outlive its name."""
    return np.memmap(file, dtype="<i2", mode="r") if os.fstat(file.fileno()).st_size else np.zeros(0, "<i2")


def _put_in_place(building: Path, folder: Path) -> None:
    """Move a finished folder to its name. Others may be doing the same: the last one stays, none is ever half there."""
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
