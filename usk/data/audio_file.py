"""Read the audio of one clip: from a file, a cell of a Parquet file or dataset, or the demo corpus."""

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
from usk.data.clip import Clip
from usk.data.containers import CutError, is_cut, split_sounds
from usk.data.mp3 import count_untagged_samples
from usk.files import sha256_of

AUDIO_SUFFIXES = frozenset((
    ".wav", ".wave", ".bwf", ".rf64", ".w64", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff",
    ".aifc", ".au", ".snd", ".caf", ".sph", ".nist", ".voc",
))  # fmt: skip
UNREAD_SUFFIXES = frozenset(
    [".m4a", ".mp4", ".aac", ".wma", ".webm", ".amr", ".3gp", ".mka", ".ape", ".wv", ".mpc"]
)
# First bytes of audio files: files without a suffix are known by them.
MAGIC = (b"RIFF", b"RF64", b"BW64", b"fLaC", b"OggS", b"FORM", b"caff", b".snd")
MAX_DURATION_S = 600.0
MAX_DECODED_SAMPLES = 1 << 26  # of all channels of a clip: 256 MB
MAX_RATE_HZ = 1_000_000
MAX_MEMBER_BYTES = 1 << 29  # of a file in a ZIP archive: a few kilobytes can unpack to gigabytes
UNKNOWN_FRAMES = 1 << 62  # libsndfile states this number or more if the file states none
MIN_MP3_SHARE = 0.95  # of an MP3's frames: a few may be the encoder's padding


class BadAudioError(Exception):
    """The audio of a clip cannot be used. The message is the reason, in a few words."""


class Sound(NamedTuple):
    """Decoded audio: float32 samples [n] or [n, channels], their rate in Hz, and a remark about the file, or ""."""

    samples: np.ndarray
    rate_hz: int
    remark: str = ""


class AudioRef(Protocol):
    """The place of one clip's audio."""

    def read(self) -> Sound:
        """Return the decoded audio. Raise BadAudioError or OSError."""
        ...

    def digest(self) -> str:
        """Return a SHA-256 hash of the stored audio, in hex."""
        ...


@dataclass(frozen=True, slots=True)
class FileRef:
    """A file, or a segment of it: from and to, in seconds."""

    path: Path
    segment_s: tuple[float, float] | None = None

    @property
    def segment_suffix(self) -> str:
        return "@{:g}-{:g}".format(*self.segment_s) if self.segment_s else ""

    def read(self) -> Sound:
        return read_audio_bytes(self.path.read_bytes(), self.segment_s)

    def digest(self) -> str:
        whole = sha256_of(self.path)
        if self.segment_s is None:
            return whole
        return hashlib.sha256("{}@{}-{}".format(whole, *self.segment_s).encode()).hexdigest()


