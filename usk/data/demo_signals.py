"""Building blocks of the demo corpus: tones, noise, envelopes, and start times of events. Pure."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

SAMPLE_RATE_HZ = 22_050
TABLE_SIZE = 2048

Signal = NDArray[np.floating[Any]]


def log_uniform(rng: Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def from_db(level_db: float) -> float:
    return float(10.0 ** (level_db / 20.0))


def unit_level(x: Signal) -> Signal:
    """Scale the signal so that its RMS is one, without the pauses between events."""
    frame = SAMPLE_RATE_HZ // 50
    power = np.mean(np.square(x[: x.size // frame * frame].reshape(-1, frame)), axis=1)
    active = power[power > 0.06 * power.max()]
    return x / np.float32(np.sqrt(active.mean()) + 1e-9)


def n_samples(duration_s: float) -> int:
    return max(8, round(duration_s * SAMPLE_RATE_HZ))


def times_s(n: int) -> Signal:
    return np.arange(n, dtype=np.float32) / np.float32(SAMPLE_RATE_HZ)


def wander(rng: Generator, n: int, rate_hz: float) -> Signal:
    """Return a smooth random curve around zero, with `rate_hz` random points per second."""
    points = rng.standard_normal(int(n / SAMPLE_RATE_HZ * rate_hz) + 2)
    return np.interp(np.linspace(0, points.size - 1, n), np.arange(points.size), points).astype(np.float32)


def decay(n: int, time_s: float, attack_s: float = 0.002) -> Signal:
    t = times_s(n)
    return np.asarray(np.exp(-t / np.float32(time_s)) * np.minimum(1, t / np.float32(attack_s)))


def swell(n: int, attack_s: float, release_s: float) -> Signal:
    t = times_s(n)
    return np.asarray(np.clip(np.minimum(t / np.float32(attack_s), t[::-1] / np.float32(release_s)), 0, 1))


def harmonic_amplitudes(rng: Generator, count: int, slope: float, roughness: float = 0.4) -> Signal:
    """Return harmonic amplitudes that fall as `1 / k**slope`, with random deviations."""
    return np.arange(1, count + 1) ** -slope * np.exp(roughness * rng.standard_normal(count))


def resonances(freqs_hz: Signal, centers_hz: list[float], width: float) -> Signal:
    gains = [1 / (1 + ((freqs_hz - center) / (width * center)) ** 2) for center in centers_hz]
    return np.asarray(0.03 + np.sum(gains, axis=0))


def tone(rng: Generator, f0_hz: Signal, amplitudes: Signal) -> Signal:
    """Return a harmonic tone that follows `f0_hz`, without harmonics that would alias."""
    count = min(amplitudes.size, max(1, int(0.48 * SAMPLE_RATE_HZ / float(f0_hz.max()))))
    bins = np.zeros(TABLE_SIZE // 2 + 1, dtype=np.complex128)
    bins[1 : count + 1] = amplitudes[:count] * np.exp(2j * np.pi * rng.random(amplitudes.size)[:count])
    table = np.fft.irfft(bins)
    table = (table / (table.std() + 1e-12)).astype(np.float32)
    turns = np.cumsum(f0_hz, dtype=np.float64) * (TABLE_SIZE / SAMPLE_RATE_HZ) + rng.random() * TABLE_SIZE
    return np.asarray(table[turns.astype(np.int64) & (TABLE_SIZE - 1)])


def noise(rng: Generator, n: int, slope_db: float, low_hz: float, high_hz: float) -> Signal:
    """Return noise at unit RMS with a spectral slope in dB per octave, between two soft band edges."""
    freqs_hz = np.fft.rfftfreq(n, 1 / SAMPLE_RATE_HZ).astype(np.float32)
    freqs_hz[0] = freqs_hz[1]
    shape = freqs_hz ** np.float32(slope_db / 6.02)
    shape /= (1 + (low_hz / freqs_hz) ** 4) * (1 + (freqs_hz / high_hz) ** 4)
    bins = rng.standard_normal((2, freqs_hz.size), dtype=np.float32)
    x = np.fft.irfft((bins[0] + 1j * bins[1]) * shape, n)
    return np.asarray((x / x.std()).astype(np.float32))


def add_event(out: Signal, event: Signal, start: int) -> None:
    """Add an event to `out`. Parts before or after the clip are cut off."""
    event = event[max(0, -start) :]
    start = max(0, start)
    event = event[: max(0, out.size - start)]
    out[start : start + event.size] += event


def event_starts(cut: Generator, n: int, period_s: float, jitter: float) -> list[int]:
    """Return roughly periodic start samples that cover the clip, from a random phase."""
    starts, now_s = [], cut.uniform(0, 0.6) * min(period_s, 0.8)
    while now_s < n / SAMPLE_RATE_HZ - 0.05:
        starts.append(int(now_s * SAMPLE_RATE_HZ))
        now_s += period_s * float(np.exp(jitter * cut.standard_normal()))
    return starts


def work_and_rest(cut: Generator, n: int, work_s: float, rest_s: float, floor: float) -> Signal:
    """Return a tool's load: one while it works and `floor` while it rests, with short ramps."""
    load = np.full(n, floor, dtype=np.float32)
    now_s = -cut.uniform(0, 0.7) * work_s
    while now_s < n / SAMPLE_RATE_HZ:
        length_s = work_s * cut.uniform(0.6, 1.4)
        burst = swell(n_samples(length_s), 0.06, 0.12)
        add_event(load, (1 - floor) * burst, int(now_s * SAMPLE_RATE_HZ))
        now_s += length_s + rest_s * cut.uniform(0.5, 1.5)
    return load
