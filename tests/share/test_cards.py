"""Cards: hostile names survive YAML and Markdown, and a licence that restricts is never lost."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import yaml
from hypothesis import given
from hypothesis import strategies as st

from usk.data.licenses import strictest_license
from usk.diffusion.load import load_generator
from usk.share.cards import dataset_card, escape_markdown, license_metadata, render_card, size_category
from usk.synth.plan import Plan, PlannedClip
from usk.synth.settings import RenderConfig, render_config
from usk.synth.synthesize import SynthConfig, synthesize

HOSTILE = (
    '"]: x',
    "{{ 7*7 }}",
    "<script>alert(1)</script>",
    "a|b|c",
    "line\nbreak",
    "- # : *x* `y` &z",
    "---",
    "ünï 🚨",
)


def card_of(class_names: tuple[str, ...] = HOSTILE, **manifest: Any) -> tuple[dict[str, Any], str]:
    """(metadata, body) of a dataset card for one clip of every class."""
    clips = tuple(
        PlannedClip(f"c{label}", label, 1, ("a", "b"), ("s/a", "s/b"), (1, 1), 0.5, label)
        for label in range(len(class_names))
    )
    base = {
        "source": {"name": "tones", "kind": "class folders", "revision": "abc", "license": "unknown"},
        "model": "tiny@abc", "trained_on": [], "mel": {"sample_rate_hz": 8_000, "n_mels": 16, "hop_samples": 128},
        "render": render_config(steps=2).as_dict(), "alpha": "0.5", "sample_rate_hz": 8_000, "plan_seed": 0,
        "plan_sha256": "0" * 64, "has_groups": True, "license": "unknown", "shards": {},
    }  # fmt: skip
    card = dataset_card({**base, **manifest}, Plan(class_names, clips), Path())
    start, head, body = card.split("---\n", 2)
    assert start == ""
    return yaml.safe_load(head), body


def table_of(body: str, heading: str) -> list[str]:
    """The lines of the table below a heading."""
    lines = body.split(f"## {heading}\n")[1].strip().splitlines()
    return [line for line in lines[: lines.index("")] if line.startswith("|")]


def cells(line: str) -> list[str]:
    """The cells of a table row, split at bars that are not escaped."""
    return [cell.strip() for cell in line.replace(r"\|", "\0").strip("|").split("|")]


def test_hostile_class_names_survive_the_metadata() -> None:
    metadata, _ = card_of()
    names = metadata["dataset_info"]["features"][2]["dtype"]["class_label"]["names"]
    assert tuple(names.values()) == HOSTILE


def test_hostile_class_names_stay_text_in_the_table() -> None:
    _, body = card_of()
    rows = table_of(body, "Clips by class and fold")[2:]
    assert len(rows) == len(HOSTILE)
    assert all(cells(row)[1:] == ["1", "1"] for row in rows)
    assert "49" not in body
    assert "<script>" not in body
    assert "{{" not in body.replace(r"\{\{", "")
    assert "\nbreak" not in body


def test_a_hostile_source_name_stays_in_its_line() -> None:
    source = {"name": "x\n# Title", "kind": "k|k", "revision": "1", "license": "<b>"}
    _, body = card_of(("a",), source=source, license="<b>")
    assert "\n# Title" not in body
    assert "<b>" not in body


@given(st.text(max_size=30))
def test_escaped_text_is_one_line_without_live_markdown(text: str) -> None:
    escaped = escape_markdown(text)
    assert len(escaped.splitlines()) <= 1
    bare = escaped.replace("\\\\", "")
    for special in "`*_{}[]<>()#!|~":
        assert all(bare[place - 1] == "\\" for place, character in enumerate(bare) if character == special)


def test_a_template_with_an_unknown_name_fails_instead_of_leaving_a_gap() -> None:
    import jinja2

    with pytest.raises(jinja2.UndefinedError):
        render_card("dataset.md", {}, {})


@pytest.mark.parametrize(
    ("names", "inherited"),
    [
        (["CC0-1.0", "CC BY-NC 3.0"], "CC BY-NC 3.0"),
        (["unknown", "CC BY-NC 3.0"], "CC BY-NC 3.0"),
        (["CC0-1.0", "unknown"], "unknown"),
        (["CC0-1.0", "CC0-1.0"], "CC0-1.0"),
        (["cc-by-nc-4.0", "CC0-1.0"], "cc-by-nc-4.0"),
        ([], "unknown"),
    ],
)
def test_the_strictest_licence_is_inherited(names: list[str], inherited: str) -> None:
    assert strictest_license(names) == strictest_license(reversed(names)) == inherited


def test_licences_in_the_hubs_words() -> None:
    assert license_metadata("CC BY-NC 3.0") == {"license": "cc-by-nc-3.0"}
    assert license_metadata("CC0-1.0") == {"license": "cc0-1.0"}
    assert license_metadata("unknown") == {"license": "other", "license_name": "unknown"}
    assert license_metadata("My: licence\n") == {"license": "other", "license_name": "my-licence-"}
    metadata, body = card_of(("a",), license="CC BY-NC 3.0")
    assert metadata["license"] == "cc-by-nc-3.0"
    assert r"CC BY\-NC 3.0: inherited from the parents" in body


@pytest.mark.parametrize(
    ("rows", "category"), [(999, "n<1K"), (1_000, "1K<n<10K"), (99_999, "10K<n<100K"), (10**7, "n>1M")]
)
def test_size_categories(rows: int, category: str) -> None:
    assert size_category(rows) == category


def test_a_card_says_what_cannot_be_ruled_out() -> None:
    _, body = card_of(("a",), has_groups=False)
    assert "**The source names no recordings**" in body
    assert "What the generator was trained on is not known" in body
    _, body = card_of(
        ("a",), trained_on=[{"source": "urbansound8k", "folds": [1, 3], "groups": ["g1", "g2"]}]
    )
    assert "urbansound8k folds 1, 3 (2 recordings)" in body
    assert "A Dataset and Taxonomy for Urban Sound Research" in body


@pytest.fixture
def hostile_dataset(tone_folder: Path, tiny_pipeline: Callable[..., Path], tmp_path: Path) -> Path:
    """Rendered from class folders that carry hostile names, by a generator fitted on non-commercial clips."""
    from usk.data.sources import open_source

    source = open_source(tone_folder)
    names = ('"]: x {{ 7*7 }}', "<script>|", "line\nbreak/..")
    source = replace(source, class_names=names, license="CC0-1.0")
    generator = load_generator(str(tiny_pipeline()), "cpu")
    generator.trained_on = [{"source": "urbansound8k", "folds": [1], "groups": ["urbansound8k/1"]}]
    generator.license = "CC BY-NC 3.0"
    config = SynthConfig(per_class=2, across_folds=True, render=RenderConfig(steps=1))
    return synthesize(source, tmp_path / "made", config, model=generator).folder


def test_a_dataset_with_hostile_class_names_loads_and_keeps_the_licence(hostile_dataset: Path) -> None:
    from datasets import Audio, load_dataset

    from usk.data.sources import open_source

    loaded = load_dataset(str(hostile_dataset), split="train").cast_column("audio", Audio(decode=False))
    names = ['"]: x {{ 7*7 }}', "<script>|", "line\nbreak/.."]
    assert loaded.features["label"].names == names
    assert sorted(loaded["label"]) == [0, 0, 1, 1, 2, 2]
    samples, rate_hz = soundfile.read(io.BytesIO(loaded[5]["audio"]["bytes"]))
    assert rate_hz == 8_000
    assert np.abs(samples).max() > 0
    assert open_source(hostile_dataset).license == "CC BY-NC 3.0"
    assert open_source(hostile_dataset).model_groups == {"urbansound8k/1"}
    assert json.loads((hostile_dataset / "usk.json").read_text())["license"] == "CC BY-NC 3.0"
    assert (
        yaml.safe_load((hostile_dataset / "README.md").read_text().split("---\n")[1])["license"]
        == "cc-by-nc-3.0"
    )
