"""Hostile datasets: wrong values are refused in one line, and oversized clips are named and skipped."""

from __future__ import annotations

import contextlib
import json
import math
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.manifests import JSON, manifest_dict
from tests.sounds import tone, write_wav
from usk.data import audio_file
from usk.data.audio_file import BadAudioError, read_audio_bytes
from usk.data.checks import provenance_of
from usk.data.decode import decode_source
from usk.data.open import open_source
from usk.data.pinned import is_inside
from usk.synth.dataset_folder import dataset_features, encode_flac

Command = Callable[..., Any]


def row(index: int, **changes: Any) -> dict[str, Any]:
    """One good row of a synthetic dataset, with changes."""
    return {
        "clip_id": f"c{index}", "audio": {"bytes": encode_flac(tone(400, 0.2, 8_000), 8_000), "path": None},
        "label": index % 2, "group": f"c{index}", "fold": 1, "parents": ["s/a", "s/b"],
        "parent_groups": ["s/1", "s/2"], "parent_folds": [1, 1], "strategy": "slerp", "alpha": 0.5,
        "weights": [0.5, 0.5], "seed": 7, "steps": 4, "model": "tiny@1", "gain_db": 0.0, "filter_score": None,
        **changes,
    }  # fmt: skip


def dataset(folder: Path, *rows: dict[str, Any], manifest: Any = None, **columns: pa.Array) -> Path:
    """A Parquet folder with these rows; `columns` replace whole columns, whatever their type."""
    schema = dataset_features(["a", "b"], 8_000).arrow_schema
    table = pa.Table.from_pylist(list(rows), schema=schema)
    for name, values in columns.items():
        table = table.set_column(table.schema.get_field_index(name), name, values)
    (folder / "data").mkdir(parents=True)
    pq.write_table(table, folder / "data" / "train-00000-of-00001.parquet")
    if manifest is not None:
        text = manifest if isinstance(manifest, str) else json.dumps(manifest)
        (folder / "usk.json").write_text(text)
    return folder


SHARDS = {"data/train-00000-of-00001.parquet": {"rows": 2}}
HOSTILE: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "a label out of range": ({"label": 2}, {}, "labels outside its 2 classes in 1 row"),
    "no label": ({"label": None}, {}, "no value in 1 row"),
    "a negative fold": ({"fold": -3}, {}, "-3 is not a fold, in 1 row"),
    "a fold beyond counting": ({"fold": 2**60}, {}, "is not a fold, in 1 row"),
    "alpha NaN": ({"alpha": math.nan}, {}, "row 1: alpha is not a finite number"),
    "parents that are no list": ({}, {"parents": pa.array(["s/a", "s/b"])}, "parents is not a list"),
    "names of fewer parents": ({"parent_names": ["a"]}, {}, "parent_names and parent_seconds differ in length"),
    "parents without their recordings": ({"parent_groups": []}, {}, "differ in length"),
    "a parent without a name": ({"parents": ["s/a", None]}, {}, "parents is not text"),
    "a parent with an empty name": ({"parents": ["s/a", ""]}, {}, "a parent has no name"),
    "no parents at all": ({"parents": None}, {}, "parents is not a list"),
    "parents' folds below 0": ({"parent_folds": [1, -1]}, {}, "parent_folds has numbers that are no folds"),
    "no model": ({"model": None}, {}, "model is not text"),
    "steps below 0": ({"steps": -1}, {}, "seed or steps are below 0"),
    "a foreign manifest": ({}, {"manifest": {"shards": SHARDS}}, "usk.json is not the record of a synthetic dataset"),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "columns", "message"), HOSTILE.values(), ids=HOSTILE.keys())
def test_a_wrong_value_is_refused_in_one_line(
    usk: Command, tmp_path: Path, changes: dict[str, Any], columns: dict[str, Any], message: str
) -> None:
    folder = dataset(tmp_path / "d", row(0), row(1, **changes), **columns)
    usk("info", folder).refused(1, message)


def test_a_right_dataset_is_read(usk: Command, tmp_path: Path) -> None:
    across = row(1, fold=0, parent_folds=[1, 2], filter_score=0.5)
    folder = dataset(tmp_path / "d", row(0), across, manifest=manifest_dict(shards=SHARDS, license="CC0-1.0"))
    source = open_source(folder)
    assert [clip.fold for clip in source.clips] == [1, 0]  # 0 says across folds: not a fold to count from
    assert source.is_synthetic and not source.notes
    assert usk("info", folder, "--json").value["made by"] == ["tiny@1"]


