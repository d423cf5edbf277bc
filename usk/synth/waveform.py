"""Render clips without a generator: sums of the parents' waveforms, and classical augmentation.

These clips are controls: what diffusion adds to training is measured against them.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import numpy as np

from usk.data.clip import NO_MODEL
from usk.data.decode import DecodedSource
from usk.synth.clip_renderer import ClipRenderer, rms_db
from usk.synth.plan import Plan, PlannedClip
from usk.synth.settings import RenderConfig
from usk.synth.strategies import CLASSICAL, WAVEFORM

SAMPLE_RATE_HZ = 22_050
BATCH = 64

MAX_SPEED = 1.25  # and at least 1 / MAX_SPEED
MAX_SEMITONES = 3.5  # up or down
NOISE_BELOW_DB = (10.0, 40.0)
N_FFT = 1_024


class WaveformRenderer(ClipRenderer):
    """Makes clips from waveforms, one after another."""

    def __init__(self, plan: Plan, decoded: DecodedSource, config: RenderConfig) -> None:
        super().__init__(plan, decoded, config, NO_MODEL, None)

    def batches(self, begin: int, end: int) -> list[list[int]]:
        indices = [index for index, _ in self.own(begin, end)]
        return [indices[first : first + BATCH] for first in range(0, len(indices), BATCH)]

    def audio(self, planned: Sequence[PlannedClip]) -> list[np.ndarray]:
        return [self.render(clip) for clip in planned]

    @abstractmethod
    def render(self, clip: PlannedClip) -> np.ndarray:
        """Return the audio of a planned clip, at any level."""


class WaveformSums(WaveformRenderer):
    """Sums the parents by their weights, at equal levels, repeated or cut to their mean length."""

    def render(self, clip: PlannedClip) -> np.ndarray:
        total = np.zeros(self.length(clip), np.float32)
        for parent, weight in zip(clip.parents, clip.weights, strict=True):
            samples = self.decoded.audio(self.row_of[parent])
            total += weight * np.resize(samples, len(total)) / np.float32(10 ** (rms_db(samples) / 20))
        return total


class ClassicalClips(WaveformRenderer):
    """Changes one parent's speed and pitch, adds white noise, and cuts the clip to the parent's length.

    Salamon and Bello (arXiv 1608.04363) augmented UrbanSound8K by time stretching and pitch shifting.
    """

    def render(self, clip: PlannedClip) -> np.ndarray:
        rng = np.random.default_rng(clip.seed)
        speed = MAX_SPEED ** rng.uniform(-1, 1)
        semitones = rng.uniform(-MAX_SEMITONES, MAX_SEMITONES)
        noise_db = -rng.uniform(*NOISE_BELOW_DB)
        samples = self.decoded.audio(self.row_of[clip.parents[0]])
        changed = change_speed_and_pitch(samples, self.decoded.sample_rate_hz, speed, semitones)
        changed = changed[: len(samples)]
        noise = rng.standard_normal(len(changed), np.float32)
        return changed + noise * np.float32(10 ** ((rms_db(changed) + noise_db) / 20))


def change_speed_and_pitch(samples: np.ndarray, rate_hz: int, speed: float, semitones: float) -> np.ndarray:
    """Return samples [n] played `speed` times as fast and `semitones` higher: about n / speed samples.

    librosa's phase vocoder stretches time by speed and pitch together; resampling then raises the pitch.
    """
    import soxr
    from librosa.effects import time_stretch

    pitch = 2 ** (semitones / 12)
    filled = np.resize(samples, max(len(samples), N_FFT))  # the vocoder needs a whole window
    stretched = time_stretch(filled, rate=speed / pitch, n_fft=N_FFT)
    changed = soxr.resample(stretched, rate_hz * pitch, rate_hz, quality="HQ")
    return changed[: max(1, round(len(samples) / speed))].astype(np.float32)


WAVEFORM_RENDERERS: dict[str, type[WaveformRenderer]] = {WAVEFORM: WaveformSums, CLASSICAL: ClassicalClips}
