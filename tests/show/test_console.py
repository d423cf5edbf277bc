"""Small charts in the terminal."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.runs import write_run
from usk.evaluate.stats import mean_interval
from usk.evaluate.study import study_runs
from usk.show.console import Display, sparkline, strip, strips_table


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
