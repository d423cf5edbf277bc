"""Tables, notes and progress bars: the one importer of rich.

Results go to standard output, everything else to standard error, so that `--json` can be piped.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import rich.progress
from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.markup import escape as escape_markup
from rich.progress import BarColumn, Progress, ProgressColumn, TaskID, TextColumn
from rich.table import Column, Table
from rich.text import Text

from usk import tables
from usk.cli.remote import renamed
from usk.reporter import Reporter, Task
from usk.text import SHARE, about, how_far, pluralize

if TYPE_CHECKING:
    from usk.runs import RunRecord

LOG_TENTH_S, LOG_EVERY_S = 5.0, 60.0  # between two lines of progress in a log, a tenth further or not
LOG_WIDTH = 120  # of what is no terminal, unless $COLUMNS says otherwise
MIX_WIDTH = 16
LONG_NAME = 40  # from which on a name may wrap
GAP = 2  # between columns


def escape(text: str) -> str:
    """`text` as it stands: no markup, and no control characters that a terminal would obey."""
    shown = (character if character.isprintable() or character == "\n" else "\ufffd" for character in text)
    return escape_markup("".join(shown))


def _print(console: Console, shown: RenderableType, is_log: bool = False) -> None:
    """Commands, paths longer than a line, and all lines of a log stay in one piece, to be copied."""
    whole = is_log or (
        isinstance(shown, str)
        and (
            shown.lstrip().startswith(("Next", "usk "))
            or max(map(len, shown.split()), default=0) > console.width
        )
    )
    console.print(shown, soft_wrap=whole)


class Display(Reporter):
    """Where one command writes. `quiet` keeps notes and progress back; `as_json` prints one JSON value as the result.

    It is the `Reporter` that the stages of a job get: all bars of a command share one live display.
    """

    def __init__(
        self, as_json: bool = False, quiet: bool = False, names: Mapping[str, str] | None = None
    ) -> None:
        super().__init__()
        self.verbose = False  # every setting is named
        self.names = names or {}  # of folders that stand for something else
        self.as_json, self.quiet = as_json, quiet
        self._bars: Progress | None = None
        self._open_tasks = 0
        self.out = Console(highlight=False)
        if not self.out.is_terminal and "COLUMNS" not in os.environ:
            self.out.width = LOG_WIDTH
        self.err = Console(stderr=True, highlight=False)

    @property
    def hides_progress(self) -> bool:
        """A log gets no bars, nor empty lines in their place."""
        return self.quiet or not self.err.is_terminal

    def note(self, text: str) -> None:
        if not self.quiet:
            _print(self.err, f"[dim]{escape(self._named(text))}[/dim]", not self.err.is_terminal)

    def detail(self, text: str) -> None:
        if self.verbose:
            self.note(text)

    def show_warning(self, text: str) -> None:
        if not self.quiet:
            _print(self.err, f"[yellow]note:[/yellow] {escape(text)}", not self.err.is_terminal)

    def task(self, label: str, unit: str = "", total: int = 0) -> Task:
        return _Bar(self, label, unit, total)

    def open_bars(self) -> Progress:
        """The live display, which the first bar starts."""
        self._open_tasks += 1
        if self._bars is None:
            self._bars = _progress(self.err, self.hides_progress)
            self._bars.start()
        return self._bars

    def close_bar(self) -> None:
        """One bar fewer; the last one stops the live display."""
        self._open_tasks -= 1
        if self._open_tasks == 0 and self._bars is not None:
            self._bars.stop()
            self._bars = None

    def before(self, *shown: RenderableType | tables.Table) -> None:
        """What someone must see before agreeing to it."""
        for one in shown:
            self.err.print(self._drawn(one))

    def result(self, value: Any, *shown: RenderableType | tables.Table) -> None:
        """The command's result: `value` as JSON (an iterator as a list, written as it comes), or `shown` as people read it."""
        if self.as_json:
            for part in _json_parts(value):
                sys.stdout.write(self._named(part))
            return
        for one in map(self._named, shown):
            drawn = self._drawn(one)
            _print(self.out, drawn)
            if isinstance(drawn, Table | Group) and one is not shown[-1]:
                self.out.print()

    def _named(self, shown: Any) -> Any:
        """A text with the names of folders that stand for something else; anything else as it is."""
        return renamed(shown, self.names) if isinstance(shown, str) else shown

    def _drawn(self, shown: RenderableType | tables.Table) -> RenderableType:
        return plain_table(shown, self.out.width) if isinstance(shown, tables.Table) else shown


def _json_parts(value: Any) -> Iterator[str]:
    """`value` as JSON with an indent of 1, and a line's end."""
    if not isinstance(value, Iterator):
        yield json.dumps(value, indent=1) + "\n"
        return
    n_items = 0
    for item in value:
        yield ("," if n_items else "[") + "\n " + json.dumps(item, indent=1).replace("\n", "\n ")
        n_items += 1
    yield "\n]\n" if n_items else "[]\n"


