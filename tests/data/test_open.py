"""Every kind of source, and every wrong input, through `open_source` and `decode_source`."""

from __future__ import annotations

import csv
import io
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from tests.sounds import TONES_HZ, URBAN_CLASSES, peak_hz, tone, write_wav
from usk.data.cache import cache_root
from usk.data.decode import decode_source
from usk.data.open import open_source
from usk.data.source import Source
from usk.errors import SourceError, UsageError, UskError

LABELS = ["horn", "bark", "siren"]


def fails(message: str, *args: Any, error: type[UskError] = SourceError, **kwargs: Any) -> str:
    """Opening and decoding raises one line that holds `message`."""
    with pytest.raises(error) as raised:
        decode_source(open_source(*args, **kwargs))
    text = str(raised.value)
    assert message in text, text
    assert "\n" not in text
    return text


# --- UrbanSound8K ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("up", [0, 1], ids=["root", "its parent"])
def test_urbansound8k_as_published(urbansound8k_folder: Path, up: int) -> None:
    source = open_source([urbansound8k_folder, urbansound8k_folder.parent][up])
    assert (source.name, source.license, source.folds) == ("urbansound8k", "CC BY-NC 3.0", (1, 2, 3))
    assert source.class_names == tuple(URBAN_CLASSES.values())
    assert source.counts() == dict.fromkeys(URBAN_CLASSES.values(), 18)
    assert source.has_groups and source.notes == ()
    clip = next(clip for clip in source.clips if clip.clip_id == "urbansound8k/8102-8-0-1.wav")
    assert (clip.group, clip.fold, clip.label) == ("urbansound8k/8102", 1, 2)
    assert clip.duration_s == pytest.approx(0.6)
    decoded = decode_source(source)
    row = source.clips.index(clip)
    assert decoded.source.clips[row].duration_s == pytest.approx(0.6, abs=1e-4)
    samples, _ = soundfile.read(urbansound8k_folder / "audio" / "fold1" / "8102-8-0-1.wav", dtype="float32")
    np.testing.assert_allclose(decoded.audio(row), samples, atol=2e-5)


def test_metadata_that_went_through_a_spreadsheet(urbansound8k_folder: Path) -> None:
    file = urbansound8k_folder / "metadata" / "UrbanSound8K.csv"
    before, rows = open_source(urbansound8k_folder), file.read_text().splitlines()
    place = rows[0].split(",").index("end")
    subsets = rows[1].split(",")
    subsets[place] = "NA"
    file.write_text("\n".join([rows[0], ",".join(subsets), *rows[2:]]) + "\n", encoding="utf-8-sig")
    source = open_source(urbansound8k_folder)
    assert [clip.clip_id for clip in source.clips] == [clip.clip_id for clip in before.clips]
    assert sum(clip.duration_s == 0.0 for clip in source.clips) == 1
    file.write_bytes(file.read_bytes() + b"\xe9\n")
    fails("UrbanSound8K.csv is not a CSV file in UTF-8", urbansound8k_folder)


def test_metadata_rows_without_their_audio_are_counted_and_skipped_on_demand(
    urbansound8k_folder: Path,
) -> None:
    for file in sorted(urbansound8k_folder.glob("audio/fold2/*.wav"))[:5]:
        file.unlink()
    text = fails("5 of 54 clips in its metadata have no audio file", urbansound8k_folder)
    assert "`skip_bad`" in text and "1200-1-0-0.wav" in text and "and 2 more" in text
    source = open_source(urbansound8k_folder, skip_bad=True)
    assert len(source) == len(decode_source(source)) == 49
    (note,) = source.notes
    assert note.startswith("skipped 5 clips without an audio file (") and "1200-1-0-0.wav" in note
    shutil.rmtree(urbansound8k_folder / "audio")
    fails("none of the 54 clips in its metadata has its audio file", urbansound8k_folder, skip_bad=True)
    (urbansound8k_folder / "metadata" / "UrbanSound8K.csv").write_text("file,class\na.wav,siren\n")
    fails("UrbanSound8K.csv lacks rows or the columns", urbansound8k_folder)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("slice_file_name", "../../secret.wav", "leads out of the fold's folder"),
        ("slice_file_name", "", "line 2 is incomplete"),
        ("fold", "one", "line 2 is incomplete"),
        ("classID", "", "line 2 is incomplete"),
    ],
)
def test_a_broken_metadata_row_is_named(
    urbansound8k_folder: Path, column: str, value: str, message: str
) -> None:
    write_wav(urbansound8k_folder / "secret.wav", tone(440, 0.5))
    metadata = urbansound8k_folder / "metadata" / "UrbanSound8K.csv"
    with metadata.open(newline="") as file:
        rows = list(csv.DictReader(file))
    rows[0][column] = value
    with metadata.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    fails(message, urbansound8k_folder)


