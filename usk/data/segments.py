"""Read strong labels: rows that name a segment of a file, from an onset to an offset.

They come from a table, or from a label file beside each sound (Audacity, Raven).
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from usk.data.audio_file import FileRef, read_header
from usk.data.columns import GROUP_COLUMNS, Columns, find_columns, label_column_of
from usk.data.find import AudioFolder
from usk.data.listing import FILE_COLUMN, TEXT_SUFFIXES, ClipTable, decoded_text, read_table
from usk.errors import SourceError
from usk.text import pluralize

ONSETS = ("onset", "start", "begin", "from", "tmin", "xmin")
DURATIONS = ("duration", "length")
OFFSETS = ("offset", "end", "stop", "to", "tmax", "xmax", *DURATIONS)
TIME = re.compile(
    rf"(?:t_)?({'|'.join(ONSETS + OFFSETS)})(?:[ _]?time)?[ _]*[(\[]?(s|secs?|seconds?|ms|msecs?|milliseconds|samples?)?[)\]]?"
)
MIN_INSIDE = 0.9  # share of rows within their files: below it, the times mean something else


def time_columns(table: ClipTable) -> tuple[str, ...]:
    """Return the columns of onsets and of offsets or durations, or () if one of them is missing."""
    matches = {_match_time(name)[0]: name for name in reversed(table)}
    onsets: tuple[str, ...] = ONSETS
    offsets: tuple[str, ...] = OFFSETS
    if not set(onsets) & set(matches):  # manifests of speech: `offset` is the onset
        onsets, offsets = ("offset",), DURATIONS
    onset = next((matches[word] for word in onsets if word in matches), None)
    offset = next((matches[word] for word in offsets if word in matches), None)
    return (onset, offset) if onset is not None and offset is not None else ()


def _match_time(name: str) -> tuple[str, str]:
    """Return the word and the unit of a time column's name, or ("", "") for other columns."""
    match = TIME.fullmatch(name.strip().lower())
    return (match[1], match[2] or "") if match else ("", "")


def read_label_files(folder: AudioFolder) -> tuple[ClipTable, tuple[PurePosixPath, ...]] | None:
    """Return a table of the segments in label files with the same names as the sounds, and these files.

    Return None if fewer than half of the sounds have a label file.
    """
    label_files: dict[str, PurePosixPath] = {}  # by path, and by name alone
    for file in folder.tables:
        if file.suffix.lower() in TEXT_SUFFIXES:
            for stem in (file.name.partition(".")[0], file.stem):
                label_files[stem] = label_files[str(file.parent / stem)] = file
    n_named = Counter(sound.stem for sound in folder.audio)
    rows: list[tuple[str, Any, Any, Any]] = []
    used = []
    for sound in folder.audio:
        file_of_sound = label_files.get(str(sound.with_suffix("")))
        if file_of_sound is None and n_named[sound.stem] == 1:
            file_of_sound = label_files.get(sound.stem)
        if file_of_sound is None:
            continue
        segments = _read_label_file(folder.root / file_of_sound, folder.root / sound)
        if segments is not None:
            rows += [(str(sound), *segment) for segment in segments]
            used.append(file_of_sound)
    if not rows or 2 * len(used) < len(folder.audio):
        return None
    names = (FILE_COLUMN, "onset", "offset", "label")
    return dict(zip(names, map(list, zip(*rows, strict=True)), strict=True)), tuple(used)


def _read_label_file(file: Path, sound: Path) -> list[tuple[Any, Any, Any]] | None:
    """Return (onset, offset, label) of each row, or None if the file has no such rows.

    The file has no column names and begins each line with onset and offset and ends it with the label, or it is a table with
    column names.
    """
    try:
        text, _ = decoded_text(file.read_bytes())
        lines = [line for line in text.splitlines() if line.strip("\\ \t") and line[0] != "\\"]
        rows = [re.split(r"[\t,;]", line.strip()) for line in lines]
        if all(len(row) > 2 and _parse_number(row[0]) <= _parse_number(row[1]) for row in rows):
            return [(row[0], row[1], row[-1].strip()) for row in rows]
        table = read_table(file)
    except (OSError, ValueError, SourceError):
        return None
    label = label_column_of(table, Columns())
    if not time_columns(table) or label is None:
        return None
    onsets, offsets = _times_s(table, [sound] * len(table[label]))
    return list(zip(onsets, offsets, table[label], strict=True))


