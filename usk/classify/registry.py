"""The classifiers, and how each is trained: one table."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from usk.audio.features import (
    FIRST_SECOND,
    FOUR_SECONDS,
    FOUR_SECONDS_128,
    Features,
    FeatureSettings,
)
from usk.classify.augment import (
    AUGMENTATIONS,
    CROP,
    MIXUP,
    PRESETS,
    augment_name,
    augmentations_named,
    cropped_frames,
)
from usk.classify.networks import (
    FrequencyResNet,
    RelaxedFrequencyNorm,
    SbCnn,
    adam_with_l2,
    mean_over,
    patches,
)
from usk.errors import UsageError


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


def adamw(model: nn.Module, learning_rate: float, weight_decay: float) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=weight_decay, fused=True)


@dataclass(frozen=True)
class ClassifierPreset:
    """A network, its features and its training recipe."""

    build: Callable[[int], nn.Module]
    features: Features
    epochs: int
    batch: int
    learning_rate: float
    weight_decay: float
    cosine: bool  # learning rate: warm-up and cosine decay, or constant
    label_smoothing: float
    augment: str  # what `--augment auto` means
    optimizer: Callable[[nn.Module, float, float], torch.optim.Optimizer] = adamw
    standardize: bool = True  # by the bands of the training features; else the network takes them as they are
    augmentable: tuple[str, ...] = (*AUGMENTATIONS, MIXUP)  # what can be done to its features
    revision: str = ""  # of the checkpoint that training begins with
    # Class names -> `config` and `extractor` of a transformer, which rebuild it without its checkpoint.
    transformer: Callable[[Sequence[str]], dict[str, Any]] | None = None

    def described(self, class_names: Sequence[str]) -> dict[str, Any]:
        """What a configuration says of the network's features, JSON-safe (see `AudioClassifier`)."""
        if self.transformer is not None:
            return {"transformer": self.transformer(class_names)}
        assert isinstance(self.features, FeatureSettings)
        return {"mel": self.features.mel.as_dict(), "repeat_short": self.features.repeat_short}

    def augmentations(self, text: str) -> tuple[str, ...]:
        """What `--augment` means here: presets leave out what these features cannot have, a name is refused."""
        names = augmentations_named(text)
        spelt = [name for name in text.split("+") if name not in PRESETS and name not in self.augmentable]
        if spelt:
            raise UsageError(
                f"--augment {'+'.join(spelt)} cannot be done to this classifier's features; "
                f"choose among none, basic, strong, {', '.join(self.augmentable)}"
            )
        return tuple(name for name in names if name in self.augmentable)

    def window_frames(self, augment: str) -> int | None:
        """The frames that a classifier hears at a time which is trained with `--augment`; None for whole clips."""
        return cropped_frames(self.features.shape[1]) if CROP in self.augmentations(augment) else None

    def fingerprint(self, n_classes: int) -> str:
        """Changes with whatever a recipe does to a run beside augmentation: a run of another is not taken for one of it."""
        with torch.device("meta"):
            layout = self.revision or str(self.build(n_classes))
        said = (
            RECIPE_VERSION,
            layout,
            self.features,
            self.optimizer.__name__,
            self.weight_decay,
            self.cosine,
            self.label_smoothing,
            self.standardize,
        )
        return hashlib.sha256(repr(said).encode()).hexdigest()[:8]

    def augments_of(self, text: str) -> tuple[str, ...]:
        """What `--augment` lists, joined by commas, each once under one name; `auto` is the preset's own. UsageError for
        unknown ones."""
        wanted: dict[tuple[str, ...], str] = {}
        for one in text.split(","):
            name = self.augment if one == "auto" else augment_name(one)
            wanted.setdefault(self.augmentations(name), name)
        return tuple(wanted.values())

    def model(self, n_classes: int, probe: torch.Tensor | None = None) -> nn.Module:
        """A new network that takes features [batch, bands, frames], to be trained with the recipe's own augmentation;
        `probe` are some that it is to train on."""
        network = self.build(n_classes)
        if self.transformer is not None:
            return network
        window = self.window_frames(self.augment)
        if probe is None or not self.standardize:
            bands = torch.zeros(self.features.shape[0], 1)
            return Standardized(network, bands, bands + 1, window)
        deviation_db, mean_db = torch.std_mean(probe, dim=(0, 2))
        return Standardized(network, mean_db[:, None], deviation_db[:, None].clamp_min(1e-3), window)


# Raised when what a network or an augmentation computes, or how an epoch is chosen, changes under the same name.
RECIPE_VERSION = 4
CLASSIFIERS = {
    "small": ClassifierPreset(SmallCnn, FOUR_SECONDS, 30, 32, 2e-3, 0.02, True, 0.1, "basic"),
    "medium": ClassifierPreset(MediumCnn, FOUR_SECONDS, 30, 32, 2e-3, 0.02, True, 0.1, "basic"),
    "cnn": ClassifierPreset(
        PublishedCnn, FIRST_SECOND, 50, 128, 1e-3, 0.0, False, 0.0, "none", standardize=False
    ),
    "sb-cnn": ClassifierPreset(
        SbCnn,
        FOUR_SECONDS_128,
        50,
        32,
        1e-3,
        0.0,
        False,
        0.0,
        "basic",
        optimizer=adam_with_l2,
        augmentable=tuple(name for name in (*AUGMENTATIONS, MIXUP) if name != CROP),  # its patches are crops
    ),
    "resnet": ClassifierPreset(FrequencyResNet, FOUR_SECONDS, 30, 32, 2e-3, 0.05, True, 0.1, "basic"),
}
DEFAULT_CLASSIFIER = "small"


TRANSFORMER = "hf:"


def preset(name: str) -> ClassifierPreset:
    """The classifier called `name`: one of the table, or `hf:` and a folder or Hub id of a `transformers` audio
    classifier, which is opened here."""
    if name.startswith(TRANSFORMER):
        from usk.classify.transformer import transformer_preset

        return transformer_preset(name.removeprefix(TRANSFORMER))
    if name not in CLASSIFIERS:
        raise UsageError(
            f"--classifier {name} is not known; choose one of {', '.join(CLASSIFIERS)}, or hf:FOLDER-OR-ID"
        )
    return CLASSIFIERS[name]


class Standardized(nn.Module):
    """A network behind the mean and deviation of each mel band of its training features, kept among its weights.

    `mean_db` and `deviation_db` are [n_mels, 1], or scalars for all bands alike. Where it is trained on parts of
    `window_frames`, it hears a whole clip in as many of them as hold it, outside training, and averages probabilities:
    over twice the time band means and maxima are others than those that it knows.
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
        where a clip is heard in windows."""
        images = ((log_mel_db - self.mean_db) / self.deviation_db)[:, None]
        parts = [images] if self.training else self.windows(images)
        return self.network(images) if len(parts) == 1 else mean_over(parts, self.network)

    def windows(self, features: torch.Tensor) -> list[torch.Tensor]:
        """The parts in which it hears features [..., n_frames]: as few as hold all frames."""
        n_frames = features.shape[-1]
        if self.window_frames is None or n_frames <= self.window_frames:
            return [features]
        return patches(features, self.window_frames, math.ceil(n_frames / self.window_frames))
