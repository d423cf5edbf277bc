"""Training steps on CUDA: recorded once and replayed, as usk does, against launched kernel by kernel.

    python -m tests.bench.replay --json FILE

Random clips, each classifier's own batch, with and without augmentation; milliseconds a step, the augmentation included.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from rich.console import Console
from rich.table import Table

from usk.classify.fitting import Training
from usk.classify.models import CLASSIFIERS
from usk.device import default_precision, resolve_device

CLIPS, CLASSES = 200, 10


def step_ms(name: str, augment: str, device: torch.device, recorded: bool, steps: int) -> float:
    """Milliseconds a step of that classifier."""
    recipe = CLASSIFIERS[name]
    torch.manual_seed(0)
    features = 10 * torch.randn(CLIPS, *recipe.features.shape)
    model = recipe.model(CLASSES, features).to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    training = Training(
        model.train(),
        recipe,
        features.half().to(device),
        (torch.arange(CLIPS) % CLASSES).to(device),
        steps=10 + steps,
        batch=recipe.batch,
        learning_rate=recipe.learning_rate,
        augment=augment,
        precision=default_precision(device),
        seed=0,
    )
    with mock.patch("usk.classify.fitting.replayable", lambda *_: recorded):
        for _ in range(10):  # libraries choose kernels; a step is recorded
            training.step()
    torch.cuda.synchronize()
    started = time.monotonic()
    for _ in range(steps):
        training.step()
    torch.cuda.synchronize()
    return 1000 * (time.monotonic() - started) / steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--classifiers", default=",".join(CLASSIFIERS))
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    device = resolve_device("cuda")
    rows: list[dict[str, Any]] = []
    for name in options.classifiers.split(","):
        for augment in ("none", "strong") if CLASSIFIERS[name].augment != "none" else ("none",):
            plain, recorded = (step_ms(name, augment, device, way, options.steps) for way in (False, True))
            rows.append(
                {
                    "classifier": name,
                    "augment": augment,
                    "plain_ms": round(plain, 2),
                    "recorded_ms": round(recorded, 2),
                    "times": round(plain / recorded, 1),
                }
            )
    table = Table(title=f"a training step on {torch.cuda.get_device_name(device)}")
    for column in rows[0]:
        table.add_column(column, justify="left" if column in ("classifier", "augment") else "right")
    for row in rows:
        table.add_row(*map(str, row.values()))
    Console().print(table)
    if options.json:
        found = {"device": torch.cuda.get_device_name(device), "steps": options.steps, "rows": rows}
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
