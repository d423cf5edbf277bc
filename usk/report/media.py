"""Compress sounds for a page (MP3 or Opus), and draw their mel spectrograms (WebP)."""

from __future__ import annotations

import base64
import hashlib
import io
from dataclasses import dataclass, field

import numpy as np

from usk.audio.mel import MelSettings, mel_power, stack_padded, to_db
from usk.report.canvas import magma

PICTURE = MelSettings(sample_rate_hz=22_050, n_fft=1_024, hop_samples=512, n_mels=96, n_frames=1)
RANGE_DB = 80.0
MP3_COMPRESSION = 0.7
WEBP_QUALITY, SMALL_WEBP_QUALITY = 55, 20
OPUS_RATE_HZ = 24_000
OPUS_KBPS = (7.5, 12.0)  # lowest and highest bit rate of a small preview; an MP3 has about 34
N_PEAKS = 64  # levels of a drawn waveform


@dataclass(frozen=True)
class Media:
    """One compressed sound or picture."""

    mime: str
    content: bytes = field(repr=False)

    @property
    def key(self) -> str:
        """A file name or element id, derived from the content."""
        return hashlib.sha256(self.content).hexdigest()[:16]

    @property
    def suffix(self) -> str:
        return {"audio/mpeg": "mp3", "audio/ogg": "ogg", "image/webp": "webp"}[self.mime]

    @property
    def data(self) -> str:
        return base64.b64encode(self.content).decode()


@dataclass(frozen=True)
class Sound:
    """One clip with everything that the page shows and plays."""

    clip_id: str
    class_name: str
    group: str
    fold: int
    duration_s: float
    peaks: str  # the waveform, see `waveform_peaks`
    audio: Media
    picture: Media

    @property
    def n_bytes(self) -> int:
        return len(self.audio.content) + len(self.picture.content)


def compress(audio: np.ndarray, sample_rate_hz: int, kbps: float | None = None) -> Media:
    """Compress mono audio (float [n]) as MP3, which every browser plays, or as Opus with `kbps`."""
    import soundfile
    import soxr

    buffer = io.BytesIO()
    samples = np.clip(audio, -1.0, 1.0)
    if kbps is not None:
        samples = np.clip(soxr.resample(samples, sample_rate_hz, OPUS_RATE_HZ), -1.0, 1.0)
        level = 1 - (kbps - 7) / 250  # libsndfile maps 0 to 1 to 256 down to 6 kbps; Ogg adds about one
        soundfile.write(buffer, samples, OPUS_RATE_HZ, format="OGG", subtype="OPUS", compression_level=level)
        return Media("audio/ogg", buffer.getvalue())
    mp3 = {"format": "MP3", "subtype": "MPEG_LAYER_III", "bitrate_mode": "VARIABLE"}
    soundfile.write(buffer, samples, sample_rate_hz, **mp3, compression_level=MP3_COMPRESSION)
    return Media("audio/mpeg", buffer.getvalue())


def waveform_peaks(audio: np.ndarray) -> str:
    """Encode the waveform of mono audio (float [n]): the square roots of `N_PEAKS` peak levels as digits in base 36."""
    parts = np.array_split(np.abs(audio), N_PEAKS)
    return "".join(
        np.base_repr(round(35 * min(1.0, float(part.max(initial=0.0))) ** 0.5), 36) for part in parts
    )


def decibels(audio: np.ndarray) -> np.ndarray:
    """Return the log-mel power of a clip, lowest band first: [96, frames]."""
    n_samples = max(len(audio), PICTURE.n_fft)
    return to_db(mel_power(stack_padded([audio], n_samples), PICTURE))[0].numpy()


def draw_spectrogram(audio: np.ndarray, loudest_db: float, small: bool = False) -> Media:
    """Draw the mel spectrogram as WebP. The color scale ends at `loudest_db` and covers `RANGE_DB`."""
    from PIL import Image

    values = np.clip((decibels(audio)[::-1] - loudest_db) / RANGE_DB + 1, 0.0, 1.0)
    buffer = io.BytesIO()
    Image.fromarray(magma(values)).save(
        buffer, format="WEBP", quality=SMALL_WEBP_QUALITY if small else WEBP_QUALITY, method=4
    )
    return Media("image/webp", buffer.getvalue())
