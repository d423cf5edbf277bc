"""Several tables of one folder: rows that say the same again, and the publisher's parts."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

from usk.data.checks import is_missing
from usk.data.columns import GROUP_COLUMNS, SPLIT_COLUMNS, Columns, label_column_of
from usk.data.find import PARTS, AudioFolder, FileFinder, OutsideError, name_parts
from usk.data.listing import FILE_COLUMN, ClipTable
from usk.data.segments import time_columns
from usk.errors import SourceError
from usk.text import abbreviate_list, pluralize

STANDARD = "metadata"  # what Hugging Face's audiofolder calls its table
TRAINING = re.compile(r"train|dev", re.IGNORECASE)
TESTING = re.compile(r"test|eval|val", re.IGNORECASE)
PART_FOLDER = re.compile(rf"{TRAINING.pattern}|{TESTING.pattern}|(fold|split|part|subset).?\d", re.IGNORECASE)


@dataclass(frozen=True)
class Listing:
    """A table that lists clips, where it lies in its folder, and its column of file names."""

    file: PurePosixPath
    table: ClipTable
    column: str
    hits: int  # of the first rows: how many name a file that is there
    beside: tuple[PurePosixPath, ...] = ()  # files of labels that it is made of

    @property
    def place(self) -> str:
        return "" if self.file.parent == PurePosixPath(".") else self.file.parent.as_posix()

    @property
    def part(self) -> str:
        """What it calls its part of the data set: `train` of `train/metadata.csv` and of `train.csv`."""
        return self.place if self.place and self.file.stem == STANDARD else self.file.stem

    @property
    def names(self) -> list[str]:
        return ["" if is_missing(name) else str(name) for name in self.table[self.column]]

    def label_column(self, columns: Columns, guess: bool) -> str | None:
        """The column of labels: as named, as it is called, or (`guess`) the only one beside the file names."""
        return label_column_of(self.table, columns) or (only_other_column(self) if guess else None)


def only_other_column(listing: Listing) -> str | None:
    """The column of labels of a table that has just it and the file names."""
    known = {listing.column, *time_columns(listing.table)}
    known |= {
        name
        for name in listing.table
        if name.lower() in {*SPLIT_COLUMNS, *map(str.lower, GROUP_COLUMNS), "fold"}
    }
    others = [name for name in listing.table if name not in known]
    if len(others) != 1:
        return None
    values = [str(value) for value in listing.table[others[0]]]
    return others[0] if len(set(values)) < len(values) else None


def says_part(listing: Listing) -> bool:
    """Whether it is called like a part of the data set."""
    return bool(TESTING.search(listing.part) or TRAINING.search(listing.part))


def without_repeats(
    listings: Sequence[Listing], finder: FileFinder, columns: Columns, typed: str
) -> tuple[list[Listing], list[str]]:
    """Tables without the rows whose file a table before them lists under the same label, and what to say of it.

    Raises SourceError where a file has another label there.
    """
    first: dict[tuple[Any, ...], tuple[Listing, Any]] = {}
    kept, notes = [], []
    for listing in listings:
        label = listing.label_column(columns, guess=True)
        labels = listing.table[label] if label is not None else [None] * len(listing.names)
        times = [listing.table[name] for name in time_columns(listing.table)]
        rows = []
        for row, (file, value) in enumerate(zip(files_of(listing, finder), labels, strict=True)):
            clip = (file, *(column[row] for column in times))
            before, known = first.setdefault(clip, (listing, value)) if file else (listing, value)
            if before is listing:
                rows.append(row)
            elif known != value:
                raise SourceError(
                    f"{typed}: {file} is {known} in {before.file} and {value} in {listing.file}",
                    hint="Keep one of these tables, or call the one that counts metadata.csv.",
                )
        if left := len(labels) - len(rows):
            notes.append(
                f"left out {pluralize(left, 'row')} of {listing.file}, whose files other tables list"
            )
        if rows or not left:
            table = {name: [values[row] for row in rows] for name, values in listing.table.items()}
            kept.append(replace(listing, table=table) if left else listing)
    return kept, notes


def files_of(listing: Listing, finder: FileFinder) -> list[str | None]:
    """The file of each row as far as its name means one."""
    found: list[str | None] = []
    for name in listing.names:
        try:
            files = [] if is_missing(name) else finder.candidates(name, listing.place)
        except OutsideError:
            files = []
        found.append(files[0] if len(files) == 1 else None)
    return found


def listed_parts(
    others: Sequence[Listing], files: Sequence[str | None], finder: FileFinder
) -> tuple[list[str], list[str]]:
    """The publisher's part of each of `files`, by tables that list them again (DCASE's `evaluation_setup/fold1_train.csv`), none where these
    say no parts; and what is said of tables that are not used."""
    testing = [listing for listing in others if TESTING.search(listing.part)]
    training = [listing for listing in others if TRAINING.search(listing.part) and listing not in testing]
    part_of: dict[str | None, str] = {}
    for listing in testing or training:
        for file in files_of(listing, finder):
            part_of.setdefault(file, listing.part)
    parts = [part_of.get(file, "train" if testing else "test") for file in files]
    if len(set(parts)) > 1:
        return parts, []
    names = [listing.file.as_posix() for listing in others]
    return [], [f"passed over: {abbreviate_list(names)}, which another table makes needless"] if names else []


def parts_by_folder(files: Sequence[str | None]) -> list[str]:
    """The publisher's part of each file where the folders that tell them apart are called like parts, else none."""
    found = [PurePosixPath(file) for file in files if file is not None]
    places = {file.parent.as_posix() for file in found}
    depth = len(PurePosixPath(posixpath.commonpath(places)).parts) if len(places) > 1 else 0
    if len(places) < 2 or any(len(file.parts) < depth + 2 for file in found):
        return []
    tops = sorted({file.parts[depth] for file in found})
    if not name_parts(tops) or not all(PART_FOLDER.search(top) for top in tops):
        return []
    return ["" if file is None else PurePosixPath(file).parts[depth] for file in files]


def parts_with_classes(folder: AudioFolder) -> tuple[Listing, str] | None:
    """Folders of parts that have the same classes below (`train/dog`, `test/dog`), or that all classes have below, as a table would list
    them, and what to say."""
    files = folder.audio
    for part, label in ((0, 1), (1, 0)) if files and all(len(file.parts) > 2 for file in files) else ():
        parts = sorted({file.parts[part] for file in files})
        below = [{file.parts[label] for file in files if file.parts[part] == one} for one in parts]
        shared = sorted(set.intersection(*below))
        are_parts = (
            len(parts) > 1 and name_parts(parts)
            if part == 0
            else len(parts) > 1 and all(map(PARTS.fullmatch, map(str.lower, parts)))
        )
        if not are_parts or len(shared) < 2 or name_parts(shared):
            continue
        column = (
            "fold" if all(re.fullmatch(r"fold[-_ ]?\d+", one, re.IGNORECASE) for one in parts) else "split"
        )
        table: ClipTable = {
            FILE_COLUMN: [str(file) for file in files],
            "label": [file.parts[label] for file in files],
            column: [file.parts[part] for file in files],
        }
        said = (
            f"the classes are the folders below {abbreviate_list(parts)}"
            if part == 0
            else f"the folders {abbreviate_list(parts)} of the classes are parts"
        )
        return Listing(PurePosixPath("."), table, FILE_COLUMN, len(files)), said
    return None