# --- class folders -----------------------------------------------------------------------------------------


def test_class_folders_with_a_folder_for_each_recording(tone_folder: Path) -> None:
    source = open_source(tone_folder)
    assert source.class_names == ("high", "low", "middle")
    assert source.counts() == {"high": 8, "low": 8, "middle": 8}
    assert len({clip.group for clip in source.clips}) == 12
    assert source.clips[0].group == "tones/high/high0"
    assert source.clips[0].clip_id == "tones/high/high0/cut0.wav"
    assert source.has_groups and not any("recordings are named" in note for note in source.notes)
    decoded = decode_source(source)
    for row, clip in enumerate(decoded.source.clips):
        expected_hz = TONES_HZ[source.class_names[clip.label]] * (1 + 0.03 * int(clip.group[-1]))
        assert peak_hz(decoded.audio(row), 22_050) == pytest.approx(expected_hz, abs=2)


def test_a_recording_folder_that_several_classes_have_is_one_recording(tone_folder: Path) -> None:
    for name in ("low", "high"):
        (tone_folder / name / f"{name}0").rename(tone_folder / name / "street-2024-05")
    source = open_source(tone_folder)
    groups = {clip.clip_id: clip.group for clip in source.clips}
    assert groups["tones/low/street-2024-05/cut0.wav"] == "tones/street-2024-05"
    assert groups["tones/high/street-2024-05/cut1.wav"] == "tones/street-2024-05"
    assert groups["tones/middle/middle0/cut0.wav"] == "tones/middle/middle0"
    assert len(set(groups.values())) == 11
    assert len({clip.fold for clip in source.clips if clip.group == "tones/street-2024-05"}) == 1
    note = "recording folders that several classes have (street-2024-05) count as one recording each"
    assert next(text for text in source.notes if "several classes" in text).startswith(note)


def test_clips_beside_recording_folders_are_counted(tone_folder: Path) -> None:
    files = sorted((tone_folder / "low").rglob("*.wav"))
    for moved, said, has_groups in (
        (
            files[:3],
            "3 of 24 clips lie in no folder of a recording (some of low), so each clip counts as its own: if",
            True,
        ),
        (files[3:], "8 of 24 clips lie in no folder of a recording (all of low), so each", False),
    ):
        for file in moved:
            file.rename(tone_folder / "low" / f"{file.parent.name}-{file.name}")
        source = open_source(tone_folder)
        assert source.has_groups is has_groups and any(note.startswith(said) for note in source.notes)
    assert len({clip.group for clip in source.clips}) == 8 + 8


def test_names_that_are_not_utf8_are_named_and_skipped_on_demand(tone_folder: Path) -> None:
    file = tone_folder / "low" / "low0" / "cut0.wav"
    try:
        file.rename(file.parent / os.fsdecode(b"caf\xe9.wav"))
    except OSError:
        pytest.skip("a file system of names in UTF-8")
    text = fails("1 file named in other bytes than UTF-8: low/low0/caf\\xe9.wav", tone_folder)
    assert "`skip_bad`" in text
    source = open_source(tone_folder, skip_bad=True)
    assert len(decode_source(source)) == 23
    assert any(note.startswith("skipped 1 file named in other bytes than UTF-8: ") for note in source.notes)
    fails("the name of the folder", tone_folder.rename(tone_folder.parent / os.fsdecode(b"t\xf6ne")))


