"""The errors that usk raises on purpose: each is one line that names what is wrong and what to do about it."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class UskError(Exception):
    """Something that the user can fix.

    `str(error)` is one line: the field and its value where they are known, what happened, and what to do. The command line
    prints the same line with the option's name in place of the field's.

    Args:
        message: what happened, with the value. No option names: `field` says which one is meant.
        field: the parameter or configuration field at fault, such as `per_class`.
        value: what was given for it, where that helps.
        hint: what to do about it.
    """

    exit_code = 1
    label = ""  # what the command that was called names the field

    def __init__(self, message: str, *, field: str = "", value: object = None, hint: str = "") -> None:
        super().__init__(message)
        self.message, self.field, self.value, self.hint = message, field, value, hint

    def line(self, label: str = "") -> str:
        """The whole message; `label` is what to call the field, by default its own name."""
        given = " ".join(str(part) for part in (label or self.field, self.value) if part not in ("", None))
        said = f"{given}: {self.message}" if given else self.message
        return f"{said.rstrip('.')}. {self.hint}" if self.hint else said

    def __str__(self) -> str:
        return self.line()

    def __reduce__(self) -> tuple[Any, ...]:  # workers send errors home
        return _rebuild, (type(self), self.message, self.field, self.value, self.hint)


def _rebuild(kind: type[UskError], message: str, field: str, value: object, hint: str) -> UskError:
    return kind(message, field=field, value=value, hint=hint)


class UsageError(UskError):
    """A flag or an argument that cannot be meant: exit code 2, as for usage errors of the command line."""

    exit_code = 2


def no_effect(field: str, value: object, why: str) -> UsageError:
    """For what is given and changes nothing."""
    return UsageError(f"has no effect: {why}", field=field, value=value, hint="Remove it.")


def require_known(value: object, known: Iterable[str], field: str) -> None:
    """Raise UsageError for a value of `field` that is none of the known names."""
    if value not in (names := tuple(known)):
        raise UsageError("is not known", field=field, value=value, hint=f"Choose one of {', '.join(names)}.")


TOO_MANY_OPEN = (errno.EMFILE, errno.ENFILE)  # says nothing of the file or folder at hand
LARGEST = 2**32 - 1  # what all libraries take for a seed


def require_at_least(least: int, most: int = LARGEST, **values: float | None) -> None:
    """Raise UsageError for the first of these fields that is below `least` or above `most`; None is not given."""
    for field, value in values.items():
        if value is not None and value < least:
            raise UsageError(f"must be at least {least}", field=field, value=value)
        if value is not None and value > most:
            shown = str(value) if len(str(value)) < 20 else f"{str(value)[:12]}..."
            raise UsageError(f"must be at most {most:,}", field=field, value=shown)


class SourceError(UskError):
    """A source of clips that cannot be read as one."""


class ModelError(UskError):
    """A generator that cannot be loaded or used."""


class LeakError(UskError):
    """Training would see what testing uses."""


@contextmanager
def disk_errors(folder: Path, field: str = "out") -> Iterator[None]:
    """What the operating system refuses in `folder`, which the option of that `field` names, as one line."""
    try:
        yield
    except OSError as error:
        if error.errno in TOO_MANY_OPEN:
            raise
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UskError(
                f"the disk of {folder} is full",
                hint="What is written stays: free some space and run the same command again.",
            ) from error
        raise UsageError(
            f"cannot be written ({error.strerror or error})",
            field=field,
            value=folder,
            hint="Choose another folder.",
        ) from error
