"""Cards escape hostile names in YAML and Markdown, and keep restrictive licenses."""

from __future__ import annotations

import io
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
import yaml
from datasets import Audio, load_dataset
from huggingface_hub import DatasetCard, ModelCard
from huggingface_hub.repocard_data import eval_results_to_model_index, model_index_to_eval_results
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.manifests import SOURCE, manifest_of
from tests.runs import a_record
from tests.sounds import tone
from usk.cards import (
    PLACE,
    code_span,
    escape_markdown,
    license_metadata,
    metadata_yaml,
    render_card,
    size_category,
)
from usk.classify.card import run_card
from usk.classify.classifier import AudioClassifier, classifier_settings
from usk.classify.registry import preset
from usk.data.licenses import is_noncommercial, license_of_card, one_license, strictest_license
from usk.data.open import open_source
from usk.diffusion.card import write_generator_card
from usk.diffusion.load import load_generator
from usk.diffusion.pipeline import EMBEDDED_FOLDER
from usk.manifest import FilterRecord, FilterTrainedOn, TrainedOn, TrainSubsetRecord
from usk.runs import Predictions
from usk.synth.card import _tested_folds, dataset_card
from usk.synth.dataset_folder import encode_flac
from usk.synth.plan import Plan, PlannedClip
from usk.synth.settings import RenderConfig, SynthConfig
from usk.synth.synthesize import synthesize

HOSTILE = (
    *('"]: x', "{{ 7*7 }}", "<script>alert(1)</script>", "a|b|c"),
    *("line\nbreak", "- # : *x* `y` &z", "---", "ünï 🚨"),
)


def card_of(class_names: tuple[str, ...] = HOSTILE, **manifest: Any) -> tuple[dict[str, Any], str]:
    """Return metadata and body of a dataset card with one clip of each class."""
    clips = tuple(
        PlannedClip(f"c{label}", label, 1, ("a", "b"), ("s/a", "s/b"), (1, 1), (0.5, 0.5), label)
        for label in range(len(class_names))
    )
    card = dataset_card(manifest_of(**manifest), Plan(class_names, clips), Path())
    start, head, body = card.split("---\n", 2)
    assert start == ""
    return yaml.safe_load(head), body


@pytest.mark.parametrize(
    ("name", "groups", "folds", "trained_on"),
    [
        ("tones", ["s/c"], [2], "no"),
        ("tones", ["s/c"], [1], "yes"),  # the source is named
        ("same under another name", ["s/b"], [7], "yes"),
        ("another", ["s/c"], [1], "no"),
        ("another", ["t/c"], [1], "unknown"),  # may be the same recordings
        ("demo", ["demo/c"], [1], "no"),
        ("another", [], [7], "unknown"),  # of 500 clips
    ],
)
def test_the_card_says_which_folds_the_generator_was_trained_on(
    name: str, groups: list[str], folds: list[int], trained_on: str
) -> None:
    part = TrainedOn(name, "1", folds=tuple(folds), groups=tuple(groups), clips=500)
    _, body = card_of(("one",), trained_on=(part,))
    (row,) = [line for line in body.splitlines() if line.startswith("| 1 | 0 |")]
    assert row.split("|")[-2].strip() == trained_on


def filter_of(
    test_folds: tuple[int, ...], *folds: tuple[int, ...], groups: tuple[str, ...] = ()
) -> FilterRecord:
    """Return a filter record with one classifier for each of `folds`."""
    return FilterRecord("small", 0.5, test_folds, tuple(FilterTrainedOn(of, 1, groups) for of in folds))


