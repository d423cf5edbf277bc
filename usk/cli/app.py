"""The `usk` command: nothing heavy is imported before a command runs."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from usk import __version__
from usk.cli import audit, demo, evaluate, fit, info, predict, push, report, synth, train
from usk.cli.errors import Commands, guarded

app = typer.Typer(
    name="usk",
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Urban sound kit: synthetic training clips by diffusion, and an honest answer to whether they help.",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"usk {__version__}")
        raise typer.Exit


@app.callback()
def common(
    ctx: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print results as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No notes, no progress.")] = False,
) -> None:
    ctx.obj = {"json": as_json, "quiet": quiet}


app.command("demo")(demo.command)
app.command("synth")(synth.command)
app.command("train")(train.command)
app.command("eval")(evaluate.command)
app.command("predict")(predict.command)
app.command("audit")(audit.command)
app.command("report")(report.command)
app.command("fit")(fit.command)
app.command("push")(push.command)
app.command("info")(info.command)


def main() -> None:
    """The entry point of the `usk` script."""
    sys.exit(guarded(app))


if __name__ == "__main__":
    main()
