"""Sources that are folders of audio files: UrbanSound8K as published, one folder a class, files that a table lists."""

from __future__ import annotations

import csv
import os
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from usk.data.audio_file import AUDIO_SUFFIXES, FileRef
from usk.data.clip import Clip
from usk.data.columns import LABEL_COLUMNS, Columns, from_columns
from usk.data.fingerprint import fingerprint_files
from usk.data.listing import STANDARD, listed, read_table, tables_in
from usk.data.source import A_SOURCE, Source, no_groups_note, with_folds
from usk.errors import SourceError
from usk.files import is_text, visible_files
from usk.hub import first_line
from usk.manifest import MANIFEST_FILE
from usk.text import abbreviate_list, pluralize

UNREAD_SUFFIXES = frozenset(
    {
        ".m4a",
        ".mp4",
        ".aac",
        ".wma",
        ".webm",
        ".amr",
        ".caf",
        ".3gp",
        ".mka",
        ".ape",
        ".wv",
        ".au",
        ".mpc",
        ".aifc",
    }
)
PART_OF_A_DATASET = re.compile(
    r"(fold|split|part)[-_ ]?\d+|train(ing)?|test(ing)?|val(id(ation)?)?|dev|eval", re.IGNORECASE
)


def urbansound8k_root(path: Path) -> Path | None:
    for root in (path, path / "UrbanSound8K"):
        if (root / "metadata" / "UrbanSound8K.csv").is_file():
            return root
    return None


def open_urbansound8k(path: Path, typed: str, skip_bad: bool, columns: Columns) -> Source:
    root = urbansound8k_root(path)
    assert root is not None
    metadata = root / "metadata" / "UrbanSound8K.csv"
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
    names = {int(row["classID"]): row["class"] for row in rows}
    class_ids = sorted(names)
    rows.sort(key=lambda row: (int(row["fold"]), row["slice_file_name"]))
    files = [root / "audio" / f"fold{row['fold']}" / row["slice_file_name"] for row in rows]
    present = [file.is_file() for file in files]
    rows, files, notes = _without_missing(rows, files, present, typed, skip_bad)
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
    revision, cache_key = fingerprint_files(files, root)
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


def _stated_duration_s(row: Mapping[str, Any]) -> float:
    """From where to where a clip was cut; 0 where the metadata does not say. Decoding finds what it is."""
    try:
        return float(row["end"]) - float(row["start"])
    except (KeyError, TypeError, ValueError):
        return 0.0


def _without_missing(
    rows: list[Any], files: list[Path], present: list[bool], typed: str, skip_bad: bool
) -> tuple[list[Any], list[Path], tuple[str, ...]]:
    missing = [file.name for file, there in zip(files, present, strict=True) if not there]
    if not missing:
        return rows, files, ()
    if len(missing) == len(files):
        raise SourceError(
            f"{typed}: none of the {len(files)} clips in its metadata has its audio file; download it again"
        )
    if not skip_bad:
        raise SourceError(
            f"{typed}: {len(missing)} of {len(files)} clips in its metadata have no audio file "
            f"({abbreviate_list(missing)}); complete the download, or skip bad clips"
        )
    kept = [index for index, there in enumerate(present) if there]
    note = f"skipped {pluralize(len(missing), 'clip')} without an audio file"
    return [rows[index] for index in kept], [files[index] for index in kept], (note,)


def tables_of(path: Path, columns: Columns) -> list[Path]:
    """The tables that list the clips of `path`. Where folders are classes already, only `metadata.csv` and the like with a
    column of labels counts."""
    tables = tables_in(path)
    if not tables:
        return []
    labels = {columns.label, *LABEL_COLUMNS}
    labeled = any(name in labels or name.lower() in labels for name in read_table(tables[0]).column_names)
    folders = [folder for folder in path.iterdir() if folder.is_dir() and not folder.name.startswith(".")]
    classes = [
        folder for folder in folders if any(f.suffix.lower() in AUDIO_SUFFIXES for f in visible_files(folder))
    ]
    return tables if len(classes) < 2 or (labeled and tables[0].name in STANDARD) else []


