"""Files that are there whole or not at all, in folders that one process at a time fills."""

from __future__ import annotations

import contextlib
import os
import pickle
from collections.abc import Iterator
from pathlib import Path

from usk.errors import UsageError, disk_errors

LOCK_FILE = ".lock"
TORN = (RuntimeError, EOFError, ValueError, TypeError, LookupError, AttributeError, pickle.UnpicklingError)
"""What `torch.load` raises where a file is damaged."""


def write_whole(path: Path, content: bytes | memoryview, durable: bool = True) -> None:
    """Write a file so that it is there whole or not at all, whatever happens meanwhile.

    `durable=False` saves the wait for the disk: after a power cut (not after a kill) the file may be damaged.
    """
    partial = path.parent / f".{path.name}.part"
    try:
        with partial.open("wb") as file:
            file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:  # Ctrl-C too
        partial.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def only_one(folder: Path, command: str) -> Iterator[None]:
    """Keep `folder`, which is there, to this process; UsageError where another one, of `command`, is filling it.

    The lock is the operating system's where the file system has locks: it ends with the process, however that ends.
    """
    from filelock import FileLock, Timeout

    path = folder / LOCK_FILE
    lock = FileLock(path)
    with disk_errors(folder):
        try:
            with contextlib.suppress(NotImplementedError):  # an older filelock, a file system without locks
                lock.acquire(timeout=0)
        except Timeout as error:
            raise UsageError(
                f"--out {folder} is being filled by another {command}; wait for it, or choose another folder"
            ) from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # Windows removes no open file
            path.unlink(missing_ok=True)
        lock.release()
