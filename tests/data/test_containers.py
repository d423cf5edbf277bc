"""What libsndfile decodes whole is read, and what ends early is named, whatever the container."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.sounds import tone, write_wav
from usk.data.audio_file import BadAudioError, read_audio_bytes
from usk.data.containers import MORE, WRONG_SIZE
from usk.data.decode import decode_source, is_silent
from usk.data.open import open_source

FORMATS = [
    ("WAV", "PCM_16"),
    ("RF64", "PCM_16"),
    ("AIFF", "PCM_16"),
    ("AU", "PCM_16"),
    ("CAF", "PCM_16"),
    ("W64", "PCM_16"),
    ("NIST", "PCM_16"),
    ("WAV", "GSM610"),
    ("WAV", "IMA_ADPCM"),
    ("FLAC", "PCM_16"),
    ("OGG", "VORBIS"),
    ("OGG", "OPUS"),
    ("MP3", "MPEG_LAYER_III"),
]


def encoded(form: str, subtype: str, seconds: float = 3.0, rate_hz: int = 8_000) -> bytes:
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).normal(0, 0.1, round(seconds * rate_hz))  # does not pack well
    soundfile.write(buffer, noise, rate_hz, format=form, subtype=subtype)
    return buffer.getvalue()


@pytest.mark.parametrize(("form", "subtype"), FORMATS)
def test_whole_files_are_read_whole_and_cut_ones_are_named(form: str, subtype: str) -> None:
    content = encoded(form, subtype)
    samples, rate_hz, remark = read_audio_bytes(content)
    assert not remark
    assert len(samples) == pytest.approx(3 * rate_hz, rel=0.05)
    with pytest.raises(BadAudioError, match=r"truncated|not an audio file"):
        read_audio_bytes(content[: len(content) // 2])


@pytest.mark.parametrize(("form", "subtype"), [("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III")])
def test_joined_files_are_read_whole(form: str, subtype: str) -> None:
    content = encoded(form, subtype)
    one = read_audio_bytes(content)[0]
    for between in (b"", bytes(100)) if form == "OGG" else (b"",):
        two = read_audio_bytes(content + between + content)[0]
        np.testing.assert_array_equal(two, np.concatenate([one, one]))
    with pytest.raises(BadAudioError, match=r"other rates"):
        read_audio_bytes(content + encoded(form, subtype, rate_hz=16_000))


@pytest.mark.parametrize("off", [2_000_000_000, 0x7FFFFFFF, 8, 36])
@pytest.mark.parametrize("size", ["more", "none"])
def test_wav_files_with_a_wrong_size_of_their_sound(size: str, off: int) -> None:
    content = encoded("WAV", "PCM_16")
    begin = content.index(b"data") + 8
    stated = 0 if size == "none" else min(len(content) - begin + off, 0xFFFFFFFF)
    changed = content[: begin - 4] + stated.to_bytes(4, "little") + content[begin:]
    np.testing.assert_array_equal(read_audio_bytes(changed)[0], read_audio_bytes(content)[0])
    assert read_audio_bytes(changed).remark == WRONG_SIZE


def test_sound_behind_the_size_that_is_stated_is_said() -> None:
    content = encoded("WAV", "PCM_16")
    begin = content.index(b"data") + 8
    half = (len(content) - begin) // 2
    changed = content[: begin - 4] + half.to_bytes(4, "little") + content[begin:]
    assert read_audio_bytes(changed).remark == MORE and len(read_audio_bytes(changed).samples) == half // 2
    tagged = changed[: begin + half] + b"LIST" + half.to_bytes(4, "little") + bytes(half)
    assert not read_audio_bytes(tagged).remark


def test_wrong_sizes_are_said_once_for_all_files(tmp_path: Path) -> None:
    for number in range(3):
        write_wav(tmp_path / "set" / "dog" / f"{number}.wav", tone(300 + number, 0.1))
    for number in range(2):
        file = tmp_path / "set" / "dog" / f"{number}.wav"
        content = file.read_bytes()
        begin = content.index(b"data") + 4
        file.write_bytes(content[:begin] + b"\xff\xff\xff\x7f" + content[begin + 4 :])
    for _ in range(2):  # decoded, then cached
        (note,) = decode_source(open_source(tmp_path / "set"), 8_000).source.notes[-1:]
        assert note.startswith("2 files (dog/0.wav, dog/1.wav): the header states another size")


@pytest.mark.parametrize(("form", "subtype"), FORMATS[:4] + FORMATS[9:12])
def test_a_tag_in_front_of_a_sound_costs_nothing_of_it(form: str, subtype: str) -> None:
    content = encoded(form, subtype)
    tagged = b"ID3\4\0\0\0\0\0\x14" + bytes(20) + content
    np.testing.assert_array_equal(read_audio_bytes(tagged)[0], read_audio_bytes(content)[0])


def test_bw64_is_rf64() -> None:
    content = encoded("RF64", "PCM_16")
    np.testing.assert_array_equal(read_audio_bytes(b"BW64" + content[4:])[0], read_audio_bytes(content)[0])


@pytest.mark.parametrize("junk", [bytes(3_000), b"HTTP/1.0 200 OK\r\n\r\n", b"\xff\xfb\x90\x00" + bytes(100)])
def test_an_mp3_behind_something_else_is_read(junk: bytes) -> None:
    content = encoded("MP3", "MPEG_LAYER_III")
    np.testing.assert_array_equal(read_audio_bytes(junk + content)[0], read_audio_bytes(content)[0])


def test_a_chunk_of_odd_length_may_lack_its_last_byte() -> None:
    content = encoded("WAV", "PCM_16")
    begin = content.index(b"data")
    odd = content[:begin] + b"JUNK" + (9).to_bytes(4, "little") + bytes(9) + content[begin:]
    np.testing.assert_array_equal(read_audio_bytes(odd)[0], read_audio_bytes(content)[0])


def test_a_stretch_of_a_file() -> None:
    for form, subtype in (("WAV", "PCM_16"), ("WAV", "GSM610")):
        content = encoded(form, subtype)
        whole, stretch = read_audio_bytes(content)[0], read_audio_bytes(content, (0.5, 1.25))[0]
        np.testing.assert_array_equal(stretch, whole[4_000:10_000])


@pytest.mark.parametrize(
    ("sound", "silent"),
    [
        (np.zeros(1_000, np.float32), True),
        (np.full(1_000, 0.25, np.float32), True),
        (tone(440, 0.1) * 1e-5, True),
        (tone(440, 0.1) * 0.01, False),
        (tone(440, 0.1) * 0.01 + 0.5, False),
    ],
)
def test_silence_is_what_does_not_leave_its_mean(sound: np.ndarray, silent: bool) -> None:
    assert is_silent(sound) == silent
