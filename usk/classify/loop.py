"""Training one classifier on features: optimizer steps, the choice of the epoch, test probabilities."""

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
from torch.optim.swa_utils import update_bn

from usk.classify.augment import Augmented, augment_batch
from usk.classify.checkpoint import Checkpoint
from usk.classify.classifier import AudioClassifier
from usk.classify.config import ClipUse
from usk.classify.feature_table import FeatureTable, Gathered, TrainingData
from usk.classify.networks import Standardized
from usk.classify.recipe import ClassifierPreset
from usk.device import autocast
from usk.errors import UskError
from usk.replay import Learn, Replayed, make_plain, make_replayable, replayable

BATCH_NORM_CLIPS = 128  # that its statistics are re-estimated from
BATCH_NORM_BATCH = 128
PREDICTED_AT_ONCE = 64  # fits a processor's cache better than larger batches

AfterEpoch = Callable[[int, float], None]  # epoch, the last validation accuracy there is


@dataclass(frozen=True, eq=False)
class TrainTask:
    """One classifier to train: all that decides it, with its preset and the tables. Picklable."""

    classifier: dict[str, Any]  # what its `AudioClassifier` is made with
    augment: str
    seed: int
    epochs: int
    steps: int  # in all, a multiple of the epochs
    batch: int
    learning_rate: float
    precision: str
    validated_every: int  # epochs; the last one always is
    chosen_after: int  # epochs, of which none is chosen
    window: int  # validations whose mean accuracy chooses the epoch
    parts: tuple[tuple[str, np.ndarray], ...]  # table, rows: what it trains on
    synthetic: np.ndarray  # bool, of each of those rows in turn
    use: ClipUse
    validation: np.ndarray  # rows of `real`
    test: np.ndarray
    out: Path  # where its checkpoint is kept while it trains
    name: str  # of the run it will be


def tables_of(task: TrainTask) -> list[str]:
    """The sources whose clips a task trains on, validates or tests with."""
    return list(dict.fromkeys(["real", *(name for name, _ in task.parts)]))


@dataclass(frozen=True, eq=False)
class TrainedClassifier:
    """A trained classifier on the CPU, and its test probabilities [n_test, n_classes]."""

    probabilities: np.ndarray
    classifier: AudioClassifier
    history: list[dict[str, Any]]
    best_epoch: int
    validation_accuracy: float  # that chose it; NaN without validation clips
    took_s: float


