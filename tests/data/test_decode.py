"""Decoding of every format, and the cache on disk."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.sounds import peak_hz, tone, write_wav
from usk.data import audio_cache
from usk.data import decode as decode_module
from usk.data.audio_file import BadAudioError, FileRef, read_audio_bytes
from usk.data.cache import cache_root, cache_size_bytes, checked, read_checked
from usk.data.decode import decode, decode_source
from usk.data.open import open_source
from usk.errors import SourceError
from usk.reporter import Reporter, Task

RATE_HZ = 22_050


class Each(Reporter, Task):
    """Calls `each` with the number of decoded clips after each clip."""

    def __init__(self, each: Callable[[int], object]) -> None:
        super().__init__()
        self.each = each

    def task(self, label: str, unit: str = "", total: int = 0) -> Task:
        return self

    def update(self, done: int, total: int | None = None, text: str | None = None) -> None:
        self.each(done)


FORMATS = {
    "8-bit": ("wav", "PCM_U8"),
    "16-bit": ("wav", "PCM_16"),
    "24-bit": ("wav", "PCM_24"),
    "32-bit": ("wav", "PCM_32"),
    "float": ("wav", "FLOAT"),
    "double": ("wav", "DOUBLE"),
    "FLAC-16": ("flac", "PCM_16"),
    "FLAC-24": ("flac", "PCM_24"),
    "OGG": ("ogg", "VORBIS"),
    "MP3": ("mp3", "MPEG_LAYER_III"),
}


def check_tone(path: Path, frequency_hz: float, duration_s: float, lossy: bool = False) -> None:
    samples = decode(FileRef(path), RATE_HZ)
    assert samples.dtype == np.float32 and samples.ndim == 1
    assert len(samples) / RATE_HZ == pytest.approx(duration_s, abs=0.06 if lossy else 0.001)
    assert peak_hz(samples, RATE_HZ) == pytest.approx(frequency_hz, abs=1)
    middle = samples[len(samples) // 4 : -len(samples) // 4]
    assert np.abs(middle).max() == pytest.approx(0.25, abs=0.02)


@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize(("suffix", "subtype"), FORMATS.values(), ids=FORMATS.keys())
def test_every_format_and_channel_count_gives_the_mean_channel(
    tmp_path: Path, suffix: str, subtype: str, channels: int
) -> None:
    """The channels differ, and their mean is known. Vorbis takes a sixth for a subwoofer's and cuts it above 120 Hz."""
    channels = min(channels, 2) if suffix == "mp3" else channels
    weights = 1 + (np.arange(channels) - (channels - 1) / 2) / channels
    samples = tone(1000, 0.5, 44_100, peak=0.25)[:, None] * weights
    path = write_wav(tmp_path / f"x.{suffix}", samples, 44_100, subtype=subtype)
    if (suffix, channels) == ("ogg", 6):
        assert peak_hz(decode(FileRef(path), RATE_HZ), RATE_HZ) == pytest.approx(1000, abs=1)
    else:
        check_tone(path, 1000, 0.5, lossy=suffix in ("ogg", "mp3"))


@pytest.mark.parametrize("rate_hz", [8_000, 11_025, 16_000, 22_050, 32_000, 44_100, 48_000, 96_000, 192_000])
@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_every_rate_is_resampled_to_one(tmp_path: Path, rate_hz: int, suffix: str) -> None:
    check_tone(write_wav(tmp_path / f"x.{suffix}", tone(1000, 0.5, rate_hz, peak=0.25), rate_hz), 1000, 0.5)


# --- the cache ---------------------------------------------------------------------------------------------


