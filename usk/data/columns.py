"""Turn the columns of a table into clips: find the columns of class, recording, fold and provenance, and check their values."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from usk.data.checks import (
    is_missing,
    missing_values,
    provenance_of,
    several_labels,
    wrong_folds,
    wrong_labels,
)
from usk.data.clip import PROVENANCE_COLUMNS, REQUIRED_COLUMNS, Clip
from usk.data.find import PARTS
from usk.data.listing import FILE_COLUMN
from usk.data.source import Source, no_groups_note, with_folds
from usk.data.splits import in_several_folds
from usk.errors import SourceError, UsageError
from usk.text import abbreviate_list, pluralize

LEAKS_UNKNOWN = (
    "whether they were made from clips that validate or test cannot be known, so leaks cannot be ruled out"
)
LABEL_COLUMNS = (
    "label", "class", "category", "target", "classID", "class_id", "labels", "class_name", "event_label",
    "scene_label", "primary_label", "y", "event_labels", "positive_labels", "species", "genre", "emotion",
    "event", "scene", "class_label", "ebird_code", "choice",
)  # fmt: skip
PLURAL_LABEL_COLUMNS = ("labels", "event_labels", "positive_labels")
GROUP_COLUMNS = (
    "group", "fsID", "recording", "recording_id", "source_id", "src_file", "session", "speaker_id",
    "freesound_id", "session_id", "subject_id", "patient_id", "video_id", "ytid", "song_id", "speaker",
    "subject", "patient", "client_id",
)  # fmt: skip
FOLD_COLUMNS = ("fold", "folds")
SPLIT_COLUMNS = ("split", "subset", "partition", "part", "set", "usage")
PART_FLAG = re.compile(
    r"((is|in)[_ ]?)?(train|test|val|valid|validation|dev|eval)(ing|[_ ]set)?", re.IGNORECASE
)
MAX_PARTS = 20
ID_COLUMNS = ("clip_id", "slice_file_name", "file_name", "filename", "id")


@dataclass(frozen=True)
class Columns:
    """The columns that the user named. None: find the column by its name and type."""

    audio: str | None = None
    label: str | None = None
    group: str | None = None
    fold: str | None = None
    needs_label: bool = True  # False: the clips are to be classified

    @property
    def given(self) -> dict[str, str]:
        """The named columns, by the parameter of `open_source`."""
        named = {"audio": self.audio, "label": self.label, "group": self.group, "fold": self.fold}
        return {f"{use}_column": name for use, name in named.items() if name is not None}


def find_columns(table: Iterable[str], names: Sequence[str]) -> list[str]:
    """Return the columns of a table that have one of `names`, in any letter case, in the order of `names`."""
    lowered = {column.lower(): column for column in reversed(list(table))}
    return [lowered[name.lower()] for name in names if name.lower() in lowered]


def require_column(given: str, table: Iterable[str], location: str, field: str) -> str:
    """Return a column that the user named. Raise UsageError if the table does not have it."""
    if given in table:
        return given
    message = f"{location} has no such column; it has {', '.join(table)}"
    raise UsageError(message, field=field, value=given)


def label_column_of(table: Mapping[str, Any], columns: Columns) -> str | None:
    """Return the table's column of labels: the one that the user named, or one with a usual name."""
    if columns.label is not None:
        return columns.label if columns.label in table else None
    return next(iter(find_columns(table, LABEL_COLUMNS)), None)


