"""What a user may type for a source of clips. Imports nothing heavy, so that a wrong path is refused quickly."""

from __future__ import annotations

import os

from usk.errors import SourceError
from usk.files import expanded

A_SOURCE = "A source is a folder of clips or of a dataset, a Hub id (user/name), or `demo`."


def default_real() -> str:
    """Where the real clips are, unless the user says: `$USK_REAL`, or the Hub's UrbanSound8K."""
    return os.environ.get("USK_REAL") or "danavery/urbansound8K"


def refuse_missing(location: str, field: str) -> None:
    """Raise SourceError for what can only be a path, absolute or beginning with `.` or `~`, where there is nothing."""
    if location.startswith(("/", ".", "~")) and "\0" not in location and not expanded(location).exists():
        raise SourceError("no such folder", field=field, value=location, hint=A_SOURCE)
