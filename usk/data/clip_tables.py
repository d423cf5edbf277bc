"""Open folders whose clips a table lists: choose the tables, find their column of file names, and turn their rows into clips."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from usk.data.audio_file import FileRef
from usk.data.checks import is_missing
from usk.data.columns import (
    FOLD_COLUMNS,
    SPLIT_COLUMNS,
    Columns,
    find_columns,
    from_columns,
    label_column_of,
)
from usk.data.find import AudioFolder, FileFinder, OutsideError, are_parts
from usk.data.fingerprint import fingerprint_files
from usk.data.listing import FILE_COLUMN, TEXT_SUFFIXES, ClipTable, has_audio_suffix, read_table
from usk.data.segments import cut_segments, read_label_files
from usk.data.source import Source, skip_missing_files
from usk.data.table_parts import (
    STANDARD,
    Listing,
    listed_parts,
    parts_by_folder,
    parts_with_classes,
    without_repeats,
)
from usk.errors import SourceError, UsageError
from usk.text import abbreviate_list, pluralize

FILE_COLUMNS = (
    "file_name", "filename", "file", "path", "file_path", "filepath", "fname", "audio", "audio_path",
    "audio_file", "audio_filename", "wav", "wav_path", "clip", "slice_file_name", "clip_id", "id", "name",
)  # fmt: skip
NOT_CLIP_TABLES = ("sample_submission", "error", "requirements", "readme", "license")
MAX_DEEP_TABLES = 50  # more than one folder down: if there are more, they are not lists of clips
ROWS_LOOKED_AT = 200  # to find the column of file names


@dataclass(frozen=True)
class ChosenTables:
    listings: tuple[Listing, ...]  # empty: the folders are the classes
    notes: tuple[str, ...]
    others: tuple[Listing, ...] = ()  # tables that list the same clips, or name the parts of class folders


def choose_tables(folder: AudioFolder, columns: Columns) -> ChosenTables:
    """Choose the tables that list the clips of `folder`.

    These are `metadata.csv` and those of its parts, else other tables in the folder, else tables in sub-folders (`meta/`). None
    is chosen if the folders are classes and no table has other labels.
    """
    listings, notes = _read_listings(folder, columns)
    classes = folder.top_folders if len(folder.top_folders) > 1 and not are_parts(folder.top_folders) else []
    found = [listing for listing in listings if listing.hits]
    standard = [listing for listing in found if listing.file.stem == STANDARD]
    chosen = standard or _choose_highest(found, folder.finder)
    if not chosen:
        return _choose_without_files(folder, listings, bool(classes), notes)
    labeled = [listing for listing in chosen if listing.label_column(columns, guess=not classes) is not None]
    left_out = _lists_without_labels(chosen, labeled, folder.finder)
    if left_out:
        notes.append(f"{_names(left_out)}: no column of labels, so its clips are left out")
    chosen = labeled or chosen
    others = tuple(listing for listing in found if listing not in (*chosen, *left_out))
    if not classes:
        return ChosenTables(tuple(chosen), tuple(notes), others)
    labels = _labels_in(labeled, columns)
    lists_most = 2 * sum(len(listing.names) for listing in chosen) >= len(folder.audio)
    if labeled and (standard or (len(labels) > 1 and lists_most)):
        if labels != set(classes):
            notes.append(
                f"the classes are those of {_names(chosen)} ({abbreviate_list(sorted(labels))}), not the folders {abbreviate_list(classes)}"
            )
        return ChosenTables(tuple(chosen), tuple(notes), others)
    if not labeled and any(listing.names_part for listing in chosen):
        return ChosenTables((), tuple(notes), tuple(chosen))
    why = "it has one label" if labels else "it has no column of labels that is known by its name"
    notes.append(f"{_names(chosen)} is passed over and the folders are the classes, since {why}")
    return ChosenTables((), tuple(notes))


def _choose_without_files(
    folder: AudioFolder, listings: Sequence[Listing], are_classes: bool, notes: list[str]
) -> ChosenTables:
    """Choose where no table names an existing file: a table, so that opening it reports the files, or one made of other files."""
    missing = [listing for listing in listings if listing.file.stem == STANDARD or not are_classes]
    if not missing and (made := _make_listing(folder, are_classes, notes)) is not None:
        return ChosenTables((made,), tuple(notes))
    return ChosenTables(tuple(missing[:1]), (*notes, *_unused_files(folder)))


def _lists_without_labels(
    chosen: Sequence[Listing], labeled: Sequence[Listing], finder: FileFinder
) -> list[Listing]:
    """Return the tables that have no labels and list clips which the tables with labels do not list."""
    if not labeled:
        return []
    listed = {file for listing in labeled for file in listing.files(finder)}
    rest = [listing for listing in chosen if listing not in labeled]
    return [listing for listing in rest if not listed.issuperset(listing.files(finder))]


def _labels_in(listings: Sequence[Listing], columns: Columns) -> set[str]:
    """Return the labels in columns that are known by their names."""
    values = (
        label
        for listing in listings
        for label in listing.table[label_column_of(listing.table, columns) or ""]
    )
    return {str(label) for label in values if not is_missing(label)}


def _names(listings: Sequence[Listing]) -> str:
    return abbreviate_list([str(listing.file) for listing in listings])


def _choose_highest(found: Sequence[Listing], finder: FileFinder) -> list[Listing]:
    """Return the tables of the highest level, and deeper ones that list other files."""
    chosen: list[Listing] = []
    listed: set[str | None] = {None}
    for depth in sorted({len(listing.file.parts) for listing in found}):
        level = [listing for listing in found if len(listing.file.parts) == depth]
        new = [listing for listing in level if not chosen or not listed.issuperset(listing.files(finder))]
        chosen += new
        listed.update(*(listing.files(finder) for listing in new))
    return chosen


def _make_listing(folder: AudioFolder, are_classes: bool, notes: list[str]) -> Listing | None:
    """Make a table from label files beside the sounds, or from folders of parts and classes, if there are such."""
    parts = parts_with_classes(folder)
    if folder.tables and (label_files := read_label_files(folder)) is not None:
        table, files = label_files
        names = abbreviate_list([str(file) for file in files])
        labels = set(table["label"])
        if not (are_classes or parts) or labels <= {part for file in folder.audio for part in file.parts}:
            notes.append(f"the labels are those of {names}")
            return Listing(PurePosixPath("."), table, FILE_COLUMN, 1, files)
        notes.append(
            f"{names} are not used: the classes are folders, and these files have other labels ({abbreviate_list(sorted(labels))})"
        )
    if parts is None:
        return None
    listing, note = parts
    notes.append(note)
    return listing


def _unused_files(folder: AudioFolder) -> list[str]:
    """Return notes on archives, spreadsheets, and the first table that names no file."""
    notes = []
    if folder.ignored:
        names = abbreviate_list([str(file) for file in folder.ignored])
        notes.append(f"not read: {names}; unpack archives, and save tables as CSV")
    tables = [file for file in _clip_tables(folder) if file.suffix.lower() != ".txt"]
    for file in tables[:1]:
        with contextlib.suppress(SourceError):
            row = [str(values[0])[:40] for values in read_table(folder.root / file).values() if values]
            more = f" (and {len(tables) - 1} more)" if len(tables) > 1 else ""
            notes.append(
                f"passed over: {file}{more}; no column of it names the audio files, and its first row is {', '.join(row[:8])}"
            )
    return notes


def _clip_tables(folder: AudioFolder) -> list[PurePosixPath]:
    """Return the tables that may list clips. A table with the name of a sound beside it does not."""
    sounds = {file.with_suffix("") for file in folder.audio} if folder.tables else set()
    tables = [
        file
        for file in folder.tables
        if file.with_suffix("") not in sounds and not file.stem.lower().startswith(NOT_CLIP_TABLES)
    ]
    deep = [file for file in tables if len(file.parts) > 2]
    return tables if len(deep) <= MAX_DEEP_TABLES else [file for file in tables if file not in deep]


def _read_listings(folder: AudioFolder, columns: Columns) -> tuple[list[Listing], list[str]]:
    """Return the tables with a column of file names, and notes. Raise UsageError if none has the column that the user named."""
    listings, notes = [], []
    for file in _clip_tables(folder):
        table_notes: list[str] = []
        try:
            table = read_table(folder.root / file, table_notes)
        except SourceError as error:
            if file.stem == STANDARD:
                raise
            if file.suffix in TEXT_SUFFIXES[:2]:  # other suffixes do not promise a table
                notes.append(f"passed over: {error.message}")
            continue
        place = "" if len(file.parts) == 1 else file.parent.as_posix()
        if (found := _file_column(table, folder.finder, place, columns.audio)) is not None:
            listings.append(Listing(file, table, *found))
            notes += table_notes
    if columns.audio is not None and not listings:
        message = f"no table in {folder.root} has such a column"
        raise UsageError(message, field="audio_column", value=columns.audio)
    return listings, notes


def _file_column(
    table: ClipTable, finder: FileFinder, place: str, given: str | None
) -> tuple[str, int] | None:
    """Return the column of file names, and how many of its first values name an existing file; or None.

    It is the column that the user named; else one with a usual name that names files; else another one that does; else one with
    a usual name whose files are missing.
    """

    def count_hits(column: str) -> int:
        values = [str(value) for value in table[column][:ROWS_LOOKED_AT] if isinstance(value, str | int)]
        return sum(_names_file(finder, value, place) for value in values if value)

    def has_audio_names(column: str) -> bool:
        return any(map(has_audio_suffix, table[column][:ROWS_LOOKED_AT]))

    def are_numbers(column: str) -> bool:  # which files may be called by chance
        return all(str(value).replace(".", "", 1).isdecimal() for value in table[column][:ROWS_LOOKED_AT])

    if given is not None:
        return (given, count_hits(given)) if given in table else None
    usual = find_columns(table, FILE_COLUMNS)
    hits = {column: count_hits(column) for column in usual}
    best = max(usual, key=lambda column: hits[column], default="")
    if best and hits[best]:
        return best, hits[best]
    n_rows = min(ROWS_LOOKED_AT, max(map(len, table.values()), default=0))
    others = []
    for column in table:
        n_hits = 0 if column in usual else count_hits(column)
        are_names = has_audio_names(column) or (n_hits > 0.9 * n_rows and not are_numbers(column))
        if n_hits and 2 * n_hits >= n_rows and are_names:
            others.append((n_hits, column))
    if others:
        n_hits, column = max(others)
        return column, n_hits
    missing = [column for column in usual if has_audio_names(column)]
    return (missing[0], 0) if missing else None


def _names_file(finder: FileFinder, name: str, place: str) -> bool:
    try:
        return bool(finder.candidates(name, place))
    except OutsideError:
        return has_audio_suffix(name)


def open_listed(
    folder: AudioFolder, location: str, skip_bad: bool, columns: Columns, chosen: ChosenTables
) -> Source:
    """Return the clips that the chosen tables list."""
    finder = folder.finder
    listings, repeat_notes = without_repeats(chosen.listings, finder, columns, location)
    data, files = _join_tables(listings, finder, columns, location)
    parts, part_notes = listed_parts(chosen.others, files, finder)
    if not find_columns(data, SPLIT_COLUMNS):
        if not parts and not find_columns(data, FOLD_COLUMNS):
            parts = parts_by_folder(files)
        if parts:
            data["split"] = parts
    if columns.label is None and label_column_of(data, columns) is None:
        columns = replace(columns, label=listings[0].only_other_column())
    kept, missing_notes = skip_missing_files(
        [name for listing in listings for name in listing.names],
        [file is not None for file in files],
        location,
        skip_bad,
        lambda missing: _where_looked(missing, listings, finder),
    )
    notes = [*chosen.notes, *repeat_notes, *part_notes, *missing_notes]
    listed = {file for file in files if file is not None}
    unlisted = [str(file) for file in folder.audio if str(file) not in listed]
    if unlisted:
        notes.append(
            f"left out {pluralize(len(unlisted), 'audio file')} that no table lists ({abbreviate_list(unlisted)})"
        )
    data = {name: [values[row] for row in kept] for name, values in data.items()}
    data[FILE_COLUMN] = [str(files[row]) for row in kept]
    paths = [folder.root / name for name in data[FILE_COLUMN]]
    tables = [listing.file for listing in listings if listing.file.name]
    label_files = [file for listing in listings for file in listing.label_files]
    all_files = [*dict.fromkeys(paths), *(folder.root / file for file in (*tables, *label_files))]
    revision, cache_key, _ = fingerprint_files(all_files, folder.root)
    data, refs, segment_notes = cut_segments(data, paths)
    data, audio, clip_notes = _drop_repeated_clips(data, refs, label_column_of(data, columns), location)
    name = folder.root.resolve().name
    opened = Source(
        name, "files listed in a table", location, revision, cache_key, (), (), tuple(audio),
        notes=(*notes, *segment_notes, *clip_notes),
    )  # fmt: skip
    return from_columns(data, {}, opened, columns)


def _join_tables(
    listings: Sequence[Listing], finder: FileFinder, columns: Columns, location: str
) -> tuple[ClipTable, list[str | None]]:
    """Join the rows of tables, without their columns of file names. Return the joined table and each row's file.

    A column `split` names the table of each row if there are several. Labels come into one column.
    """
    data: ClipTable = {}
    files: list[str | None] = []
    label_columns = [listing.label_column(columns, guess=True) for listing in listings]
    joined_label = next(filter(None, label_columns), "")
    for listing, label_column in zip(listings, label_columns, strict=True):
        names = listing.names
        try:
            found = finder.find_all(names, listing.place, f"{listing.part} {listing.place}")
        except OutsideError as error:
            message = (
                f"{location}: {listing.file}: the path {error} leads out of the folder; name files below it"
            )
            raise SourceError(message) from error
        except ValueError as error:
            message = f"{location}: {listing.file}: {error}"
            raise SourceError(message, hint="Write the folder in front of the names.") from error
        table: ClipTable = {}
        for name, values in listing.table.items():
            if name == label_column and joined_label not in listing.table:
                table[joined_label] = values
            elif name != listing.column or name in ("slice_file_name", "clip_id"):
                table[name] = values
        if len(listings) > 1:
            table.setdefault("split", [listing.part] * len(names))
        for name in {**data, **table}:
            data.setdefault(name, [None] * len(files)).extend(table.get(name, [None] * len(names)))
        files += found
    return data, files


def _where_looked(missing: Sequence[str], listings: Sequence[Listing], finder: FileFinder) -> str:
    """Return the end of a message about missing files: where they were looked for, and a file with a similar name."""
    where = f", which {_names(listings)} names, looked for in {finder.root} and below"
    nearest = next(filter(None, map(finder.nearest, missing[:20])), "")
    return f"{where}; the nearest that is there is {nearest}" if nearest else where


def _drop_repeated_clips(
    data: ClipTable, refs: Sequence[FileRef], label_column: str | None, location: str
) -> tuple[ClipTable, list[FileRef], list[str]]:
    """Drop rows that repeat a clip, and segments with two labels. Return the rows, their files, and notes.

    Raise SourceError if a whole file has two labels.
    """
    first_row: dict[FileRef, int] = {}
    ambiguous: set[FileRef] = set()
    for row, ref in enumerate(refs):
        first = first_row.setdefault(ref, row)
        labels = [None, None] if label_column is None else [data[label_column][i] for i in (first, row)]
        if str(labels[0]) == str(labels[1]):
            continue
        ambiguous.add(ref)
        if ref.segment_s is None:
            message = f"{location}: {data[FILE_COLUMN][row]} has two labels: {labels[0]} in row {first + 1} and {labels[1]} in row {row + 1}"
            hint = "A clip has one label: leave one of the rows out."
            raise SourceError(message, field="label_column", value=label_column, hint=hint)
    notes = []
    if ambiguous:
        names = sorted({ref.path.name for ref in ambiguous})
        n = sum(ref in ambiguous for ref in refs)
        notes.append(
            f"left out {pluralize(n, 'row')} whose segment has two labels ({abbreviate_list(names)})"
        )
    kept = [row for ref, row in first_row.items() if ref not in ambiguous]
    repeated = Counter(ref for ref in refs if ref not in ambiguous) - Counter(refs[row] for row in kept)
    if repeated:
        names = [ref.path.name for ref in repeated]
        notes.append(
            f"left out {pluralize(repeated.total(), 'row')} that repeat a file ({abbreviate_list(names)})"
        )
    kept_data = {name: [values[row] for row in kept] for name, values in data.items()}
    return kept_data, [refs[row] for row in kept], notes
