"""List files, read JSON, write files atomically, and lock folders against other processes."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import pickle
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePath
from typing import Any

from usk.errors import UsageError, UskError, disk_errors
from usk.reporter import Reporter

LOCK_FILE = ".lock"
PARTIAL = ".usk-{}.part"
DAMAGED = (RuntimeError, EOFError, ValueError, TypeError, LookupError, AttributeError, pickle.UnpicklingError)
"""Exceptions of `torch.load` for a damaged file."""
NO_LOCKS = frozenset({errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EPERM, errno.ENOSYS})
"""Error numbers of a file system without locks."""


def atomic_write(
    path: Path, content: bytes | memoryview | Iterable[bytes | memoryview], durable: bool = True
) -> None:
    """Write a file through a temporary file, so that it is complete or does not exist.

    The temporary file has a random name and must be new, so that no link or file that somebody put there is written to.
    `durable=False` does not wait for the disk: after a power cut, but not after a kill, the file may be damaged.
    """
    partial = path.parent / PARTIAL.format(secrets.token_hex(8))
    try:
        with partial.open("xb") as file:
            file.writelines((content,) if isinstance(content, bytes | memoryview) else content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:  # Ctrl-C too
        partial.unlink(missing_ok=True)
        raise


def sha256_of(file: Path) -> str:
    """Return the SHA-256 hash of a file's content, in hex."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def read_json(file: Path, error: type[UskError], unreadable: str) -> dict[str, Any]:
    """Return the JSON object in a UTF-8 file, which may be damaged or untrusted. Raise `error(unreadable)` if there is none."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as failure:  # RecursionError: nested too deep
        raise error(unreadable) from failure
    if not isinstance(content, dict):
        raise error(unreadable)
    return content


def require_own_folder(folder: Path, record: str) -> None:
    """Raise UsageError unless `folder` is new, empty, or holds the file `record`, which marks it as ours."""
    with disk_errors(folder):
        if folder.exists() and not folder.is_dir():
            raise UsageError("is a file", field="out", value=folder, hint="Choose a folder.")
        is_ours = (folder / record).is_file() or not folder.is_dir()
        if not is_ours and any(not entry.name.startswith(".") for entry in folder.iterdir()):
            raise UsageError(
                "holds other files", field="out", value=folder, hint="Choose a new or empty folder."
            )


@contextlib.contextmanager
def exclusive_lock(
    folder: Path, command: str, wait_s: float = 0, reporter: Reporter | None = None
) -> Iterator[None]:
    """Lock an existing folder, and delete the partial files that a killed process left in it.

    Raise UsageError if another process of `command` holds the lock for longer than `wait_s` seconds. The operating system
    releases the lock when the process ends. Warn `reporter` if the file system has no locks.
    """
    from filelock import FileLock, Timeout

    path = folder / LOCK_FILE
    lock = FileLock(path)
    with disk_errors(folder):
        try:
            lock.acquire(timeout=wait_s)
        except Timeout as error:
            raise UsageError(
                f"is being filled by another {command}",
                field="out",
                value=folder,
                hint="Wait for it, or choose another folder.",
            ) from error
        except (NotImplementedError, OSError) as error:
            if isinstance(error, OSError) and error.errno not in NO_LOCKS:
                raise
            if reporter is not None:
                reporter.warn(
                    f"the file system of {folder} has no locks: let no other {command} write there meanwhile"
                )
        for partial in folder.glob(PARTIAL.format("*")):
            partial.unlink(missing_ok=True)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # Windows cannot delete an open file
            path.unlink(missing_ok=True)
        lock.release()


def is_alive(process: int) -> bool:
    """Whether a process with this id runs on this machine. On Windows always True."""
    if os.name == "nt":  # there, os.kill(process, 0) would send Ctrl-C
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def expanded(path: str | os.PathLike[str]) -> Path:
    """Expand `~` in a path. Return the path unchanged if there is no such user."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


@contextlib.contextmanager
def creation_lock(path: Path, wait_s: float = 600.0) -> Iterator[None]:
    """Hold a lock while creating the file `path`. The caller must check again whether the file exists now.

    After `wait_s` seconds, or without locks, several processes may create the file. That is harmless: they write the same
    content atomically.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        lock.acquire(timeout=wait_s)
    except (Timeout, NotImplementedError):
        pass
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
    try:
        yield
    finally:
        lock.release()


def is_text(path: str | PurePath) -> bool:
    """Whether a name is valid UTF-8. Names in old archives may have other encodings."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


SYSTEM_FOLDERS = frozenset((
    "@eadir", "@recycle", "@recently-snapshot", "@sharebin", "@tmp", "#recycle", "#snapshot", "~snapshot",
    "__macosx", "__pycache__", "$recycle.bin", "recycler", "lost+found", "node_modules", "venv",
    "system volume information", "network trash folder", "temporary items",
))  # fmt: skip


def is_hidden_folder(name: str) -> bool:
    """Whether a folder's name begins with a dot, or operating systems, network drives or programs create such folders."""
    return name.startswith(".") or name.casefold() in SYSTEM_FOLDERS


def visible_files(folder: Path, left_out: list[Path] | None = None) -> list[Path]:
    """Return all files below `folder`, sorted, except hidden ones (`._cut.wav`) and those in hidden folders.

    Linked folders are entered, each once. Append to `left_out` broken links, and links to a folder in `folder` or above it.
    """
    root = folder.resolve()
    files: list[Path] = []
    entered: set[Path] = set()
    for parent, subfolders, names in os.walk(folder, followlinks=True):
        here = Path(parent).resolve()
        entered.add(here)
        to_enter = []
        for name in sorted(subfolders):
            path = Path(parent, name)
            if is_hidden_folder(name):
                continue
            if path.is_symlink():
                target = path.resolve()
                is_above = here.is_relative_to(target) or root.is_relative_to(target)
                if is_above or target in entered or target.is_relative_to(root):
                    if left_out is not None:
                        left_out.append(path)
                    continue
            to_enter.append(name)
        subfolders[:] = to_enter  # os.walk enters these
        for name in names:
            if name.startswith("."):
                continue
            file = Path(parent, name)
            with contextlib.suppress(OSError):  # a link that may not be followed
                if file.is_file():
                    files.append(file)
                elif left_out is not None and not file.exists():
                    left_out.append(file)
    return sorted(files)
