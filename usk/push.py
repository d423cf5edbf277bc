"""`usk.push`: upload a folder to the Hugging Face Hub in one commit, so that a repo is never half updated.

Only files that differ from the repo's are uploaded. Large files are uploaded before the commit, so an interrupted push leaves
the repo unchanged, and the next push does not upload them again. The Hub's client manages the token; usk does not store it.
"""

from __future__ import annotations

import os
import re
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from usk.bundle import CARD_FILE, KINDS, Bundle, SharedFile, open_bundle
from usk.cards import unseal, was_edited
from usk.errors import UsageError, UskError
from usk.hub import hub_errors, retried
from usk.push_plan import PushPlan, PushResult
from usk.reporter import Reporter
from usk.text import abbreviate_list

if TYPE_CHECKING:
    from huggingface_hub import HfApi

DEFAULT_FILES = re.compile(r"\.gitattributes|\.gitignore|README\.md|LICENSE(\.\w+)?")  # of an empty repo
AGAIN = "run the same command again: what was uploaded is kept"

T = TypeVar("T")


def push(
    folder: str | os.PathLike[str],
    repo_id: str,
    *,
    private: bool = False,
    confirm: Callable[[PushPlan], bool] = lambda plan: True,
    reporter: Reporter | None = None,
    sleep: Callable[[float], object] = time.sleep,
) -> PushResult | None:
    """Share a synthetic dataset, a run or a generator as `repo_id` (`user/name`) on the Hub.

    Files of that kind that the folder does not have are deleted from the repo; files of other kinds stay.

    Args:
        private: whether only its owner can see a new repo.
        confirm: called with the plan, unless there is nothing to do. If it returns False, nothing is pushed and the result is None.
        sleep: waits between retries, in seconds.

    Raises: UsageError, UskError.
    """
    reporter = reporter or Reporter()
    _check_repo_id(repo_id)
    bundle = open_bundle(os.fspath(folder), repo_id, reporter)
    from huggingface_hub import HfApi

    from usk import __version__

    api = HfApi(token=True, library_name="usk", library_version=__version__)
    repo = _Repo(api, bundle, repo_id, private, sleep)
    with hub_errors(repo_id, AGAIN, UskError, writing=True), warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", "It seems that you are about to commit a data file"
        )  # in a model repo
        plan = repo.plan()
        if plan.up_to_date:
            return repo.result(plan, str(plan.head))
        return repo.execute(plan) if confirm(plan) else None


def _check_repo_id(repo_id: str) -> None:
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    name, at, _ = repo_id.partition("@")
    if at:
        raise UsageError(
            f"{repo_id} names a revision", hint=f"Push to {name}, and make tags with `hf repos tag create`."
        )
    with suppress(HFValidationError):
        validate_repo_id(repo_id)
        if repo_id.count("/") == 1:
            return
    raise UsageError(
        f"{repo_id!r} is not the name of a repo", hint="Write user/name, with letters, digits and - _ . only."
    )


