"""Frozen dataclasses as JSON objects, checked when they are read: what is on disk may be damaged, or anybody's."""

from __future__ import annotations

import contextlib
import functools
import math
import re
import types
import typing
from dataclasses import MISSING, fields, is_dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
MOST_LAYERS, MOST_OF_ANYTHING = 512, 1 << 20

_NAMES = {
    str: "text",
    int: "a whole number",
    float: "a finite number",
    bool: "true or false",
    datetime: "a time",
}


def absurd_size(value: Any, key: str = "") -> str:
    """The first key of a network's configuration whose whole number no network has: building one would fill the memory, or never end.
    Empty if there is none. Raises RecursionError for a value nested too deep."""
    if isinstance(value, (dict, list)):
        items = value.items() if isinstance(value, dict) else ((key, one) for one in value)
        return next(filter(None, (absurd_size(one, str(name)) for name, one in items)), "")
    most = MOST_LAYERS if re.search("layers|depth|blocks", key) else MOST_OF_ANYTHING
    return key if type(value) is int and abs(value) > most else ""


def to_json(value: Any) -> Any:
    """A dataclass as plain values: tuples become lists, times and paths text."""
    if is_dataclass(value):
        return {field.name: to_json(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, dict):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, frozenset)):
        return [to_json(item) for item in value]
    if isinstance(value, datetime):
        return value.isoformat(timespec="microseconds")
    return str(value) if isinstance(value, Path) else value


def from_json(kind: type[T], value: Any) -> T:
    """The dataclass `kind` from a JSON object: the opposite of `to_json`. Keys that it has no field for are left out.

    Fields are text, numbers, truth values, times, other dataclasses, tuples and dictionaries of these, or None where the field
    may be. Raises ValueError in plain words, such as `lacks batch` or `batch is not a whole number`.
    """
    return typing.cast(T, _read(kind, value, ""))


def _read(kind: Any, value: Any, place: str) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        *others, last = [one for one in arguments if one is not type(None)]
        for one in others:
            with contextlib.suppress(ValueError):
                return _read(one, value, place)
        return _read(last, value, place)
    if is_dataclass(kind):
        return _read_dataclass(kind, value, place)
    if origin is tuple:
        return tuple(_read(arguments[0], item, place) for item in _expect(list, value, place, "a list"))
    if origin is dict:
        items = _expect(dict, value, place, "an object").items()
        return {_key(arguments[0], key, place): _read(arguments[1], item, place) for key, item in items}
    if kind is Any:
        return value
    if kind is datetime and isinstance(value, str):
        try:
            read = datetime.fromisoformat(value)
        except ValueError as error:
            raise ValueError(f"{place} is not a time") from error
        return read if read.tzinfo else read.replace(tzinfo=UTC)
    if kind is float and type(value) in (int, float) and math.isfinite(value):
        return float(value)
    if type(value) is not kind or kind is float:
        raise ValueError(f"{place} is not {_NAMES[kind]}")
    return value


def _read_dataclass(kind: Any, value: Any, place: str) -> Any:
    given = _expect(dict, value, place, "an object")
    hints = _hints(kind)
    read = {}
    for field in fields(kind):
        name = f"{place}.{field.name}" if place else field.name
        if field.name in given:
            read[field.name] = _read(hints[field.name], given[field.name], name)
        elif field.default is MISSING and field.default_factory is MISSING:
            raise ValueError(f"lacks {name}")
    return kind(**read)


_hints = functools.cache(typing.get_type_hints)


def _key(kind: type, key: str, place: str) -> Any:
    """Keys of JSON objects are text; those of ours may be whole numbers."""
    try:
        return kind(key)
    except ValueError as error:
        raise ValueError(f"{place} has a key that is not {_NAMES[kind]}") from error


def _expect(kind: type, value: Any, place: str, name: str) -> Any:
    if not isinstance(value, kind):
        raise ValueError(f"{place or 'it'} is not {name}")
    return value
