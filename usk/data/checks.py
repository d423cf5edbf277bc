"""What columns and manifests from elsewhere must hold before anything relies on them. Pure; each finding is half a sentence."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from usk.text import pluralize

LARGEST_FOLD = 1_000_000


def wrong_labels(values: Sequence[Any], n_classes: int | None) -> str | None:
    """Labels are names or numbers, in the range of the classes where those are named (`n_classes`)."""
    missing = sum(map(is_missing, values))
    if missing:
        return f"no value in {pluralize(missing, 'row')}"
    if n_classes is not None:
        outside = [value for value in values if not (_is_int(value) and 0 <= value < n_classes)]
        return (
            f"labels outside its {n_classes} classes in {pluralize(len(outside), 'row')}" if outside else None
        )
    bad = [value for value in values if not (isinstance(value, (str, bool)) or _is_finite(value))]
    return f"neither names nor numbers in {pluralize(len(bad), 'row')}" if bad else None


def several_labels(values: Sequence[Any]) -> str:
    """The first of the labels that is several in one: `dog,Sound` where another is `dog` or has `Sound` too. Empty if none is."""
    names = list(dict.fromkeys(value for value in values if isinstance(value, str)))
    pieces = {name: {piece.strip() for piece in re.split(r"[,;|]", name)} for name in names}
    shared = Counter(piece for each in pieces.values() for piece in each)
    joined = (name for name in names if len(pieces[name]) > 1)
    return next((name for name in joined if any(shared[piece] > 1 for piece in pieces[name])), "")


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


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _list_of(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(map(fits, value))


_NAMES = (_list_of(_is_name), "is not a list of names")
_TEXT = (lambda value: isinstance(value, str), "is not text")
_COUNT = (lambda value: _is_int(value) and value >= 0, "is not a whole number from 0 on")
_NUMBER = (_is_finite, "is not a finite number")
_COLUMNS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "parents": _NAMES,
    "parent_groups": _NAMES,
    "parent_folds": (_list_of(_is_int), "is not a list of numbers"),
    "strategy": _TEXT,
    "model": _TEXT,
    "seed": _COUNT,
    "steps": _COUNT,
    "alpha": _NUMBER,
    "gain_db": _NUMBER,
}
_OPTIONAL: dict[str, tuple[Callable[[Any], bool], str]] = {
    "filter_score": _NUMBER,
    "parent_names": _NAMES,
    "parent_seconds": (_list_of(_is_finite), "is not a list of numbers"),
    "prompt": _TEXT,
    "filter_folds": (_list_of(_is_int), "is not a list of folds"),
}


def wrong_provenance_row(row: Mapping[str, Any]) -> str | None:
    """What is wrong with the provenance columns of one row, None if nothing is.

    A row may name no parents at all; what it names must be whole, or leaks would pass unseen.
    """
    checks = [(name, row[name], *check) for name, check in _COLUMNS.items()]
    checks += [(name, row[name], *check) for name, check in _OPTIONAL.items() if row.get(name) is not None]
    for name, value, fits, wrong in checks:
        if not fits(value):
            return f"{name} {wrong}"
    if wrong_folds(row["parent_folds"]):
        return "parent_folds has numbers that are no folds"
    n_parents = len(row["parents"])
    if not len(row["parent_groups"]) == len(row["parent_folds"]) == n_parents:
        return "parents, parent_groups and parent_folds differ in length"
    if any(len(row.get(name) or row["parents"]) != n_parents for name in ("parent_names", "parent_seconds")):
        return "parents, parent_names and parent_seconds differ in length"
    return None


def first_wrong(
    rows: Sequence[Mapping[str, Any]], check: Callable[[Mapping[str, Any]], str | None]
) -> str | None:
    """The first finding of `check`, with its row and how many rows have one."""
    found = [(index, finding) for index, row in enumerate(rows) if (finding := check(row))]
    if not found:
        return None
    index, finding = found[0]
    return f"row {index}: {finding}" + (f" ({len(found)} such rows)" if len(found) > 1 else "")
