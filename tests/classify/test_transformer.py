"""`--classifier hf:` on tiny random models of transformers, on spectrograms and on waveforms."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from tests.classify.conftest import TINY
from tests.hub_server import LocalHub
from usk.audio.features import features_of
from usk.classify.augment import augment_batch
from usk.classify.classifier import read_classifier
from usk.classify.registry import preset
from usk.classify.train import train
from usk.classify.transformer import ExtractorFeatures, transformer_preset
from usk.data.decode import decode_source
from usk.data.source import Source
from usk.data.splits import fold_split
from usk.errors import ModelError, UsageError

transformers = pytest.importorskip("transformers")
Command = Callable[..., Any]


@pytest.fixture(scope="module")
def ast(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A spectrogram transformer: 16 bands x 48 frames, made for 5 classes."""
    folder = tmp_path_factory.mktemp("hf") / "ast"
    config = transformers.ASTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, patch_size=8,
        frequency_stride=8, time_stride=8, max_length=48, num_mel_bins=16, num_labels=5,
    )  # fmt: skip
    torch.manual_seed(0)
    transformers.ASTForAudioClassification(config).save_pretrained(folder)
    transformers.ASTFeatureExtractor(num_mel_bins=16, max_length=48).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def wav2vec2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A waveform transformer at 4 kHz."""
    folder = tmp_path_factory.mktemp("hf") / "wav2vec2"
    config = transformers.Wav2Vec2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, conv_dim=(8, 8),
        conv_kernel=(10, 8), conv_stride=(10, 8), num_feat_extract_layers=2, num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2, classifier_proj_size=8, num_labels=2,
    )  # fmt: skip
    torch.manual_seed(0)
    transformers.Wav2Vec2ForSequenceClassification(config).save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor(sampling_rate=4_000).save_pretrained(folder)
    return folder


def test_features_are_the_extractors_own(ast: Path, wav2vec2: Path, bands: Source) -> None:
    few = bands.subset(range(2))
    for folder, shape, rate_hz in ((ast, (16, 48), 16_000), (wav2vec2, (1, 16_000), 4_000)):
        settings = preset(f"hf:{folder}").features
        assert (settings.shape, settings.sample_rate_hz) == (shape, rate_hz)
        assert settings.n_samples == 4 * rate_hz
        decoded = decode_source(few, rate_hz)
        made = features_of(decoded, settings).float()
        clip = np.resize(decoded.audio(1), 4 * rate_hz)
        extractor = transformers.AutoFeatureExtractor.from_pretrained(folder)
        wanted = extractor(clip, sampling_rate=rate_hz, return_tensors="pt")["input_values"][0]
        wanted = wanted[None] if folder == wav2vec2 else wanted.T
        torch.testing.assert_close(made[1], wanted, atol=4e-3, rtol=2e-3)


def test_padding_is_no_sound_to_augment() -> None:
    """AST's extractor computes 398 frames for four seconds and pads them to the model's length."""
    extractor = transformers.ASTFeatureExtractor(num_mel_bins=16, max_length=512)
    padded = ExtractorFeatures.of(extractor)
    assert padded.shape == (16, 512) and padded.sounding == 398
    made = padded.of_audio(torch.from_numpy(np.random.default_rng(1).normal(0, 0.1, (2, padded.n_samples))))
    assert (made[..., 398:] == made[0, 0, 511]).all() and made[..., 397].std() > 0.1
    full = ExtractorFeatures.of(transformers.ASTFeatureExtractor(num_mel_bins=16, max_length=48))
    assert full.sounding == 48
    waveform = ExtractorFeatures.of(transformers.Wav2Vec2FeatureExtractor(sampling_rate=4_000))
    assert waveform.sounding == waveform.shape[1] == 16_000


def test_training_augments_what_sounds(
    ast: Path, bands: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(ast, tmp_path / "padded")
    config = transformers.ASTConfig.from_pretrained(ast, max_length=512)
    transformers.ASTForAudioClassification(config).save_pretrained(folder)
    transformers.ASTFeatureExtractor(num_mel_bins=16, max_length=512).save_pretrained(folder)
    batches: list[torch.Tensor] = []

    def kept(*given: Any) -> Any:
        made = augment_batch(*given)
        batches.append(made.batch)
        return made

    monkeypatch.setattr("usk.classify.loop.augment_batch", kept)
    config = replace(TINY, classifier=f"hf:{folder}", train_clips="4", epochs=1, augment="shift+mask")
    train(bands, out=tmp_path / "runs", config=config)
    assert batches and all((batch[..., 398:] == batch[0, 0, 511]).all() for batch in batches)


@pytest.mark.parametrize("name", ["ast", "wav2vec2"])
def test_a_model_is_fine_tuned_kept_and_used(
    usk: Command, name: str, request: pytest.FixtureRequest, tone_folder: Path, tmp_path: Path
) -> None:
    folder = request.getfixturevalue(name)
    ran = usk(
        f"train --real {tone_folder} --classifier hf:{folder} --out {tmp_path}/runs --epochs 2"
        " --test-folds 1 --seeds 1 --augment strong --device cpu --learning-rate 0.01 --json"
    ).done()
    run = ran.value["runs"][0]
    assert run["classifier"] == f"hf:{folder}" and run["classifier_revision"]
    kept = json.loads((Path(run["folder"]) / "config.json").read_text())["transformer"]["config"]
    assert list(kept["id2label"].values()) == run["class_names"]
    before = preset(f"hf:{folder}").model(3).state_dict()
    after = load_file(Path(run["folder"]) / "model.safetensors")
    inner = [key for key in before if key.endswith("q_proj.weight")]
    assert inner and not torch.equal(before[inner[0]], after[f"network.{inner[0]}"])

    moved = tmp_path / "moved"  # a run does not need the checkpoint
    shutil.move(folder, moved)
    try:
        predicted = usk("predict", run["folder"], tone_folder / "low" / "low0", "--json")
    finally:
        shutil.move(moved, folder)
    assert predicted.code == 0, predicted.err
    assert {one["class_name"] for one in predicted.value} <= set(run["class_names"])


def test_training_begins_from_the_checkpoint_with_a_new_head(ast: Path) -> None:
    before = transformers.ASTForAudioClassification.from_pretrained(ast).state_dict()
    after = preset(f"hf:{ast}").model(5).state_dict()  # as many classes as the checkpoint has
    same = {key for key in before if torch.equal(before[key], after[f"model.{key}"])}
    assert set(before) - same == {"classifier.dense.weight", "classifier.dense.bias"}
    assert preset(f"hf:{ast}").model(3)(torch.zeros(2, 16, 48)).shape == (2, 3)


def test_the_saved_weights_give_the_saved_predictions(ast: Path, bands: Source, tmp_path: Path) -> None:
    config = replace(TINY, classifier=f"hf:{ast}", epochs=1)
    run, again = (train(bands, out=tmp_path / name, config=config).runs[0] for name in "ab")
    first, second = ((one.folder / "model.safetensors").read_bytes() for one in (run, again))
    assert first == second
    model = read_classifier(run.folder)
    test = fold_split(bands.clips, 2).test.tolist()
    features = features_of(decode_source(bands, 16_000), preset(f"hf:{ast}").features)[test]
    with torch.no_grad():
        probabilities = model(features.float()).softmax(dim=1)
    saved = pq.read_table(run.folder / "predictions.parquet")["probabilities"].to_pylist()
    np.testing.assert_allclose(probabilities, saved, atol=1e-5)


def test_augmentations_that_its_features_cannot_have_are_refused_by_name(ast: Path, wav2vec2: Path) -> None:
    assert preset(f"hf:{ast}").augmentations("strong") == ("stretch", "pitch", "shift", "mask", "mixup")
    assert preset(f"hf:{wav2vec2}").augmentations("strong+mixup") == ("stretch", "shift", "mask", "mixup")
    with pytest.raises(UsageError, match=r"augment pitch: cannot be applied to this classifier's features"):
        preset(f"hf:{wav2vec2}").augmentations("basic+pitch")


def test_what_is_no_audio_classifier_is_refused_in_one_line(
    usk: Command, ast: Path, tone_folder: Path, tmp_path: Path
) -> None:
    bert = tmp_path / "bert"
    transformers.BertConfig().save_pretrained(bert)
    shutil.copy(ast / "preprocessor_config.json", bert)
    remote = json.loads((ast / "config.json").read_text()) | {"model_type": "mine"}
    remote["auto_map"] = {"AutoConfig": "mine.Config"}
    deep = json.loads((ast / "config.json").read_text()) | {"num_hidden_layers": 4}
    endless = json.dumps(remote | {"num_hidden_layers": 10**7})

    def spoilt(name: str, text: str | None) -> Path:
        to = Path(shutil.copytree(ast, tmp_path / str(len(list(tmp_path.iterdir())))))
        (to / name).unlink()
        if text is not None:
            (to / name).write_text(text)
        return to

    cases = [
        (tmp_path / "nowhere", "no such folder. Name a model's folder, or a Hub id"),
        (bert, "is a bert model, which is not an audio classifier of transformers"),
        (spoilt("config.json", None), "is not an audio classifier: it has no config.json"),
        (spoilt("preprocessor_config.json", None), "has no preprocessor_config.json"),
        (spoilt("config.json", "{"), "cannot be loaded"),
        (spoilt("config.json", endless), "num_hidden_layers in its config.json is too large"),
        (spoilt("model.safetensors", "junk"), "cannot be loaded"),
        (spoilt("model.safetensors", None), "cannot be loaded"),
        (spoilt("config.json", json.dumps(remote)), "cannot be loaded"),
        (spoilt("config.json", json.dumps(deep)), "holds other weights than its config.json says"),
        ("user/name", "cannot be reached"),
        ("", "no such folder"),
    ]
    for place, message in cases:
        ran = usk("train", "--real", tone_folder, "--classifier", f"hf:{place}", "--out", tmp_path / "runs")
        lines = ran.err.splitlines()
        assert ran.code == 1, (place, ran.err)
        assert f"hf:{place}" in lines[-1] and message in lines[-1], lines


def pickled(folder: Path, to: Path) -> Path:
    """Write the model with pickled weights."""
    shutil.copytree(folder, to)
    torch.save(load_file(to / "model.safetensors"), to / "pytorch_model.bin")
    (to / "model.safetensors").unlink()
    return to


def asked_for(hub: LocalHub) -> set[str]:
    return {path.rpartition("/")[2] for _, path, _ in hub.requests if "/resolve/" in path}


def test_a_model_of_the_hub_comes_without_pickled_weights(hub: LocalHub, ast: Path, tmp_path: Path) -> None:
    both = pickled(ast, tmp_path / "both")
    shutil.copy(ast / "model.safetensors", both)
    repo = hub.create_repo("model", "me/ast", both)
    repo.tags["v1"] = repo.branches["main"]
    (tmp_path / "empty").mkdir()
    hub.commit_folder(repo, tmp_path / "empty", "all gone")  # the tag counts, not the newest commit
    hub.fail("GET", "/api/models/me/ast", 503)  # retried
    there = transformer_preset("me/ast@v1")
    assert asked_for(hub) == {"config.json", "preprocessor_config.json", "model.safetensors"}
    assert there.revision == transformer_preset(str(ast)).revision
    hub.stop()
    assert transformer_preset("me/ast@v1").revision == there.revision
    with pytest.raises(ModelError, match=r"hf:me/ast@v2.*cannot be reached"):
        transformer_preset("me/ast@v2")


def test_a_model_of_the_hub_may_have_pickled_weights_alone(hub: LocalHub, ast: Path, tmp_path: Path) -> None:
    hub.create_repo("model", "me/old", pickled(ast, tmp_path / "old"))
    there = transformer_preset("me/old")
    assert asked_for(hub) == {"config.json", "preprocessor_config.json", "pytorch_model.bin"}
    ours, theirs = (of.build(5).model.base_model.state_dict() for of in (there, transformer_preset(str(ast))))
    torch.testing.assert_close(ours, theirs)
    hub.stop()
    assert transformer_preset("me/old").revision == there.revision


def test_without_the_library_the_fix_is_named(
    usk: Command, tone_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    ran = usk("train", "--real", tone_folder, "--classifier", "hf:user/name", "--out", tmp_path / "runs")
    assert ran.code == 2
    assert ran.err.splitlines()[-1].startswith("usk: a classifier hf:... needs transformers")
    assert "pip install 'urban-sound-kit[hf]'" in ran.err