class _CellRef(abc.ABC):
    """A cell of an audio column. It may name a file below `folder`."""

    __slots__ = ()
    folder: Path

    @abc.abstractmethod
    def cell(self) -> Any:
        """Return the stored value."""

    def read(self) -> Sound:
        return _read_cell(self.cell(), self.folder)

    def digest(self) -> str:
        cell = self.cell()
        content = cell.get("bytes") if isinstance(cell, dict) else cell
        if isinstance(content, bytes) and content:
            return hashlib.sha256(content).hexdigest()
        with contextlib.suppress(BadAudioError):  # decoding reports it
            samples, rate_hz, _ = self.read()
            return hashlib.sha256(samples.tobytes() + str(rate_hz).encode()).hexdigest()
        return hashlib.sha256(repr(cell).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class ParquetRef(_CellRef):
    path: Path
    row_group: int
    row: int
    column: str

    @property
    def folder(self) -> Path:  # type: ignore[override]
        return self.path.parent

    def cell(self) -> Any:
        column = _parquet_column(self.path, self.path.stat().st_mtime_ns, self.row_group, self.column)
        return column[self.row].as_py()

    def duration_s(self) -> float:
        """Return the duration that the header of the embedded file states, or 0 if there is none."""
        cell = self.cell()
        content = cell.get("bytes") if isinstance(cell, dict) else None
        return read_header(io.BytesIO(content)).duration_s if content else 0.0


@dataclass(frozen=True, slots=True)
class DatasetRef(_CellRef):
    rows: Any
    row: int
    column: str
    folder: Path

    def cell(self) -> Any:
        return self.rows[self.row][self.column]


@dataclass(frozen=True, slots=True)
class ProceduralRef:
    """A clip of the demo corpus."""

    clip: Clip

    def read(self) -> Sound:
        return Sound(demo_corpus.render(self.clip), demo_corpus.SAMPLE_RATE_HZ)

    def digest(self) -> str:
        return hashlib.sha256(self.clip.clip_id.removeprefix("demo/").encode()).hexdigest()


def is_audio(file: Path) -> bool:
    """Whether usk reads files of this kind, by the suffix, or by the first bytes of a file without a suffix."""
    if file.suffix:
        return file.suffix.lower() in AUDIO_SUFFIXES
    with contextlib.suppress(OSError), file.open("rb") as opened:
        return opened.read(4) in MAGIC
    return False


class Header(NamedTuple):
    duration_s: float
    rate_hz: int


def read_header(file: Path | io.BytesIO) -> Header:
    """Return what an audio file's header states, with the duration 0 if libsndfile cannot read it."""
    import soundfile

    try:
        info = soundfile.info(file)
    except (OSError, RuntimeError):
        return Header(0.0, 1)
    duration_s = float(info.duration) if info.frames < UNKNOWN_FRAMES else MAX_DURATION_S
    return Header(duration_s, int(info.samplerate))


def read_audio_bytes(content: bytes, segment_s: tuple[float, float] | None = None) -> Sound:
    """Decode an encoded audio file, or a segment of it, with libsndfile: samples [n, channels].

    Raise BadAudioError if the content is empty, is not audio, or ends before the length that its header states.
    """
    import soundfile

    if not content:
        raise BadAudioError("empty file")
    if content.startswith(b"version https://git-lfs"):
        raise BadAudioError("a pointer of Git LFS; run `git lfs pull` in its folder")
    try:
        sounds, remark = split_sounds(content)
        if len(sounds) > 1:
            return _join([read_audio_bytes(sound) for sound in sounds], segment_s)
        (content,) = sounds
        with soundfile.SoundFile(io.BytesIO(content)) as file:
            if is_cut(file.extra_info):
                raise CutError
            if segment_s is None:
                return Sound(_read_whole(file, content), int(file.samplerate), remark)
            begin, end = (round(second * file.samplerate) for second in segment_s)
            if not file.seekable():  # GSM 6.10
                return Sound(_read_whole(file, content)[begin:end], int(file.samplerate), remark)
            _refuse_long(end - begin, file.channels, file.samplerate)
            file.seek(min(begin, file.frames))
            samples = file.read(end - begin, dtype="float32", always_2d=True)
            return Sound(samples, int(file.samplerate), remark)
    except CutError:
        raise BadAudioError("truncated") from None
    except (RuntimeError, ValueError, TypeError, MemoryError, IndexError):  # of soundfile, for damaged files
        raise BadAudioError("not an audio file that libsndfile can read") from None


def _read_whole(file: Any, content: bytes) -> np.ndarray:
    """Return all samples [n, channels] of an open SoundFile with this content. Raise BadAudioError if it ends early."""
    if file.frames >= UNKNOWN_FRAMES:  # FLAC that an encoder wrote into a pipe
        return _read_blocks(file)
    mp3_frames = count_untagged_samples(content) if file.format == "MP3" else None
    _refuse_long(mp3_frames or file.frames, file.channels, file.samplerate)
    try:
        samples: np.ndarray = file.read(file.frames, dtype="float32", always_2d=True)
    except RuntimeError:  # FLAC has a checksum in each frame
        raise BadAudioError("truncated or damaged") from None
    if mp3_frames is not None and len(samples) < MIN_MP3_SHARE * mp3_frames:
        message = "an MP3 without a stated length, of which only a part can be read; convert it to FLAC"
        raise BadAudioError(message)
    if mp3_frames is None and len(samples) < file.frames:
        raise CutError
    return samples


def _join(sounds: list[Sound], segment_s: tuple[float, float] | None) -> Sound:
    """Concatenate sounds and cut out the segment. Raise BadAudioError if their rates or channels differ."""
    rate_hz = sounds[0].rate_hz
    if len({(sound.samples.shape[1], sound.rate_hz) for sound in sounds}) > 1:
        raise BadAudioError("several sounds of other rates or channels joined; take them apart")
    samples = np.concatenate([sound.samples for sound in sounds])
    _refuse_long(len(samples), samples.shape[1], rate_hz)
    begin, end = (round(second * rate_hz) for second in segment_s or (0, len(samples)))
    return Sound(samples[begin:end], rate_hz)


def _read_blocks(file: Any) -> np.ndarray:
    """Return all samples [n, channels] of a file of unknown length, read second by second."""
    import soundfile

    blocks, frames = [], 0
    while True:
        block = np.full((file.samplerate, file.channels), np.nan, dtype=np.float32)
        # soundfile cannot seek to the end of such a file.
        with contextlib.suppress(soundfile.LibsndfileError):
            file.buffer_read_into(block, "float32")
        read = int(np.count_nonzero(~np.isnan(block[:, 0])))
        blocks.append(block[:read])
        frames += read
        _refuse_long(frames, file.channels, file.samplerate)
        if read < len(block):
            return np.concatenate(blocks)


def _refuse_long(frames: int, channels: int, rate_hz: int) -> None:
    """Raise BadAudioError before too much is decoded: a file of a few kilobytes can state a length of hours."""
    if frames > MAX_DURATION_S * rate_hz:
        raise BadAudioError(f"longer than {MAX_DURATION_S:.0f} s; cut it into clips")
    if frames * channels > MAX_DECODED_SAMPLES:
        raise BadAudioError(f"more than {MAX_DECODED_SAMPLES / 1e6:.0f} million samples; cut it into clips")


def _read_cell(cell: Any, folder: Path) -> Sound:
    """Decode a cell of an audio column: encoded bytes, a path, or samples with their rate."""
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
    in_archive = re.fullmatch(r"zip://(.+?)::(.+)", cell)  # `datasets` names files in archives so
    path = folder / (in_archive[2] if in_archive else cell)
    if not path.resolve().is_relative_to(folder.resolve()):
        raise BadAudioError("its path leads out of the dataset's folder")
    if not path.is_file():
        raise BadAudioError("its file is missing")
    return read_audio_bytes(_read_member(path, in_archive[1]) if in_archive else path.read_bytes())


def _read_member(archive: Path, name: str) -> bytes:
    """Return the content of a file in a ZIP archive. Raise BadAudioError if it is missing, damaged, encrypted, or too large."""
    try:
        with zipfile.ZipFile(archive) as opened:
            if opened.getinfo(name).file_size > MAX_MEMBER_BYTES:
                message = f"more than {MAX_MEMBER_BYTES >> 20} MB in its archive; cut it into clips"
                raise BadAudioError(message)
            return opened.read(name)
    except (KeyError, NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error):
        raise BadAudioError("cannot be read from its archive") from None


def _read_array(values: Any, rate_hz: Any) -> Sound:
    """Convert samples that are stored decoded. Raise BadAudioError if they are not samples at a rate."""
    try:
        samples, rate = np.asarray(values, dtype=np.float32), int(rate_hz)
    except (TypeError, ValueError):
        samples, rate = np.zeros((), np.float32), 0
    if samples.ndim not in (1, 2) or not 0 < rate <= MAX_RATE_HZ:
        raise BadAudioError("its array holds no samples at a rate")
    if samples.ndim == 2 and len(samples) < samples.shape[1]:  # `datasets` stores channels first
        samples = samples.T
    _refuse_long(len(samples), samples.size // max(1, len(samples)), rate)
    return Sound(samples, rate)


@lru_cache(maxsize=2)  # row groups, which may be large: the current and the previous one
def _parquet_column(path: Path, modified_ns: int, row_group: int, column: str) -> Any:
    import pyarrow.parquet as pq

    return pq.ParquetFile(path).read_row_group(row_group, columns=[column]).column(0)
