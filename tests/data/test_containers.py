"""Audio containers: whole files are read, and files that end early are named."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.sounds import tone, write_wav
from usk.data import audio_file
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


def sized(wav: bytes, data: int, whole: int | None = None) -> bytes:
    """A WAV file with another size of its sound, and of the whole, in its header."""
    place = wav.index(b"data") + 4
    whole_size = wav[4:8] if whole is None else whole.to_bytes(4, "little")
    return wav[:4] + whole_size + wav[8:place] + data.to_bytes(4, "little") + wav[place + 4 :]


def without_length(flac: bytes) -> bytes:
    """A FLAC file as an encoder writes it into a pipe: its STREAMINFO counts no samples."""
    return flac[:21] + bytes([flac[21] & 0xF0]) + bytes(4) + flac[26:]


@pytest.mark.parametrize("data", [0, 8, 36, 0x7FFFF000, 0x80000000, 0xFFFFFFFF])
def test_wav_files_with_a_wrong_size_of_their_sound(data: int) -> None:
    """Such sizes are written by programs that write into pipes, or that count the header."""
    content = encoded("WAV", "PCM_16")
    size = len(content) - content.index(b"data") - 8
    for whole in (None, len(content), min(data + 36, 0xFFFFFFFF)):
        read = read_audio_bytes(sized(content, size + data if 0 < data < 99 else data, whole))
        np.testing.assert_array_equal(read.samples, read_audio_bytes(content)[0])
        assert read.remark == WRONG_SIZE


@pytest.mark.parametrize("whole", [0, 0xFFFFFFFF, 0x7FFFF024])
def test_a_cut_wav_file_is_found_by_its_data_size(whole: int) -> None:
    wav = encoded("WAV", "PCM_16", 0.3)
    with pytest.raises(BadAudioError, match="truncated"):
        read_audio_bytes(sized(wav, len(wav) - 44, whole)[:-1000])


def test_a_flac_file_without_a_length_has_the_same_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    content = encoded("FLAC", "PCM_16", 4.0)
    np.testing.assert_array_equal(read_audio_bytes(without_length(content))[0], read_audio_bytes(content)[0])
    monkeypatch.setattr(audio_file, "MAX_DURATION_S", 2.5)
    with pytest.raises(BadAudioError, match="longer than 2 s"):
        read_audio_bytes(without_length(content))


def test_a_remark_says_that_sound_follows_the_stated_size() -> None:
    content = encoded("WAV", "PCM_16")
    begin = content.index(b"data") + 8
    half = (len(content) - begin) // 2
    changed = sized(content, half)
    assert read_audio_bytes(changed).remark == MORE and len(read_audio_bytes(changed).samples) == half // 2
    tagged = changed[: begin + half] + b"LIST" + half.to_bytes(4, "little") + bytes(half)
    assert not read_audio_bytes(tagged).remark and not read_audio_bytes(content + b"LIST").remark


def test_one_note_names_all_files_with_a_wrong_size(tmp_path: Path) -> None:
    for number in range(3):
        write_wav(tmp_path / "set" / "dog" / f"{number}.wav", tone(300 + number, 0.1))
    for number in range(2):
        file = tmp_path / "set" / "dog" / f"{number}.wav"
        file.write_bytes(sized(file.read_bytes(), 0x7FFFFFFF))
    for _ in range(2):  # decoded, then cached
        (note,) = decode_source(open_source(tmp_path / "set"), 8_000).source.notes[-1:]
        assert note.startswith("2 files (dog/0.wav, dog/1.wav): the header states another size")


@pytest.mark.parametrize(("form", "subtype"), FORMATS[:4] + FORMATS[9:12])
def test_a_tag_before_a_sound_is_skipped(form: str, subtype: str) -> None:
    content = encoded(form, subtype)
    tagged = b"ID3\4\0\0\0\0\0\x14" + bytes(20) + content
    np.testing.assert_array_equal(read_audio_bytes(tagged)[0], read_audio_bytes(content)[0])


def test_what_differs_from_the_standard_is_read_all_the_same() -> None:
    """BW64 is RF64, a chunk of odd length may lack its last byte, and junk before an MP3 is skipped."""
    rf64, wav, mp3 = encoded("RF64", "PCM_16"), encoded("WAV", "PCM_16"), encoded("MP3", "MPEG_LAYER_III")
    begin = wav.index(b"data")
    odd = wav[:begin] + b"JUNK" + (9).to_bytes(4, "little") + bytes(9) + wav[begin:]
    junk = (bytes(3_000), b"HTTP/1.0 200 OK\r\n\r\n", b"\xff\xfb\x90\x00" + bytes(100))
    pairs = [(b"BW64" + rf64[4:], rf64), (odd, wav), *((before + mp3, mp3) for before in junk)]
    for changed, content in pairs:
        np.testing.assert_array_equal(read_audio_bytes(changed)[0], read_audio_bytes(content)[0])


def test_a_segment_of_a_file() -> None:
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
def test_silence_stays_near_its_mean(sound: np.ndarray, silent: bool) -> None:
    assert is_silent(sound) == silent
