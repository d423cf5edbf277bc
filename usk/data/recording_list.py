"""A list of the recordings that a model was trained on, as its publisher gives it: a text or CSV file."""

from __future__ import annotations

import csv
import hashlib
from typing import Any

from usk.errors import UsageError
from usk.files import expanded

ID_COLUMNS = ("freesound_id", "fsid", "sound_id", "recording", "id")
URBANSOUND8K = "urbansound8k"  # whose recordings are called by their Freesound ids


def read_recordings(file: str, source_name: str) -> dict[str, Any]:
    """What `trained_on.json` says of a list of recordings.

    Args:
        file: one recording a line, or a CSV file with one of ID_COLUMNS. A number is a Freesound id: the recording of that name
            in UrbanSound8K and in `source_name`. Anything else is a recording's whole name, such as urbansound8k/100032.
        source_name: of the real clips.

    Raises: UsageError with the field `trained_on`.
    """
    path = expanded(file)

    def refused(message: str, hint: str = "") -> UsageError:
        return UsageError(message, field="trained_on", value=file, hint=hint)

    try:
        content = path.read_bytes()
        lines = content.decode("utf-8-sig").splitlines()
    except OSError as error:
        raise refused(f"cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise refused("is not UTF-8 text") from error
    named = _column(lines, refused) if path.suffix.lower() == ".csv" else lines
    ids = [name for line in named if (name := line.strip()) and not name.startswith("#")]
    if not ids:
        raise refused("names no recording", "Write one a line, for example a Freesound id.")
    if odd := next((name for name in ids if not (_is_number(name) or "/" in name)), None):
        raise refused(
            f"names {odd[:80]!r}, which is neither a Freesound id nor a recording such as {URBANSOUND8K}/100032"
        )
    groups: set[str] = set()
    for name in ids:
        groups |= (
            {f"{owner}/{int(name)}" for owner in (URBANSOUND8K, source_name)} if _is_number(name) else {name}
        )
    return {
        "source": path.name,
        "revision": hashlib.sha256(content).hexdigest()[:12],
        "clips": len(set(ids)),
        "groups": sorted(groups),
    }


def _column(lines: list[str], refused: Any) -> list[str]:
    reader = csv.DictReader(lines)
    columns = {name.strip().lower(): name for name in reader.fieldnames or () if name}
    found = next((columns[name] for name in ID_COLUMNS if name in columns), None)
    if found is None:
        raise refused("has no column of recordings", f"Name one of its columns {', '.join(ID_COLUMNS)}.")
    try:
        return [row[found] or "" for row in reader]
    except csv.Error as error:
        raise refused(f"cannot be read as CSV ({error})") from error


def _is_number(name: str) -> bool:
    return name.isdecimal() and len(name) < 20
