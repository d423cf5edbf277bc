"""Rows to clips: which columns of a table say class, recording, fold and parents, by name and type."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from usk.data.checks import (
    is_missing,
    missing_folds,
    provenance_of,
    several_labels,
    wrong_folds,
    wrong_labels,
)
from usk.data.clip import PROVENANCE_COLUMNS, REQUIRED_COLUMNS, Clip
from usk.data.find import PARTS
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
PLURAL = ("labels", "event_labels", "positive_labels")
GROUP_COLUMNS = (
    "group", "fsID", "recording", "recording_id", "source_id", "src_file", "session", "speaker_id",
    "freesound_id", "session_id", "subject_id", "patient_id", "video_id", "ytid", "song_id", "speaker",
    "subject", "patient", "client_id",
)  # fmt: skip
FOLD_COLUMNS = ("fold", "folds")
SPLIT_COLUMNS = ("split", "subset", "partition", "part", "set", "usage")
FLAG_OF_PART = re.compile(
    r"((is|in)[_ ]?)?(train|test|val|valid|validation|dev|eval)(ing|[_ ]set)?", re.IGNORECASE
)
MOST_PARTS = 20
ID_COLUMNS = ("clip_id", "slice_file_name", "file_name", "filename", "id")


@dataclass(frozen=True)
class Columns:
    """Columns that the user named; None means: find it by name and type."""

    audio: str | None = None
    label: str | None = None
    group: str | None = None
    fold: str | None = None
    needs_label: bool = True  # to classify clips is possible without

    @property
    def given(self) -> dict[str, str]:
        """Those that the user gave, by the parameter of `open_source`."""
        named = vars(self).items()
        return {f"{what}_column": name for what, name in named if name is not None and what != "needs_label"}


def label_column_of(table: Mapping[str, Any], columns: Columns) -> str | None:
    """The column of labels of a table: the one that the user named, or one that is called so."""
    if columns.label is not None:
        return columns.label if columns.label in table else None
    lowered = {name.lower(): name for name in reversed(list(table))}
    return next((lowered[name.lower()] for name in LABEL_COLUMNS if name.lower() in lowered), None)


def from_columns(
    data: dict[str, list[Any]], features: dict[str, Any], opened: Source, columns: Columns
) -> Source:
    """The source `opened`, whose rows have their audio and nothing else yet, with what the columns `data` [rows] say of them."""
    name, typed = opened.name, opened.location
    is_ours = set(data) >= REQUIRED_COLUMNS
    group_column = _pick(GROUP_COLUMNS, data, columns.group, "group_column", typed) or _places_of_scenes(data)
    if columns.group is None and group_column is not None:
        values = data[group_column]
        is_constant = len(values) > 1 and all(one == values[0] for one in values)
        group_column = None if is_constant or group_column == columns.label else group_column
    fold_column = _pick(FOLD_COLUMNS, data, columns.fold, "fold_column", typed)
    label_column, class_names, labels = _labels(
        data, features, len(opened.audio), columns, (group_column, fold_column), typed
    )
    id_column = _pick(ID_COLUMNS, data, None, "", typed)
    if {"slice_file_name", "fsID"} <= set(data):
        name = "urbansound8k"
    prefix = "" if is_ours else f"{name}/"
    ids = [f"{prefix}{value}" for value in data[id_column]] if id_column else []
    if not ids or len(set(ids)) != len(ids):
        ids = [f"{prefix}row-{row:06d}" for row in range(len(labels))]
    notes: list[str] = []
    groups = ids
    if group_column:
        groups = _groups(group_column, data, features, ids, prefix, notes)
    else:
        others = _could_name_recordings(data, (label_column, fold_column, id_column), len(class_names))
        perhaps = f", perhaps {', '.join(others)}" if others else ""
        notes.append(no_groups_note(f"name the column of recordings{perhaps}"))
    folds = _folds(fold_column, data, features, is_ours, typed, notes) or [0] * len(ids)
    if not is_ours and not any(folds):
        notes += _publishers_parts(data, label_column)
    provenance = _provenance(data, len(labels), typed, notes) if is_ours else [{}] * len(labels)
    clips = [
        Clip(ids[row], label, groups[row], folds[row], **provenance[row]) for row, label in enumerate(labels)
    ]
    if not is_ours and (spread := [*in_several_folds(clips)]):
        notes.append(
            f"{pluralize(len(spread), 'recording')} with clips in several folds ({abbreviate_list(spread)}): where one of these is tested, the "
            "others' clips of it train nowhere; name other columns if that is not meant"
        )
    source = replace(
        opened,
        name=name,
        class_names=class_names,
        clips=tuple(clips),
        notes=(*opened.notes, *notes),
        has_groups=group_column is not None,
    )
    return source if is_ours or not columns.needs_label else with_folds(source)


def _places_of_scenes(data: Mapping[str, Sequence[Any]]) -> str | None:
    """DCASE's column of places, where several clips of an acoustic scene were recorded."""
    values = data.get("identifier", ())
    return "identifier" if "scene_label" in data and 1 < len(set(values)) < len(values) else None


