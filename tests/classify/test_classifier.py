"""A run's folder is enough to load its classifier exactly. Any other folder gives an error of one line."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from tests.classify.conftest import TINY
from usk.audio.features import FeatureSettings, features_of, fit_length
from usk.classify import registry
from usk.classify.classifier import AudioClassifier, check_settings, read_classifier
from usk.classify.predict import load_classifier
from usk.classify.train import train
from usk.data.decode import decode_source
from usk.data.source import Source
from usk.data.splits import fold_split
from usk.errors import ModelError

GOOD = {
    "architecture": "small", "class_names": ["a", "b"], "repeat_short": True,
    "mel": {"sample_rate_hz": 22_050, "n_fft": 1_024, "hop_samples": 512, "n_mels": 64, "n_frames": 172, "top_db": 80},
}  # fmt: skip


@pytest.fixture
def run(bands: Source, tmp_path: Path, tiny_classifier: Any) -> Path:
    return train(bands, ["real"], out=tmp_path / "runs", config=TINY).runs[0].folder


def audio_of_test_part(bands: Source, settings: FeatureSettings) -> torch.Tensor:
    decoded = decode_source(bands, settings.mel.sample_rate_hz)
    rows = fold_split(bands.clips, 2).test
    n = settings.mel.image_samples
    return torch.from_numpy(np.stack([fit_length(decoded.audio(row), n, True) for row in rows]))


def stored_in(run: Path) -> np.ndarray:
    """Return the run's probabilities in the order of its test part."""
    return np.array(pq.read_table(run / "predictions.parquet")["probabilities"].to_pylist(), np.float32)


@pytest.mark.parametrize("load", [AudioClassifier.from_pretrained, load_classifier, read_classifier])
def test_loading_reproduces_the_runs_predictions_exactly(
    bands: Source, run: Path, load: Callable[[Path], AudioClassifier]
) -> None:
    model = load(run)
    assert not model.training and model.class_names == bands.class_names
    stored = stored_in(run)
    # The run computed features of the whole source in parts of 64, and its test part in one batch.
    features = features_of(decode_source(bands), model.feature_settings)
    with torch.no_grad():
        part = features[fold_split(bands.clips, 2).test.tolist()].float()
        np.testing.assert_array_equal(model(part).softmax(dim=1).numpy(), stored)
    audio = audio_of_test_part(bands, model.feature_settings)
    np.testing.assert_allclose(model.probabilities(audio).numpy(), stored, atol=1e-4)


class OfAnyLength(torch.nn.Module):
    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.last = torch.nn.Linear(16, n_classes)

    def forward(self, log_mel: torch.Tensor) -> torch.Tensor:
        return self.last(log_mel.amax(dim=(1, 3)))


