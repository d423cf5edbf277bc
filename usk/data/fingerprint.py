"""Identify the content of a source's files by hashes, which the cache keeps."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from usk.data.audio_file import AudioRef, FileRef
from usk.data.cache import cache_root, try_write
from usk.errors import TOO_MANY_OPEN

DIGEST = re.compile(r"[0-9a-f]{64}")


class Fingerprint(NamedTuple):
    """What identifies a source's files."""

    revision: str  # hash of all names and contents: the same on every machine
    cache_key: str  # hash of this machine's names and `file_stamp`s, for names in the cache
    digests: Sequence[str]  # SHA-256 of each file, "" if it cannot be read


def file_stamp(status: os.stat_result) -> str:
    """Return a line that changes when the file is written or replaced, even if its size and modification time are restored.

    It includes the inode number and the inode's change time, which programs cannot set.
    """
    return f"{status.st_size}\t{status.st_mtime_ns}\t{status.st_ctime_ns}\t{status.st_ino}\n"


def fingerprint_files(files: Sequence[Path], root: Path) -> Fingerprint:
    """Return the fingerprint of `files` below `root`. Files are read only if their names or stamps changed."""
    local = hashlib.sha256(os.fsencode(root.resolve()))
    names = [file.relative_to(root).as_posix() for file in files]
    for name, file in zip(names, files, strict=True):
        local.update(f"{name}\t{file_stamp(file.stat())}".encode())
    key = local.hexdigest()[:24]
    digests = _cached_digests(
        revision_file(key), list(map(FileRef, files)), threads=min(8, os.cpu_count() or 1)
    )
    content = hashlib.sha256()
    for name, digest in zip(names, digests, strict=True):
        content.update(f"{name}\t{digest}\n".encode())
    return Fingerprint(content.hexdigest()[:12], key, digests)


def revision_file(cache_key: str) -> Path:
    """Return the cache file with the digests of a source's files. It exists only if all of them could be read."""
    return cache_root() / "revisions" / cache_key


def clip_digests(refs: Sequence[AudioRef], cache_key: str) -> list[str]:
    """Return a hash of each clip's stored audio, "" if it cannot be read."""
    return _cached_digests(revision_file(f"{cache_key}-clips"), refs, threads=1)


def _cached_digests(file: Path, refs: Sequence[AudioRef], threads: int) -> list[str]:
    """Return the digests in a file of the cache, or compute them and write the file."""
    with contextlib.suppress(OSError, ValueError):
        known = file.read_text(encoding="ascii").split("\n")
        if len(known) == len(refs) and all(map(DIGEST.fullmatch, known)):
            return known
    with ThreadPoolExecutor(threads) as pool:  # hashing releases the GIL
        digests = list(pool.map(_digest, refs))
    if all(digests):  # an unreadable file may become readable without a change of its stamp
        try_write(file, "\n".join(digests).encode())
    return digests


def _digest(ref: AudioRef) -> str:
    """Return the digest, or "" if the file cannot be read: decoding reports or skips such files."""
    try:
        return ref.digest()
    except OSError as error:
        if error.errno in TOO_MANY_OPEN:
            raise
        return ""
