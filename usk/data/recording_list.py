"""Read a publisher's list of the recordings that a model was trained on: a text or CSV file."""

from __future__ import annotations

import csv
import hashlib
from typing import Any

from usk.errors import UsageError
from usk.files import expanded
from usk.hub import first_line

ID_COLUMNS = ("freesound_id", "fsid", "sound_id", "recording", "id")
URBANSOUND8K = "urbansound8k"  # its recordings are named by their Freesound ids


def read_recordings(file: str, source_name: str) -> dict[str, Any]:
    """Return the entry of `trained_on.json` for a list of recordings.

    Args:
        file: a text file with one recording on each line, or a CSV file with one of ID_COLUMNS. A number is a Freesound id: it
            means the recording of that name in UrbanSound8K and in `source_name`. Other text is a recording's whole name, such
            as urbansound8k/100032.
        source_name: the name of the source of real clips.

    Raise UsageError with the field `trained_on` if the file is not such a list.
    """
    path = expanded(file)
    try:
        content = path.read_bytes()
        lines = content.decode("utf-8-sig").splitlines()
        if path.suffix.lower() == ".csv":
            lines = _id_column(lines)
        names = [name for line in lines if (name := line.strip()) and not name.startswith("#")]
        if not names:
            raise ValueError("names no recording")
        groups: set[str] = set()
        for name in names:
            if name.isdecimal() and len(name) < 20:
                groups |= {f"{owner}/{int(name)}" for owner in (URBANSOUND8K, source_name)}
            elif "/" in name:
                groups.add(name)
            else:
                message = f"names {name[:80]!r}, which is neither a Freesound id nor a recording such as {URBANSOUND8K}/100032"
                raise ValueError(message)
    except (OSError, ValueError, csv.Error) as error:
        is_ours = type(error) is ValueError  # not UnicodeDecodeError
        problem = str(error) if is_ours else f"cannot be read ({first_line(error)})"
        hint = f"Write one recording on each line, for example a Freesound id, or a CSV file with one of the columns {', '.join(ID_COLUMNS)}."
        raise UsageError(problem, field="trained_on", value=file, hint=hint) from error
    return {
        "source": path.name,
        "revision": hashlib.sha256(content).hexdigest()[:12],
        "clips": len(set(names)),
        "groups": sorted(groups),
    }


def _id_column(lines: list[str]) -> list[str]:
    """Return the values in the first of ID_COLUMNS that a CSV file has. Raise ValueError or csv.Error."""
    reader = csv.DictReader(lines)
    columns = {name.strip().lower(): name for name in reader.fieldnames or () if name}
    for name in ID_COLUMNS:
        if name in columns:
            return [row[columns[name]] or "" for row in reader]
    raise ValueError("has no column of recordings")
