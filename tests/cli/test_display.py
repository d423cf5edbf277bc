"""Tables, notes and progress in the terminal."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from tests.runs import write_run
from usk.cli.comparison import comparison_output
from usk.cli.display import Display, _ProgressText
from usk.evaluate.compare import compare_runs
from usk.evaluate.tables import mix_table, recall_table, train_clips_tables
from usk.tables import Table as PlainTable
from usk.tables import columns, markdown
from usk.text import about


def printed(*shown: Any, width: int) -> str:
    display = Display()
    display.out = Console(file=io.StringIO(), width=width)
    display.result(None, *shown)
    return display.out.file.getvalue()  # type: ignore[attr-defined, no-any-return]


@pytest.mark.parametrize(
    ("width", "left_out"),
    [(120, []), (80, ["macro F1 %", "runs"]), (60, ["macro F1 %", "runs", "p value", "pairs up", "synth"])],
)
def test_nothing_of_a_comparison_is_cut_off(tmp_path: Path, width: int, left_out: list[str]) -> None:
    """The table has all mixes and numbers, or a note with the columns that do not fit."""
    for seed in range(6):
        write_run(tmp_path, "real", seed, skill=0.5 + 0.02 * seed)
        write_run(tmp_path, "real,decomposed,sample", seed, skill=0.7 + 0.01 * seed)
    (comparison,) = compare_runs(tmp_path)
    text = printed(*comparison_output(comparison), width=width)
    assert "\u2026" not in text and max(map(len, text.splitlines())) <= width
    assert (f"No room for {', '.join(left_out)}: widen" in " ".join(text.split())) == bool(left_out)
    lines = text.splitlines()
    mix = next(n for n, line in enumerate(lines) if line.startswith("real,decomposed,  "))
    assert lines[mix + 1].startswith("sample ")
    row = comparison.rows[1]
    assert row.p_value_holm is not None and row.difference is not None
    cells = {
        "runs": "6",
        "real": str(row.n_real),
        "synth": str(row.n_synthetic),
        "accuracy %": f"{100 * row.accuracy.mean:.1f} ± {100 * (row.accuracy.half_width or 0):.1f}",
        "macro F1 %": f"{100 * row.macro_f1.mean:.1f} ± {100 * (row.macro_f1.half_width or 0):.1f}",
        "pp vs real": f"{row.difference.difference_points:+.1f}",
        "95 % interval": f"{row.difference.low_points:+.1f} to {row.difference.high_points:+.1f}",
        "pairs up": f"{row.pairs_up}/{row.pairs}",
        "p value": f"{row.p_value_holm:.3g}",
    }
    expected = " ".join(cell for name, cell in cells.items() if name not in left_out)
    assert " ".join(lines[mix].split()[1:]) == expected


@pytest.mark.parametrize("width", [60, 80, 120])
def test_recalls_stand_beside_their_differences_as_many_mixes_as_fit(tmp_path: Path, width: int) -> None:
    mixes = ["real,decomposed,sample", "real,sample", "real,variation", "real,waveform", "real,slerp"]
    write_run(tmp_path, "real", skill=0.5)
    for mix in mixes:
        write_run(tmp_path, mix, skill=0.7)
    (comparison,) = compare_runs(tmp_path)
    text = printed(recall_table(comparison), width=width)
    assert text.count("clips") == {60: 3, 80: 2, 120: 1}[width]
    assert max(map(len, text.splitlines())) <= width
    words = [line.split() for line in text.splitlines()]
    for of_class in comparison.classes:
        lines = [line[1:] for line in words if line[:1] == [of_class.class_name]]
        plain = [str(of_class.support), f"{100 * of_class.recall['real']:.1f}"]
        assert all(line[:2] == plain for line in lines)
        expected = []
        for mix in (row.mix for row in comparison.rows[1:]):
            expected += [f"{100 * of_class.recall[mix]:.1f}", f"{of_class.difference_points[mix]:+z.1f}"]
        assert [cell for line in lines for cell in line[2:]] == expected


def test_a_mix_is_whole_however_long_its_names_are(tmp_path: Path) -> None:
    mix = "real,/home/someone/" + "folder/" * 12 + "clips"
    write_run(tmp_path, "real", 0)
    write_run(tmp_path, mix, 0)
    text = printed(mix_table(compare_runs(tmp_path)[0]), width=80)
    assert "\u2026" not in text
    assert mix in "".join(line.split(" ")[0] for line in text.splitlines())


def test_means_over_other_folds_are_named_below_the_table_by_train_clips(tmp_path: Path) -> None:
    for train_clips in (50, 100):
        for fold in (1, 2):
            write_run(tmp_path, "real", fold=fold, train_clips=train_clips)
            write_run(tmp_path, "real,synth", fold=fold, train_clips=train_clips)
        write_run(tmp_path, "real,own", fold=2, train_clips=train_clips)
    (table,) = train_clips_tables(compare_runs(tmp_path))
    text = " ".join(printed(table, width=160).split())
    assert "real,own: means over other folds or seeds than the baseline's" in text
    assert "real,synth: means" not in text


def test_a_plain_table_is_text_in_a_terminal_and_in_markdown() -> None:
    table = PlainTable("a [red]title[/red]", columns("name", numbers=("n",)), notes=("a [b]note[/b]",))
    table.add("[bold]not markup[/bold]\x1b", 3)
    text = printed(table, width=80)
    for part in ("a [red]title[/red]", "[bold]not markup[/bold]\ufffd", "a [b]note[/b]"):
        assert part in text
    assert markdown(table).splitlines()[0] == "| name | n |"


def test_progress_names_its_unit_and_the_time_left() -> None:
    task: Any = SimpleNamespace(completed=12, total=1400, time_remaining=840.0, fields={"unit": "clips"})
    assert str(_ProgressText().render(task)) == "12 of 1,400 clips, about 14 min left"
    task.time_remaining = task.total = None
    assert str(_ProgressText().render(task)) == "12 clips"
    task.total, task.fields = 1400, {"unit": "%"}
    assert str(_ProgressText().render(task)) == "0 %"
    times = {0.2: "1 s", 44.0: "40 s", 840.0: "14 min", 3 * 3600.0: "3 h"}  # as exact as one can know
    assert {seconds: about(seconds) for seconds in times} == {s: f"about {said}" for s, said in times.items()}


def test_a_path_is_not_broken(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    path = "/home/someone/" + "sounds-of-the-city/" * 4 + "report.html"
    display = Display()
    display.note(f"the page is in {path} and so on")
    display.result({}, f"open {path}", f"Next: usk train --mix real,synth --synth {path} --seeds 6")
    printed_text = capsys.readouterr()
    assert path in printed_text.err
    assert printed_text.out.splitlines()[-1] == f"Next: usk train --mix real,synth --synth {path} --seeds 6"


def test_a_log_gets_a_whole_line_for_each_tenth_and_each_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("usk.cli.display.time.monotonic", lambda: clock[0])
    display = Display()
    display.err = Console(file=io.StringIO(), width=40)
    with display.task("rendering of clips with a very long name", "clips", 1_000) as task:
        for done in range(0, 1_001, 10):
            clock[0] = done * 0.7  # a tenth takes 70 s
            task.update(done)
    lines = display.err.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert len(lines) == 10 + 10
    assert all("rendering of clips with a very long name: " in line for line in lines)
    assert lines[1].endswith("100 of 1,000 clips, about 10 min left") and "1,000 of 1,000" in lines[-1]
    with display.task("quick", "", 1_000) as task:
        for done in range(1_000):
            task.update(done)
    display.quiet = True
    clock[0] += 600
    task.update(1_000)
    assert len(display.err.file.getvalue().splitlines()) == len(lines)  # type: ignore[attr-defined]
    display.quiet = False
    display.warn("a note that is much longer than forty characters, which a log has in one line")
    assert len(display.err.file.getvalue().splitlines()) == len(lines) + 1  # type: ignore[attr-defined]