def from_columns(
    data: dict[str, list[Any]], features: dict[str, Any], opened: Source, columns: Columns
) -> Source:
    """Return the source `opened`, which has only its audio, with the clips that the columns describe.

    `data` are the columns by name, with a value for each clip, and `features` their types in a Hugging Face dataset, if it is
    one. A dataset that usk made is known by its REQUIRED_COLUMNS.
    """
    location, n = opened.location, len(opened.audio)
    is_made_by_usk = set(data) >= REQUIRED_COLUMNS
    name = "urbansound8k" if {"slice_file_name", "fsID"} <= set(data) else opened.name
    prefix = "" if is_made_by_usk else f"{name}/"
    group_column = _group_column(data, columns, location)
    fold_column = _choose(FOLD_COLUMNS, data, columns.fold, "fold_column", location)
    id_column = next(iter(find_columns(data, ID_COLUMNS)), None)
    label_column, class_names, labels = _labels(
        data, features, n, columns, (group_column, fold_column), location
    )

    def values_of(column: str) -> list[Any]:
        return _class_names_of(data[column], features.get(column))

    notes: list[str] = []
    ids = groups = _ids(data[id_column] if id_column else [], n, prefix)
    if group_column:
        groups = _groups(group_column, values_of(group_column), ids, prefix, notes)
    else:
        others = _possible_group_columns(data, (label_column, fold_column, id_column), len(class_names))
        perhaps = f", perhaps {', '.join(others)}" if others else ""
        notes.append(no_groups_note(f"name the column of recordings{perhaps}"))
    folds = [0] * n
    if fold_column and not all(map(is_missing, data[fold_column])):
        folds = _folds(fold_column, values_of(fold_column), is_made_by_usk, location, notes)
    if not is_made_by_usk and not any(folds):
        notes += _note_on_parts(data, label_column)
    provenance = _provenance(data, n, location, notes) if is_made_by_usk else [{}] * n
    rows = zip(ids, labels, groups, folds, provenance, strict=True)
    clips = tuple(
        Clip(clip_id, label, group, fold, **parents) for clip_id, label, group, fold, parents in rows
    )
    if not is_made_by_usk:
        notes += _note_on_spread(clips)
    source = replace(
        opened,
        name=name,
        class_names=class_names,
        clips=clips,
        notes=(*opened.notes, *notes),
        has_groups=group_column is not None,
    )
    return source if is_made_by_usk or not columns.needs_label else with_folds(source)


def _ids(values: Sequence[Any], n: int, prefix: str) -> list[str]:
    """Return an id for each of `n` clips: its value, or its row number if the values are not all different."""
    ids = [f"{prefix}{value}" for value in values]
    return ids if len(set(ids)) == n else [f"{prefix}row-{row:06d}" for row in range(n)]


def _note_on_spread(clips: Sequence[Clip]) -> list[str]:
    """Return a note on recordings that have clips in several folds, if there are any."""
    spread = [*in_several_folds(clips)]
    if not spread:
        return []
    return [
        f"{pluralize(len(spread), 'recording')} with clips in several folds ({abbreviate_list(spread)}): when a fold tests a "
        "recording, its clips in other folds do not train; name other columns if that is not meant"
    ]


def _choose(
    names: Sequence[str], data: Mapping[str, Any], given: str | None, field: str, location: str
) -> str | None:
    """Return the column that the user named, or the first with one of `names`, or None."""
    if given is not None:
        return require_column(given, data, location, field)
    return next(iter(find_columns(data, names)), None)


def _group_column(data: Mapping[str, Sequence[Any]], columns: Columns, location: str) -> str | None:
    """Return the column of recordings: the one that the user named, or one with a usual name and different values."""
    column = _choose(GROUP_COLUMNS, data, columns.group, "group_column", location)
    if columns.group is not None:
        return column
    places = data.get("identifier", ())  # of DCASE's acoustic scenes: several clips come from one place
    if column is None and "scene_label" in data and 1 < len(set(places)) < len(places):
        column = "identifier"
    if column is None or column == columns.label:
        return None
    values = data[column]
    is_constant = len(values) > 1 and all(value == values[0] for value in values)
    return None if is_constant else column


def _groups(column: str, values: list[Any], ids: Sequence[str], prefix: str, notes: list[str]) -> list[str]:
    """Return each clip's recording. A clip without a value is its own recording."""
    if n_missing := sum(map(is_missing, values)):
        notes.append(
            f"no recording in the column {column} for {pluralize(n_missing, 'row')}: each counts as its own"
        )
    return [
        clip_id if is_missing(value) else f"{prefix}{value}"
        for clip_id, value in zip(ids, values, strict=True)
    ]