def test_clips_that_name_no_parents_are_counted_in_a_warning(tmp_path: Path) -> None:
    orphan = row(1, parents=[], parent_groups=[], parent_folds=[])
    source = open_source(dataset(tmp_path / "d", row(0), orphan))
    assert not source.is_synthetic
    assert any("1 of 2 clips" in note and "leaks cannot be ruled out" in note for note in source.notes)


def test_files_whose_columns_differ_are_refused(usk: Command, tmp_path: Path) -> None:
    folder = dataset(tmp_path / "d", row(0), row(1))
    other = dataset(tmp_path / "e", row(0), row(1), alpha=pa.array(["x", "y"]))
    (shard,) = other.glob("data/*.parquet")
    shard.rename(folder / "data" / "train-00001-of-00002.parquet")
    ran = usk("info", folder)
    assert ran.code == 1 and "has other columns than the files before it" in ran.err


def test_metadata_that_datasets_does_not_understand_is_refused(usk: Command, tmp_path: Path) -> None:
    hostile = {b"huggingface": json.dumps({"info": {"features": {"audio": {"_type": "Nothing"}}}}).encode()}
    table = pa.table({"audio": [b"x"], "label": ["a"]}).replace_schema_metadata(hostile)
    (tmp_path / "d").mkdir()
    pq.write_table(table, tmp_path / "d" / "x.parquet")
    usk("info", tmp_path / "d").refused(1, "are not described as `datasets` describes them")


# --- decoded length


def test_a_file_of_many_channels_is_bounded_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = write_wav(tmp_path / "wide.wav", np.zeros((400, 200), np.float32)).read_bytes()
    assert read_audio_bytes(content)[0].shape == (400, 200)
    monkeypatch.setattr(audio_file, "MAX_DECODED_SAMPLES", 50_000)
    with pytest.raises(BadAudioError, match="million samples; cut it into clips"):
        read_audio_bytes(content)


def test_one_clip_too_long_is_named_and_can_be_skipped(tmp_path: Path) -> None:
    """A few kilobytes of FLAC whose header states a day of sound, for which no memory may be allocated."""
    content = bytearray(encode_flac(tone(400, 0.2, 8_000), 8_000))
    assert len(content) < 20_000
    packed = int.from_bytes(content[18:26], "big")
    packed = packed & ~((1 << 36) - 1) | (8_000 * 86_400)
    content[18:26] = packed.to_bytes(8, "big")
    long = row(1, audio={"bytes": bytes(content), "path": None})
    source = open_source(dataset(tmp_path / "d", row(0), long, row(2)))
    decoded = decode_source(source, 8_000, skip_bad=True)
    assert [clip.clip_id for clip in decoded.source.clips] == ["c0", "c2"]
    assert any("c1 (longer than 600 s" in note for note in decoded.source.notes)


@pytest.mark.parametrize("rate_hz", [0, -1, 2_000_000_000])
def test_samples_at_a_wrong_rate_are_bad_audio(tmp_path: Path, rate_hz: int) -> None:
    subsets = [{"array": [0.1, 0.2] * 500, "sampling_rate": rate} for rate in (8_000, rate_hz)]
    (tmp_path / "d").mkdir()
    pq.write_table(pa.table({"audio": subsets, "label": ["a", "b"]}), tmp_path / "d" / "x.parquet")
    decoded = decode_source(open_source(tmp_path / "d"), 8_000, skip_bad=True)
    assert len(decoded) == 1
    assert any("its array holds no samples at a rate" in note for note in decoded.source.notes)


def test_a_wav_header_without_a_rate_is_bad_audio(tmp_path: Path) -> None:
    content = bytearray(write_wav(tmp_path / "a.wav", tone(400, 0.2)).read_bytes())
    content[24:28] = struct.pack("<I", 0)
    with pytest.raises(BadAudioError):
        read_audio_bytes(bytes(content))


# --- pure checks


@given(st.text(max_size=20))
def test_a_name_is_inside_or_refused(name: str) -> None:
    """Whatever is accepted stays below the folder that it is joined to."""
    if is_inside(name):
        assert (Path("/cache/here") / name).resolve().is_relative_to("/cache/here") or "\0" in name


@pytest.mark.parametrize("name", ["", "/etc/passwd", "..", "a/../b", "../a", "a\\..\\b", "."])
def test_names_that_lead_out(name: str) -> None:
    assert not is_inside(name)


@given(st.fixed_dictionaries({}, optional={name: JSON for name in row(0) if name not in ("audio", "label")}))
def test_no_row_breaks_the_check(changes: dict[str, Any]) -> None:
    """Whatever is accepted has a recording and a fold for each parent."""
    with contextlib.suppress(ValueError):
        taken = provenance_of({**row(0), **changes})
        assert len(taken.parents) == len(taken.parent_groups) == len(taken.parent_folds)
        assert math.isfinite(taken.alpha)