@pytest.fixture
def decoded_names(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of all clips that were decoded, not read from the cache."""
    names: list[str] = []

    read = decode_module.read_mono

    def counting(ref: FileRef) -> tuple[np.ndarray, int]:
        names.append(str(ref.path))
        return read(ref)

    monkeypatch.setattr(decode_module, "read_mono", counting)
    return names


def audio_of(folder: Path) -> list[np.ndarray]:
    decoded = decode_source(open_source(folder))
    return [decoded.audio(row) for row in range(len(decoded))]


def the_cache() -> Path:
    folders = list((cache_root() / "audio").iterdir())
    assert len(folders) == 1, folders  # nothing half-built is left beside it
    return folders[0]


def test_cached_audio_is_within_16_bits_of_the_clip(tone_folder: Path) -> None:
    source = open_source(tone_folder)
    decoded = decode_source(source)
    for row in range(len(source)):
        exact = decode(source.audio[row], RATE_HZ)
        np.testing.assert_allclose(decoded.audio(row), exact, atol=np.abs(exact).max() / 32_767)


def test_a_second_call_and_a_part_of_a_cached_source_decode_nothing(
    tone_folder: Path, decoded_names: list[str]
) -> None:
    first = audio_of(tone_folder)
    assert all(map(np.array_equal, first, audio_of(tone_folder)))
    assert cache_size_bytes() > 2 * sum(map(len, first))
    source = open_source(tone_folder)
    part = decode_source(source.subset([17, 3]))
    assert len(decoded_names) == 24
    assert np.array_equal(part.audio(0), first[17]) and np.array_equal(part.audio(1), first[3])
    assert np.array_equal(decode_source(source).subset([5, 17]).audio(1), first[17])
    assert len(decode_source(source, 8_000).audio(0)) == pytest.approx(0.4 * 8_000, abs=1)
    assert len(decoded_names) == 48, "another rate has a cache of its own"
    shutil.rmtree(cache_root())  # which does not hurt what is open
    assert np.array_equal(part.audio(0), first[17]) and np.array_equal(part.audio(1), first[3])


def in_cache(pattern: str) -> Path:
    (file,) = the_cache().glob(pattern)
    return file


def write_index(change: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    return lambda cache: in_cache("*.json").write_bytes(change(in_cache("*.json").read_bytes()))


SPOIL: dict[str, Callable[[Path], object]] = {
    "root deleted": lambda cache: shutil.rmtree(cache_root()),
    "deleted": shutil.rmtree,
    "no samples": lambda cache: in_cache("*.i16").unlink(),
    "no index": lambda cache: in_cache("*.json").unlink(),
    "short samples": lambda cache: os.truncate(in_cache("*.i16"), 1_000),
    "half a sample": lambda cache: os.truncate(in_cache("*.i16"), 1_001),
    "lengths of others": write_index(lambda content: content.replace(b" 8820,", b" 8821,", 1)),
    "empty index": write_index(lambda content: b""),
    "not text": write_index(lambda content: b"\xff\xfe"),
}


@pytest.mark.parametrize("spoil", SPOIL.values(), ids=SPOIL.keys())
def test_a_deleted_or_damaged_cache_is_rebuilt(
    tone_folder: Path, decoded_names: list[str], spoil: Callable[[Path], object]
) -> None:
    first = audio_of(tone_folder)
    spoil(the_cache())
    for _ in range(2):  # rebuilt, and then read
        assert all(map(np.array_equal, first, audio_of(tone_folder)))
        assert len(decoded_names) == 48


def test_a_clip_that_the_cache_lacks_is_decoded_alone(tone_folder: Path, decoded_names: list[str]) -> None:
    first = audio_of(tone_folder)
    entries = json.loads(read_checked(in_cache("*.json")) or b"")
    entries[0][0] = "another"  # another name, and a right hash
    in_cache("*.json").write_bytes(b"".join(checked(json.dumps(entries).encode())))
    assert all(map(np.array_equal, first, audio_of(tone_folder))) and len(decoded_names) == 25


def test_samples_that_were_altered_in_the_cache_are_decoded_again(
    tone_folder: Path, decoded_names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    first = audio_of(tone_folder)
    file = in_cache("*.i16")
    content = bytearray(file.read_bytes())
    content[2 * len(first[0]) + 100 : 2 * len(first[0]) + 200] = bytes(100)  # of the second clip
    file.write_bytes(content)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refuse)  # the cache may only be read
        assert all(map(np.array_equal, first, audio_of(tone_folder)))
    assert all(map(np.array_equal, first, audio_of(tone_folder)))
    assert len(decoded_names) == 26  # the second clip alone
    assert all(map(np.array_equal, first, audio_of(tone_folder)))
    assert len(decoded_names) == 50  # and the whole, the next time
    assert file.read_bytes() != content


def test_a_killed_build_goes_on_where_it_stopped(
    tone_folder: Path, decoded_names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = audio_of(tone_folder)
    shutil.rmtree(cache_root())
    decoded_names.clear()
    monkeypatch.setattr(decode_module, "PART_CLIPS", 5)

    def interrupt(done: int) -> None:
        if done == 13:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        decode_source(open_source(tone_folder), reporter=Each(interrupt))
    assert len(decoded_names) <= 15  # two parts are kept
    decoded_names.clear()
    _, damaged = sorted((cache_root() / "audio").glob("*/*.json"))
    damaged.write_bytes(damaged.read_bytes()[:-1])
    assert all(map(np.array_equal, expected, audio_of(tone_folder)))
    assert len(decoded_names) == 19
    the_cache()


def test_the_longest_unused_audio_is_evicted(
    tmp_path: Path, decoded_names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = []
    for number in range(3):
        write_wav(tmp_path / f"source{number}" / "a" / "x.wav", tone(400 + number, 1.0))
        sources.append(open_source(tmp_path / f"source{number}"))
    for number, source in enumerate(sources):
        if number == 2:
            decode_source(sources[0])  # the second is now the longest unused
            monkeypatch.setenv("USK_CACHE_GB", str(2.5 * 44_200 / 2**30))
        decode_source(source)
        time.sleep(0.02)
    decoded_names.clear()
    decode_source(sources[0])
    decode_source(sources[2])
    assert not decoded_names
    decode_source(sources[1])
    assert len(decoded_names) == 1


def test_deleting_the_cache_while_it_is_built_does_not_hurt(tone_folder: Path) -> None:
    seen: list[int] = []

    def delete(done: int) -> None:
        seen.append(done)
        if done == 12:
            shutil.rmtree(cache_root())

    decoded = decode_source(open_source(tone_folder), reporter=Each(delete))
    assert all(map(np.array_equal, map(decoded.audio, range(24)), audio_of(tone_folder)))
    assert seen == list(range(1, 25))


def test_an_unreadable_file_is_tried_again(tone_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = decode_module.read_mono

    def refuse(ref: FileRef) -> tuple[np.ndarray, int]:
        if str(ref.path).endswith("low/low0/cut0.wav"):
            raise PermissionError(13, "Permission denied")
        return read(ref)

    with monkeypatch.context() as patch:
        patch.setattr(decode_module, "read_mono", refuse)
        with pytest.raises(SourceError, match=r"1 of 24 .*low/low0/cut0.wav \(Permission denied\)"):
            audio_of(tone_folder)
    assert len(audio_of(tone_folder)) == 24


@pytest.mark.parametrize("below", ["", "deeper"])
def test_a_cache_that_cannot_be_written_is_one_line(
    tone_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, below: str
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("USK_CACHE", str(tmp_path / "file" / below))
    with pytest.raises(
        SourceError, match=r"cache at .*file.* cannot be written \(.*\); .*\$USK_CACHE"
    ) as raised:
        decode_source(open_source(tone_folder))
    assert "\n" not in str(raised.value)


def test_a_full_disk_or_an_interruption_leaves_no_files(
    tone_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(error: BaseException) -> Callable[..., None]:
        return lambda *_: (_ for _ in ()).throw(error)

    with monkeypatch.context() as patch:
        patch.setattr(audio_cache, "atomic_write", fail(OSError(28, "No space left on device")))
        with pytest.raises(
            SourceError, match=r"cannot be written \(No space left on device\); free some space"
        ):
            decode_source(open_source(tone_folder))
    assert not [file for file in (cache_root() / "audio").rglob("*") if file.is_file()]
    with pytest.raises(KeyboardInterrupt):
        decode_source(open_source(tone_folder), reporter=Each(lambda done: fail(KeyboardInterrupt())()))
    assert not [file for file in (cache_root() / "audio").rglob("*") if file.is_file()]


def test_threads_may_build_the_same_cache_at_once(tone_folder: Path) -> None:
    together = threading.Barrier(4)

    def build(part: int) -> list[np.ndarray]:
        source = open_source(tone_folder)
        rows = list(range(24)) if part % 2 else list(range(12))  # two want more than the other two build
        together.wait()
        decoded = decode_source(source.subset(rows))
        return [decoded.audio(row) for row in range(12)]

    for _ in range(5):
        shutil.rmtree(cache_root(), ignore_errors=True)
        with ThreadPoolExecutor(4) as pool:
            results = list(pool.map(build, range(4)))
        for result in results:
            assert all(map(np.array_equal, result, results[0]))
        the_cache()


def mp3_without_its_length(loud_first: bool, mode: str, rate_hz: int = 22_050) -> bytes:
    """Eight seconds of noise and eight of silence, or the other way round, without a frame that states the length."""
    sound = np.zeros((2, 8 * rate_hz), np.float32)
    sound[0 if loud_first else 1] = 0.3 * np.random.default_rng(0).standard_normal(8 * rate_hz)
    file = io.BytesIO()
    soundfile.write(file, sound.ravel(), rate_hz, format="MP3", bitrate_mode=mode, compression_level=0.5)
    content = file.getvalue()
    assert b"Xing" in content[:200] or b"Info" in content[:200]
    return content[content.index(content[:2], 2) :]


def test_an_mp3_without_a_length_is_read_whole_or_refused_where_libsndfile_ends_early() -> None:
    tag = b"ID3\x04\x00\x00\x00\x00\x01\x00" + bytes(128)
    for loud_first, mode in ((True, "CONSTANT"), (False, "CONSTANT"), (False, "VARIABLE")):
        content = mp3_without_its_length(loud_first, mode)
        for samples, rate_hz, _ in map(read_audio_bytes, (content, tag + content)):
            assert len(samples) / rate_hz == pytest.approx(16, abs=0.15), (loud_first, mode)
    said = "an MP3 without a stated length, of which only a part can be read"
    with pytest.raises(BadAudioError, match=said):
        read_audio_bytes(mp3_without_its_length(True, "VARIABLE"))


def test_a_note_names_copies_in_other_recordings(tmp_path: Path) -> None:
    """Copies may have another lossless format. Copies in the same recording are not named."""
    sound = tone(500, 0.3, RATE_HZ, peak=0.5)
    write_wav(tmp_path / "bark" / "yard" / "one.wav", sound, RATE_HZ)
    write_wav(tmp_path / "bark" / "yard" / "again.wav", sound, RATE_HZ)
    write_wav(tmp_path / "bark" / "park" / "other.wav", tone(700, 0.3, RATE_HZ), RATE_HZ)
    opened = open_source(tmp_path)
    assert decode_source(opened, RATE_HZ).source.notes == opened.notes
    kept = soundfile.read(tmp_path / "bark" / "yard" / "one.wav", dtype="int16")[0]
    soundfile.write(tmp_path / "bark" / "park" / "copy.flac", kept, RATE_HZ)
    opened = open_source(tmp_path)
    for _ in range(2):  # decoded, and from the cache
        (note,) = set(decode_source(opened, RATE_HZ).source.notes) - set(opened.notes)
        assert note == (
            "2 clips with the same sound as a clip of another recording (bark/yard/again.wav as bark/park/copy.flac, bark/yard/one.wav "
            "as bark/park/copy.flac): one may train where the other is tested; remove the copies, or give both the same recording"
        )
