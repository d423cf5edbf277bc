"""The cache folder, for what usk computed from sources. It may be deleted at any time."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from usk.errors import UskError
from usk.files import atomic_write, expanded


def cache_root() -> Path:
    """Return `$USK_CACHE`, or by default `$XDG_CACHE_HOME/usk` or `~/.cache/usk`."""
    given = os.environ.get("USK_CACHE")
    if given:
        return expanded(given)
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(base) if base else Path.home() / ".cache") / "usk"
    except RuntimeError as error:  # an account without a home, as in containers
        message = "the home folder is not known"
        raise UskError(message, hint="Set $USK_CACHE to a folder for the cache.") from error


def cache_size_bytes() -> int:
    root = cache_root()
    return sum(file.stat().st_size for file in root.rglob("*") if file.is_file()) if root.is_dir() else 0


def checked(content: bytes | memoryview) -> tuple[bytes | memoryview, ...]:
    """Return what to write to a file, in pieces, so that `read_checked` can verify it: a hash line and the content."""
    return hashlib.sha256(content).hexdigest().encode() + b"\n", content


def read_checked(file: Path) -> bytes | None:
    """Return the content of a file that was written `checked`, or None if the file is missing or damaged."""
    try:
        with file.open("rb") as opened:
            digest, content = opened.read(64), opened.read(1) and opened.read()
    except OSError:
        return None
    return content if hashlib.sha256(content).hexdigest().encode() == digest else None


def try_write(file: Path, content: bytes | Iterable[bytes | memoryview]) -> None:
    """Write a file of the cache. Do nothing if it cannot be written: decoding reports that."""
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(file, content, durable=False)


def size_limit(default_bytes: int) -> int:
    """Return the limit for decoded audio in bytes: `$USK_CACHE_GB`, or the default."""
    try:
        return round(float(os.environ["USK_CACHE_GB"]) * 2**30)
    except (KeyError, ValueError, OverflowError):
        return default_bytes


def evict(folder: Path, limit_bytes: int, used: Path) -> None:
    """Delete the least recently used folders in `folder`, except `used`, until the others take at most `limit_bytes`."""
    mark_used(used)
    with contextlib.suppress(OSError):
        folders = [each for each in folder.iterdir() if each.is_dir()]
        oldest_first = sorted(folders, key=lambda each: each.stat().st_mtime)
        sizes = {each: sum(file.stat().st_size for file in each.iterdir()) for each in oldest_first}
        for oldest in oldest_first:
            if sum(sizes.values()) > limit_bytes and oldest != used:
                del sizes[oldest]
                shutil.rmtree(oldest, ignore_errors=True)


def mark_used(folder: Path) -> None:
    with contextlib.suppress(OSError):
        os.utime(folder)
