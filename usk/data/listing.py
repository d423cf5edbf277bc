"""Read tables: CSV with any delimiter, JSON, JSON lines, Parquet. Cells of text files stay text, so `001` is not a number."""

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

# Accented letters and marks of Windows-1252 as they occur in Latin words, between ASCII characters.
ACCENTED = re.compile(r"[À-ÖØ-öø-ÿ–—’…°µ\xa0]{1,2}")

ClipTable = dict[str, list[Any]]
"""Columns of equal length, by name."""


def read_table(file: Path, notes: list[str] | None = None) -> ClipTable:
    """Return the columns of a table. Raise SourceError if the file is not a table. Append a guessed encoding to `notes`."""
    try:
        if file.suffix.lower() == ".parquet":
            return _read_parquet(file)
        text, accented_word = decoded_text(file.read_bytes())
        if accented_word and notes is not None:
            notes.append(
                f"{file.name} is not in UTF-8 and was read as Windows-1252 ({accented_word}); if that is wrong, save it as UTF-8"
            )
        return _read_delimited(text) if file.suffix.lower() in TEXT_SUFFIXES else _read_json(text)
    except (OSError, ValueError, csv.Error, RecursionError) as error:
        message = f"{file} cannot be read as a table ({first_line(error)})"
        hint = "Save it as CSV in UTF-8 with a line of column names, or remove it."
        raise SourceError(message, hint=hint) from error


def decoded_text(content: bytes) -> tuple[str, str]:
    """Decode UTF-8, UTF-16 or UTF-32, with or without a byte order mark, or Windows-1252. Raise ValueError for other encodings.

    Return the text and "", or for Windows-1252 a word that shows the encoding. Text counts as Windows-1252 if accented letters
    stand alone or in pairs, since text in other encodings does not look like that.
    """
    encoding = json.detect_encoding(content)
    try:
        return content.decode(encoding), ""
    except UnicodeDecodeError as error:
        text = content.decode("cp1252", errors="replace")
        foreign = re.findall(r"[^\x00-\x7f]+", text)
        if encoding.startswith("utf-8") and all(map(ACCENTED.fullmatch, foreign)):
            return text, next(iter(re.findall(r"\w*[^\W\x00-\x7f]\w*", text)), foreign[0])
        raise ValueError(f"not in UTF-8: byte {content[error.start]:#04x} at {error.start}") from error


def has_audio_suffix(name: object) -> bool:
    return isinstance(name, str) and PurePosixPath(name.strip()).suffix.lower() in AUDIO_SUFFIXES


def _read_delimited(text: str) -> ClipTable:
    """Read lines of cells. Skip comments above, blank lines, and lines of delimiters alone."""
    text = re.sub(r"\Asep=.\r?\n", "", text)  # for Excel
    text = re.sub(r"\A(\s*#.*\n)+", "", text)
    lines = [line for line in text.splitlines() if line.strip()]
    delimiter = _find_delimiter(lines)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    rows = [(reader.line_num, cells) for cells in reader if any(cell.strip() for cell in cells)]
    if not rows:
        raise ValueError("no rows")
    names = [name.strip() for name in rows[0][1]]
    files = [index for index, name in enumerate(names) if has_audio_suffix(name)]
    if files:  # there is no line of column names
        names = [f"column{number}" if len(names) > 2 else "label" for number in range(1, len(names) + 1)]
        names[files[0]] = FILE_COLUMN
    else:
        del rows[0]
    for line, cells in rows:
        if any(cell.strip() for cell in cells[len(names) :]):
            raise ValueError(f"line {line} has {len(cells)} values for {len(names)} columns")
    named = [index for index, name in enumerate(names) if name]
    if len({names[index] for index in named}) < len(named):
        raise ValueError("two columns have the same name")
    return {
        names[index]: [cells[index] if index < len(cells) else "" for _, cells in rows] for index in named
    }


def _find_delimiter(lines: list[str]) -> str:
    """Return the most frequent delimiter of the first line, or a blank if blanks separate file names from other cells."""
    if not lines:
        return ","
    delimiter = max(DELIMITERS, key=lines[0].count)
    rows = [line.split() for line in lines[:2]]
    has_files = any(len(row) == len(rows[0]) > 1 and any(map(has_audio_suffix, row)) for row in rows)
    return " " if has_files and delimiter not in lines[0] else delimiter


def _read_json(text: str) -> ClipTable:
    """Read a list of rows, a row on each line, an object of columns, or an object that `_rows_of_object` understands."""
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
    """Return the rows that a JSON object holds, or the object itself if it holds columns."""
    values = list(content.values())
    lists = [value for value in values if isinstance(value, list)]
    rows = [value for value in lists if value and all(isinstance(row, dict) for row in value)]
    if len(rows) == 1:  # {"data": [{...}, ...]}
        return rows[0]
    are_rows = all(isinstance(value, dict) and not all(map(str.isdecimal, value)) for value in values)
    if len(values) > 1 and are_rows:  # {"a.wav": {...}, ...}, but not columns by row number
        return [{FILE_COLUMN: name, **value} for name, value in content.items()]
    if any(map(has_audio_suffix, content)):  # {"a.wav": "dog", ...}
        return [{FILE_COLUMN: name, "label": value} for name, value in content.items()]
    if len(lists) == len(values):  # {"dog": ["a.wav", ...], ...}
        files = [(str(file), name) for name, value in content.items() for file in value]
        if files and all(has_audio_suffix(file) for file, _ in files):
            return [{FILE_COLUMN: file, "label": name} for file, name in files]
    return content


def _read_parquet(file: Path) -> ClipTable:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return dict(pq.read_table(file).to_pydict())
    except pa.ArrowException as error:
        raise ValueError(first_line(error)) from error
