"""Where usk keeps what it has computed of sources. It may be deleted at any time."""

from __future__ import annotations

import os
from pathlib import Path


def cache_root() -> Path:
    """`$USK_CACHE` (default: `$XDG_CACHE_HOME/usk` or `~/.cache/usk`)."""
    given = os.environ.get("USK_CACHE")
    if given:
        return Path(given).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "usk"


def cache_size_bytes() -> int:
    root = cache_root()
    return sum(file.stat().st_size for file in root.rglob("*") if file.is_file()) if root.is_dir() else 0
