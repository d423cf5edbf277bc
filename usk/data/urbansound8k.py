"""Open UrbanSound8K as published, or as on Kaggle, with the table beside `fold1`, `fold2`, ..."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from usk.data.audio_file import FileRef
from usk.data.clip import Clip
from usk.data.columns import Columns
from usk.data.fingerprint import fingerprint_files
from usk.data.source import Source, skip_missing_files
from usk.errors import SourceError
from usk.hub import first_line

TABLE = "UrbanSound8K.csv"


def urbansound8k_places(path: Path) -> tuple[Path, Path] | None:
    """Return UrbanSound8K's table and the folder of its folds, or None if `path` is not UrbanSound8K."""
    for root in (path, path / "UrbanSound8K"):
        if (root / "metadata" / TABLE).is_file():
            return root / "metadata" / TABLE, root / "audio"
        if (root / TABLE).is_file():
            return root / TABLE, root if any(root.glob("fold*/")) else root / "audio"
    return None


def open_urbansound8k(path: Path, location: str, skip_bad: bool, columns: Columns) -> Source:
    places = urbansound8k_places(path)
    assert places is not None
    metadata, audio_root = places
    rows = sorted(_read_metadata(metadata), key=lambda row: (int(row["fold"]), row["slice_file_name"]))
    class_names = dict(sorted((int(row["classID"]), row["class"]) for row in rows))
    class_ids = list(class_names)
    files = [audio_root / f"fold{row['fold']}" / row["slice_file_name"] for row in rows]
    names, exists = [file.name for file in files], [file.is_file() for file in files]
    kept, notes = skip_missing_files(
        names, exists, location, skip_bad, lambda missing: f", looked for in {audio_root}"
    )
    clips = tuple(
        Clip(
            clip_id=f"urbansound8k/{row['slice_file_name']}",
            label=class_ids.index(int(row["classID"])),
            group=f"urbansound8k/{row['fsID']}",
            fold=int(row["fold"]),
            duration_s=_stated_duration_s(row),
        )
        for row in map(rows.__getitem__, kept)
    )
    files = [files[row] for row in kept]
    revision, cache_key, _ = fingerprint_files(files, audio_root.parent)
    return Source(
        name="urbansound8k",
        kind="UrbanSound8K folder",
        location=location,
        revision=revision,
        cache_key=cache_key,
        class_names=tuple(class_names.values()),
        clips=clips,
        audio=tuple(map(FileRef, files)),
        license="CC BY-NC 3.0",
        notes=tuple(notes),
    )


def _read_metadata(metadata: Path) -> list[dict[str, str]]:
    """Return the rows of the table. Raise SourceError if one lacks its file, class or fold."""
    try:
        with metadata.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (UnicodeDecodeError, csv.Error) as error:
        message = f"{metadata} is not a CSV file in UTF-8 ({first_line(error)}); unpack UrbanSound8K again"
        raise SourceError(message) from error
    needed = {"slice_file_name", "fsID", "fold", "classID", "class"}
    if not rows or not needed <= set(rows[0]):
        message = (
            f"{metadata} lacks rows or the columns {', '.join(sorted(needed))}; unpack UrbanSound8K again"
        )
        raise SourceError(message)
    for line, row in enumerate(rows, start=2):
        file_name = row["slice_file_name"] or ""
        numbers = (str(row["fold"]), str(row["classID"]))
        if not (file_name and row["class"] and all(number.isdecimal() for number in numbers)):
            raise SourceError(f"{metadata} line {line} is incomplete; unpack UrbanSound8K again")
        if Path(file_name).name != file_name:
            raise SourceError(f"{metadata} line {line}: the path {file_name} leads out of the fold's folder")
    return rows


def _stated_duration_s(row: Mapping[str, Any]) -> float:
    """Return the duration from the table, or 0 if it has none. Decoding measures it."""
    try:
        return float(row["end"]) - float(row["start"])
    except (KeyError, TypeError, ValueError):
        return 0.0
