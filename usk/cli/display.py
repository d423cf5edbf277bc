"""Print tables, notes and progress bars. Only this module imports rich.

Results go to standard output and everything else to standard error, so that the output of `--json` can be piped.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import rich.progress
from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.markup import escape as escape_markup
from rich.progress import BarColumn, Progress, ProgressColumn, TaskID, TextColumn
from rich.table import Column, Table
from rich.text import Text

from usk import tables
from usk.cli.remote import replace_folders
from usk.reporter import Reporter, Task
from usk.text import about, format_progress

# Seconds between two lines of progress in a log: if another tenth is done, and in any case.
LOG_TENTH_S, LOG_EVERY_S = 5.0, 60.0
LOG_WIDTH = 120  # of output that is not a terminal, unless $COLUMNS is set
MIX_WIDTH = 16
LONG_NAME = 40  # a longer name may wrap
GAP = 2  # between columns


def escape(text: str) -> str:
    """Escape markup and replace control characters, so that rich prints `text` literally."""
    safe = (character if character.isprintable() or character == "\n" else "\ufffd" for character in text)
    return escape_markup("".join(safe))


def _print(console: Console, content: RenderableType, is_log: bool = False) -> None:
    """Print, but do not wrap what users copy: commands, paths longer than a line, and the lines of a log."""
    is_copied = isinstance(content, str) and (
        content.lstrip().startswith(("Next", "usk "))
        or max(map(len, content.split()), default=0) > console.width
    )
    console.print(content, soft_wrap=is_log or is_copied)


class Display(Reporter):
    """Prints notes and progress to standard error: `usk.train(..., reporter=usk.Display())`. It is the output of the commands, too.

    `quiet` hides notes and progress. `as_json` prints the result as JSON. `urls` maps local folders to the URLs that the user
    typed; output shows the URLs.
    """

    def __init__(
        self, as_json: bool = False, quiet: bool = False, urls: Mapping[str, str] | None = None
    ) -> None:
        super().__init__()
        self.verbose = False  # whether details are shown
        self.as_json, self.quiet, self.urls = as_json, quiet, urls or {}
        self._idle: TaskID | None = None  # the line that is shown while no task has a bar
        self.out = Console(highlight=False)
        if not self.out.is_terminal and "COLUMNS" not in os.environ:
            self.out.width = LOG_WIDTH
        self.err = Console(stderr=True, highlight=False)
        self.bars = _progress(self.err)

    @property
    def hides_progress(self) -> bool:
        """Whether there are no bars: also in a log, where rich would print empty lines for them."""
        return self.quiet or not self.err.is_terminal

    def note(self, text: str) -> None:
        if not self.quiet:
            _print(self.err, f"[dim]{escape(self._with_urls(text))}[/dim]", not self.err.is_terminal)

    def detail(self, text: str) -> None:
        if self.verbose:
            self.note(text)

    def show_warning(self, text: str) -> None:
        if not self.quiet:
            _print(self.err, f"[yellow]note:[/yellow] {escape(text)}", not self.err.is_terminal)

    def task(self, label: str, unit: str = "", total: int = 0) -> Task:
        return _Bar(self, label, unit, total)

    def show_working(self) -> None:
        """Show on a terminal that the command works, wherever no task has a bar, until `close` or the result."""
        if not self.hides_progress:
            self._idle = self.add_bar(description="working", total=None, unit="")

    def close(self) -> None:
        """Remove the line of `show_working`."""
        idle, self._idle = self._idle, None
        if idle is not None:
            self.remove_bar(idle)

    @contextmanager
    def without_working(self) -> Iterator[None]:
        """Remove the line of `show_working`, if it is there, while others draw on the terminal."""
        was_shown = self._idle is not None
        self.close()
        yield
        if was_shown:
            self.show_working()

    def add_bar(self, **state: Any) -> TaskID:
        task_id = self.bars.add_task(**state)
        self._show_bars()
        return task_id

    def remove_bar(self, task_id: TaskID) -> None:
        self.bars.remove_task(task_id)
        self._show_bars()

    def _show_bars(self) -> None:
        """Start the live display with the first bar, stop it with the last, and show `working` only if there is no other."""
        if self._idle is not None:
            self.bars.update(self._idle, visible=len(self.bars.tasks) == 1)
        if self.bars.tasks:
            self.bars.start()
        else:
            self.bars.stop()
            self.bars = _progress(self.err)

    def show_before_prompt(self, content: RenderableType | tables.Table) -> None:
        """Show what the user is about to confirm, on standard error."""
        self.close()
        self.err.print(self._to_renderable(content))

    def result(self, value: Any, *contents: RenderableType | tables.Table) -> None:
        """Print the result of the command: `value` as JSON, or `contents` for people.

        An iterator is printed as a JSON list, item by item.
        """
        self.close()
        if self.as_json:
            for part in _json_parts(value):
                sys.stdout.write(self._with_urls(part))
            return
        for content in map(self._with_urls, contents):
            renderable = self._to_renderable(content)
            _print(self.out, renderable)
            if isinstance(renderable, Table | Group) and content is not contents[-1]:
                self.out.print()

    def _with_urls(self, content: Any) -> Any:
        """Replace local folders in a text by their URLs. Return anything but text unchanged."""
        return replace_folders(content, self.urls) if isinstance(content, str) else content

    def _to_renderable(self, content: RenderableType | tables.Table) -> RenderableType:
        return rich_table(content, self.out.width) if isinstance(content, tables.Table) else content


def _json_parts(value: Any) -> Iterator[str]:
    """Yield `value` as JSON text with an indent of 1 and a line break at the end."""
    if not isinstance(value, Iterator):
        yield json.dumps(value, indent=1) + "\n"
        return
    n_items = 0
    for item in value:
        yield ("," if n_items else "[") + "\n " + json.dumps(item, indent=1).replace("\n", "\n ")
        n_items += 1
    yield "\n]\n" if n_items else "[]\n"


class _Bar(Task):
    """A progress bar of a `Display`. It appears with its first update."""

    def __init__(self, display: Display, label: str, unit: str, total: int) -> None:
        self.display, self.label, self.unit, self.total = display, label, unit, total
        self.task_id: TaskID | None = None
        self.started_s = self.logged_at_s = time.monotonic()
        self.logged_tenth = 0

    def update(self, done: int, total: int | None = None, text: str | None = None) -> None:
        self.total = self.total if total is None else total
        self.label = self.label if text is None else text
        if self.display.hides_progress:
            self._log(done)
            return
        state: dict[str, Any] = {
            "description": escape(self.label),
            "total": self.total or None,
            "unit": self.unit,
        }
        if self.task_id is None:
            self.task_id = self.display.add_bar(**state)
        self.display.bars.update(self.task_id, completed=done, **state)

    def _log(self, done: int) -> None:
        """Write a line to a log, at most every `LOG_TENTH_S` for another tenth, and else every `LOG_EVERY_S`."""
        now = time.monotonic()
        tenth = 10 * done // self.total if self.total else 0
        interval_s = LOG_TENTH_S if tenth > self.logged_tenth else LOG_EVERY_S
        if self.display.quiet or now - self.logged_at_s < interval_s:
            return
        self.logged_at_s, self.logged_tenth = now, tenth
        left_s = (now - self.started_s) / done * (self.total - done) if 0 < done < self.total else 0
        time_left = f", {about(left_s)} left" if left_s else ""
        self.display.note(f"{self.label}: {format_progress(done, self.total, self.unit)}{time_left}")

    def close(self) -> None:
        if self.task_id is not None:
            self.display.remove_bar(self.task_id)
            self.task_id = None


class _ProgressText(ProgressColumn):
    """The text after a bar: `12 of 400 clips, about 14 min left`."""

    def render(self, task: rich.progress.Task) -> Text:
        time_left = "" if not task.time_remaining else f", {about(task.time_remaining)} left"
        done, total = int(task.completed), int(task.total or 0)
        progress = format_progress(done, total, task.fields["unit"]) if done or total else ""
        return Text(progress + time_left)


def _progress(err: Console) -> Progress:
    """Create the live display. In a narrow terminal, only the descriptions wrap."""
    return Progress(
        TextColumn("{task.description}", table_column=Column(overflow="fold")),
        BarColumn(bar_width=20, table_column=Column(no_wrap=True)),
        _ProgressText(table_column=Column(no_wrap=True)),
        console=err,
        transient=True,
        redirect_stdout=False,  # rich would send it to standard error
        # An epoch of a large classifier takes minutes. By default rich estimates from the last 30 s only.
        speed_estimate_period=600,
    )


def _format_value(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        are_sentences = any(" " in str(item) for item in value)
        return ("\n" if are_sentences else " ").join(map(str, value)) or "-"
    return f"{value:g}" if isinstance(value, float) else str(value)


def plan_table(counts: Mapping[str, Mapping[int, int]], title: str) -> tables.Table:
    """Return a table of synthetic clips by class and fold."""
    folds = sorted({fold for by_fold in counts.values() for fold in by_fold})
    numbers = ["across folds" if fold == 0 else f"fold {fold}" for fold in folds]
    table = tables.Table(title, tables.columns("class", numbers=[*numbers, "all"]))
    for name, by_fold in counts.items():
        table.add(name, *(by_fold.get(fold, 0) for fold in folds), sum(by_fold.values()))
    return table


def _new_table(**options: Any) -> Table:
    """Create a rich table without lines between columns, so that most tables fit into 80 columns."""
    return Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True, **options)


def _break_list(text: str) -> str:
    """Break a long comma-separated list, such as a mix, into lines. A very long item, such as a path, is broken too.

    Text with spaces stays as it is.
    """
    if " " in text or "," not in text:
        return text
    lines = [""]
    for part in re.findall(rf"[^,]{{1,{2 * MIX_WIDTH}}},?", text):
        if lines[-1] and len(lines[-1]) + len(part) > MIX_WIDTH:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)


def pairs_table(rows: Sequence[Mapping[str, Any]], n_all: int) -> tables.Table:
    """Return a table of the first planned clips: strategy, parents, prompts if there are any, and the parents' shares."""
    n_parents = max((len(row["parents"]) for row in rows), default=0)
    parents = [f"parent {number + 1}" for number in range(n_parents)]
    title = f"first {len(rows)} of {n_all} planned clips"
    has_prompts = any(row.get("prompt") for row in rows)
    columns = tables.columns("clip", "strategy", *parents, *["prompt"] * has_prompts, numbers=["shares"])
    table = tables.Table(title, columns, n_repeated=1)
    for row in rows:
        shares = " ".join(f"{weight:.2f}" for weight in row["weights"])
        prompt = [row["prompt"]] * has_prompts
        names = [*(row["parent_names"] or row["parents"]), *[""] * n_parents][:n_parents]
        table.add(row["clip_id"], row["strategy"], *names, *prompt, shares)
    return table


