"""Compute the demo corpus: procedural sounds named after the ten classes of UrbanSound8K.

Each clip is computed from its name and the name of its recording, so that usk can be tried and tested without a download. A
score on this corpus says nothing about real street sound.

A recording (`group`) lies in one fold and has its own pitch, tempo, timbre, background and loudness. Its clips differ in timing and
small variations. Classes overlap on purpose.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from usk.data.clip import Clip

DEMO_VERSION = "2"
FOLDS = (1, 2, 3)
RECORDINGS_PER_FOLD = 6
CLIPS_PER_RECORDING = 3
SAMPLE_RATE_HZ = 22_050
SNR_RANGE_DB = (-3.0, 20.0)  # a lower range makes the corpus harder
PEAK_RANGE = (0.03, 0.9)
DURATION_STEP_S = 0.1  # keeps sample counts at multiples of 2205, which transform quickly
MAX_HARMONICS = 60

Signal = NDArray[np.floating[Any]]
Range = tuple[float, float]


@dataclass(frozen=True)
class Kind:
    """The sound of a class: tones with harmonics, and noise. A recording draws its values from the ranges."""

    pitch_hz: Range
    event_s: Range = (9.0, 9.0)  # longer than a clip: one sound throughout
    pause_s: Range = (0.1, 0.1)
    slope: Range = (0.5, 1.5)  # harmonic k has an amplitude of 1 / k**slope
    noise_db: Range = (-30.0, -10.0)  # beside the tone
    noise_slope: Range = (-4.0, 0.0)  # in dB per octave
    spread: float = 0.02  # between the pitches of a recording's events, natural logarithm
    glide: Range = (0.0, 0.0)  # of the pitch during an event, natural logarithm
    sweep: Range = (0.0, 0.0)  # of the pitch, up and down; natural logarithm
    sweep_hz: Range = (0.1, 5.0)
    beat: Range = (0.0, 0.1)  # depth of the changes in loudness
    beat_hz: Range = (0.5, 15.0)
    fall: float = 1.0  # how fast an event dies away
    voices: int = 1
    is_short: bool = False  # clips are often shorter than 4 s


KINDS = {
    "air_conditioner": Kind((25, 240), noise_db=(-6, 18), noise_slope=(-7, -1), beat=(0.02, 0.5)),
    "car_horn": Kind((260, 620), (0.12, 2.0), (0.12, 1.2), (0.1, 1.1), (-40, -20), glide=(-0.03, 0.03), voices=2, is_short=True),
    "children_playing": Kind((260, 620), (0.12, 0.5), (0.1, 0.9), (0.3, 1.2), (-20, -6), spread=0.35, glide=(-0.4, 0.4), voices=4),
    "dog_bark": Kind((180, 900), (0.06, 0.3), (0.2, 1.2), (0.2, 1.0), (-14, 4), glide=(-1.0, -0.2), fall=3, is_short=True),
    "drilling": Kind((70, 800), (0.8, 8), (0.1, 1), (0.2, 1.3), (-10, 10), (-3, 3), beat=(0, 0.9), beat_hz=(12, 60), fall=0.2),
    "engine_idling": Kind((8, 60), slope=(0.3, 1.2), noise_db=(-22, 4), noise_slope=(-7, -1), beat=(0.1, 0.6), beat_hz=(4, 25)),
    "gun_shot": Kind((50, 200), (0.1, 0.8), (0.2, 2.5), noise_db=(6, 20), noise_slope=(-6, 0), fall=8, is_short=True),
    "jackhammer": Kind((250, 3500), (0.03, 0.09), (0.005, 0.04), noise_db=(-6, 12), noise_slope=(-6, 1), fall=4),
    "siren": Kind((400, 1200), noise_db=(-40, -20), slope=(0.5, 2), sweep=(0.1, 0.6)),
    "street_music": Kind((110, 440), (0.14, 0.8), (0.01, 0.05), (0.7, 2), (-40, -6), spread=0.4, fall=2, voices=2),
}  # fmt: skip
CLASSES = tuple(KINDS)


def corpus() -> list[Clip]:
    """Return all clips of the demo corpus, sorted by `clip_id`."""
    clips = []
    for label, name in enumerate(CLASSES):
        for fold in FOLDS:
            for recording in range(1, RECORDINGS_PER_FOLD + 1):
                group = f"{name}-f{fold}-r{recording}"
                for cut in range(1, CLIPS_PER_RECORDING + 1):
                    clip_id = f"demo-{group}-c{cut}"
                    duration_s = _clip_duration_s(name, clip_id)
                    clips.append(Clip(f"demo/{clip_id}", label, f"demo/{group}", fold, duration_s))
    return sorted(clips, key=lambda clip: clip.clip_id)


def render(clip: Clip) -> NDArray[np.float32]:
    """Return the mono samples of a clip, in [-1, 1] at `SAMPLE_RATE_HZ`. The same clip always gives the same samples."""
    group = clip.group.removeprefix("demo/")
    recording, cut = _generator(group), _generator(clip.clip_id.removeprefix("demo/"))
    n = round(clip.duration_s * SAMPLE_RATE_HZ)
    peak = _log_uniform(recording, PEAK_RANGE) * cut.uniform(0.8, 1.0)
    background_db = -recording.uniform(*SNR_RANGE_DB) - 3
    background = _noise(cut, n, recording.uniform(-6, 0))
    sound = _sound(KINDS[CLASSES[clip.label]], recording, cut, n)
    mix = sound / (sound.std() + 1e-9) + _from_db(background_db) * background
    return np.asarray(mix * (peak / np.max(np.abs(mix))), dtype=np.float32)


def _sound(kind: Kind, recording: Generator, cut: Generator, n: int) -> Signal:
    """Return one clip of a recording: events with pauses, each a tone that glides or sweeps, with noise."""
    pitch_hz, event_s, pause_s, beat_hz, sweep_hz = (
        _log_uniform(recording, bounds)
        for bounds in (kind.pitch_hz, kind.event_s, kind.pause_s, kind.beat_hz, kind.sweep_hz)
    )
    slope, noise_db, noise_slope, glide, sweep, beat = (
        recording.uniform(*bounds)
        for bounds in (kind.slope, kind.noise_db, kind.noise_slope, kind.glide, kind.sweep, kind.beat)
    )
    amplitudes = np.arange(1, MAX_HARMONICS + 1) ** -slope * np.exp(
        0.6 * recording.standard_normal(MAX_HARMONICS)
    )
    out = np.zeros(n, np.float32)
    for _ in range(kind.voices):
        voice_hz = pitch_hz * np.exp(0.3 * (kind.voices > 1) * recording.standard_normal())
        start_s = -cut.uniform(0, 0.6) * min(event_s, 0.8)
        while start_s < n / SAMPLE_RATE_HZ:
            length_s = event_s * cut.uniform(0.8, 1.25)
            time_s = np.arange(max(8, round(min(length_s, 5) * SAMPLE_RATE_HZ))) / SAMPLE_RATE_HZ
            bend = glide * (time_s / length_s - 0.5) + sweep * np.sin(
                2 * np.pi * (sweep_hz * time_s + cut.random())
            )
            f0_hz = voice_hz * np.exp(kind.spread * cut.standard_normal() + bend)
            event = _tone(cut, f0_hz, amplitudes) + _from_db(noise_db) * _noise(cut, time_s.size, noise_slope)
            event *= np.minimum(1, time_s / 0.005) * np.exp(-kind.fall * time_s / length_s)
            event *= np.minimum(1, time_s[::-1] / 0.02) * cut.uniform(0.6, 1.0)
            _add(out, event, round(start_s * SAMPLE_RATE_HZ))
            start_s += length_s + pause_s * cut.uniform(0.7, 1.4)
    time_s = np.arange(n) / SAMPLE_RATE_HZ
    return np.asarray(out * (1 + beat * np.sin(2 * np.pi * (beat_hz * time_s + cut.random()))))


def _generator(name: str) -> Generator:
    digest = hashlib.sha256(f"usk-demo/{DEMO_VERSION}/{name}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "little"))


def _clip_duration_s(class_name: str, clip_id: str) -> float:
    rng = _generator(clip_id + "/duration")
    if KINDS[class_name].is_short:
        duration_s = rng.uniform(1.0, 4.0)
    else:
        duration_s = 4.0 if rng.random() < 0.85 else rng.uniform(2.0, 4.0)
    return round(round(duration_s / DURATION_STEP_S) * DURATION_STEP_S, 1)


def _log_uniform(rng: Generator, bounds: Range) -> float:
    return float(np.exp(rng.uniform(*np.log(bounds))))


def _from_db(level_db: float) -> float:
    return float(10.0 ** (level_db / 20.0))


def _tone(rng: Generator, f0_hz: Signal, amplitudes: Signal) -> Signal:
    """Return a harmonic tone at unit level that follows `f0_hz`, without harmonics that would alias."""
    turns = np.cumsum(f0_hz) / SAMPLE_RATE_HZ + rng.random()
    count = min(amplitudes.size, max(1, int(0.48 * SAMPLE_RATE_HZ / float(f0_hz.max()))))
    bins = np.zeros(1025, np.complex128)
    bins[1 : count + 1] = amplitudes[:count] * np.exp(2j * np.pi * rng.random(amplitudes.size)[:count])
    table = np.fft.irfft(bins)
    return np.asarray(table[(turns * 2048).astype(np.int64) & 2047] / (table.std() + 1e-12), np.float32)


def _noise(rng: Generator, n: int, slope_db: float) -> Signal:
    """Return noise at unit level, between soft edges at 60 Hz and 8 kHz, with a spectral slope in dB per octave."""
    freqs_hz = np.fft.rfftfreq(n, 1 / SAMPLE_RATE_HZ)
    freqs_hz[0] = freqs_hz[1]
    shape = freqs_hz ** (slope_db / 6.02) / ((1 + (60 / freqs_hz) ** 4) * (1 + (freqs_hz / 8_000) ** 4))
    bins = rng.standard_normal(freqs_hz.size) + 1j * rng.standard_normal(freqs_hz.size)
    samples = np.fft.irfft(bins * shape, n)
    return np.asarray(samples / samples.std(), np.float32)


def _add(out: Signal, event: Signal, start: int) -> None:
    """Add an event to `out`. Parts before or after the clip are cut off."""
    event = event[max(0, -start) :]
    start = max(0, start)
    event = event[: max(0, out.size - start)]
    out[start : start + event.size] += event