def _groups(
    column: str,
    data: Mapping[str, list[Any]],
    features: Mapping[str, Any],
    ids: Sequence[str],
    prefix: str,
    notes: list[str],
) -> list[str]:
    """Each row's recording, its own where it names none."""
    own = _by_name(data[column], features.get(column))
    if nameless := sum(map(is_missing, own)):
        notes.append(
            f"no recording in the column {column} for {pluralize(nameless, 'row')}: each counts as its own"
        )
    return [ids[row] if is_missing(value) else f"{prefix}{value}" for row, value in enumerate(own)]


def _folds(
    column: str | None,
    data: Mapping[str, list[Any]],
    features: Mapping[str, Any],
    is_ours: bool,
    typed: str,
    notes: list[str],
) -> list[int]:
    """Each row's fold; none where no column says them, or one without any value."""
    if column is None or all(map(is_missing, data[column])):
        return []
    given = _by_name(data[column], features.get(column))
    folds = _fold_numbers(given, keep_zero=is_ours)
    if wrong := missing_folds(given) or wrong_folds(folds):
        raise SourceError(f"{typed}: {wrong}", field="fold_column", value=column, hint="Name another column.")
    renamed = {
        number: value for number, value in zip(folds, given, strict=True) if _fold_name(value) != str(number)
    }
    if renamed and not is_ours:
        said = ", ".join(f"{value} is {number}" for number, value in sorted(renamed.items())[:12])
        notes.append(f"folds are numbered from the column {column}: {said}")
    return folds


def _publishers_parts(data: Mapping[str, list[Any]], label_column: str | None) -> list[str]:
    """What to say of a column that names the publisher's parts, where no column of folds is known."""
    lowered = {name.lower(): name for name in reversed(list(data))}
    named = [lowered[name] for name in SPLIT_COLUMNS if name in lowered]
    others = [
        name
        for name, values in data.items()
        if FLAG_OF_PART.fullmatch(name) or all(PARTS.fullmatch(str(value).lower()) for value in values)
    ]
    for column in (*named, *others):
        parts = Counter(str(value) for value in data[column]) if column != label_column else {}
        if 1 < len(parts) <= MOST_PARTS:
            said = ", ".join(f"{part} {n}" for part, n in sorted(parts.items()))
            return [
                f"the publisher's parts in the column {column} ({said}) are read as one; to test on one of them, name {column} as the column of folds"
            ]
    return []


def _provenance(data: Mapping[str, list[Any]], n: int, typed: str, notes: list[str]) -> list[dict[str, Any]]:
    """What the rows of a dataset of ours say of where their clips came from."""
    stored = [name for name in PROVENANCE_COLUMNS if name in data]
    found, wrong = [], []
    for row in range(n):
        try:
            found.append(provenance_of({name: data[name][row] for name in stored}))
        except ValueError as error:
            wrong.append(f"row {row}: {error}")
    if wrong:
        said = f"{wrong[0]} ({len(wrong)} such rows)" if len(wrong) > 1 else wrong[0]
        raise SourceError(f"{typed}: its provenance cannot be relied on: {said}; make the dataset again")
    if orphans := sum(not one.parents for one in found):
        notes.append(f"{orphans} of {n} clips of {typed} name no parents: {LEAKS_UNKNOWN}")
    return [{name: getattr(one, name) for name in PROVENANCE_COLUMNS} for one in found]


def _pick(
    candidates: Sequence[str], data: dict[str, list[Any]], given: str | None, field: str, typed: str
) -> str | None:
    if given is not None:
        if given not in data:
            raise UsageError(
                f"{typed} has no such column; it has {', '.join(data)}", field=field, value=given
            )
        return given
    lowered = {name.lower(): name for name in reversed(data)}
    return next((lowered[name.lower()] for name in candidates if name.lower() in lowered), None)


