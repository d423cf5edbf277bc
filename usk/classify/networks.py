"""The networks: the published one, and the default ones; and what stands in front of them."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import nn


def patches(images: torch.Tensor, n_frames: int, count: int) -> list[torch.Tensor]:
    """So many patches of `n_frames` of images [..., frames], from the first to the last, evenly placed."""
    spare = images.shape[-1] - n_frames
    places = sorted({round(spare * part / max(1, count - 1)) for part in range(count)})
    return [images[..., begin : begin + n_frames] for begin in places]


class Standardized(nn.Module):
    """A network behind the mean and deviation of each mel band of its training features, kept among its weights.

    `mean_db` and `deviation_db` are [n_mels, 1], or scalars for all bands alike. A network trained on windows of `window_frames`
    sees a whole clip, outside training, in as many windows as hold it, and averages their probabilities: over twice the time, band
    means and maxima differ from those that it knows.
    """

    def __init__(
        self,
        network: nn.Module,
        mean_db: torch.Tensor | float,
        deviation_db: torch.Tensor | float,
        window_frames: int | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.window_frames = window_frames
        self.mean_db: torch.Tensor
        self.deviation_db: torch.Tensor
        self.register_buffer("mean_db", torch.as_tensor(mean_db))
        self.register_buffer("deviation_db", torch.as_tensor(deviation_db))

    def forward(self, log_mel_db: torch.Tensor) -> torch.Tensor:
        """Logits [batch, n_classes] of log-mel features [batch, n_mels, n_frames] in dB; logarithms of mean probabilities
        where a clip is seen in windows."""
        images = ((log_mel_db - self.mean_db) / self.deviation_db)[:, None]
        parts = [images] if self.training else self.windows(images)
        if len(parts) == 1:
            return self.network(images)
        probabilities = self.network(torch.cat(parts)).float().softmax(dim=1)
        return probabilities.unflatten(0, (len(parts), -1)).mean(dim=0).clamp_min(1e-12).log()

    def windows(self, features: torch.Tensor) -> list[torch.Tensor]:
        """Features [..., n_frames] in as few windows as hold all frames."""
        n_frames = features.shape[-1]
        if self.window_frames is None or n_frames <= self.window_frames:
            return [features]
        return patches(features, self.window_frames, math.ceil(n_frames / self.window_frames))

    def standardize(self, probe: torch.Tensor) -> None:
        """Keep the mean and deviation of each band of features [n, n_mels, n_frames]."""
        deviation_db, mean_db = torch.std_mean(probe, dim=(0, 2))
        self.mean_db.copy_(mean_db[:, None])
        self.deviation_db.copy_(deviation_db[:, None].clamp_min(1e-3))


class RelaxedFrequencyNorm(nn.Module):
    """A mean of two normalizations of [batch, channels, bands, frames]: over all of a clip, and in each band of it, the
    latter with a share of `relaxation`: it takes away what a microphone or a place does to a whole recording (Kim et al.,
    arXiv 2206.12513).
    """

    def __init__(self, relaxation: float = 0.5) -> None:
        super().__init__()
        self.relaxation = relaxation

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        # Of each band, whose values are adjacent in channels-last memory; torch.var_mean took four times as long.
        bands = images.float().permute(0, 2, 3, 1).flatten(2)
        mean = bands.mean(dim=2, keepdim=True)
        variance = (bands - mean).square().mean(dim=2, keepdim=True)
        mean, variance = mean[:, None], variance[:, None]
        whole_mean = mean.mean(dim=2, keepdim=True)
        whole_variance = (variance + (mean - whole_mean).square()).mean(dim=2, keepdim=True)
        of_band = self.relaxation * torch.rsqrt(variance + 1e-5)
        of_clip = (1 - self.relaxation) * torch.rsqrt(whole_variance + 1e-5)
        scale, offset = of_band + of_clip, of_band * mean + of_clip * whole_mean
        return torch.addcmul(-offset.to(images.dtype), images, scale.to(images.dtype))


class PublishedCnn(nn.Module):
    """The published experiment's CNN (github.com/YashSharma/AudioDiffusionClassification, `cnn.py`): three 5 x 5 convolutions
    without padding or pooling, global average, two linear layers.

    It was given mel power itself, without a logarithm or any normalization, so that is what it makes of the log-mel dB
    [batch, 1, 64, 44] that it takes. 3.6 GFLOP a clip forward.
    """

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 64, 5),
            nn.ReLU(),
            nn.Conv2d(64, 128, 5),
            nn.ReLU(),
            nn.Conv2d(128, 256, 5),
            nn.ReLU(),
        )
        self.head = nn.Sequential(nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, n_classes))

    def forward(self, log_mel: torch.Tensor) -> torch.Tensor:
        """Logits [batch, n_classes]."""
        power = torch.pow(10.0, log_mel / 10)
        return self.head(self.features(power).mean(dim=(2, 3)))


class SmallCnn(nn.Module):
    """The default: four convolutions, halving before and after they widen; mean and maximum over time. Input and halved
    images are normalized band by band, which takes the places and microphones of a few recordings out of them.

    Takes log-mel [batch, 1, n_mels, n_frames]; 0.045 GFLOP for 64 x 172.
    """

    widths: ClassVar[tuple[int, ...]] = (24, 48, 96, 192)
    first_size: ClassVar[int] = 5
    pool_first: ClassVar[bool] = True

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [RelaxedFrequencyNorm()]
        previous = 1
        for index, width in enumerate(self.widths):
            first, last = index == 0, index == len(self.widths) - 1
            size, stride = (self.first_size, 2) if first else (3, 1)
            layers.append(nn.Conv2d(previous, width, size, stride=stride, padding=size // 2, bias=False))
            if not last and (self.pool_first or not first):
                layers.append(nn.MaxPool2d(2))  # first, so that the rest has a quarter to do
            layers += [nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
            if not first and not last:
                layers.append(RelaxedFrequencyNorm())
            previous = width
        self.features = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.Dropout(0.3), nn.Linear(2 * previous, n_classes))

    def forward(self, log_mel: torch.Tensor) -> torch.Tensor:
        """Logits [batch, n_classes]."""
        over_time = self.features(log_mel).mean(dim=2)
        return self.head(torch.cat((over_time.mean(dim=2), over_time.amax(dim=2)), dim=1))


class MediumCnn(SmallCnn):
    """The default with a convolution more, wider, and a halving less: seven times the work, 0.3 GFLOP for 64 x 172."""

    widths = (32, 64, 128, 192, 256)
    first_size = 3
    pool_first = False
