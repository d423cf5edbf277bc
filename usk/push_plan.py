"""How to push, what a push would do, and what it did."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from usk.bundle import Bundle, SharedFile
from usk.errors import UsageError
from usk.text import abbreviate_list, pluralize

REF = re.compile(
    r"(?!.*(\.\.|//|\.lock$))\w([\w./-]*\w)?", re.ASCII
)  # names that git takes for branches and tags
COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class PushConfig:
    """How to push.

    private: a new repo is visible to its owner alone.
    revision: the branch to commit to, made if it is not there; `main` by default.
    tag: name of the pushed state, as in `user/name@v1`.
    message: of the commit.
    """

    private: bool = False
    revision: str | None = None
    tag: str | None = None
    message: str | None = None

    def __post_init__(self) -> None:
        for field, value in (("revision", self.revision), ("tag", self.tag)):
            if value is not None and (not REF.fullmatch(value) or COMMIT.fullmatch(value)):
                raise UsageError(
                    "is not a name for this",
                    field=field,
                    value=value,
                    hint="Choose one of letters, digits, - _ . and /, which does not look like a commit.",
                )
        if self.message is not None and not self.message.strip():
            raise UsageError("is empty", field="message", hint="Write what changed, or leave it out.")


@dataclass(frozen=True)
class PushPlan:
    """What a push would do."""

    bundle: Bundle
    repo_id: str
    url: str
    account: str
    new_repo: bool
    private: bool
    branch: str
    new_branch: bool
    head: str | None  # the branch's commit, or the one that it will start from
    upload: tuple[SharedFile, ...]
    delete: tuple[str, ...]
    tag: str | None
    new_tag: bool

    @property
    def up_to_date(self) -> bool:
        """Whether the repo is as the folder, so that there is nothing to commit."""
        return not (self.new_repo or self.new_branch or self.upload or self.delete)

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
            "branch": self.branch + (" (new)" if self.new_branch else ""),
            **({"tag": self.tag} if self.tag else {}),
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
    """What a push did. `commit` is the branch's head, whether this push made it or an earlier one did."""

    repo_id: str
    kind: str
    url: str
    commit: str
    branch: str
    tag: str | None
    up_to_date: bool
    uploaded: int
    deleted: int
    id: str  # by which others name what was pushed: `user/name@v1`

    def as_dict(self) -> dict[str, Any]:
        return dict(vars(self))


def megabytes(size: int) -> str:
    """`3.2 MB`, or `12 kB` for little."""
    return f"{size / 1e6:,.1f} MB" if size >= 100_000 else f"{size / 1e3:,.1f} kB"
