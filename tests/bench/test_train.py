"""The benchmark of training: its loop makes usk's features, and it runs from end to end."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.bench import train
from usk.audio.features import features_of
from usk.classify.registry import preset
from usk.data.decode import decode_source
from usk.data.open import open_source


@pytest.mark.parametrize("name", ["small", "cnn"])
def test_the_published_loop_sees_what_usk_sees(urbansound8k_folder: Path, name: str) -> None:
    source = open_source(urbansound8k_folder).subset(range(4))
    settings = preset(name).features
    assert isinstance(settings, train.FeatureSettings)
    theirs = torch.stack([image for image, _ in train.PublishedDataset(source, np.arange(4), settings)])  # type: ignore[attr-defined]
    ours = features_of(decode_source(source), settings).float()
    assert (theirs - ours).abs().mean() < 0.1


def test_it_runs_and_saves_what_it_measured(
    urbansound8k_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "train.json"
    monkeypatch.setenv("USK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(
        sys,
        "argv",
        ["train", "--real", str(urbansound8k_folder), "--epochs", "1", "--match-epochs", "1", "--workers", "0", "--device", "cpu",
         "--as-published", "--json", str(file)],
    )  # fmt: skip
    train.main()
    result = json.loads(file.read_text())
    assert [row["what"] for row in result["rows"]] == [
        "published loop", "usk, nothing cached", "usk, clips decoded", "usk, clips decoded, `strong`",
        "usk, nothing cached, `strong`, 1 epochs",
    ]  # fmt: skip
    assert all(row["seconds"] > 0 and len(row["accuracies"]) == 1 for row in result["rows"])
