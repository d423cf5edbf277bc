"""Mel image to audio: multiplicative mel inverse, then fast Griffin-Lim, both batched on the image's device.

Each image is inverted with the phase of its own seed, so that a clip does not depend on its neighbours in a batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from usk.mel.spectrogram import MelSettings, image_to_power, mel_filterbank


def mel_to_linear_power(mel: torch.Tensor, settings: MelSettings, n_updates: int = 10) -> torch.Tensor:
    """Non-negative linear power [batch, n_fft // 2 + 1, frames] whose mel is `mel` [batch, n_mels, frames].

    Multiplicative updates for the generalised Kullback-Leibler divergence (Lee & Seung, "Algorithms for
    non-negative matrix factorization", 2001, eq. 5) of the mel filter bank times the unknown, started from its
    transpose. Bins that no filter covers stay zero.
    """
    filters = mel_filterbank(settings).to(mel.device)  # [bins, mels]
    weight = filters.sum(dim=1)[None, :, None].clamp_min(1e-12)
    covered = (filters.sum(dim=1) > 0)[None, :, None]
    spread = filters / filters.sum(dim=0, keepdim=True).clamp_min(1e-12)
    linear = (spread @ mel).clamp_min(1e-12)
    for _ in range(n_updates):
        ratio = mel / (filters.T @ linear).clamp_min(1e-12)
        linear = linear * (filters @ ratio) / weight
    return linear * covered


def griffin_lim(
    magnitude: torch.Tensor,
    settings: MelSettings,
    seeds: Sequence[int],
    n_iterations: int = 16,
    momentum: float = 0.99,
) -> torch.Tensor:
    """Audio [batch, (frames - 1) * hop] whose STFT magnitude is close to `magnitude` [batch, bins, frames].

    Fast Griffin-Lim (Perraudin, Balazs & Sondergaard 2013), as torchaudio does it, but with each item's initial
    phase drawn from its own seed.
    """
    window = torch.hann_window(settings.n_fft, device=magnitude.device)
    start = torch.stack(
        [
            torch.rand(magnitude.shape[1:], generator=torch.Generator().manual_seed(int(seed)))
            for seed in seeds
        ]
    ).to(magnitude.device)
    angles = torch.polar(torch.ones_like(magnitude), 2 * torch.pi * start)
    previous = torch.zeros_like(angles)
    step = momentum / (1 + momentum)
    n_samples = (magnitude.shape[-1] - 1) * settings.hop_samples
    for _ in range(n_iterations):
        audio = torch.istft(
            magnitude * angles, settings.n_fft, settings.hop_samples, window=window, length=n_samples
        )
        rebuilt = torch.stft(
            audio,
            settings.n_fft,
            settings.hop_samples,
            window=window,
            center=True,
            pad_mode="constant",
            return_complex=True,
        )
        angles = rebuilt - step * previous
        angles = angles / angles.abs().clamp_min(1e-16)
        previous = rebuilt
    return torch.istft(
        magnitude * angles, settings.n_fft, settings.hop_samples, window=window, length=n_samples
    )


def image_to_audio(
    image: torch.Tensor, settings: MelSettings, seeds: Sequence[int], n_iterations: int = 16
) -> torch.Tensor:
    """Mel images [batch, 1, n_mels, n_frames] to audio [batch, (n_frames - 1) * hop], loudest mel bin at 0 dB."""
    linear = mel_to_linear_power(image_to_power(image, settings), settings)
    return griffin_lim(linear.sqrt(), settings, seeds, n_iterations)


def log_mel_error_db(image_a: torch.Tensor, image_b: torch.Tensor, settings: MelSettings) -> torch.Tensor:
    """Mean absolute log-mel difference in dB of two batches of images [batch, 1, n_mels, frames]: [batch]."""
    return (image_a - image_b).abs().mean(dim=(1, 2, 3)) * settings.top_db / 2.0
