"""How long an MP3 without a length in its header is: libsndfile guesses, from the bit rate of its first frame."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

SURE, SEARCHED = 4, 1 << 18  # frames in a row that make an MP3; bytes in which the first is looked for
TAGS = (b"Xing", b"Info", b"VBRI")  # in the first frame, where an encoder left the number of frames
KBITS = {  # layer III of MPEG 1, and of MPEG 2 and 2.5
    True: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    False: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
RATES_HZ = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}


def unconditioned_samples(content: bytes) -> int | None:
    """Samples a channel in the frames of an MP3 that does not say how many it has; None for other files.

    ISO/IEC 11172-3 and 13818-3: a frame of layer III has 1,152 samples (MPEG 1) or 576.
    """
    samples = 0
    for place, length, of_frame in _frames(content):
        if not samples and _is_tagged(content[place : place + length]):
            return None
        samples += of_frame
    return samples or None


def joined_mp3(content: bytes) -> list[bytes]:
    """The MP3 files that were joined to one, by their first frames with a length; libsndfile reads the first alone."""
    content = content[_first_frame(content) :]
    tagged = [place for place, length, _ in _frames(content) if _is_tagged(content[place : place + length])]
    begins = [0, *tagged[1:]]
    return [content[begin:end] for begin, end in zip(begins, [*begins[1:], len(content)], strict=True)]


def _first_frame(content: bytes) -> int:
    """Where the frames begin behind what is none (padding, a lost piece of a stream); 0 where there are no `SURE` ones in a row."""
    place = 0
    while 0 <= place < SEARCHED:
        if content[place : place + 3] == b"ID3" or len(list(islice(_frames(content[place:]), SURE))) == SURE:
            return place
        place = min(
            (at for mark in (b"\xff", b"ID3") if (at := content.find(mark, place + 1)) >= 0), default=-1
        )
    return 0


def _is_tagged(frame: bytes) -> bool:
    return any(tag in frame[:200] for tag in TAGS)


def _frames(content: bytes) -> Iterator[tuple[int, int, int]]:
    """Where each frame begins, its bytes, and how many samples it has."""
    place = 0
    while True:
        place = behind_id3(content, place)
        if (frame := _frame(content, place)) is None:
            return
        yield place, *frame
        place += frame[0]


def behind_id3(content: bytes, place: int = 0) -> int:
    """Where the tag ends that begins at `place`; `place` where none does."""
    if content[place : place + 3] != b"ID3" or len(content) <= place + 10:
        return place
    size = 0
    for byte in content[place + 6 : place + 10]:
        size = size << 7 | byte & 0x7F
    return place + 10 + size


def _frame(content: bytes, place: int) -> tuple[int, int] | None:
    """(bytes, samples) of the frame of layer III that begins there, None if none does."""
    header = content[place : place + 4]
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE6 != 0xE2:
        return None
    version, rate, bit_rate = header[1] >> 3 & 3, header[2] >> 2 & 3, header[2] >> 4
    if version not in RATES_HZ or rate == 3 or not 0 < bit_rate < 15:
        return None
    first = version == 3
    samples = 1152 if first else 576
    length = samples // 8 * 1000 * KBITS[first][bit_rate] // RATES_HZ[version][rate] + (header[2] >> 1 & 1)
    return length, samples
