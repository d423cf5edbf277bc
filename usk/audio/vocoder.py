"""Mel image to audio, batched on the image's device.

`filter_source` keeps the phase and fine structure of a sound that is at hand. `image_to_audio` inverts the mel filters, then
finds a phase by fast Griffin-Lim, from one of each image's own seed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import torch

from usk.audio.mel import MelSettings, audio_to_image, image_to_power, mel_filterbank
from usk.device import to_device

GAIN_LIMIT_DB = 30.0  # of a filtered source; more would amplify what is hardly there


def mel_to_linear_power(mel: torch.Tensor, settings: MelSettings, n_updates: int = 10) -> torch.Tensor:
    """Non-negative linear power [batch, n_fft // 2 + 1, frames] whose mel is `mel` [batch, n_mels, frames].

    Multiplicative updates for the generalized Kullback-Leibler divergence (Lee & Seung, "Algorithms for
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
    draws = [torch.Generator().manual_seed(int(seed)) for seed in seeds]
    start = torch.stack([torch.rand(magnitude.shape[1:], generator=draw) for draw in draws])
    start = to_device(start, magnitude.device)
    # One at a time on a CPU: an item's spectrogram stays in the cache over all iterations.
    items = 1 if magnitude.device.type == "cpu" else len(magnitude)
    parts = zip(magnitude.split(items), start.split(items), strict=True)
    return torch.cat([_griffin_lim(*part, settings, n_iterations, momentum) for part in parts])


def _griffin_lim(
    magnitude: torch.Tensor, start: torch.Tensor, settings: MelSettings, n_iterations: int, momentum: float
) -> torch.Tensor:
    """`griffin_lim` of one batch from phases `start` [batch, bins, frames], as shares of a turn.

    Frames lie along the last axis, where `torch.stft` and `torch.istft` transpose them back and forth.
    """
    magnitude = magnitude.transpose(1, 2).contiguous()
    frames = _Frames(settings, magnitude.shape[1], magnitude.device)
    spectrum = torch.polar(magnitude, 2 * torch.pi * start.transpose(1, 2).contiguous())
    previous = None
    step = momentum / (1 + momentum)
    for _ in range(n_iterations):
        rebuilt = frames.spectrum(frames.audio(spectrum))
        ahead = rebuilt if previous is None else torch.sub(rebuilt, previous, alpha=step)
        real, imaginary = torch.view_as_real(ahead).unbind(-1)
        scale = torch.addcmul(real * real, imaginary, imaginary).clamp_min_(1e-32).rsqrt_().mul_(magnitude)
        spectrum = torch.complex(real * scale, imaginary * scale)
        previous = rebuilt
    return frames.inside(frames.audio(spectrum))


class _Frames:
    """Hann-windowed frames of audio that begins half a window before its first sample, as `center=True` has it."""

    def __init__(self, settings: MelSettings, n_frames: int, device: torch.device) -> None:
        self.n_fft, self.hop, self.n_frames = settings.n_fft, settings.hop_samples, n_frames
        self.window = torch.hann_window(self.n_fft, device=device)
        self.n_samples = (n_frames - 1) * self.hop
        weight = self._overlapped(self.window.square().expand(1, n_frames, self.n_fft))
        self.gain = torch.zeros_like(weight)  # nothing outside the clip
        self.inside(self.gain)[:] = 1 / self.inside(weight).clamp_min(1e-11)

    def inside(self, audio: torch.Tensor) -> torch.Tensor:
        """The clip itself [batch, n_samples] of audio with its margins."""
        return audio[:, self.n_fft // 2 : self.n_fft // 2 + self.n_samples]

    def audio(self, spectrum: torch.Tensor) -> torch.Tensor:
        """Least-squares audio, with margins, of spectra [batch, frames, bins] (Griffin & Lim 1984, eq. 6)."""
        return self._overlapped(torch.fft.irfft(spectrum, n=self.n_fft).mul_(self.window)).mul_(self.gain)

    def spectrum(self, audio: torch.Tensor) -> torch.Tensor:
        """Spectra [batch, frames, bins] of audio with its margins."""
        return torch.fft.rfft(audio.unfold(1, self.n_fft, self.hop)[:, : self.n_frames] * self.window)

    def _overlapped(self, frames: torch.Tensor) -> torch.Tensor:
        blocks = -(-self.n_fft // self.hop)
        out = frames.new_zeros(len(frames), self.n_frames + blocks - 1, self.hop)
        for block in range(blocks):
            part = frames[:, :, block * self.hop : (block + 1) * self.hop]
            out[:, block : block + self.n_frames, : part.shape[-1]] += part
        return out.flatten(1)


def filter_source(
    source: torch.Tensor,
    wanted: torch.Tensor,
    settings: MelSettings,
    smooth_s: float = 0.0,
    smooth_mels: float = 0.0,
) -> torch.Tensor:
    """Audio [batch, samples]: `source` [batch, samples], filtered in time and frequency towards the mel images `wanted`.

    The gain of each mel bin is the wanted image less the source's, in dB, at most `GAIN_LIMIT_DB` either way. It is spread
    over the STFT bins by the mel filters and applied to the source's own spectrum. Where the images agree the source comes
    back. Smoothing (Gaussian, standard deviations in seconds and mel bands) is of the gain: what is finer stays the source's.

    Args:
        source: as long as the images, `settings.samples_of(frames)` samples, at any level.
        wanted: [batch, 1, n_mels, frames] in [-1, 1].
    """
    own, _ = audio_to_image(source, settings)
    gain_db = (wanted.clamp(-1, 1) - own) * settings.top_db / 2
    gain_db = _smooth(gain_db, smooth_s * settings.sample_rate_hz / settings.hop_samples, dim=3)
    gain_db = _smooth(gain_db, smooth_mels, dim=2).clamp(-GAIN_LIMIT_DB, GAIN_LIMIT_DB)[:, 0]
    window = torch.hann_window(settings.n_fft, device=source.device)
    # A frame more: the window of the last one alone would be almost zero at the end, where `istft` divides by it
    padded = torch.nn.functional.pad(source, (0, settings.hop_samples))
    spectrum = torch.stft(
        padded, settings.n_fft, settings.hop_samples, window=window, pad_mode="constant", return_complex=True
    )
    gain_db = torch.cat((gain_db, gain_db[..., -1:]), dim=2)
    gain = torch.pow(10.0, spread_over_bins(settings).to(source.device) @ gain_db / 20)
    return torch.istft(
        spectrum * gain, settings.n_fft, settings.hop_samples, window=window, length=source.shape[-1]
    )


@lru_cache(maxsize=8)
def spread_over_bins(settings: MelSettings) -> torch.Tensor:
    """What each mel band counts in each STFT bin, [n_fft // 2 + 1, n_mels]: rows sum to 1.

    A bin that no filter covers goes by the nearest that is covered.
    """
    filters = mel_filterbank(settings)
    bins = torch.arange(len(filters))
    covered = bins[filters.sum(dim=1) > 0]
    nearest = covered[(bins[:, None] - covered).abs().argmin(dim=1)]
    return filters[nearest] / filters[nearest].sum(dim=1, keepdim=True)


def _smooth(images: torch.Tensor, deviation: float, dim: int) -> torch.Tensor:
    """Images [batch, 1, rows, columns] convolved along `dim` with a Gaussian, edges repeated; deviation 0 changes nothing."""
    if deviation == 0:
        return images
    reach = max(1, math.ceil(3 * deviation))
    weights = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, device=images.device) / deviation).square())
    shape, padding = (
        ((1, 1, 1, -1), (reach, reach, 0, 0)) if dim == 3 else ((1, 1, -1, 1), (0, 0, reach, reach))
    )
    padded = torch.nn.functional.pad(images, padding, mode="replicate")
    return torch.nn.functional.conv2d(padded, (weights / weights.sum()).reshape(shape))


def image_to_audio(
    image: torch.Tensor, settings: MelSettings, seeds: Sequence[int], n_iterations: int = 16
) -> torch.Tensor:
    """Mel images [batch, 1, n_mels, n_frames] to audio [batch, (n_frames - 1) * hop], loudest mel bin at 0 dB."""
    linear = mel_to_linear_power(image_to_power(image, settings), settings)
    return griffin_lim(linear.sqrt(), settings, seeds, n_iterations)


def log_mel_error_db(image_a: torch.Tensor, image_b: torch.Tensor, settings: MelSettings) -> torch.Tensor:
    """Mean absolute log-mel difference in dB of two batches of images [batch, 1, n_mels, frames]: [batch]."""
    return (image_a - image_b).abs().mean(dim=(1, 2, 3)) * settings.top_db / 2.0
