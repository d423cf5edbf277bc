"""Strong labels: rows that are a stretch of a file, from an onset to an offset, in a table or in a file of labels beside each sound."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from usk.data.audio_file import FileRef, header
from usk.data.columns import GROUP_COLUMNS, Columns, label_column_of
from usk.data.find import AudioFolder
from usk.data.listing import FILE_COLUMN, TEXT_SUFFIXES, ClipTable, decoded_text, read_table
from usk.errors import SourceError
from usk.text import pluralize

BEGINS = ("onset", "start", "begin", "from", "tmin", "xmin")
LENGTHS = ("duration", "length")
ENDS = ("offset", "end", "stop", "to", "tmax", "xmax", *LENGTHS)
TIME = re.compile(
    rf"(?:t_)?({'|'.join(BEGINS + ENDS)})(?:[ _]?time)?[ _]*[(\[]?(s|secs?|seconds?|ms|msecs?|milliseconds|samples?)?[)\]]?"
)
INSIDE = 0.9  # of the rows: what ends within its file is a stretch of it


def time_columns(table: ClipTable) -> tuple[str, ...]:
    """The columns of onsets, and of offsets or durations; none where there are not both."""
    found = {match[1]: name for name in reversed(table) if (match := TIME.fullmatch(name.strip().lower()))}
    begins: tuple[str, ...] = BEGINS
    ends: tuple[str, ...] = ENDS
    if not set(begins) & set(found):  # `offset` and `duration`, as in manifests of speech
        begins, ends = ("offset",), LENGTHS
    pair = [next((found[word] for word in words if word in found), "") for words in (begins, ends)]
    return tuple(pair) if all(pair) else ()


def labels_beside(folder: AudioFolder) -> tuple[ClipTable, tuple[PurePosixPath, ...]] | None:
    """The stretches that files of labels name, one for each sound and called like it (Audacity, Raven), and these files; None where fewer
    than half of the sounds have one."""
    by_name: dict[str, PurePosixPath] = {}  # as the sound beside it is called, or one anywhere
    for file in (file for file in folder.tables if file.suffix.lower() in TEXT_SUFFIXES):
        for stem in (file.name.partition(".")[0], file.stem):
            by_name[stem] = by_name[str(file.parent / stem)] = file
    n_called = Counter(sound.stem for sound in folder.audio)
    rows: list[tuple[str, Any, Any, Any]] = []
    used = []
    for sound in folder.audio:
        labels = by_name.get(str(sound.with_suffix("")))
        if labels is None and n_called[sound.stem] == 1:
            labels = by_name.get(sound.stem)
        if (
            labels is not None
            and (found := _stretches(folder.root / labels, folder.root / sound)) is not None
        ):
            rows += [(str(sound), *stretch) for stretch in found]
            used.append(labels)
    if not rows or 2 * len(used) < len(folder.audio):
        return None
    names = (FILE_COLUMN, "onset", "offset", "label")
    return dict(zip(names, map(list, zip(*rows, strict=True)), strict=True)), tuple(used)


def _stretches(file: Path, sound: Path) -> list[tuple[Any, ...]] | None:
    """Onset, offset and label of each row of a file of labels: lines of these three (or with more between), or a table that names them."""
    try:
        text, _ = decoded_text(file.read_bytes())
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
    begins, ends = _seconds(table, [sound] * len(table[label]))
    return list(zip(begins, ends, table[label], strict=True))


def _seconds(table: ClipTable, paths: Sequence[Path]) -> tuple[list[float], list[float]]:
    """Where the stretch of its file that each row names begins and ends."""
    columns, word = [], ""
    for name in time_columns(table):
        match = TIME.fullmatch(name.strip().lower())
        word, unit = match.groups("") if match is not None else ("", "")
        numbers = [_number(value) for value in table[name]]
        if unit.startswith("sample"):
            rate_hz = {path: header(path).rate_hz for path in dict.fromkeys(paths)}
            numbers = [number / rate_hz[path] for number, path in zip(numbers, paths, strict=True)]
        columns.append([1e-3 * number if unit.startswith("m") else number for number in numbers])
    begins, ends = columns
    if word in LENGTHS:
        ends = [begin + length for begin, length in zip(begins, ends, strict=True)]
    return begins, ends


def cut_segments(data: ClipTable, paths: Sequence[Path]) -> tuple[ClipTable, list[FileRef], list[str]]:
    """The rows as stretches of their files, and a note. Rows without times are whole files; so are all where the times are those of
    longer recordings, as UrbanSound8K's."""
    whole_files = list(map(FileRef, paths))
    columns = time_columns(data)
    if not columns or {"slice_file_name", "fsID"} <= set(data):
        alone = [
            name for name in data if (match := TIME.fullmatch(name.strip().lower())) and match[1] in BEGINS
        ]
        said = [
            f"the column {name} is not used, since none says where the stretches end" for name in alone[:1]
        ]
        return data, whole_files, [] if columns else said
    begins, ends = _seconds(data, paths)
    lengths = {path: header(path).duration_s for path in dict.fromkeys(paths)}
    stretches = list(zip(begins, ends, paths, strict=True))
    timed = [not math.isnan(begin) or not math.isnan(end) for begin, end, _ in stretches]
    inside = [0 <= begin < end <= lengths[path] + 0.1 for begin, end, path in stretches]
    named = f"the columns {columns[0]} and {columns[1]}"
    whole = [begin < 0.01 and end >= 0.99 * lengths[path] for begin, end, path in stretches]
    if not any(timed) or (all(whole) and len(lengths) == len(paths)):
        return data, whole_files, []
    if sum(inside) < INSIDE * sum(timed):
        return data, whole_files, [f"{named} are not used, since they do not lie within the files"]
    rows = [row for row, fits in enumerate(inside) if fits or not timed[row]]
    kept = {name: [values[row] for row in rows] for name, values in data.items() if name not in columns}
    refs = [
        FileRef(path, (begin, end) if fits else None)
        for (begin, end, path), fits in zip(stretches, inside, strict=True)
    ]
    kept["clip_id"] = [data[FILE_COLUMN][row] + refs[row].cut for row in rows]
    if not {name.lower() for name in kept} & {name.lower() for name in GROUP_COLUMNS}:
        kept["recording"] = list(kept[FILE_COLUMN])
    left = (
        f"; {len(paths) - len(rows)} rows that do not lie within their file are left out"
        if len(rows) < len(paths)
        else ""
    )
    some = (
        "" if all(timed) else f" ({pluralize(len(timed) - sum(timed), 'row')} without times: the whole file)"
    )
    note = f"each row is the stretch of its file that {named} name{some}, and a file is one recording{left}"
    return kept, [refs[row] for row in rows], [note]


def _number(value: Any) -> float:
    """Of `1.5`, `1,5` or `0:01.5`; NaN of what is none."""
    seconds = 0.0
    try:
        for piece in str(value).replace(",", ".").split(":"):
            seconds = 60 * seconds + float(piece)
    except ValueError:
        return math.nan
    return seconds
