"""The `usk` command. Heavy imports wait until a command runs."""

from __future__ import annotations

import atexit
import gc
import sys
from collections.abc import Callable
from typing import Annotated

import typer
from typer import Option

from usk import __version__
from usk.cli import audit, demo, evaluate, fit, info, predict, push, report, study, synth, train
from usk.cli.errors import Commands, guarded
from usk.cli.help import Command
from usk.cli.remote import takes_urls

app = typer.Typer(
    name="usk",
    cls=Commands,
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    help="Urban sound kit: synthetic training clips by diffusion, and an honest answer to whether they help.",
)


BEGIN = """usk, the urban sound kit. Begin with one of these:

  usk demo                   the whole job on built-in sounds, offline, in two to five minutes
  usk info FOLDER            what usk reads in a folder of your own clips
  usk synth --real FOLDER    synthetic clips made from them
  usk --help                 all commands"""


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"usk {__version__}")
        raise typer.Exit


@app.callback()
def common(
    ctx: typer.Context,
    version: Annotated[  # noqa: ARG001
        bool, Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    as_json: Annotated[bool, Option("--json", help="Print results as JSON.")] = False,
    quiet: Annotated[bool, Option("--quiet", "-q", help="No notes, no progress.")] = False,
    verbose: Annotated[bool, Option("--verbose", help="Name every setting.")] = False,
) -> None:
    ctx.obj = {"json": as_json, "quiet": quiet, "verbose": verbose}
    if ctx.invoked_subcommand is None:
        typer.echo(BEGIN)


COMMANDS: dict[str, tuple[Callable[..., None], list[str]]] = {
    "demo": (demo.command, ["usk demo"]),
    "synth": (synth.command, ["usk synth --real sounds --per-class 50", "usk synth --real sounds --dry-run"]),
    "train": (
        train.command,
        ["usk train --real sounds --mix real,synth", "usk train --mix real,synth --augment strong --seeds 3"],
    ),
    "eval": (evaluate.command, ["usk eval", "usk eval runs --json"]),
    "predict": (
        predict.command,
        ["usk predict runs/RUN clip.wav", "usk predict runs/RUN clips --csv out.csv"],
    ),
    "audit": (audit.command, ["usk audit synth --real sounds", "usk audit synth --test-folds 2"]),
    "report": (report.command, ["usk report", "usk report runs --out page.html"]),
    "fit": (fit.command, ["usk fit --real sounds --test-folds 1", "usk fit --from embedded --minutes 30"]),
    "study": (study.command, ["usk study study.toml --dry-run", "usk study study.toml --work runs"]),
    "push": (
        push.command,
        ["usk push synth user/urban-synth", "usk push runs/RUN user/classifier --private"],
    ),
    "info": (info.command, ["usk info sounds", "usk info embedded"]),
}
FLAGS = "--json prints the result as JSON; --quiet (-q) no notes and no progress; --verbose every setting."
for name, (command, examples) in COMMANDS.items():
    epilog = "\n\n".join(("For example:", *examples, FLAGS))
    app.command(name, cls=Command, epilog=epilog)(takes_urls(name, command))


def main() -> None:
    """The entry point of the `usk` script."""
    gc.set_threshold(100_000)  # importing torch and diffusers takes a fifth less time
    atexit.register(gc.freeze)  # or Python's exit looks through all of torch for cycles, which takes a second
    sys.exit(guarded(app))


if __name__ == "__main__":
    main()
