"""Run folders: where they are found, and errors for damaged ones."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests import runs
from usk.errors import SourceError
from usk.runs import find_run, read_record, read_runs

N_CLIPS = 80


def test_runs_lie_one_or_two_levels_deep_and_others_are_ignored(tmp_path: Path) -> None:
    runs.write_run(tmp_path / "study", "real", name="one")
    runs.write_run(tmp_path, "synth")
    runs.write_run(tmp_path, "synth", name=".half-written")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "readme.txt").write_text("no run")
    assert sorted(run.mix for run in read_runs(tmp_path)) == ["real", "synth"]
    assert len(read_runs(tmp_path / "study" / "one")) == 1


def edit(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "run.json").read_text()) | changes
    kept = {key: value for key, value in config.items() if value != "gone"}
    (folder / "run.json").write_text(json.dumps(kept))


def edited(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: edit(folder, **changes)


def rewritten(column: str, values: Any) -> Callable[[Path], None]:
    return lambda folder: runs.rewrite(folder, column, values)


def written(text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / "run.json").write_text(text)


def table_of(change: Callable[[pa.Table], pa.Table]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        file = folder / "predictions.parquet"
        pq.write_table(change(pq.read_table(file)), file)

    return damage


DAMAGES: dict[str, Callable[[Path], object]] = {
    "missing predictions": lambda folder: (folder / "predictions.parquet").unlink(),
    "corrupt predictions": lambda folder: (folder / "predictions.parquet").write_bytes(b"PAR1 and no more"),
    "cut predictions": lambda folder: os.truncate(folder / "predictions.parquet", 300),
    "a column less": table_of(lambda table: table.drop_columns(["group"])),
    "no rows": table_of(lambda table: table.slice(0, 0)),
    "an unknown class": rewritten("predicted", [9] * N_CLIPS),
    "labels that are text": rewritten("label", ["bark"] * N_CLIPS),
    "empty subsets": rewritten("group", [None] * N_CLIPS),
    "a clip twice": rewritten("clip_id", ["1-000"] * N_CLIPS),
    "too few probabilities": rewritten("probabilities", [[0.5, 0.5]] * N_CLIPS),
    "ragged probabilities": rewritten("probabilities", [[1.0]] + [[0.5, 0.5]] * (N_CLIPS - 1)),
    "half a run.json": written('{"format": 1, "mix"'),
    "a list for run.json": written("[]"),
    "settings of something else": written('{"theme": "dark"}'),
    "no mix": edited(mix="gone"),
    "a seed that is text": edited(seed="many"),
    "no date": edited(created="yesterday"),
    "sources that are text": edited(sources="real"),
    "null class names": edited(class_names=None),
    "a batch that is a list": edited(batch=[1]),
    "a recipe that is a list": edited(recipe_hash=["a"]),
    "an accuracy that is not a number": edited(accuracy=float("nan")),
    "a source without a name": edited(sources=[{"part": "real"}]),
    "no real clips": edited(sources=[]),
    "null": written("null"),
    "nested too deep": written("[" * 100_000),
    "another format": edited(format=1),
    "a format that is a list": edited(format=[2]),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_run_is_one_line_that_names_the_folder_and_the_fix(tmp_path: Path, damage: str) -> None:
    runs.write_run(tmp_path, "synth")
    folder = runs.write_run(tmp_path, "real", n_clips=N_CLIPS)
    DAMAGES[damage](folder)
    with pytest.raises(SourceError) as caught:
        read_runs(tmp_path)
    message = str(caught.value)
    assert message.startswith(str(folder)) and "\n" not in message
    assert "train it again" in message or "Update usk" in message


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    record = read_record(
        runs.write_run(tmp_path, "real,synth", train_clips=50, sources={"synth": {"strategies": ["slerp"]}})
    )
    record.write(tmp_path)
    assert replace(read_record(tmp_path), folder=record.folder) == record


def test_a_run_is_found_by_all_that_decides_it_and_by_nothing_else(tmp_path: Path) -> None:
    record = read_record(runs.write_run(tmp_path, "real"))
    folder = tmp_path / record.folder_name
    folder.mkdir()
    record.write(folder)
    source = replace(record.real, kind="hub", hub_id="a/b")
    moved = replace(record, accuracy=0.1, took_s=9.0, sources=(source,))
    assert (found := find_run(tmp_path, moved)) is not None and found.accuracy == record.accuracy
    others = {"seed": 9, "batch": 8, "train_clips": 50, "class_names": ("a", "b")}
    others["sources"] = (replace(record.real, revision="2"),)
    assert all(find_run(tmp_path, replace(record, **{name: value})) is None for name, value in others.items())
    (folder / "run.json").write_text("{")
    assert find_run(tmp_path, record) is None
