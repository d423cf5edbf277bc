"""Where usk keeps what it has computed of sources. It may be deleted at any time."""

from __future__ import annotations

import os
from pathlib import Path

from usk.errors import UskError
from usk.files import expanded


def cache_root() -> Path:
    """`$USK_CACHE` (default: `$XDG_CACHE_HOME/usk` or `~/.cache/usk`)."""
    given = os.environ.get("USK_CACHE")
    if given:
        return expanded(given)
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(base) if base else Path.home() / ".cache") / "usk"
    except RuntimeError as error:  # an account without a home, as in containers
        raise UskError(
            "the home folder is not known", hint="Set $USK_CACHE to a folder for the cache."
        ) from error


def cache_size_bytes() -> int:
    root = cache_root()
    return sum(file.stat().st_size for file in root.rglob("*") if file.is_file()) if root.is_dir() else 0
