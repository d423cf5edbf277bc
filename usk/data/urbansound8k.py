"""UrbanSound8K as published, and as Kaggle has it: its table beside `fold1`, `fold2`, ..."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from usk.data.audio_file import FileRef
from usk.data.clip import Clip
from usk.data.columns import Columns
from usk.data.fingerprint import fingerprint_files
from usk.data.source import Source
from usk.errors import SourceError
from usk.hub import first_line
from usk.text import abbreviate_list, pluralize

TABLE = "UrbanSound8K.csv"


def urbansound8k_places(path: Path) -> tuple[Path, Path] | None:
    """The table of UrbanSound8K and the folder of its folds, None where `path` is not it."""
    for root in (path, path / "UrbanSound8K"):
        if (root / "metadata" / TABLE).is_file():
            return root / "metadata" / TABLE, root / "audio"
        if (root / TABLE).is_file():
            return root / TABLE, root if any(root.glob("fold*/")) else root / "audio"
    return None


def open_urbansound8k(path: Path, typed: str, skip_bad: bool, columns: Columns) -> Source:
    places = urbansound8k_places(path)
    assert places is not None
    metadata, audio_root = places
    rows = _rows(metadata)
    names = {int(row["classID"]): row["class"] for row in rows}
    class_ids = sorted(names)
    rows.sort(key=lambda row: (int(row["fold"]), row["slice_file_name"]))
    files = [audio_root / f"fold{row['fold']}" / row["slice_file_name"] for row in rows]
    rows, files, notes = _without_missing(rows, files, typed, skip_bad)
    clips = tuple(
        Clip(
            clip_id=f"urbansound8k/{row['slice_file_name']}",
            label=class_ids.index(int(row["classID"])),
            group=f"urbansound8k/{row['fsID']}",
            fold=int(row["fold"]),
            duration_s=_stated_duration_s(row),
        )
        for row in rows
    )
    revision, cache_key, _ = fingerprint_files(files, audio_root.parent)
    return Source(
        name="urbansound8k",
        kind="UrbanSound8K folder",
        location=typed,
        revision=revision,
        cache_key=cache_key,
        class_names=tuple(names[class_id] for class_id in class_ids),
        clips=clips,
        audio=tuple(FileRef(file) for file in files),
        license="CC BY-NC 3.0",
        notes=notes,
    )


def _rows(metadata: Path) -> list[dict[str, str]]:
    """The rows of the table, each with its file, class and fold. Raises SourceError for a table without."""
    try:
        with metadata.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (UnicodeDecodeError, csv.Error) as error:
        raise SourceError(
            f"{metadata} is no CSV file in UTF-8 ({first_line(error)}); unpack UrbanSound8K again"
        ) from error
    needed = {"slice_file_name", "fsID", "fold", "classID", "class"}
    if not rows or not needed <= set(rows[0]):
        raise SourceError(
            f"{metadata} lacks rows or the columns {', '.join(sorted(needed))}; unpack UrbanSound8K again"
        )
    for line, row in enumerate(rows, start=2):
        file_name = row["slice_file_name"] or ""
        numbers = (str(row["fold"]), str(row["classID"]))
        if not (file_name and row["class"] and all(number.isdecimal() for number in numbers)):
            raise SourceError(f"{metadata} line {line} is incomplete; unpack UrbanSound8K again")
        if Path(file_name).name != file_name:
            raise SourceError(f"{metadata} line {line}: the path {file_name} leads out of the fold's folder")
    return rows


def _stated_duration_s(row: Mapping[str, Any]) -> float:
    """From where to where a clip was cut; 0 where the metadata does not say. Decoding finds what it is."""
    try:
        return float(row["end"]) - float(row["start"])
    except (KeyError, TypeError, ValueError):
        return 0.0


def _without_missing(
    rows: list[dict[str, str]], files: list[Path], typed: str, skip_bad: bool
) -> tuple[list[dict[str, str]], list[Path], tuple[str, ...]]:
    kept = [index for index, file in enumerate(files) if file.is_file()]
    missing = [file.name for file in files if not file.is_file()]
    if not missing:
        return rows, files, ()
    if not kept:
        raise SourceError(
            f"{typed}: none of the {len(files)} clips in its metadata has its audio file, for example {files[0]}",
            hint="Download it again.",
        )
    if not skip_bad:
        raise SourceError(
            f"{typed}: {len(missing)} of {len(files)} clips in its metadata have no audio file ({abbreviate_list(missing)})",
            hint="Complete the download, or skip bad clips.",
        )
    note = f"skipped {pluralize(len(missing), 'clip')} without an audio file"
    return [rows[index] for index in kept], [files[index] for index in kept], (note,)
