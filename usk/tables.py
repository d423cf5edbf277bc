"""`Table`: results as text, to be shown in a terminal (`usk.cli.display`), in the HTML report and in Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Column:
    """One column. Text is left-aligned and may wrap; numbers are right-aligned."""

    header: str
    numeric: bool = False
    priority: int = 0  # a narrow terminal leaves out columns with the highest number first, never 0


@dataclass(frozen=True)
class Table:
    """A titled table of text; each row has a cell for each column."""

    title: str
    columns: tuple[Column, ...]
    rows: list[tuple[str, ...]] = field(default_factory=list)
    notes: tuple[str, ...] = ()  # sentences below the table
    n_repeated: int = 0  # leading columns to repeat in each part of a wide table; 0: never split it

    def add(self, *cells: object) -> None:
        """Add a row. Raises ValueError if it does not have a cell for each column."""
        if len(cells) != len(self.columns):
            raise ValueError(f"{len(cells)} cells for {len(self.columns)} columns")
        self.rows.append(tuple(str(cell) for cell in cells))


def columns(*names: str, numbers: Sequence[str] = ()) -> tuple[Column, ...]:
    """Return text columns for `names`, followed by numeric columns for `numbers`."""
    return (*(Column(name) for name in names), *(Column(name, numeric=True) for name in numbers))


def markdown(table: Table) -> str:
    """Return the table without its title as GitHub-flavored Markdown. In cells only `|` and line breaks are escaped."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"

    rule = "|" + "|".join("---:" if column.numeric else "---" for column in table.columns) + "|"
    return "\n".join([line([column.header for column in table.columns]), rule, *map(line, table.rows)])
