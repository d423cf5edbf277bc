"""Results as plain tables: built once, then shown in a terminal (`usk.cli.display`), in the HTML report and in Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Column:
    """One column: names are left-aligned and may wrap, numbers are right-aligned."""

    header: str
    numeric: bool = False
    # Where room is short, columns with the highest number are left out first; 0 always stays
    priority: int = 0


@dataclass(frozen=True)
class Table:
    """A titled table of text; each row has a cell for each column."""

    title: str
    columns: tuple[Column, ...]
    rows: list[tuple[str, ...]] = field(default_factory=list)
    notes: tuple[str, ...] = ()  # sentences below the table
    # Leading columns that each part repeats where a wide table is split; 0: it is not split
    n_repeated: int = 0

    def add(self, *cells: object) -> None:
        """Add a row. Raises ValueError if it does not have a cell for each column."""
        if len(cells) != len(self.columns):
            raise ValueError(f"{len(cells)} cells for {len(self.columns)} columns")
        self.rows.append(tuple(str(cell) for cell in cells))


def columns(*names: str, numbers: Sequence[str] = ()) -> tuple[Column, ...]:
    """Columns of names, then of numbers."""
    return (*(Column(name) for name in names), *(Column(name, numeric=True) for name in numbers))


def markdown(table: Table) -> str:
    """The table as GitHub-flavored Markdown, without its title; cells are taken as they are, but for `|` and line breaks."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"

    rule = "|" + "|".join("---:" if column.numeric else "---" for column in table.columns) + "|"
    return "\n".join([line([column.header for column in table.columns]), rule, *map(line, table.rows)])
