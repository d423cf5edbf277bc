"""Parse MP3 frames: split joined files, and count the samples of files whose header does not state a length.

For a file without a length libsndfile guesses one, from the bit rate of the first frame.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

FRAMES_TO_ACCEPT = 4  # frames in a row: fewer may be chance
MAX_JUNK_BYTES = 1 << 18  # before the first frame
LENGTH_TAGS = (b"Xing", b"Info", b"VBRI")  # in the first frame, where an encoder wrote the number of frames
KBITS = {  # bit rates of layer III by index: MPEG 1 (True), MPEG 2 and 2.5 (False)
    True: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    False: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
RATES_HZ = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}


def count_untagged_samples(content: bytes) -> int | None:
    """Return the samples per channel of an MP3 without a length tag, or None for other files.

    ISO/IEC 11172-3 and 13818-3: a frame of layer III has 1,152 samples (MPEG 1) or 576.
    """
    total = 0
    for start, length, n_samples in _frames(content):
        if not total and _has_length_tag(content[start : start + length]):
            return None
        total += n_samples
    return total or None


def split_joined_mp3(content: bytes) -> list[bytes]:
    """Split at each frame with a length tag, where a joined file begins. libsndfile reads only the first file."""
    content = content[_find_first_frame(content) :]
    tagged = [
        start for start, length, _ in _frames(content) if _has_length_tag(content[start : start + length])
    ]
    starts = [0, *tagged[1:]]
    return [content[start:end] for start, end in zip(starts, [*starts[1:], len(content)], strict=True)]


def _find_first_frame(content: bytes) -> int:
    """Return where the frames or their ID3 tag begin, behind padding or a piece of a stream. Return 0 if there are no frames."""
    place = 0
    while 0 <= place < MAX_JUNK_BYTES:
        if content[place : place + 3] == b"ID3":
            return place
        if len(list(islice(_frames(content[place:]), FRAMES_TO_ACCEPT))) == FRAMES_TO_ACCEPT:
            return place
        found = (content.find(mark, place + 1) for mark in (b"\xff", b"ID3"))
        place = min((at for at in found if at >= 0), default=-1)
    return 0


def _has_length_tag(frame: bytes) -> bool:
    return any(tag in frame[:200] for tag in LENGTH_TAGS)


def _frames(content: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield the start of each frame, its bytes, and its samples per channel."""
    place = 0
    while True:
        place = skip_id3(content, place)
        if (frame := _parse_frame(content[place : place + 4])) is None:
            return
        yield place, *frame
        place += frame[0]


def skip_id3(content: bytes, place: int = 0) -> int:
    """Return the end of the ID3 tag that begins at `place`, or `place` if there is none."""
    if content[place : place + 3] != b"ID3" or len(content) <= place + 10:
        return place
    size = 0
    for byte in content[place + 6 : place + 10]:  # seven bits each
        size = size << 7 | byte & 0x7F
    return place + 10 + size


def _parse_frame(header: bytes) -> tuple[int, int] | None:
    """Return (bytes, samples per channel) of a layer III frame from its four header bytes, or None if it is not one."""
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE6 != 0xE2:
        return None
    version, rate, bit_rate = header[1] >> 3 & 3, header[2] >> 2 & 3, header[2] >> 4
    if version not in RATES_HZ or rate == 3 or not 0 < bit_rate < 15:
        return None
    is_mpeg1 = version == 3
    samples = 1152 if is_mpeg1 else 576
    padding = header[2] >> 1 & 1
    return samples // 8 * 1000 * KBITS[is_mpeg1][bit_rate] // RATES_HZ[version][rate] + padding, samples