class _Bar(Task):
    """A bar of a `Display`; it appears with its first update."""

    def __init__(self, display: Display, label: str, unit: str, total: int) -> None:
        self.display, self.label, self.unit, self.total = display, label, unit, total
        self.bars: Progress | None = None
        self.task_id: TaskID | None = None
        self.began_s = self.said_at_s = time.monotonic()
        self.said_tenth = 0

    def update(self, done: int, total: int | None = None, text: str | None = None) -> None:
        self.total = self.total if total is None else total
        self.label = self.label if text is None else text
        described, unit = escape(self.label), self.unit if text is None or self.unit == SHARE else ""
        if self.display.hides_progress:
            self._log(done)
            return
        if self.bars is None or self.task_id is None:
            self.bars = self.display.open_bars()
            self.task_id = self.bars.add_task(described, total=self.total or None, unit=unit)
        self.bars.update(
            self.task_id, completed=done, total=self.total or None, description=described, unit=unit
        )

    def _log(self, done: int) -> None:
        """Without a terminal: a line for each tenth that took some seconds, and for each minute."""
        now = time.monotonic()
        tenth = 10 * done // self.total if self.total else 0
        waited_s = now - self.said_at_s
        if self.display.quiet or waited_s < (LOG_TENTH_S if tenth > self.said_tenth else LOG_EVERY_S):
            return
        self.said_at_s, self.said_tenth = now, tenth
        left = (now - self.began_s) / done * (self.total - done) if 0 < done < self.total else 0
        self.display.note(
            f"{self.label}: {how_far(done, self.total, self.unit)}"
            + (f", {about(left)} left" if left else "")
        )

    def close(self) -> None:
        if self.bars is not None and self.task_id is not None:
            self.bars.update(self.task_id, visible=False)
            self.bars, self.task_id = None, None
            self.display.close_bar()


class _Done(ProgressColumn):
    """`12 of 400 clips, about 14 min left`."""

    def render(self, task: rich.progress.Task) -> Text:
        left = "" if not task.time_remaining else f", {about(task.time_remaining)} left"
        return Text(how_far(int(task.completed), int(task.total or 0), task.fields["unit"]) + left)


def _progress(err: Console, hidden: bool) -> Progress:
    """Bars with time left. Where room is short the words wrap; how far it is and how long it takes stay whole."""
    return Progress(
        TextColumn("{task.description}", table_column=Column(overflow="fold")),
        BarColumn(bar_width=20, table_column=Column(no_wrap=True)),
        _Done(table_column=Column(no_wrap=True)),
        console=err,
        transient=True,
        disable=hidden,
        # An epoch of a large classifier takes minutes: rich would forget it after 30 s and know no time left.
        speed_estimate_period=600,
    )


def _plain(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        sentences = any(" " in str(item) for item in value)
        return ("\n" if sentences else " ").join(map(str, value)) or "-"
    return f"{value:g}" if isinstance(value, float) else str(value)


def plan_table(counts: Mapping[str, Mapping[int, int]], title: str) -> tables.Table:
    """Synthetic clips by class and fold."""
    folds = sorted({fold for by_fold in counts.values() for fold in by_fold})
    numbers = ["across folds" if fold == 0 else f"fold {fold}" for fold in folds]
    table = tables.Table(title, tables.columns("class", numbers=[*numbers, "all"]))
    for name, by_fold in counts.items():
        table.add(name, *(by_fold.get(fold, 0) for fold in folds), sum(by_fold.values()))
    return table


def _table(title: str, **options: Any) -> Table:
    """A table without lines between its columns: nearly all of usk's fit a terminal of 80 columns that way."""
    return Table(
        title=title,
        title_justify="left",
        box=SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        collapse_padding=True,
        **options,
    )


def _broken(text: str) -> str:
    """A mix, or another list without spaces, broken after commas where it is long, and within a part that is very long, such as
    a path. Other text stays as it is."""
    if " " in text or "," not in text:
        return text
    lines = [""]
    for part in re.findall(rf"[^,]{{1,{2 * MIX_WIDTH}}},?", text):
        if lines[-1] and len(lines[-1]) + len(part) > MIX_WIDTH:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)


def pairs_table(rows: Sequence[Mapping[str, Any]], n_all: int) -> tables.Table:
    """The first planned clips with their parents, the parents' shares, and their prompts if they have any."""
    parents = [f"parent {place + 1}" for place in range(len(rows[0]["parents"]) if rows else 0)]
    title = f"first {len(rows)} of {n_all} planned clips"
    prompted = any(row.get("prompt") for row in rows)
    shown = tables.columns("clip", *parents, *["prompt"] * prompted, numbers=["shares"])
    table = tables.Table(title, shown, n_repeated=1)
    for row in rows:
        shares = " ".join(f"{weight:.2f}" for weight in row["weights"])
        prompt = [row["prompt"]] * prompted
        table.add(row["clip_id"], *(row["parent_names"] or row["parents"]), *prompt, shares)
    return table


