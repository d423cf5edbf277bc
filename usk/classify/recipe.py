"""What a classifier is and how it is trained: its network, features, optimizer, epochs and augmentation."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from usk.audio.features import Features, FeatureSettings
from usk.classify.augment import (
    AUGMENTATIONS,
    CROP,
    MIXUP,
    PRESETS,
    augment_name,
    augmentations_named,
    cropped_frames,
)
from usk.classify.networks import Standardized
from usk.errors import UsageError

RECIPE_VERSION = 4  # raised when what a network or an augmentation computes, or how an epoch is chosen, changes under the same name
EPOCH_CLIPS = 500  # an epoch counts at least as many
FULL_RECIPE_CLIPS = 1000  # with fewer in training, a recipe has more epochs by default


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
    augment: str  # what `auto` means
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
        """What an `augment` stands for here: presets leave out what these features cannot have, a single name is refused."""
        names = augmentations_named(text)
        refused = [name for name in text.split("+") if name not in PRESETS and name not in self.augmentable]
        if refused:
            raise UsageError(
                "cannot be done to this classifier's features",
                field="augment",
                value="+".join(refused),
                hint=f"Choose among none, basic, strong, {', '.join(self.augmentable)}.",
            )
        return tuple(name for name in names if name in self.augmentable)

    def window_frames(self, augment: str) -> int | None:
        """The frames that a classifier trained with `augment` sees at a time; None for whole clips."""
        return cropped_frames(self.features.shape[1]) if CROP in self.augmentations(augment) else None

    def fingerprint(self, n_classes: int) -> str:
        """Changes with whatever a recipe does to a run, but for augmentation: a run of another recipe is not taken for one of it."""
        with torch.device("meta"):
            layout = self.revision or str(self.build(n_classes))
        decisive = (
            RECIPE_VERSION,
            layout,
            self.features,
            "adamw",
            self.weight_decay,
            self.cosine,
            self.label_smoothing,
            self.standardize,
        )
        return hashlib.sha256(repr(decisive).encode()).hexdigest()[:8]

    def augments_of(self, text: str) -> tuple[str, ...]:
        """The augmentations in a list joined by commas, each once under one name; `auto` is the preset's own. UsageError for
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
        bands = torch.zeros(self.features.shape[0], 1)
        model = Standardized(network, bands, bands + 1, self.window_frames(self.augment))
        if probe is not None and self.standardize:
            model.standardize(probe)
        return model


def training_length(n_train: int, batch: int, recipe_epochs: int, epochs: int | None) -> tuple[int, int]:
    """Epochs, and optimizer steps in all, of every mix with `n_train` real training clips.

    An epoch is a pass over the real clips; fewer than `EPOCH_CLIPS` are passed over several times, for an epoch of 50 clips
    would be two steps. Where `epochs` does not say how many, they are the recipe's, stretched so that a training part
    below `FULL_RECIPE_CLIPS` is trained on for nearly as many steps as one of that size: at most twice as many epochs.
    """
    per_epoch = max(n_train, EPOCH_CLIPS)
    if epochs is None:
        epochs = max(recipe_epochs, recipe_epochs * FULL_RECIPE_CLIPS // per_epoch)
    return epochs, epochs * math.ceil(per_epoch / batch)
