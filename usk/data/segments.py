"""Strong labels: rows that are a stretch of a file, from an onset to an offset, in a table or in a file of labels beside each sound."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from usk.data.audio_file import AudioRef, FileRef, duration_s
from usk.data.columns import GROUP_COLUMNS, Columns, label_column_of
from usk.data.find import AudioFolder
from usk.data.listing import FILE_COLUMN, TEXT_SUFFIXES, ClipTable, read_table
from usk.errors import SourceError

TIME = re.compile(
    r"(?:t_)?(onset|start|begin|offset|end|stop|duration|length)(?:[ _]?time)?[ _]*[(\[]?(s|secs?|seconds?|ms|msecs?|milliseconds)?[)\]]?"
)
INSIDE = 0.9  # of the rows: what ends within its file is a stretch of it


def time_columns(table: ClipTable) -> tuple[str, ...]:
    """The columns of onsets, and of offsets or durations; none where there are not both."""
    found = {match[1]: name for name in reversed(table) if (match := TIME.fullmatch(name.strip().lower()))}
    begins: tuple[str, ...] = ("onset", "start", "begin")
    ends: tuple[str, ...] = ("offset", "end", "stop", "duration", "length")
    if not set(begins) & set(found):  # `offset` and `duration`, as in manifests of speech
        begins, ends = ("offset",), ends[3:]
    pair = [next((found[word] for word in words if word in found), "") for words in (begins, ends)]
    return tuple(pair) if all(pair) else ()


def labels_beside(folder: AudioFolder) -> tuple[ClipTable, tuple[PurePosixPath, ...]] | None:
    """The stretches that files of labels name, one for each sound and called like it (Audacity, Raven), and these files; None where fewer
    than half of the sounds have one."""
    by_stem: dict[str, PurePosixPath] = {}
    for file in folder.tables:
        by_stem.setdefault(file.name.partition(".")[0], file)
        by_stem[file.stem] = file
    rows: list[tuple[str, Any, Any, Any]] = []
    used = []
    for sound in folder.audio:
        labels = by_stem.get(sound.stem)
        if labels is not None and (found := _stretches(folder.root / labels)) is not None:
            rows += [(str(sound), *stretch) for stretch in found]
            used.append(labels)
    if not rows or 2 * len(used) < len(folder.audio):
        return None
    names = (FILE_COLUMN, "onset", "offset", "label")
    return dict(zip(names, map(list, zip(*rows, strict=True)), strict=True)), tuple(used)


def _stretches(file: Path) -> list[tuple[Any, ...]] | None:
    """Onset, offset and label of each row of a file of labels: lines of these three (or with more between), or a table that names them."""
    if file.suffix.lower() not in TEXT_SUFFIXES:
        return None
    try:
        text = file.read_text(encoding="utf-8-sig")
        cells = [
            re.split(r"[\t,;]", line.strip())
            for line in text.splitlines()
            if line.strip("\\ \t") and line[0] != "\\"
        ]
        if all(len(row) > 2 and _number(row[0]) <= _number(row[1]) for row in cells):
            return [(row[0], row[1], row[-1].strip()) for row in cells]
        table = read_table(file)
    except (OSError, ValueError, SourceError):
        return None
    times, label = time_columns(table), label_column_of(table, Columns())
    if not times or label is None:
        return None
    begins, ends = _seconds(table)
    return list(zip(begins, ends, table[label], strict=True))


def _seconds(table: ClipTable) -> tuple[list[float], list[float]]:
    """Where each row begins and ends."""
    columns, word = [], ""
    for name in time_columns(table):
        match = TIME.fullmatch(name.strip().lower())
        word, unit = match.groups("") if match is not None else ("", "")
        scale = 1e-3 if unit.startswith("m") else 1.0
        columns.append([scale * _number(value) for value in table[name]])
    begins, ends = columns
    if word in ("duration", "length"):
        ends = [begin + length for begin, length in zip(begins, ends, strict=True)]
    return begins, ends


def cut_segments(
    data: ClipTable, paths: Sequence[Path]
) -> tuple[ClipTable, list[AudioRef] | None, list[str]]:
    """The rows as stretches of their files, and a note. None in place of the audio where the rows are whole files: without times,
    or with times that are those of longer recordings, as UrbanSound8K's."""
    columns = time_columns(data)
    if not columns or {"slice_file_name", "fsID"} <= set(data):
        return data, None, []
    begins, ends = _seconds(data)
    lengths = {path: duration_s(path) for path in dict.fromkeys(paths)}
    inside = [
        0 <= begin < end <= lengths[path] + 0.1 for begin, end, path in zip(begins, ends, paths, strict=True)
    ]
    named = f"the columns {columns[0]} and {columns[1]}"
    whole = [
        begin < 0.01 and end >= 0.99 * lengths[path]
        for begin, end, path in zip(begins, ends, paths, strict=True)
    ]
    if all(whole) and len(lengths) == len(paths):
        return data, None, []
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