def rich_table(table: tables.Table, width: int) -> Group:
    """Draw a table for a terminal of `width` columns, with its title and notes.

    If it is too wide, columns with the highest priority number are left out, and a note names them. A table with `n_repeated`
    columns is split into parts instead.
    """
    headers = [
        _break_list(column.header).replace(" ", "\n").replace("95\n%", "95 %")  # one word a line
        if column.numeric
        else _break_list(column.header)
        for column in table.columns
    ]
    rows = [[_break_list(cell) for cell in row] for row in table.rows]
    widths = [
        max(len(line) for cell in column for line in cell.split("\n"))
        for column in zip(headers, *rows, strict=True)
    ]
    fitting, left_out = _fitting_columns(table, widths, width)
    missing = [f"No room for {', '.join(left_out)}: widen the terminal, or use --json."] if left_out else []
    drawn = []
    for part in _split(fitting, table.n_repeated, widths, width):
        drawn.append(_new_table())
        for index in part:
            numeric = table.columns[index].numeric
            is_name = widths[index] <= LONG_NAME and not any(" " in row[index] for row in table.rows)
            justify: Literal["left", "right"] = "right" if numeric else "left"
            drawn[-1].add_column(
                escape(headers[index]), justify=justify, overflow="fold", no_wrap=numeric or is_name
            )
        for row in rows:
            drawn[-1].add_row(*(escape(row[index]) for index in part))
    return Group(
        f"[italic]{escape(table.title)}[/italic]",
        *drawn,
        *(f"[dim]{escape(note)}[/dim]" for note in (*table.notes, *missing)),
    )


