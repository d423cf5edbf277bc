"""The networks in the table of `usk.classify.registry`, and their input normalization."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import nn


def patches(images: torch.Tensor, n_frames: int, count: int) -> list[torch.Tensor]:
    """Cut `count` evenly spaced patches of `n_frames` from images [..., frames], the first at the start, the last at the end."""
    last_start = images.shape[-1] - n_frames
    starts = sorted({round(last_start * part / max(1, count - 1)) for part in range(count)})
    return [images[..., start : start + n_frames] for start in starts]


class Standardized(nn.Module):
    """A network that standardizes each mel band of its input first.

    `mean_db` and `deviation_db` of the training features are stored with the weights: [n_mels, 1], or scalars for all bands.
    A network trained on windows of `window_frames` also evaluates a clip in windows and averages their probabilities, because
    band means and maxima over the whole clip differ from those over a window.
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
        """Return logits [batch, n_classes], or with windows log mean probabilities, of log-mel dB [batch, n_mels, n_frames]."""
        images = ((log_mel_db - self.mean_db) / self.deviation_db)[:, None]
        windows = [images] if self.training else self.windows(images)
        if len(windows) == 1:
            return self.network(images)
        probabilities = self.network(torch.cat(windows)).float().softmax(dim=1)
        return probabilities.unflatten(0, (len(windows), -1)).mean(dim=0).clamp_min(1e-12).log()

    def windows(self, features: torch.Tensor) -> list[torch.Tensor]:
        """Cut features [..., n_frames] into the fewest windows that cover all frames."""
        n_frames = features.shape[-1]
        if self.window_frames is None or n_frames <= self.window_frames:
            return [features]
        return patches(features, self.window_frames, math.ceil(n_frames / self.window_frames))

    def standardize(self, probe: torch.Tensor) -> None:
        """Store the mean and deviation of each band of the features `probe` [n, n_mels, n_frames]."""
        deviation_db, mean_db = torch.std_mean(probe, dim=(0, 2))
        self.mean_db.copy_(mean_db[:, None])
        self.deviation_db.copy_(deviation_db[:, None].clamp_min(1e-3))


class RelaxedFrequencyNorm(nn.Module):
    """The weighted mean of two normalizations of images [batch, channels, bands, frames] (Kim et al., arXiv 2206.12513).

    One normalizes the whole clip, the other, with weight `relaxation`, each band of it. Normalizing bands removes the
    coloration that a microphone or a place gives to a whole recording.
    """

    def __init__(self, relaxation: float = 0.5) -> None:
        super().__init__()
        self.relaxation = relaxation

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        # Each band's values are adjacent in channels-last memory. torch.var_mean took four times as long.
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
    """The published experiment's CNN (github.com/YashSharma/AudioDiffusionClassification, `cnn.py`).

    It has three 5 x 5 convolutions without padding or pooling, a global average, and two linear layers. It takes log-mel dB
    [batch, 1, 64, 44] and converts it to mel power, because the original was trained on mel power without normalization.
    A forward pass takes 3.6 GFLOP a clip.
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
        """Return logits [batch, n_classes]."""
        power = torch.pow(10.0, log_mel / 10)
        return self.head(self.features(power).mean(dim=(2, 3)))


class SmallCnn(nn.Module):
    """The default: four convolutions with pooling in between, then mean and maximum over time.

    The input and the pooled images are normalized band by band, so that the network does not learn the places and
    microphones of a few recordings. It takes log-mel [batch, 1, n_mels, n_frames]; 0.045 GFLOP for 64 x 172.
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
                layers.append(nn.MaxPool2d(2))  # leaves a quarter of the work to the normalization
            layers += [nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
            if not first and not last:
                layers.append(RelaxedFrequencyNorm())
            previous = width
        self.features = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.Dropout(0.3), nn.Linear(2 * previous, n_classes))

    def forward(self, log_mel: torch.Tensor) -> torch.Tensor:
        """Return logits [batch, n_classes]."""
        over_time = self.features(log_mel).mean(dim=2)
        return self.head(torch.cat((over_time.mean(dim=2), over_time.amax(dim=2)), dim=1))


class MediumCnn(SmallCnn):
    """`SmallCnn` with one more convolution, wider layers and one less pooling: 0.3 GFLOP for 64 x 172, seven times as much."""

    widths = (32, 64, 128, 192, 256)
    first_size = 3
    pool_first = False
