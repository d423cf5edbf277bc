"""Manifests of synthetic datasets, for tests that do not render any."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

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
        render=render_config(steps=2).as_dict(),
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
    import json

    parsed: dict[str, Any] = json.loads(manifest_of().as_json())
    return parsed | changes
