"""Convert frozen dataclasses to JSON objects and back. Reading checks types, since a file may be damaged or untrusted."""

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
MAX_LAYERS, MAX_NUMBER = 512, 1 << 20

_TYPE_NAMES = {
    str: "text",
    int: "a whole number",
    float: "a finite number",
    bool: "true or false",
    datetime: "a time",
}


def oversized_key(value: Any, key: str = "") -> str:
    """Return the first key in a network's configuration whose number would make the network fill the memory; empty if none.

    Raises RecursionError for a value that is nested too deep.
    """
    if isinstance(value, (dict, list)):
        items = value.items() if isinstance(value, dict) else ((key, item) for item in value)
        return next(filter(None, (oversized_key(item, str(name)) for name, item in items)), "")
    limit = MAX_LAYERS if re.search("layers|depth|blocks", key) else MAX_NUMBER
    return key if type(value) is int and abs(value) > limit else ""


def to_json(value: Any) -> Any:
    """Convert a dataclass to plain values. Tuples become lists; times and paths become text."""
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
    """Build the dataclass `kind` from a JSON object. This is the inverse of `to_json`; unknown keys are ignored.

    Fields may be text, numbers, booleans, times, None, dataclasses, and tuples and dictionaries of these. Raises ValueError with
    a plain message, such as `lacks batch` or `batch is not a whole number`.
    """
    return typing.cast(T, _parse(kind, value, ""))


def _parse(kind: Any, value: Any, path: str) -> Any:
    """Return `value` as the type `kind`. `path` names its field in messages."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        *others, last = [member for member in arguments if member is not type(None)]
        for member in others:
            with contextlib.suppress(ValueError):
                return _parse(member, value, path)
        return _parse(last, value, path)
    if is_dataclass(kind):
        return _parse_dataclass(kind, value, path)
    if origin is tuple:
        return tuple(_parse(arguments[0], item, path) for item in _require(list, value, path, "a list"))
    if origin is dict:
        items = _require(dict, value, path, "an object").items()
        return {_parse_key(arguments[0], key, path): _parse(arguments[1], item, path) for key, item in items}
    if kind is Any:
        return value
    if kind is datetime and isinstance(value, str):
        try:
            time = datetime.fromisoformat(value)
        except ValueError as error:
            raise ValueError(f"{path} is not a time") from error
        return time if time.tzinfo else time.replace(tzinfo=UTC)
    if kind is float and type(value) in (int, float) and math.isfinite(value):
        return float(value)
    if type(value) is not kind or kind is float:
        raise ValueError(f"{path} is not {_TYPE_NAMES[kind]}")
    return value


def _parse_dataclass(kind: Any, value: Any, path: str) -> Any:
    content = _require(dict, value, path, "an object")
    hints = _hints(kind)
    values = {}
    for field in fields(kind):
        name = f"{path}.{field.name}" if path else field.name
        if field.name in content:
            values[field.name] = _parse(hints[field.name], content[field.name], name)
        elif field.default is MISSING and field.default_factory is MISSING:
            raise ValueError(f"lacks {name}")
    return kind(**values)


_hints = functools.cache(typing.get_type_hints)


def _parse_key(kind: type, key: str, path: str) -> Any:
    """Return the text key of a JSON object as text or a whole number."""
    try:
        return kind(key)
    except ValueError as error:
        raise ValueError(f"{path} has a key that is not {_TYPE_NAMES[kind]}") from error


def _require(kind: type, value: Any, path: str, name: str) -> Any:
    if not isinstance(value, kind):
        raise ValueError(f"{path or 'it'} is not {name}")
    return value
