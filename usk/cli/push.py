"""`usk push`: share a dataset, a classifier or a generator on the Hugging Face Hub."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Option

from usk.cli.options import display_for

if TYPE_CHECKING:
    from usk.push_plan import PushPlan

NOT_PUSHED = 1  # exit code
NEXT = {
    "synthetic dataset": "usk train --mix real,{id}",
    "run": "usk predict {id} FILE",
    "generator": "usk synth --model {id}",
    "adapter": "usk synth --model {id}",
}


def command(
    ctx: typer.Context,
    folder: Annotated[
        str, typer.Argument(metavar="FOLDER", help="A synthetic dataset, a run, or a generator.")
    ],
    repo_id: Annotated[str, typer.Argument(metavar="USER/NAME", help="The repo; made if it does not exist.")],
    private: Annotated[bool, Option("--private", help="Make a new repo visible to you alone.")] = False,
    yes: Annotated[bool, Option("--yes", "-y", help="Push without asking.")] = False,
) -> None:
    """Share a folder on the Hugging Face Hub, after showing what would be pushed.

    Log in with `hf auth login`, or set HF_TOKEN. Run it again after an interruption and it goes on.
    """
    display = display_for(ctx)
    from usk.cli.display import facts_table
    from usk.errors import UsageError
    from usk.push import push
    from usk.text import pluralize

    def confirm(plan: PushPlan) -> bool:
        if not (display.quiet and yes):
            display.show_before_prompt(facts_table("to push", plan.facts))
        if yes:
            return True
        if not sys.stdin.isatty():
            raise UsageError(
                "nothing was pushed: there is no terminal to ask on", hint="Add --yes to push this."
            )
        return typer.confirm("Push this?", err=True)

    result = push(folder, repo_id, private=private, confirm=confirm, reporter=display)
    if result is None:
        display.note("nothing was pushed")
        raise typer.Exit(NOT_PUSHED)
    facts = {
        "repo": result.url,
        "commit": result.commit,
        "uploaded": pluralize(result.uploaded, "file") if result.uploaded else "nothing",
        **({"deleted": pluralize(result.deleted, "file")} if result.deleted else {}),
    }
    title = f"{result.repo_id} is already up to date" if result.up_to_date else f"pushed {result.repo_id}"
    use = NEXT[result.kind].format(id=result.repo_id)
    display.result({**vars(result), "use": use}, facts_table(title, facts), f"Next: {use}")
