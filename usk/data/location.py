"""Check the location of a source of clips as typed. Imports nothing heavy, so that a wrong path is refused quickly."""

from __future__ import annotations

import os

from usk.errors import SourceError
from usk.files import expanded

A_SOURCE = "A source is a folder of clips or of a dataset, a Hub id (user/name), or `demo`."


def default_real() -> str:
    """Return the default location of the real clips: `$USK_REAL`, or UrbanSound8K on the Hub."""
    return os.environ.get("USK_REAL") or "danavery/urbansound8K"


def refuse_missing(location: str, field: str) -> None:
    """Raise SourceError if the location can only be a path (it begins with `/`, `.` or `~`) and does not exist."""
    if location.startswith(("/", ".", "~")) and "\0" not in location and not expanded(location).exists():
        raise SourceError("no such folder", field=field, value=location, hint=A_SOURCE)
