"""The filter by an outside model, with a tiny random CLAP."""

from __future__ import annotations

import io
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file

from tests.diffusion.text_models import save_clap
from tests.manifests import rows_in
from usk.data.decode import decode_source
from usk.data.leaks import filters_trained_on
from usk.data.open import open_source
from usk.data.splits import fold_split
from usk.errors import SourceError, UskError
from usk.manifest import read_manifest
from usk.synth import text_filter
from usk.synth.settings import SynthConfig, render_config
from usk.synth.synthesize import SynthResult, synthesize
from usk.synth.text_filter import LEAST_SCORE, TextFilter


@pytest.fixture(scope="module")
def clap(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_clap(tmp_path_factory.mktemp("clap"))


def made(folder: Path, out: Path, clap: Path, **given: Any) -> SynthResult:
    config = SynthConfig(
        4,
        classes=("dog_bark", "siren"),
        filter=f"hf:{clap}",
        render=render_config(strategy="waveform"),
        **given,
    )
    return synthesize(open_source(folder), out, config, device="cpu")


def test_clips_that_fit_their_prompt_are_kept_and_the_real_clips_compared_with_are_on_record(
    clap: Path, urbansound8k_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = made(urbansound8k_folder, tmp_path / "out", clap)
    manifest = read_manifest(tmp_path / "out")
    assert manifest.clip_filter is not None and manifest.clip_filter.least_score == LEAST_SCORE
    assert manifest.clip_filter.classifier == f"hf:{clap}"
    rows = rows_in(tmp_path / "out", "data", "rejected")
    assert len(rows) == 8 == len(result.plan) + len(result.rejected or ())
    kept = {clip.clip_id for clip in result.plan.clips}
    assert kept == {row["clip_id"] for row in rows if row["filter_score"] >= LEAST_SCORE}
    assert all(row["filter_folds"] == [row["fold"]] for row in rows)
    assert len({row["filter_score"] for row in rows}) > 4
    real = decode_source(open_source(urbansound8k_folder), 22_050).source
    synthetic = open_source(tmp_path / "out")
    tested = rows[0]["fold"]
    assert (tested,) in filters_trained_on(synthetic, real, fold_split(real.clips, tested))
    assert "real clips" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")

    monkeypatch.setattr(text_filter, "LEAST_SCORE", float(np.median([row["filter_score"] for row in rows])))
    stricter = made(urbansound8k_folder, tmp_path / "stricter", clap)
    assert stricter.rejected is not None and 0 < len(stricter.plan) < 8


def test_a_score_is_relative_to_the_real_clips_of_its_class(
    clap: Path, urbansound8k_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import ClapModel, ClapProcessor

    embed, embedded = ClapModel.get_text_features, []
    monkeypatch.setattr(ClapModel, "get_text_features", lambda *a, **k: embedded.append(k) or embed(*a, **k))
    made(urbansound8k_folder, tmp_path / "out", clap, test_folds=(1,))
    assert len(embedded) == 2, "the prompt of each class once"
    row = rows_in(tmp_path / "out", "data", "rejected")[0]
    real = decode_source(open_source(urbansound8k_folder), 22_050)
    names = list(real.source.class_names)
    model, processor = ClapModel.from_pretrained(clap), ClapProcessor.from_pretrained(clap)
    prompt = f"a field recording of {names[row['label']].replace('_', ' ')}"
    words = model.get_text_features(**processor.tokenizer([prompt], return_tensors="pt")).pooler_output

    def similarity(samples: np.ndarray) -> float:
        audio = text_filter.audio_inputs(processor.feature_extractor, samples, 22_050)
        with torch.no_grad():
            sound = model.get_audio_features(**audio).pooler_output
        return float((words.detach() * sound).sum())

    own, _ = soundfile.read(io.BytesIO(row["audio"]["bytes"]), dtype="float32")
    assert read_manifest(tmp_path / "out").sample_rate_hz == 22_050
    (trained,) = read_manifest(tmp_path / "out").clip_filter.trained_on  # type: ignore[union-attr]
    compared = [
        similarity(real.audio(place))
        for place, clip in enumerate(real.source.clips)
        if clip.label == row["label"] and clip.group in trained.groups
    ]
    assert row["filter_score"] == pytest.approx(similarity(own) / np.median(compared), rel=1e-3)
    assert 1 not in trained.folds


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"filter": "laion/clap"}, "filter"),
        ({"filter": "hf:"}, "filter"),
        ({"filter": "hf:/nowhere"}, "filter"),
        ({"trained_on": "ids.txt"}, "trained_on"),
    ],
)
def test_what_does_not_go_together_is_refused(
    given: dict[str, Any], field: str, urbansound8k_folder: Path, clap: Path, tmp_path: Path
) -> None:
    with pytest.raises(UskError) as caught:
        config = SynthConfig(
            2, **{"filter": f"hf:{clap}", "render": render_config(strategy="waveform"), **given}
        )
        synthesize(open_source(urbansound8k_folder), tmp_path / "out", config, device="cpu")
    assert caught.value.field == field and not (tmp_path / "out").exists()


def test_a_model_that_is_no_clap_or_finds_nothing_is_one_line(
    clap: Path, urbansound8k_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other").mkdir()
    with pytest.raises(UskError) as caught:
        made(urbansound8k_folder, tmp_path / "out", tmp_path / "other")
    assert caught.value.field == "filter" and caught.value.hint
    shutil.copytree(clap, tmp_path / "cut")
    tensors = load_file(tmp_path / "cut" / "model.safetensors")
    del tensors["audio_projection.linear1.weight"]
    save_file(tensors, tmp_path / "cut" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UskError, match="lack audio_projection") as caught:
        made(urbansound8k_folder, tmp_path / "out", tmp_path / "cut")
    assert caught.value.field == "filter"
    monkeypatch.setattr(TextFilter, "similarity", lambda *_: -0.1)
    with pytest.raises(SourceError, match="does not find") as caught:
        made(urbansound8k_folder, tmp_path / "deaf", clap)
    assert caught.value.field == "filter"
    monkeypatch.setattr(TextFilter, "similarity", lambda *_: 0.5)
    monkeypatch.setattr(text_filter, "LEAST_SCORE", 2.0)
    with pytest.raises(SourceError, match="keeps none"):
        made(urbansound8k_folder, tmp_path / "strict", clap)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UskError, match="transformers"):
        made(urbansound8k_folder, tmp_path / "none", clap)
