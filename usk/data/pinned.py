"""A Hub id with its revision, resolved to a commit, and its files: what comes from the Hub is data, kept in its cache.

Nothing from a repository is run, and no name in it leads out of the cache.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from usk.errors import UskError
from usk.hub import hub_errors, retried


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
    said: tuple[str, str, type[UskError]]  # of failures, as `pin` takes it

    def download(self, patterns: Sequence[str]) -> Path:
        """Its files that match, see `download`."""
        return download(f"{self.hub_id}@{self.commit}", patterns, *self.said, self.kind)


def pin(typed: str, kind: str, subject: str, instead: str, error: type[UskError]) -> Pinned:
    """The dataset or model `user/name[@revision]` at its commit. Raises `error` in one line (see `usk.hub.hub_errors`)."""
    from huggingface_hub import HfApi

    hub_id, _, revision = typed.partition("@")
    with hub_errors(subject, instead, error, revision):
        ask = HfApi().dataset_info if kind == "dataset" else HfApi().model_info
        info = retried(lambda: ask(hub_id, revision=revision or None))
    if not isinstance(info.sha, str) or not re.fullmatch("[0-9a-f]{40}", info.sha):
        raise error(f"{subject} cannot be downloaded: the Hub does not say at which commit it is")
    names = [file.rfilename for file in info.siblings or () if isinstance(file.rfilename, str)]
    files = tuple(name for name in names if is_inside(name))
    return Pinned(hub_id, kind, str(info.sha), files, (subject, instead, error))


def cache_folder(hub_id: str, kind: str) -> Path:
    """Where the Hub client keeps a dataset or model."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    return Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=hub_id, repo_type=kind)


def download(
    typed: str,
    patterns: Sequence[str],
    subject: str,
    instead: str,
    error: type[UskError],
    kind: str = "model",
) -> Path:
    """The folder in the Hub's cache with the files of `user/name[@revision]` that match; it is called like the commit.

    Where the Hub is out of reach or refuses, what an earlier download of that revision has left there serves. Raises
    `error` in one line.
    """
    from huggingface_hub import snapshot_download

    hub_id, _, revision = typed.partition("@")
    wanted: dict[str, Any] = {"revision": revision or None, "repo_type": kind}
    with hub_errors(subject, instead, error, revision):
        return Path(retried(lambda: snapshot_download(hub_id, allow_patterns=list(patterns), **wanted)))
