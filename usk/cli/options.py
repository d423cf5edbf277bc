"""Options that mean the same in every command, and what they resolve to."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Option

if TYPE_CHECKING:
    from usk.cli.display import Display
    from usk.data.source import Source

RealOption = Annotated[
    str | None,
    Option(
        metavar="SRC",
        help="Real clips: a folder, a Hub id, or demo. \\[default: $USK_REAL, else the Hub's UrbanSound8K]",
    ),
]
ModelOption = Annotated[
    str, Option(help="Generator: auto, embedded, a pipeline folder, or a Hub id\\[@revision].")
]
DeviceOption = Annotated[str, Option(help="auto, cpu or cuda.")]
PromptOption = Annotated[
    str | None,
    Option(
        metavar="TEXT|FILE",
        help="For text-to-audio models: a text with {class} in it, or a TOML or CSV file. \\[default: a field recording of {class}]",
    ),
]
PartOption = Annotated[
    str | None,
    Option(
        metavar="K/N",
        help="Do the K-th of N parts of the job: for N machines that share a folder, such as a Slurm array.",
    ),
]
EngineOption = Annotated[str, Option(help="Who does the work: local (this machine), or ray (a Ray cluster).")]
SkipBadOption = Annotated[
    bool, Option("--skip-bad", help="Leave out clips that are missing or cannot be used.")
]
ColumnsOption = Annotated[
    str | None,
    Option(
        metavar="NAME=COLUMN,...",
        help="Columns of a table or dataset that are not found by name, such as label=category,group=fsID,fold=split.",
    ),
]
COLUMN_NAMES = ("audio", "label", "group", "fold")


@dataclass(frozen=True)
class Reading:
    """How the sources of a command are to be read: what `--skip-bad` and `--columns` say."""

    skip_bad: bool
    columns: dict[str, Any]  # as `open_source` takes them: `label_column`, ...

    @classmethod
    def of(cls, columns: str | None, skip_bad: bool = True) -> Reading:
        """`columns` is text such as `label=word,group=speaker`."""
        from usk.errors import UsageError

        found: dict[str, Any] = {}
        for entry in split_names(columns):
            name, _, column = (part.strip() for part in entry.partition("="))
            if not column or name not in COLUMN_NAMES:
                raise UsageError(
                    f"{entry} is not one of {', '.join(f'{known}=COLUMN' for known in COLUMN_NAMES)}",
                    field="columns",
                    hint="Write for example label=category,group=fsID.",
                )
            found[f"{name}_column"] = column
        return cls(skip_bad, found)

    def open(self, location: str | None, field: str = "real") -> Source:
        """The real clips at `location`, else where `$USK_REAL` says, else the Hub's. `field` is the parameter that names it."""
        from usk.data.location import default_real, refuse_missing

        place = default_real() if location is None else location
        refuse_missing(place, field)  # before numpy and pyarrow are imported
        from usk.data.open import open_source

        return open_source(place, skip_bad=self.skip_bad, field=field, **self.columns)

    @property
    def given(self) -> str:
        """What was given, for the next command: ` --skip-bad --columns label=word`."""
        columns = ",".join(f"{name.removesuffix('_column')}={of}" for name, of in self.columns.items())
        return (" --skip-bad" if self.skip_bad else "") + (f" --columns {typed(columns)}" if columns else "")


def typed(name: str) -> str:
    """A path or another name as a shell takes it for one: quoted, and no option where it begins with a dash."""
    return shlex.quote(f"./{name}" if name.startswith("-") else name)


def display_for(ctx: typer.Context) -> Display:
    """Where to write, as `--json` and `--quiet` say, wherever they stand on the command line."""
    from usk.cli.display import Display

    common: dict[str, Any] = ctx.obj or {}
    display = Display(common.get("json", False), common.get("quiet", False), common.get("names"))
    display.verbose = common.get("verbose", False)
    if display.hides_progress:  # of the Hub's client too, which asks as it is imported
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    return display


def split_names(text: str | None) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip()) if text else ()


def split_numbers(text: str | None, field: str) -> tuple[int, ...]:
    """`1,3` as numbers, each once."""
    from usk.errors import UsageError

    try:
        if text is not None and not split_names(text):
            raise ValueError
        return tuple(dict.fromkeys(int(name) for name in split_names(text)))
    except ValueError:
        raise UsageError(
            "not fold numbers", field=field, value=text, hint="Join them by commas, for example 1,3."
        ) from None
