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
    """Folds are pluralize from 0 or 1."""
    bad = [fold for fold in folds if not 0 <= fold <= LARGEST_FOLD]
    return f"{bad[0]} is no fold, in {pluralize(len(bad), 'row')}" if bad else None


def is_missing(value: Any) -> bool:
    """Null, NaN, or an empty name."""
    return value is None or value == "" or value != value


def missing_folds(values: Sequence[Any]) -> str | None:
    """Every row says its fold: one made up for it could be one that others test."""
    missing = sum(map(is_missing, values))
    return f"no value in {pluralize(missing, 'row')}" if missing else None


def wrong_provenance_row(row: Mapping[str, Any]) -> str | None:
    """What is wrong with the provenance columns of one row, None if nothing is.

    A row may name no parents at all; what it names must be whole, or leaks would pass unseen.
    """
    for column in ("parents", "parent_groups"):
        if not isinstance(row[column], list) or not all(
            isinstance(name, str) and name for name in row[column]
        ):
            return f"{column} is no list of names"
    if not isinstance(row["parent_folds"], list) or not all(map(_is_int, row["parent_folds"])):
        return "parent_folds is no list of numbers"
    if wrong_folds(row["parent_folds"]):
        return "parent_folds has numbers that are no folds"
    if len({len(row[column]) for column in ("parents", "parent_groups", "parent_folds")}) > 1:
        return "parents, parent_groups and parent_folds differ in length"
    for column in ("strategy", "model"):
        if not isinstance(row[column], str):
            return f"{column} is no text"
    for column in ("seed", "steps"):
        if not _is_int(row[column]) or row[column] < 0:
            return f"{column} is no whole number from 0 on"
    for column in ("alpha", "gain_db"):
        if not _is_finite(row[column]):
            return f"{column} is no finite number"
    if row["filter_score"] is not None and not _is_finite(row["filter_score"]):
        return "filter_score is no finite number"
    names, lengths_s = row.get("parent_names") or [], row.get("parent_seconds") or []
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        return "parent_names is no list of names"
    if not isinstance(lengths_s, list) or not all(map(_is_finite, lengths_s)):
        return "parent_seconds is no list of numbers"
    if any(given and len(given) != len(row["parents"]) for given in (names, lengths_s)):
        return "parents, parent_names and parent_seconds differ in length"
    if not isinstance(row.get("prompt") or "", str):
        return "prompt is no text"
    folds = row.get("filter_folds") or []
    if not isinstance(folds, list) or not all(_is_int(fold) for fold in folds):
        return "filter_folds is no list of folds"
    return None


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def first_wrong(
    rows: Sequence[Mapping[str, Any]], check: Callable[[Mapping[str, Any]], str | None]
) -> str | None:
    """The first finding of `check`, with its row and how many rows have one."""
    found = [(index, finding) for index, row in enumerate(rows) if (finding := check(row))]
    if not found:
        return None
    index, finding = found[0]
    return f"row {index}: {finding}" + (f" ({len(found)} such rows)" if len(found) > 1 else "")
