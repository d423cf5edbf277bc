"""The exceptions of usk, checks of options, and the conversion of disk errors. Each message is one line."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class UskError(Exception):
    """An error that the user can fix.

    `str(error)` is one line: the field with its value, what happened, and what to do. The command line prints the same line
    with the option's name for the field's name.

    Args:
        message: what happened, with the value, but without option names.
        field: the parameter or configuration field that is wrong, such as `per_class`.
        value: the value of the field.
        hint: what to do about it.
    """

    exit_code = 1
    label = ""  # name of the option or argument of the current command; the command line sets it

    def __init__(self, message: str, *, field: str = "", value: object = None, hint: str = "") -> None:
        super().__init__(message)
        self.message, self.field, self.value, self.hint = message, field, value, hint

    def line(self, label: str = "") -> str:
        """Return the whole message, with `label` for the field's name."""
        subject = " ".join(str(part) for part in (label or self.field, self.value) if part not in ("", None))
        problem = f"{subject}: {self.message}" if subject else self.message
        return f"{problem.rstrip('.')}. {self.hint}" if self.hint else problem

    def __str__(self) -> str:
        return self.line()

    def __reduce__(self) -> tuple[Any, ...]:  # for pickling: worker processes return errors
        return _rebuild, (type(self), self.message, self.field, self.value, self.hint)


def _rebuild(kind: type[UskError], message: str, field: str, value: object, hint: str) -> UskError:
    return kind(message, field=field, value=value, hint=hint)


class UsageError(UskError):
    """An invalid option or argument. The exit code is 2, as for other usage errors of command lines."""

    exit_code = 2


def no_effect(field: str, value: object, why: str) -> UsageError:
    """For what is given and changes nothing."""
    return UsageError(f"has no effect: {why}", field=field, value=value, hint="Remove it.")


def require_known(value: object, known: Iterable[str], field: str) -> None:
    """Raise UsageError if the value of `field` is not one of the known names."""
    if value not in (names := tuple(known)):
        raise UsageError("is not known", field=field, value=value, hint=f"Choose one of {', '.join(names)}.")


TOO_MANY_OPEN = (errno.EMFILE, errno.ENFILE)  # too many open files: the folder is not at fault
MAX_SEED = 2**32 - 1  # the largest seed that all libraries accept


def require_at_least(least: int, most: int = MAX_SEED, **values: float | None) -> None:
    """Raise UsageError for the first field whose value is below `least` or above `most`. None is valid."""
    for field, value in values.items():
        if value is not None and value < least:
            raise UsageError(f"must be at least {least}", field=field, value=value)
        if value is not None and value > most:
            shown = str(value) if len(str(value)) < 20 else f"{str(value)[:12]}..."
            raise UsageError(f"must be at most {most:,}", field=field, value=shown)


class SourceError(UskError):
    """A source of clips cannot be read."""


class ModelError(UskError):
    """A generator or classifier cannot be loaded or used."""


class LeakError(UskError):
    """Test data would leak into training."""


@contextmanager
def disk_errors(folder: Path, field: str = "out") -> Iterator[None]:
    """Turn an OSError into a UskError with one line about `folder`, which is the value of `field`."""
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
