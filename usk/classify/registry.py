"""The table of classifiers by name."""

from __future__ import annotations

from usk.audio.features import FIRST_SECOND, FOUR_SECONDS
from usk.classify.config import DEFAULT_CLASSIFIER, TRANSFORMER
from usk.classify.networks import MediumCnn, PublishedCnn, SmallCnn
from usk.classify.recipe import ClassifierPreset
from usk.errors import UsageError

__all__ = ["CLASSIFIERS", "DEFAULT_CLASSIFIER", "preset"]

# Network, features, epochs, batch, learning rate, weight decay, cosine decay, label smoothing, augmentation, least steps.
# fmt: off
CLASSIFIERS = {
    # 50 real clips reach 62.2, 63.6 and 63.5 % with 400, 1,200 and 3,600 steps; with synthetic clips 65.2, 68.3 and 70.0 %
    # (docs/studies/clips). `strong` is 1 to 3 points above `basic`, beside 50 real clips to all (docs/studies/main).
    "small": ClassifierPreset(SmallCnn, FOUR_SECONDS, 30, 32, 2e-3, 0.02, True, 0.1, "strong", 3_600),
    # 62.5 % with all real clips and `strong` (docs/results.md)
    "medium": ClassifierPreset(MediumCnn, FOUR_SECONDS, 30, 32, 2e-3, 0.02, True, 0.1, "strong", 960),
    "cnn": ClassifierPreset(PublishedCnn, FIRST_SECOND, 50, 128, 1e-3, 0.0, False, 0.0, "none", 400, standardize=False),
}
# fmt: on


def preset(name: str) -> ClassifierPreset:
    """Return the preset called `name`: a row of the table, or `hf:` and the folder or Hub id of a `transformers` model."""
    if name.startswith(TRANSFORMER):
        from usk.classify.transformer import transformer_preset

        return transformer_preset(name.removeprefix(TRANSFORMER))
    if name not in CLASSIFIERS:
        known = f"Choose one of {', '.join(CLASSIFIERS)}, or hf: with a folder or Hub id."
        raise UsageError("is not known", field="classifier", value=name, hint=known)
    return CLASSIFIERS[name]
