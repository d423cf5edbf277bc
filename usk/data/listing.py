"""A folder of audio files with a table that names them: `metadata.csv` as Hugging Face's audiofolder has it, ESC-50's, one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from usk.data.audio_file import AUDIO_SUFFIXES
from usk.errors import SourceError
from usk.hub import first_line

FILE_COLUMNS = ("file_name", "filename", "file", "path", "file_path", "filepath", "fname")
STANDARD = ("metadata.csv", "metadata.jsonl")
KINDS = (".csv", ".jsonl")


def tables_in(folder: Path) -> list[Path]:
    """The tables of `folder` that name audio files: its `metadata.csv` or `.jsonl` and those of its parts (`train/`), else
    the only other CSV or JSON-lines file there, or in a folder for such (`meta/`, `metadata/`)."""
    standard = [folder / name for name in STANDARD if (folder / name).is_file()]
    standard += [
        file
        for name in STANDARD
        for file in sorted(folder.glob(f"*/{name}"))
        if file.parent.name != "metadata" and not file.parent.name.startswith(".")
    ]
    if standard := [file for file in standard if file_column(read_table(file)) is not None]:
        return standard
    others = [
        file
        for place in ("", "meta/", "metadata/")
        for kind in KINDS
        for file in sorted(folder.glob(f"{place}*{kind}"))
    ]
    named = [file for file in others if _names_audio(file)]
    return named if len(named) == 1 else []


def _names_audio(file: Path) -> bool:
    try:
        table = read_table(file)
    except SourceError:  # whatever it is, nobody called it the table of these clips
        return False
    column = file_column(table)
    return column is not None and any(
        Path(str(value)).suffix.lower() in AUDIO_SUFFIXES for value in table.column(column).to_pylist()[:100]
    )


def read_table(file: Path) -> Any:
    """As a pyarrow table, types as the values have them; SourceError for what is none."""
    import pyarrow as pa
    from pyarrow import csv, json

    wrong = f"{file} is no table in UTF-8 ({{}}); save it as one, or remove it"
    try:
        if file.suffix == ".csv":
            with file.open("rb") as opened:
                head = opened.readline()
            # Where the comma is the decimal sign, spreadsheets write semicolons.
            delimiter = max(",;\t", key=lambda sign: head.count(sign.encode()))
            table = csv.read_csv(file, parse_options=csv.ParseOptions(delimiter=delimiter))
        else:
            table = json.read_json(file)
        strange = [name for name in table.column_names if table.schema.field(name).type == pa.binary()]
    except (pa.ArrowException, UnicodeDecodeError, OSError) as error:
        raise SourceError(wrong.format(first_line(error))) from error
    if strange:
        raise SourceError(wrong.format(f"the column {strange[0]} holds other bytes"))
    return table


def file_column(table: Any) -> str | None:
    """The column that names files."""
    lowered = {name.lower(): name for name in reversed(table.column_names)}
    return next((lowered[name] for name in FILE_COLUMNS if name in lowered), None)


def listed(folder: Path, tables: list[Path]) -> tuple[Any, list[Path]]:
    """The rows of these tables as one, without their column of files, and each row's file; they are looked for beside their
    table, in `folder`, and in its `audio/`. Raises SourceError for a path out of the folder."""
    import pyarrow as pa

    parts, files = [], []
    for at in tables:
        table = read_table(at)
        column = file_column(table)
        assert column is not None
        names = [str(name) for name in table.column(column).to_pylist()]
        if outside := next(
            (name for name in names if Path(name).is_absolute() or ".." in Path(name).parts), None
        ):
            raise SourceError(f"{at}: the path {outside} leads out of the folder; name files below it")
        places = (at.parent, folder, folder / "audio")
        place = max(places, key=lambda place: sum((place / name).is_file() for name in names))
        files += [place / name for name in names]
        parts.append(table.drop_columns([column]))
    try:
        return pa.concat_tables(parts, promote_options="permissive"), files
    except pa.ArrowException as error:
        said = ", ".join(str(at.relative_to(folder)) for at in tables)
        raise SourceError(
            f"{folder}: {said} do not fit together ({first_line(error)}); name one of their folders"
        ) from error
