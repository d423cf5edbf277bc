"""Folders that were opened before, kept in the cache: while no file changes, they are not read and sorted out again.

What is kept counts for one folder as it is: the names of all that lies below it, and what `file_stamp` says of each.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator
from operator import attrgetter
from pathlib import Path
from typing import Any

from usk.data import cache
from usk.data.audio_file import FileRef
from usk.data.cache import cache_root, checked, read_checked
from usk.data.clip import Clip
from usk.data.fingerprint import file_stamp
from usk.data.source import Source
from usk.files import is_hidden_folder

MOMENT_S = 2.0
CODE = Path(__file__).parent  # what opens folders: a change of it makes all that is kept void
OF_CLIP = ("clip_id", "label", "group", "fold", "duration_s")
OF_SOURCE = (
    "name", "kind", "location", "revision", "cache_key", "class_names", "license", "notes", "has_groups",
)  # fmt: skip


def signature(folder: Path, asked: object) -> str | None:
    """A hash of what lies below `folder` and of how it is to be opened; None where links lead to other folders, or a file has
    changed in this moment: it could change again without another time."""
    code = [file_stamp(module.stat()) for module in sorted(CODE.glob("*.py"))]
    digest = hashlib.sha256(repr((code, os.fsencode(folder.resolve()), asked)).encode())
    try:
        for line in _lines(os.fspath(folder), time.time() - MOMENT_S):
            digest.update(line)
    except OSError:
        return None
    return digest.hexdigest()


def _lines(folder: str, latest_s: float) -> Iterator[bytes]:
    below: list[str] = []
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=attrgetter("name")):
            if is_hidden_folder(entry.name):
                continue
            if entry.is_dir():
                if entry.is_symlink():
                    raise NotADirectoryError(entry.path)
                below.append(entry.path)
                continue
            status = entry.stat()
            if max(status.st_mtime, status.st_ctime) > latest_s:
                raise BlockingIOError(entry.path)
            yield os.fsencode(entry.name) + b"\t" + file_stamp(status).encode()
    for path in below:
        yield b"/" + os.fsencode(path) + b"\n"
        yield from _lines(path, latest_s)


def recall(key: str | None, root: Path) -> Source | None:
    """What was kept under `key`, None where nothing was, or it is damaged."""
    if key is None:
        return None
    content = read_checked(_file(key))
    return None if content is None else _source(content, root)


def keep(key: str | None, source: Source, root: Path) -> None:
    """Keep a source for `recall` if it is one of files alone, all of which could be read."""
    if key is None or not (cache_root() / "revisions" / source.cache_key).is_file():
        return
    base = os.fspath(root) + os.sep
    names = [os.fspath(ref.path) if isinstance(ref, FileRef) else "" for ref in source.audio]
    columns = {name: [getattr(clip, name) for clip in source.clips] for name in OF_CLIP}
    facts = {name: getattr(source, name) for name in OF_SOURCE}
    files = [name[len(base) :] for name in names if name.startswith(base)]
    content = json.dumps({"source": facts, "clips": columns, "files": files}).encode()
    if len(files) < len(names) or _source(content, root) != source:
        return  # it says more than is kept
    cache.keep(_file(key), checked(content))


def _source(content: bytes, root: Path) -> Source:
    kept = json.loads(content)
    facts: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in kept["source"].items()
    }
    clips = map(Clip, *(kept["clips"][name] for name in OF_CLIP))
    audio = (FileRef(Path(os.fspath(root) + os.sep + name)) for name in kept["files"])
    return Source(**facts, clips=tuple(clips), audio=tuple(audio))


def _file(key: str) -> Path:
    return cache_root() / "opened" / key
