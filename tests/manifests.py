"""Manifests of synthetic datasets, for tests that do not render any, and what lies in a dataset's folder."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from hypothesis import strategies as st

from usk.manifest import ClipRequest, Manifest, SourceRecord
from usk.synth.settings import render_config

SOURCE = SourceRecord(name="tones", kind="class folders", revision="abc", license="unknown")
JSON = st.recursive(  # whatever a file may hold
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def manifest_of(**changes: Any) -> Manifest:
    """A manifest of clips of two classes, made through a generator that says nothing of its training."""
    made = Manifest(
        source=SOURCE,
        class_names=("bark", "horn"),
        model="tiny@abc",
        trained_on=(),
        mel={"sample_rate_hz": 8_000, "n_mels": 16, "hop_samples": 128},
        sample_rate_hz=8_000,
        render={"decomposed": render_config(steps=2).as_dict()},
        alpha="0.5",
        seed=0,
        asked=ClipRequest(per_class=5),
        has_groups=True,
        license="unknown",
        plan_sha256="0" * 64,
        shards={},
    )
    return replace(made, **changes)


def manifest_dict(**changes: Any) -> dict[str, Any]:
    """The same as parsed JSON, with keys replaced by anything."""
    parsed: dict[str, Any] = json.loads(manifest_of().as_json())
    return parsed | changes


def contents(folder: Path) -> dict[str, bytes]:
    """The bytes of every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def rows_in(folder: Path, *parts: str) -> list[dict[str, Any]]:
    """The rows of a dataset's shards in the subfolders `parts`, by default those of the kept clips."""
    files = [file for part in parts or ("data",) for file in sorted(folder.glob(f"{part}/*.parquet"))]
    return [row for file in files for row in pq.read_table(file, partitioning=None).to_pylist()]