def runs_table(runs: Sequence[RunRecord]) -> tables.Table:
    """One row a finished run."""
    with_train_clips = any(run.train_clips for run in runs)
    with_augment = len({run.augment for run in runs}) > 1
    names = ["mix", *["augment"] * with_augment, "classifier", "test part"]
    numbers = ["seed", "real", "synth", "dropped", "best epoch", "accuracy %", "s"]
    table = tables.Table("runs", tables.columns(*names, numbers=["train clips"] * with_train_clips + numbers))
    for run in runs:
        table.add(
            run.mix,
            *[run.augment] * with_augment,
            run.classifier,
            run.split,
            *[run.train_clips or "all"] * with_train_clips,
            run.seed,
            run.n_real,
            run.n_synthetic,
            run.dropped,
            f"{run.best_epoch}/{run.epochs}",
            f"{100 * run.accuracy:.1f}",
            f"{run.took_s:.0f}",
        )
    return table


def plain_table(plain: tables.Table, width: int) -> Group:
    """A plain table as far as its columns fit into `width`, with its notes and what there was no room for.

    Columns of the highest priority number are left out first. A table with `n_repeated` columns is split instead.
    """
    headers = [
        _broken(column.header).replace(" ", "\n").replace("95\n%", "95 %")
        if column.numeric
        else _broken(column.header)
        for column in plain.columns
    ]
    rows = [[_broken(cell) for cell in row] for row in plain.rows]
    widths = [
        max(len(line) for cell in column for line in cell.split("\n"))
        for column in zip(headers, *rows, strict=True)
    ]
    shown, left_out = _what_fits(plain, widths, width)
    missing = [f"No room for {', '.join(left_out)}: widen the terminal, or use --json."] if left_out else []
    drawn = []
    for part in _parts(shown, plain.n_repeated, widths, width):
        drawn.append(_table(title=""))
        for place in part:
            numeric = plain.columns[place].numeric
            whole = numeric or (
                widths[place] <= LONG_NAME and not any(" " in row[place] for row in plain.rows)
            )
            justify: Literal["left", "right"] = "right" if numeric else "left"
            drawn[-1].add_column(escape(headers[place]), justify=justify, overflow="fold", no_wrap=whole)
        for row in rows:
            drawn[-1].add_row(*(escape(row[place]) for place in part))
    return Group(
        f"[italic]{escape(plain.title)}[/italic]",
        *drawn,
        *(f"[dim]{escape(note)}[/dim]" for note in (*plain.notes, *missing)),
    )


def _room(widths: Sequence[int], shown: Sequence[int]) -> int:
    """What columns take beside each other."""
    return sum(widths[place] for place in shown) + GAP * (len(shown) - 1)


def _what_fits(table: tables.Table, widths: Sequence[int], width: int) -> tuple[list[int], list[str]]:
    """The columns that are shown, and the names of those that there is no room for."""
    shown, left_out = list(range(len(widths))), []
    for place in sorted(shown, key=lambda place: -table.columns[place].priority):
        if table.columns[place].priority and _room(widths, shown) > width:
            shown.remove(place)
            left_out.append(table.columns[place].header)
    return shown, left_out


def _parts(shown: Sequence[int], n_repeated: int, widths: Sequence[int], width: int) -> list[list[int]]:
    """The columns of each part of a table that is split: the first ones, and as many others as fit beside them."""
    first = list(shown[: n_repeated or len(shown)])
    parts = [first]
    for place in shown[len(first) :]:
        if len(parts[-1]) > len(first) and _room(widths, [*parts[-1], place]) > width:
            parts.append(first)
        parts[-1] = [*parts[-1], place]
    return parts


def predictions_table(predictions: Sequence[Any]) -> tables.Table:
    """One row a clip: its class, or why it has none."""
    names = tables.columns("clip", "class", "next best", numbers=["probability"])
    table = tables.Table(pluralize(len(predictions), "clip"), names)
    for one in predictions:
        if one.problem is not None:
            table.add(one.file, one.problem, "", "")
            continue
        following = f"{one.next_class} {one.next_probability:.2f}" if one.next_class else ""
        table.add(one.file, one.class_name, following, f"{one.probability:.2f}")
    return table


def facts_table(title: str, facts: Mapping[str, Any]) -> Table:
    """Two columns: what, and its value."""
    table = _table(title=escape(title), show_header=False)
    table.add_column("what", style="bold")
    table.add_column("value", overflow="fold")
    for name, value in facts.items():
        table.add_row(escape(name), escape(_plain(value)))
    return table


def counts_table(rows: Sequence[Mapping[str, Any]]) -> tables.Table:
    """Clips, recordings and, where it is known, length by class."""
    timed = any(row["mean_s"] is not None for row in rows)
    table = tables.Table(
        "classes", tables.columns("class", numbers=["clips", "recordings", *["mean s"] * timed])
    )
    for row in rows:
        mean_s = "" if row["mean_s"] is None else f"{row['mean_s']:.2f}"
        table.add(row["class"], row["clips"], row["recordings"], *[mean_s] * timed)
    return table
