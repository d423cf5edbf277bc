"""Combine several tables of one folder: drop rows that repeat a file, and find the publisher's parts (train, test)."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

from usk.data.checks import is_missing
from usk.data.columns import GROUP_COLUMNS, SPLIT_COLUMNS, Columns, find_columns, label_column_of
from usk.data.find import PARTS, AudioFolder, FileFinder, OutsideError, are_parts
from usk.data.listing import FILE_COLUMN, ClipTable
from usk.data.segments import time_columns
from usk.errors import SourceError
from usk.text import abbreviate_list, pluralize

STANDARD = "metadata"  # the table's name in Hugging Face's audiofolder
TRAINING = re.compile(r"train|dev", re.IGNORECASE)
TESTING = re.compile(r"test|eval|val", re.IGNORECASE)
PART_FOLDER = re.compile(rf"{TRAINING.pattern}|{TESTING.pattern}|(fold|split|part|subset).?\d", re.IGNORECASE)


@dataclass(frozen=True)
class Listing:
    """A table that lists clips. Its path is relative to the folder."""

    file: PurePosixPath
    table: ClipTable
    column: str  # of file names
    hits: int  # number of existing files that the first rows name
    label_files: tuple[PurePosixPath, ...] = ()  # the files that the table was made from

    @property
    def place(self) -> str:
        """The folder of the table, "" for the folder itself."""
        return "" if self.file.parent == PurePosixPath(".") else self.file.parent.as_posix()

    @property
    def part(self) -> str:
        """The name of its part of the dataset: `train` for `train/metadata.csv` and for `train.csv`."""
        return self.place if self.place and self.file.stem == STANDARD else self.file.stem

    @property
    def names_part(self) -> bool:
        return bool(TESTING.search(self.part) or TRAINING.search(self.part))

    @property
    def names(self) -> list[str]:
        """The file name in each row, "" if there is none."""
        return ["" if is_missing(name) else str(name) for name in self.table[self.column]]

    def label_column(self, columns: Columns, guess: bool) -> str | None:
        """Return the column of labels: named by the user, with a usual name, or (`guess`) the only one left."""
        return label_column_of(self.table, columns) or (self.only_other_column() if guess else None)

    def only_other_column(self) -> str | None:
        """Return the only column besides file names, times, parts, recordings and folds, if its values repeat."""
        known = {self.column, *time_columns(self.table)}
        known.update(find_columns(self.table, (*SPLIT_COLUMNS, *GROUP_COLUMNS, "fold")))
        others = [name for name in self.table if name not in known]
        if len(others) != 1:
            return None
        values = [str(value) for value in self.table[others[0]]]
        return others[0] if len(set(values)) < len(values) else None

    def files(self, finder: FileFinder) -> list[str | None]:
        """Return the file of each row, or None if its name means none or several."""
        found: list[str | None] = []
        for name in self.names:
            try:
                files = finder.candidates(name, self.place) if name else []
            except OutsideError:
                files = []
            found.append(files[0] if len(files) == 1 else None)
        return found


def without_repeats(
    listings: Sequence[Listing], finder: FileFinder, columns: Columns, location: str
) -> tuple[list[Listing], list[str]]:
    """Drop rows whose file an earlier table lists with the same label. Return the tables and notes.

    Raise SourceError if two tables give a file different labels.
    """
    first: dict[tuple[Any, ...], tuple[Listing, Any]] = {}
    kept, notes = [], []
    for listing in listings:
        label_column = listing.label_column(columns, guess=True)
        labels = [None] * len(listing.names) if label_column is None else listing.table[label_column]
        times = [listing.table[name] for name in time_columns(listing.table)]
        rows = []
        for row, (file, label) in enumerate(zip(listing.files(finder), labels, strict=True)):
            clip = (file, *(column[row] for column in times))
            earlier, known = first.setdefault(clip, (listing, label)) if file else (listing, label)
            if earlier is listing:
                rows.append(row)
            elif known != label:
                message = f"{location}: {file} is {known} in {earlier.file} and {label} in {listing.file}"
                hint = "Keep one of these tables, or call the one that counts metadata.csv."
                raise SourceError(message, hint=hint)
        n_dropped = len(labels) - len(rows)
        if not n_dropped:
            kept.append(listing)
            continue
        notes.append(
            f"left out {pluralize(n_dropped, 'row')} of {listing.file}, whose files other tables list"
        )
        if rows:
            table = {name: [values[row] for row in rows] for name, values in listing.table.items()}
            kept.append(replace(listing, table=table))
    return kept, notes


def listed_parts(
    others: Sequence[Listing], files: Sequence[str | None], finder: FileFinder
) -> tuple[list[str], list[str]]:
    """Return the part of each of `files` from tables that list them again (DCASE's `evaluation_setup/fold1_train.csv`), and notes.

    The parts are [] if these tables are not parts. A note then says that they are not used.
    """
    testing = [listing for listing in others if TESTING.search(listing.part)]
    training = [listing for listing in others if TRAINING.search(listing.part)]
    part_of: dict[str | None, str] = {}
    for listing in testing or training:
        for file in listing.files(finder):
            part_of.setdefault(file, listing.part)
    parts = [part_of.get(file, "train" if testing else "test") for file in files]
    if len(set(parts)) > 1:
        return parts, []
    names = [listing.file.as_posix() for listing in others]
    return [], [f"passed over: {abbreviate_list(names)}; another table lists the same clips"] if names else []


def parts_by_folder(files: Sequence[str | None]) -> list[str]:
    """Return the part of each file if the folders below their common folder are named like parts, else []."""
    paths = [PurePosixPath(file) for file in files if file is not None]
    folders = {path.parent.as_posix() for path in paths}
    depth = len(PurePosixPath(posixpath.commonpath(folders)).parts) if len(folders) > 1 else 0
    if len(folders) < 2 or any(len(path.parts) < depth + 2 for path in paths):
        return []
    parts = sorted({path.parts[depth] for path in paths})
    if not are_parts(parts) or not all(PART_FOLDER.search(part) for part in parts):
        return []
    return ["" if file is None else PurePosixPath(file).parts[depth] for file in files]


def parts_with_classes(folder: AudioFolder) -> tuple[Listing, str] | None:
    """Return a table of the files, and a note, if the folders are parts and classes: `train/dog/1.wav` or `dog/train/1.wav`."""
    files = folder.audio
    if not files or any(len(file.parts) < 3 for file in files):
        return None
    for part_level, class_level in ((0, 1), (1, 0)):
        parts = sorted({file.parts[part_level] for file in files})
        classes_of = [
            {file.parts[class_level] for file in files if file.parts[part_level] == part} for part in parts
        ]
        shared_classes = sorted(set.intersection(*classes_of))
        if len(parts) < 2 or len(shared_classes) < 2 or are_parts(shared_classes):
            continue
        if part_level == 0 and are_parts(parts):
            note = f"the classes are the folders below {abbreviate_list(parts)}"
        elif part_level == 1 and all(PARTS.fullmatch(part.lower()) for part in parts):
            note = f"the folders {abbreviate_list(parts)} of the classes are parts"
        else:
            continue
        are_folds = all(re.fullmatch(r"fold[-_ ]?\d+", part, re.IGNORECASE) for part in parts)
        table: ClipTable = {
            FILE_COLUMN: [str(file) for file in files],
            "label": [file.parts[class_level] for file in files],
            "fold" if are_folds else "split": [file.parts[part_level] for file in files],
        }
        return Listing(PurePosixPath("."), table, FILE_COLUMN, len(files)), note
    return None
