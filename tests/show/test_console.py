"""Small charts in the terminal."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.runs import write_run
from usk.evaluate.compare import compare_runs
from usk.evaluate.stats import mean_interval
from usk.evaluate.study import study_runs
from usk.show.console import Display, comparison_tables, sparkline, strip, strips_table


def test_a_sparkline_rises_with_its_values() -> None:
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == "▁▂▃▄▅▆▇█"
    assert len(sparkline(list(range(100)), cells=10)) == 10
    assert sparkline([1.0, 1.0]) == "▁▁"
    assert sparkline([]) == ""


def test_a_strip_places_runs_mean_and_interval() -> None:
    line = strip([0.0, 1.0], mean_interval([0.0, 1.0]), -1.0, 2.0, cells=31)
    assert (line[10], line[15], line[20]) == ("●", "┃", "●")
    assert strip([0.5], mean_interval([0.5]), 0.5, 0.5, cells=5) == "┃····"


def test_the_table_has_a_row_a_mix(tmp_path: Path) -> None:
    for seed in (0, 1):
        write_run(tmp_path, "real", seed, skill=0.5)
        write_run(tmp_path, "real,synth", seed, skill=0.7 + 0.1 * seed)
    console = Console(file=io.StringIO(), width=160)
    console.print(strips_table(study_runs(tmp_path)[0]))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "real,synth" in shown
    assert "┃" in shown and "●" in shown and "▁" in shown


@pytest.mark.parametrize("width", [80, 120])
def test_nothing_of_a_comparison_is_cut_off(tmp_path: Path, width: int) -> None:
    """Every mix by its name, every figure, in a terminal of 80 columns."""
    for seed in range(6):
        write_run(tmp_path, "real", seed, skill=0.5)
        write_run(tmp_path, "real,decomposed,sample", seed, skill=0.7)
    (comparison,) = compare_runs(tmp_path)
    console = Console(file=io.StringIO(), width=width)
    for shown in comparison_tables(comparison):
        console.print(shown)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "\u2026" not in text and max(map(len, text.splitlines())) <= width
    lines = text.splitlines()
    mix = next(n for n, line in enumerate(lines) if line.startswith("real,decomposed,  "))
    assert lines[mix + 1].startswith("sample ")
    row = comparison.rows[1]
    assert row.p_value_holm is not None
    assert lines[mix].split()[-2:] == [f"{row.pairs_up}/{row.pairs}", f"{row.p_value_holm:.3g}"]


def test_a_mix_is_whole_however_long_its_names_are(tmp_path: Path) -> None:
    mix = "real,/home/someone/" + "folder/" * 12 + "clips"
    write_run(tmp_path, "real", 0)
    write_run(tmp_path, mix, 0)
    console = Console(file=io.StringIO(), width=80)
    console.print(comparison_tables(compare_runs(tmp_path)[0])[0])
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "\u2026" not in text
    assert mix in "".join(line.split(" ")[0] for line in text.splitlines())


@pytest.mark.parametrize(
    ("terminal", "encoding", "draws"),
    [(True, "utf-8", True), (True, "ascii", False), (False, "utf-8", False)],
)
def test_charts_are_drawn_where_they_can_be_read(terminal: bool, encoding: str, draws: bool) -> None:
    display = Display()
    display.out = Console(file=io.TextIOWrapper(io.BytesIO(), encoding=encoding), force_terminal=terminal)
    assert display.draws is draws
    display.as_json = True
    assert not display.draws


def test_usk_eval_draws_in_a_terminal_alone(
    usk: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(tmp_path, "real", 0)
    write_run(tmp_path, "real", 1)
    assert "●" not in usk("eval", tmp_path).out
    monkeypatch.setattr(Display, "draws", True)
    assert "●" in usk("eval", tmp_path).out