def test_the_revision_depends_on_content_not_on_place_or_time(tone_folder: Path, tmp_path: Path) -> None:
    first = open_source(tone_folder)
    copy = shutil.copytree(tone_folder, tmp_path / "elsewhere" / "tones", copy_function=shutil.copyfile)
    there = open_source(copy)
    assert (there.clips, there.revision) == (
        first.clips,
        first.revision,
    ) and there.cache_key != first.cache_key
    file = tone_folder / "low" / "low0" / "cut0.wav"
    samples, rate_hz = soundfile.read(file, dtype="int16")
    soundfile.write(file, samples // 2, rate_hz)  # as long as before, and as many bytes
    other = open_source(tone_folder)
    assert other.revision != first.revision and other.cache_key != first.cache_key
    soundfile.write(file, samples, rate_hz)
    assert open_source(tone_folder).revision == first.revision


def test_files_are_read_again_only_if_they_changed_or_could_not_be_read(
    tone_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("usk.data.fingerprint._digest", lambda ref: "")
        unread = open_source(tone_folder).revision
    read = open_source(tone_folder).revision
    assert read != unread
    with monkeypatch.context() as patch:
        patch.setattr("usk.data.fingerprint._digest", None)
        assert open_source(tone_folder).revision == read
    for file in (cache_root() / "revisions").iterdir():
        file.write_text("damaged")
    assert open_source(tone_folder).revision == read


def test_flat_class_folders_warn_that_each_clip_is_its_own_recording(tmp_path: Path) -> None:
    for name in ("a", "b"):
        for index in range(6):
            write_wav(tmp_path / "flat" / name / f"{index}.WAV", tone(400, 0.2), format="WAV")
    (tmp_path / "flat" / "a" / "notes.txt").write_text("no audio")
    (tmp_path / "flat" / ".hidden").mkdir()
    source = open_source(tmp_path / "flat")
    assert len(source) == len({clip.group for clip in source.clips}) == 12
    assert not source.has_groups
    assert any("test scores will be too high" in note for note in source.notes)
    for file in (tmp_path / "flat").glob("*/[2-5].WAV"):
        file.unlink()
    assert open_source(tmp_path / "flat").folds == (1, 2), "two clips a class of one recording each"


# --- Hugging Face datasets ---------------------------------------------------------------------------------


def wav_bytes(samples: np.ndarray, form: str = "WAV") -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, 22_050, format=form)
    return buffer.getvalue()


def hugging_face_table(n: int = 12, typed: bool = True, **columns: list[Any]) -> pa.Table:
    """Rows as the Hugging Face libraries write them: encoded audio beside its path, and the given columns."""
    audio = [{"bytes": wav_bytes(tone(300 + 50 * row, 0.3)), "path": f"{row}.wav"} for row in range(n)]
    columns.setdefault("label", [row % 3 for row in range(n)])
    kinds = {"str": datasets.Value("string"), "int": datasets.Value("int64")}
    features: dict[str, Any] = {"audio": datasets.Audio()} if typed else {}
    for name, values in columns.items():
        features[name] = kinds[type(values[0]).__name__]
    if typed:
        features["label"] = datasets.ClassLabel(names=LABELS)
        return pa.table({"audio": audio, **columns}, schema=datasets.Features(features).arrow_schema)
    return pa.table({"audio": audio, **columns})


def write_parquet(folder: Path, table: pa.Table, shards: int = 2) -> Path:
    (folder / "data").mkdir(parents=True)
    size = -(-table.num_rows // shards)
    for shard in range(shards):
        name = f"train-{shard:05d}-of-{shards:05d}.parquet"
        pq.write_table(table.slice(shard * size, size), folder / "data" / name, row_group_size=4)
    return folder


def check_tones(source: Source) -> None:
    decoded = decode_source(source)
    assert len(decoded) == len(source)
    for row in range(len(source)):
        assert peak_hz(decoded.audio(row), 22_050) == pytest.approx(300 + 50 * row, abs=2)


def test_a_parquet_folder_with_columns_found_by_name_and_type(tmp_path: Path) -> None:
    groups, folds = [100 + row // 2 for row in range(12)], [1 + row // 2 % 2 for row in range(12)]
    table = hugging_face_table(fsID=groups, fold=folds, slice_name=[f"x{row}" for row in range(12)])
    folder = write_parquet(tmp_path / "set", table)
    (folder / "data" / "._train-00000-of-00002.parquet").write_bytes(b"Mac OS X")
    source = open_source(folder)
    assert source.class_names == tuple(LABELS)
    assert [clip.label for clip in source.clips] == [row % 3 for row in range(12)]
    assert [clip.group for clip in source.clips] == [f"set/{group}" for group in groups]
    assert [clip.fold for clip in source.clips] == folds
    assert source.has_groups and source.notes == ()
    check_tones(source)


def test_a_parquet_folder_with_columns_that_the_user_names(tmp_path: Path) -> None:
    tapes, parts = ([f"{name}{row // 3}" for row in range(12)] for name in ("t", "fold"))
    table = hugging_face_table(typed=False, kind=["siren", "horn"] * 6, tape=tapes, part=parts)
    folder = write_parquet(tmp_path / "set", table)
    source = open_source(folder, label_column="kind", group_column="tape", fold_column="part")
    assert source.class_names == ("horn", "siren")
    assert [clip.label for clip in source.clips] == [1, 0] * 6
    assert [clip.group for clip in source.clips] == [f"set/t{row // 3}" for row in range(12)]
    assert [clip.fold for clip in source.clips] == [1 + row // 3 for row in range(12)]  # counted from 1
    check_tones(source)


@pytest.mark.parametrize(
    ("folds", "numbers", "note"),
    [
        ([3, 1, 2] * 4, [3, 1, 2] * 4, None),
        (["Fold_3", "fold01", "2"] * 4, [3, 1, 2] * 4, None),
        ([0, 1, 2] * 4, [1, 2, 3] * 4, "0 is 1, 1 is 2, 2 is 3"),
        (["set10", "set2", "a"] * 4, [3, 2, 1] * 4, "a is 1, set2 is 2, set10 is 3"),
    ],
    ids=["numbers", "names of numbers", "from 0", "names"],
)
def test_folds_keep_their_numbers_or_a_note_says_the_new_ones(
    tmp_path: Path, folds: list[Any], numbers: list[int], note: str | None
) -> None:
    source = open_source(write_parquet(tmp_path / "set", hugging_face_table(fold=folds)))
    assert [clip.fold for clip in source.clips] == numbers
    said = [text for text in source.notes if "folds" in text]
    assert said == ([] if note is None else [f"folds are numbered from the column fold: {note}"])


@pytest.mark.parametrize("missing", [None, float("nan"), ""], ids=["null", "NaN", "empty"])
def test_a_row_without_a_fold_is_refused_and_one_without_a_recording_is_its_own(
    tmp_path: Path, missing: Any
) -> None:
    table = hugging_face_table(typed=False, label=["a", "b"] * 6)
    folds = pa.array([str(row) if missing == "" else float(row) for row in range(1, 12)] + [missing])
    folder = write_parquet(tmp_path / "set", table.append_column("fold", folds), shards=1)
    fails("no value in 1 row. Name another column.", folder)
    names = [missing if row % 3 == 0 else str(row // 6) if missing == "" else row / 6 for row in range(12)]
    named = table.append_column("recording", pa.array(names))
    source = open_source(write_parquet(tmp_path / "named", named, shards=1))
    assert len({source.clips[row].group for row in (0, 3, 6, 9)}) == 4
    assert "no recording in the column recording for 4 rows: each counts as its own" in source.notes


def test_the_label_is_chosen_by_name_among_class_columns(tmp_path: Path) -> None:
    plain = hugging_face_table(mic=[row % 2 for row in range(12)], category=["a", "b", "c"] * 4)
    table = of_classes(plain, mic=["phone", "studio"])
    assert open_source(write_parquet(tmp_path / "set", table)).class_names == tuple(LABELS)
    other = table.drop_columns(["category"]).rename_columns(["audio", "mic", "creature"])
    folder = write_parquet(tmp_path / "other", of_classes(other, mic=["phone", "studio"], creature=LABELS))
    fails("has several columns of classes (mic, creature) among mic, creature. Name the one to learn", folder)
    assert open_source(folder, label_column="creature").class_names == tuple(LABELS)
    text = write_parquet(tmp_path / "text", table.drop_columns(["label"]))
    assert open_source(text).class_names == ("a", "b", "c")
    alone = write_parquet(tmp_path / "alone", table.drop_columns(["label", "category"]))
    assert open_source(alone).class_names == ("phone", "studio")


@pytest.mark.parametrize(
    ("labels", "names"),
    [(["b", "a", "b"] * 4, ("a", "b")), ([7, 3, 7] * 4, ("3", "7")), ([10, 9, 9] * 4, ("9", "10"))],
    ids=["strings", "integers", "integers of two lengths"],
)
def test_labels_may_be_strings_or_integers(tmp_path: Path, labels: list[Any], names: tuple[str, ...]) -> None:
    source = open_source(write_parquet(tmp_path / "set", hugging_face_table(typed=False, label=labels)))
    assert source.class_names == names
    assert [source.class_names[clip.label] for clip in source.clips] == [str(label) for label in labels]


@pytest.mark.parametrize("column", [False, True], ids=["no column", "a column without any value"])
def test_a_dataset_without_groups_and_folds_says_so_and_gets_folds(tmp_path: Path, column: bool) -> None:
    table = hugging_face_table()
    table = table.append_column("fold", pa.array([None] * 12, pa.int64())) if column else table
    source = open_source(write_parquet(tmp_path / "set", table))
    assert not source.has_groups and len({clip.group for clip in source.clips}) == 12
    for said in ("column of recordings", "no folds are given"):
        assert any(said in note for note in source.notes)
    assert len(source.folds) > 1 and min(source.folds) == 1


def test_samples_with_their_channels_first(tmp_path: Path) -> None:
    samples = np.stack([tone(300, 0.3)] * 2).tolist()
    subsets = [{"array": samples, "sampling_rate": 22_050, "bytes": None, "path": None}]
    (tmp_path / "set").mkdir()
    pq.write_table(pa.table({"audio": subsets, "label": ["a"]}), tmp_path / "set" / "rows.parquet")
    check_tones(open_source(tmp_path / "set"))


@pytest.mark.parametrize("split", [False, True], ids=["dataset", "dataset dict"])
def test_a_saved_dataset_keeps_its_license_and_its_columns(tmp_path: Path, split: bool) -> None:
    """Columns that `set_format` hides are read."""
    table = hugging_face_table(group=[f"g{row // 2}" for row in range(12)])
    saved = datasets.Dataset(datasets.table.InMemoryTable(table))
    saved.info.license = "cc-by-4.0"
    saved.set_format("numpy", columns=["label"])
    if split:
        parts = {"train": saved.select(range(8)), "test": saved.select(range(8, 12))}
        datasets.DatasetDict(parts).save_to_disk(str(tmp_path / "set"))
    else:
        saved.save_to_disk(str(tmp_path / "set"))
    source = open_source(tmp_path / "set")
    assert (source.kind, source.license) == ("saved Hugging Face dataset", "cc-by-4.0")
    assert source.class_names == tuple(LABELS)
    assert [clip.group for clip in source.clips] == [f"set/g{row // 2}" for row in range(12)]
    if split:
        assert open_source(tmp_path / "set", fold_column="split").folds == (1, 2)
    check_tones(source)
    (tmp_path / "set" / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n")
    assert open_source(tmp_path / "set").license == "cc-by-nc-4.0"


@pytest.mark.parametrize("field", ["label_column", "group_column", "fold_column"])
def test_an_unknown_column_names_the_flag(tmp_path: Path, field: str) -> None:
    folder = write_parquet(tmp_path / "set", hugging_face_table())
    assert "it has label" in fails(f"{field} other: ", folder, error=UsageError, **{field: "other"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda table: table.rename_columns(["audio", "creature"]),
            "no label column among creature. Name the one to learn",
        ),
        (lambda table: table.drop_columns(["audio"]), "no audio column; its columns are label"),
        (
            lambda table: table.set_column(1, "label", pa.array([None] * 2 + ["a"] * 10)),
            "no value in 2 rows. Fix",
        ),
        (lambda table: table.slice(0, 0), "holds no clips"),
    ],
)
def test_a_dataset_without_a_needed_part(tmp_path: Path, change: Any, message: str) -> None:
    fails(message, write_parquet(tmp_path / "set", change(hugging_face_table(typed=False)), shards=1))


def test_a_damaged_parquet_file_is_named(tmp_path: Path) -> None:
    folder = write_parquet(tmp_path / "set", hugging_face_table())
    file = folder / "data" / "train-00001-of-00002.parquet"
    file.write_bytes(file.read_bytes()[:200])
    fails("train-00001-of-00002.parquet is not a complete Parquet file", folder)


@pytest.mark.parametrize("path", ["../secret.wav", "{outside}"], ids=["relative", "absolute"])
@pytest.mark.parametrize("kind", ["parquet", "saved"])
def test_a_path_that_leads_out_of_the_dataset_is_not_followed(tmp_path: Path, path: str, kind: str) -> None:
    secret = write_wav(tmp_path / "secret.wav", tone(440, 0.3))
    subset = {"bytes": None, "path": path.format(outside=secret)}
    features = datasets.Features({"audio": datasets.Audio(decode=False), "label": datasets.Value("string")})
    table = pa.table({"audio": [subset] * 2, "label": ["a", "b"]}, schema=features.arrow_schema)
    folder = tmp_path / "set"
    if kind == "parquet":
        folder.mkdir()
        pq.write_table(table, folder / "rows.parquet")
    else:  # `save_to_disk` would embed the file, so the rows are put there afterwards
        subsets = [{"bytes": b"x", "path": None}] * 2
        harmless = pa.table({"audio": subsets, "label": ["a", "b"]}, schema=table.schema)
        datasets.Dataset(datasets.table.InMemoryTable(harmless)).save_to_disk(str(folder))
        arrow = next(folder.glob("*.arrow"))
        with pa.OSFile(str(arrow), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table)
    fails("its path leads out of the dataset's folder", folder)


def test_a_path_inside_the_dataset_is_followed(tmp_path: Path) -> None:
    write_wav(tmp_path / "set" / "wavs" / "0.wav", tone(300, 0.3))
    table = pa.table({"audio": [{"bytes": None, "path": "wavs/0.wav"}], "label": ["a"]})
    pq.write_table(table, tmp_path / "set" / "rows.parquet")
    check_tones(open_source(tmp_path / "set"))


# --- the demo and the Hub ----------------------------------------------------------------------------------


def test_demo_is_procedural_sound_and_says_so() -> None:
    source = open_source("demo")
    assert (len(source), source.folds, source.license) == (540, (1, 2, 3), "CC0-1.0")
    assert any("not field recordings" in note for note in source.notes)
    few = source.subset(range(0, 540, 180))
    decoded = decode_source(few)
    for row, clip in enumerate(decoded.source.clips):
        assert len(decoded.audio(row)) == round(clip.duration_s * 22_050)
        assert clip.clip_id == few.clips[row].clip_id and np.abs(decoded.audio(row)).max() > 0.01


# --- wrong folders -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "no such folder. A source is"),
        (lambda path: path.mkdir(), "is empty. A source is"),
        (lambda path: path.write_text("x"), "this is a file. Name the folder"),
        (
            lambda path: write_wav(path / "a.wav", tone(440, 0.3)),
            "its 1 audio files need a folder for each class",
        ),
        (lambda path: (path / "class").mkdir(parents=True), "it has no audio files in sub-folders"),
    ],
    ids=["missing", "empty", "a file", "loose audio", "empty class"],
)
def test_a_folder_that_is_no_source(tmp_path: Path, make: Any, message: str) -> None:
    make(tmp_path / "source")
    assert str(tmp_path / "source") in fails(message, tmp_path / "source")


# --- wrong audio -------------------------------------------------------------------------------------------


def _nan_wav(path: Path) -> None:
    samples = tone(440, 0.3)
    samples[100] = np.nan
    write_wav(path, samples, subtype="FLOAT")


def _written(content: Callable[[], bytes]) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content())


def _wav(samples: Callable[[np.ndarray], np.ndarray], **options: Any) -> Callable[[Path], object]:
    return lambda path: write_wav(path, samples(tone(440, 0.3)), **options)


def _noise() -> bytes:
    return wav_bytes(np.random.default_rng(0).normal(0, 0.1, 30_000), form="FLAC")


BAD_AUDIO: dict[str, tuple[Callable[[Path], object], str | None]] = {
    "zero bytes": (_written(lambda: b""), "empty file"),
    "truncated WAV": (_written(lambda: wav_bytes(tone(440, 0.3))[:5_000]), "truncated"),
    "WAV cut in its header": (_written(lambda: wav_bytes(tone(440, 0.3))[:20]), "truncated"),
    "text": (_written(lambda: b"this is no sound\n" * 20), "not an audio file"),
    "silence": (_wav(lambda sound: 0 * sound), "silent"),
    "opposite channels": (_wav(lambda sound: np.stack([sound, -sound], 1), subtype="FLOAT"), "silent"),
    "one sample": (_wav(lambda sound: sound[1:2]), "too short (1 sample)"),
    "no samples": (_wav(lambda sound: sound[:0]), "too short (0 samples)"),
    "NaN": (_nan_wav, "has NaN or infinite samples"),
    "truncated FLAC": (_written(lambda: _noise()[:9_000]), None),  # libsndfile: cut, or cannot be read
}


@pytest.mark.parametrize(("make", "reason"), BAD_AUDIO.values(), ids=BAD_AUDIO.keys())
def test_audio_that_cannot_be_used_is_counted_named_and_skipped_on_demand(
    tone_folder: Path, make: Any, reason: str | None
) -> None:
    make(tone_folder / "low" / "low0" / "cut0.wav")
    text = fails("1 of 24 clips cannot be used: low/low0/cut0.wav (", tone_folder)
    assert "`skip_bad`" in text and (reason is None or f"({reason}" in text), text
    decoded = decode_source(open_source(tone_folder), skip_bad=True)
    assert len(decoded) == len(decoded.source.clips) == len(decoded.source.audio) == 23
    assert "tones/low/low0/cut0.wav" not in {clip.clip_id for clip in decoded.source.clips}
    assert any("skipped 1 clip that cannot be used" in note for note in decoded.source.notes)
    row = [clip.clip_id for clip in decoded.source.clips].index("tones/low/low0/cut1.wav")
    assert peak_hz(decoded.audio(row), 22_050) == pytest.approx(300, abs=2), "rows after the gap are right"


# --- selecting ---------------------------------------------------------------------------------------------


def test_select_keeps_rows_audio_and_class_numbers_together(urbansound8k_folder: Path) -> None:
    source = open_source(urbansound8k_folder)
    chosen = source.select(classes=["siren"], folds=[2, 3])
    assert {(clip.label, clip.fold) for clip in chosen.clips} == {(2, 2), (2, 3)}
    assert len(chosen) == 12 and chosen.class_names == source.class_names
    names = [ref.path.name for ref in chosen.audio]
    assert names == [clip.clip_id.partition("/")[2] for clip in chosen.clips]


# --- what datasets from elsewhere are like ---------------------------------------------------------------------


def of_classes(table: pa.Table, **names: list[str]) -> pa.Table:
    """The table with columns of numbers declared as classes."""
    features = datasets.Features.from_arrow_schema(table.schema)
    for column, of_column in names.items():
        features[column] = datasets.ClassLabel(names=of_column)
    return table.cast(features.arrow_schema)


def test_class_columns_of_folds_and_recordings_keep_their_names(
    tmp_path: Path,
) -> None:
    rows = range(12)
    plain = hugging_face_table(
        typed=True, fold=[row // 3 for row in rows], session=[row // 2 for row in rows],
        category=["siren" if row % 2 else "horn" for row in rows],
    )  # fmt: skip
    table = of_classes(
        plain.drop_columns(["label"]), fold=["1", "10", "2", "3"], session=[f"day {day}" for day in range(6)]
    )
    source = open_source(write_parquet(tmp_path / "set", table))
    assert source.class_names == ("horn", "siren")
    assert [clip.fold for clip in source.clips] == [[1, 10, 2, 3][row // 3] for row in rows]
    assert source.clips[3].group == "set/day 1"
    assert not any("folds are numbered" in note for note in source.notes)
    several = "2 recordings with clips in several folds (set/day 1, set/day 4)"
    assert any(several in note for note in source.notes)
    unnamed = table.drop_columns(["category"]).append_column("sound", plain.column("label"))
    unnamed = of_classes(
        unnamed, sound=LABELS, fold=["1", "10", "2", "3"], session=[f"day {day}" for day in range(6)]
    )
    alone = open_source(write_parquet(tmp_path / "alone", unnamed))
    assert alone.class_names == tuple(LABELS), "the only one of classes that says nothing else"


def test_a_note_names_columns_that_could_be_recordings(tmp_path: Path) -> None:
    rows = range(12)
    table = hugging_face_table(source=[f"s{row // 2}" for row in rows], note=["x"] * 12)
    notes = open_source(write_parquet(tmp_path / "set", table)).notes
    (note,) = [note for note in notes if "no recordings are named" in note]
    assert note.endswith("(name the column of recordings, perhaps source)")


def test_classes_whose_names_have_commas_can_be_chosen(tone_folder: Path) -> None:
    (tone_folder / "low").rename(tone_folder / "pump, hydraulic")
    source = open_source(tone_folder)
    for typed in (("pump", "hydraulic"), ("pump, hydraulic",)):
        chosen = source.select(classes=typed)
        assert chosen.counts()["pump, hydraulic"] == len(chosen) > 0
    both = source.select(classes=("high", "pump", "hydraulic"))
    assert {source.class_names[clip.label] for clip in both.clips} == {"high", "pump, hydraulic"}
    said = r"classes pump: .* has no such class; it has high, middle, 'pump, hydraulic'"
    with pytest.raises(UsageError, match=said):
        source.select(classes=("pump",))


def test_splits_of_different_columns_are_one_line(tmp_path: Path) -> None:
    table = hugging_face_table()
    first = datasets.Dataset(datasets.table.InMemoryTable(table))
    second = first.cast_column("label", datasets.Value("string"))
    datasets.DatasetDict({"train": first, "test": second}).save_to_disk(str(tmp_path / "set"))
    fails("its splits train, test have different columns and cannot be read as one", tmp_path / "set")


def test_splits_are_read_as_one_and_parquet_files_in_sub_folders_pointed_out(tmp_path: Path) -> None:
    folder = write_parquet(tmp_path / "mc" / "big", hugging_face_table())
    first, second = sorted((folder / "data").iterdir())
    first.rename(folder / "data" / "test-00000-of-00001.parquet")
    second.rename(folder / "data" / "train-00000-of-00001.parquet")
    assert "its splits test, train are read as one, and folds say what is tested" in open_source(folder).notes
    write_parquet(tmp_path / "mc" / "small", hugging_face_table())
    fails("it has Parquet files in sub-folders (big, small): name one of them", tmp_path / "mc")


def test_notes_name_files_that_are_no_clips(tone_folder: Path) -> None:
    write_wav(tone_folder / "loose.wav", tone(440, 0.5))
    (tone_folder / "owl").mkdir()
    (tone_folder / "owl" / "hoot.m4a").write_bytes(b"x")
    elsewhere = tone_folder.parent / "disk2" / "r99"
    write_wav(elsewhere / "cut.wav", tone(440, 0.5))
    first = next(folder for folder in sorted(tone_folder.iterdir()) if folder.is_dir())
    (first / "r99").symlink_to(elsewhere)
    (elsewhere / "again").symlink_to(elsewhere)  # no end, if it were followed
    (first / "._cut0.wav").write_text("x")
    (first / "memo.wma").write_text("x")
    if hasattr(os, "mkfifo"):
        os.mkfifo(first / "pipe.wav")
    source = open_source(tone_folder)
    assert len(source) == 24 + 1
    assert any("2 files (.m4a, .wma) are passed over" in note for note in source.notes)
    linked = [clip.clip_id for clip in source.clips if "r99" in clip.clip_id]
    assert linked == [f"{tone_folder.name}/{first.name}/r99/cut.wav"]
    assert "usk reads no file in owl, so it is no class" in source.notes
    assert "1 audio file outside the class folders passed over: a clip's class is its folder" in source.notes
