"""What a push would do, and what it did."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from usk.bundle import Bundle, SharedFile
from usk.text import abbreviate_list, pluralize


@dataclass(frozen=True)
class PushPlan:
    """What a push would do."""

    bundle: Bundle
    repo_id: str
    url: str
    account: str
    new_repo: bool
    private: bool
    head: str | None  # the repo's commit
    upload: tuple[SharedFile, ...]
    delete: tuple[str, ...]

    @property
    def up_to_date(self) -> bool:
        """Whether the repo is as the folder, so that there is nothing to commit."""
        return not (self.new_repo or self.upload or self.delete)

    @property
    def facts(self) -> dict[str, Any]:
        """The plan in words, for a table or as JSON."""
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
    """What a push did. `commit` is the repo's, whether this push made it or an earlier one did."""

    repo_id: str
    kind: str
    url: str
    commit: str
    up_to_date: bool
    uploaded: int
    deleted: int


def megabytes(size: int) -> str:
    """`3.2 MB`, or `12 kB` for little."""
    return f"{size / 1e6:,.1f} MB" if size >= 100_000 else f"{size / 1e3:,.1f} kB"
