"""A resumed training gives the same result as an uninterrupted one."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.classify.conftest import TINY
from tests.fuzz.campaign import damage
from tests.watched import Watched
from usk.classify import checkpoint
from usk.classify.loop import Training
from usk.classify.train import train
from usk.data.source import Source
from usk.errors import UskError

CONFIG = replace(TINY, epochs=4, train_clips="30", augment="shift+mixup")


@pytest.fixture(autouse=True)
def _every_epoch(tiny_classifier: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(checkpoint, "SAVE_EVERY_S", 0.0)
    yield


def stopped_after(epoch: int, real: Source, out: Path) -> Path:
    """Stop a training in the epoch after this one, and return the checkpoint that it leaves."""

    def report(state: Any) -> None:
        if state.epoch == epoch:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(real, out=out, config=CONFIG, reporter=Watched(report))
    (file,) = out.glob(".*.checkpoint")
    return file


def results(folder: Path) -> dict[str, bytes]:
    names = ("predictions.parquet", "history.json", "model.safetensors")
    return {name: (folder / name).read_bytes() for name in names}


def test_a_run_that_is_stopped_within_an_epoch_goes_on_from_its_step(
    bands: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Checkpoints are also saved within an epoch, since large epochs take minutes."""
    (whole,) = train(bands, out=tmp_path / "whole", config=CONFIG).runs
    step, done, stop = Training.step, list[int](), set[int]()

    def stopping(self: Training) -> torch.Tensor:
        if self.done in stop:
            raise KeyboardInterrupt
        done.append(self.done)
        return step(self)

    monkeypatch.setattr(Training, "step", stopping)
    for before in (3, per_epoch := whole.steps // whole.epochs, per_epoch + 2):
        stop.add(before)
        with pytest.raises(KeyboardInterrupt):
            train(bands, out=tmp_path / "stopped", config=CONFIG)
        stop.clear()
    (run,) = train(bands, out=tmp_path / "stopped", config=CONFIG).runs
    assert done == list(range(whole.steps))
    assert results(run.folder) == results(whole.folder)


@pytest.mark.parametrize("epoch", [1, 3])
def test_a_stopped_run_ends_with_the_same_weights(bands: Source, tmp_path: Path, epoch: int) -> None:
    (whole,) = train(bands, out=tmp_path / "whole", config=CONFIG).runs
    stopped_after(epoch, bands, tmp_path / "stopped")
    watched = Watched()
    result = train(bands, out=tmp_path / "stopped", config=CONFIG, reporter=watched)
    (run,) = result.runs
    assert watched.epochs == list(range(epoch + 1, 5)) and result.fresh == (True,)
    assert results(run.folder) == results(whole.folder)
    assert [path.name for path in (tmp_path / "stopped").iterdir()] == [run.folder.name]


def test_another_run_does_not_take_it(bands: Source, tmp_path: Path) -> None:
    stopped_after(2, bands, tmp_path)
    watched = Watched()
    train(bands, out=tmp_path, config=replace(CONFIG, seed=1), reporter=watched)
    assert watched.epochs == [1, 2, 3, 4]
    assert len(list(tmp_path.glob(".*.checkpoint"))) == 1


@pytest.mark.parametrize("way", ["empty", "noise", "half", "a bit", "bits", "nested", "a link to itself"])
def test_a_damaged_checkpoint_is_no_checkpoint(bands: Source, tmp_path: Path, way: str) -> None:
    damage(stopped_after(2, bands, tmp_path), way, 0)
    watched = Watched()
    train(bands, out=tmp_path, config=CONFIG, reporter=watched)
    assert watched.epochs == [1, 2, 3, 4]


def test_short_trainings_keep_nothing(bands: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "SAVE_EVERY_S", 60.0)

    def report(state: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(bands, out=tmp_path, config=CONFIG, reporter=Watched(report))
    assert not list(tmp_path.glob(".*"))


def test_a_training_that_diverges_leaves_no_checkpoint(
    bands: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, seen = Training.step, list[int]()

    def diverging(self: Training) -> torch.Tensor:
        return step(self) * (math.nan if len(seen) == 2 else 1)

    monkeypatch.setattr(Training, "step", diverging)
    with pytest.raises(UskError, match="diverged in epoch 3"):
        train(bands, out=tmp_path, config=CONFIG, reporter=Watched(lambda state: seen.append(state.epoch)))
    assert list(tmp_path.iterdir()) == [], "a checkpoint would diverge again"