def _times_s(table: ClipTable, paths: Sequence[Path]) -> tuple[list[float], list[float]]:
    """Return the onset and offset in seconds of each row, whose file is in `paths`; NaN if a row has none."""
    times = []
    for column in time_columns(table):
        word, unit = _match_time(column)
        numbers = [_parse_number(value) for value in table[column]]
        if unit.startswith("sample"):
            rate_hz = {path: read_header(path).rate_hz for path in dict.fromkeys(paths)}
            numbers = [number / rate_hz[path] for number, path in zip(numbers, paths, strict=True)]
        elif unit.startswith("m"):
            numbers = [1e-3 * number for number in numbers]
        times.append(numbers)
    onsets, offsets = times
    if word in DURATIONS:
        offsets = [onset + duration for onset, duration in zip(onsets, offsets, strict=True)]
    return onsets, offsets


def cut_segments(data: ClipTable, paths: Sequence[Path]) -> tuple[ClipTable, list[FileRef], list[str]]:
    """Return the rows that can be read, each row's file or segment of it, and notes.

    Rows without times are whole files. All rows are whole files if the times belong to longer recordings, as in UrbanSound8K.
    """
    whole_files = list(map(FileRef, paths))
    columns = time_columns(data)
    if not columns or {"slice_file_name", "fsID"} <= set(data):
        onsets = [] if columns else [name for name in data if _match_time(name)[0] in ONSETS]
        notes = [f"the column {name} is not used, since none says where the segments end" for name in onsets]
        return data, whole_files, notes[:1]
    onsets_s, offsets_s = _times_s(data, paths)
    durations_s = {path: read_header(path).duration_s for path in dict.fromkeys(paths)}
    rows = list(zip(onsets_s, offsets_s, paths, strict=True))
    timed = [not (math.isnan(onset) and math.isnan(offset)) for onset, offset, _ in rows]
    inside = [0 <= onset < offset <= durations_s[path] + 0.1 for onset, offset, path in rows]
    whole = [onset < 0.01 and offset >= 0.99 * durations_s[path] for onset, offset, path in rows]
    if not any(timed) or (all(whole) and len(durations_s) == len(paths)):
        return data, whole_files, []
    named = f"the columns {columns[0]} and {columns[1]}"
    if sum(inside) < MIN_INSIDE * sum(timed):
        return data, whole_files, [f"{named} are not used, since they do not lie within the files"]
    kept_rows = [row for row in range(len(rows)) if inside[row] or not timed[row]]
    kept = {name: [values[row] for row in kept_rows] for name, values in data.items() if name not in columns}
    refs = [
        FileRef(path, (onset, offset) if is_inside else None)
        for (onset, offset, path), is_inside in zip(rows, inside, strict=True)
    ]
    kept["clip_id"] = [data[FILE_COLUMN][row] + refs[row].segment_suffix for row in kept_rows]
    if not find_columns(kept, GROUP_COLUMNS):
        kept["recording"] = list(kept[FILE_COLUMN])
    note = f"each row is the segment of its file that {named} name"
    if not all(timed):
        note += f" ({pluralize(len(timed) - sum(timed), 'row')} without times: the whole file)"
    note += ", and a file is one recording"
    if len(kept_rows) < len(paths):
        note += f"; {len(paths) - len(kept_rows)} rows that do not lie within their file are left out"
    return kept, [refs[row] for row in kept_rows], [note]


def _parse_number(value: Any) -> float:
    """Parse `1.5`, `1,5` or `0:01.5` (minutes and seconds). Return NaN for other text."""
    seconds = 0.0
    try:
        for piece in str(value).replace(",", ".").split(":"):
            seconds = 60 * seconds + float(piece)
    except ValueError:
        return math.nan
    return seconds