COUNTED: dict[str, tuple[dict[str, Any], dict[int, int]]] = {
    "plain": ({}, {1: 0, 2: 1}),
    "few train_clips": ({"train_clips": TrainSubsetRecord(50, test_fold=3)}, {1: 0, 2: 1, 3: 2}),
    "clip_filters of the folds": ({"clip_filter": filter_of((), (1,), (2,))}, {1: 0, 2: 1}),
    "one clip_filter": ({"clip_filter": filter_of((3,), (1, 2))}, {1: 0, 2: 0, 3: 2}),
    "recordings in several folds": (
        {"recordings_of_several_folds": {"s/b": (1, 2), "s/e": (2, 3)}, "clip_filter": filter_of((3,))},
        {1: 0, 2: 0, 3: 1},
    ),
    "scored by a filter": (
        {"recordings_of_several_folds": {"s/z": (1, 2)}, "clip_filter": filter_of((), (1,), groups=("s/z",))},
        {1: 0, 2: 0},
    ),
}


@pytest.mark.parametrize(("manifest", "rows"), COUNTED.values(), ids=COUNTED.keys())
def test_the_card_counts_what_may_train_where_a_fold_is_tested(
    manifest: dict[str, Any], rows: dict[int, int]
) -> None:
    """Both clips have a parent in fold 1; one has its other parent in fold 2."""
    clips = [
        PlannedClip("c", 0, 1, ("a", "b"), ("s/a", "s/b"), (1, 1), (0.5, 0.5), 0),
        PlannedClip("d", 0, 0, ("a", "e"), ("s/a", "s/e"), (1, 2), (0.5, 0.5), 0),
    ]
    found = _tested_folds(Plan(("one",), tuple(clips)), manifest_of(**manifest), True)
    assert {row["fold"]: row["clean"] for row in found} == rows


def test_the_card_counts_as_training_does_where_recordings_lie_in_several_folds(
    usk: Callable[..., Any], tmp_path: Path
) -> None:
    """The card, `usk audit` and `usk train` agree."""
    table = pa.table(
        {
            "audio": [{"bytes": encode_flac(tone(300 + 20 * i, 0.5), 22_050), "path": None} for i in range(24)],
            "label": ["low", "high"] * 12,
            "recording": [f"r{i // 2 % 6}" for i in range(24)],  # r0 to r5 have clips in the first half and in the second
            "fold": [1] * 12 + [2] * 6 + [3] * 6,
        }
    )  # fmt: skip
    (tmp_path / "set").mkdir()
    pq.write_table(table, tmp_path / "set" / "train.parquet")
    made = tmp_path / "made"
    usk(f"synth --real {tmp_path}/set --strategy waveform --per-class 4 --out {made}").done()
    card = (made / "README.md").read_text()
    assert "recordings have clips in several folds" in card
    assert "may train wherever fold k is\nnot tested" not in card
    shown = dict(re.findall(r"^\| (\d) \| (\d+) \| no \|$", card, re.MULTILINE))
    found = usk("audit", made, "--real", tmp_path / "set", "--json").value["folds"]
    assert {part["fold"]: part["usable"] for part in found} == {int(k): int(n) for k, n in shown.items()}
    assert any(part["leaking"] for part in found) and len(found) == 3


def test_the_card_of_few_training_clips_says_so() -> None:
    _, body = card_of(("one",), train_clips=TrainSubsetRecord(50, test_fold=3, seed=2))
    assert "| made for | 50 real clips, test fold 3, seed 2 |" in body
    assert "`usk train --train-clips 50 --test-folds 3` trains on with seed 2, and no others." in body
    _, body = card_of(("one",), train_clips=TrainSubsetRecord(None, test_fold=3))
    assert "the whole training part" in body and "no others" not in body
    assert "made for" not in card_of(("one",))[1]


def test_the_card_names_classes_that_the_generator_was_not_told() -> None:
    assert "does not know" not in card_of(("one",))[1]
    _, body = card_of(("one",), unconditioned=["owl", "two_words"])
    assert "The generator does not know owl, two\\_words: their clips" in body


