"""The errors that usk raises on purpose: each is one line that names what is wrong and what to do about it."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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


def counted(n: int, noun: str) -> str:
    """`1 clip`, `2,148 clips`, `3 classes`."""
    return f"{n:,} {noun}{'' if n == 1 else 'es' if noun.endswith(('s', 'x')) else 's'}"


def sample_of(names: list[str], shown: int = 3) -> str:
    """The first few of `names` for a message: `a, b, c and 5 more`."""
    head = ", ".join(names[:shown])
    return head if len(names) <= shown else f"{head} and {len(names) - shown} more"


@contextmanager
def disk_errors(folder: Path, flag: str = "--out") -> Iterator[None]:
    """What the operating system refuses in `folder`, which `flag` names, as one line that names the fix."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UskError(
                f"the disk of {folder} is full; what is written stays: free some space and run the same command again"
            ) from error
        raise UsageError(
            f"{flag} {folder} cannot be written ({error.strerror or error}); choose another folder"
        ) from error
