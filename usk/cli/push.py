"""`usk push`: share a dataset, a classifier or a generator on the Hugging Face Hub."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from usk.cli.options import display_for

if TYPE_CHECKING:
    from usk.push import PushPlan

NOT_PUSHED = 1


def command(
    ctx: typer.Context,
    folder: Annotated[
        str, typer.Argument(metavar="FOLDER", help="A synthetic dataset, a run, or a generator.")
    ],
    repo_id: Annotated[str, typer.Argument(metavar="USER/NAME", help="The repo; made if it is not there.")],
    private: Annotated[bool, typer.Option("--private", help="Make a new repo visible to you alone.")] = False,
    revision: Annotated[
        str | None, typer.Option("--revision", help="Branch to push to; made if it is not there.")
    ] = None,
    tag: Annotated[
        str | None, typer.Option("--tag", help="Name the pushed state, to be used as user/name@TAG.")
    ] = None,
    message: Annotated[str | None, typer.Option("--message", "-m", help="What changed.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Push without asking.")] = False,
) -> None:
    """Share a folder on the Hugging Face Hub, after showing what would be pushed.

    Log in with `hf auth login`, or set HF_TOKEN. Run it again after an interruption and it goes on.
    """
    display = display_for(ctx)
    from usk.cli.display import facts_table
    from usk.errors import UsageError
    from usk.push import PushConfig, push
    from usk.text import pluralize

    config = PushConfig(private=private, revision=revision, tag=tag, message=message)

    with contextlib.ExitStack() as bars:  # no bar moves while someone is being asked
        uploading: list[Callable[..., None]] = []

        def confirm(plan: PushPlan) -> bool:
            bars.close()
            if not (display.quiet and yes):
                display.before(facts_table("to push", plan.facts))
            for note in plan.bundle.notes:
                display.warn(note)
            if yes:
                return True
            if not sys.stdin.isatty():
                raise UsageError(
                    "nothing was pushed, for there is no terminal to ask on; add --yes to push this"
                )
            return typer.confirm("Push this?", err=True)

        def progress(done: int, of: int, text: str) -> None:
            if not uploading:
                uploading.append(bars.enter_context(display.progress())("uploading"))
            uploading[0](done, of, text)

        checking = bars.enter_context(display.progress())("checking")
        result = push(folder, repo_id, config, confirm=confirm, checking=checking, progress=progress)
    if result is None:
        display.note("nothing was pushed")
        raise typer.Exit(NOT_PUSHED)
    facts = {
        "repo": result.url,
        "commit": result.commit,
        "branch": result.branch,
        **({"tag": result.tag} if result.tag else {}),
        "uploaded": pluralize(result.uploaded, "file") if result.uploaded else "nothing",
        **({"deleted": pluralize(result.deleted, "file")} if result.deleted else {}),
    }
    title = f"{result.repo_id} is already up to date" if result.up_to_date else f"pushed {result.repo_id}"
    display.result(result.as_dict(), facts_table(title, facts), f"Next: {result.use}")
