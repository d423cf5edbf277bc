"""Clips without a generator: sums of the very pairs that would be interpolated, and classical augmentation of waveforms.

What diffusion adds to training is what its clips do beyond these.
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

STRETCH = 1.25  # at most, faster or slower
SEMITONES = 3.5  # at most, up or down
NOISE_BELOW_DB = (10.0, 40.0)
N_FFT = 1_024


class WaveformRenderer(ClipRenderer):
    """Makes clips of waveforms, one after another."""

    def __init__(self, plan: Plan, decoded: DecodedSource, config: RenderConfig) -> None:
        super().__init__(plan, decoded, config, NO_MODEL, None)

    def batches(self, begin: int, end: int) -> list[list[int]]:
        return [list(range(first, min(first + BATCH, end))) for first in range(begin, end, BATCH)]

    def audio(self, planned: Sequence[PlannedClip]) -> list[np.ndarray]:
        return [self.one(clip) for clip in planned]

    @abstractmethod
    def one(self, clip: PlannedClip) -> np.ndarray:
        """The audio of a planned clip, at any level."""


class WaveformSums(WaveformRenderer):
    """Parents brought to one level, repeated or cut to the mean of their lengths, and summed by their weights."""

    def one(self, clip: PlannedClip) -> np.ndarray:
        total = np.zeros(self.length(clip), np.float32)
        for parent, weight in zip(clip.parents, clip.weights, strict=True):
            samples = self.decoded.audio(self.row_of[parent])
            total += weight * np.resize(samples, len(total)) / np.float32(10 ** (rms_db(samples) / 20))
        return total


class ClassicalClips(WaveformRenderer):
    """One parent at another speed and another pitch, with white noise, cut to the parent's length: what people do to waveforms
    (Salamon and Bello, arXiv 1608.04363, stretched and shifted clips of this very data set)."""

    def one(self, clip: PlannedClip) -> np.ndarray:
        draw = np.random.default_rng(clip.seed)
        speed = STRETCH ** draw.uniform(-1, 1)
        semitones = draw.uniform(-SEMITONES, SEMITONES)
        noise_db = -draw.uniform(*NOISE_BELOW_DB)
        samples = self.decoded.audio(self.row_of[clip.parents[0]])
        made = at_speed_and_pitch(samples, self.decoded.sample_rate_hz, speed, semitones)[: len(samples)]
        noise = draw.standard_normal(len(made), np.float32)
        return made + noise * np.float32(10 ** ((rms_db(made) + noise_db) / 20))


def at_speed_and_pitch(samples: np.ndarray, rate_hz: int, speed: float, semitones: float) -> np.ndarray:
    """Samples [n] played `speed` times as fast, all frequencies `semitones` higher: about n / speed samples.

    One pass of librosa's phase vocoder does both: it stretches by as much more as resampling then takes back.
    """
    import soxr
    from librosa.effects import time_stretch

    higher = 2 ** (semitones / 12)
    whole = np.resize(samples, max(len(samples), N_FFT))  # the vocoder takes no less
    stretched = time_stretch(whole, rate=speed / higher, n_fft=N_FFT)
    made = soxr.resample(stretched, rate_hz * higher, rate_hz, quality="HQ")
    return made[: max(1, round(len(samples) / speed))].astype(np.float32)


WAVEFORM_RENDERERS: dict[str, type[WaveformRenderer]] = {WAVEFORM: WaveformSums, CLASSICAL: ClassicalClips}
