"""`usk.push`: a folder onto the Hugging Face Hub in one commit, so that a repo is never half of what it was or will be.

The plan is the difference between the folder's files and the repo's. Large files are uploaded before the commit that names them: a
push that was cut leaves the repo as it was, and the next one does not upload them again.
"""

from __future__ import annotations

import os
import re
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
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

MAIN = "main"
# In a repo that holds nothing yet
BY_THE_WAY = re.compile(r"\.gitattributes|\.gitignore|README\.md|LICENSE(\.\w+)?")
BATCH_FILES, BATCH_BYTES = 8, 64 * 2**20  # uploaded between two steps of the progress
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

    Afterwards the repo holds exactly the folder's files of that kind, beside files of other names that were there. Ask
    `confirm` first, unless there is nothing to do; None if it says no. A new repo is visible to its owner alone if it is to be
    `private`. `sleep` waits between tries, in seconds.

    Raises: UsageError, UskError.
    """
    reporter = reporter or Reporter()
    _check_repo_id(repo_id)
    bundle = open_bundle(os.fspath(folder), repo_id, reporter)
    from huggingface_hub import HfApi

    from usk import __version__

    api = HfApi(token=True, library_name="usk", library_version=__version__)
    repo = _Repo(api, bundle, repo_id, private, sleep)
    with hub_errors(repo_id, AGAIN, UskError, writing=True), _quiet_client():
        plan = repo.plan()
        if plan.up_to_date:
            return repo.result(plan, str(plan.head))
        return repo.carry_out(plan, reporter) if confirm(plan) else None


def _check_repo_id(repo_id: str) -> None:
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    name, at, _ = repo_id.partition("@")
    if at:
        raise UsageError(
            f"{repo_id} names a revision",
            hint=f"Push to {name}, and make tags with `hf repos tag create`.",
        )
    with suppress(HFValidationError):
        validate_repo_id(repo_id)
        if repo_id.count("/") == 1:
            return
    raise UsageError(
        f"{repo_id!r} is not a name of a repo, which looks like user/name (letters, digits, - _ .)"
    )


class _Repo:
    """One push's view of one repo."""

    def __init__(
        self, api: HfApi, bundle: Bundle, repo_id: str, private: bool, sleep: Callable[[float], object]
    ) -> None:
        self.api, self.bundle, self.repo_id, self.private, self.sleep = api, bundle, repo_id, private, sleep
        self.here: dict[str, Any] = {"repo_id": repo_id, "repo_type": bundle.kind.repo_type}

    def call(self, method: Callable[..., T], **arguments: Any) -> T:
        """A call that the client does not repeat by itself."""
        return retried(partial(method, **arguments), self.sleep)

    # --- what is to be done, and all that can be known beforehand to go wrong ---

    def plan(self) -> PushPlan:
        from huggingface_hub.errors import RepositoryNotFoundError

        account = self._account()
        try:
            info = self.call(self.api.repo_info, **self.here)
        except RepositoryNotFoundError:
            self._check_namespace(account)
            info = None
        head: str | None = None
        there = dict[str, Any]()
        if info is not None:
            head = str(info.sha)
            there = self._files(head)
            self._check_contents(there)
            if self.private and not info.private:
                raise UsageError(
                    f"{self.repo_id} is public already",
                    field="private",
                    hint="Make it private in its settings on the Hub first, or leave this out.",
                )
        upload, delete = self._difference(there)
        if any(file.path == CARD_FILE for file in upload) and CARD_FILE in there:
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
        account = self.call(self.api.whoami)
        if not isinstance(account, dict) or not isinstance(account.get("name"), str):
            raise UskError("the Hub does not say whose account this is", hint="Try again later.")
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
        """A repo that is not there can be made under one's own name or an organization's."""
        owner, name = self.repo_id.split("/")
        listed = account.get("orgs")
        organizations = listed if isinstance(listed, list) else []
        mine = [account["name"], *(entry.get("name") for entry in organizations if isinstance(entry, dict))]
        if owner.lower() not in {str(entry).lower() for entry in mine}:
            raise UskError(
                f"{self.repo_id}: you are {account['name']} on the Hub and cannot make repos under {owner}",
                hint=f"Push to {account['name']}/{name}, or run `hf auth login` as {owner}.",
            )

    def _files(self, commit: str) -> dict[str, Any]:
        """The repo's files at a commit."""
        from huggingface_hub.hf_api import RepoFile

        # It tries again by itself
        entries = self.api.list_repo_tree(**self.here, revision=commit, recursive=True)
        return {entry.path: entry for entry in entries if isinstance(entry, RepoFile)}

    def _check_contents(self, there: dict[str, Any]) -> None:
        """A name that is taken by something else is not overwritten."""
        others = sorted(path for path in there if not BY_THE_WAY.fullmatch(path))
        if not others or self.bundle.kind.marker in there:
            return
        holds = next((f"a {kind.name}" for kind in KINDS if kind.marker in there), abbreviate_list(others))
        raise UsageError(
            f"{self.repo_id} holds {holds}, not a {self.bundle.kind.name}", hint="Push under another name."
        )

    def _check_card(self, commit: str) -> None:
        """A card that somebody wrote on the Hub, and which the folder does not have, is not overwritten."""
        from huggingface_hub import hf_hub_download

        file = self.call(hf_hub_download, **self.here, filename=CARD_FILE, revision=commit)
        theirs = Path(file).read_text(encoding="utf-8", errors="replace")
        (ours,) = [file.content for file in self.bundle.files if file.path == CARD_FILE]
        if was_edited(theirs) and unseal(theirs) != unseal((ours or b"").decode()):
            raise UskError(
                f"{self.repo_id}: the card {CARD_FILE} was edited on the Hub, and this push would overwrite it",
                hint=f"Copy it into {self.bundle.folder}, or delete it on the Hub.",
            )

    def _difference(self, there: dict[str, Any]) -> tuple[list[SharedFile], list[str]]:
        """Files that the repo lacks or has otherwise, and files of this kind that the folder no longer has."""

        def same(file: SharedFile) -> bool:
            entry = there.get(file.path)
            if entry is None or entry.size != file.size:
                return False
            return file.sha256 == entry.lfs.sha256 if entry.lfs else file.git_id() == entry.blob_id

        # A card that someone wrote on the Hub is not deleted for the lack of one here.
        kept = {CARD_FILE, *(file.path for file in self.bundle.files)}
        gone = [path for path in there if path not in kept and self.bundle.kind.files.fullmatch(path)]
        return [file for file in self.bundle.files if not same(file)], sorted(gone)

    # --- doing it ---

    def carry_out(self, plan: PushPlan, reporter: Reporter) -> PushResult:
        from huggingface_hub.errors import HfHubHTTPError

        if plan.new_repo:
            plan = self._create_repo(plan)
        commit = str(plan.head)
        if plan.upload or plan.delete:
            try:
                commit = self._commit(plan, reporter)
                self._check_done(commit)
            except HfHubHTTPError as failure:
                if failure.response.status_code not in (409, 412):
                    raise
                # The branch moved: perhaps by this very commit, whose answer was lost. If so, all is well.
                fresh = _Repo(self.api, self.bundle, self.repo_id, False, self.sleep).plan()
                if not fresh.up_to_date:
                    raise
                commit = str(fresh.head)
        return self.result(plan, commit)

    def _create_repo(self, plan: PushPlan) -> PushPlan:
        """Make the repo; the plan against it."""
        from huggingface_hub.errors import HfHubHTTPError

        try:
            self.call(self.api.create_repo, **self.here, private=self.private)
        except HfHubHTTPError as failure:
            if failure.response.status_code != 409:  # made meanwhile, perhaps by a try whose answer was lost
                raise
        fresh = self.plan()
        if fresh.new_repo:
            raise UskError(
                f"{self.repo_id} is taken by a private repo that {plan.account} may not see",
                hint="Push under another name.",
            )
        if fresh.private != plan.private:
            raise UskError(
                f"{self.repo_id} appeared on the Hub meanwhile", hint="Run the same command again."
            )
        return fresh

    def _commit(self, plan: PushPlan, reporter: Reporter) -> str:
        """Upload, a few files at a time, and commit all of it at once. Returns the commit."""
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        total, done = sum(file.size for file in plan.upload), 0
        operations: list[Any] = [CommitOperationDelete(path, is_folder=False) for path in plan.delete]
        with reporter.task("uploading", "MB", total // 10**6) as task:
            for batch in batches(plan.upload):
                task.update(done // 10**6, text=f"uploading {batch[0].path}")
                new = [CommitOperationAdd(file.path, file.data) for file in batch]
                self.api.preupload_lfs_files(  # which tries again by itself
                    self.repo_id, new, repo_type=self.here["repo_type"], revision=MAIN
                )
                operations += new
                done += sum(file.size for file in batch)
            task.update(total // 10**6, text="committing")
            try:
                info = self.call(
                    self.api.create_commit,
                    **self.here,
                    operations=operations,
                    commit_message=f"{self.bundle.kind.name}, pushed with usk",
                    revision=MAIN,
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
        """The commit holds what it should: a repo's own .gitignore can keep files out without a word."""
        upload, _ = self._difference(self._files(commit))
        if upload:
            names = abbreviate_list([file.path for file in upload])
            raise UskError(
                f"{self.repo_id} lacks {names} after the push",
                hint="Delete what names them in its .gitignore, and push again.",
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


def batches(files: tuple[SharedFile, ...]) -> Iterator[list[SharedFile]]:
    """Files in order, a few or some megabytes at a time."""
    batch: list[SharedFile] = []
    for file in files:
        if batch and (len(batch) == BATCH_FILES or sum(one.size for one in batch) + file.size > BATCH_BYTES):
            yield batch
            batch = []
        batch.append(file)
    if batch:
        yield batch


@contextmanager
def _quiet_client() -> Iterator[None]:
    """The client's own bars would tear ours; its advice about Parquet in a model repo is not for users."""
    from huggingface_hub import utils

    shown = not utils.are_progress_bars_disabled()
    if shown:
        utils.disable_progress_bars()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "It seems that you are about to commit a data file")
            yield
    finally:
        if shown:
            utils.enable_progress_bars()
