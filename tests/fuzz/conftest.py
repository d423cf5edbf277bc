"""One small world for all cases: clips, a dataset, runs, a generator and a study, each made once."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.fuzz.campaign import ended
from tests.runs import write_run
from tests.sounds import tone, write_wav

STUDY = """real = "clips"
train_clips = ["full"]
test_folds = {full = [1]}
mixes = {full = ["real,a"]}
seeds = {full = 1}
per_class = {full = 2}
epochs = 1
[clips.a]
strategy = "waveform"
"""


def _stopped(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory, tiny_pipeline: Callable[..., Path]) -> Path:
    """clips, classes (class folders), synth, runs (made up), trained/ (one run), model, g (a fitted generator), study.toml; cut, g-cut and
    run-cut are unfinished ones."""
    root = tmp_path_factory.mktemp("world")
    rows = ["file_name,label,group,fold"]
    for number in range(16):
        label, fold = ("low", "high")[number % 2], 1 + number // 8
        samples = tone({"low": 300, "high": 2_500}[label] * (1 + 0.05 * number), 0.25, 8_000)
        samples = samples + np.random.default_rng(number).normal(0, 0.01, len(samples)).astype(np.float32)
        write_wav(root / "clips" / f"{number}.wav", samples, 8_000)
        write_wav(root / "classes" / label / f"r{number // 4}" / f"{number}.wav", samples, 8_000)
        rows.append(f"{number}.wav,{label},r{number // 4}{label},{fold}")
    (root / "clips" / "metadata.csv").write_text("\n".join(rows) + "\n")
    (root / "study.toml").write_text(STUDY)
    for seed in (0, 1):
        for mix in ("real", "real,synth"):
            write_run(root / "runs", mix, seed, skill=0.6 if mix == "real" else 0.7, name=f"{mix}-{seed}")
    (root / "model").symlink_to(tiny_pipeline())
    os.environ["USK_CACHE"] = str(root / "cache")
    real = ("--real", root / "clips")
    for words in (
        ("synth", *real, "--strategy", "waveform", "--per-class", 2, "--out", root / "synth"),
        ("train", *real, "--epochs", 1, "--seeds", 1, "--test-folds", 1, "--no-baseline", "--out", root / "trained"),
        ("fit", *real, "--steps", 1, "--from", root / "model", "--batch", 2, "--out", root / "g"),
    ):  # fmt: skip
        made = ended(*words)
        assert made.code == 0, (made.err, made.problem)
    for words, place in (  # what is left where these are stopped
        (("synth", *real, "--strategy", "waveform", "--per-class", 2, "--out", root / "cut"), "usk.synth.dataset_folder.DatasetFolder.assemble"),
        (("fit", *real, "--steps", 1, "--from", root / "model", "--batch", 2, "--out", root / "g-cut"), "usk.diffusion.fit.write_pipeline"),
        (("train", *real, "--epochs", 1, "--seeds", 1, "--test-folds", 1, "--no-baseline", "--out", root / "run-cut"), "usk.classify.checkpoint.Checkpoint.remove"),
    ):  # fmt: skip
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(place, _stopped)
            patch.setattr("usk.classify.checkpoint.SAVE_EVERY_S", 0.0)
            assert ended(*words).code == 130
    (run,) = [file.parent for file in (root / "trained").glob("*/run.json")]
    run.rename(root / "trained" / "run")
    assert json.loads((root / "trained" / "run" / "run.json").read_text())["mix"] == "real"
    return root


@pytest.fixture(autouse=True)
def _cache_of_the_world(world: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("USK_CACHE", str(world / "cache"))
    monkeypatch.setenv("COLUMNS", "200")
    inside = tmp_path / "a" / "b" / "c"  # names that lead up stay in the test's own folder
    inside.mkdir(parents=True)
    monkeypatch.chdir(inside)
