"""Runs trained at the same time against one after another: the same runs, the same machine, all cores for both.

    python -m tests.bench.sweep --real UrbanSound8K --seeds 4 --json FILE

Both ways get the clips decoded; the time is that of the whole call, features and the start of processes included.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from usk.classify.config import TrainConfig
from usk.classify.registry import preset
from usk.classify.train import train
from usk.data.decode import decode_source
from usk.data.open import open_source
from usk.device import default_precision, resolve_device


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--real", default="demo")
    parser.add_argument("--classifier", default="small")
    parser.add_argument("--test-fold", type=int, default=1)
    parser.add_argument("--epochs", type=int, help="the classifier's own, if not given")
    parser.add_argument("--seeds", type=int, default=4, help="runs")
    parser.add_argument("--workers", type=int, help="as many as usk chooses, if not given")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    source = open_source(options.real)
    decode_source(source, preset(options.classifier).features.sample_rate_hz)
    rows: list[dict[str, Any]] = []
    for workers in (1, options.workers):
        config = TrainConfig(
            options.classifier,
            test_folds=(options.test_fold,),
            seeds=options.seeds,
            epochs=options.epochs,
            workers=workers,
        )
        with tempfile.TemporaryDirectory() as out:
            started = time.monotonic()
            result = train(source, out=out, config=config)
            took_s = time.monotonic() - started
            accuracies = [round(run.accuracy, 4) for run in result.runs]
        at_once = result.settings.get("workers", 1)
        rows.append({"at_once": at_once, "seconds": round(took_s, 1), "accuracies": accuracies})
    table = Table(title=f"{options.classifier}, {options.seeds} runs")
    for name in ("runs at the same time", "seconds", "times as fast", "test accuracy %"):
        table.add_column(name, justify="right")
    for row in rows:
        row["times"] = round(rows[0]["seconds"] / row["seconds"], 2)
        mean = f"{100 * np.mean(row['accuracies']):.1f}"
        table.add_row(str(row["at_once"]), f"{row['seconds']:.1f}", f"{row['times']:.2f}", mean)
    Console().print(table)
    if options.json:
        device = resolve_device("auto")
        settings = {
            "classifier": options.classifier,
            "real": source.name,
            "test_fold": options.test_fold,
            "epochs": options.epochs,
            "device": torch.cuda.get_device_name() if device.type == "cuda" else platform.machine(),
            "cores": torch.get_num_threads(),
            "precision": default_precision(device),
        }
        options.json.write_text(json.dumps({**settings, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
