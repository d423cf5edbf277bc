"""The table of classifiers by name."""

from __future__ import annotations

from usk.audio.features import FIRST_SECOND, FOUR_SECONDS
from usk.classify.config import RECIPES, TRANSFORMER
from usk.classify.networks import MediumCnn, PublishedCnn, SmallCnn
from usk.classify.recipe import ClassifierPreset
from usk.errors import UsageError

CLASSIFIERS = {
    "small": ClassifierPreset(SmallCnn, FOUR_SECONDS, *RECIPES["small"]),
    "medium": ClassifierPreset(MediumCnn, FOUR_SECONDS, *RECIPES["medium"]),
    "cnn": ClassifierPreset(PublishedCnn, FIRST_SECOND, *RECIPES["cnn"], standardize=False),
}


def preset(name: str) -> ClassifierPreset:
    """Return the preset called `name`: a row of the table, or `hf:` and the folder or Hub id of a `transformers` model."""
    if name.startswith(TRANSFORMER):
        from usk.classify.transformer import transformer_preset

        return transformer_preset(name.removeprefix(TRANSFORMER))
    if name not in CLASSIFIERS:
        known = f"Choose one of {', '.join(CLASSIFIERS)}, or hf: with a folder or Hub id."
        raise UsageError("is not known", field="classifier", value=name, hint=known)
    return CLASSIFIERS[name]