def _total_width(widths: Sequence[int], columns: Sequence[int]) -> int:
    return sum(widths[index] for index in columns) + GAP * (len(columns) - 1)


def _fitting_columns(table: tables.Table, widths: Sequence[int], width: int) -> tuple[list[int], list[str]]:
    """Return the indices of the columns that fit into `width`, and the headers of those that are left out."""
    fitting, left_out = list(range(len(widths))), []
    for index in sorted(fitting, key=lambda index: -table.columns[index].priority):
        if table.columns[index].priority and _total_width(widths, fitting) > width:
            fitting.remove(index)
            left_out.append(table.columns[index].header)
    return fitting, left_out


def _split(columns: Sequence[int], n_repeated: int, widths: Sequence[int], width: int) -> list[list[int]]:
    """Split columns into parts that fit into `width`. Each part begins with the first `n_repeated` columns."""
    repeated = list(columns[: n_repeated or len(columns)])
    parts = [repeated]
    for index in columns[len(repeated) :]:
        if len(parts[-1]) > len(repeated) and _total_width(widths, [*parts[-1], index]) > width:
            parts.append(repeated)
        parts[-1] = [*parts[-1], index]
    return parts


def facts_table(title: str, facts: Mapping[str, Any]) -> Group:
    """Return a table of names and values."""
    table = _new_table(show_header=False)
    table.add_column("name", style="bold")
    table.add_column("value", overflow="fold")
    for name, value in facts.items():
        table.add_row(escape(name), escape(_format_value(value)))
    return Group(f"[italic]{escape(title)}[/italic]", table)
