"""Check values of columns from outside. Pure. Most functions return a clause that says what is wrong, or None."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from usk.data.clip import REQUIRED_COLUMNS, Provenance
from usk.text import pluralize
from usk.typed_json import from_json

MAX_FOLD = 1_000_000


def wrong_labels(values: Sequence[Any], n_classes: int | None) -> str | None:
    """Check labels: names or numbers, or class numbers below `n_classes` if the dataset names its classes."""
    if missing := missing_values(values):
        return missing
    if n_classes is not None:
        outside = [value for value in values if type(value) is not int or not 0 <= value < n_classes]
        return (
            f"labels outside its {n_classes} classes in {pluralize(len(outside), 'row')}" if outside else None
        )
    bad = [
        value
        for value in values
        if not isinstance(value, (str, int, float)) or value in (math.inf, -math.inf)
    ]
    return f"neither names nor numbers in {pluralize(len(bad), 'row')}" if bad else None


def several_labels(values: Sequence[Any], is_plural: bool = False) -> str:
    """Return the first value that is several labels in one, or "".

    That is a list in text, `dog+rain` if there are also `dog` and `rain`, or `dog,Sound` if another value shares a piece or the
    column's name `is_plural`.
    """
    names = list(dict.fromkeys(value for value in values if isinstance(value, str)))
    if lists := [name for name in names if re.fullmatch(r"\s*\[.*\]\s*", name)]:
        return lists[0]
    for name in names:
        pieces = {piece.strip() for piece in re.split(r"[+/&]", name)}
        if len(pieces) > 1 and pieces < set(names):
            return name
    pieces_of = {name: {piece.strip() for piece in re.split(r"[,;|]", name)} for name in names}
    n_names = Counter(piece for pieces in pieces_of.values() for piece in pieces)
    for name, pieces in pieces_of.items():
        if len(pieces) > 1 and (is_plural or any(n_names[piece] > 1 for piece in pieces)):
            return name
    return ""


def wrong_folds(folds: Sequence[int]) -> str | None:
    """Check folds: numbers from 0 to MAX_FOLD."""
    bad = [fold for fold in folds if not 0 <= fold <= MAX_FOLD]
    return f"{bad[0]} is not a fold, in {pluralize(len(bad), 'row')}" if bad else None


def is_missing(value: Any) -> bool:
    """Whether a value is null, NaN, or an empty name."""
    return value is None or value == "" or value != value


def missing_values(values: Sequence[Any]) -> str | None:
    n_missing = sum(map(is_missing, values))
    return f"no value in {pluralize(n_missing, 'row')}" if n_missing else None


def provenance_of(row: Mapping[str, Any]) -> Provenance:
    """Return the provenance of one row of a dataset. Raise ValueError with a clause for a message.

    A row may have no parents. If it has some, their fields must be complete, or leaks would not be found.
    """
    given = {name: value for name, value in row.items() if value is not None or name in REQUIRED_COLUMNS}
    found = from_json(Provenance, given)
    if not all((*found.parents, *found.parent_names, *found.parent_groups)):
        raise ValueError("a parent has no name")
    if wrong_folds(found.parent_folds):
        raise ValueError("parent_folds has numbers that are no folds")
    if min(found.seed, found.steps) < 0:
        raise ValueError("seed or steps are below 0")
    if not len(found.parents) == len(found.parent_groups) == len(found.parent_folds):
        raise ValueError("parents, parent_groups and parent_folds differ in length")
    if {len(found.parent_names), len(found.parent_seconds)} - {0, len(found.parents)}:
        raise ValueError("parents, parent_names and parent_seconds differ in length")
    return found