def _folds(
    column: str, values: list[Any], is_made_by_usk: bool, location: str, notes: list[str]
) -> list[int]:
    """Return each clip's fold. Raise SourceError for wrong values."""
    folds = _number_folds(values, keep_zero=is_made_by_usk)
    if wrong := missing_values(values) or wrong_folds(folds):
        message = f"{location}: {wrong}"
        raise SourceError(message, field="fold_column", value=column, hint="Name another column.")
    renamed = {
        fold: value for fold, value in zip(folds, values, strict=True) if _fold_name(value) != str(fold)
    }
    if renamed and not is_made_by_usk:
        pairs = ", ".join(f"{value} is {fold}" for fold, value in sorted(renamed.items())[:12])
        notes.append(f"folds are numbered from the column {column}: {pairs}")
    return folds


def _note_on_parts(data: Mapping[str, list[Any]], label_column: str | None) -> list[str]:
    """Return a note that offers the publisher's parts (train, test) as folds, if a column names them."""
    others = [
        name
        for name, values in data.items()
        if PART_FLAG.fullmatch(name) or all(PARTS.fullmatch(str(value).lower()) for value in values)
    ]
    for column in (*find_columns(data, SPLIT_COLUMNS), *others):
        parts = Counter(map(str, data[column]))
        if column != label_column and 1 < len(parts) <= MAX_PARTS:
            sizes = ", ".join(f"{part} {n}" for part, n in sorted(parts.items()))
            return [
                f"the publisher's parts in the column {column} ({sizes}) are read as one; to test on one of them, name {column} as the column of folds"
            ]
    return []


def _provenance(
    data: Mapping[str, list[Any]], n: int, location: str, notes: list[str]
) -> list[dict[str, Any]]:
    """Return the fields of Provenance for each clip of a dataset that usk made. Raise SourceError for wrong values."""
    stored = [name for name in PROVENANCE_COLUMNS if name in data]
    found, wrong = [], []
    for row in range(n):
        try:
            found.append(provenance_of({name: data[name][row] for name in stored}))
        except ValueError as error:
            wrong.append(f"row {row}: {error}")
    if wrong:
        first = f"{wrong[0]} ({len(wrong)} such rows)" if len(wrong) > 1 else wrong[0]
        raise SourceError(f"{location}: its provenance cannot be relied on: {first}; make the dataset again")
    if orphans := sum(not one.parents for one in found):
        notes.append(f"{orphans} of {n} clips of {location} name no parents: {LEAKS_UNKNOWN}")
    return [{name: getattr(one, name) for name in PROVENANCE_COLUMNS} for one in found]


def _labels(
    data: dict[str, list[Any]],
    features: dict[str, Any],
    n: int,
    columns: Columns,
    taken: Collection[str | None],
    location: str,
) -> tuple[str | None, tuple[str, ...], list[int]]:
    """Return the column of labels, the class names, and each clip's class number. Raise SourceError for wrong labels.

    `taken` are the columns of recordings and folds.
    """
    from datasets import ClassLabel

    if not columns.needs_label:
        return None, ("unknown",), [0] * n
    column = _label_column(data, features, columns, taken, location)
    values = data[column]
    feature = features.get(column)
    names = tuple(feature.names) if isinstance(feature, ClassLabel) else None
    lists = [value for value in values if isinstance(value, list | dict)]
    several = str(lists[0]) if lists else ""
    wrong = None if lists else wrong_labels(values, None if names is None else len(names))
    if not wrong and names is None and not several:
        several = several_labels(values, column.lower() in PLURAL_LABEL_COLUMNS)
    hint = "Fix those rows, leave them out of the dataset, or name another column."
    if several:
        wrong = f"several labels a clip, such as {several}"
        hint = "Clips have one label: leave one in each row, or name another column."
    if wrong:
        raise SourceError(f"{location}: {wrong}", field="label_column", value=column, hint=hint)
    if names is not None:
        return column, names, [int(value) for value in values]
    # Numbers are sorted by value; 001, 01 and 1 stay three classes.
    are_numbers = all(str(value).isdecimal() and len(str(value)) < 20 for value in set(values))
    classes = sorted(
        set(values), key=lambda value: (int(value) if are_numbers else 0, isinstance(value, str), value)
    )
    number = {value: index for index, value in enumerate(classes)}
    return column, tuple(str(value) for value in classes), [number[value] for value in values]


