"""Files: which there are, reading records, writing whole or not at all, and folders that one process at a time fills."""

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
TORN = (RuntimeError, EOFError, ValueError, TypeError, LookupError, AttributeError, pickle.UnpicklingError)
"""What `torch.load` raises where a file is damaged."""
NO_LOCKS = frozenset({errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EPERM, errno.ENOSYS})
"""What a file system says that has no locks."""


def atomic_write(
    path: Path, content: bytes | memoryview | Iterable[bytes | memoryview], durable: bool = True
) -> None:
    """Write a file so that it is there whole or not at all, whatever happens meanwhile.

    The temporary file has a random name and is created, never opened: nothing that was put there before is written to.
    `durable=False` saves the wait for the disk: after a power cut (not after a kill) the file may be damaged.
    """
    partial = path.parent / PARTIAL.format(secrets.token_hex(8))
    try:
        with partial.open("xb") as file:
            for part in (content,) if isinstance(content, bytes | memoryview) else content:
                file.write(part)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:  # Ctrl-C too
        partial.unlink(missing_ok=True)
        raise


def sha256_of(file: Path) -> str:
    """Of what a file holds, in hex."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def read_json(file: Path, error: type[UskError], unreadable: str) -> dict[str, Any]:
    """The JSON object in a file (UTF-8): a record of ours, perhaps damaged, or anybody's from the Hub. Raises `error` with the
    message `unreadable` where there is none."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as failure:  # the last: nested too deep
        raise error(unreadable) from failure
    if not isinstance(content, dict):
        raise error(unreadable)
    return content


def require_own_folder(folder: Path, ours: str) -> None:
    """Raise UsageError where `folder` is a file, or holds something, but not the file called `ours`."""
    with disk_errors(folder):
        if folder.exists() and not folder.is_dir():
            raise UsageError("is a file", field="out", value=folder, hint="Choose a folder.")
        free = (folder / ours).is_file() or not folder.is_dir()
        if not free and any(not entry.name.startswith(".") for entry in folder.iterdir()):
            raise UsageError(
                "holds something else", field="out", value=folder, hint="Choose a new or empty folder."
            )


@contextlib.contextmanager
def exclusive_lock(
    folder: Path, command: str, wait_s: float = 0, reporter: Reporter | None = None
) -> Iterator[None]:
    """Keep `folder`, which exists, to this process. Raises UsageError while another process, of `command`, fills it, after
    `wait_s` seconds.

    The lock is the operating system's: it ends with the process, however that ends. A file system without locks has none,
    and `reporter` says so. What a killed process left half written in the folder is deleted.
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
        for left in folder.glob(PARTIAL.format("*")):
            left.unlink(missing_ok=True)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # Windows removes no open file
            path.unlink(missing_ok=True)
        lock.release()


def is_alive(process: int) -> bool:
    """Whether a process of this machine runs."""
    if os.name == "nt":  # where a signal of 0 is Ctrl-C
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def expanded(path: str | os.PathLike[str]) -> Path:
    """A path with `~` as its user's home; as it stands where no such user is known."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


@contextlib.contextmanager
def turn(path: Path, wait_s: float = 600.0) -> Iterator[None]:
    """Wait while another process makes the file `path`, then look again whether it is there.

    A process that dies ends its turn. After `wait_s` seconds, or without locks, several may make it at a time: whole files of one
    content.
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
    """Whether a name can be written down: file systems hold bytes, and old archives names in other encodings."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


LITTER = frozenset((
    "@eadir", "@recycle", "@recently-snapshot", "@sharebin", "@tmp", "#recycle", "#snapshot", "~snapshot",
    "__macosx", "__pycache__", "$recycle.bin", "recycler", "lost+found", "node_modules", "venv",
    "system volume information", "network trash folder", "temporary items",
))  # fmt: skip


def is_litter(name: str) -> bool:
    """Whether a folder is hidden, or one that network drives, operating systems and programs put beside one's own."""
    return name.startswith(".") or name.casefold() in LITTER


def visible_files(folder: Path, left_out: list[Path] | None = None) -> list[Path]:
    """All files below `folder`, without hidden ones (`._cut.wav`), those in hidden folders (`.ipynb_checkpoints`), and litter.

    Linked folders are entered like others, each once. Links to what is in `folder` anyway, above it, or nowhere are added to `left_out`.
    """
    root = folder.resolve()
    found: list[Path] = []
    entered: set[Path] = set()
    for place, below, names in os.walk(folder, followlinks=True):
        entered.add(Path(place).resolve())
        kept = []
        for name in sorted(below):
            path = Path(place, name)
            if is_litter(name):
                continue
            if path.is_symlink():
                real, here = path.resolve(), Path(place).resolve()
                above = here.is_relative_to(real) or root.is_relative_to(real)
                if above or real in entered or real.is_relative_to(root):
                    if left_out is not None:
                        left_out.append(path)
                    continue
            kept.append(name)
        below[:] = kept
        for name in names:
            with contextlib.suppress(OSError):  # a link that may not be followed
                if not name.startswith(".") and (file := Path(place, name)).is_file():
                    found.append(file)
                elif left_out is not None and not name.startswith(".") and not file.exists():
                    left_out.append(file)
    return sorted(found)
