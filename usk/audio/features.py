"""Log-mel features of whole sources, computed once and kept in memory as float16."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
import torch
import torchaudio

from usk.audio.mel import MelSettings, mel_power, to_db
from usk.data.decode import DecodedSource, resampled

BATCH = 64  # clips


class Features(Protocol):
    """What a classifier is given of a clip: images [bands, frames] of its first `n_samples`."""

    @property
    def sample_rate_hz(self) -> int: ...
    @property
    def n_samples(self) -> int: ...
    @property
    def repeat_short(self) -> bool:
        """Whether a short clip is repeated to fill it; else silence follows."""
        ...

    @property
    def shape(self) -> tuple[int, int]: ...
    @property
    def sounding(self) -> int:
        """How many frames hold sound; padding follows."""
        ...

    def of_audio(self, audio: torch.Tensor) -> torch.Tensor:
        """Audio [batch, n_samples] to features [batch, bands, frames]."""
        ...


@dataclass(frozen=True)
class FeatureSettings:
    """One log-mel image a clip. `repeat_short` repeats a short clip to fill it; else silence follows."""

    mel: MelSettings
    repeat_short: bool

    @property
    def shape(self) -> tuple[int, int]:
        return self.mel.n_mels, self.mel.n_frames

    @property
    def sounding(self) -> int:
        return self.mel.n_frames

    @property
    def sample_rate_hz(self) -> int:
        return self.mel.sample_rate_hz

    @property
    def n_samples(self) -> int:
        return self.mel.image_samples

    def of_audio(self, audio: torch.Tensor) -> torch.Tensor:
        """`log_mel`."""
        return log_mel(audio, self.mel)


@dataclass(frozen=True)
class FirstSecond(FeatureSettings):
    """The published experiment's features, in dB: torchaudio's `MelSpectrogram` of a clip's first second, with the filters and
    edges that it has by itself (HTK's, all as high as 1; reflected), and no floor below the loudest bin."""

    @property
    def n_samples(self) -> int:
        return self.sample_rate_hz

    @property
    def shape(self) -> tuple[int, int]:
        return self.mel.n_mels, 1 + self.n_samples // self.mel.hop_samples

    def of_audio(self, audio: torch.Tensor) -> torch.Tensor:
        """Audio [batch, n_samples] to mel power in dB [batch, n_mels, frames], -100 dB at least."""
        return to_db(torchaudio_mel(self.mel).to(audio.device)(audio))


@lru_cache(maxsize=2)
def torchaudio_mel(mel: MelSettings) -> torchaudio.transforms.MelSpectrogram:
    """Audio [..., n] to mel power [..., n_mels, frames] with the defaults of `MelSpectrogram`."""
    return torchaudio.transforms.MelSpectrogram(
        mel.sample_rate_hz, n_fft=mel.n_fft, hop_length=mel.hop_samples, n_mels=mel.n_mels
    )


FOUR_SECONDS = FeatureSettings(
    MelSettings(n_fft=1_024, hop_samples=512, n_mels=64, n_frames=172), repeat_short=True
)
FIRST_SECOND = FirstSecond(
    MelSettings(n_fft=1_024, hop_samples=512, n_mels=64, n_frames=44), repeat_short=False
)


def fit_length(samples: np.ndarray, n_samples: int, repeat: bool) -> np.ndarray:
    """The first `n_samples` of a clip; a shorter one is repeated, or followed by silence."""
    if len(samples) >= n_samples:
        return samples[:n_samples]
    if repeat:
        return np.resize(samples, n_samples)
    return np.pad(samples, (0, n_samples - len(samples)))


def log_mel(audio: torch.Tensor, mel: MelSettings) -> torch.Tensor:
    """Audio [batch, n] to log-mel power in dB [batch, n_mels, frames], floored 80 dB below each clip's maximum."""
    decibels = to_db(mel_power(audio, mel))
    return torch.maximum(decibels, decibels.amax(dim=(1, 2), keepdim=True) - mel.top_db)


def features_of(decoded: DecodedSource, settings: Features) -> torch.Tensor:
    """Features of every clip: float16 [n, bands, frames] on the CPU; log-mel ones in dB."""
    audio = (decoded.audio(row) for row in range(len(decoded)))
    return features_at(audio, len(decoded), decoded.sample_rate_hz, settings)


def features_at(
    audio: Iterable[np.ndarray], n: int, rate_hz: int, settings: Features, dtype: torch.dtype = torch.float16
) -> torch.Tensor:
    """Features of `n` clips at any rate: [n, bands, frames] on the CPU."""
    features = torch.empty(n, *settings.shape, dtype=dtype)
    clips = (resampled(samples, rate_hz, settings.sample_rate_hz) for samples in audio)
    fitted = (fit_length(samples, settings.n_samples, settings.repeat_short) for samples in clips)
    for begin in range(0, n, BATCH):
        batch = torch.from_numpy(np.stack(list(itertools.islice(fitted, BATCH))))
        features[begin : begin + len(batch)] = settings.of_audio(batch)
    return features