class Training:
    """Optimizer steps of one network on features: its batches, augmentation, learning rate and loss."""

    def __init__(
        self,
        model: nn.Module,
        recipe: ClassifierPreset,
        data: TrainingData,
        *,
        steps: int,
        batch: int,
        learning_rate: float,
        augment: str,
        precision: str,
        seed: int,
        synthetic: np.ndarray | None = None,
        use: ClipUse = ClipUse(),
    ) -> None:
        """`data` lies on the device that `model` is on; `steps` are all there will be, which the learning rate goes by.
        Batches and augmentation are drawn from `seed` alone. `synthetic` [n] says which clips `use` means; without, it does
        nothing."""
        self.model, self.recipe, self.features, self.labels = model, recipe, data.features, data.labels
        self.steps, self.batch, self.learning_rate, self.precision = steps, batch, learning_rate, precision
        self.augmentations = recipe.augmentations(augment)
        self.optimizer = torch.optim.AdamW(
            model.parameters(), lr=learning_rate, weight_decay=recipe.weight_decay, fused=True
        )
        self.losses_of = nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing, reduction="none")
        self.draw = torch.Generator().manual_seed(seed)
        made = torch.zeros(len(self.features), dtype=torch.bool)
        made |= False if synthetic is None else torch.from_numpy(synthetic)
        self.use, self.real_only_from = use, steps - round(use.real_last * steps)
        self.weights = torch.where(made, use.synthetic_weight, 1.0).to(self.features.device)
        pools = {"all": torch.ones_like(made), "real": ~made, "synthetic": made}
        self.pools = {name: torch.nonzero(chosen).flatten() for name, chosen in pools.items()}
        self.orders = {name: torch.empty(0, dtype=torch.int64) for name in pools}  # drawn and not used yet
        self.done = 0
        self._learn_from: Learn | None = None

    def step(self) -> torch.Tensor:
        """One step; returns its loss, a scalar on the device, which nothing waits for."""
        learn = self._learn_from or self._begin()
        if self.recipe.cosine:
            warm_up = min(1.0, (self.done + 1) / max(1, round(0.05 * self.steps)))
            decay = 0.5 * (1 + math.cos(math.pi * self.done / self.steps))
            self._set_rate(self.learning_rate * warm_up * decay)
        chosen = self._next_rows().to(self.features.device)
        batch = self.features[chosen].float()
        made = augment_batch(batch, self.augmentations, self.draw, self.recipe.features.sounding)
        mixed = () if made.partners is None or made.shares is None else (made.partners, made.shares)
        self.done += 1
        return learn(made.batch, self.labels[chosen], self.weights[chosen], *mixed).clone()

    def _next_rows(self) -> torch.Tensor:
        """The rows of the next batch."""
        if self.done >= self.real_only_from:
            return self._take("real", self.batch)
        if self.use.real_share is None:
            return self._take("all", self.batch)
        n_real = max(1, round(self.use.real_share * self.batch))
        return torch.cat((self._take("real", n_real), self._take("synthetic", self.batch - n_real)))

    def _take(self, pool: str, n: int) -> torch.Tensor:
        """The next rows of a pool, each once before any comes again."""
        rows, order = self.pools[pool], self.orders[pool]
        while len(order) < n:  # fewer clips than are taken: some come twice
            order = torch.cat((order, rows[torch.randperm(len(rows), generator=self.draw)]))
        self.orders[pool] = order[n:]
        return order[:n]

    def _begin(self) -> Learn:
        """How a batch is learned from, on this device."""
        device = self.features.device
        # Without `self`: a cycle would keep features and a recorded step in memory for who knows how long.
        self._learn_from = partial(_learn, self.model, self.optimizer, self.losses_of, self.precision)
        # A transformer keeps a device busy by itself, and its code need not be one that can be recorded.
        if self.recipe.transformer is None and replayable(self.optimizer, device):
            make_replayable(self.optimizer, device)
            self._learn_from = Replayed(self._learn_from, device)
        return self._learn_from

    def _set_rate(self, rate: float) -> None:
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], torch.Tensor):
                group["lr"].fill_(rate)  # where a recorded step reads it
            else:
                group["lr"] = rate

    def reestimate_batch_norm(self, features: torch.Tensor) -> None:
        """Estimate the statistics of batch normalization anew, on clips as they are tested: without augmentation.

        While it trains, a network normalizes by batches of augmented and mixed clips, and what it keeps of them for later is
        their average over the last few dozen steps (Wu and Johnson, arXiv 2105.07576: "precise BatchNorm"). `features`
        [n, bands, frames]. Without such layers nothing happens.
        """
        parts = torch.cat(self.model.windows(features)) if isinstance(self.model, Standardized) else features
        batches = parts.chunk(math.ceil(len(parts) / BATCH_NORM_BATCH))  # of one size: each counts alike
        with autocast(features.device, self.precision):
            update_bn((batch.float() for batch in batches), self.model)

    def state(self) -> dict[str, Any]:
        """What it takes to go on, with the model's weights."""
        return {
            "optimizer": self.optimizer.state_dict(), "draw": self.draw.get_state(), "orders": dict(self.orders)
        }  # fmt: skip

    def go_on(self, state: Mapping[str, Any], done: int) -> None:
        """Continue from `state`, after that many steps."""
        self.optimizer.load_state_dict(state["optimizer"])
        make_plain(self.optimizer)
        self._learn_from = None  # what was recorded knows the state of before
        self.draw.set_state(state["draw"])
        self.orders, self.done = dict(state["orders"]), done


def _learn(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    losses_of: nn.Module,
    precision: str,
    batch: torch.Tensor,
    labels: torch.Tensor,
    weights: torch.Tensor,
    partners: torch.Tensor | None = None,
    shares: torch.Tensor | None = None,
) -> torch.Tensor:
    """Forwards, backwards, and the optimizer's step; returns the loss."""
    optimizer.zero_grad(set_to_none=True)
    with autocast(batch.device, precision):
        logits = model(batch)
        loss = Augmented(batch, partners, shares).loss(partial(losses_of, logits), labels, weights)
    loss.backward()
    optimizer.step()
    return loss.detach()


class EpochChoice:
    """The epoch with the best mean validation accuracy (then likelihood) over its own validation and those before.

    On a few dozen recordings a single validation is mostly luck, and so is an early one where the learning rate decays to
    nothing. The published protocol takes the single best of all.
    """

    def __init__(self, task: TrainTask) -> None:
        self.task = task
        self.recent: list[tuple[float, float]] = []  # accuracy and mean log-likelihood of each validation
        # Score, epoch, weights.
        self.best: tuple[tuple[float, ...], int, dict[str, torch.Tensor]] | None = None

    def consider(self, epoch: int, accuracy: float, likelihood: float, model: nn.Module) -> None:
        self.recent.append((accuracy, likelihood))
        score = tuple(np.mean(self.recent[-self.task.window :], axis=0).tolist())
        if epoch > self.task.chosen_after and (
            self.best is None or math.isnan(accuracy) or score >= self.best[0]
        ):
            self.best = (score, epoch, copy.deepcopy(model.state_dict()))

    @property
    def last_accuracy(self) -> float:
        return self.recent[-1][0] if self.recent else math.nan


