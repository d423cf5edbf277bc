"""Training one classifier on features: optimiser steps, the choice of the epoch, test probabilities."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from usk.classify.augment import augment_batch
from usk.classify.checkpoint import Checkpoint
from usk.classify.classifier import AudioClassifier
from usk.classify.models import ClassifierPreset
from usk.device import autocast

AfterEpoch = Callable[[int, float], None]  # epoch, its validation accuracy


@dataclass(frozen=True, eq=False)
class Table:
    """What a source is to a classifier: features [n, bands, frames] on the device, labels int64 [n]."""

    features: torch.Tensor
    labels: torch.Tensor


@dataclass(frozen=True, eq=False)
class Assignment:
    """One classifier to train: all that decides it, beside its preset and the tables. Picklable."""

    classifier: dict[str, Any]  # what its `AudioClassifier` is made with
    augment: str
    seed: int
    epochs: int
    steps: int  # in all, a multiple of the epochs
    batch: int
    learning_rate: float
    precision: str
    window: int  # epochs whose mean validation accuracy chooses the epoch
    parts: tuple[tuple[str, np.ndarray], ...]  # table, rows: what it trains on
    validation: np.ndarray  # rows of `real`
    test: np.ndarray
    out: Path  # where its checkpoint is kept while it trains
    name: str  # of the run it will be


@dataclass(frozen=True, eq=False)
class Fitted:
    """A trained classifier on the CPU, and its test probabilities [n_test, n_classes]."""

    probabilities: np.ndarray
    classifier: AudioClassifier
    history: list[dict[str, Any]]
    best_epoch: int
    validation_accuracy: float  # that chose it; NaN without validation clips
    took_s: float


def fit_classifier(
    task: Assignment,
    recipe: ClassifierPreset,
    tables: Mapping[str, Table],
    device: torch.device,
    after_epoch: AfterEpoch = lambda *_: None,
) -> Fitted:
    """Train one classifier, from where its checkpoint stands. `recipe` is its preset."""
    started = time.monotonic()
    checkpoint = Checkpoint(task.out, task.name)
    features = torch.cat([tables[name].features[rows.tolist()] for name, rows in task.parts])
    labels = torch.cat([tables[name].labels[rows.tolist()] for name, rows in task.parts]).to(device)
    probe = features[:: max(1, len(features) // 512)].float()
    torch.manual_seed(task.seed)
    model = AudioClassifier(**task.classifier)
    model.begin(recipe, probe)
    model = model.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = recipe.optimiser(model, task.learning_rate, recipe.weight_decay)
    losses_of = nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing, reduction="none")
    augmentations = recipe.augmentations(task.augment)
    draw = torch.Generator().manual_seed(task.seed)
    per_epoch = task.steps // task.epochs
    order = torch.empty(0, dtype=torch.int64)
    spent_s = 0.0
    history: list[dict[str, Any]] = []
    # The epoch with the best mean validation accuracy (then likelihood) over itself and the epochs before: on a few dozen
    # recordings a single epoch's accuracy is mostly luck. The published protocol takes the single best one.
    recent: list[tuple[float, float]] = []
    best: tuple[tuple[float, ...], int, dict[str, torch.Tensor]] | None = None
    if (kept := checkpoint.load()) is not None:
        model.load_state_dict(kept["model"])
        optimiser.load_state_dict(kept["optimiser"])
        draw.set_state(kept["draw"])
        order, history, recent = kept["order"], kept["history"], kept["recent"]
        best, spent_s = kept["best"], kept["spent_s"]
    for epoch in range(len(history) + 1, task.epochs + 1):
        model.train()
        total = 0.0
        for step in range((epoch - 1) * per_epoch, epoch * per_epoch):
            if recipe.cosine:
                warm_up = min(1.0, (step + 1) / max(1, round(0.05 * task.steps)))
                decay = 0.5 * (1 + math.cos(math.pi * step / task.steps))
                for group in optimiser.param_groups:
                    group["lr"] = task.learning_rate * warm_up * decay
            while len(order) < task.batch:  # fewer shots than a batch holds: some come twice
                order = torch.cat((order, torch.randperm(len(features), generator=draw)))
            chosen, order = order[: task.batch], order[task.batch :]
            made = augment_batch(features[chosen.to(device)].float(), augmentations, draw)
            with autocast(device, task.precision):
                logits = model(made.batch)
                loss = made.loss(partial(losses_of, logits), labels[chosen.to(device)])
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            total += float(loss.detach())
        accuracy, likelihood = _validate(model, tables["real"], task, device)
        history.append(
            {
                "epoch": epoch,
                "loss": round(total / per_epoch, 5),
                "validation_accuracy": figure(accuracy),
                "validation_loss": figure(-likelihood),
            }
        )
        recent.append((accuracy, likelihood))
        score = tuple(np.mean(recent[-task.window :], axis=0).tolist())
        if best is None or math.isnan(accuracy) or score >= best[0]:
            best = (score, epoch, copy.deepcopy(model.state_dict()))
        checkpoint.keep(
            {
                "model": model.state_dict(),
                "optimiser": optimiser.state_dict(),
                "draw": draw.get_state(),
                "order": order,
                "history": history,
                "recent": recent,
                "best": best,
                "spent_s": spent_s + time.monotonic() - started,
            }
        )
        after_epoch(epoch, accuracy)
    assert best is not None
    model.load_state_dict(best[2])
    probabilities = _probabilities(model, tables["real"].features, task.test, task.precision, device)
    classifier = model.cpu().to(memory_format=torch.contiguous_format)
    took_s = spent_s + time.monotonic() - started
    return Fitted(probabilities, classifier, history, best[1], best[0][0], took_s)


def figure(value: float) -> float | None:
    """For JSON: None where there were no validation clips."""
    return None if math.isnan(value) else round(value, 5)


def _validate(model: nn.Module, real: Table, task: Assignment, device: torch.device) -> tuple[float, float]:
    """Accuracy and mean log-likelihood on the validation clips; NaN without any (then the last epoch counts)."""
    if not len(task.validation):
        return math.nan, math.nan
    probabilities = _probabilities(model, real.features, task.validation, task.precision, device)
    truth = real.labels[task.validation].numpy()
    accuracy = float((probabilities.argmax(axis=1) == truth).mean())
    return accuracy, float(np.log(probabilities[np.arange(len(truth)), truth] + 1e-9).mean())


def _probabilities(
    model: nn.Module, features: torch.Tensor, rows: np.ndarray, precision: str, device: torch.device
) -> np.ndarray:
    """Class probabilities of some rows: float32 [len(rows), n_classes]."""
    model.eval()
    parts = []
    with torch.no_grad():
        for begin in range(0, len(rows), 128):
            batch = features[rows[begin : begin + 128].tolist()].float()
            with autocast(device, precision):
                parts.append(model(batch).float().softmax(dim=1).cpu())
    return torch.cat(parts).numpy()
