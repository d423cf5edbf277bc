"""Folders with a table of clips: `metadata.csv` and JSON lines of audiofolder, ESC-50's layout, and other tables."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.sounds import tone, write_wav
from usk.data.decode import decode_source
from usk.data.open import open_source
from usk.data.source import Source
from usk.errors import SourceError, UsageError

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


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl"])
def test_labels_of_an_audiofolder_table_override_folders(tmp_path: Path, name: str) -> None:
    names = [f"{day}/{n}.wav" for day in ("mon", "tue") for n in range(2)]
    rows = [
        {"file_name": name, "label": label} for name, label in zip(names, ("owl", "fox") * 2, strict=True)
    ]
    write_clips(tmp_path / "set", rows, "file_name")
    write_table(tmp_path / "set" / name, rows)
    source = open_source(tmp_path / "set")
    assert [fact[:2] for fact in facts(source)] == [(f"set/{row['file_name']}", row["label"]) for row in rows]
    assert not source.has_groups and any("no recordings are named" in note for note in source.notes)


def test_folders_that_are_classes_stay_classes(tone_folder: Path) -> None:
    """A table without labels, or one with another name than metadata, does not change the classes."""
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


def test_the_revision_depends_on_labels_and_no_path_leads_out_of_the_folder(tmp_path: Path) -> None:
    folder, table = tmp_path / "set", tmp_path / "set" / "metadata.csv"
    rows = [{"file_name": f"{n}.wav", "label": "ab"[n % 2]} for n in range(4)]
    write_clips(folder, rows, "file_name")
    write_table(table, rows)
    before = open_source(folder).revision
    write_table(table, [{**row, "label": "ba"[n % 2]} for n, row in enumerate(rows)])
    assert open_source(folder).revision != before
    for path in ("../out.wav", "/etc/passwd"):
        write_table(table, [{"file_name": "0.wav", "label": "a"}, {"file_name": path, "label": "b"}])
        with pytest.raises(SourceError, match="leads out of the folder; name files below it"):
            open_source(folder)


def test_class_folders_without_a_table_take_no_columns(tone_folder: Path) -> None:
    with pytest.raises(UsageError, match="a folder of files without a table that lists them"):
        open_source(tone_folder, label_column="label")


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
