"""Short sounds and small settings for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import soundfile


def tone(
    frequency_hz: float, duration_s: float, sample_rate_hz: int = 22_050, peak: float = 0.5
) -> np.ndarray:
    """A sine, float32 [n]."""
    t = np.arange(round(duration_s * sample_rate_hz)) / sample_rate_hz
    return (peak * np.sin(2 * np.pi * frequency_hz * t)).astype(np.float32)


def peak_hz(samples: np.ndarray, sample_rate_hz: int) -> float:
    """Where the spectrum is highest, to about half a bin of a spectrum padded to 4 s."""
    n = 4 * sample_rate_hz
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples)), n))
    return float(spectrum.argmax()) * sample_rate_hz / n


def write_wav(path: Path, samples: np.ndarray, sample_rate_hz: int = 22_050, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, sample_rate_hz, **options)
    return path


TONES_HZ = {"low": 300.0, "middle": 900.0, "high": 2700.0}


URBAN_CLASSES = {
    1: "car_horn",
    3: "dog_bark",
    8: "siren",
}  # the official numbers, which need not be contiguous


TINY_MEL = {"x_res": 32, "y_res": 16, "sample_rate": 8_000, "n_fft": 512, "hop_length": 128, "top_db": 80}
