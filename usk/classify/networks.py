"""Networks of the literature beside the published and the default one: SB-CNN, and a residual one."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

SB_CNN_FRAMES = 128
SB_CNN_L2 = 1e-3


class SbCnn(nn.Module):
    """SB-CNN (Salamon and Bello, arXiv 1608.04363): three 5 x 5 convolutions of 24, 48 and 48 channels, the first two
    followed by 4 x 2 pooling, then dense layers of 64 units and the classes, each behind a dropout of 0.5.

    Takes log-mel [batch, 1, 128, n_frames >= 128] and looks at patches of 128 frames (3 s), as published: each training
    step at one of each clip, anywhere in it; else at five, evenly placed, whose probabilities are averaged (published:
    at every one, a frame apart). The hop of 23 ms and the 128 bands are the published ones; usk's features come from
    22.05 kHz and windows of 46 ms, where those of the paper reach up to 22 kHz in windows of 23 ms.
    """

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 24, 5),
            nn.MaxPool2d((4, 2)),
            nn.ReLU(),
            nn.Conv2d(24, 48, 5),
            nn.MaxPool2d((4, 2)),
            nn.ReLU(),
            nn.Conv2d(48, 48, 5),
            nn.ReLU(),
            nn.Flatten(),
        )
        self.head = nn.Sequential(
            nn.Dropout(0.5), nn.Linear(48 * 2 * 25, 64), nn.ReLU(), nn.Dropout(0.5), nn.Linear(64, n_classes)
        )

    def forward(self, log_mel: torch.Tensor) -> torch.Tensor:
        """Logits [batch, n_classes]; outside training the logarithms of mean probabilities."""
        spare = log_mel.shape[3] - SB_CNN_FRAMES
        if self.training:
            begins = torch.randint(spare + 1, (len(log_mel),), device=log_mel.device)
            index = begins[:, None] + torch.arange(SB_CNN_FRAMES, device=log_mel.device)
            index = index[:, None, None, :].expand(-1, 1, log_mel.shape[2], -1)
            return self.head(self.features(log_mel.gather(3, index)))
        return mean_over(patches(log_mel, SB_CNN_FRAMES, 5), lambda patch: self.head(self.features(patch)))


def patches(images: torch.Tensor, n_frames: int, count: int) -> list[torch.Tensor]:
    """So many patches of `n_frames` of images [..., frames], from the first to the last, evenly placed."""
    spare = images.shape[-1] - n_frames
    places = sorted({round(spare * part / max(1, count - 1)) for part in range(count)})
    return [images[..., begin : begin + n_frames] for begin in places]


def mean_over(parts: list[torch.Tensor], logits_of: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """Logarithms of the mean probabilities [batch, n_classes] over parts of the same clips, each [batch, ...]."""
    probabilities = logits_of(torch.cat(parts)).float().softmax(dim=1)
    return probabilities.unflatten(0, (len(parts), -1)).mean(dim=0).clamp_min(1e-12).log()


def adam_with_l2(model: nn.Module, learning_rate: float, _weight_decay: float) -> torch.optim.Optimizer:
    """Adam, with SB-CNN's L2 penalty of 0.001 on the weights of dense layers, as part of the gradient.

    The paper takes plain gradient descent over far more steps (an epoch is an eighth of all patches); Adam gets as far in
    the steps of an epoch of whole clips.
    """
    dense = [module.weight for module in model.modules() if isinstance(module, nn.Linear)]
    chosen = set(map(id, dense))
    others = [parameter for parameter in model.parameters() if id(parameter) not in chosen]
    groups = [{"params": dense, "weight_decay": 2 * SB_CNN_L2}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.Adam(groups, lr=learning_rate)


class RelaxedFrequencyNorm(nn.Module):
    """A mean of two normalisations of [batch, channels, bands, frames]: over all of a clip, and in each band of it, the
    latter with a share of `relaxation`: it takes away what a microphone or a place does to a whole recording (Kim et al.,
    arXiv 2206.12513).
    """

    def __init__(self, relaxation: float = 0.5) -> None:
        super().__init__()
        self.relaxation = relaxation

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        # Of each band, whose values lie side by side in channels-last memory; torch.var_mean took four times as long.
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


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions with batch normalization, added to what came in (He et al., arXiv 1512.03385); a block that
    halves averages its way past them (arXiv 1812.01187)."""

    def __init__(self, n_in: int, n_out: int, halve: bool) -> None:
        super().__init__()
        self.halve = halve
        self.first = nn.Conv2d(n_in, n_out, 3, stride=2 if halve else 1, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(n_out)
        self.second = nn.Conv2d(n_out, n_out, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(n_out)
        nn.init.zeros_(self.second_norm.weight)  # a block begins as nothing: deep networks train at once
        self.past = nn.Conv2d(n_in, n_out, 1, bias=False) if n_in != n_out else nn.Identity()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        past = F.avg_pool2d(images, 2, ceil_mode=True) if self.halve else images
        inner = F.relu(self.first_norm(self.first(images)), inplace=True)
        return F.relu(self.past(past) + self.second_norm(self.second(inner)), inplace=True)


class FrequencyResNet(nn.Module):
    """A compact residual network whose input and stages are normalized band by band; attention over time.

    Takes log-mel [batch, 1, n_mels, n_frames]; 0.3 GFLOP for 64 x 172.
    """

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            RelaxedFrequencyNorm(),
            nn.Conv2d(1, 32, 5, stride=2, padding=2, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(inplace=True),
        )
        self.stages = nn.Sequential(
            ResidualBlock(32, 48, halve=True),
            RelaxedFrequencyNorm(),
            ResidualBlock(48, 96, halve=True),
            ResidualBlock(96, 96, halve=False),
            RelaxedFrequencyNorm(),
            ResidualBlock(96, 192, halve=True),
            ResidualBlock(192, 192, halve=False),
        )
        self.attention = nn.Linear(192, 192)
        self.head = nn.Sequential(nn.Dropout(0.3), nn.Linear(2 * 192, n_classes))

    def forward(self, log_mel: torch.Tensor) -> torch.Tensor:
        """Logits [batch, n_classes]."""
        over_time = self.stages(self.stem(log_mel)).mean(dim=2).transpose(1, 2)  # [batch, frames, channels]
        heard = torch.softmax(self.attention(over_time), dim=1)
        return self.head(torch.cat(((heard * over_time).sum(dim=1), over_time.amax(dim=1)), dim=1))
