"""Where one clip's audio is, and reading it whole: files, subsets of Parquet and of datasets, procedural sound."""

from __future__ import annotations

import abc
import contextlib
import hashlib
import io
import re
import zipfile
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from usk.data import demo_corpus
from usk.data.containers import CutError, whole_sounds
from usk.data.mp3 import unconditioned_samples
from usk.files import sha256_of

AUDIO_SUFFIXES = frozenset((
    ".wav", ".wave", ".bwf", ".rf64", ".w64", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff",
    ".aifc", ".au", ".snd", ".caf", ".sph", ".nist", ".voc",
))  # fmt: skip
UNREAD_SUFFIXES = frozenset(
    [".m4a", ".mp4", ".aac", ".wma", ".webm", ".amr", ".3gp", ".mka", ".ape", ".wv", ".mpc"]
)
MAGIC = (b"RIFF", b"RF64", b"BW64", b"fLaC", b"OggS", b"FORM", b"caff", b".snd")  # of files without a suffix
MAX_DURATION_S = 600.0
MAX_DECODED_SAMPLES = 1 << 26  # of all channels of one clip: 256 MB
MAX_RATE_HZ = 1_000_000
MAX_MEMBER_BYTES = 1 << 29  # of a file in an archive: a few kilobytes can unpack to gigabytes
UNTOLD_FRAMES = 1 << 62  # libsndfile's count, or more, where a file states none
MP3_PART = 0.95  # of an MP3's frames: encoders' padding may be cut from a few


class Sound(NamedTuple):
    """What a file holds: float32 samples [n] or [n, channels], their rate in Hz, and what to say of such files, if anything."""

    samples: np.ndarray
    rate_hz: int
    remark: str = ""


class AudioRef(Protocol):
    """Where one clip's audio is. `digest` is a hash of what is stored, in hex."""

    @property
    def name(self) -> str: ...
    def read(self) -> Sound: ...
    def digest(self) -> str: ...


@dataclass(frozen=True, slots=True)
class FileRef:
    """A file, or a stretch of it in seconds."""

    path: Path
    stretch_s: tuple[float, float] | None = None

    @property
    def name(self) -> str:
        return str(self.path) + self.cut

    @property
    def cut(self) -> str:
        """What follows the name of the file in the name of its stretch."""
        return "@{:g}-{:g}".format(*self.stretch_s) if self.stretch_s else ""

    def read(self) -> Sound:
        return read_audio_bytes(self.path.read_bytes(), self.stretch_s)

    def digest(self) -> str:
        whole = sha256_of(self.path)
        if self.stretch_s is None:
            return whole
        return hashlib.sha256("{}@{}-{}".format(whole, *self.stretch_s).encode()).hexdigest()


class _CellRef(abc.ABC):
    """One value of an audio column, which may name a file below `folder`."""

    __slots__ = ()
    folder: Path

    @abc.abstractmethod
    def cell(self) -> Any:
        """The value."""

    def read(self) -> Sound:
        return _read_cell(self.cell(), self.folder)

    def digest(self) -> str:
        return _digest_of_cell(self.cell(), self.folder)


@dataclass(frozen=True, slots=True)
class ParquetRef(_CellRef):
    path: Path
    row_group: int
    row: int
    column: str

    @property
    def name(self) -> str:
        return f"{self.path.name} row {self.row} of group {self.row_group}"

    @property
    def folder(self) -> Path:  # type: ignore[override]
        return self.path.parent

    def cell(self) -> Any:
        column = _parquet_column(self.path, self.path.stat().st_mtime_ns, self.row_group, self.column)
        return column[self.row].as_py()

    def duration_s(self) -> float:
        """From the header of the embedded file; 0 where there is none, or none that libsndfile reads."""
        cell = self.cell()
        content = cell.get("bytes") if isinstance(cell, dict) else None
        return header(io.BytesIO(content)).duration_s if content else 0.0


@dataclass(frozen=True, slots=True)
class DatasetRef(_CellRef):
    rows: Any
    row: int
    column: str
    folder: Path

    @property
    def name(self) -> str:
        return f"row {self.row}"

    def cell(self) -> Any:
        return self.rows[self.row][self.column]


@dataclass(frozen=True, slots=True)
class ProceduralRef:
    clip: Any

    @property
    def name(self) -> str:
        return str(self.clip.clip_id)

    def read(self) -> Sound:
        return Sound(demo_corpus.render(self.clip), demo_corpus.SAMPLE_RATE_HZ)

    def digest(self) -> str:
        return hashlib.sha256(self.name.encode()).hexdigest()


