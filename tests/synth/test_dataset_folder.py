"""The dataset folder: shards whole or not at all, other plans refused, faults reported, and readable by `datasets`."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
from filelock import FileLock

from tests.manifests import contents, manifest_of
from usk.data.clip import PROVENANCE_COLUMNS
from usk.data.open import open_source
from usk.engine.part import Part
from usk.errors import SourceError, UsageError, UskError
from usk.files import LOCK_FILE
from usk.synth.card import dataset_card
from usk.synth.dataset_folder import DatasetFolder, dataset_features, encode_flac
from usk.synth.plan import Plan, PlannedClip
from usk.synth.units import cut_into_units


def plan_of(n_clips: int, seed: int = 0) -> Plan:
    clips = (
        PlannedClip(f"c{n}", n % 2, 1, (f"a{n}", f"b{n}"), ("t/a", "t/b"), (1, 1), (0.5, 0.5), seed + n)
        for n in range(n_clips)
    )
    return Plan(("bark", "horn"), tuple(clips))


def rows_of(plan: Plan, rows: Sequence[int]) -> list[dict[str, Any]]:
    made = {"strategy": "slerp", "alpha": 0.25, "weights": [0.75, 0.25], "steps": 2, "model": "tiny@abc"}
    made |= {"gain_db": -3.5, "filter_score": None, "prompt": ""}
    return [
        made
        | {name: getattr(clip, name) for name in ("clip_id", "label", "fold", "seed")}
        | {name: list(getattr(clip, name)) for name in ("parents", "parent_groups", "parent_folds")}
        | {"audio": {"bytes": encode_flac(np.full(200, 0.25), 8_000), "path": f"{clip.clip_id}.flac"}}
        | {"group": clip.clip_id}
        for clip in (plan.clips[row] for row in rows)
    ]


def store_at(folder: Path, plan: Plan | None = None, **settings: Any) -> DatasetFolder:
    plan = plan or plan_of(10)
    manifest = manifest_of(plan_sha256=plan.sha256, **settings)
    return DatasetFolder(folder, plan, manifest, 4, cut_into_units(len(plan), 4, halves, manifest.key))


def halves(begin: int, end: int) -> list[list[int]]:
    """Two units a shard, not in the plan's order: as batches of one crop."""
    return [list(range(begin + 1, end, 2)), list(range(begin, end, 2))]


def fill(store: DatasetFolder, n_units: int | None = None, part: Part = Part()) -> DatasetFolder:
    with store.claim(part):
        for unit in [unit for unit in store.missing() if part.has(unit.number)][:n_units]:
            store.write_unit(unit, rows_of(store.plan, unit.rows))
        if not store.missing():
            store.assemble()
            store.finish(dataset_card(store.manifest, store.plan, store.folder))
    return store


def full_disk(*_: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_the_plan_is_cut_into_units_of_one_shard_each(tmp_path: Path) -> None:
    store = store_at(tmp_path / "out")
    assert [(unit.shard, unit.rows) for unit in store.units] == [
        (0, (1, 3)), (0, (0, 2)), (1, (5, 7)), (1, (4, 6)), (2, (9,)), (2, (8,)),
    ]  # fmt: skip
    assert [unit.number for unit in store.units] == list(range(6))
    assert len({unit.file for unit in store.units}) == 6


def test_a_finished_folder_holds_what_a_reader_needs_and_nothing_else(tmp_path: Path) -> None:
    """Killed while the manifest was being written, or after a unit, it ends with the same."""
    undisturbed = contents(fill(store_at(tmp_path / "once")).folder)
    shards = [f"data/train-0000{number}-of-00003.parquet" for number in range(3)]
    assert sorted(undisturbed) == ["README.md", *shards, "plan.jsonl", "usk.json"]
    assert not (tmp_path / "once" / ".work").exists()
    manifest = json.loads(undisturbed["usk.json"])
    assert manifest["plan_sha256"] == plan_of(10).sha256 and list(manifest["shards"]) == shards
    hashes = [hashlib.sha256(undisturbed[name]).hexdigest() for name in shards]
    told = [(shard["rows"], shard["sha256"]) for shard in manifest["shards"].values()]
    assert told == list(zip((4, 4, 2), hashes, strict=True))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".usk.json.part").write_text("{")
    fill(store_at(tmp_path / "out"), n_units=1)
    later = store_at(tmp_path / "out")
    assert (later.n_done(), [unit.number for unit in later.missing()]) == (2, [1, 2, 3, 4, 5])
    fill(later)
    (tmp_path / "out" / ".usk.json.part").unlink(missing_ok=True)
    for unit in (late := store_at(tmp_path / "out")).units:  # given to a process that was cut off meanwhile
        late.write_unit(unit, rows_of(late.plan, unit.rows))
    assert contents(tmp_path / "out") == undisturbed


