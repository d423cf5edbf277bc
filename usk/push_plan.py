"""The plan and the result of a push."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from usk.bundle import Bundle, SharedFile
from usk.text import abbreviate_list, pluralize


@dataclass(frozen=True)
class PushPlan:
    """The changes that a push will make."""

    bundle: Bundle
    repo_id: str
    url: str
    account: str
    new_repo: bool
    private: bool
    head: str | None  # current commit of the repo
    upload: tuple[SharedFile, ...]
    delete: tuple[str, ...]

    @property
    def up_to_date(self) -> bool:
        """Whether there is nothing to commit."""
        return not (self.new_repo or self.upload or self.delete)

    @property
    def facts(self) -> dict[str, Any]:
        """Return the plan as names and texts for a table."""
        kept = len(self.bundle.files) - len(self.upload)
        where = "a new repo" if self.new_repo else "a repo that exists"
        upload = f"{pluralize(len(self.upload), 'file')}, {megabytes(sum(file.size for file in self.upload))}"
        return {
            "kind": self.bundle.kind.name,
            "repo": f"{self.url} ({where})",
            "visibility": "private" if self.private else "public: anyone can download it",
            "account": self.account,
            "card": self.bundle.title or "none",
            "license": self.bundle.license,
            "files": f"{len(self.bundle.files)}, {megabytes(self.bundle.size)}",
            "upload": upload + (f"; {kept} are there already" if kept else ""),
            **(
                {"delete": f"{len(self.delete)}: {abbreviate_list(list(self.delete))}"} if self.delete else {}
            ),
        }


@dataclass(frozen=True)
class PushResult:
    """The result of a push. `commit` is the repo's commit, which an earlier push may have made."""

    repo_id: str
    kind: str
    url: str
    commit: str
    up_to_date: bool
    uploaded: int
    deleted: int


def megabytes(size: int) -> str:
    """Return `3.2 MB`, or `12.0 kB` for a small size in bytes."""
    return f"{size / 1e6:,.1f} MB" if size >= 100_000 else f"{size / 1e3:,.1f} kB"
