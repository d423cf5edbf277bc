"""A run on disk, written whole or not at all, in the shape of a model on the Hub:

RUN/config.json, model.safetensors   the classifier, features and class names included: all that `from_pretrained` needs
RUN/run.json                         what it was trained on and how
RUN/predictions.parquet              what it says of each test clip
RUN/history.json                     its epochs
RUN/README.md                        the model card
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from usk.classify.classifier import (
    CONFIG_FILE,
    SETTINGS,
    WEIGHTS_FILE,
    AudioClassifier,
    check_settings,
    read_weights,
)
from usk.classify.registry import TRANSFORMER, ClassifierPreset, preset
from usk.errors import ModelError, disk_errors
from usk.files import read_json

RUN_FILE = "run.json"
CARD_FILE = "README.md"
FORMAT = 1


@dataclass(frozen=True)
class Run:
    """One trained classifier: where it is, and what run.json says of it."""

    folder: Path
    record: dict[str, Any]
    fresh: bool = True  # trained in this call, not found there


def run_name(record: dict[str, Any]) -> str:
    """A folder name that says mix, classifier, split and seed, and differs wherever anything else does."""
    digest = hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:8]
    mix = re.sub(r"[^A-Za-z0-9.+-]+", "-", record["mix"].replace(",", "+")).strip("-")[-60:]
    # `./synth` begins with a dot: such folders are hidden, and `usk eval` would not see the run.
    mix = mix.lstrip(".-") or "mix"
    classifier = re.sub(r"[^A-Za-z0-9.+-]+", "-", record["classifier"])[-60:]
    return f"{mix}_{classifier}_{record['split']}_seed{record['seed']}_{digest}"


def find_run(out: Path, identity: dict[str, Any]) -> Run | None:
    """The finished run with this identity, if it is there."""
    folder = out / run_name(identity)
    try:
        return Run(folder, json.loads((folder / RUN_FILE).read_text(encoding="utf-8")), fresh=False)
    except (OSError, json.JSONDecodeError):
        return None


def save_run(
    out: Path,
    identity: dict[str, Any],
    record: dict[str, Any],
    clip_ids: list[str],
    groups: list[str],
    labels: np.ndarray,
    probabilities: np.ndarray,
    classifier: AudioClassifier,
    history: list[dict[str, Any]],
    card: str,
) -> Run:
    """Write a run beside its final place, then move it there in one step. `card` is its README.md."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = out / run_name(identity)
    partial, old = (out / f".{folder.name}.{kind}-{os.getpid()}" for kind in ("part", "old"))
    table = pa.table(
        {
            "clip_id": clip_ids,
            "group": groups,
            "label": pa.array(labels, pa.int64()),
            "predicted": pa.array(probabilities.argmax(axis=1), pa.int64()),
            "probabilities": pa.array(list(probabilities.astype(np.float32)), pa.list_(pa.float32())),
        }
    )
    with disk_errors(out):
        try:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            pq.write_table(table, partial / "predictions.parquet")
            (partial / CARD_FILE).write_text(card, encoding="utf-8")  # before the mixin would write its own
            classifier.save_pretrained(partial)
            (partial / "history.json").write_text(json.dumps(history, indent=1) + "\n", encoding="utf-8")
            (partial / RUN_FILE).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
            if folder.exists():  # damaged, or what another process has finished: at no time half there
                folder.rename(old)
            partial.rename(folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
            shutil.rmtree(old, ignore_errors=True)
    return Run(folder, record)


def load_classifier(folder: Path) -> tuple[AudioClassifier, dict[str, Any]]:
    """The classifier of a run and its record. Raises ModelError for a run that is damaged or not one of ours."""
    return classifier_in(folder), _read_record(folder / RUN_FILE)


def classifier_in(folder: Path) -> AudioClassifier:
    """The classifier in a run's folder, or in one that holds its `config.json` and `model.safetensors` alone.

    In evaluation mode, on the CPU. Raises ModelError for one that is damaged or not ours.
    """
    model = AudioClassifier(**settings_of(folder))
    read_weights(model, folder / WEIGHTS_FILE)
    return model


def settings_of(folder: Path) -> dict[str, Any]:
    """What the classifier in a folder is made with. Raises ModelError for one that is damaged or not ours."""
    if (folder / CONFIG_FILE).is_file():
        settings = _read_record(folder / CONFIG_FILE)
        check_settings(settings)
        return {name: settings[name] for name in SETTINGS & settings.keys()}
    record = _read_record(folder / RUN_FILE)  # a run from before its folder had one
    try:
        name, class_names, precision = (record[key] for key in ("classifier", "class_names", "precision"))
    except KeyError as error:
        raise ModelError(f"{folder} is a damaged run: {RUN_FILE} lacks {error.args[0]}") from error
    return classifier_settings(name, preset(name), class_names, precision)


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


def record_of(folder: Path) -> dict[str, Any]:
    """What run.json says; empty where there is none that can be read."""
    try:
        return _read_record(folder / RUN_FILE)
    except ModelError:
        return {}


def _read_record(file: Path) -> dict[str, Any]:
    """A JSON object of a run's folder. Raises ModelError where the file holds none."""
    damaged = f"{file.parent} is a damaged run: {file.name}"
    return read_json(file, ModelError, f"{damaged} cannot be read", f"{damaged} is not a run's")
