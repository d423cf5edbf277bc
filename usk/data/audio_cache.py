"""The cache of decoded audio of a source: parts of up to PART_CLIPS clips, each a file of samples and an index.

Samples are stored as 16-bit integers relative to each clip's peak. That is exact for 16-bit files at their own rate.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from usk.data.cache import checked, read_checked
from usk.files import atomic_write

FULL_SCALE = 32_767
PART_CLIPS = 512


class IndexEntry(NamedTuple):
    """What a part's index stores for each clip."""

    name: str
    n_samples: int = 0
    peak: float = 0.0
    sound: str = ""
    checksum: int = 0
    remark: str = ""
    problem: str = ""  # why the clip cannot be used


class NewClip(NamedTuple):
    """A clip to store."""

    entry: IndexEntry
    samples: np.ndarray = np.zeros(0, "<i2")
    # Whether the file could not be read: do not store the clip, so that the next call tries again.
    retry: bool = False


class CachedClip(NamedTuple):
    entry: IndexEntry
    samples: np.ndarray  # int16 [n_samples], memory-mapped
    index_file: Path

    def audio(self) -> np.ndarray:
        """Return the samples as float32 [n_samples]."""
        return dequantize(self.samples, self.entry.peak)


def quantize(samples: np.ndarray) -> tuple[np.ndarray, float]:
    """Convert samples to 16-bit integers [n] relative to their peak. Return them and the peak."""
    peak = float(np.abs(samples).max()) if len(samples) else 0.0
    return np.rint(samples * (FULL_SCALE / peak if peak else 0.0)).astype("<i2"), peak


def dequantize(samples: np.ndarray, peak: float) -> np.ndarray:
    """Invert `quantize`: return float32 [n]."""
    return samples.astype(np.float32) * np.float32(peak / FULL_SCALE)


def read_parts(folder: Path) -> dict[str, CachedClip]:
    """Return the cached clips by name. Skip damaged parts."""
    clips: dict[str, CachedClip] = {}
    for index_file in folder.glob("*.json"):
        content = read_checked(index_file)
        if content is None:
            continue
        entries = [IndexEntry(*row) for row in json.loads(content)]
        with contextlib.suppress(OSError, ValueError):  # ValueError: an odd number of bytes
            samples = _map_samples(index_file.with_suffix(".i16"))
            if len(samples) == sum(entry.n_samples for entry in entries):
                clips.update(_cut(entries, samples, index_file))
    return clips


def encode_clip(name: str, samples: np.ndarray, sound: str, remark: str) -> NewClip:
    """Convert a decoded clip, float32 [n], to the cache's format."""
    quantized, peak = quantize(samples)
    checksum = zlib.crc32(quantized.data)
    return NewClip(IndexEntry(name, len(quantized), peak, sound, checksum, remark), quantized)


def write_part(folder: Path, clips: Sequence[NewClip]) -> dict[str, CachedClip]:
    """Store clips in a new part and return them by name. Raise OSError if the folder cannot be written."""
    entries, pieces = [clip.entry for clip in clips], [clip.samples for clip in clips]
    key = hashlib.sha256(json.dumps([entry.name for entry in entries]).encode()).hexdigest()[:24]
    index_file, samples_file = folder / f"{key}.json", folder / f"{key}.i16"
    stored = [clip.entry for clip in clips if not clip.retry]
    try:
        atomic_write(samples_file, (piece.data for piece in pieces))
        atomic_write(index_file, checked(json.dumps(stored).encode()))
        samples = _map_samples(samples_file)
    except FileNotFoundError:  # the cache was deleted meanwhile: use the samples in memory
        samples = np.concatenate(pieces)
    return _cut(entries, samples, index_file)


def _cut(entries: Sequence[IndexEntry], samples: np.ndarray, index_file: Path) -> dict[str, CachedClip]:
    """Return the clips of a part by name. Unusable clips have no samples."""
    clips = {}
    start = 0
    for entry in entries:
        clips[entry.name] = CachedClip(entry, samples[start : start + entry.n_samples], index_file)
        start += entry.n_samples
    return clips


def _map_samples(file: Path) -> np.ndarray:
    """Map the samples of a file into memory: int16 [n]. They stay available if the file is deleted."""
    return np.asarray(np.memmap(file, "<i2", "r")) if file.stat().st_size else np.zeros(0, "<i2")
