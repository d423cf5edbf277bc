"""The format of decoded audio in the cache, and the parts of a long decoding job."""

from __future__ import annotations

import contextlib
import hashlib
import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from usk.data.audio_file import BadAudioError
from usk.data.cache import checked, read_checked
from usk.files import atomic_write

FULL_SCALE = 32_767
PART_CLIPS = 512
COLUMNS = ("names", "lengths", "peaks", "sounds", "checksums")


class UnreadError(BadAudioError):
    """The file could not be read, for example without permission. The next call tries again."""


class DecodedClip(NamedTuple):
    """A clip's samples, float32 [n], or the error that explains why there are none."""

    name: str
    samples: np.ndarray | BadAudioError
    sound: str = ""
    remark: str = ""


def as_kept(samples: np.ndarray) -> tuple[np.ndarray, float]:
    """Convert samples to the cache's format: 16-bit integers [n] relative to the clip's peak, and that peak."""
    peak = float(np.abs(samples).max()) if len(samples) else 0.0
    return np.rint(samples * (FULL_SCALE / peak if peak else 0.0)).astype("<i2"), peak


def from_kept(kept: np.ndarray, peak: float) -> np.ndarray:
    """Invert `as_kept`: return float32 [n]."""
    return kept.astype(np.float32) * np.float32(peak / FULL_SCALE)


def checksum(kept: np.ndarray) -> int:
    """Return a checksum of a clip's samples in the cache's format."""
    return zlib.crc32(np.ascontiguousarray(kept).data)


class KeptPart:
    """Decoded clips: their concatenated samples, and `facts` about them, in columns (lists) and by clip name (dicts)."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.facts: dict[str, Any] = {**{name: [] for name in COLUMNS}, "bad": {}, "remarks": {}}
        self.retry = False  # whether a file could not be read
        self.samples = bytearray()

    @classmethod
    def in_folder(cls, folder: Path, names: Sequence[str]) -> KeptPart:
        """Return an empty part for the clips with these names."""
        return cls(folder / hashlib.sha256(json.dumps(names).encode()).hexdigest()[:24])

    def add(self, clip: DecodedClip) -> None:
        samples, peak = np.zeros(0, "<i2"), 0.0
        if isinstance(clip.samples, BadAudioError):
            self.facts["bad"][clip.name] = str(clip.samples)
            self.retry |= isinstance(clip.samples, UnreadError)
        else:
            samples, peak = as_kept(clip.samples)
        if clip.remark:
            self.facts["remarks"][clip.name] = clip.remark
        facts = (clip.name, len(samples), peak, clip.sound, checksum(samples))
        for column, fact in zip(COLUMNS, facts, strict=True):
            self.facts[column].append(fact)
        self.samples += samples.tobytes()

    def add_facts(self, part: KeptPart) -> None:
        """Add the facts about another part's clips, without their samples."""
        for name, facts in part.facts.items():
            if isinstance(facts, dict):
                self.facts[name].update(facts)
            else:
                self.facts[name].extend(facts)
        self.retry |= part.retry

    def write(self) -> None:
        """Write the part's file, unless a clip should be tried again. Raise OSError."""
        if not self.retry:
            content = checked(json.dumps(self.facts).encode() + b"\n" + self.samples)
            with contextlib.suppress(FileNotFoundError):  # the cache was deleted meanwhile
                self.file.parent.mkdir(parents=True, exist_ok=True)
                atomic_write(self.file, content)

    def read(self) -> bool:
        """Load the part's file. Return whether it exists and is whole."""
        content = read_checked(self.file)
        if content is None:
            return False
        facts, _, samples = content.partition(b"\n")
        self.facts, self.samples = json.loads(facts), bytearray(samples)
        return True