def _labels(
    data: dict[str, list[Any]],
    features: dict[str, Any],
    n: int,
    columns: Columns,
    taken: Collection[str | None],
    typed: str,
) -> tuple[str | None, tuple[str, ...], list[int]]:
    """The column of a dataset's classes, these, and each row's: of the column that is named, of one of classes by its name, of any by its
    name, or of the only one of classes. Those `taken` say something else: recordings and folds."""
    from datasets import ClassLabel

    if not columns.needs_label:
        return None, ("unknown",), [0] * n
    typed_labels = [
        column
        for column, feature in features.items()
        if isinstance(feature, ClassLabel) and column in data and column not in taken
    ]
    label_column = columns.label
    if label_column is None:
        of_classes = {name: data[name] for name in typed_labels}
        label_column = _pick(LABEL_COLUMNS, of_classes, None, "", typed)
    label_column = _pick(LABEL_COLUMNS, data, label_column, "label_column", typed)
    if label_column is None and len(typed_labels) == 1:
        (label_column,) = typed_labels
    if label_column is None:
        several = (
            f"several columns of classes ({', '.join(typed_labels)})" if typed_labels else "no label column"
        )
        first = ", ".join(str(values[0])[:30] for values in data.values() if values and not features)
        example = f" (in the first row: {first})" if first else ""
        among = f" among {', '.join(data)}{example}" if data else ""
        if one_hot := _one_hot(data, taken):
            raise SourceError(
                f"{typed}: its labels are {one_hot}",
                field="label_column",
                hint="Put the name of each row's class into one column, such as label.",
            )
        raise SourceError(
            f"{typed} has {several}{among}", field="label_column", hint="Name the one to learn."
        )
    values = data[label_column]
    feature = features.get(label_column)
    named = tuple(feature.names) if isinstance(feature, ClassLabel) else None
    wrong = wrong_labels(values, None if named is None else len(named))
    if any(isinstance(value, (list, dict)) for value in values):
        wrong = f"several labels a clip, such as {next(v for v in values if isinstance(v, (list, dict)))}"
    if wrong:
        raise SourceError(
            f"{typed}: {wrong}",
            field="label_column",
            value=label_column,
            hint="Fix those rows, leave them out of the dataset, or name another column.",
        )
    if named is not None:
        return label_column, named, [int(value) for value in values]
    if several := several_labels(values, label_column.lower() in PLURAL):
        raise SourceError(
            f"{typed}: several labels a clip, such as {several}",
            field="label_column",
            value=label_column,
            hint="Clips have one label: leave one in each row, or name another column.",
        )
    # 001, 01 and 1 are three classes
    by_number = all(str(value).isdecimal() and len(str(value)) < 20 for value in set(values))
    kinds = sorted(
        set(values), key=lambda value: (int(value) if by_number else 0, isinstance(value, str), value)
    )
    number = {value: index for index, value in enumerate(kinds)}
    return label_column, tuple(str(value) for value in kinds), [number[value] for value in values]


def _one_hot(data: Mapping[str, Sequence[Any]], taken: Collection[str | None]) -> str:
    """What to say of columns of 0 and 1 (or False and True), if there are several and most rows have one of them set; else nothing."""
    flags = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "false": 0, "true": 1}
    found = {
        name: [flags[str(value).lower()] for value in values]
        for name, values in data.items()
        if name not in taken and all(str(value).lower() in flags for value in values)
    }
    rows = [sum(row) for row in zip(*found.values(), strict=True)]
    if len(found) < 2 or 2 * sum(map(bool, rows)) <= len(rows):
        return ""
    kind = "multi-hot, several for a clip" if max(rows) > 1 else "one-hot"
    return f"{kind}: a column of 0 and 1 for each class ({abbreviate_list(list(found))})"


def _could_name_recordings(
    data: Mapping[str, Sequence[Any]], taken: Collection[str | None], n_classes: int
) -> list[str]:
    """Columns of names or whole numbers with more values than classes and fewer than clips."""
    return [
        name
        for name, values in data.items()
        if name not in taken
        and name.lower() not in SPLIT_COLUMNS
        and all(isinstance(value, (str, int)) and not isinstance(value, bool) for value in values)
        and n_classes < len(set(values)) < len(values)
    ]


def _by_name(values: list[Any], feature: Any) -> list[Any]:
    """A column's values; of one of classes their names, where they are in its range."""
    from datasets import ClassLabel

    if not isinstance(feature, ClassLabel):
        return values
    return [feature.int2str(v) if isinstance(v, int) and 0 <= v < len(feature.names) else v for v in values]


def _fold_numbers(values: Sequence[Any], keep_zero: bool = False) -> list[int]:
    """Fold names as numbers from 1: whole numbers keep theirs, if 0 is none of them; names are counted in natural order.

    `keep_zero` is for synthetic clips, where 0 says that the parents come from different folds.
    """
    names = [_fold_name(value) for value in values]
    try:
        numbers = [int(name) for name in names]
    except ValueError:
        ordered = sorted(set(names), key=_natural)
        numbers = [ordered.index(name) + 1 for name in names]
    return [number + 1 for number in numbers] if 0 in numbers and not keep_zero else numbers


def _fold_name(value: Any) -> str:
    """`3` of 3, 3.0, `03`, `fold3` and `Fold_3`; other names as they are."""
    name = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
    number = re.fullmatch(r"(?:fold[-_ ]*)?(\d{1,19})", name, re.IGNORECASE | re.ASCII)
    return str(int(number[1])) if number else name


def _natural(name: str) -> list[tuple[int, str]]:
    """A sorting key by which `set2` comes before `set10`."""
    pieces = re.split(r"(\d+)", name, flags=re.ASCII)
    return [
        (len(number := piece.lstrip("0")), number) if index % 2 else (-1, piece)
        for index, piece in enumerate(pieces)
    ]
