"""The errors that usk raises on purpose: each is one line that names what is wrong and what to do about it."""

from __future__ import annotations


class UskError(Exception):
    """Something the user can mend. `str(error)` is the whole message; the process ends with `exit_code`."""

    exit_code = 1


class UsageError(UskError):
    """A flag or an argument that cannot be meant: exit code 2, as for usage errors of the command line."""

    exit_code = 2


class SourceError(UskError):
    """A source of clips that cannot be read as one."""


class ModelError(UskError):
    """A generator that cannot be loaded or used."""


class LeakError(UskError):
    """Training would see what testing uses."""


def sample_of(names: list[str], shown: int = 3) -> str:
    """The first few of `names` for a message: `a, b, c and 5 more`."""
    head = ", ".join(names[:shown])
    return head if len(names) <= shown else f"{head} and {len(names) - shown} more"
