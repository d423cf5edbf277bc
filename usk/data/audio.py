"""Where one clip's audio is, and reading it whole: files, cells of Parquet and of datasets, procedural sound."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from usk.data.mp3 import untold_samples

AUDIO_SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff"})
MAX_DURATION_S = 600.0
MAX_DECODED_SAMPLES = 1 << 26  # of all channels of one clip: 256 MB
MAX_RATE_HZ = 1_000_000
MP3_PART = 0.95  # of an MP3's frames: encoders' padding may be cut from a few


class AudioRef(Protocol):
    """Where one clip's audio is. `read` gives float32 samples [n] or [n, channels] and their rate in Hz."""

    @property
    def name(self) -> str: ...
    def read(self) -> tuple[np.ndarray, int]: ...


@dataclass(frozen=True, slots=True)
class FileRef:
    path: Path

    @property
    def name(self) -> str:
        return str(self.path)

    def read(self) -> tuple[np.ndarray, int]:
        return read_audio_bytes(self.path.read_bytes())


@dataclass(frozen=True, slots=True)
class ParquetRef:
    path: Path
    row_group: int
    row: int
    column: str

    @property
    def name(self) -> str:
        return f"{self.path.name} row {self.row} of group {self.row_group}"

    def read(self) -> tuple[np.ndarray, int]:
        column = _parquet_column(self.path, self.path.stat().st_mtime_ns, self.row_group, self.column)
        return _read_cell(column[self.row].as_py(), self.path.parent)

    def duration_s(self) -> float:
        """From the header of the embedded file; 0 where there is none, or none that libsndfile reads."""
        import soundfile

        column = _parquet_column(self.path, self.path.stat().st_mtime_ns, self.row_group, self.column)
        cell = column[self.row].as_py()
        content = cell.get("bytes") if isinstance(cell, dict) else None
        try:
            return float(soundfile.info(io.BytesIO(content)).duration) if content else 0.0
        except soundfile.LibsndfileError:
            return 0.0


@dataclass(frozen=True, slots=True)
class DatasetRef:
    rows: Any
    row: int
    column: str
    folder: Path  # that paths in the rows must not lead out of

    @property
    def name(self) -> str:
        return f"row {self.row}"

    def read(self) -> tuple[np.ndarray, int]:
        return _read_cell(self.rows[self.row][self.column], self.folder)


@dataclass(frozen=True, slots=True)
class ProceduralRef:
    clip: Any

    @property
    def name(self) -> str:
        return str(self.clip.clip_id)

    def read(self) -> tuple[np.ndarray, int]:
        from usk.data import procedural

        return procedural.render(self.clip), procedural.SAMPLE_RATE_HZ


class BadAudioError(Exception):
    """One clip's audio cannot be used; the message says why in a few words."""


def read_audio_bytes(content: bytes) -> tuple[np.ndarray, int]:
    """Decode a whole audio file with libsndfile: float32 [n, channels] and its rate in Hz.

    Raises BadAudioError for an empty file, one that is no audio, and one shorter than its header says.
    """
    import soundfile

    if not content:
        raise BadAudioError("empty file")
    if content[:4] == b"RIFF" and len(content) < 44:
        raise BadAudioError("truncated")
    riff_size = int.from_bytes(content[4:8], "little") if content[:4] == b"RIFF" else 0
    # libsndfile shortens a cut WAV file without a word; its header still tells. One byte of padding may miss.
    if riff_size not in (0, 0xFFFFFFFF) and len(content) + 1 < riff_size + 8:
        raise BadAudioError("truncated")
    try:
        with soundfile.SoundFile(io.BytesIO(content)) as file:
            told = untold_samples(content) if file.format == "MP3" else None
            _refuse_long(told or file.frames, file.channels, file.samplerate)
            samples = file.read(dtype="float32", always_2d=True)
            if told is not None:
                if len(samples) < MP3_PART * told:
                    raise BadAudioError(
                        "an MP3 that does not say how long it is, and is read in part; convert it to FLAC"
                    )
            elif file.frames > 0 and len(samples) < file.frames:
                raise BadAudioError("truncated")
            return samples, int(file.samplerate)
    except soundfile.LibsndfileError:
        raise BadAudioError("not an audio file that libsndfile can read") from None


def _refuse_long(frames: int, channels: int, rate_hz: int) -> None:
    """Raise BadAudioError for what would decode to too much: a few kilobytes can say that they are hours."""
    if frames > MAX_DURATION_S * rate_hz:
        raise BadAudioError(f"longer than {MAX_DURATION_S:.0f} s; cut it into clips")
    if frames * channels > MAX_DECODED_SAMPLES:
        raise BadAudioError(f"more than {MAX_DECODED_SAMPLES / 1e6:.0f} million samples; cut it into clips")


def _read_cell(cell: Any, folder: Path) -> tuple[np.ndarray, int]:
    """One value of an audio column: encoded bytes, a path, or decoded samples with their rate."""
    if isinstance(cell, dict):
        if cell.get("bytes"):
            return read_audio_bytes(cell["bytes"])
        if cell.get("array") is not None:
            return _read_array(cell["array"], cell.get("sampling_rate"))
        cell = cell.get("path")
    if isinstance(cell, bytes):
        return read_audio_bytes(cell)
    if not isinstance(cell, str) or not cell:
        raise BadAudioError("no audio in the row")
    path = folder / cell
    if not path.resolve().is_relative_to(folder.resolve()):
        raise BadAudioError("its path leads out of the dataset's folder")
    if not path.is_file():
        raise BadAudioError("its file is missing")
    return read_audio_bytes(path.read_bytes())


def _read_array(values: Any, rate_hz: Any) -> tuple[np.ndarray, int]:
    """Samples that are stored decoded, with their rate."""
    try:
        samples, rate = np.asarray(values, dtype=np.float32), int(rate_hz)
    except (TypeError, ValueError):
        raise BadAudioError("its array holds no samples at a rate") from None
    if samples.ndim not in (1, 2) or not 0 < rate <= MAX_RATE_HZ:
        raise BadAudioError("its array holds no samples at a rate")
    _refuse_long(len(samples), samples.size // max(1, len(samples)), rate)
    return samples, rate


@lru_cache(maxsize=2)  # the group being read and the one before it: a group of audio may be large
def _parquet_column(path: Path, modified_ns: int, row_group: int, column: str) -> Any:
    import pyarrow.parquet as pq

    return pq.ParquetFile(path).read_row_group(row_group, columns=[column]).column(0)
