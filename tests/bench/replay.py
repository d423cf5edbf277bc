"""Training steps on CUDA: recorded once and replayed, as usk does, against launched kernel by kernel.

    python -m tests.bench.replay --json FILE

Random clips, each classifier's own batch, with and without augmentation; milliseconds a step, the augmentation included. And
a step of `usk fit` for networks as the embedded generator's, in batches of 32 and 64, from the drawing of the batch on.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from usk.classify.feature_table import FeatureTable
from usk.classify.loop import StepSettings, Training
from usk.classify.registry import CLASSIFIERS
from usk.device import default_precision, resolve_device
from usk.diffusion.fit import EMBEDDED_MEL
from usk.diffusion.fit_config import FitConfig
from usk.diffusion.networks import new_networks
from usk.diffusion.train import MelTrainer
from usk.diffusion.training_data import FitClips
from usk.reporter import Reporter

CLIPS, CLASSES = 200, 10


def step_ms(name: str, augment: str, device: torch.device, recorded: bool, steps: int) -> float:
    """Milliseconds a step of that classifier."""
    recipe = CLASSIFIERS[name]
    torch.manual_seed(0)
    features = 10 * torch.randn(CLIPS, *recipe.features.shape)
    model = recipe.model(CLASSES, features).to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    table = FeatureTable(features.half().to(device), (torch.arange(CLIPS) % CLASSES).to(device))
    settings = StepSettings(
        steps=10 + steps,
        batch=recipe.batch,
        learning_rate=recipe.learning_rate,
        augment=augment,
        precision=default_precision(device),
        seed=0,
    )
    training = Training(model.train(), recipe, table, settings)
    with mock.patch("usk.classify.loop.replayable", lambda *_: recorded):
        for _ in range(10):  # libraries choose kernels; a step is recorded
            training.step()
    torch.cuda.synchronize()
    started = time.monotonic()
    for _ in range(steps):
        training.step()
    torch.cuda.synchronize()
    return 1000 * (time.monotonic() - started) / steps


def fit_step_ms(batch: int, device: torch.device, recorded: bool, steps: int) -> float:
    """Milliseconds a step of `usk fit`, without its validations and checkpoints."""
    mel, names = EMBEDDED_MEL, tuple(f"class {n}" for n in range(CLASSES))
    config = FitConfig(
        steps=10 + steps, batch=batch, class_conditional=True, validate_every=10**6, checkpoint_every_s=10**6
    ).resolved()
    images = np.random.default_rng(0).normal(size=(CLIPS, mel.n_mels, mel.n_frames)).astype(np.float16)
    clips = FitClips(
        images, np.full(CLIPS, mel.n_frames), np.arange(CLIPS) % CLASSES, np.zeros(CLIPS, dtype=bool)
    )
    trainer = MelTrainer(clips, new_networks(config, mel, names, device), config, device, Reporter())
    with mock.patch.object(MelTrainer, "recordable", recorded):
        learn = trainer.learner()
    optimizer = torch.optim.AdamW(trainer.network.parameters(), lr=1e-4, fused=True)
    started = 0.0
    for step in range(10 + steps):
        if step == 10:
            started = time.monotonic()
        trainer.gradients(learn, step)
        optimizer.step()
    return 1000 * (time.monotonic() - started) / steps


def row_of(name: str, augment: str, plain_ms: float, recorded_ms: float) -> dict[str, Any]:
    return {
        "network": name,
        "augment": augment,
        "plain_ms": round(plain_ms, 2),
        "recorded_ms": round(recorded_ms, 2),
        "times": round(plain_ms / recorded_ms, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--classifiers", default=",".join(CLASSIFIERS))
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    device = resolve_device("cuda")
    rows: list[dict[str, Any]] = []
    for name in filter(None, options.classifiers.split(",")):
        for augment in ("none", "strong") if CLASSIFIERS[name].augment != "none" else ("none",):
            plain, recorded = (step_ms(name, augment, device, way, options.steps) for way in (False, True))
            rows.append(row_of(name, augment, plain, recorded))
    for batch in (32, 64):
        plain, recorded = (fit_step_ms(batch, device, way, options.steps) for way in (False, True))
        rows.append(row_of(f"usk fit, batch {batch}", "", plain, recorded))
    table = Table(title=f"a training step on {torch.cuda.get_device_name(device)}")
    for column in rows[0]:
        table.add_column(column, justify="left" if column in ("network", "augment") else "right")
    for row in rows:
        table.add_row(*map(str, row.values()))
    Console().print(table)
    if options.json:
        found = {"device": torch.cuda.get_device_name(device), "steps": options.steps, "rows": rows}
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
