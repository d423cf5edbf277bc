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


EPILOG = "--json prints the result as JSON, --quiet (-q) no notes and no progress: of every command."
COMMANDS = {
    "demo": demo.command,
    "synth": synth.command,
    "train": train.command,
    "eval": evaluate.command,
    "predict": predict.command,
    "audit": audit.command,
    "report": report.command,
    "fit": fit.command,
    "push": push.command,
    "info": info.command,
}
for name, command in COMMANDS.items():
    app.command(name, epilog=EPILOG)(command)


def main() -> None:
    """The entry point of the `usk` script."""
    sys.exit(guarded(app))


if __name__ == "__main__":
    main()