def _label_column(
    data: dict[str, list[Any]],
    features: dict[str, Any],
    columns: Columns,
    taken: Collection[str | None],
    location: str,
) -> str:
    """Return the column that the user named; else one of type ClassLabel, then any, with a usual name; else the only ClassLabel."""
    from datasets import ClassLabel

    class_columns = [
        name
        for name, feature in features.items()
        if isinstance(feature, ClassLabel) and name in data and name not in taken
    ]
    if columns.label is not None:
        return require_column(columns.label, data, location, "label_column")
    for candidate in (*find_columns(class_columns, LABEL_COLUMNS), *find_columns(data, LABEL_COLUMNS)):
        return candidate
    if len(class_columns) == 1:
        return class_columns[0]
    if one_hot := _describe_one_hot(data, taken):
        message = f"{location}: its labels are {one_hot}"
        hint = "Put the name of each row's class into one column, such as label."
        raise SourceError(message, field="label_column", hint=hint)
    message = f"{location} has no label column"
    if class_columns:
        message = f"{location} has several columns of classes ({', '.join(class_columns)})"
    data = {name: values for name, values in data.items() if name != FILE_COLUMN}
    if data:
        message += f" among {', '.join(data)}"
    first_row = [str(values[0])[:30] for values in data.values() if values and not features]
    if first_row:
        message += f" (in the first row: {', '.join(first_row)})"
    raise SourceError(message, field="label_column", hint="Name the one to learn: label=COLUMN.")


def _describe_one_hot(data: Mapping[str, Sequence[Any]], taken: Collection[str | None]) -> str:
    """Describe one-hot or multi-hot labels: several columns of 0 and 1, of which most rows have one set. Return "" for others."""
    flags = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "false": 0, "true": 1}
    found = {
        name: [flags[str(value).lower()] for value in values]
        for name, values in data.items()
        if name not in taken and all(str(value).lower() in flags for value in values)
    }
    n_set = [sum(row) for row in zip(*found.values(), strict=True)]
    if len(found) < 2 or 2 * sum(map(bool, n_set)) <= len(n_set):
        return ""
    kind = "multi-hot, several for a clip" if max(n_set) > 1 else "one-hot"
    return f"{kind}: a column of 0 and 1 for each class ({abbreviate_list(list(found))})"


def _possible_group_columns(
    data: Mapping[str, Sequence[Any]], taken: Collection[str | None], n_classes: int
) -> list[str]:
    """Return columns of names or whole numbers with more different values than classes and fewer than clips."""
    return [
        name
        for name, values in data.items()
        if name not in taken
        and name.lower() not in SPLIT_COLUMNS
        and all(isinstance(value, str | int) and not isinstance(value, bool) for value in values)
        and n_classes < len(set(values)) < len(values)
    ]


def _class_names_of(values: list[Any], feature: Any) -> list[Any]:
    """Replace the numbers of a ClassLabel column by names, if they are in its range. Return other columns unchanged."""
    from datasets import ClassLabel

    if not isinstance(feature, ClassLabel):
        return values
    return [feature.int2str(v) if isinstance(v, int) and 0 <= v < len(feature.names) else v for v in values]


def _number_folds(values: Sequence[Any], keep_zero: bool = False) -> list[int]:
    """Number folds from 1: whole numbers stay unless one is 0; names are numbered in natural order.

    `keep_zero` is for synthetic clips: their fold is 0 if the parents come from several folds.
    """
    names = [_fold_name(value) for value in values]
    try:
        numbers = [int(name) for name in names]
    except ValueError:
        ordered = sorted(set(names), key=_natural_key)
        numbers = [ordered.index(name) + 1 for name in names]
    return [number + 1 for number in numbers] if 0 in numbers and not keep_zero else numbers


def _fold_name(value: Any) -> str:
    """Return `3` for 3, 3.0, `03`, `fold3` and `Fold_3`, and other names unchanged."""
    name = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
    number = re.fullmatch(r"(?:fold[-_ ]*)?(\d{1,19})", name, re.IGNORECASE | re.ASCII)
    return str(int(number[1])) if number else name


def _natural_key(name: str) -> list[str]:
    """Return a sorting key that puts `set2` before `set10`."""
    pieces = re.split(r"(\d+)", name, flags=re.ASCII)  # text and numbers take turns
    return [piece.zfill(20) if index % 2 else piece for index, piece in enumerate(pieces)]
