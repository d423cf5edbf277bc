"""Whether an audio file ends before its sound does, by what its container says. libsndfile shortens cut files without a word."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from usk.data.mp3 import behind_id3, joined_mp3

UNTOLD_SIZE = 2_000_000_000  # of a file's sound, or more, where what wrote it did not know
HEADER_SLIP = 64  # bytes that writers count too many, such as the header's
WRONG_SIZE = "the header states another size than the sound has; read to the end of the file"
MORE = "the file goes on behind the size that its header states, which alone is read"
OTHERS = (b"fLaC", b"Crea")  # read as they are: FLAC, VOC
OGG_LAST, OGG_FIRST = 4, 2  # flags of a page


class CutError(Exception):
    """The file ends before its sound does."""


def whole_sounds(content: bytes) -> tuple[list[bytes], str]:
    """The files, each of one sound, that `content` is: one, or several that were joined (OGG, MP3); a wrong size of the sound in a WAV file
    is put right. With them what to say of such files, if anything. Raises CutError for one that ends early."""
    behind = behind_id3(content)
    if content[behind : behind + 4] in (b"RIFF", b"OggS", *CHECKS, *OTHERS):  # a tag where none belongs
        content = content[behind:]
    if content[:4] == b"BW64":  # RF64 by another name (EBU Tech 3306, ITU-R BS.2088)
        content = b"RF64" + content[4:]
    magic = content[:4]
    if magic == b"OggS":
        return _ogg_links(content), ""
    if magic == b"RIFF":
        sized, said = _sized_wav(content)
        return [sized], said
    if magic in CHECKS:
        begin, size = CHECKS[magic](content)
        if len(content) - begin < size < UNTOLD_SIZE:
            raise CutError
        return [content], ""
    return ([content] if magic in OTHERS else joined_mp3(content)), ""


def _chunks(content: bytes, begin: int, order: str) -> Iterator[tuple[bytes, int, int]]:
    """The chunks of RIFF ("little") and IFF ("big"): name, where its content begins, and how long it is said to be."""
    while begin + 8 <= len(content):
        size = int.from_bytes(content[begin + 4 : begin + 8], order)  # type: ignore[arg-type]
        yield content[begin : begin + 4], begin + 8, size
        begin += 8 + size + size % 2


def _sized_wav(content: bytes) -> tuple[bytes, str]:
    """A WAV file with the size of its sound as it is where that is not known (0, or about 2^31, as programs write into a pipe) or a
    few bytes off, and what to say. The size of the whole, before it, is often wrong in files that are whole, and says nothing."""
    content = _padded(content)
    for name, begin, size in _chunks(content, 12, "little"):
        left = len(content) - begin
        if name != b"data":
            continue
        no_size = (
            size >= UNTOLD_SIZE
            or 0 < size - left <= HEADER_SLIP
            or (not size and not _ends_in_chunks(content, begin))
        )
        if no_size and left:
            return content[: begin - 4] + left.to_bytes(4, "little") + content[begin:], WRONG_SIZE
        if left < size:
            raise CutError
        behind = left - size
        return content, MORE if behind >= max(size, HEADER_SLIP) and not _ends_in_chunks(
            content, begin + size + size % 2
        ) else ""
    raise CutError


def _padded(content: bytes) -> bytes:
    """A WAV file with the byte that some writers leave out behind a chunk of odd length that comes before the sound."""
    for name, begin, size in _chunks(content, 12, "little"):
        end = begin + size
        if name == b"data" or not size % 2:
            continue
        if content[end : end + 4] in (b"data", b"fmt "):
            return content[:end] + b"\0" + content[end:]
    return content


def _ends_in_chunks(content: bytes, begin: int) -> bool:
    """Whether there is nothing from `begin` on but whole chunks."""
    ends = [start + size + size % 2 for _, start, size in _chunks(content, begin, "little")]
    return begin == len(content) or (bool(ends) and ends[-1] == len(content))


def _aiff(content: bytes) -> tuple[int, int]:
    found = (place for place in _chunks(content, 12, "big") if place[0] == b"SSND")
    _, begin, size = next(found, (b"", len(content), 1))
    return begin, size


def _rf64(content: bytes) -> tuple[int, int]:
    size = int.from_bytes(content[28:36], "little")  # in the chunk ds64, which comes first
    place = content.find(b"data", 36)
    return (place + 8, size) if place >= 0 else (len(content), 1)


def _au(content: bytes) -> tuple[int, int]:
    return int.from_bytes(content[4:8], "big"), int.from_bytes(content[8:12], "big")


def _caf(content: bytes) -> tuple[int, int]:
    begin = 8
    while begin + 12 <= len(content):
        size = int.from_bytes(content[begin + 4 : begin + 12], "big")
        if content[begin : begin + 4] == b"data":
            return begin + 12, size
        begin += 12 + size
    return len(content), 1


def _w64(content: bytes) -> tuple[int, int]:
    begin = 40
    while begin + 24 <= len(content):
        size = int.from_bytes(content[begin + 16 : begin + 24], "little")
        if content[begin : begin + 4] == b"data":
            return begin + 24, size - 24
        begin += max(24, size + -size % 8)
    return len(content), 1


def _nist(content: bytes) -> tuple[int, int]:
    header = content[:1024]
    numbers = [
        re.search(rb"%b -i (\d+)" % name, header)
        for name in (b"sample_count", b"channel_count", b"sample_n_bytes")
    ]
    size = 1
    for number in numbers:
        size *= int(number[1]) if number else 0
    return 1024, size if b"shorten" not in header else 0


CHECKS: dict[bytes, Callable[[bytes], tuple[int, int]]] = {
    b"FORM": _aiff,
    b"RF64": _rf64,
    b".snd": _au,
    b"caff": _caf,
    b"riff": _w64,
    b"NIST": _nist,
}
"""By a file's first bytes: where its sound begins, and how many bytes it is said to have."""


def _ogg_links(content: bytes) -> list[bytes]:
    """The links of an OGG file, from a first page to a last one (RFC 3533). Raises CutError where there is no last one."""
    links, begin, place, ended = [], 0, 0, False
    while place < len(content):
        header = content[place : place + 27]
        if header[:4] != b"OggS" or len(header) < 27:
            if not ended:
                raise CutError
            following = content.find(b"OggS", place + 1)
            if following < 0:  # tags, or padding, behind the sound
                break
            place = following
            continue
        table = content[place + 27 : place + 27 + header[26]]
        size = 27 + header[26] + sum(table)
        if place + size > len(content):
            raise CutError
        if header[5] & OGG_FIRST and ended:
            links.append(content[begin:place])
            begin, ended = place, False
        ended = ended or bool(header[5] & OGG_LAST)
        place += size
    if not ended:
        raise CutError
    return [*links, content[begin:place]]