def fit_classifier(
    task: TrainTask,
    recipe: ClassifierPreset,
    tables: Mapping[str, FeatureTable],
    device: torch.device,
    after_epoch: AfterEpoch = lambda *_: None,
) -> TrainedClassifier:
    """Train one classifier, from where its checkpoint stands. `recipe` is its preset."""
    started = time.monotonic()
    parts = Gathered([(tables[name].features, rows) for name, rows in task.parts])
    on_cuda = device.type == "cuda"  # where one look-up a step is faster
    data = TrainingData(
        parts[torch.arange(len(parts), device=device)] if on_cuda else parts,
        torch.cat([tables[name].labels[rows.tolist()] for name, rows in task.parts]).to(device),
    )
    model: Any = _new_model(task, recipe, data.features, device)
    training = Training(
        model,
        recipe,
        data,
        steps=task.steps,
        batch=task.batch,
        learning_rate=task.learning_rate,
        augment=task.augment,
        precision=task.precision,
        seed=task.seed,
        synthetic=task.synthetic,
        use=task.use,
    )
    batch_norm_clips = _batch_norm_clips(task, tables, data)
    checkpoint = Checkpoint(task.out, task.name, device)
    per_epoch = task.steps // task.epochs
    choice, history, spent_s = EpochChoice(task), [], 0.0
    losses: list[torch.Tensor] = []  # of this epoch's steps
    if (kept := checkpoint.load()) is not None:
        model.load_state_dict(kept["model"])
        choice.recent, choice.best = kept["recent"], kept["best"]
        history, spent_s = kept["history"], kept["spent_s"]
        losses = [loss.to(device) for loss in kept["losses"]]
        training.go_on(kept, len(history) * per_epoch + len(losses))

    def keep() -> None:
        so_far = {"history": history, "recent": choice.recent, "best": choice.best, "losses": losses}
        elapsed_s = spent_s + time.monotonic() - started
        checkpoint.keep({"model": model.state_dict(), **training.state(), **so_far, "spent_s": elapsed_s})

    for epoch in range(len(history) + 1, task.epochs + 1):
        model.train()
        while len(losses) < per_epoch:
            losses.append(training.step())
            if checkpoint.is_due:
                keep()
        loss = float(torch.stack(losses).double().mean())
        losses.clear()
        if not math.isfinite(loss):
            checkpoint.remove()
            raise UskError(
                f"the training of {task.name} diverged in epoch {epoch}: its loss is not a number (NaN)",
                hint=f"Choose a lower learning rate than {task.learning_rate:g}.",
            )
        history.append({"epoch": epoch, "loss": round(loss, 5)})
        if (task.epochs - epoch) % task.validated_every == 0:
            training.reestimate_batch_norm(batch_norm_clips)
            accuracy, likelihood = _validate(model, tables["real"], task, device)
            history[-1] |= {
                "validation_accuracy": rounded(accuracy),
                "validation_loss": rounded(-likelihood),
            }
            choice.consider(epoch, accuracy, likelihood, model)
        if checkpoint.is_due:
            keep()
        after_epoch(epoch, choice.last_accuracy)
    assert choice.best is not None
    score, best_epoch, weights = choice.best
    model.load_state_dict(weights)
    probabilities = _probabilities(model, tables["real"].features, task.test, task.precision, device)
    classifier = model.cpu().to(memory_format=torch.contiguous_format)
    took_s = spent_s + time.monotonic() - started
    return TrainedClassifier(probabilities, classifier, history, best_epoch, score[0], took_s)


def _new_model(
    task: TrainTask, recipe: ClassifierPreset, features: torch.Tensor | Gathered, device: torch.device
) -> AudioClassifier:
    torch.manual_seed(task.seed)
    model = AudioClassifier(**task.classifier)
    model.begin(
        recipe,
        features[
            torch.arange(0, len(features), max(1, len(features) // 512), device=features.device)
        ].float(),
    )
    return model.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _batch_norm_clips(
    task: TrainTask, tables: Mapping[str, FeatureTable], data: TrainingData
) -> torch.Tensor:
    """Features of real clips that train, since those are what will be classified; without any, of whatever trains."""
    real = [rows for name, rows in task.parts if name == "real"]
    if not real:
        features = data.features
        return features[evenly(torch.arange(len(features), device=features.device), BATCH_NORM_CLIPS)]
    return tables["real"].features[evenly(real[-1], BATCH_NORM_CLIPS).tolist()]


def evenly(rows: Any, most: int) -> Any:
    """At most `most` rows of an array or a tensor, as far apart as each other."""
    return rows[:: math.ceil(len(rows) / most)]


def rounded(value: float) -> float | None:
    """For JSON: None where there were no validation clips."""
    return None if math.isnan(value) else round(value, 5)


def _validate(
    model: nn.Module, real: FeatureTable, task: TrainTask, device: torch.device
) -> tuple[float, float]:
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
        for begin in range(0, len(rows), PREDICTED_AT_ONCE):
            batch = features[rows[begin : begin + PREDICTED_AT_ONCE].tolist()].float()
            with autocast(device, precision):
                parts.append(model(batch).float().softmax(dim=1).cpu())
    return torch.cat(parts).numpy()