def is_audio(file: Path) -> bool:
    """Whether a file is of a kind that usk reads: by its suffix, or by its first bytes where it has none."""
    if file.suffix:
        return file.suffix.lower() in AUDIO_SUFFIXES
    with contextlib.suppress(OSError), file.open("rb") as opened:
        return opened.read(4) in MAGIC
    return False


class BadAudioError(Exception):
    """One clip's audio cannot be used; the message says why in a few words."""


class Header(NamedTuple):
    duration_s: float
    rate_hz: int


def header(file: Path | io.BytesIO) -> Header:
    """What a file's header says; no duration where libsndfile reads none."""
    import soundfile

    try:
        info = soundfile.info(file)
    except (OSError, RuntimeError):
        return Header(0.0, 1)
    return Header(
        float(info.duration) if info.frames < UNTOLD_FRAMES else MAX_DURATION_S, int(info.samplerate)
    )


def read_audio_bytes(content: bytes, stretch_s: tuple[float, float] | None = None) -> Sound:
    """Decode an audio file with libsndfile, whole or a stretch of it: samples [n, channels].

    Raises BadAudioError for an empty file, one that is no audio, and one shorter than its header says.
    """
    import soundfile

    if not content:
        raise BadAudioError("empty file")
    if content.startswith(b"version https://git-lfs"):
        raise BadAudioError("a pointer of Git LFS; run `git lfs pull` in its folder")
    try:
        sounds, remark = whole_sounds(content)
        if len(sounds) > 1:
            return _joined([read_audio_bytes(sound) for sound in sounds], stretch_s)
        (content,) = sounds
        with soundfile.SoundFile(io.BytesIO(content)) as file:
            if stretch_s is not None:
                begin, end = (round(second * file.samplerate) for second in stretch_s)
                if not file.seekable():  # GSM 6.10
                    return Sound(_read_whole(file, content)[begin:end], int(file.samplerate), remark)
                _refuse_long(end - begin, file.channels, file.samplerate)
                file.seek(min(begin, file.frames))
                cut = file.read(end - begin, dtype="float32", always_2d=True)
                return Sound(cut, int(file.samplerate), remark)
            return Sound(_read_whole(file, content), int(file.samplerate), remark)
    except CutError:
        raise BadAudioError("truncated") from None
    except (
        RuntimeError,
        ValueError,
        TypeError,
        MemoryError,
        IndexError,
    ):  # whatever libsndfile makes of odd files
        raise BadAudioError("not an audio file that libsndfile can read") from None


def _read_whole(file: Any, content: bytes) -> np.ndarray:
    """All samples [n, channels]. Raises BadAudioError for fewer than the header says."""
    if file.frames >= UNTOLD_FRAMES:  # FLAC that an encoder wrote into a pipe
        return _read_to_the_end(file)
    told = unconditioned_samples(content) if file.format == "MP3" else None
    _refuse_long(told or file.frames, file.channels, file.samplerate)
    try:
        samples: np.ndarray = file.read(file.frames, dtype="float32", always_2d=True)
    except RuntimeError:  # FLAC, which has a checksum in each frame
        raise BadAudioError("truncated or damaged") from None
    if told is not None and len(samples) < MP3_PART * told:
        raise BadAudioError(
            "an MP3 that does not say how long it is, and is read in part; convert it to FLAC"
        )
    if told is None and len(samples) < file.frames:
        raise BadAudioError("truncated")
    return samples


def _joined(sounds: list[Sound], stretch_s: tuple[float, float] | None) -> Sound:
    """Sounds one after the other. Raises BadAudioError where they do not fit together."""
    rate_hz = sounds[0].rate_hz
    if len({(sound.samples.shape[1], sound.rate_hz) for sound in sounds}) > 1:
        raise BadAudioError("several sounds of other rates or channels joined; take them apart")
    samples = np.concatenate([sound.samples for sound in sounds])
    _refuse_long(len(samples), samples.shape[1], rate_hz)
    begin, end = (round(second * rate_hz) for second in stretch_s or (0, len(samples)))
    return Sound(samples[begin:end], rate_hz)


