"""Compute the demo corpus: procedural sounds named after the ten classes of UrbanSound8K.

Each clip is computed from its name and the name of its recording, so that usk can be tried and tested without a download. A
score on this corpus says nothing about real street sound.

A recording (`group`) lies in one fold and has its own pitch, tempo, timbre, room, microphone, background and loudness. Its clips
differ in timing and small variations. Classes overlap on purpose, and many recordings have another class in the background.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from usk.data.clip import Clip
from usk.data.demo_signals import (
    SAMPLE_RATE_HZ,
    Signal,
    add_event,
    decay,
    event_starts,
    from_db,
    harmonic_amplitudes,
    log_uniform,
    n_samples,
    noise,
    resonances,
    swell,
    times_s,
    tone,
    unit_level,
    wander,
    work_and_rest,
)

DEMO_VERSION = "1"
FOLDS = (1, 2, 3)
RECORDINGS_PER_FOLD = 6
CLIPS_PER_RECORDING = 3

# Lower SNR, and more or louder distractors, make the corpus harder.
SNR_RANGE_DB = (0.0, 26.0)
DISTRACTOR_PROBABILITY = 0.5
DISTRACTOR_RANGE_DB = (-24.0, -8.0)
PEAK_RANGE = (0.03, 0.9)

_SHORT_CLASSES = ("car_horn", "dog_bark", "gun_shot")
_DURATION_STEP_S = 0.1  # keeps sample counts at multiples of 2205, which transform quickly
_ROOM_TAIL_S = 0.5


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
    peak = log_uniform(recording, *PEAK_RANGE) * cut.uniform(0.8, 1.0)
    sound = unit_level(_SYNTHESIZERS[CLASSES[clip.label]](recording, cut, n))
    # A random generator of its own, since synthesizers draw different numbers of values from the recording's.
    scene = _generator(group + "/scene")
    sound = sound + _distractor(scene, cut, n, clip.label)
    sound = _through_room(scene, cut, sound)
    snr_db = scene.uniform(*SNR_RANGE_DB) + cut.uniform(-1.5, 1.5)
    mix = unit_level(sound) + from_db(-snr_db) * _background(scene, cut, n)
    return np.asarray(mix * (peak / np.max(np.abs(mix))), dtype=np.float32)


# --- seeds and lengths -------------------------------------------------------------------------------


def _generator(name: str) -> Generator:
    digest = hashlib.sha256(f"usk-demo/{DEMO_VERSION}/{name}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "little"))


def _clip_duration_s(class_name: str, clip_id: str) -> float:
    rng = _generator(clip_id + "/duration")
    if class_name in _SHORT_CLASSES:
        duration_s = rng.uniform(1.0, 4.0)
    else:
        duration_s = 4.0 if rng.random() < 0.85 else rng.uniform(2.0, 4.0)
    return round(round(duration_s / _DURATION_STEP_S) * _DURATION_STEP_S, 1)


# --- the ten classes: each takes the recording's generator, the clip's, and the number of samples ----------


def _air_conditioner(recording: Generator, cut: Generator, n: int) -> Signal:
    hum_hz = log_uniform(recording, 25, 240) * cut.uniform(0.99, 1.01)
    amplitudes = harmonic_amplitudes(recording, 24, recording.uniform(0.6, 2.0), 0.9)
    hum_level = from_db(recording.uniform(-18, 6))
    slope_db, high_hz = recording.uniform(-7, -1), log_uniform(recording, 600, 7000)
    flutter_hz, flutter = log_uniform(recording, 0.5, 15), recording.uniform(0.02, 0.5)
    hum = tone(cut, hum_hz * (1 + 0.004 * wander(cut, n, 2)), amplitudes)
    air = noise(cut, n, slope_db, 60, high_hz)
    beat = 1 + flutter * np.sin(2 * np.pi * (flutter_hz * times_s(n) + cut.random()))
    return np.asarray((hum_level * hum + air * (1 + 0.1 * wander(cut, n, 1.5))) * beat.astype(np.float32))


def _car_horn(recording: Generator, cut: Generator, n: int) -> Signal:
    low_hz = log_uniform(recording, 260, 620)
    ratio = recording.choice([1.0, 1.189, 1.26, 1.335])
    honk_s, gap_s = log_uniform(recording, 0.12, 2.0), log_uniform(recording, 0.12, 1.2)
    slope, bend = recording.uniform(0.1, 1.1), recording.uniform(-0.03, 0.03)
    spectra = [harmonic_amplitudes(recording, 30, slope, 0.7) for _ in range(2)]
    out = np.zeros(n, dtype=np.float32)
    for start in event_starts(cut, n, honk_s + gap_s, 0.25):
        length = n_samples(honk_s * cut.uniform(0.7, 1.3))
        drift = 1 + np.float32(bend) * np.linspace(-1, 1, length, dtype=np.float32)
        honk = tone(cut, low_hz * drift, spectra[0]) + tone(cut, low_hz * ratio * drift, spectra[1])
        add_event(out, honk * swell(length, 0.02, 0.05), start)
    return out


def _voice(rng: Generator, pitch_hz: float, glide: float, length_s: float, tract: float) -> Signal:
    """Return one sung, spoken or shouted syllable: glottal harmonics, filtered by the formants of a random vowel."""
    n = n_samples(length_s)
    formants_hz = [tract * float(rng.uniform(*band)) for band in ((350, 950), (1000, 2400), (2600, 3400))]
    harmonics_hz = pitch_hz * np.arange(1, 40)
    amplitudes = resonances(harmonics_hz, formants_hz, 0.12) * harmonics_hz**-0.7
    bend = np.linspace(-0.5, 0.5, n, dtype=np.float32)
    vibrato = 1 + np.float32(0.015) * np.sin(2 * np.pi * rng.uniform(4, 8) * times_s(n))
    f0_hz = pitch_hz * np.exp(np.float32(glide) * bend) * vibrato
    voiced = tone(rng, f0_hz, amplitudes) + 0.15 * rng.standard_normal(n, dtype=np.float32)
    return voiced * swell(n, 0.25 * length_s, 0.4 * length_s)


def _children_playing(recording: Generator, cut: Generator, n: int) -> Signal:
    voices = int(recording.integers(2, 8))
    syllable_s, rest_s = log_uniform(recording, 0.12, 0.45), log_uniform(recording, 0.1, 0.9)
    center_hz, shout = log_uniform(recording, 260, 520), recording.uniform(0.05, 0.5)
    out = np.zeros(n, dtype=np.float32)
    for _ in range(voices):
        pitch_hz, distance = center_hz * log_uniform(cut, 0.75, 1.4), from_db(cut.uniform(-16, 0))
        for start in event_starts(cut, n, syllable_s + rest_s, 0.5):
            loud = cut.random() < shout
            length_s = syllable_s * cut.uniform(0.6, 1.4) * (1.8 if loud else 1.0)
            pitch = pitch_hz * cut.uniform(0.85, 1.25) * (1.5 if loud else 1.0)
            syllable = _voice(cut, pitch, cut.normal(0, 0.3), length_s, 1.2)
            add_event(out, distance * (2.0 if loud else 1.0) * syllable, start)
    return out


def _dog_bark(recording: Generator, cut: Generator, n: int) -> Signal:
    pitch_hz, fall = log_uniform(recording, 180, 900), recording.uniform(0.2, 1.0)
    bark_s, period_s = log_uniform(recording, 0.06, 0.3), log_uniform(recording, 0.25, 1.2)
    breath = from_db(recording.uniform(-14, 4))
    formants_hz = [log_uniform(recording, 400, 1100), log_uniform(recording, 1200, 3000)]
    amplitudes = resonances(pitch_hz * np.arange(1, 30), formants_hz, 0.3)
    out = np.zeros(n, dtype=np.float32)
    for start in event_starts(cut, n, period_s + bark_s, 0.35):
        length = n_samples(bark_s * cut.uniform(0.8, 1.3))
        x = np.linspace(0, 1, length, dtype=np.float32)
        contour = np.sin(np.pi * np.minimum(1, 0.25 + x)) * np.float32(fall)
        f0_hz = np.float32(pitch_hz * cut.uniform(0.9, 1.1)) * np.exp(contour - np.float32(0.7 * fall))
        bark = tone(cut, f0_hz, amplitudes) + breath * noise(cut, length, -3, 300, 5000)
        add_event(out, cut.uniform(0.6, 1.0) * bark * swell(length, 0.012, 0.7 * bark_s) ** 1.5, start)
    return out


def _drilling(recording: Generator, cut: Generator, n: int) -> Signal:
    whine_hz = log_uniform(recording, 70, 800)
    amplitudes = harmonic_amplitudes(recording, 40, recording.uniform(0.2, 1.3), 0.9)
    sag, rest_level = recording.uniform(0.02, 0.3), from_db(recording.uniform(-30, -6))
    work_s, rest_s = log_uniform(recording, 0.8, 8), log_uniform(recording, 0.1, 1.0)
    noise_level, slope_db = from_db(recording.uniform(-10, 10)), recording.uniform(-3, 3)
    hammer_hz, hammer = log_uniform(recording, 12, 60), recording.choice([0.0, 0.0, 0.5, 0.9])
    load = work_and_rest(cut, n, work_s, rest_s, rest_level)
    f0_hz = whine_hz * (1 - np.float32(sag) * load) * (1 + 0.01 * wander(cut, n, 12))
    blows = np.cumsum(hammer_hz * (1 + 0.05 * wander(cut, n, 5))) / SAMPLE_RATE_HZ
    teeth = 1 + hammer * np.sin(2 * np.pi * blows)
    grind = noise_level * noise(cut, n, slope_db, 300, log_uniform(recording, 2500, 9000))
    sound = tone(cut, f0_hz, amplitudes) * (0.3 + load) + grind * load
    return np.asarray(sound * teeth.astype(np.float32))


def _engine_idling(recording: Generator, cut: Generator, n: int) -> Signal:
    cylinders = int(recording.choice([1, 2, 3, 4, 6, 8]))
    cycle_hz = log_uniform(recording, 450, 1500) / 120 * cut.uniform(0.97, 1.03)
    unevenness, slope = recording.uniform(0.05, 0.5), recording.uniform(0.5, 1.5)
    orders = np.arange(1, 200)
    strength = np.where(orders % cylinders == 0, 1.0, unevenness) * orders**-slope
    exhaust_hz = [log_uniform(recording, 50, 200), log_uniform(recording, 200, 1500)]
    amplitudes = strength * resonances(cycle_hz * orders, exhaust_hz, 0.5)
    amplitudes = amplitudes * harmonic_amplitudes(recording, orders.size, 0.0, 0.5)
    hiss_level, slope_db = from_db(recording.uniform(-22, 4)), recording.uniform(-7, -1)
    roughness = recording.uniform(0.1, 0.5)
    jitter = 1 + 0.012 * wander(cut, n, cycle_hz) + 0.02 * wander(cut, n, 1)
    firing = tone(cut, cycle_hz * jitter, amplitudes)
    hiss = noise(cut, n, slope_db, 80, log_uniform(recording, 800, 6000)) * (0.5 + np.abs(firing))
    return (firing + hiss_level * hiss) * (1 + roughness * 0.4 * wander(cut, n, cycle_hz * 2))


def _gun_shot(recording: Generator, cut: Generator, n: int) -> Signal:
    blast_s, tail_s = log_uniform(recording, 0.008, 0.08), log_uniform(recording, 0.1, 0.6)
    period_s, tail_level = log_uniform(recording, 0.15, 2.5), from_db(recording.uniform(-25, -6))
    high_hz, slope_db = log_uniform(recording, 1500, 9000), recording.uniform(-6, 0)
    thump_hz = log_uniform(recording, 50, 200)
    out = np.zeros(n, dtype=np.float32)
    for start in event_starts(cut, n, period_s, 0.3)[:6]:
        length = n_samples(min(1.5, 4 * tail_s))
        thump = np.sin(2 * np.pi * thump_hz * times_s(length)) * decay(length, 0.03)
        blast = noise(cut, length, slope_db, 80, high_hz) * decay(length, blast_s, 0.0005)
        tail = noise(cut, length, slope_db - 4, 60, 0.4 * high_hz) * decay(length, tail_s, 0.02)
        add_event(out, cut.uniform(0.7, 1.0) * (blast + 0.6 * thump + tail_level * tail), start)
    return out


def _jackhammer(recording: Generator, cut: Generator, n: int) -> Signal:
    rate_hz, steel_hz = log_uniform(recording, 8, 30), log_uniform(recording, 250, 3500)
    ring_s, ring = log_uniform(recording, 0.004, 0.04), from_db(recording.uniform(-12, 6))
    work_s, rest_s = log_uniform(recording, 1, 10), log_uniform(recording, 0.1, 0.8)
    compressor_hz, compressor = log_uniform(recording, 20, 120), from_db(recording.uniform(-26, -4))
    slope_db, looseness = recording.uniform(-6, 1), recording.uniform(0.01, 0.12)
    length = n_samples(min(0.2, 6 * ring_s))
    debris = noise(recording, length, slope_db, 100, 8000) * decay(length, ring_s * 0.7, 0.001)
    modes = [np.sin(2 * np.pi * steel_hz * k * times_s(length)) for k in (1.0, 1.63, 2.71)]
    hit = (debris + ring * np.sum(modes, axis=0) * decay(length, ring_s)).astype(np.float32)
    out = np.zeros(n, dtype=np.float32)
    for start in event_starts(cut, n, 1 / rate_hz, looseness):
        add_event(out, cut.uniform(0.6, 1.1) * hit, start)
    out *= work_and_rest(cut, n, work_s, rest_s, 0.0)
    out = unit_level(out) + 0.15 * noise(cut, n, slope_db, 200, 6000)
    drone_hz = compressor_hz * (1 + 0.01 * wander(cut, n, 8))
    return out + compressor * tone(cut, drone_hz, harmonic_amplitudes(recording, 40, 1.0))


def _siren(recording: Generator, cut: Generator, n: int) -> Signal:
    kind = recording.choice(["wail", "yelp", "hi-lo", "rise"])
    low_hz = log_uniform(recording, 300, 900)
    span, slope = recording.uniform(0.15, 1.1), recording.uniform(0.5, 2.0)
    rates_hz = {"wail": (0.1, 0.4), "yelp": (1.5, 5.0), "hi-lo": (0.4, 1.2), "rise": (0.05, 0.15)}
    rate_hz, doppler = log_uniform(recording, *rates_hz[str(kind)]), recording.uniform(-0.04, 0.04)
    amplitudes = harmonic_amplitudes(recording, 16, slope, 0.6)
    phase = rate_hz * times_s(n) + np.float32(cut.random())
    sweep = 0.5 - 0.5 * np.cos(2 * np.pi * phase)
    if kind == "hi-lo":
        sweep = (np.sin(2 * np.pi * phase) > 0).astype(np.float32)
        span *= 0.45
    f0_hz = low_hz * np.exp(np.float32(span) * sweep + np.linspace(-doppler, doppler, n, dtype=np.float32))
    return tone(cut, f0_hz.astype(np.float32), amplitudes) * (1 + 0.2 * wander(cut, n, 3))


def _street_music(recording: Generator, cut: Generator, n: int) -> Signal:
    root_hz, beat_s = log_uniform(recording, 110, 440), log_uniform(recording, 0.14, 0.5)
    scale = recording.choice([[0, 2, 4, 7, 9, 12], [0, 3, 5, 7, 10, 12], [0, 2, 3, 7, 8, 12]])
    ring_s, slope = log_uniform(recording, 0.1, 1.0), recording.uniform(0.7, 2.0)
    drone, drum = from_db(recording.uniform(-40, 0)), from_db(recording.uniform(-30, 3))
    singing, blown = recording.random() < 0.35, recording.random() < 0.35
    spectrum = harmonic_amplitudes(recording, 24, slope, 0.6)
    amplitudes = [spectrum, spectrum * np.arange(1, 25) ** -1.2]
    out = drone * tone(cut, np.full(n, root_hz / 2, dtype=np.float32), amplitudes[1])
    for beat, start in enumerate(event_starts(cut, n, beat_s, 0.03)):
        if cut.random() < 0.8:
            note_hz = root_hz * 2 ** (float(cut.choice(scale)) / 12)
            length = n_samples(min(1.2, 3 * ring_s) if not blown else beat_s * cut.uniform(0.8, 2.0))
            pitch = np.full(length, note_hz, dtype=np.float32)
            bright, dull = (tone(cut, pitch, spectrum) for spectrum in amplitudes)
            plucked = bright * decay(length, 0.3 * ring_s) + dull * decay(length, ring_s)
            note = dull * swell(length, 0.05, 0.1) if blown else plucked
            add_event(out, cut.uniform(0.5, 1.0) * note, start)
        if singing and cut.random() < 0.5:
            sung_hz = root_hz * 2 ** (float(cut.choice(scale)) / 12)
            add_event(out, _voice(cut, sung_hz, 0.05, 1.5 * beat_s, 1.0), start)
        if beat % 2 == 0:
            length = n_samples(0.12)
            add_event(out, drum * noise(cut, length, -2, 80, 7000) * decay(length, 0.03), start)
    return out


_SYNTHESIZERS: dict[str, Callable[[Generator, Generator, int], Signal]] = {
    "air_conditioner": _air_conditioner,
    "car_horn": _car_horn,
    "children_playing": _children_playing,
    "dog_bark": _dog_bark,
    "drilling": _drilling,
    "engine_idling": _engine_idling,
    "gun_shot": _gun_shot,
    "jackhammer": _jackhammer,
    "siren": _siren,
    "street_music": _street_music,
}
CLASSES = tuple(_SYNTHESIZERS)


# --- the scene around the sound ----------------------------------------------------------------------------


def _distractor(scene: Generator, cut: Generator, n: int, label: int) -> Signal:
    """Return another class at a low level, or silence in about half of the recordings."""
    present = scene.random() < DISTRACTOR_PROBABILITY
    other = (label + int(scene.integers(1, len(CLASSES)))) % len(CLASSES)
    level_db = scene.uniform(*DISTRACTOR_RANGE_DB)
    own = np.random.default_rng(int(scene.integers(2**62)))
    if not present:
        return np.zeros(n, dtype=np.float32)
    return from_db(level_db) * unit_level(_SYNTHESIZERS[CLASSES[other]](own, cut, n))


def _through_room(scene: Generator, cut: Generator, x: Signal) -> Signal:
    """Apply a tilt equalizer, a microphone's band, and in about half of the recordings the reverberation of a room."""
    tilt_db, low_hz = scene.uniform(-4, 4), log_uniform(scene, 20, 250)
    high_hz, wet = log_uniform(scene, 2500, 12_000), from_db(scene.uniform(-20, 3))
    reverberant, decay_s = scene.random() < 0.5, log_uniform(scene, 0.03, 0.2)
    size = x.size + n_samples(_ROOM_TAIL_S)
    freqs_hz = np.fft.rfftfreq(size, 1 / SAMPLE_RATE_HZ).astype(np.float32)
    freqs_hz[0] = freqs_hz[1]
    response = (freqs_hz / 1000) ** np.float32(tilt_db / 6.02)
    response /= (1 + (low_hz / freqs_hz) ** 2) * (1 + (freqs_hz / high_hz) ** 4)
    bins = np.fft.rfft(x, size) * response
    if reverberant:
        length = n_samples(_ROOM_TAIL_S)
        tail = scene.standard_normal(length, dtype=np.float32) * decay(length, decay_s, 0.005)
        bins *= 1 + wet * np.fft.rfft(tail / np.sqrt(np.sum(tail**2)), size)
    return np.fft.irfft(bins, size)[: x.size].astype(np.float32)


def _background(scene: Generator, cut: Generator, n: int) -> Signal:
    """Return the background: white, pink or brown noise, hum, or a crowd."""
    kind = scene.choice(["white", "pink", "brown", "hum", "crowd"])
    slope_db = {"white": 0.0, "pink": -3.0, "brown": -6.0, "hum": -4.0, "crowd": -3.0}[str(kind)]
    bed = noise(cut, n, slope_db + scene.uniform(-1, 1), 30, log_uniform(scene, 4000, 15_000))
    bed *= 1 + 0.15 * wander(cut, n, 1.0)
    own = np.random.default_rng(int(scene.integers(2**62)))
    if kind == "hum":
        hum_hz = np.full(n, own.choice([50.0, 60.0, 100.0, 120.0]), dtype=np.float32)
        bed += tone(cut, hum_hz, harmonic_amplitudes(own, 12, 1.0, 0.8))
    elif kind == "crowd":
        bed = 0.7 * bed + 0.8 * unit_level(_children_playing(own, cut, n))
    return unit_level(bed)
