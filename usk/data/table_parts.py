"""Several tables of one folder: rows that say the same again, and the publisher's parts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from usk.data.checks import is_missing
from usk.data.find import FileFinder, OutsideError
from usk.data.segments import time_columns
from usk.errors import SourceError
from usk.text import abbreviate_list, pluralize

if TYPE_CHECKING:
    from usk.data.clip_tables import Listing
    from usk.data.columns import Columns

TRAINING = re.compile(r"train|dev", re.IGNORECASE)
TESTING = re.compile(r"test|eval|val", re.IGNORECASE)


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
