"""Folders whose clips a table lists: which table, which of its columns names the files, and its rows as clips."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

from usk.data.audio_file import FileRef
from usk.data.checks import is_missing
from usk.data.columns import FOLD_COLUMNS, SPLIT_COLUMNS, Columns, from_columns, label_column_of
from usk.data.find import AudioFolder, FileFinder, OutsideError, looks_like_audio, name_parts
from usk.data.fingerprint import fingerprint_files
from usk.data.listing import FILE_COLUMN, TEXT_SUFFIXES, ClipTable, read_table
from usk.data.segments import cut_segments, labels_beside
from usk.data.source import Source
from usk.data.table_parts import (
    STANDARD,
    Listing,
    files_of,
    listed_parts,
    only_other_column,
    parts_by_folder,
    parts_with_classes,
    says_part,
    without_repeats,
)
from usk.errors import SourceError, UsageError
from usk.text import abbreviate_list, pluralize

FILE_COLUMNS = (
    "file_name", "filename", "file", "path", "file_path", "filepath", "fname", "audio", "audio_path",
    "audio_file", "audio_filename", "wav", "wav_path", "clip", "slice_file_name", "clip_id", "id", "name",
)  # fmt: skip
PASSED_OVER = ("sample_submission", "error", "requirements", "readme", "license")
MOST_DEEP = 50  # tables more than one folder down: more of them are not lists of clips
LOOKED_AT = 200  # rows, to find out which column names files


@dataclass(frozen=True)
class ChosenTables:
    listings: tuple[Listing, ...]
    notes: tuple[str, ...]
    others: tuple[Listing, ...] = ()  # that list clips as well, or say the parts of class folders


def choose_tables(folder: AudioFolder, columns: Columns) -> ChosenTables:
    """The tables that list the clips of `folder`, none where its folders are classes and no table says otherwise: its `metadata.csv` and
    those of its parts, else the other tables in it, else those in its sub-folders (`meta/`)."""
    finder = folder.finder
    listings, notes = _listings(folder, columns)
    classes = folder.tops if len(folder.tops) > 1 and not name_parts(folder.tops) else []
    found = [listing for listing in listings if listing.hits]
    standard = [listing for listing in found if listing.file.stem == STANDARD]
    chosen = standard or _uppermost(found, finder)
    if not chosen:
        lost = [listing for listing in listings if listing.file.stem == STANDARD or not classes]
        if not lost and (made := _made_listing(folder, bool(classes), notes)) is not None:
            return ChosenTables((made,), tuple(notes))
        notes += _unused(folder)
        return ChosenTables(tuple(lost[:1]), tuple(notes))
    labeled = [listing for listing in chosen if listing.label_column(columns, guess=not classes) is not None]
    without: list[str] = []
    if labeled and len(labeled) < len(chosen):
        listed = {file for listing in labeled for file in files_of(listing, finder)}
        without = [
            listing.file.as_posix()
            for listing in chosen
            if listing not in labeled and not listed.issuperset(files_of(listing, finder))
        ]
        if without:
            notes.append(f"{abbreviate_list(without)}: no column of labels, so its clips are left out")
        chosen = labeled
    others = tuple(
        listing for listing in found if listing not in chosen and listing.file.as_posix() not in without
    )
    if not classes:
        return ChosenTables(tuple(chosen), tuple(notes), others)
    names = abbreviate_list([listing.file.as_posix() for listing in chosen])
    labels = {
        str(label)
        for listing in labeled
        for label in listing.table[label_column_of(listing.table, columns) or ""]
        if not is_missing(label)
    }
    covers = 2 * sum(len(listing.names) for listing in chosen) >= len(folder.audio)
    if labeled and (standard or (len(labels) > 1 and covers)):
        if labels != set(classes):
            notes.append(
                f"the classes are those of {names} ({abbreviate_list(sorted(labels))}), not the folders {abbreviate_list(classes)}"
            )
        return ChosenTables(tuple(chosen), tuple(notes), others)
    if not labeled and any(map(says_part, chosen)):
        return ChosenTables((), tuple(notes), tuple(chosen))
    why = "it has one label" if labels else "it has no column of labels that is known by its name"
    notes.append(f"{names} is passed over and the folders are the classes, since {why}")
    return ChosenTables((), tuple(notes))


def _uppermost(found: Sequence[Listing], finder: FileFinder) -> list[Listing]:
    """The tables that lie highest, and those below them that list other files."""
    chosen: list[Listing] = []
    listed: set[str | None] = set()
    for depth in sorted({len(listing.file.parts) for listing in found}):
        new = [(one, files_of(one, finder)) for one in found if len(one.file.parts) == depth]
        new = [(one, files) for one, files in new if not chosen or not listed.issuperset(files)]
        chosen += [one for one, _ in new]
        listed.update([None], *(files for _, files in new))
    return chosen


def _made_listing(folder: AudioFolder, are_classes: bool, notes: list[str]) -> Listing | None:
    """The table that files of labels beside the sounds, or folders of parts with classes below, come to."""
    parts = parts_with_classes(folder)
    if folder.tables and (beside := labels_beside(folder)) is not None:
        table, files = beside
        names = abbreviate_list([str(file) for file in files])
        labels = set(table["label"])
        if not (are_classes or parts) or labels <= {part for file in folder.audio for part in file.parts}:
            notes.append(f"the labels are those of {names}")
            return Listing(PurePosixPath("."), table, FILE_COLUMN, 1, files)
        notes.append(
            f"{names} are not used: the classes are folders, and these files have other labels ({abbreviate_list(sorted(labels))})"
        )
    if parts is not None:
        notes.append(parts[1])
        return parts[0]
    return None


def _unused(folder: AudioFolder) -> list[str]:
    """What to say of what is there and was not made use of: archives, spreadsheets, and tables that name no file."""
    notes = []
    if folder.packed:
        names = abbreviate_list([str(file) for file in folder.packed])
        notes.append(f"not read: {names}; unpack archives, and save tables as CSV")
    plain = [file for file in _tables(folder) if file.suffix.lower() != ".txt"]
    for file in plain[:1]:
        with contextlib.suppress(SourceError):
            row = [str(values[0])[:40] for values in read_table(folder.root / file).values() if values]
            more = f" (and {len(plain) - 1} more)" if len(plain) > 1 else ""
            notes.append(
                f"passed over: {file}{more}, of which no column names the audio files; its first row is {', '.join(row[:8])}"
            )
    return notes


def _tables(folder: AudioFolder) -> list[PurePosixPath]:
    """The tables that may list clips: not those that are called like a sound beside them."""
    sounds = {file.with_suffix("") for file in folder.audio} if folder.tables else set()
    tables = [
        file
        for file in folder.tables
        if file.with_suffix("") not in sounds and not file.stem.lower().startswith(PASSED_OVER)
    ]
    deep = [file for file in tables if len(file.parts) > 2]
    return tables if len(deep) <= MOST_DEEP else [file for file in tables if file not in deep]


def _listings(folder: AudioFolder, columns: Columns) -> tuple[list[Listing], list[str]]:
    """The tables with a column of file names, and what is said of others."""
    listings, notes = [], []
    for file in _tables(folder):
        said: list[str] = []
        try:
            table = read_table(folder.root / file, said)
        except SourceError as error:
            if file.stem == STANDARD:
                raise
            if file.suffix in TEXT_SUFFIXES[:2]:  # whatever else it is, nobody called it a table
                notes.append(f"passed over: {error.message}")
            continue
        place = "" if len(file.parts) == 1 else file.parent.as_posix()
        if (found := _file_column(table, folder.finder, place, columns.audio)) is not None:
            listings.append(Listing(file, table, *found))
            notes += said
    if columns.audio is not None and not listings:
        raise UsageError(
            f"no table in {folder.root} has such a column", field="audio_column", value=columns.audio
        )
    return listings, notes


def _file_column(
    table: ClipTable, finder: FileFinder, place: str, given: str | None
) -> tuple[str, int] | None:
    """The column that names files, by its name or by what is in it, and how many of its first rows name one that is there."""

    def hits(column: str) -> int:
        values = [
            value for value in table[column][:LOOKED_AT] if isinstance(value, (str, int)) and value != ""
        ]
        return sum(_may_be(finder, str(value), place) for value in values)

    if given is not None:
        return (given, hits(given)) if given in table else None
    lowered = {name.lower(): name for name in reversed(table)}
    named = [lowered[name] for name in FILE_COLUMNS if name in lowered]
    best = max(((hits(name), -at, name) for at, name in enumerate(named)), default=(0, 0, ""))
    if best[0]:
        return best[2], best[0]
    rows = min(LOOKED_AT, max(map(len, table.values()), default=0))
    others = [
        (count, name)
        for name in table
        if name not in named
        and 2 * (count := hits(name)) >= rows > 0
        and (
            any(map(looks_like_audio, table[name][:LOOKED_AT]))
            or (count > 0.9 * rows and not _plain(table[name]))
        )
    ]
    if others:
        count, name = max(others)
        return name, count
    lost = [name for name in named if any(map(looks_like_audio, table[name][:LOOKED_AT]))]
    return (lost[0], 0) if lost else None


def _plain(values: Sequence[Any]) -> bool:
    """Whether all are numbers, which files may be called as well."""
    return all(str(value).replace(".", "", 1).isdecimal() for value in values[:LOOKED_AT])


def _may_be(finder: FileFinder, name: str, place: str) -> bool:
    try:
        return bool(finder.candidates(name, place))
    except OutsideError:
        return looks_like_audio(name)


def open_listed(
    folder: AudioFolder, typed: str, skip_bad: bool, columns: Columns, chosen: ChosenTables
) -> Source:
    """Audio files that tables name, with their labels and, where they have them, recordings and folds."""
    finder = folder.finder
    listings, notes = without_repeats(chosen.listings, finder, columns, typed)
    data, files = _joined(listings, finder, columns, typed)
    notes = [*chosen.notes, *notes]
    parts, part_notes = listed_parts(chosen.others, files, finder)
    notes += part_notes
    if not {name.lower() for name in data} & {*SPLIT_COLUMNS, *FOLD_COLUMNS}:
        parts = parts or parts_by_folder(files)
    if parts and not {name.lower() for name in data} & {*SPLIT_COLUMNS}:
        data["split"] = parts
    if columns.label is None and label_column_of(data, columns) is None:
        columns = replace(columns, label=only_other_column(listings[0]))
    kept, missing_notes = _with_their_files(listings, files, finder, typed, skip_bad)
    notes += missing_notes
    listed = {file for file in files if file is not None}
    left = [file.as_posix() for file in folder.audio if file.as_posix() not in listed]
    if left:
        notes.append(
            f"left out {pluralize(len(left), 'audio file')} that no table lists ({abbreviate_list(left)})"
        )
    data = {name: [values[row] for row in kept] for name, values in data.items()}
    data[FILE_COLUMN] = [str(files[row]) for row in kept]
    paths = [folder.root / name for name in data[FILE_COLUMN]]
    revision, cache_key, _ = fingerprint_files(
        [
            *dict.fromkeys(paths),
            *(folder.root / listing.file for listing in listings if listing.file.name),
            *(folder.root / file for listing in listings for file in listing.beside),
        ],
        folder.root,
    )
    data, cut, segment_notes = cut_segments(data, paths)
    data, audio, repeat_notes = _one_row_a_file(data, cut, label_column_of(data, columns), typed)
    name = folder.root.resolve().name
    opened = Source(
        name, "files listed in a table", typed, revision, cache_key, (), (), tuple(audio),
        notes=(*notes, *segment_notes, *repeat_notes),
    )  # fmt: skip
    return from_columns(data, {}, opened, columns)


def _joined(
    listings: Sequence[Listing], finder: FileFinder, asked: Columns, typed: str
) -> tuple[ClipTable, list[str | None]]:
    """The rows of tables as one table without its column of files, and each row's file. Several tables are parts: `split` says which.
    Labels come into one column, whatever the tables call theirs."""
    data: ClipTable = {}
    files: list[str | None] = []
    labels = [listing.label_column(asked, guess=True) for listing in listings]
    of_labels = next(filter(None, labels), "")
    for listing, label in zip(listings, labels, strict=True):
        names = listing.names
        try:
            found = finder.find_all(names, listing.place, f"{listing.part} {listing.place}")
        except OutsideError as error:
            raise SourceError(
                f"{typed}: {listing.file}: the path {error} leads out of the folder; name files below it"
            ) from error
        except ValueError as error:
            raise SourceError(
                f"{typed}: {listing.file}: {error}", hint="Write the folder in front of the names."
            ) from error
        columns = {
            of_labels if name == label and of_labels not in listing.table else name: values
            for name, values in listing.table.items()
            if name != listing.column or name in ("slice_file_name", "clip_id")
        }
        if len(listings) > 1:
            columns.setdefault("split", [listing.part] * len(names))
        for name in {**data, **columns}:
            data.setdefault(name, [None] * len(files)).extend(columns.get(name, [None] * len(names)))
        files += found
    return data, files


def _with_their_files(
    listings: Sequence[Listing], files: Sequence[str | None], finder: FileFinder, typed: str, skip_bad: bool
) -> tuple[list[int], list[str]]:
    """The rows whose file is there. Raises SourceError where one is not, unless `skip_bad`, and where none is."""
    names = [name for listing in listings for name in listing.names]
    missing = [name for name, file in zip(names, files, strict=True) if file is None]
    if not missing:
        return list(range(len(files))), []
    tables = abbreviate_list([listing.file.as_posix() for listing in listings])
    nearest = next(filter(None, (finder.nearest(name) for name in missing[:20])), "")
    near = f"; the nearest that is there is {nearest}" if nearest else ""
    where = f"looked for in {finder.root} and below{near}"
    if len(missing) == len(files):
        raise SourceError(
            f"{typed}: none of the {len(files)} clips in its metadata has its audio file: {tables} names for example {missing[0]}, {where}",
            hint="Correct the names, or download it again.",
        )
    if not skip_bad:
        raise SourceError(
            f"{typed}: {len(missing)} of {len(files)} clips in its metadata have no audio file ({abbreviate_list(missing)}), {where}",
            hint="Complete the download, or skip bad clips.",
        )
    kept = [row for row, file in enumerate(files) if file is not None]
    return kept, [f"skipped {pluralize(len(missing), 'clip')} without an audio file"]


def _one_row_a_file(
    data: ClipTable, refs: Sequence[FileRef], label: str | None, typed: str
) -> tuple[ClipTable, list[FileRef], list[str]]:
    """Each file and each stretch of one once, without stretches under two labels. Raises SourceError for a whole file under two labels."""
    rows: dict[FileRef, int] = {}
    mixed: set[FileRef] = set()
    for row, ref in enumerate(refs):
        first = rows.setdefault(ref, row)
        if label is None or str(data[label][first]) == str(data[label][row]):
            continue
        mixed.add(ref)
        if not ref.cut:
            raise SourceError(
                f"{typed}: {data[FILE_COLUMN][row]} has two labels: {data[label][first]} in row {first + 1} and {data[label][row]} in row {row + 1}",
                field="label_column",
                value=label,
                hint="A clip has one label: leave one of the rows out.",
            )
    notes = []
    if mixed:
        names = sorted({ref.path.name for ref in mixed})
        n = sum(ref in mixed for ref in refs)
        notes.append(
            f"left out {pluralize(n, 'row')} whose stretch has two labels ({abbreviate_list(names)})"
        )
    kept = [row for ref, row in rows.items() if ref not in mixed]
    repeated = Counter(ref for ref in refs if ref not in mixed) - Counter(refs[row] for row in kept)
    if repeated:
        names = [ref.path.name for ref in repeated]
        notes.append(
            f"left out {pluralize(repeated.total(), 'row')} that repeat a file ({abbreviate_list(names)})"
        )
    return (
        {name: [values[row] for row in kept] for name, values in data.items()},
        [refs[row] for row in kept],
        notes,
    )
