"""usk.json: invalid files give one line; two manifests differ in named parameters."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.manifests import JSON, SOURCE, manifest_dict, manifest_of
from usk.errors import SourceError
from usk.manifest import (
    ClipRequest,
    FilterRecord,
    FilterTrainedOn,
    Manifest,
    Shard,
    TrainedOn,
    TrainSubsetRecord,
    find_manifest,
    read_manifest,
    write_manifest,
)

RENDER = manifest_of().render["decomposed"]
SHARD = "data/train-00000-of-00001.parquet"
WRONG: dict[str, Any] = {
    "nothing": {"kind": "x"},
    "not an object": [],
    "another format": manifest_dict(format=1),
    "no mel": {name: value for name, value in manifest_dict().items() if name != "mel"},
    "an empty mel": manifest_dict(mel={}),
    "no render": {name: value for name, value in manifest_dict().items() if name != "render"},
    "a render without a strategy": manifest_dict(render={}),
    "no trained_on": {name: value for name, value in manifest_dict().items() if name != "trained_on"},
    "trained_on that is text": manifest_dict(trained_on="x"),
    "recordings that are numbers": manifest_dict(trained_on=[{"source": "x", "groups": [1]}]),
    "alpha as a list": manifest_dict(alpha=[0.5]),
    "a license that is a list": manifest_dict(license=[]),
    "shards as a list": manifest_dict(shards=["a"]),
    "a shard below zero": manifest_dict(shards={SHARD: {"rows": -1}}),
    "a shard that leads out": manifest_dict(shards={"../x.parquet": {"rows": 2}}),
    "a shard elsewhere": manifest_dict(shards={"/etc/passwd": {"rows": 2}}),
    "a filter that is text": manifest_dict(clip_filter="text"),
    "a filter without its training": manifest_dict(
        clip_filter={"classifier": "small", "share_kept": 0.5, "test_folds": [], "trained_on": None}
    ),
    "a seed that is true": manifest_dict(seed=True),
}


@pytest.mark.parametrize(
    "value", [*WRONG.values(), "{", "[" * 100_000, ""], ids=[*WRONG, "{", "deep", "empty"]
)
def test_what_is_not_a_manifest_is_one_line(tmp_path: Path, value: Any) -> None:
    (tmp_path / "usk.json").write_text(value if isinstance(value, str) else json.dumps(value))
    with pytest.raises(SourceError) as refusal:
        read_manifest(tmp_path)
    assert "usk.json" in str(refusal.value) and "\n" not in str(refusal.value)


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(manifest_dict(), JSON)))
def test_whatever_a_manifest_holds_it_is_read_or_refused(changes: dict[str, Any]) -> None:
    try:
        assert isinstance(Manifest.from_dict(manifest_dict(**changes)), Manifest)
    except ValueError as error:
        assert "\n" not in str(error).replace(repr(changes.get("shards")), "")


def test_what_is_written_is_read(tmp_path: Path) -> None:
    assert find_manifest(tmp_path) is None
    manifest = manifest_of(
        trained_on=(TrainedOn("city", folds=(1, 3), clips=2, groups=("city/a",)),),
        train_clips=TrainSubsetRecord(None, test_fold=2),
        clip_filter=FilterRecord("small", 0.5, (2,), (FilterTrainedOn((1, 3), 9, ("t/a",)),)),
        recordings_of_several_folds={"t/a": (1, 2)},
        shards={SHARD: Shard(4)},
        arguments=("synth", "--per-class", "2"),
    ).with_hashes({SHARD: "ab"})
    write_manifest(tmp_path, manifest)
    assert read_manifest(tmp_path) == manifest and manifest.shards[SHARD].sha256 == "ab"


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({}, ()),
        ({"arguments": ("synth",), "shards": {SHARD: Shard(4, "ab")}}, ()),
        ({"model": "other@1", "trained_on": (TrainedOn("x"),)}, ("model",)),
        ({"source": replace(SOURCE, revision="b"), "plan_sha256": "1"}, ("real",)),
        ({"asked": ClipRequest(6, classes=("bark",)), "plan_sha256": "1"}, ("classes", "per_class")),
        ({"render": {"decomposed": {**RENDER, "steps": 9, "crop": False}}}, ("quality", "steps")),
        ({"render": {"decomposed": RENDER, "sample": RENDER}}, ("strategy",)),
        ({"precision": "bf16"}, ("device",)),
    ],
)
def test_manifests_differ_in_named_parameters(changes: dict[str, Any], names: tuple[str, ...]) -> None:
    assert manifest_of().differences(manifest_of(**changes)) == names
