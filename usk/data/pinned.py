"""A Hub id with its revision, resolved to a commit, and its files: what comes from the Hub is data, kept in its cache.

Nothing from a repository is run, and no name in it leads out of the cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from usk.errors import UskError
from usk.hub import hub_errors


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
    license: str | None  # as its card says it; None where it does not

    @property
    def id_at_commit(self) -> str:
        return f"{self.hub_id}@{self.commit}"


def pin(typed: str, kind: str, subject: str, instead: str, error: type[UskError]) -> Pinned:
    """The dataset or model `user/name[@revision]` at its commit. Raises `error` in one line (see `usk.hub.hub_errors`)."""
    from huggingface_hub import HfApi

    hub_id, _, revision = typed.partition("@")
    with hub_errors(subject, instead, error, revision):
        ask = HfApi().dataset_info if kind == "dataset" else HfApi().model_info
        info = ask(hub_id, revision=revision or None)
    files = tuple(file.rfilename for file in info.siblings or () if is_inside(file.rfilename))
    return Pinned(hub_id, kind, str(info.sha), files, _license_of(info.card_data))


def download(
    pinned: Pinned, patterns: Sequence[str], subject: str, instead: str, error: type[UskError]
) -> Path:
    """The folder in the Hub's cache with the files of `pinned` that match."""
    from huggingface_hub import snapshot_download

    with hub_errors(subject, instead, error, pinned.commit):
        return Path(
            snapshot_download(
                pinned.hub_id, repo_type=pinned.kind, revision=pinned.commit, allow_patterns=list(patterns)
            )
        )


def _license_of(card_data: Any) -> str | None:
    """The licence in a card's metadata, by its own name where it has one."""
    if card_data is None:
        return None
    return license_of_metadata(card_data.to_dict())


def license_of_metadata(metadata: dict[str, Any]) -> str | None:
    """The licence that a card's metadata states: of several the strictest, of `other` its name; None if none."""
    from usk.data.licenses import strictest_license

    stated = metadata.get("license")
    names = [name for name in (stated if isinstance(stated, list) else [stated]) if isinstance(name, str)]
    named = metadata.get("license_name")
    names = [named if name == "other" and isinstance(named, str) else name for name in names]
    return strictest_license(names) if names else None