def test_a_clip_is_classified_in_parts_as_long_as_those_it_was_trained_on(
    bands: Source, tmp_path: Path, tiny_classifier: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(registry.CLASSIFIERS, "tiny", replace(tiny_classifier, build=OfAnyLength))
    config = replace(TINY, augment="none,crop")
    whole, halves = train(bands, ["real"], out=tmp_path / "runs", config=config).runs
    assert json.loads((whole.folder / "config.json").read_text())["window_frames"] is None
    assert json.loads((halves.folder / "config.json").read_text())["window_frames"] == 4  # of 8
    assert ["for both" in (run.folder / "README.md").read_text() for run in (whole, halves)] == [False, True]
    model = load_classifier(halves.folder)
    features = features_of(decode_source(bands), model.feature_settings)
    with torch.no_grad():
        part = features[fold_split(bands.clips, 2).test.tolist()].float()
        seen = [
            model.network(((half - model.mean_db) / model.deviation_db)[:, None]).softmax(dim=1)
            for half in (part[:, :, :4], part[:, :, 4:])
        ]
        probabilities = model(part).softmax(dim=1)
        short, long = model(part[:, :, :3]), model(torch.cat((part, part[:, :, :1]), dim=2))
    torch.testing.assert_close(probabilities, (seen[0] + seen[1]) / 2)
    np.testing.assert_array_equal(probabilities.numpy(), stored_in(halves.folder))
    assert short.shape == long.shape == (len(part), 3)
    assert not torch.allclose(seen[0], seen[1])


def test_bf16_runs_predict_in_bf16(bands: Source, tmp_path: Path, tiny_classifier: Any) -> None:
    run = train(bands, out=tmp_path, config=replace(TINY, precision="bf16")).runs[0]
    model = load_classifier(run.folder)
    assert model.precision == "bf16"
    audio = audio_of_test_part(bands, model.feature_settings)
    np.testing.assert_allclose(model.probabilities(audio).numpy(), stored_in(run.folder), atol=1e-4)


def test_a_run_holds_what_the_hub_needs_and_is_saved_again_alike(run: Path, tmp_path: Path) -> None:
    config = json.loads((run / "config.json").read_text())
    assert set(config) == {*GOOD, "precision", "transformer", "window_frames"}
    assert config["transformer"] is None
    assert config["mel"]["n_mels"] == 16
    weights = load_file(run / "model.safetensors")
    assert {"mean_db", "deviation_db"} < set(weights)
    head = (run / "README.md").read_text().split("---\n")[1]
    assert "library_name: usk" in head and "model-index:" in head
    AudioClassifier.from_pretrained(run).save_pretrained(tmp_path / "again")
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (run / name).read_bytes()


def weights_of(run: Path, change: Callable[[dict[str, torch.Tensor], str], object]) -> None:
    """Other weights: `change` is given them and the name of the first of the network."""
    weights = load_file(run / "model.safetensors")
    change(weights, next(name for name in weights if name.startswith("network")))
    save_file(weights, run / "model.safetensors")


def written(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda run: (run / name).write_bytes(content)


STRANGE = json.dumps({**GOOD, "architecture": "os.system"}).encode()
SPOILT: dict[str, tuple[Callable[[Path], object], str]] = {
    "no weights": (lambda run: (run / "model.safetensors").unlink(), "has no model.safetensors"),
    "cut weights": (lambda run: os.truncate(run / "model.safetensors", 100), "cannot be loaded"),
    "a tensor too few": (lambda run: weights_of(run, lambda w, first: w.pop(first)), "cannot be loaded"),
    "a tensor too many": (
        lambda run: weights_of(run, lambda w, _: w.update(more=torch.zeros(1))),
        "cannot be loaded",
    ),
    "NaN": (lambda run: weights_of(run, lambda w, first: w[first].mul_(torch.nan)), "are not finite"),
    "no JSON": (written("config.json", b"{"), "config.json cannot be read"),
    "nested too deep": (written("config.json", b"[" * 100_000), "config.json cannot be read"),
    "a list": (written("config.json", b"[]"), "config.json cannot be read"),
    "os.system": (
        written("config.json", STRANGE),
        "this usk does not know the architecture 'os.system'; update usk",
    ),
}


@pytest.mark.parametrize(("spoil", "message"), SPOILT.values(), ids=SPOILT.keys())
def test_a_damaged_one_is_one_line(
    usk: Callable[..., Any], run: Path, spoil: Callable[[Path], object], message: str
) -> None:
    spoil(run)
    usk(f"predict {run} demo --quiet").refused(1, message)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"class_names": []}, "class_names"),
        ({"class_names": ["a", "a"]}, "class_names"),
        ({"class_names": ["a", 1]}, "class_names"),
        ({"class_names": "ab"}, "class_names"),
        ({"class_names": [str(n) for n in range(10_001)]}, "class_names"),
        ({"repeat_short": 1}, "repeat_short"),
        ({"precision": "int4"}, "precision"),
        ({"mel": {**GOOD["mel"], "n_frames": 10**9}}, "the mel setting n_frames must lie above 0"),  # type: ignore[dict-item]
        ({"mel": {**GOOD["mel"], "n_frames": 16_000, "hop_samples": 30_000}}, "is too large"),  # type: ignore[dict-item]
        ({"mel": {**GOOD["mel"], "hop_samples": 0}}, "the mel setting hop_samples"),  # type: ignore[dict-item]
        ({"mel": {**GOOD["mel"], "top_db": float("nan")}}, "the mel setting top_db"),  # type: ignore[dict-item]
        ({"mel": {**GOOD["mel"], "n_mels": 32}}, "takes 64 mel bands, not 32"),  # type: ignore[dict-item]
        ({"architecture": "cnn"}, "the architecture cnn takes only the published mel settings"),
        ({"mel": {**GOOD["mel"], "more": 1}}, "mel does not have the settings"),  # type: ignore[dict-item]
        ({"mel": []}, "mel does not have the settings"),
        ({"architecture": ["small"]}, "does not know the architecture"),
        ({"window_frames": 173}, "window_frames must lie between 43 and 172, not 173"),
        ({"window_frames": 1}, "window_frames"),
        ({"window_frames": "86"}, "window_frames"),
        ({"window_frames": True}, "window_frames"),
    ],
)
def test_settings_that_are_none(changes: dict[str, Any], message: str) -> None:
    check_settings(GOOD)
    with pytest.raises(ModelError, match=message):
        check_settings({**GOOD, **changes})


TEXTS = st.text(max_size=4) | st.lists(st.text(max_size=2))
VALUES = st.none() | st.booleans() | st.integers() | st.floats() | TEXTS


@given(st.fixed_dictionaries({}, optional=dict.fromkeys((*GOOD, "precision", "window_frames"), VALUES)))
def test_no_configuration_breaks_the_check(changes: dict[str, Any]) -> None:
    """Settings that pass the check can be built."""
    try:
        check_settings({**GOOD, **changes})
    except ModelError as error:
        assert "\n" not in str(error)
    else:
        AudioClassifier(**{**GOOD, **changes})


@pytest.mark.parametrize("settings", [None, [], "x", {}, {"architecture": "small"}])
def test_no_settings_at_all(settings: Any) -> None:
    with pytest.raises(ModelError, match="usk did not write it"):
        check_settings(settings)
