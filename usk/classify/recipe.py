"""Classifier presets: network, features, optimizer settings, epochs and augmentation."""

from __future__ import annotations

import hashlib
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

# Raise this when a network or an augmentation computes something else, or another epoch is chosen, under the same name.
RECIPE_VERSION = 4


@dataclass(frozen=True)
class ClassifierPreset:
    """A network, its features and its training recipe."""

    build: Callable[[int], nn.Module]
    features: Features
    epochs: int
    batch: int
    learning_rate: float
    weight_decay: float
    cosine: bool  # True: warm-up and cosine decay of the learning rate; False: a constant rate
    label_smoothing: float
    augment: str  # used for `auto`
    min_steps: int = 0  # with few clips, there are more epochs by default, so that there are this many steps
    standardize: bool = True  # standardize each band of the features
    supported_augmentations: tuple[str, ...] = (*AUGMENTATIONS, MIXUP)
    revision: str = ""  # of the pretrained checkpoint
    # Class names -> `config` and `extractor` of a transformer. They rebuild the network without its pretrained checkpoint.
    transformer: Callable[[Sequence[str]], dict[str, Any]] | None = None

    def feature_config(self, class_names: Sequence[str]) -> dict[str, Any]:
        """Return the JSON-safe `AudioClassifier` arguments that describe the features."""
        if self.transformer is not None:
            return {"transformer": self.transformer(class_names)}
        assert isinstance(self.features, FeatureSettings)
        return {"mel": self.features.mel.as_dict(), "repeat_short": self.features.repeat_short}

    def augmentations(self, text: str) -> tuple[str, ...]:
        """Return the supported augmentations in `text`. Raises UsageError for an unsupported one outside a preset."""
        supported = self.supported_augmentations
        names = augmentations_named(text)
        refused = [name for name in text.split("+") if name not in PRESETS and name not in supported]
        if refused:
            raise UsageError(
                "cannot be applied to this classifier's features",
                field="augment",
                value="+".join(refused),
                hint=f"Choose among none, basic, strong, {', '.join(supported)}.",
            )
        return tuple(name for name in names if name in supported)

    def window_frames(self, augment: str) -> int | None:
        """Return the number of frames of a training window with `augment`; None for whole clips."""
        return cropped_frames(self.features.shape[1]) if CROP in self.augmentations(augment) else None

    def fingerprint(self, n_classes: int) -> str:
        """Return a hash of all recipe settings but augmentation, so that runs of different recipes are told apart."""
        with torch.device("meta"):
            layout = self.revision or str(self.build(n_classes))
        optimizer = ("adamw", self.weight_decay, self.cosine, self.label_smoothing)
        settings = (RECIPE_VERSION, layout, self.features, *optimizer, self.standardize)
        return hashlib.sha256(repr(settings).encode()).hexdigest()[:8]

    def parse_augments(self, text: str) -> tuple[str, ...]:
        """Return the distinct augmentations in a comma-separated list; `auto` is the preset's own. Raises UsageError."""
        names: dict[tuple[str, ...], str] = {}
        for item in text.split(","):
            name = self.augment if item == "auto" else augment_name(item)
            names.setdefault(self.augmentations(name), name)
        return tuple(names.values())

    def model(self, n_classes: int, probe: torch.Tensor | None = None) -> nn.Module:
        """Return a new network to train with the recipe's own augmentation. The features `probe` standardize its input."""
        network = self.build(n_classes)
        if self.transformer is not None:
            return network
        bands = torch.zeros(self.features.shape[0], 1)
        model = Standardized(network, bands, bands + 1, self.window_frames(self.augment))
        if probe is not None and self.standardize:
            model.standardize(probe)
        return model
