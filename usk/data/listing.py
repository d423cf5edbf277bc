"""Tables as people keep them: CSV and its kin, JSON, JSON lines, Parquet. What text files hold stays text: `001` is no number."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path, PurePosixPath
from typing import Any

from usk.data.audio_file import AUDIO_SUFFIXES
from usk.errors import SourceError
from usk.hub import first_line

TEXT_SUFFIXES = (".csv", ".tsv", ".txt")
TABLE_SUFFIXES = frozenset({*TEXT_SUFFIXES, ".json", ".jsonl", ".ndjson", ".parquet"})
DELIMITERS = ",;\t|"
FILE_COLUMN = "file_name"

# What Windows-1252 has between ASCII where words are Latin
ACCENTED = re.compile(r"[À-ÖØ-öø-ÿ–—’…°µ\xa0]{1,2}")

ClipTable = dict[str, list[Any]]
"""Columns by name, as long as each other."""


def read_table(file: Path, said: list[str] | None = None) -> ClipTable:
    """The columns of a table; SourceError for what is none. What is to be said of its encoding is added to `said`."""
    try:
        if file.suffix.lower() == ".parquet":
            return _read_parquet(file)
        text, guessed = decoded_text(file.read_bytes())
        if guessed and said is not None:
            said.append(
                f"{file.name} is not in UTF-8 and was read as Windows-1252 ({guessed}); if that is wrong, save it as UTF-8"
            )
        return _read_delimited(text) if file.suffix.lower() in TEXT_SUFFIXES else _read_json(text)
    except (OSError, ValueError, csv.Error, RecursionError) as error:
        raise SourceError(
            f"{file} cannot be read as a table ({first_line(error)})",
            hint="Save it as CSV in UTF-8 with a line of column names, or remove it.",
        ) from error


def decoded_text(content: bytes) -> tuple[str, str]:
    """Text in UTF-8, UTF-16 or UTF-32, with a byte order mark or without, and "". Text in Windows-1252 too, with a word that shows it:
    where accents stand alone or in pairs, other encodings do not look like it. Raises ValueError for others."""
    encoding = json.detect_encoding(content)
    try:
        return content.decode(encoding), ""
    except UnicodeDecodeError as error:
        text = content.decode("cp1252", errors="replace")
        foreign = re.findall(r"[^\x00-\x7f]+", text)
        if encoding.startswith("utf-8") and all(map(ACCENTED.fullmatch, foreign)):
            return text, next(iter(re.findall(r"\w*[^\W\x00-\x7f]\w*", text)), foreign[0])
        raise ValueError(f"not in UTF-8: byte {content[error.start]:#04x} at {error.start}") from error


def _read_delimited(text: str) -> ClipTable:
    """Lines of cells, parted by what parts the first line; blank lines and lines of delimiters alone say nothing, nor do comments above,
    of which the last may be the column names."""
    text = re.sub(r"\Asep=.\r?\n", "", text)  # for Excel
    lines = [line for line in text.splitlines(keepends=True) if line.strip()] or [""]
    n_comments = next((at for at, line in enumerate(lines) if not line.startswith("#")), 0)
    if n_comments:
        last, first = lines[n_comments - 1].lstrip("# "), lines[n_comments]
        widths = [
            [len(next(csv.reader([line], delimiter=mark, skipinitialspace=True))) for line in (last, first)]
            for mark in DELIMITERS
        ]
        text = "".join([last] * any(a == b > 1 for a, b in widths) + lines[n_comments:])
    head, *below = [line for line in text.splitlines() if line.strip()][:2] or [""]
    delimiter = max(DELIMITERS, key=head.count)
    if delimiter not in head and any(
        PurePosixPath(cell).suffix.lower() in AUDIO_SUFFIXES
        for line in (head, *below)
        if len(line.split()) == len(head.split()) > 1
        for cell in line.split()
    ):
        delimiter = " "
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    rows = [(reader.line_num, cells) for cells in reader if any(cell.strip() for cell in cells)]
    if not rows:
        raise ValueError("no rows")
    names = [name.strip() for name in rows[0][1]]
    files = [at for at, name in enumerate(names) if PurePosixPath(name).suffix.lower() in AUDIO_SUFFIXES]
    if files:  # no line of column names
        names = [f"column{at}" if len(names) > 2 else "label" for at in range(1, len(names) + 1)]
        names[files[0]] = FILE_COLUMN
    else:
        del rows[0]
    width = len(names)
    for line, cells in rows:
        if any(cell.strip() for cell in cells[width:]):
            raise ValueError(f"line {line} has {len(cells)} values for {width} columns")
    named = [at for at, name in enumerate(names) if name]
    if len({names[at] for at in named}) < len(named):
        raise ValueError("two columns have the same name")
    return {names[at]: [cells[at] if at < len(cells) else "" for _, cells in rows] for at in named}


def _read_json(text: str) -> ClipTable:
    """A list of objects, one object a line, an object of columns, of rows or of the labels by file name, or an object that has such a list."""
    try:
        content = json.loads(text)
    except json.JSONDecodeError:
        content = []
        for number, line in enumerate(text.splitlines(), start=1):
            try:
                content += [json.loads(line)] if line.strip() else []
            except json.JSONDecodeError as error:
                raise ValueError(f"line {number}: {error.msg}") from error
    if isinstance(content, dict):
        content = _rows_of_object(content)
    if isinstance(content, dict):
        columns = {
            name: list(column.values()) if isinstance(column, dict) else column
            for name, column in content.items()
        }
        if all(isinstance(column, list) for column in columns.values()):
            if len({len(column) for column in columns.values()}) > 1:
                raise ValueError("columns of different lengths")
            return columns
        content = [content]
    if not isinstance(content, list) or not all(isinstance(row, dict) for row in content):
        raise ValueError("not a list of objects")
    names = dict.fromkeys(name for row in content for name in row)
    return {name: [row.get(name) for row in content] for name in names}


def _rows_of_object(content: dict[str, Any]) -> Any:
    """The rows of a JSON object that is not one of columns; else the object."""
    lists = [value for value in content.values() if isinstance(value, list)]
    rows = [value for value in lists if value and all(isinstance(row, dict) for row in value)]
    if len(rows) == 1:  # {"data": [{...}, ...]}
        return rows[0]
    values = list(content.values())
    if len(values) > 1 and all(
        isinstance(value, dict) and not all(map(str.isdecimal, value)) for value in values
    ):
        return [{FILE_COLUMN: name, **value} for name, value in content.items()]
    if any(PurePosixPath(name).suffix.lower() in AUDIO_SUFFIXES for name in content):
        return [{FILE_COLUMN: name, "label": value} for name, value in content.items()]
    files = [
        (str(file), name) for name, value in content.items() if isinstance(value, list) for file in value
    ]
    if (
        len(lists) == len(values)
        and files
        and all(PurePosixPath(file).suffix.lower() in AUDIO_SUFFIXES for file, _ in files)
    ):
        return [{FILE_COLUMN: file, "label": name} for file, name in files]
    return content


def _read_parquet(file: Path) -> ClipTable:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return dict(pq.read_table(file).to_pydict())
    except pa.ArrowException as error:
        raise ValueError(first_line(error)) from error
