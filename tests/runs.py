"""Run folders as `usk train` leaves them, with chosen skill."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq


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
    **changes: Any,
) -> Path:
    """A folder `root/name`, by default numbered. `changes` are of what run.json says.

    `skill` is the share of test clips that the run gets right; the rest is taken for the next class. The first
    `n_tested` classes (None: all) have test clips. `order` is that of the rows in predictions.parquet.
    """
    folder = root / (name or f"run{len(list(root.glob('*'))) if root.is_dir() else 0}")
    folder.mkdir(parents=True)
    config = {
        "format": 1,
        "mix": mix,
        "classifier": "small",
        "protocol": "folds",
        "split": f"fold{fold}",
        "fold": fold,
        "seed": seed,
        "augment": "none",
        "optimistic": False,
        "class_names": list(class_names),
        "n_real": 100 if "real" in mix else 0,
        "n_synthetic": 90 if "synth" in mix else 0,
        "dropped": 10 + fold if "synth" in mix else 0,
        "epochs": epochs,
        "steps": 50,
        "best_epoch": 3,
        "data": "abcdefabcdef",
        "validation_accuracy": skill - 0.05,
        "created": f"2026-01-0{fold}T00:00:0{seed}+00:00",
        "device": "cpu",
    } | changes
    n_tested = n_tested or len(class_names)
    labels = np.arange(n_clips) % n_tested
    ranks = np.random.default_rng(100 * fold + seed).permutation(n_clips)
    predicted = np.where(ranks < skill * n_clips, labels, (labels + 1) % n_tested)
    probabilities = np.eye(len(class_names), dtype=np.float32)[predicted].tolist()
    rows = {
        "clip_id": [f"{fold}-{i:03d}" for i in range(n_clips)],
        "group": [f"{fold}-{i // 4}" for i in range(n_clips)],
        "label": labels,
        "predicted": predicted,
        "probabilities": pa.array(probabilities, pa.list_(pa.float32())),
    }
    table = pa.table(rows) if order is None else pa.table(rows).take(order)
    pq.write_table(table, folder / "predictions.parquet")
    (folder / "run.json").write_text(json.dumps(config))
    history = [
        {"epoch": e, "loss": 2 / e, "validation_accuracy": 0.1 * e + 0.01 * seed}
        for e in range(1, epochs + 1)
    ]
    (folder / "history.json").write_text(json.dumps(history))
    return folder


def rewrite(folder: Path, column: str, values: Any) -> None:
    """Give all clips of a run other values of a column of predictions.parquet."""
    table = pq.read_table(folder / "predictions.parquet")
    index = table.column_names.index(column)
    pq.write_table(table.set_column(index, column, pa.array(values)), folder / "predictions.parquet")
