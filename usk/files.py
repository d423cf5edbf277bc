"""Files: which there are, writing them whole or not at all, and folders that one process at a time fills."""

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


def atomic_write(path: Path, content: bytes | memoryview, durable: bool = True) -> None:
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


def require_own_folder(folder: Path, ours: str) -> None:
    """Raise UsageError where `folder` is a file, or holds something, but not the file called `ours`."""
    with disk_errors(folder):
        if folder.exists() and not folder.is_dir():
            raise UsageError(f"--out {folder} is a file; choose a folder")
        free = (folder / ours).is_file() or not folder.is_dir()
        if not free and any(not entry.name.startswith(".") for entry in folder.iterdir()):
            raise UsageError(f"--out {folder} holds something else; choose a new or empty folder")


@contextlib.contextmanager
def exclusive_lock(folder: Path, command: str) -> Iterator[None]:
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


def is_text(path: str | Path) -> bool:
    """Whether a name can be written down: file systems hold bytes, and old archives names in other encodings."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def visible_files(folder: Path) -> list[Path]:
    """All files below `folder`, without hidden ones (`._cut.wav`) and those in hidden folders (`.ipynb_checkpoints`);
    linked folders are walked like others, each once."""
    found: list[Path] = []
    walked: set[Path] = set()
    for place, below, names in os.walk(folder, followlinks=True):
        if (real := Path(place).resolve()) in walked:  # a link to a folder above itself
            below.clear()
            continue
        walked.add(real)
        below[:] = [name for name in below if not name.startswith(".")]
        for name in names:
            with contextlib.suppress(OSError):  # a link that may not be followed
                if not name.startswith(".") and (file := Path(place, name)).is_file():
                    found.append(file)
    return sorted(found)
