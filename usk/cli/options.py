"""Options that mean the same in every command, and what they resolve to."""

from __future__ import annotations

import functools
import inspect
import os
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from usk.cli.display import Display
    from usk.data.source import Source

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
SeedOption = Annotated[
    int,
    typer.Option("--seed", help="What the plan is drawn with; with --train-clips the first draw of them."),
]
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


@dataclass(frozen=True)
class Reading:
    """How the sources of a command are to be read: what `--skip-bad` and the column options say."""

    skip_bad: bool = False
    label_column: str | None = None
    group_column: str | None = None
    fold_column: str | None = None

    def open(self, location: str | None, flag: str = "--real") -> Source:
        """The real clips at `location`, else where `$USK_REAL` says, else the Hub's. `flag` named it, for messages."""
        from usk.data.open import open_source

        return open_source(
            real_location(location),
            skip_bad=self.skip_bad,
            label_column=self.label_column,
            group_column=self.group_column,
            fold_column=self.fold_column,
            flag=flag,
        )

    @property
    def given(self) -> str:
        """What was said, for the next command to be told too: ` --skip-bad --label-column word`."""
        columns = {
            "--label-column": self.label_column,
            "--group-column": self.group_column,
            "--fold-column": self.fold_column,
        }
        named = [f" {flag} {typed(name)}" for flag, name in columns.items() if name is not None]
        return "".join([*([" --skip-bad"] if self.skip_bad else []), *named])


def typed(name: str) -> str:
    """A path or another name as a shell takes it for one: quoted, and no option where it begins with a dash."""
    return shlex.quote(f"./{name}" if name.startswith("-") else name)


READING_OPTIONS = {
    "skip_bad": (SkipBadOption, False),
    "label_column": (LabelColumnOption, None),
    "group_column": (GroupColumnOption, None),
    "fold_column": (FoldColumnOption, None),
}


def reads_clips(*, skip_bad: bool | None = None) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """For a command with a parameter `reading: Reading`: in its place stand the options that say how to read clips.

    `skip_bad` given is what it always is, without an option.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        options = {name: it for name, it in READING_OPTIONS.items() if skip_bad is None or name != "skip_bad"}

        @functools.wraps(command)
        def wrapped(*args: Any, **kwargs: Any) -> None:
            chosen = {name: kwargs.pop(name) for name in options}
            command(*args, **kwargs, reading=Reading(**{"skip_bad": bool(skip_bad), **chosen}))

        own = inspect.signature(command, eval_str=True)
        parameters = []
        for parameter in own.parameters.values():
            if parameter.name == "reading":
                parameters += [
                    inspect.Parameter(name, parameter.kind, default=default, annotation=annotation)
                    for name, (annotation, default) in options.items()
                ]
            else:
                parameters.append(parameter)
        wrapped.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
        return wrapped

    return decorate


def real_location(given: str | None) -> str:
    return given if given is not None else os.environ.get("USK_REAL") or DEFAULT_REAL


def display_for(ctx: typer.Context, as_json: bool, quiet: bool) -> Display:
    """Where to write; `usk --json CMD` and `usk CMD --json` mean the same."""
    from usk.cli.display import Display

    above: dict[str, Any] = ctx.obj or {}
    display = Display(as_json or above.get("json", False), quiet or above.get("quiet", False))
    if display.hides_progress:  # of the Hub's client too, which asks as it is imported
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    return display


def split_names(text: str | None) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip()) if text else ()


def split_numbers(text: str | None, flag: str) -> tuple[int, ...]:
    """`1,3` as numbers, each once."""
    from usk.errors import UsageError

    try:
        if text is not None and not split_names(text):
            raise ValueError
        return tuple(dict.fromkeys(int(name) for name in split_names(text)))
    except ValueError:
        raise UsageError(
            f"{flag} {text}: write fold numbers joined by commas, for example {flag} 1,3"
        ) from None
