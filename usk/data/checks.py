"""What columns and manifests from elsewhere must hold before anything relies on them. Pure; each finding is half a sentence."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from usk.data.clip import REQUIRED_COLUMNS, Provenance
from usk.text import pluralize
from usk.typed_json import from_json

LARGEST_FOLD = 1_000_000


def wrong_labels(values: Sequence[Any], n_classes: int | None) -> str | None:
    """Labels are names or numbers, in the range of the classes where those are named (`n_classes`)."""
    missing = sum(map(is_missing, values))
    if missing:
        return f"no value in {pluralize(missing, 'row')}"
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


def several_labels(values: Sequence[Any], plural: bool = False) -> str:
    """The first of the labels that is several in one: a list, or `dog,Sound` where another is `dog` or has `Sound` too, or the column is
    called by a `plural`, or `dog+rain` where others are `dog` and `rain`. Empty if none is."""
    names = list(dict.fromkeys(value for value in values if isinstance(value, str)))
    if lists := [name for name in names if re.fullmatch(r"\s*\[.*\]\s*", name)]:
        return lists[0]
    pieces = {name: {piece.strip() for piece in re.split(r"[,;|]", name)} for name in names}
    shared = Counter(piece for each in pieces.values() for piece in each)
    for name in names:
        joined_by_sign = {piece.strip() for piece in re.split(r"[+/&]", name)}
        if len(joined_by_sign) > 1 and joined_by_sign < set(names):
            return name
    joined = (name for name in names if len(pieces[name]) > 1)
    return next((name for name in joined if plural or any(shared[piece] > 1 for piece in pieces[name])), "")


def wrong_folds(folds: Sequence[int]) -> str | None:
    """Folds count from 0 or 1."""
    bad = [fold for fold in folds if not 0 <= fold <= LARGEST_FOLD]
    return f"{bad[0]} is not a fold, in {pluralize(len(bad), 'row')}" if bad else None


def is_missing(value: Any) -> bool:
    """Null, NaN, or an empty name."""
    return value is None or value == "" or value != value


def missing_folds(values: Sequence[Any]) -> str | None:
    """Every row says its fold: one made up for it could be one that others test."""
    missing = sum(map(is_missing, values))
    return f"no value in {pluralize(missing, 'row')}" if missing else None


def provenance_of(row: Mapping[str, Any]) -> Provenance:
    """What one row of a dataset says of where its clip came from. Raises ValueError with half a sentence.

    A row may name no parents at all; what it names must be whole, or leaks would pass unseen.
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