def open_listed(path: Path, typed: str, skip_bad: bool, columns: Columns, tables: list[Path]) -> Source:
    """Audio files that a table names, with their labels and, where it has them, recordings and folds."""
    from datasets import Features, Value

    table, files = listed(path, tables)
    rows = list(range(len(files)))
    rows, files, notes = _without_missing(rows, files, [file.is_file() for file in files], typed, skip_bad)
    table = table.take(rows)
    data = {**table.to_pydict(), "file_name": [file.relative_to(path).as_posix() for file in files]}
    features = {**Features.from_arrow_schema(table.schema), "file_name": Value("string")}
    revision, cache_key = fingerprint_files([*files, *tables], path)
    name, audio = path.resolve().name, tuple(map(FileRef, files))
    opened = Source(name, "files listed in a table", typed, revision, cache_key, (), (), audio, notes=notes)
    return from_columns(data, features, opened, columns)


def open_class_folders(path: Path, typed: str, skip_bad: bool, columns: Columns) -> Source:
    folders = sorted(entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    below = {folder.name: visible_files(folder) for folder in folders}
    unsayable = {file for files in below.values() for file in files if not is_text(file.relative_to(path))}
    odd = [
        os.fsencode(file.relative_to(path)).decode(errors="backslashreplace")
        for file in sorted(unsayable)
        if file.suffix.lower() in AUDIO_SUFFIXES
    ]
    if odd and not skip_bad:
        raise SourceError(
            f"{typed}: {pluralize(len(odd), 'file')} named in other bytes than UTF-8 ({abbreviate_list(odd)}), and rows could not say them; "
            "rename them, or skip bad clips"
        )
    if not is_text(path.resolve().name):
        raise SourceError(
            f"the name of the folder {typed!a} is not UTF-8, and rows could not say it; rename it"
        )
    below = {name: [file for file in files if file not in unsayable] for name, files in below.items()}
    found = {
        name: [file for file in files if file.suffix.lower() in AUDIO_SUFFIXES]
        for name, files in below.items()
    }
    unread = Counter(
        file.suffix.lower()
        for files in below.values()
        for file in files
        if file.suffix.lower() in UNREAD_SUFFIXES
    )
    class_names = tuple(name for name, files in found.items() if files)
    if not class_names:
        raise SourceError(
            f"{typed} is not a source of clips: {_why_no_classes(path, folders, unread)}", hint=A_SOURCE
        )
    if all(PART_OF_A_DATASET.fullmatch(name) for name in class_names):
        raise SourceError(
            f"{typed}: its folders {', '.join(class_names[:4])} are named like parts of a data set, not like classes; "
            "name a folder whose sub-folders are the classes (for UrbanSound8K the one that has metadata/ in it)"
        )
    name = path.resolve().name
    files, clips = [], []
    classes_of: dict[str, set[str]] = defaultdict(set)  # by recording folder: the classes that have it
    inside = {
        file: file.relative_to(path / class_name) for class_name in class_names for file in found[class_name]
    }
    for class_name in class_names:
        for file in found[class_name]:
            if len(inside[file].parts) > 1:
                classes_of[inside[file].parent.as_posix()].add(class_name)
    shared = {recording for recording, classes in classes_of.items() if len(classes) > 1}
    for label, class_name in enumerate(class_names):
        for file in found[class_name]:
            folder = inside[file].parent.as_posix()
            recording = f"{class_name}/{inside[file].as_posix() if folder == '.' else folder}"
            files.append(file)
            clips.append(
                Clip(
                    clip_id=f"{name}/{class_name}/{inside[file].as_posix()}",
                    label=label,
                    group=f"{name}/{folder if folder in shared else recording}",
                    fold=0,
                )
            )
    revision, cache_key = fingerprint_files(files, path)
    notes = (
        [f"skipped {pluralize(len(odd), 'file')} whose name is not UTF-8: {abbreviate_list(odd)}"]
        if odd
        else []
    )
    flat = sorted(set(class_names).difference(*classes_of.values()))
    beside = {
        name: n
        for name in class_names
        if name not in flat and (n := sum(len(inside[file].parts) == 1 for file in found[name]))
    }
    fix = "put the clips of one recording into a folder of their own below the class"
    if flat:
        where = "" if len(flat) == len(class_names) else f" in {abbreviate_list(flat)}"
        notes.append(no_groups_note(fix, where))
    if beside:
        notes.append(
            f"{sum(beside.values())} of {sum(len(found[name]) for name in beside)} clips in {abbreviate_list(sorted(beside))} lie in no folder "
            f"of a recording: each counts as its own ({fix})"
        )
    if unread:
        notes.append(
            f"{_of_kinds(unread)} passed over, for usk does not read them; convert them, for example to FLAC"
        )
    if lost := [
        name
        for name, inner in below.items()
        if not found[name] and any(f.suffix.lower() in UNREAD_SUFFIXES for f in inner)
    ]:
        notes.append(
            f"{abbreviate_list(lost)}: no class, for usk reads none of {'its' if len(lost) == 1 else 'their'} files"
        )
    if loose := _loose_audio(path):
        notes.append(
            f"{loose} audio file{'s' if loose > 1 else ''} beside the class folders passed over: a clip's class is its folder"
        )
    if len(class_names) == 1:
        notes.append(
            f"one class, {class_names[0]}: classes are the folders directly below {typed}; if those are deeper, name the folder "
            "that holds them"
        )
    if shared:
        notes.append(
            f"recording folders that several classes have ({abbreviate_list(sorted(shared))}) count as one recording each, which is never on "
            "both sides of a split; give them other names if they are not"
        )
    return with_folds(
        Source(
            name=name,
            kind="class folders",
            location=typed,
            revision=revision,
            cache_key=cache_key,
            class_names=class_names,
            clips=tuple(clips),
            audio=tuple(FileRef(file) for file in files),
            notes=tuple(notes),
            has_groups=not flat and 2 * sum(beside.values()) <= len(files),
        )
    )


def _of_kinds(unread: Mapping[str, int]) -> str:
    """`3 files (.m4a, .wma) are`"""
    n = sum(unread.values())
    return f"{n} file{'s' if n > 1 else ''} ({', '.join(sorted(unread))}) {'are' if n > 1 else 'is'}"


def _loose_audio(path: Path) -> int:
    """Audio files in no folder of a class."""
    return sum(
        entry.suffix.lower() in AUDIO_SUFFIXES and entry.is_file() and not entry.name.startswith(".")
        for entry in path.iterdir()
    )


def _why_no_classes(path: Path, folders: Sequence[Path], unread: Mapping[str, int]) -> str:
    if datasets := [folder.name for folder in folders if (folder / MANIFEST_FILE).is_file()]:
        return f"it holds {len(datasets)} datasets ({abbreviate_list(datasets)}), of which one can be named"
    if parquet := sorted({file.relative_to(path).parts[0] for file in path.glob("*/**/*.parquet")}):
        return f"it has Parquet files in sub-folders ({abbreviate_list(parquet)}), of which one can be named"
    if (path / "fit.json").is_file():
        return "it is a generator that is not finished (run the same `usk fit` again and it goes on where it stopped)"
    if unread:
        return f"{_of_kinds(unread)} all that it has, and usk does not read them (convert them, for example to FLAC)"
    if loose := _loose_audio(path):
        return f"its {loose} audio files need a folder for each class"
    return "it has no audio files in sub-folders (UrbanSound8K needs metadata/UrbanSound8K.csv)"
