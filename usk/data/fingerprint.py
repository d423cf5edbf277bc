"""What a source's files hold, in a few letters: runs and datasets made of other content are others."""

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
from usk.data.cache import cache_root, keep
from usk.errors import TOO_MANY_OPEN

DIGEST = re.compile(r"[0-9a-f]{64}")


class Fingerprint(NamedTuple):
    """What files hold. `revision` is of their names and all their bytes, the same on every machine. `cache_key` is of this machine's
    names and what `file_stamp` says of them, for what can be computed again. `digests` has the SHA-256 of each, "" if it cannot be read."""

    revision: str
    cache_key: str
    digests: Sequence[str]


def file_stamp(status: os.stat_result) -> str:
    """A line that is another one once a file was written or replaced, whatever size and time of modification it was given: the time of
    the last change of its inode cannot be set, and another file has another inode."""
    return f"{status.st_size}\t{status.st_mtime_ns}\t{status.st_ctime_ns}\t{status.st_ino}\n"


def fingerprint_files(files: Sequence[Path], root: Path) -> Fingerprint:
    """The fingerprint of `files` under `root`. While the cache key stays, nothing is read again: the digests are kept in the cache."""
    local = hashlib.sha256(os.fsencode(root.resolve()))
    names = [file.relative_to(root).as_posix() for file in files]
    for name, file in zip(names, files, strict=True):
        local.update(f"{name}\t{file_stamp(file.stat())}".encode())
    key = local.hexdigest()[:24]
    kept = cache_root() / "revisions" / key
    digests = _kept_digests(kept, len(files))
    if digests is None:
        with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:  # hashing holds no lock
            digests = list(pool.map(_digest, map(FileRef, files)))
        # An unreadable file may be readable the next time, with nothing else about it changed
        if all(digests):
            keep(kept, "\n".join(digests).encode())
    content = hashlib.sha256()
    for name, digest in zip(names, digests, strict=True):
        content.update(f"{name}\t{digest}\n".encode())
    return Fingerprint(content.hexdigest()[:12], key, digests)


def _kept_digests(kept: Path, n: int) -> list[str] | None:
    """The digests in a file of the cache, None where it does not hold `n` of them."""
    with contextlib.suppress(OSError, ValueError):
        known = kept.read_text(encoding="ascii").split("\n")
        if len(known) == n and all(map(DIGEST.fullmatch, known)):
            return known
    return None


def clip_digests(refs: Sequence[AudioRef], cache_key: str) -> list[str]:
    """What each clip's file holds, by a hash, "" where it cannot be read; kept in the cache beside the revision."""
    kept = cache_root() / "revisions" / f"{cache_key}-clips"
    if (known := _kept_digests(kept, len(refs))) is not None:
        return known
    digests = [_digest(ref) for ref in refs]
    if all(digests):
        keep(kept, "\n".join(digests).encode())
    return digests


def _digest(ref: AudioRef) -> str:
    """Empty for a file that cannot be read: decoding names those, or skips them."""
    try:
        return ref.digest()
    except OSError as error:
        if error.errno in TOO_MANY_OPEN:
            raise
        return ""
