"""A Hub id with its revision, resolved to a commit, and its files: what comes from the Hub is data, kept in its cache.

Nothing from a repository is run, and no name in it leads out of the cache.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from usk.errors import UskError
from usk.hub import causes, hub_errors, retried

DEFAULT_REVISION = "main"


def looks_like_hub_id(typed: str) -> bool:
    """Whether this can be `user/name` or `user/name@revision`."""
    name = typed.partition("@")[0]
    return name.count("/") == 1 and not name.startswith((".", "/", "~")) and all(name.split("/"))


def is_inside(name: str) -> bool:
    """Whether a relative file name of a repository or manifest stays below its folder."""
    path = PurePosixPath(name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts and "\\" not in name


@dataclass(frozen=True)
class Pinned:
    """A dataset or model on the Hub at one commit."""

    hub_id: str
    kind: str  # "dataset" or "model"
    commit: str
    files: tuple[str, ...]
    revision: str = DEFAULT_REVISION  # what was asked for: a branch, a tag or a commit


def pin(typed: str, kind: str, subject: str, instead: str, error: type[UskError]) -> Pinned:
    """The dataset or model `user/name[@revision]` at its commit. Raises `error` in one line (see `usk.hub.hub_errors`)."""
    from huggingface_hub import HfApi

    hub_id, _, revision = typed.partition("@")
    with hub_errors(subject, instead, error, revision):
        ask = HfApi().dataset_info if kind == "dataset" else HfApi().model_info
        info = retried(lambda: ask(hub_id, revision=revision or None))
    files = tuple(file.rfilename for file in info.siblings or () if is_inside(file.rfilename))
    return Pinned(hub_id, kind, str(info.sha), files, revision or DEFAULT_REVISION)


def pin_or_cached(typed: str, kind: str, subject: str, instead: str, error: type[UskError]) -> Pinned:
    """`pin`; where the Hub is out of reach or refuses, what its cache has, at the commit of the last download.

    A revision that the Hub does not have (any more) is not looked for in the cache.
    """
    from huggingface_hub.errors import HFValidationError, RevisionNotFoundError

    try:
        return pin(typed, kind, subject, instead, error)
    except error as failure:
        if any(isinstance(cause, (HFValidationError, RevisionNotFoundError)) for cause in causes(failure)):
            raise
        cached = _cached(typed, kind)
        if cached is None:
            raise
        return cached


def cache_folder(hub_id: str, kind: str) -> Path:
    """Where the Hub client keeps a dataset or model: its `snapshots/COMMIT/`, and `refs/REVISION`, a commit each."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    return Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=hub_id, repo_type=kind)


def _cached(typed: str, kind: str) -> Pinned | None:
    """What the cache has of it: the files in the snapshot of the commit that is noted for its revision."""
    hub_id, _, typed_revision = typed.partition("@")
    revision = typed_revision or DEFAULT_REVISION
    if not is_inside(revision):
        return None
    root = cache_folder(hub_id, kind)
    ref = root / "refs" / revision
    commit = ref.read_text(encoding="utf-8").strip() if ref.is_file() else revision
    snapshot = root / "snapshots" / commit
    if not commit or not snapshot.is_dir():
        return None
    files = tuple(path.relative_to(snapshot).as_posix() for path in snapshot.rglob("*") if path.is_file())
    return Pinned(hub_id, kind, commit, files, revision)


def _note_commit(pinned: Pinned) -> None:
    """Leave the revision's commit in the cache, as the Hub client does for what it is asked for by a branch or tag."""
    if pinned.revision == pinned.commit or not is_inside(pinned.revision):
        return
    ref = cache_folder(pinned.hub_id, pinned.kind) / "refs" / pinned.revision
    with contextlib.suppress(OSError):  # the files are there all the same
        if ref.is_file() and ref.read_text(encoding="utf-8") == pinned.commit:
            return
        ref.parent.mkdir(parents=True, exist_ok=True)
        partial = ref.with_name(f"{ref.name}.{os.getpid()}.tmp")
        partial.write_text(pinned.commit, encoding="utf-8")
        partial.replace(ref)


def download(
    pinned: Pinned, patterns: Sequence[str], subject: str, instead: str, error: type[UskError]
) -> Path:
    """The folder in the Hub's cache with the files of `pinned` that match. Raises `error` in one line."""
    from huggingface_hub import snapshot_download

    def fetch() -> str:
        return snapshot_download(
            pinned.hub_id, repo_type=pinned.kind, revision=pinned.commit, allow_patterns=list(patterns)
        )

    with hub_errors(subject, instead, error, pinned.commit):
        folder = Path(retried(fetch))
    _note_commit(pinned)
    return folder