def test_datasets_reads_it_with_class_labels_and_provenance(tmp_path: Path) -> None:
    import datasets

    fill(store_at(tmp_path / "out"))
    loaded = datasets.load_dataset(str(tmp_path / "out"), split="train")
    assert len(loaded) == 10
    assert loaded.features == dataset_features(("bark", "horn"), 8_000)
    assert isinstance(loaded.features["label"], datasets.ClassLabel)
    assert loaded.features["label"].names == ["bark", "horn"]
    assert set(PROVENANCE_COLUMNS) - set(loaded.column_names) == {"filter_folds"}  # of filtered ones
    row = loaded.cast_column("audio", datasets.Audio(decode=False))[7]
    samples, rate_hz = soundfile.read(io.BytesIO(row.pop("audio")["bytes"]))
    assert (len(samples), rate_hz, samples[0]) == (200, 8_000, 0.25)
    assert row == {
        "clip_id": "c7", "label": 1, "group": "c7", "fold": 1, "parents": ["a7", "b7"],
        "parent_groups": ["t/a", "t/b"], "parent_folds": [1, 1], "strategy": "slerp", "alpha": 0.25, "weights": [0.75, 0.25], "seed": 7,
        "steps": 2, "model": "tiny@abc", "gain_db": -3.5, "filter_score": None, "prompt": "", "parent_names": None, "parent_seconds": None,
    }  # fmt: skip


@pytest.mark.parametrize("made_until", ["usk.json", "plan.jsonl", ".work", "units.json"])
def test_nothing_but_the_manifest_is_made_first(tmp_path: Path, made_until: str, monkeypatch: Any) -> None:
    """Killed at any point of claiming, the folder can be claimed again."""
    real_mkdir, real_replace = Path.mkdir, Path.replace

    def mkdir(self: Path, *args: Any, **kwargs: Any) -> None:
        if self.name == made_until:
            raise KeyboardInterrupt
        real_mkdir(self, *args, **kwargs)

    def replace(self: Path, target: Path) -> Path:
        if Path(target).name == made_until:
            raise KeyboardInterrupt
        return real_replace(self, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "mkdir", mkdir)
        patched.setattr(Path, "replace", replace)
        with pytest.raises(KeyboardInterrupt):
            fill(store_at(tmp_path / "out"), n_units=0)
    fill(store_at(tmp_path / "out"), n_units=0)


@pytest.mark.parametrize(
    ("other", "content", "said"),
    [
        ({"plan": plan_of(10, seed=5)}, None, r"holds clips of another plan \(another real\)"),
        ({"model": "other@1"}, None, r"holds clips of another plan \(another model\)"),
        *(({}, content, r"usk\.json is damaged") for content in ("{", "[]", "null")),
    ],
)
def test_a_folder_with_another_plan_or_a_damaged_manifest_is_refused_untouched(
    tmp_path: Path, other: dict[str, Any], content: str | None, said: str
) -> None:
    fill(store_at(tmp_path / "out"), n_units=1)
    if content is not None:
        (tmp_path / "out" / "usk.json").write_text(content)
    before = contents(tmp_path / "out")
    with pytest.raises(UsageError, match=said):
        fill(store_at(tmp_path / "out", **other), n_units=0)
    assert contents(tmp_path / "out") == before


def test_one_process_at_a_time_fills_a_folder(
    tmp_path: Path, tone_folder: Path, usk: Callable[..., Any]
) -> None:
    out = tmp_path / "out"
    options = ("synth", "--real", tone_folder, "--strategy", "waveform", "--out", out)
    out.mkdir()
    with FileLock(out / LOCK_FILE):
        refused = usk(*options, "--per-class", 2)
        assert refused.code == 2
        assert f"{out}: is being filled by another usk synth" in refused.err.splitlines()[-1]
        assert not list(out.glob("data/*"))
    assert usk(*options, "--per-class", 2).code == 0
    assert not (out / LOCK_FILE).exists()
    store = store_at(tmp_path / "other")
    with store.claim(), pytest.raises(UsageError, match="another usk synth"):
        fill(store_at(tmp_path / "other"))
    fill(store)


