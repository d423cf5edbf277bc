"""Write run folders as `usk train` does, with a chosen accuracy."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from usk.data.train_subset import SUBSET_NAME
from usk.evaluate import metrics
from usk.runs import Predictions, RunRecord, read_record
from usk.typed_json import from_json


def write_run(
    root: Path,
    mix: str,
    seed: int = 0,
    fold: int = 1,
    *,
    skill: float = 0.6,
    class_names: Sequence[str] = ("air", "bark", "siren"),
    n_clips: int = 60,
    n_tested: int | None = None,
    order: np.ndarray | None = None,
    name: str | None = None,
    epochs: int = 4,
    sources: Mapping[str, Mapping[str, Any]] | None = None,
    **changes: Any,
) -> Path:
    """A folder `root/name`, by default numbered. `sources` are what is to be said of its sources beside
    the usual, by part of the mix (`folder/subset`); `changes` are of the other fields of its record.

    `skill` is the share of test clips that the run gets right; the rest is taken for the next class. The first
    `n_tested` classes (None: all) have test clips. `order` is that of the rows in predictions.parquet.
    """
    folder = root / (name or f"run{len(list(root.glob('*'))) if root.is_dir() else 0}")
    folder.mkdir(parents=True)
    n_tested = n_tested or len(class_names)
    labels = np.arange(n_clips) % n_tested
    ranks = np.random.default_rng(100 * fold + seed).permutation(n_clips)
    predicted = np.where(ranks < skill * n_clips, labels, (labels + 1) % n_tested)
    record = a_record(
        mix,
        seed,
        fold,
        class_names=class_names,
        epochs=epochs,
        sources=sources,
        **{
            "n_test": n_clips,
            "n_test_recordings": n_clips // 4,
            "accuracy": metrics.accuracy(labels, predicted),
            "macro_f1": metrics.macro_f1(labels, predicted, len(class_names)),
            "validation_accuracy": skill - 0.05,
            **changes,
        },
    )
    record.write(folder)
    Predictions(
        np.array([f"{fold}-{i:03d}" for i in range(n_clips)]),
        np.array([f"{fold}-{i // 4}" for i in range(n_clips)]),
        labels,
        predicted,
        np.eye(len(class_names), dtype=np.float32)[predicted],
    ).write(folder)
    if order is not None:
        table = pq.read_table(folder / "predictions.parquet")
        pq.write_table(table.take(order), folder / "predictions.parquet")
    history = [
        {"epoch": e, "loss": 2 / e, "validation_accuracy": 0.1 * e + 0.01 * seed}
        for e in range(1, epochs + 1)
    ]
    (folder / "history.json").write_text(json.dumps(history))
    return folder


def a_record(
    mix: str = "real",
    seed: int = 0,
    fold: int | None = 1,
    *,
    class_names: Sequence[str] = ("air", "bark", "siren"),
    sources: Mapping[str, Mapping[str, Any]] | None = None,
    **changes: Any,
) -> RunRecord:
    """What run.json might say."""
    return from_json(
        RunRecord,
        {
            "mix": mix,
            "classifier": "small",
            "classifier_revision": "",
            "recipe_hash": "abcdef01",
            "protocol": "folds",
            "split": f"fold{fold}",
            "fold": fold,
            "seed": seed,
            "train_clips": None,
            "augment": "none",
            "augmentations": "",
            "optimistic": False,
            "class_names": list(class_names),
            "n_real": 100 if "real" in mix else 0,
            "n_synthetic": 90 if "synth" in mix else 0,
            "dropped": 10 + (fold or 0) if "synth" in mix else 0,
            "n_validation": 20,
            "n_test": 60,
            "n_test_recordings": 15,
            "epochs": 4,
            "steps": 50,
            "batch": 32,
            "learning_rate": 0.002,
            "precision": "fp32",
            "best_epoch": 3,
            "data": "abcdefabcdef",
            "sources": sources_of({"real": {}} | (sources or {})),
            "accuracy": 0.5,
            "macro_f1": 0.4,
            "validation_accuracy": 0.45,
            "leaks": [],
            "caveats": [],
            "license": "unknown",
            "created": f"2026-01-0{fold or 1}T00:00:0{seed}+00:00",
            "device": "cpu",
            "took_s": 1.0,
            **changes,
        },
    )


def rewrite(folder: Path, column: str, values: Any) -> None:
    """Give all clips of a run other values of a column of predictions.parquet."""
    table = pq.read_table(folder / "predictions.parquet")
    index = table.column_names.index(column)
    pq.write_table(table.set_column(index, column, pa.array(values)), folder / "predictions.parquet")
    if column == "predicted":
        labels, n_classes = table["label"].to_numpy(), len(read_record(folder).class_names)
        with contextlib.suppress(ValueError):  # values that are none
            right, f1 = metrics.accuracy(labels, values), metrics.macro_f1(labels, values, n_classes)
            replace(read_record(folder), accuracy=right, macro_f1=f1).write(folder)


def sources_of(said: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What a record says of its sources, by name in the mix, subset included."""
    usual = {
        "name": "",
        "kind": "folder",
        "revision": "",
        "hub_id": None,
        "license": "unknown",
        "clips": 100,
        "trained": True,
    }
    found = []
    for dataset, values in said.items():
        folder, _, last = dataset.rpartition("/")
        part, subset = (folder, last) if SUBSET_NAME.fullmatch(last) else (dataset, "")
        found.append({**usual, "part": part, "subset": subset, **values})
    return found
