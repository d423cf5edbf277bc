"""Reading what should be a JSON object in a file: a record of ours, perhaps damaged, or anybody's from the Hub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from usk.errors import UskError


def read_json_object(file: Path, error: type[UskError], unreadable: str, other: str = "") -> dict[str, Any]:
    """The object in a file. Raises `error` with the line that fits.

    Args:
        file: JSON in UTF-8.
        error: what to raise.
        unreadable: the line where there is no file, or none that can be read as JSON.
        other: the line where it holds something other than an object; `unreadable` if empty.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as failure:  # the last: nested too deep
        raise error(unreadable) from failure
    if not isinstance(content, dict):
        raise error(other or unreadable)
    return content
