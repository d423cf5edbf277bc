"""Options that mean the same in every command, and what they resolve to."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from usk.show.console import Display

DEFAULT_REAL = "danavery/urbansound8K"

RealOption = Annotated[
    str | None,
    typer.Option(
        "--real",
        metavar="SRC",
        help="Real clips: a folder, a Hub id, or demo. \\[default: $USK_REAL, else the Hub's UrbanSound8K]",
    ),
]
ModelOption = Annotated[
    str,
    typer.Option("--model", help="Generator: auto, embedded, a pipeline folder, or a Hub id\\[@revision]."),
]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")]
SeedOption = Annotated[int, typer.Option("--seed", help="What the plan is drawn with.")]
SkipBadOption = Annotated[
    bool, typer.Option("--skip-bad", help="Leave out clips that are missing or cannot be used.")
]
LabelColumnOption = Annotated[str | None, typer.Option("--label-column", help="Label column of a dataset.")]
GroupColumnOption = Annotated[
    str | None, typer.Option("--group-column", help="Column that names each clip's recording.")
]
FoldColumnOption = Annotated[str | None, typer.Option("--fold-column", help="Fold column of a dataset.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No notes, no progress.")]


def real_location(given: str | None) -> str:
    return given or os.environ.get("USK_REAL") or DEFAULT_REAL


def display_for(ctx: typer.Context, as_json: bool, quiet: bool) -> Display:
    """Where to write; `usk --json CMD` and `usk CMD --json` mean the same."""
    from usk.show.console import Display

    above: dict[str, Any] = ctx.obj or {}
    return Display(as_json or above.get("json", False), quiet or above.get("quiet", False))


def split_names(text: str | None) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip()) if text else ()


def split_numbers(text: str | None, flag: str) -> tuple[int, ...]:
    """`1,3` as numbers."""
    from usk.errors import UsageError

    try:
        return tuple(int(name) for name in split_names(text))
    except ValueError:
        raise UsageError(
            f"{flag} {text}: write fold numbers joined by commas, for example {flag} 1,3"
        ) from None
