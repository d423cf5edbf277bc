"""Prepare audio files for libsndfile, and find files that are cut off.

libsndfile reads what is left of a cut file, and only the first of several joined OGG or MP3 files. It does not read a WAV file
whose header states a wrong size.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

from usk.data.mp3 import skip_id3, split_joined_mp3

UNKNOWN_SIZE = 2_000_000_000  # programs that write into a pipe state this size or more
SIZE_TOLERANCE = 64  # some programs count the header's bytes too
WRONG_SIZE = "the header states another size than the sound has; read to the end of the file"
MORE = "the file is longer than its header states; only the stated part is read"
# Formats without joined files, and whose header is right or corrected by libsndfile.
PLAIN_FORMATS = (b"FORM", b"RF64", b".snd", b"caff", b"riff", b"NIST", b"fLaC", b"Crea")
OGG_FIRST, OGG_LAST = 2, 4  # flags of a page
# libsndfile's log names a size in the header and the size that it found.
CORRECTED_SIZE = re.compile(r"^ *(?:SSND|Data Size|data|riff) *: (\d+) \(should be (\d+)\)", re.MULTILINE)
CORRECTED_FRAMES = re.compile(r"Calculated frame count (\d+) does not match value from 'ds64' chunk of (\d+)")


class CutError(Exception):
    """The file ends before its sound does."""


def split_sounds(content: bytes) -> tuple[list[bytes], str]:
    """Return the files that libsndfile can read one by one, and a remark about the header, or "".

    There are several if OGG or MP3 files were joined. Raise CutError for an OGG, WAV or NIST file that ends early; for others
    see `is_cut`.
    """
    untagged = content[skip_id3(content) :]
    if untagged[:4] in (b"RIFF", b"OggS", *PLAIN_FORMATS):  # an ID3 tag belongs only to an MP3
        content = untagged
    if content[:4] == b"BW64":  # RF64 by another name (EBU Tech 3306, ITU-R BS.2088)
        content = b"RF64" + content[4:]
    magic = content[:4]
    if magic == b"OggS":
        return _split_ogg(content), ""
    if magic == b"RIFF":
        repaired, remark = _repair_wav(content)
        return [repaired], remark
    if magic == b"NIST" and len(content) - 1024 < _nist_size(content[:1024]):
        raise CutError
    return ([content] if magic in PLAIN_FORMATS else split_joined_mp3(content)), ""


def is_cut(log: str) -> bool:
    """Whether libsndfile's log of an open file (`SoundFile.extra_info`) says that its sound is shorter than its header states."""
    sizes = [(int(stated), int(actual)) for stated, actual in CORRECTED_SIZE.findall(log)]
    sizes += [(int(stated), int(actual)) for actual, stated in CORRECTED_FRAMES.findall(log)]
    return "a truncated file" in log or any(actual < stated < UNKNOWN_SIZE for stated, actual in sizes)


def _chunks(content: bytes, begin: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield the RIFF chunks from `begin` on: name, where the content begins, and its stated size."""
    while begin + 8 <= len(content):
        size = int.from_bytes(content[begin + 4 : begin + 8], "little")
        yield content[begin : begin + 4], begin + 8, size
        begin += 8 + size + size % 2


def _repair_wav(content: bytes) -> tuple[bytes, str]:
    """Return a WAV file with the right size of its data chunk, and a remark if that was wrong. Raise CutError for a cut file.

    A size is wrong if it is unknown (0, or about 2^31, as programs write into a pipe) or a few bytes too large. The size of the
    whole file, before it, is often wrong and is ignored.
    """
    content = _pad_odd_chunk(content)
    for name, begin, size in _chunks(content, 12):
        if name != b"data":
            continue
        actual = len(content) - begin
        is_unknown = size >= UNKNOWN_SIZE or (not size and not _ends_in_chunks(content, begin))
        if actual and (is_unknown or 0 < size - actual <= SIZE_TOLERANCE):
            return content[: begin - 4] + actual.to_bytes(4, "little") + content[begin:], WRONG_SIZE
        if actual < size:
            raise CutError
        goes_on = actual - size >= max(size, SIZE_TOLERANCE)
        return content, MORE if goes_on and not _ends_in_chunks(content, begin + size + size % 2) else ""
    raise CutError


def _pad_odd_chunk(content: bytes) -> bytes:
    """Insert the padding byte that some programs leave out after a chunk of odd size before the data chunk."""
    for name, begin, size in _chunks(content, 12):
        end = begin + size
        if name != b"data" and size % 2 and content[end : end + 4] in (b"data", b"fmt "):
            return content[:end] + b"\0" + content[end:]
    return content


def _ends_in_chunks(content: bytes, begin: int) -> bool:
    """Whether only whole chunks follow from `begin` on."""
    ends = [start + size + size % 2 for _, start, size in _chunks(content, begin)]
    return begin == len(content) or (bool(ends) and ends[-1] == len(content))


def _nist_size(header: bytes) -> int:
    """Return the bytes of sound that a NIST header states, or 0 if they are compressed or not stated."""
    names = (b"sample_count", b"channel_count", b"sample_n_bytes")
    numbers = [re.search(rb"%b -i (\d+)" % name, header) for name in names]
    return 0 if b"shorten" in header else math.prod(int(number[1]) if number else 0 for number in numbers)


def _split_ogg(content: bytes) -> list[bytes]:
    """Split a chained OGG file into its streams, from a first page to a last one (RFC 3533). Raise CutError if a last page is missing."""
    streams, begin, place, ended = [], 0, 0, False
    while place < len(content):
        header = content[place : place + 27]
        if header[:4] != b"OggS" or len(header) < 27:
            if not ended:
                raise CutError
            following = content.find(b"OggS", place + 1)
            if following < 0:  # only tags or padding follow
                break
            place = following
            continue
        n_segments = header[26]
        page_size = 27 + n_segments + sum(content[place + 27 : place + 27 + n_segments])
        if place + page_size > len(content):
            raise CutError
        if header[5] & OGG_FIRST and ended:
            streams.append(content[begin:place])
            begin, ended = place, False
        ended = ended or bool(header[5] & OGG_LAST)
        place += page_size
    if not ended:
        raise CutError
    return [*streams, content[begin:place]]
