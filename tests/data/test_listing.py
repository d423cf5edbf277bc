"""Folders whose clips a table names: `metadata.csv` and JSON lines of audiofolder, ESC-50's layout, tables of one's own."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.sounds import tone, write_wav
from usk.data.decode import decode_source
from usk.data.open import open_source
from usk.data.source import Source
from usk.errors import SourceError, UsageError

Command = Callable[..., Any]
Row = dict[str, Any]


def write_table(file: Path, rows: Sequence[Row]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".jsonl":
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return
    with file.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.DictWriter(opened, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_clips(folder: Path, rows: Sequence[Row], column: str) -> None:
    for number, row in enumerate(rows):
        write_wav(folder / row[column], tone(300 + 40 * number, 0.3))


def esc_50(root: Path) -> Path:
    """Two classes, two folds, three recordings in each, two clips of one: `audio/`, and `meta/esc50.csv`."""
    rows = [
        {
            "filename": f"{fold}-{target}{recording}-{take}-{target}.wav", "fold": fold, "target": target,
            "category": ("dog", "rain")[target], "esc10": True, "src_file": 100 * fold + 10 * target + recording, "take": take,
        }
        for fold in (1, 2) for target in (0, 1) for recording in range(3) for take in "AB"
    ]  # fmt: skip
    write_clips(root / "audio", rows, "filename")
    write_table(root / "meta" / "esc50.csv", rows)
    return root


def facts(source: Source) -> list[tuple[str, str, str, int]]:
    return [(clip.clip_id, source.class_names[clip.label], clip.group, clip.fold) for clip in source.clips]


def test_esc_50_as_it_is_published(tmp_path: Path) -> None:
    source = open_source(esc_50(tmp_path / "ESC-50"))
    assert (source.class_names, source.folds, len(source)) == (("dog", "rain"), (1, 2), 24)
    assert facts(source)[0] == ("ESC-50/audio/1-00-A-0.wav", "dog", "ESC-50/100", 1)
    assert len({clip.group for clip in source.clips}) == 12 and source.has_groups
    assert len(decode_source(source, 8_000).audio(0)) == pytest.approx(0.3 * 8_000, abs=2)


def test_the_whole_job_on_a_folder_with_a_table(usk: Command, tmp_path: Path) -> None:
    real, made = esc_50(tmp_path / "ESC-50"), tmp_path / "made"
    usk(f"synth --real {real} --strategy waveform --per-class 4 --out {made}").done()
    ran = usk(
        "train", "--real", real, "--mix", "real,synth", "--synth", made, "--out", tmp_path / "runs", "--epochs", 1, "--seeds", 1, "--no-baseline", "--json"
    ).done()  # fmt: skip
    assert [(run["split"], run["n_synthetic"] > 0, run["leaks"]) for run in ran.value["runs"]] == [
        ("fold1", True, []), ("fold2", True, []),
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl"])
def test_the_table_of_an_audiofolder_counts_more_than_its_folders(tmp_path: Path, name: str) -> None:
    names = [f"{day}/{n}.wav" for day in ("mon", "tue") for n in range(2)]
    rows = [
        {"file_name": name, "label": label} for name, label in zip(names, ("owl", "fox") * 2, strict=True)
    ]
    write_clips(tmp_path / "set", rows, "file_name")
    write_table(tmp_path / "set" / name, rows)
    source = open_source(tmp_path / "set")
    assert [fact[:2] for fact in facts(source)] == [(f"set/{row['file_name']}", row["label"]) for row in rows]
    assert not source.has_groups and any("no recordings are named" in note for note in source.notes)


def test_parts_with_a_table_each_are_read_as_one(tmp_path: Path) -> None:
    for part in ("train", "test"):
        rows = [{"file_name": f"{n}.wav", "label": "ab"[n % 2], "session": f"{part}{n}"} for n in range(2)]
        write_clips(tmp_path / "set" / part, rows, "file_name")
        write_table(tmp_path / "set" / part / "metadata.csv", rows)
    source = open_source(tmp_path / "set")
    assert sorted(fact[:3] for fact in facts(source))[:2] == [
        ("set/test/0.wav", "a", "set/test0"), ("set/test/1.wav", "b", "set/test1"),
    ]  # fmt: skip
    assert len(source) == 4


def test_folders_that_are_classes_stay_classes(tone_folder: Path) -> None:
    """Beside a table that says no labels, or that is not called metadata."""
    before = facts(open_source(tone_folder))
    rows = [
        {"file_name": file.relative_to(tone_folder).as_posix(), "speaker": "x"}
        for file in tone_folder.rglob("*.wav")
    ]
    write_table(tone_folder / "metadata.csv", rows)
    assert facts(open_source(tone_folder)) == before
    (tone_folder / "metadata.csv").unlink()
    write_table(tone_folder / "notes.csv", [{**row, "label": "x"} for row in rows])
    assert facts(open_source(tone_folder)) == before


def test_columns_can_be_named(tmp_path: Path) -> None:
    rows = [
        {"path": f"{n}.wav", "Art": "ab"[n % 2], "Aufnahme": n // 2, "Falte": 1 + n % 3} for n in range(6)
    ]
    write_clips(tmp_path / "set", rows, "path")
    write_table(tmp_path / "set" / "clips.csv", rows)
    with pytest.raises(
        SourceError, match=r"no label column among Art, Aufnahme, Falte, .*Name the one to learn"
    ):
        open_source(tmp_path / "set")
    source = open_source(tmp_path / "set", label_column="Art", group_column="Aufnahme", fold_column="Falte")
    assert facts(source)[3] == ("set/3.wav", "b", "set/1", 1)


@pytest.mark.parametrize("encoding", ["cp1251", "shift-jis"])
def test_other_encodings_are_one_line(usk: Command, tmp_path: Path, encoding: str) -> None:
    text = "file_name,label\n0.wav,{}\n".format({"cp1251": "сирена", "shift-jis": "サイレン"}[encoding])
    write_wav(tmp_path / "set" / "0.wav", tone(440, 0.3))
    (tmp_path / "set" / "metadata.csv").write_text(text, encoding=encoding)
    usk("info", tmp_path / "set").refused(1, "metadata.csv cannot be read as a table (not in UTF-8")


ROWS = [{"file_name": f"{n}.wav", "label": "ab"[n % 2]} for n in range(4)]


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    """Four clips of two classes, and a table of them."""
    write_clips(tmp_path / "set", ROWS, "file_name")
    write_table(tmp_path / "set" / "metadata.csv", ROWS)
    return tmp_path / "set"


def test_what_editors_hide_is_no_part(listed: Path) -> None:
    write_table(listed / ".ipynb_checkpoints" / "metadata.csv", ROWS)
    assert len(open_source(listed)) == 4


def test_files_are_found_where_most_of_them_are(tmp_path: Path) -> None:
    folder = esc_50(tmp_path / "ESC-50")
    first = open_source(folder).audio[0].path
    first.unlink()
    assert len(open_source(folder, skip_bad=True)) == 23


def test_other_labels_are_another_revision(listed: Path) -> None:
    before = open_source(listed).revision
    write_table(listed / "metadata.csv", [{**row, "label": "ba"[n % 2]} for n, row in enumerate(ROWS)])
    assert open_source(listed).revision != before


def test_files_that_are_missing_are_named_and_skipped_on_demand(listed: Path) -> None:
    (listed / "2.wav").unlink()
    with pytest.raises(SourceError, match=r"1 of 4 clips in its metadata have no audio file \(2\.wav\)"):
        open_source(listed)
    source = open_source(listed, skip_bad=True)
    assert [fact[0] for fact in facts(source)] == ["set/0.wav", "set/1.wav", "set/3.wav"]
    assert "skipped 1 clip without an audio file" in source.notes


@pytest.mark.parametrize("path", ["../out.wav", "/etc/passwd"])
def test_no_path_leads_out_of_the_folder(listed: Path, path: str) -> None:
    write_table(
        listed / "metadata.csv", [{"file_name": "0.wav", "label": "a"}, {"file_name": path, "label": "b"}]
    )
    with pytest.raises(SourceError, match="leads out of the folder; name files below it"):
        open_source(listed)


def test_a_table_that_is_none_is_one_line(usk: Command, tmp_path: Path) -> None:
    write_wav(tmp_path / "set" / "0.wav", tone(440, 0.3))
    (tmp_path / "set" / "metadata.jsonl").write_text('{"file_name": "0.wav", "label"')
    ran = usk("info", tmp_path / "set")
    assert (ran.code, ran.err.count("\n")) == (1, 1)
    assert "metadata.jsonl cannot be read as a table (line 1: " in ran.err and "or remove it" in ran.err


def test_class_folders_without_a_table_take_no_columns(tone_folder: Path) -> None:
    with pytest.raises(UsageError, match="a folder of files without a table that lists them"):
        open_source(tone_folder, label_column="label")


def test_one_class_is_said(tone_folder: Path) -> None:
    source = open_source(tone_folder.parent)  # a level too high
    assert any(
        note.startswith("one class, tones: classes are the folders directly below") for note in source.notes
    )


@pytest.mark.parametrize("beside", ["notes.txt", "places.csv", "dog/notes.txt"])
def test_one_class_with_folders_of_recordings_stays_one(tmp_path: Path, beside: str) -> None:
    for recording in ("park", "yard"):
        write_wav(tmp_path / "set" / "dog" / recording / "0.wav", tone(440, 0.3))
    (tmp_path / "set" / beside).write_text("name,day\nyard,1\n")
    source = open_source(tmp_path / "set")
    assert source.class_names == ("dog",) and len({clip.group for clip in source.clips}) == 2


def test_a_folder_named_data_is_read_in_its_place(tmp_path: Path) -> None:
    for label in ("dog", "rain"):
        write_wav(tmp_path / "set" / "data" / label / "0.wav", tone(440, 0.3))
    assert open_source(tmp_path / "set").class_names == ("dog", "rain")
