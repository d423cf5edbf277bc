"""Strong labels: rows that are a stretch of a file, from an onset to an offset in seconds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from usk.data.audio_file import AudioRef, FileRef, duration_s
from usk.data.columns import GROUP_COLUMNS
from usk.data.listing import FILE_COLUMN, ClipTable

TIME_COLUMNS = (
    ("onset", "offset"),
    ("start_time", "end_time"),
    ("start", "end"),
    ("start_s", "end_s"),
    ("start_seconds", "end_seconds"),
    ("begin time (s)", "end time (s)"),
    ("begin", "end"),
)
INSIDE = 0.9  # of the rows: what ends within its file is a stretch of it


def time_columns(table: ClipTable) -> tuple[str, ...]:
    """The columns of onsets and offsets, none where there are not both."""
    lowered = {name.lower(): name for name in reversed(table)}
    pairs = (pair for pair in TIME_COLUMNS if set(pair) <= set(lowered))
    return next((tuple(lowered[name] for name in pair) for pair in pairs), ())


def cut_segments(
    data: ClipTable, paths: Sequence[Path]
) -> tuple[ClipTable, list[AudioRef] | None, list[str]]:
    """The rows as stretches of their files, and a note. None in place of the audio where the rows are whole files: without times,
    or with times that are those of longer recordings, as UrbanSound8K's."""
    columns = time_columns(data)
    if not columns or {"slice_file_name", "fsID"} <= set(data):
        return data, None, []
    begins, ends = ([_number(value) for value in data[name]] for name in columns)
    lengths = {path: duration_s(path) for path in dict.fromkeys(paths)}
    inside = [
        0 <= begin < end <= lengths[path] + 0.1 for begin, end, path in zip(begins, ends, paths, strict=True)
    ]
    named = f"the columns {columns[0]} and {columns[1]}"
    if sum(inside) < INSIDE * len(paths):
        return data, None, [f"{named} are not used, since they do not lie within the files"]
    rows = [row for row, fits in enumerate(inside) if fits]
    kept = {name: [values[row] for row in rows] for name, values in data.items() if name not in columns}
    kept["clip_id"] = [f"{data[FILE_COLUMN][row]}@{begins[row]:g}-{ends[row]:g}" for row in rows]
    if not {name.lower() for name in kept} & {name.lower() for name in GROUP_COLUMNS}:
        kept["recording"] = list(kept[FILE_COLUMN])
    left = (
        f"; {len(paths) - len(rows)} rows that do not lie within their file are left out"
        if len(rows) < len(paths)
        else ""
    )
    note = f"each row is the stretch of its file that {named} name, and a file is one recording{left}"
    return kept, [FileRef(paths[row], (begins[row], ends[row])) for row in rows], [note]


def _number(value: Any) -> float:
    try:
        return float(str(value).replace(",", "."))
    except ValueError:
        return math.nan