def _read_to_the_end(file: Any) -> np.ndarray:
    """All samples [n, channels] of a file that does not say how many it has."""
    import soundfile

    blocks, frames = [], 0
    while True:
        block = np.full((file.samplerate, file.channels), np.nan, dtype=np.float32)
        with contextlib.suppress(soundfile.LibsndfileError):  # at the end: it cannot seek to where it is
            file.buffer_read_into(block, "float32")
        read = int(np.count_nonzero(~np.isnan(block[:, 0])))
        blocks.append(block[:read])
        frames += read
        _refuse_long(frames, file.channels, file.samplerate)
        if read < len(block):
            return np.concatenate(blocks)


def _refuse_long(frames: int, channels: int, rate_hz: int) -> None:
    """Raise BadAudioError for what would decode to too much: a few kilobytes can say that they are hours."""
    if frames > MAX_DURATION_S * rate_hz:
        raise BadAudioError(f"longer than {MAX_DURATION_S:.0f} s; cut it into clips")
    if frames * channels > MAX_DECODED_SAMPLES:
        raise BadAudioError(f"more than {MAX_DECODED_SAMPLES / 1e6:.0f} million samples; cut it into clips")


def _digest_of_cell(cell: Any, folder: Path) -> str:
    """A hash of one value of an audio column: of its bytes or samples, or of the file that it names."""
    content = cell.get("bytes") if isinstance(cell, dict) else cell
    if isinstance(content, bytes) and content:
        return hashlib.sha256(content).hexdigest()
    with contextlib.suppress(BadAudioError):  # decoding says so
        samples, rate_hz, _ = _read_cell(cell, folder)
        return hashlib.sha256(samples.tobytes() + str(rate_hz).encode()).hexdigest()
    return hashlib.sha256(repr(cell).encode()).hexdigest()


def _read_cell(cell: Any, folder: Path) -> Sound:
    """One value of an audio column: encoded bytes, a path, or decoded samples with their rate."""
    if isinstance(cell, dict):
        if cell.get("bytes"):
            return read_audio_bytes(cell["bytes"])
        if cell.get("array") is not None:
            return _read_array(cell["array"], cell.get("sampling_rate"))
        cell = cell.get("path")
    if isinstance(cell, bytes):
        return read_audio_bytes(cell)
    if not isinstance(cell, str) or not cell or "\0" in cell:
        raise BadAudioError("no audio in the row")
    inner = re.fullmatch(r"zip://(.+?)::(.+)", cell)  # how `datasets` names what it has left in an archive
    path = folder / (inner[2] if inner else cell)
    if not path.resolve().is_relative_to(folder.resolve()):
        raise BadAudioError("its path leads out of the dataset's folder")
    if not path.is_file():
        raise BadAudioError("its file is missing")
    return read_audio_bytes(_member(path, inner[1]) if inner else path.read_bytes())


def _member(archive: Path, name: str) -> bytes:
    """A file in a ZIP archive. Raises BadAudioError for one that is not there, damaged, encrypted, or packed in a way that
    Python does not unpack (what `zipfile` means by NotImplementedError)."""
    try:
        with zipfile.ZipFile(archive) as opened:
            if opened.getinfo(name).file_size > MAX_MEMBER_BYTES:
                raise BadAudioError(
                    f"more than {MAX_MEMBER_BYTES >> 20} MB in its archive; cut it into clips"
                )
            return opened.read(name)
    except (KeyError, NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error):
        raise BadAudioError("cannot be read from its archive") from None


def _read_array(values: Any, rate_hz: Any) -> Sound:
    """Samples that are stored decoded, with their rate."""
    try:
        samples, rate = np.asarray(values, dtype=np.float32), int(rate_hz)
    except (TypeError, ValueError):
        raise BadAudioError("its array holds no samples at a rate") from None
    if samples.ndim not in (1, 2) or not 0 < rate <= MAX_RATE_HZ:
        raise BadAudioError("its array holds no samples at a rate")
    if samples.ndim == 2 and len(samples) < samples.shape[1]:  # channels first, as `datasets` has them
        samples = samples.T
    _refuse_long(len(samples), samples.size // max(1, len(samples)), rate)
    return Sound(samples, rate)


@lru_cache(maxsize=2)  # the group being read and the one before it: a group of audio may be large
def _parquet_column(path: Path, modified_ns: int, row_group: int, column: str) -> Any:
    import pyarrow.parquet as pq

    return pq.ParquetFile(path).read_row_group(row_group, columns=[column]).column(0)