def test_a_shard_with_other_rows_than_planned_is_named(tmp_path: Path) -> None:
    store = fill(store_at(tmp_path / "out"))
    path = store.folder / "data" / "train-00000-of-00003.parquet"
    pq.write_table(pq.read_table(path).slice(1), path)
    with pytest.raises(SourceError, match=r"has 3 rows where its plan has 4"):
        open_source(store.folder)


def test_whichever_write_finds_the_disk_full_the_user_reads_one_line(
    urbansound8k_folder: Path,
    tiny_pipeline: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Manifest, plan, latents, shard, card: none ends in a traceback or a temporary file."""
    from usk.synth.settings import RenderConfig, SynthConfig
    from usk.synth.synthesize import SynthResult, synthesize

    config = SynthConfig(per_class=2, render=RenderConfig(steps=1, batch=4))
    writes: list[str] = []
    replace = os.replace

    def make(folder: Path, full_at: int | None) -> SynthResult:
        def replacing(source: Any, target: Any) -> None:
            if folder in Path(target).parents:
                writes.append(Path(target).name)
                if len(writes) - 1 == full_at:
                    full_disk()
            replace(source, target)

        writes.clear()
        with monkeypatch.context() as patched:
            patched.setattr(os, "replace", replacing)
            return synthesize(open_source(urbansound8k_folder), folder, config, model=str(tiny_pipeline()))

    make(tmp_path / "undisturbed", None)
    n_writes = len(writes)
    kinds = [name.partition("-")[0] for name in writes]
    assert kinds[:3] == ["usk.json", "plan.jsonl", "units.json"]
    assert kinds[-4:] == ["made", "train", "usk.json", "README.md"]
    assert "latents" in kinds
    for nth in range(n_writes):
        folder = tmp_path / f"made{nth}"
        with pytest.raises(UskError, match=r"the disk of .*made\d+ is full"):
            make(folder, nth)
        assert not list(folder.rglob("*.part"))
        all_made = "made" not in kinds[nth:]
        assert (make(folder, None).n_made == 0) == all_made
        assert len(open_source(folder)) == 6


def test_a_shard_that_was_changed_is_not_passed_off_as_made(tmp_path: Path) -> None:
    """Running `usk synth` again says so, and opening it where it is cut; once it is deleted it is made anew."""
    fill(store_at(tmp_path / "out"))
    manifest = (tmp_path / "out" / "usk.json").read_bytes()
    shard = tmp_path / "out" / "data" / "train-00001-of-00003.parquet"
    whole = shard.read_bytes()
    shard.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(
        SourceError, match=r"train-00001-of-00003\.parquet is damaged; delete it and run the same"
    ):
        open_source(tmp_path / "out")
    shard.write_bytes(whole + b"changed")
    with pytest.raises(
        UsageError, match=r"train-00001-of-00003\.parquet is damaged or was changed .* Delete it"
    ):
        fill(store_at(tmp_path / "out"))
    assert (tmp_path / "out" / "usk.json").read_bytes() == manifest
    shard.unlink()
    fill(store_at(tmp_path / "out"))
    assert shard.read_bytes() == whole and (tmp_path / "out" / "usk.json").read_bytes() == manifest


@pytest.mark.parametrize("kept", [0, 0.5, None])
def test_what_was_stopped_does_not_go_on_beside_a_damaged_unit(tmp_path: Path, kept: float | None) -> None:
    store = fill(store_at(tmp_path / "out"), n_units=2)
    unit = store.folder / store.units[1].file
    whole = unit.read_bytes()
    altered = bytearray(whole)
    altered[len(whole) // 3] ^= 1  # in the columns' bytes: its rows are as many as before
    unit.write_bytes(altered if kept is None else whole[: int(kept * len(whole))])
    with pytest.raises(UsageError, match=r"made-000001-\w+\.parquet is damaged"):
        fill(store_at(tmp_path / "out"))
    unit.unlink()
    fill(store_at(tmp_path / "out"))
    assert contents(tmp_path / "out") == contents(fill(store_at(tmp_path / "once")).folder)