def test_a_run_card_says_why_clips_were_left_out_and_what_is_not_known() -> None:
    reason = "a parent's recording, or one that their generator or filter was trained on, validates or tests"
    leaks = ["you/x names no parents: leaks cannot be ruled out"]
    _, body = run_card_of(("a",), dropped=2, leaks=leaks)
    assert f"2 synthetic clips were left out of the training: {reason}." in body
    assert f"What cannot be ruled out:\n\n- {leaks[0]}\n" in body
    assert "No clip of the test part" not in body
    few = run_card_of(("a",), dropped=2, train_clips=30, mix="real,synth")[1]
    assert f"{reason}, or a parent is none of the 30 real clips that train." in few
    published = {"protocol": "seed-9010", "split": "seed0", "fold": None, "optimistic": True}
    metadata, body = run_card_of(("a",), dropped=2, mix="real,synth", **published)
    assert "left out of the training: a parent is tested." in body
    assert "**These results are optimistic.**" in body and "chosen on the test part" in body
    names = [r["name"] for r in metadata["model-index"][0]["results"][0]["metrics"]]
    assert names and all("optimistic" in name for name in names)


CLASSIFIER = AudioClassifier(**classifier_settings("small", preset("small"), ["a", "b"], "fp32"))


def run_card_of(class_names: tuple[str, ...] = HOSTILE, **record: Any) -> tuple[dict[str, Any], str]:
    """Return metadata and body of the card of a run with these classes."""
    plain = {"name": "tones", "kind": "class folders", "revision": "abc"}
    base = {
        "fold": 2, "split": "fold2", "n_real": 30, "n_test": 9, "n_test_recordings": 3, "n_validation": 6, "best_epoch": 4, "epochs": 5,
        "sources": {"real": plain},
    }  # fmt: skip
    labels = np.repeat(np.arange(len(class_names)), 2)
    predicted = np.where(np.arange(len(labels)) % 2, (labels + 1) % len(class_names), labels)
    ids = np.arange(len(labels)).astype(str)
    said = Predictions(ids, ids, labels, predicted, np.zeros((len(labels), len(class_names)), np.float32))
    card = run_card(a_record(class_names=class_names, **{**base, **record}), said, CLASSIFIER)
    start, head, body = card.split("---\n", 2)
    assert start == ""
    return yaml.safe_load(head), body


def table_of(body: str, heading: str) -> list[str]:
    """Return the lines of the table below a heading."""
    lines = body.split(f"## {heading}\n")[1].strip().splitlines()
    return [line for line in lines[: lines.index("")] if line.startswith("|")]


def subsets(line: str) -> list[str]:
    """Return the cells of a table row, split at bars that are not escaped."""
    return [subset.strip() for subset in line.replace(r"\|", "\0").strip("|").split("|")]


@given(st.text(max_size=30))
def test_escaped_text_is_one_line_without_live_markdown(text: str) -> None:
    escaped = escape_markdown(text)
    assert len(escaped.splitlines()) <= 1
    bare = escaped.replace("\\\\", "")
    for special in "`*_{}[]<>()#!|~":
        assert all(bare[place - 1] == "\\" for place, character in enumerate(bare) if character == special)


def test_a_template_with_an_unknown_name_fails_instead_of_leaving_a_gap() -> None:
    with pytest.raises(jinja2.UndefinedError):
        render_card("dataset.md", {}, {})


@pytest.mark.parametrize(
    ("names", "inherited"),
    [
        (["CC0-1.0", "CC BY-NC 3.0"], "CC BY-NC 3.0"),
        (["unknown", "CC BY-NC 3.0"], "CC BY-NC 3.0"),
        (["CC BY 4.0", "CC BY-ND 4.0"], "CC BY-ND 4.0"),
        (["CC0-1.0", "unknown"], "unknown"),
        (["CC0-1.0", "CC0-1.0"], "CC0-1.0"),
        (["cc-by-nc-4.0", "CC0-1.0"], "cc-by-nc-4.0"),
        (["mit", "proprietary"], "proprietary"),
        (["MIT", "all rights reserved"], "all rights reserved"),
        (["apache-2.0", "research-only"], "research-only"),
        (["mit", "other"], "other"),
        (["other", "unknown"], "other"),
        (["zlib", "gplv3"], "gplv3"),
        (["cc-by-sa-4.0", "openrail"], "openrail"),
        (["cc-by-4.0", "Public Domain"], "cc-by-4.0"),
        ([], "unknown"),
    ],
)
def test_the_strictest_license_is_inherited(names: list[str], inherited: str) -> None:
    assert strictest_license(names) == strictest_license(reversed(names)) == inherited


