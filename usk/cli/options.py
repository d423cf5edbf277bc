"""Options that several commands share, and their parsing."""

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
EngineOption = Annotated[str, Option(help="Where to run: local (this machine), or ray (a Ray cluster).")]
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
class ReadOptions:
    """The options for reading sources: `--skip-bad` and `--columns`."""

    skip_bad: bool
    columns: dict[str, Any]  # arguments of `open_source`, such as `label_column`

    @classmethod
    def parse(cls, columns: str | None, skip_bad: bool = True) -> ReadOptions:
        """Parse `columns`, such as `label=word,group=speaker`. Raises UsageError."""
        from usk.errors import UsageError

        parsed: dict[str, Any] = {}
        for entry in split_names(columns):
            name, _, column = (part.strip() for part in entry.partition("="))
            if not column or name not in COLUMN_NAMES:
                raise UsageError(
                    f"{entry} is not one of {', '.join(f'{known}=COLUMN' for known in COLUMN_NAMES)}",
                    field="columns",
                    hint="Write for example label=category,group=fsID.",
                )
            parsed[f"{name}_column"] = column
        return cls(skip_bad, parsed)

    def open(self, location: str | None, field: str = "real") -> Source:
        """Open the real clips at `location`, or by default at `$USK_REAL`, or on the Hub. Errors name the parameter `field`."""
        from usk.data.location import default_real, refuse_missing

        if location is None:
            location = default_real()
        refuse_missing(location, field)  # before numpy and pyarrow are imported
        from usk.data.open import open_source

        return open_source(location, skip_bad=self.skip_bad, field=field, **self.columns)

    def as_text(self, **more: str | None) -> str:
        """Return the options, and `more` that are given, as text for a suggested command: ` --real sounds --skip-bad`."""
        options = "".join(
            f" --{name.replace('_', '-')} {shell_quoted(value)}" for name, value in more.items() if value
        )
        columns = ",".join(f"{name.removesuffix('_column')}={of}" for name, of in self.columns.items())
        skip_bad = " --skip-bad" if self.skip_bad else ""
        return options + skip_bad + (f" --columns {shell_quoted(columns)}" if columns else "")


def shell_quoted(name: str) -> str:
    """Quote a name for a shell. A leading dash gets `./` in front, so that it is not taken for an option."""
    return shlex.quote(f"./{name}" if name.startswith("-") else name)


def display_for(ctx: typer.Context) -> Display:
    """Create the display with the common flags: `--json`, `--quiet`, `--verbose`."""
    from usk import hub
    from usk.cli.display import Display

    common: dict[str, Any] = ctx.obj or {}
    display = Display(common.get("json", False), common.get("quiet", False), common.get("urls"))
    display.verbose = common.get("verbose", False)
    if display.hides_progress:  # the Hub's client reads this when it is imported
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    display.show_working()
    hub.client_at_work = display.without_working
    ctx.call_on_close(display.close)  # before an error is printed
    return display


def split_names(text: str | None) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip()) if text else ()


def split_numbers(text: str | None, field: str) -> tuple[int, ...]:
    """Parse `1,3` as distinct numbers. Raises UsageError."""
    from usk.errors import UsageError

    try:
        if text is not None and not split_names(text):
            raise ValueError
        return tuple(dict.fromkeys(int(name) for name in split_names(text)))
    except ValueError:
        raise UsageError(
            "is not a list of fold numbers",
            field=field,
            value=text,
            hint="Join them by commas, for example 1,3.",
        ) from None
