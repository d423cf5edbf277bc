"""A run on disk, written whole or not at all, in the shape of a model on the Hub:

RUN/config.json, model.safetensors   the classifier, features and class names included: all that `from_pretrained` needs
RUN/run.json                         what it was trained on and how (`usk.runs`)
RUN/predictions.parquet              what it says of each test clip
RUN/history.json                     its epochs
RUN/README.md                        the model card
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from usk.classify.classifier import (
    CONFIG_FILE,
    SETTINGS,
    WEIGHTS_FILE,
    AudioClassifier,
    check_settings,
    read_weights,
)
from usk.classify.registry import TRANSFORMER, ClassifierPreset
from usk.errors import ModelError, disk_errors
from usk.files import read_json
from usk.runs import Predictions, RunRecord

CARD_FILE = "README.md"


def save_run(
    out: Path,
    record: RunRecord,
    predictions: Predictions,
    classifier: AudioClassifier,
    history: list[dict[str, Any]],
    card: str,
) -> RunRecord:
    """Write a run to a temporary folder in `out`, then move it to its place in one step. `card` is its README.md."""
    folder = out / record.folder_name
    partial, old = (out / f".{folder.name}.{kind}-{os.getpid()}" for kind in ("part", "old"))
    with disk_errors(out):
        try:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            predictions.write(partial)
            (partial / CARD_FILE).write_text(card, encoding="utf-8")  # before the mixin would write its own
            classifier.save_pretrained(partial)
            (partial / "history.json").write_text(json.dumps(history, indent=1) + "\n", encoding="utf-8")
            record.write(partial)
            if folder.exists():  # damaged, or finished by another process meanwhile: at no time half there
                folder.rename(old)
            partial.rename(folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
            shutil.rmtree(old, ignore_errors=True)
    return replace(record, folder=folder)


def classifier_in(folder: Path) -> AudioClassifier:
    """The classifier in a run's folder, or in one that holds its `config.json` and `model.safetensors` alone.

    In evaluation mode, on the CPU. Raises ModelError for one that is damaged or not ours.
    """
    model = AudioClassifier(**settings_of(folder))
    read_weights(model, folder / WEIGHTS_FILE)
    return model


def settings_of(folder: Path) -> dict[str, Any]:
    """What the classifier in a folder is made with. Raises ModelError for one that is damaged or not ours."""
    settings = read_json(
        folder / CONFIG_FILE, ModelError, f"{folder} is a damaged run: {CONFIG_FILE} cannot be read"
    )
    check_settings(settings)
    return {name: settings[name] for name in SETTINGS & settings.keys()}


def classifier_settings(
    architecture: str,
    recipe: ClassifierPreset,
    class_names: Sequence[str],
    precision: str,
    augment: str = "none",
) -> dict[str, Any]:
    """What an `AudioClassifier` is made with. A transformer from a folder goes by that folder's name alone."""
    place = architecture.removeprefix(TRANSFORMER)
    if place != architecture and Path(place).expanduser().is_dir():
        architecture = TRANSFORMER + Path(place).expanduser().resolve().name
    return {
        "architecture": architecture,
        "class_names": list(class_names),
        "precision": precision,
        "window_frames": recipe.window_frames(augment),
        **recipe.described(class_names),
    }