class _Repo:
    """The repo of one push: plans the push, then executes it."""

    def __init__(
        self, api: HfApi, bundle: Bundle, repo_id: str, private: bool, sleep: Callable[[float], object]
    ) -> None:
        self.api, self.bundle, self.repo_id, self.private, self.sleep = api, bundle, repo_id, private, sleep
        self.repo: dict[str, Any] = {"repo_id": repo_id, "repo_type": bundle.kind.repo_type}

    def call(self, method: Callable[..., T], **arguments: Any) -> T:
        """Call a method of the client that does not retry by itself."""
        return retried(partial(method, **arguments), self.sleep)

    def plan(self) -> PushPlan:
        """Compare the folder with the repo. Raises UskError or UsageError if the push would fail or overwrite something else."""
        from huggingface_hub.errors import RepositoryNotFoundError

        account = self._account()
        try:
            info = self.call(self.api.repo_info, **self.repo)
        except RepositoryNotFoundError:
            self._check_namespace(account)
            info = None
        head: str | None = None
        remote = dict[str, Any]()
        if info is not None:
            head = str(info.sha)
            remote = self._remote_files(head)
            self._check_contents(remote)
            if self.private and not info.private:
                raise UsageError(
                    f"{self.repo_id} is public already",
                    field="private",
                    hint="Make it private in its settings on the Hub first, or leave this out.",
                )
        upload, delete = self._difference(remote)
        if any(file.path == CARD_FILE for file in upload) and CARD_FILE in remote:
            self._check_card(str(head))
        prefix = {"model": "", "dataset": "datasets/"}[self.bundle.kind.repo_type]
        return PushPlan(
            bundle=self.bundle,
            repo_id=self.repo_id,
            url=f"{self.api.endpoint}/{prefix}{self.repo_id}",
            account=account["name"],
            new_repo=info is None,
            private=self.private if info is None else bool(info.private),
            head=head,
            upload=tuple(upload),
            delete=tuple(delete),
        )

    def _account(self) -> dict[str, Any]:
        """Return the Hub's description of the user. Raises UskError if the token cannot write."""
        account = self.call(self.api.whoami)
        if not isinstance(account, dict) or not isinstance(account.get("name"), str):
            raise UskError("the Hub does not name your account", hint="Try again later.")
        token: Any = account.get("auth")
        for key in ("accessToken", "role"):
            token = token.get(key) if isinstance(token, dict) else None
        if token == "read":
            raise UskError(
                "your token may only read",
                hint=f"Make one that may write in the Hub's settings of {account['name']}, then run `hf auth login`, "
                "or set HF_TOKEN.",
            )
        return account

    def _check_namespace(self, account: dict[str, Any]) -> None:
        """Raise UskError unless the owner of a new repo is the user or one of the user's organizations."""
        owner, name = self.repo_id.split("/")
        listed = account.get("orgs")
        organizations = listed if isinstance(listed, list) else []
        owners = [account["name"], *(entry.get("name") for entry in organizations if isinstance(entry, dict))]
        if owner.lower() not in {str(entry).lower() for entry in owners}:
            raise UskError(
                f"{self.repo_id}: you are {account['name']} on the Hub and cannot make repos under {owner}",
                hint=f"Push to {account['name']}/{name}, or run `hf auth login` as {owner}.",
            )

    def _remote_files(self, commit: str) -> dict[str, Any]:
        """Return the repo's files at a commit by path. The client retries this itself."""
        from huggingface_hub.hf_api import RepoFile

        entries = self.api.list_repo_tree(**self.repo, revision=commit, recursive=True)
        return {entry.path: entry for entry in entries if isinstance(entry, RepoFile)}

    def _check_contents(self, remote: dict[str, Any]) -> None:
        """Raise UsageError if the repo holds something of another kind."""
        others = sorted(path for path in remote if not DEFAULT_FILES.fullmatch(path))
        if not others or self.bundle.kind.marker in remote:
            return
        holds = next((f"a {kind.name}" for kind in KINDS if kind.marker in remote), abbreviate_list(others))
        raise UsageError(
            f"{self.repo_id} holds {holds}, not a {self.bundle.kind.name}", hint="Push under another name."
        )

    def _check_card(self, commit: str) -> None:
        """Raise UskError if the card was edited on the Hub and the folder does not have the edited card."""
        from huggingface_hub import hf_hub_download

        file = self.call(hf_hub_download, **self.repo, filename=CARD_FILE, revision=commit)
        remote_card = Path(file).read_text(encoding="utf-8", errors="replace")
        (own_card,) = [file.content for file in self.bundle.files if file.path == CARD_FILE]
        if was_edited(remote_card) and unseal(remote_card) != unseal((own_card or b"").decode()):
            raise UskError(
                f"{self.repo_id}: the card {CARD_FILE} was edited on the Hub, and this push would overwrite it",
                hint=f"Copy it into {self.bundle.folder}, or delete it on the Hub.",
            )

    def _difference(self, remote: dict[str, Any]) -> tuple[list[SharedFile], list[str]]:
        """Return the files to upload, and the paths to delete. A card on the Hub is never deleted."""

        def is_same(file: SharedFile) -> bool:
            entry = remote.get(file.path)
            if entry is None or entry.size != file.size:
                return False
            return file.sha256 == entry.lfs.sha256 if entry.lfs else file.git_id() == entry.blob_id

        kept = {CARD_FILE, *(file.path for file in self.bundle.files)}
        delete = [path for path in remote if path not in kept and self.bundle.kind.files.fullmatch(path)]
        return [file for file in self.bundle.files if not is_same(file)], sorted(delete)

    def execute(self, plan: PushPlan) -> PushResult:
        from huggingface_hub.errors import HfHubHTTPError

        if plan.new_repo:
            plan = self._create_repo(plan)
        commit = str(plan.head)
        if plan.upload or plan.delete:
            try:
                commit = self._commit(plan)
                self._check_done(commit)
            except HfHubHTTPError as failure:
                if failure.response.status_code not in (409, 412):
                    raise
                # The branch has moved. If this very commit moved it, but its answer was lost, the push is done.
                new_plan = _Repo(self.api, self.bundle, self.repo_id, False, self.sleep).plan()
                if not new_plan.up_to_date:
                    raise
                commit = str(new_plan.head)
        return self.result(plan, commit)

    def _create_repo(self, plan: PushPlan) -> PushPlan:
        """Create the repo. Return the plan for the new repo."""
        from huggingface_hub.errors import HfHubHTTPError

        try:
            self.call(self.api.create_repo, **self.repo, private=self.private)
        except HfHubHTTPError as failure:
            if failure.response.status_code != 409:  # 409: it exists, perhaps made by a lost request
                raise
        new_plan = self.plan()
        if new_plan.new_repo:
            raise UskError(
                f"{self.repo_id} is taken by a private repo that {plan.account} may not see",
                hint="Push under another name.",
            )
        if new_plan.private != plan.private:
            raise UskError(
                f"{self.repo_id} appeared on the Hub meanwhile", hint="Run the same command again."
            )
        return new_plan

    def _commit(self, plan: PushPlan) -> str:
        """Upload the files, then make one commit with all of them. Return the commit's hash."""
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        deletions = [CommitOperationDelete(path, is_folder=False) for path in plan.delete]
        additions = [CommitOperationAdd(file.path, file.data) for file in plan.upload]
        try:
            info = self.call(
                self.api.create_commit,
                **self.repo,
                operations=[*deletions, *additions],
                commit_message=f"{self.bundle.kind.name}, pushed with usk",
                parent_commit=plan.head,
            )
        except ValueError as error:
            if "README.md" not in str(error):
                raise
            raise UskError(
                f"{self.repo_id}: the Hub refuses the card's metadata: {' '.join(str(error).splitlines()[1:])}"
            ) from error
        return str(info.oid)

    def _check_done(self, commit: str) -> None:
        """Raise UskError if files are missing after the push: a .gitignore in the repo silently excludes files."""
        missing, _ = self._difference(self._remote_files(commit))
        if missing:
            names = abbreviate_list([file.path for file in missing])
            raise UskError(
                f"{self.repo_id} lacks {names} after the push",
                hint="Delete the lines that match them in its .gitignore, and push again.",
            )

    def result(self, plan: PushPlan, commit: str) -> PushResult:
        return PushResult(
            repo_id=self.repo_id,
            kind=self.bundle.kind.name,
            url=plan.url,
            commit=commit,
            up_to_date=plan.up_to_date,
            uploaded=len(plan.upload),
            deleted=len(plan.delete),
        )