KNOWN = [
    "CC BY-NC 3.0",
    *["CC0-1.0", "mit", "apache-2.0", "cc-by-4.0", "cc-by-nc-sa-4.0", "unknown", "gpl-3.0", "other"],
]
LICENSES = st.sampled_from(KNOWN) | st.text(max_size=12)


@given(
    st.lists(LICENSES, max_size=5),
    st.sampled_from(["CC BY-NC 3.0", "cc-by-nc-nd-4.0", "Non-Commercial only"]),
)
def test_non_commercial_never_becomes_permissive(others: list[str], restricted: str) -> None:
    for inherited in (strictest_license([*others, restricted]), one_license([*others, restricted])):
        assert is_noncommercial(inherited)
        stated = license_metadata(inherited)
        assert is_noncommercial(stated.get("license_name", stated["license"]))


@given(st.lists(LICENSES, min_size=1, max_size=5))
def test_a_license_that_is_inherited_is_one_of_those_given(names: list[str]) -> None:
    assert strictest_license(names) in names
    assert strictest_license([*names, "CC0-1.0"]) == strictest_license(names) or strictest_license(names) in (
        "cc0-1.0", "CC0-1.0"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("head", "stated"),
    [
        ("license: cc-by-nc-4.0", "cc-by-nc-4.0"),
        ("license: [mit, cc-by-nc-4.0]", "cc-by-nc-4.0"),
        ("license: other\nlicense_name: non-commercial", "non-commercial"),
        ("license: {a: b}", None),
        ("license: [", None),
        ("license: !!python/object/apply:os.system ['true']", None),
        ("tags: [x]", None),
    ],
)
def test_the_license_that_a_card_states(tmp_path: Path, head: str, stated: str | None) -> None:
    (tmp_path / "README.md").write_text(f"---\n{head}\n---\n# Card\n")
    assert license_of_card(tmp_path) == stated


# --- metadata, as the Hub's own library reads it


def test_the_dataset_card_as_the_hub_reads_it() -> None:
    metadata, body = card_of(("a",), license="CC BY-NC 3.0")
    card = DatasetCard(f"---\n{yaml.safe_dump(metadata)}---\n{body}")
    data = card.data.to_dict()
    assert data["license"] == "cc-by-nc-3.0" and data["size_categories"] == ["n<1K"]
    assert r"CC BY\-NC 3.0: inherited from the parents" in body and PLACE in body
    assert data["task_categories"] == ["audio-classification"] and "synthetic" in data["tags"]
    assert data["source_datasets"] == ["original"] and data["annotations_creators"] == ["machine-generated"]
    assert data["configs"][0]["config_name"] == "default"
    assert data["dataset_info"]["splits"][0]["num_examples"] == 1
    for source, stated in (({"name": "urbansound8k"}, "extended|urbansound8k"), ({"hub_id": "me/x"}, "me/x")):
        assert card_of(("a",), source=replace(SOURCE, **source))[0]["source_datasets"] == [stated]
    hostile = replace(SOURCE, name="x\n# Title", kind="k|k", license="<b>")
    metadata, body = card_of(("a",), source=hostile, license="<b>")
    assert "\n# Title" not in body and "<b>" not in body
    assert metadata["license"] == "other"


