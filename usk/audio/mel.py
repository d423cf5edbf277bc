"""Audio to mel image, batched.

A mel image is what audio-diffusion models draw: log-mel power in dB below the clip's loudest bin (`reference_db`), floored at
`top_db` below it and mapped to [-1, 1].
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
import torchaudio

from usk.audio.mel_settings import MelSettings as MelSettings

SILENCE_POWER = 1e-10  # librosa.power_to_db's amin


@lru_cache(maxsize=8)
def mel_filterbank(settings: MelSettings) -> torch.Tensor:
    """librosa's Slaney mel filters, shape [n_fft // 2 + 1, n_mels], float32 on the CPU."""
    return torchaudio.functional.melscale_fbanks(
        n_freqs=settings.n_fft // 2 + 1,
        f_min=0.0,
        f_max=settings.sample_rate_hz / 2,
        n_mels=settings.n_mels,
        sample_rate=settings.sample_rate_hz,
        norm="slaney",
        mel_scale="slaney",
    )


def stack_padded(audio: Sequence[np.ndarray], n_samples: int) -> torch.Tensor:
    """Clips cut or padded with silence to one length, as audiodiffusion does: float32 [len(audio), n_samples]."""
    batch = torch.zeros(len(audio), n_samples)
    for row, samples in zip(batch, audio, strict=True):
        kept = min(len(samples), n_samples)
        row[:kept] = torch.from_numpy(np.ascontiguousarray(samples[:kept], dtype=np.float32))
    return batch


def mel_power(audio: torch.Tensor, settings: MelSettings) -> torch.Tensor:
    """Mel power spectrogram of `audio` [..., n_samples]: [..., n_mels, frames], equal to librosa's to 3e-6."""
    window = torch.hann_window(settings.n_fft, device=audio.device)
    spectrum = torch.stft(
        audio,
        settings.n_fft,
        settings.hop_samples,
        window=window,
        center=True,
        pad_mode="constant",
        return_complex=True,
    )
    power = spectrum.real.square() + spectrum.imag.square()
    return (power.transpose(-1, -2) @ mel_filterbank(settings).to(audio.device)).transpose(-1, -2)


def to_db(power: torch.Tensor) -> torch.Tensor:
    """10 log10(power), floored at librosa's -100 dB."""
    return 10.0 * torch.log10(power.clamp_min(SILENCE_POWER))


def audio_to_image(audio: torch.Tensor, settings: MelSettings) -> tuple[torch.Tensor, torch.Tensor]:
    """Audio [batch, image_samples] to mel images [batch, 1, n_mels, n_frames] in [-1, 1] and their maxima in dB [batch].

    Equal to audiodiffusion's `Mel.audio_slice_to_image` before its rounding to 8 bits. A silent clip gives an
    image of -1 everywhere (audiodiffusion gives +1: its reference is then the floor itself).
    """
    log_mel = to_db(mel_power(audio, settings))
    reference_db = log_mel.amax(dim=(-2, -1))
    below_db = (log_mel - reference_db[:, None, None]).clamp_min(-settings.top_db)
    image = below_db / settings.top_db * 2.0 + 1.0
    silent = reference_db <= 10.0 * float(np.log10(SILENCE_POWER))
    image[silent] = -1.0
    return image[:, None], reference_db


def image_to_power(image: torch.Tensor, settings: MelSettings) -> torch.Tensor:
    """Mel images [batch, 1, n_mels, n_frames] in [-1, 1] to mel power [batch, n_mels, n_frames], loudest bin 1."""
    decibels = (image[:, 0].clamp(-1.0, 1.0) - 1.0) / 2.0 * settings.top_db
    return torch.pow(10.0, decibels / 10.0)
