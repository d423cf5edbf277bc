"""Tests of embeddings: the classifier of a run, a model of transformers, log-mel statistics."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.diffusion.text_models import save_clap
from tests.hub_server import LocalHub
from tests.sounds import tone
from usk.audit.embeddings import classifier_embedding, transformers_embedding

Command = Callable[..., Any]


@pytest.mark.parametrize("classifier", ["small", "cnn"])
def test_the_classifier_of_a_run_embeds_clips(
    usk: Command, made: Path, urbansound8k_folder: Path, tmp_path: Path, classifier: str
) -> None:
    """`cnn` splits each clip into patches."""
    few = "--epochs 1 --seeds 1 --test-folds 3 --json"
    trained = usk(
        f"train --real {urbansound8k_folder} --classifier {classifier} {few} --out {tmp_path}/runs"
    ).done()
    run = trained.value["runs"][0]["folder"]
    clips = [tone(440, 0.5), tone(880, 4), tone(1_760, 2)]
    vectors = classifier_embedding(Path(run))(clips)
    assert len(vectors) == 3
    backwards = classifier_embedding(Path(run))(clips[::-1])
    np.testing.assert_allclose(backwards, vectors[::-1], rtol=1e-3, atol=1e-4)
    found = usk(f"audit {made} --real {urbansound8k_folder} --embedding {run} --json").value
    assert found["embedding"].startswith(f"classifier of {Path(run).name}, trained on ")
    assert found["overall"]["distance"]["kad"] is not None


def test_the_run_with_the_most_real_clips_embeds_by_default(
    usk: Command, made: Path, urbansound8k_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    common = ("--real", urbansound8k_folder, "--epochs", 1, "--seeds", 1, "--no-baseline", "--test-folds", 3)
    usk("train", *common, "--mix", "real", "--mix", "real,synth", "--synth", made, "--quiet")
    (run,) = Path("runs").glob("real_*")
    usk("train", *common, "--train-clips", 3, "--quiet")  # newer, but with fewer clips
    (Path("runs") / "damaged").mkdir()
    (Path("runs") / "damaged" / "run.json").write_text("{")
    (Path("runs") / "weightless").mkdir()
    (Path("runs") / "weightless" / "run.json").write_text(
        json.dumps({**json.loads((run / "run.json").read_text()), "n_real": 9_999})
    )
    found = usk("audit", made, "--real", urbansound8k_folder, "--json").value
    n_real = json.loads((run / "run.json").read_text())["n_real"]
    named = f"classifier of {run.name}, trained on {n_real} real clips, before its last layer"
    assert n_real > 3 and found["embedding"] == named
    plain = usk("audit", made, "--real", urbansound8k_folder, "--embedding", "log-mel", "--json").value
    assert plain["embedding"] == "log-mel statistics"
    assert plain["overall"]["distance"] != found["overall"]["distance"]


@pytest.fixture(scope="module")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of tiny random audio models of `transformers`: one without pooled output, and a CLAP."""
    import transformers as hf

    torch.manual_seed(0)
    root = tmp_path_factory.mktemp("models")
    wave = hf.Wav2Vec2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, conv_dim=(8, 8),
        conv_stride=(10, 10), conv_kernel=(10, 10), num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2,
        num_feat_extract_layers=2,
    )  # fmt: skip
    hf.Wav2Vec2Model(wave).save_pretrained(root / "wave")
    hf.Wav2Vec2FeatureExtractor(sampling_rate=16_000).save_pretrained(root / "wave")
    return {"wave": root / "wave", "clap": save_clap(root / "clap")}


@pytest.mark.parametrize("kind", ["wave", "clap"])
def test_a_transformers_model_embeds_clips(
    usk: Command, made: Path, urbansound8k_folder: Path, tiny_models: dict[str, Path], kind: str
) -> None:
    embed = transformers_embedding(str(tiny_models[kind])).embed
    clips = [tone(440, 0.5), tone(440, 0.01), tone(880, 12)]
    vectors = embed(clips)
    assert vectors.shape == (3, 16) and np.isfinite(vectors).all()
    assert np.array_equal(embed(clips[::-1]), vectors[::-1]), "clips do not depend on each other"
    if kind == "wave":
        ran = usk("audit", made, "--real", urbansound8k_folder, "--embedding", tiny_models[kind], "--json")
        assert ran.code == 0, ran.err
        assert ran.value["embedding"] == str(tiny_models[kind])
        assert ran.value["overall"]["distance"]["kad"] is not None


@pytest.mark.parametrize("weights", ["safetensors", "bin", "both"])
def test_a_transformers_model_of_the_hub_embeds_clips(
    hub: LocalHub, tiny_models: dict[str, Path], tmp_path: Path, weights: str
) -> None:
    folder = shutil.copytree(tiny_models["wave"], tmp_path / "wave")
    if weights != "safetensors":
        torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    if weights == "bin":
        (folder / "model.safetensors").unlink()
    commit = hub.create_repo("model", "me/wave", folder).branches["main"]
    embedding = transformers_embedding("me/wave@main")
    assert embedding.name == f"me/wave@{commit}"
    expected = transformers_embedding(str(folder)).embed([tone(440, 0.5)])
    np.testing.assert_array_equal(embedding.embed([tone(440, 0.5)]), expected)
    downloaded = {path.rpartition(".")[2] for _, path, _ in hub.requests if "/resolve/" in path}
    assert downloaded == {"json", "bin" if weights == "bin" else "safetensors"}
    hub.stop()
    assert transformers_embedding("me/wave").name == embedding.name


def test_an_embedding_that_cannot_be_loaded_is_an_error_of_one_line(
    usk: Command, made: Path, urbansound8k_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    common = ("audit", made, "--real", urbansound8k_folder, "--quiet")
    for given, message in (
        (tmp_path / "empty", f"--embedding {tmp_path}/empty: not an audio model that transformers can load"),
        ("nobody/nothing", "the embedding nobody/nothing cannot be reached (no network?)"),
    ):
        usk(*common, "--embedding", given).refused(2, message)
    monkeypatch.setitem(sys.modules, "transformers", None)
    usk(*common, "--embedding", tmp_path / "empty").refused(
        2,
        f"the embedding {tmp_path / 'empty'} needs transformers, which is not installed",
        "pip install 'urban-sound-kit[hf]', or name log-mel\n",
    )
