"""The classifiers, and how each is trained: one table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from usk.classify.features import FIRST_SECOND, FOUR_SECONDS, FeatureSettings
from usk.errors import UsageError


class PublishedCnn(nn.Module):
    """The published experiment's CNN: three 5 x 5 convolutions without padding or pooling, global average, two linear
    layers.

    Takes log-mel [batch, 1, 64, 44]; 3.6 GFLOP a clip forward.
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
        self.head = nn.Sequential(nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, n_classes))

    def forward(self, log_mel: torch.Tensor) -> torch.Tensor:
        """Logits [batch, n_classes]."""
        return self.head(self.features(log_mel).mean(dim=(2, 3)))


class SmallCnn(nn.Module):
    """The default: five normalised 3 x 3 convolutions, halving as they widen; mean and maximum over time.

    Takes log-mel [batch, 1, n_mels, n_frames]; 0.3 GFLOP for 64 x 172.
    """

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        widths = (32, 64, 128, 192, 256)
        layers: list[nn.Module] = []
        previous = 1
        for index, width in enumerate(widths):
            layers += [
                nn.Conv2d(previous, width, 3, stride=2 if index == 0 else 1, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(inplace=True),
            ]
            if 0 < index < len(widths) - 1:
                layers.append(nn.MaxPool2d(2))
            previous = width
        self.features = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.Dropout(0.3), nn.Linear(2 * previous, n_classes))

    def forward(self, log_mel: torch.Tensor) -> torch.Tensor:
        """Logits [batch, n_classes]."""
        over_time = self.features(log_mel).mean(dim=2)
        return self.head(torch.cat((over_time.mean(dim=2), over_time.amax(dim=2)), dim=1))


@dataclass(frozen=True)
class ClassifierPreset:
    """A network, its features and its training recipe."""

    build: Callable[[int], nn.Module]
    features: FeatureSettings
    epochs: int
    batch: int
    learning_rate: float
    weight_decay: float
    cosine: bool  # learning rate: warm-up and cosine decay, or constant
    label_smoothing: float
    augment: str  # what `--augment auto` means


CLASSIFIERS = {
    "small": ClassifierPreset(SmallCnn, FOUR_SECONDS, 30, 32, 2e-3, 0.02, True, 0.1, "basic"),
    "cnn": ClassifierPreset(PublishedCnn, FIRST_SECOND, 50, 128, 1e-3, 0.0, False, 0.0, "none"),
}
DEFAULT_CLASSIFIER = "small"


def preset(name: str) -> ClassifierPreset:
    if name not in CLASSIFIERS:
        raise UsageError(f"--classifier {name} is not known; choose one of {', '.join(CLASSIFIERS)}")
    return CLASSIFIERS[name]


class Standardised(nn.Module):
    """A network behind the mean and deviation of each mel band of its training features, kept among its weights.

    `mean_db` and `deviation_db` are [n_mels, 1], or scalars for all bands alike.
    """

    def __init__(
        self, network: nn.Module, mean_db: torch.Tensor | float, deviation_db: torch.Tensor | float
    ) -> None:
        super().__init__()
        self.network = network
        self.mean_db: torch.Tensor
        self.deviation_db: torch.Tensor
        self.register_buffer("mean_db", torch.as_tensor(mean_db))
        self.register_buffer("deviation_db", torch.as_tensor(deviation_db))

    def forward(self, log_mel_db: torch.Tensor) -> torch.Tensor:
        """Logits [batch, n_classes] of log-mel features [batch, n_mels, n_frames] in dB."""
        return self.network(((log_mel_db - self.mean_db) / self.deviation_db)[:, None])
