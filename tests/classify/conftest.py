"""Fixtures: real clips whose classes are bands of frequency, a synthetic dataset, and a classifier that trains fast."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import nn

from usk.audio.features import FeatureSettings
from usk.audio.mel import MelSettings
from usk.classify import recipe, registry
from usk.classify.config import TrainConfig
from usk.data import audio_file
from usk.data.clip import Clip
from usk.data.decode import sound_of
from usk.data.source import Source

TINY = TrainConfig(
    classifier="tiny", test_folds=(2,), device="cpu", precision="fp32", seeds=1, baseline=False
)
RATE_HZ = 22_050
BANDS_HZ = {"low": 300.0, "middle": 900.0, "high": 2700.0}


@dataclass(frozen=True)
class Sound:
    """A noisy tone near `frequency_hz`, drawn from its name."""

    name: str
    frequency_hz: float

    def digest(self) -> str:
        return self.name

    def read(self) -> audio_file.Sound:
        rng = np.random.default_rng(zlib.crc32(self.name.encode()))
        t = np.arange(round(0.25 * RATE_HZ)) / RATE_HZ
        wave = np.sin(2 * np.pi * self.frequency_hz * rng.uniform(0.85, 1.15) * t)
        return audio_file.Sound((0.3 * wave + 0.02 * rng.standard_normal(len(t))).astype(np.float32), RATE_HZ)


@pytest.fixture
def bands() -> Source:
    """Three classes, three folds, eight recordings each: in every fold and class two recordings validate."""
    clips, audio = [], []
    for label, (name, frequency_hz) in enumerate(BANDS_HZ.items()):
        for fold in (1, 2, 3):
            for recording in range(8):
                clip_id = f"bands/{name}-{fold}-{recording}"
                audio.append(Sound(clip_id, frequency_hz))
                sound = sound_of(*audio[-1].read()[:2])
                clips.append(Clip(clip_id, label, clip_id, fold, 0.25, sound=sound))
    return Source(
        name="bands", kind="test", location="bands", revision="1", cache_key="bands", class_names=tuple(BANDS_HZ),
        clips=tuple(clips), audio=tuple(audio),
    )  # fmt: skip


@pytest.fixture
def children(bands: Source) -> Callable[..., Source]:
    """`children(folds=(1,), per_cell=2)`: synthetic clips between training recordings of those folds."""
    from usk.data.splits import held_out_groups

    held = held_out_groups(bands.clips)

    def make(folds: tuple[int, ...] = (1, 2, 3), per_cell: int = 2, **options: object) -> Source:
        clips, audio = [], []
        for label, (name, frequency_hz) in enumerate(BANDS_HZ.items()):
            for fold in folds:
                pool = [c for c in bands.clips if (c.label, c.fold) == (label, fold) and c.group not in held]
                for number in range(per_cell):
                    first, second = pool[number], pool[number + 1]
                    clip = Clip(f"{name}-0-{fold}-{number}", label, f"{name}-0-{fold}-{number}", fold)
                    clips.append(
                        replace(
                            clip,
                            parents=(first.identity, second.identity),
                            parent_names=(first.clip_id, second.clip_id),
                            parent_groups=(first.group, second.group),
                            parent_folds=(fold, fold),
                        )
                    )
                    audio.append(Sound(clip.clip_id, frequency_hz))
        made = Source(
            name="synth", kind="synthetic dataset", location="synth", revision="1",
            cache_key=f"children{folds}{per_cell}", class_names=bands.class_names, clips=tuple(clips),
            audio=tuple(audio),
        )  # fmt: skip
        return replace(made, **options)  # type: ignore[arg-type]

    return make


class TinyNet(nn.Module):
    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(16 * 8, n_classes))

    def forward(self, log_mel: torch.Tensor) -> torch.Tensor:
        return self.layers(log_mel)


@pytest.fixture
def tiny_classifier(monkeypatch: pytest.MonkeyPatch) -> recipe.ClassifierPreset:
    """`--classifier tiny`: one linear layer on 16 x 8 log-mels, three epochs (six, with few clips) of batches of 16."""
    settings = FeatureSettings(MelSettings(n_fft=1_024, hop_samples=512, n_mels=16, n_frames=8), True)
    tiny = recipe.ClassifierPreset(TinyNet, settings, 3, 16, 1e-2, 0.0, False, 0.0, "none", 192)
    monkeypatch.setitem(registry.CLASSIFIERS, "tiny", tiny)
    return tiny
