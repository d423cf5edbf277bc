"""A run on disk: its configuration, its predictions, its weights. Written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from usk.errors import disk_errors

RUN_FILE = "run.json"
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
    weights: dict[str, torch.Tensor],
    history: list[dict[str, Any]],
    files: Mapping[str, str] | None = None,
) -> Run:
    """Write a run beside its final place, then move it there in one step; `files` are further texts by their names in it."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from safetensors.torch import save

    folder = out / run_name(identity)
    partial = out / f".{folder.name}.part-{os.getpid()}"
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
            (partial / "model.safetensors").write_bytes(
                save({name: tensor.contiguous() for name, tensor in weights.items()})
            )
            for name, text in (files or {}).items():
                (partial / name).parent.mkdir(exist_ok=True)
                (partial / name).write_text(text, encoding="utf-8")
            (partial / "history.json").write_text(json.dumps(history, indent=1) + "\n", encoding="utf-8")
            (partial / RUN_FILE).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
            if folder.exists():
                shutil.rmtree(folder)
            partial.rename(folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return Run(folder, record)


def load_classifier(folder: Path) -> tuple[torch.nn.Module, dict[str, Any]]:
    """The trained network of a run, in evaluation mode, and its record. It takes its preset's features [batch, bands, frames]."""
    from safetensors.torch import load_file

    from usk.classify.models import preset

    record = json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))
    model = preset(record["classifier"], folder).model(len(record["class_names"]))
    model.load_state_dict(load_file(folder / "model.safetensors"))
    return model.eval(), record