def test_the_run_card_as_the_hub_reads_it() -> None:
    metadata, body = run_card_of(("a", "b"))
    card = ModelCard(f"---\n{yaml.safe_dump(metadata)}---\n{body}")
    accuracy, f1 = found = card.data.eval_results
    assert [(one.metric_type, one.metric_value) for one in found] == [("accuracy", 0.5), ("f1", 0.4)]
    assert accuracy.dataset_revision == "abc" and accuracy.dataset_args["test"] == "fold2"
    assert accuracy.metric_name == "accuracy (folds)"
    assert (card.data.library_name, card.data.pipeline_tag) == ("usk", "audio-classification")
    assert model_index_to_eval_results(eval_results_to_model_index("n", found))[1] == [accuracy, f1]
    assert "fold 2: 9 clips of 3 recordings" in body and "| accuracy | 50.0 % |" in body and PLACE in body
    assert "No clip of the test part, and none of its recordings, trained." in body
    of_classes = [line for line in body.splitlines() if re.match(r"\| [ab] \|", line)]
    assert of_classes == ["| a | 2 | 50.0 % |", "| b | 2 | 50.0 % |"]


def test_a_run_card_names_no_paths() -> None:
    sources = {
        name: {"name": "sums", "hub_id": hub_id, "strategies": ["waveform"]}
        for name, hub_id in (("real", None), ("/home/somebody/sums", None), ("me/x@v1", "me/x"))
    }
    metadata, body = run_card_of(("a",), sources=sources, n_synthetic=2)
    assert "somebody" not in f"{metadata}{body}"
    assert metadata["model-index"][0]["name"] == "small on real, sums, me/x@v1"
    assert metadata["datasets"] == ["me/x"]
    assert "The clips of sums were made without a generator (`waveform`)." in body


def test_the_cards_own_check_finds_the_clips_that_leak(hostile_dataset: Path) -> None:
    """Run the code of the card."""
    card = (hostile_dataset / "README.md").read_text()
    lines = [line for line in card.splitlines() if line.startswith(("tested = ", "clean = "))]
    clips = load_dataset(str(hostile_dataset), split="train")
    found: dict[str, Any] = {"clips": clips}
    exec("\n".join(lines), found)
    leaking = [groups for groups in clips["parent_groups"] if found["tested"] & set(groups)]
    assert leaking and len(found["clean"]) == len(clips) - len(leaking)


NAMES = st.lists(st.text(min_size=1, max_size=15), min_size=1, max_size=4, unique=True)


def headings(body: str) -> list[str]:
    return [line for line in body.splitlines() if line.startswith("#")][1:]


@settings(max_examples=25)
@given(NAMES | st.permutations(HOSTILE).map(list))
def test_no_class_name_breaks_a_card(names: list[str]) -> None:
    """YAML returns the same names; Markdown keeps its headings, rows and cells."""
    for make in (card_of, run_card_of):
        metadata, body = make(tuple(names))
        assert headings(body) == headings(make(("a",))[1])
        assert all(line.endswith("|") for line in body.splitlines() if line.startswith("|"))
        assert yaml.safe_load(metadata_yaml(metadata)) == metadata
    metadata, body = card_of(tuple(names))
    told = metadata["dataset_info"]["features"][2]["dtype"]["class_label"]["names"]
    assert list(told.values()) == names
    rows = table_of(body, "Clips by class and fold")[2:]
    assert [subsets(line)[1:] for line in rows] == [["1", "1"]] * len(names)


@pytest.mark.parametrize(
    "name", ["1e3", "0o17", "null", "yes", "-", "12:30:00", "1_000", ".5", "~", "2026-01-01"]
)
def test_names_that_yaml_readers_take_for_something_else_are_quoted(name: str) -> None:
    head = metadata_yaml({"names": [name, "dog_bark", 3]})
    assert f'- "{name}"\n' in head or f"- '{name}'\n" in head
    assert "- dog_bark\n" in head and "- 3\n" in head


