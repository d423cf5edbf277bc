"""`usk predict` on new files."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from tests.runs import write_run
from tests.sounds import tone, write_wav
from usk.classify.predict import find_classifier
from usk.errors import UsageError

Command = Callable[..., Any]


def test_predictions_are_those_of_the_run(usk: Command, trained: Path, urbansound8k_folder: Path) -> None:
    """Prediction from the test files gives the probabilities that the run stored, rounded to four digits."""
    stored = {row["clip_id"]: row for row in pq.read_table(trained / "predictions.parquet").to_pylist()}
    ran = usk(f"predict {trained} {urbansound8k_folder}/audio/fold1 --json").done()
    assert len(ran.value) == len(stored) == 18
    names = json.loads((trained / "run.json").read_text())["class_names"]
    for one in ran.value:
        row = stored[f"urbansound8k/{Path(one['file']).name}"]
        np.testing.assert_allclose(
            [one["probabilities"][name] for name in names], row["probabilities"], atol=1e-3
        )
        best = max(one["probabilities"].values())
        assert one["probability"] == best == one["probabilities"][one["class_name"]]
        assert sorted(one["probabilities"].values())[-2] == one["next_probability"]


def test_a_bad_file_is_named_and_the_rest_goes_on(usk: Command, trained: Path, tmp_path: Path) -> None:
    write_wav(tmp_path / "in" / "good.wav", tone(440, 0.5))
    (tmp_path / "in" / "bad.wav").write_bytes(b"not audio at all")
    write_wav(tmp_path / "in" / "silent.wav", np.zeros(8_000, np.float32))
    soundfile.write(tmp_path / "in" / "loud.wav", 1e20 * tone(440, 1.0)[:8_000], 8_000, subtype="FLOAT")
    ran = usk("predict", trained.parent, tmp_path / "in").done()
    assert "not an audio file" in ran.out and "silent" in ran.out
    assert "3 of 4 clips could not be read" in ran.err and "bad.wav (not an audio file" in ran.err
    assert usk("predict", trained, tmp_path / "in" / "bad.wav").code == 1
    found = usk("predict", trained, tmp_path / "in", "--json")
    by_name = {Path(one["file"]).name: one for one in found.value}
    good, loud = by_name["good.wav"], by_name["loud.wav"]
    assert good["problem"] is None and f"{good['class_name']} " in ran.out
    assert f"{good['next_class']} {good['next_probability']:.2f}" in ran.out
    assert by_name["bad.wav"]["class_name"] is None and by_name["silent.wav"]["problem"] == "silent"
    assert (loud["class_name"], loud["probability"]) == (None, None) and "NaN" not in found.out
    assert loud["problem"] == "samples too large to be sound"


def test_a_name_that_is_not_utf8_costs_no_table(usk: Command, trained: Path, tmp_path: Path) -> None:
    write_wav(tmp_path / "in" / "good.wav", tone(440, 0.5))
    shutil.copy(tmp_path / "in" / "good.wav", os.fsencode(tmp_path / "in") + b"/caf\xe9.wav")
    ran = usk(f"predict {trained} {tmp_path}/in --csv {tmp_path}/out.csv").done()
    lines = (tmp_path / "out.csv").read_bytes().splitlines()
    assert len(lines) == 3 and any(b"caf\xe9.wav" in line for line in lines)
    assert "good.wav" in ran.out


def test_a_long_file_is_the_mean_of_its_windows(usk: Command, trained: Path, tmp_path: Path) -> None:
    n = 172 * 512 - 1
    parts = [tone(500, n / 22_050), tone(2_000, n / 22_050)]
    for name, samples in {"a": parts[0], "b": parts[1], "both": np.concatenate(parts)}.items():
        write_wav(tmp_path / f"{name}.wav", samples)
    files = [tmp_path / f"{name}.wav" for name in ("a", "b", "both")]
    first, second, both = (one["probabilities"] for one in usk("predict", trained, *files, "--json").value)
    for name in both:
        assert both[name] == pytest.approx((first[name] + second[name]) / 2, abs=2e-3)


def test_clips_of_a_source_with_or_without_labels_and_files_of_other_kinds(
    usk: Command, trained: Path, tmp_path: Path, urbansound8k_folder: Path
) -> None:
    import datasets

    usk(f"synth --real {urbansound8k_folder} --strategy waveform --per-class 2 --out {tmp_path}/s").done()
    assert len(usk(f"predict {trained} {tmp_path}/s --json").done().value) == 6
    features = datasets.Features({"audio": datasets.Audio()})
    write_wav(tmp_path / "in" / "good.wav", tone(440, 0.5))
    rows = [{"bytes": (tmp_path / "in" / "good.wav").read_bytes(), "path": "a.wav"}] * 2
    (tmp_path / "set").mkdir()
    table = pa.table({"audio": rows}, schema=features.arrow_schema)
    pq.write_table(table, tmp_path / "set" / "clips.parquet")
    assert len(usk("predict", trained, tmp_path / "set", "--json").value) == 2
    (tmp_path / "in" / "memo.m4a").write_bytes(b"x" * 99)
    ran = usk("predict", trained, tmp_path / "in")
    assert "1 of 2 clips could not be read" in ran.err and "memo.m4a (not an audio file" in ran.err


def test_csv_has_a_row_a_clip(usk: Command, trained: Path, tmp_path: Path) -> None:
    write_wav(tmp_path / "a, b.wav", tone(440, 0.5))
    files = [tmp_path / "a, b.wav", tmp_path / "gone.wav"]
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "p.csv").symlink_to("victim")  # is replaced, not followed
    ran = usk("predict", trained, *files, "--csv", tmp_path / "p.csv", "--json")
    assert ran.code == 0 and (tmp_path / "victim").read_text() == "precious", ran.err
    with (tmp_path / "p.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    good, gone = ran.value
    assert [row["file"] for row in rows] == [str(file) for file in files]
    assert (rows[0]["class"], float(rows[0]["probability"])) == (good["class_name"], good["probability"])
    assert rows[0]["next_class"] == good["next_class"] and rows[0]["problem"] == ""
    assert {name: float(rows[0][f"p({name})"]) for name in good["probabilities"]} == good["probabilities"]
    assert (rows[1]["class"], rows[1]["problem"]) == ("", "does not exist") and gone[
        "problem"
    ] == "does not exist"
    shown = usk("predict", trained, *files, "--csv", "-", "--quiet")
    assert shown.out.splitlines() == (tmp_path / "p.csv").read_text().splitlines()


def test_csv_holds_no_formula_and_no_control_character(
    usk: Command, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = ["=1+1.wav", "@sum.wav", "+a.wav", "b\x1b[31m.wav"]
    for name in names:
        write_wav(tmp_path / name, tone(440, 0.5))
    assert usk("predict", trained, *names, "--csv", "p.csv").code == 0
    with (tmp_path / "p.csv").open(newline="", encoding="utf-8") as file:
        shown = [row["file"] for row in csv.DictReader(file)]
    assert shown == ["'=1+1.wav", "'@sum.wav", "'+a.wav", "b\ufffd[31m.wav"]


def test_as_a_library(trained: Path, tmp_path: Path) -> None:
    import usk as library

    path = write_wav(tmp_path / "a.wav", tone(440, 0.5))
    classifier = library.load_classifier(trained.parent)
    assert library.predict(path, classifier) == library.predict([str(path)], trained)


def test_names_cannot_command_the_terminal(usk: Command, trained: Path, tmp_path: Path) -> None:
    write_wav(tmp_path / "in" / "a\x1b[31mred\x07.wav", tone(440, 0.5))
    ran = usk("predict", trained, tmp_path / "in")
    assert ran.code == 0 and "red" in ran.out and not {"\x1b", "\x07"} & set(ran.out + ran.err)
    refused = usk("info", "\x1b[31mnowhere")
    assert refused.code == 1 and "\x1b" not in refused.err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["{run}", "nowhere.wav"], 1, "nowhere.wav does not exist"),
        (["{run}", "clips/nowhere.wav"], 1, "clips/nowhere.wav does not exist"),
        (["{run}", "nowhere.wav", "neither.wav"], 1, "nowhere.wav, neither.wav do not exist"),
        (["{run}", "nowhere"], 1, "nowhere: no such folder"),
        (["{run}", "{good}", "--csv", "-", "--json"], 2, "--csv -: and JSON cannot both use standard output"),
        (["{run}", "{good}", "--csv", "{good}/p.csv"], 2, "p.csv: there is no folder"),
        (["{run}", "{good}", "--csv", "{two}"], 2, "two: cannot be written"),
        (["nothing", "{good}"], 2, "RUN nothing: is not a run. Train one with `usk train`"),
        (["{two}", "{good}"], 2, "holds 2 runs. Name one of them"),
    ],
)
def test_wrong_input_is_one_line(
    usk: Command, trained: Path, tmp_path: Path, arguments: list[str], code: int, message: str
) -> None:
    write_wav(tmp_path / "good.wav", tone(440, 0.5))
    for name in ("one", "two"):
        write_run(tmp_path / "two", "real", name=name)
    places = {"good": tmp_path / "good.wav", "two": tmp_path / "two", "run": trained}
    ran = usk("predict", *(argument.format(**places) for argument in arguments), "--quiet")
    assert (ran.code, ran.err.count("\n")) == (code, 1), ran.err
    assert message.format(**places) in ran.err


def test_the_only_run_is_found_at_any_depth_and_several_are_named(tmp_path: Path) -> None:
    first, second = tmp_path / "runs" / "laptop" / "a", tmp_path / "runs" / "server" / "of" / "b"
    for place in (first, tmp_path / "runs" / ".hidden"):
        place.mkdir(parents=True)
        (place / "run.json").write_text("{}")
    assert find_classifier(tmp_path / "runs") == first
    second.mkdir(parents=True)
    (second / "run.json").write_text("{}")
    with pytest.raises(UsageError, match=f"holds 2 runs. Name one of them: {first}, {second}"):
        find_classifier(tmp_path / "runs")
