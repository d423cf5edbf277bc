"""Resolve a Hub id to a commit, and download files of that commit into the Hub's cache.

No code from a repository is run, and no file name in it leads out of the cache.
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
    """Whether the text can be `user/name` or `user/name@revision`."""
    name = typed.partition("@")[0]
    return name.count("/") == 1 and not name.startswith((".", "/", "~")) and all(name.split("/"))


def is_inside(name: str) -> bool:
    """Whether a file name in a repository or manifest stays below its folder."""
    path = PurePosixPath(name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts and "\\" not in name


@dataclass(frozen=True)
class Pinned:
    """A dataset or model on the Hub at one commit."""

    hub_id: str
    kind: str  # "dataset" or "model"
    commit: str
    files: tuple[str, ...]
    messages: tuple[str, str, type[UskError]]  # subject, instead and error, as for `pin`

    def download(self, patterns: Sequence[str]) -> Path:
        """Download the files that match, see `download`."""
        return download(f"{self.hub_id}@{self.commit}", patterns, *self.messages, self.kind)


def pin(typed: str, kind: str, subject: str, instead: str, error: type[UskError]) -> Pinned:
    """Resolve `user/name[@revision]` to a commit. Raise `error` in one line (see `usk.hub.hub_errors`).

    Args:
        kind: "dataset" or "model".
        subject: the begin of the message.
        instead: what the user can do without the Hub, as an imperative.
    """
    from huggingface_hub import HfApi

    hub_id, _, revision = typed.partition("@")
    with hub_errors(subject, instead, error, revision):
        info: Any = retried(lambda: HfApi().repo_info(hub_id, repo_type=kind, revision=revision or None))
    if not isinstance(info.sha, str) or not re.fullmatch("[0-9a-f]{40}", info.sha):
        raise error(f"{subject} cannot be downloaded: the Hub does not say at which commit it is")
    names = [file.rfilename for file in info.siblings or () if isinstance(file.rfilename, str)]
    files = tuple(name for name in names if is_inside(name))
    return Pinned(hub_id, kind, str(info.sha), files, (subject, instead, error))


def cache_folder(hub_id: str, kind: str) -> Path:
    """Return the folder where the Hub client caches a dataset or model."""
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
    """Download the files of `user/name[@revision]` that match, and return their folder, whose name is the commit.

    If the Hub cannot be reached, use the files of an earlier download of that revision. Raise `error` in one line.
    """
    from huggingface_hub import snapshot_download

    hub_id, _, revision = typed.partition("@")
    wanted: dict[str, Any] = {"revision": revision or None, "repo_type": kind}
    with hub_errors(subject, instead, error, revision):
        return Path(retried(lambda: snapshot_download(hub_id, allow_patterns=list(patterns), **wanted)))