@given(st.text(max_size=20))
def test_code_stays_in_its_cell(text: str) -> None:
    shown = code_span(text)
    assert len(shown.splitlines()) <= 1 and shown.count("`") in (0, 2)
    assert len(subsets(f"| {shown} |")) == 1


@pytest.mark.parametrize(
    ("rows", "category"), [(999, "n<1K"), (1_000, "1K<n<10K"), (99_999, "10K<n<100K"), (10**7, "n>1M")]
)
def test_size_categories(rows: int, category: str) -> None:
    assert size_category(rows) == category


@pytest.mark.parametrize(
    ("name", "stated"),
    [
        ("CC BY-NC 3.0", {"license": "cc-by-nc-3.0"}),
        ("CC0-1.0", {"license": "cc0-1.0"}),
        ("unknown", {"license": "other", "license_name": "unknown"}),
        ("My: license\n", {"license": "other", "license_name": "my-license-"}),
    ],
)
def test_licenses_in_the_hubs_words(name: str, stated: dict[str, str]) -> None:
    assert license_metadata(name) == stated


def test_a_card_says_what_cannot_be_ruled_out() -> None:
    _, body = card_of(("a",), has_groups=False)
    assert "**The source names no recordings**" in body
    assert "What the generator was trained on is not known" in body
    _, body = card_of(("a",), trained_on=(TrainedOn("urbansound8k", folds=(1, 3), groups=("g1", "g2")),))
    assert "urbansound8k folds 1, 3 (2 recordings)" in body
    assert "A Dataset and Taxonomy for Urban Sound Research" in body


HOSTILE_CLASSES = ('"]: x {{ 7*7 }}', "<script>|", "line\nbreak/..")


@pytest.fixture
def hostile_dataset(tone_folder: Path, tiny_pipeline: Callable[..., Path], tmp_path: Path) -> Path:
    """Rendered from class folders that carry hostile names, by a generator fitted on non-commercial clips."""
    source = open_source(tone_folder)
    source = replace(source, class_names=HOSTILE_CLASSES, license="CC0-1.0")
    generator = load_generator(str(tiny_pipeline()), "cpu")
    generator.trained_on = [{"source": "urbansound8k", "folds": [1], "groups": ["urbansound8k/1"]}]
    generator.license = "CC BY-NC 3.0"
    config = SynthConfig(per_class=2, render=RenderConfig(steps=1))
    return synthesize(source, tmp_path / "made", config, model=generator).folder


def test_a_dataset_with_hostile_class_names_loads_and_keeps_the_license(hostile_dataset: Path) -> None:
    loaded = load_dataset(str(hostile_dataset), split="train").cast_column("audio", Audio(decode=False))
    assert loaded.features["label"].names == list(HOSTILE_CLASSES)
    assert sorted(loaded["label"]) == [0, 0, 1, 1, 2, 2]
    samples, rate_hz = soundfile.read(io.BytesIO(loaded[5]["audio"]["bytes"]))
    assert rate_hz == 8_000 and np.abs(samples).max() > 0
    assert open_source(hostile_dataset).license == "CC BY-NC 3.0"
    assert open_source(hostile_dataset).generator_trained_on[0].groups == {"urbansound8k/1"}
    assert json.loads((hostile_dataset / "usk.json").read_text())["license"] == "CC BY-NC 3.0"
    head = (hostile_dataset / "README.md").read_text().split("---\n")[1]
    assert yaml.safe_load(head)["license"] == "cc-by-nc-3.0"


def test_the_card_of_the_shipped_generator_is_of_this_version(tmp_path: Path) -> None:
    copy = Path(shutil.copytree(EMBEDDED_FOLDER, tmp_path / "embedded"))
    write_generator_card(copy)
    assert (copy / "README.md").read_text() == (EMBEDDED_FOLDER / "README.md").read_text()
