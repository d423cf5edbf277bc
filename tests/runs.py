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
    epochs: int = 4,
    **changes: Any,
) -> Path:
    """`skill` is the share of test clips that the run gets right; the rest is taken for the next class."""
    folder = root / f"run{len(list(root.glob('*'))) if root.is_dir() else 0}"
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
        "n_real": 100,
        "n_synthetic": 90 if "synth" in mix else 0,
        "dropped": 0,
        "epochs": epochs,
        "steps": 50,
        "best_epoch": 3,
        "data": "abcdefabcdef",
        "created": f"2026-01-0{fold}T00:00:0{seed}+00:00",
    } | changes
    n = len(class_names)
    labels = np.arange(n_clips) % n
    ranks = np.random.default_rng(100 * fold + seed).permutation(n_clips)
    predicted = np.where(ranks < skill * n_clips, labels, (labels + 1) % n)
    rows = {
        "clip_id": [f"{fold}-{i:03d}" for i in range(n_clips)],
        "group": [f"{fold}-{i // 4}" for i in range(n_clips)],
        "label": labels,
        "predicted": predicted,
        "probabilities": pa.array(np.eye(n, dtype=np.float32)[predicted].tolist(), pa.list_(pa.float32())),
    }
    pq.write_table(pa.table(rows), folder / "predictions.parquet")
    (folder / "run.json").write_text(json.dumps(config))
    history = [
        {"epoch": e, "loss": 2 / e, "validation_accuracy": 0.1 * e + 0.01 * seed}
        for e in range(1, epochs + 1)
    ]
    (folder / "history.json").write_text(json.dumps(history))
    return folder
