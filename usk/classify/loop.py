"""Train one classifier on features: optimizer steps, epoch selection, checkpoints, test probabilities."""

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
from usk.classify.feature_table import ConcatenatedRows, FeatureTable, TrainingData
from usk.classify.networks import Standardized
from usk.classify.recipe import ClassifierPreset
from usk.device import autocast
from usk.errors import UskError
from usk.replay import ReplayedStep, TrainStep, make_replayable, replayable, undo_replayable

BATCH_NORM_CLIPS = 128  # clips from which batch-norm statistics are re-estimated
BATCH_NORM_BATCH = 128
PREDICT_BATCH = 64  # fits a processor's cache better than larger batches

AfterEpoch = Callable[[int, float], None]  # called with the epoch and the latest validation accuracy


@dataclass(frozen=True, eq=False)
class TrainTask:
    """The settings and rows that define the training of one classifier. Picklable."""

    classifier: dict[str, Any]  # arguments of its `AudioClassifier`
    augment: str
    seed: int
    epochs: int
    steps: int  # in all, a multiple of the epochs
    batch: int
    learning_rate: float
    precision: str
    validate_every: int  # in epochs; the last epoch is always validated
    select_after: int  # epochs up to this one are not selected
    window: int  # number of validations whose mean accuracy selects the epoch
    parts: tuple[tuple[str, np.ndarray], ...]  # the training clips: names of tables, and rows of them
    synthetic: np.ndarray  # bool for each of those rows, in order
    use: ClipUse
    validation: np.ndarray  # rows of `real`
    test: np.ndarray  # rows of `real`
    out: Path  # folder of the checkpoint
    name: str  # of the run

    @property
    def table_names(self) -> list[str]:
        """Return the names of the sources whose clips train, validate or test."""
        return list(dict.fromkeys(["real", *(name for name, _ in self.parts)]))


@dataclass(frozen=True, eq=False)
class TrainedClassifier:
    """A trained classifier on the CPU, and its results."""

    probabilities: np.ndarray  # of the test clips [n_test, n_classes]
    classifier: AudioClassifier
    history: list[dict[str, Any]]  # loss and validation of each epoch
    best_epoch: int
    validation_accuracy: float  # mean over the window that selected the epoch; NaN without validation clips
    took_s: float


class Training:
    """The optimizer steps of one network: batches, augmentation, learning rate and loss."""

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
        """`data` is on the device of `model`. `steps` is the number of steps in all, for the learning-rate schedule. `seed` draws
        the batches and the augmentation. `synthetic` (bool [n]) marks the clips to which `use` applies."""
        self.model, self.recipe, self.features, self.labels = model, recipe, data.features, data.labels
        self.steps, self.batch, self.learning_rate, self.precision = steps, batch, learning_rate, precision
        self.augmentations = recipe.augmentations(augment)
        self.optimizer = torch.optim.AdamW(
            model.parameters(), lr=learning_rate, weight_decay=recipe.weight_decay, fused=True
        )
        self.loss_function = nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing, reduction="none")
        self.generator = torch.Generator().manual_seed(seed)
        is_synthetic = torch.zeros(len(self.features), dtype=torch.bool)
        if synthetic is not None:
            is_synthetic |= torch.from_numpy(synthetic)
        self.use, self.real_only_from = use, steps - round(use.real_last * steps)
        self.weights = torch.where(is_synthetic, use.synthetic_weight, 1.0).to(self.features.device)
        pools = {"all": torch.ones_like(is_synthetic), "real": ~is_synthetic, "synthetic": is_synthetic}
        self.pools = {name: torch.nonzero(members).flatten() for name, members in pools.items()}
        self.queues = {name: torch.empty(0, dtype=torch.int64) for name in pools}  # shuffled, unused rows
        self.done = 0
        self._optimize: TrainStep | None = None

    def step(self) -> torch.Tensor:
        """Take one step. Return its loss, a scalar on the device, without waiting for the device."""
        optimize = self._optimize or self._prepare_step()
        if self.recipe.cosine:
            warm_up = min(1.0, (self.done + 1) / max(1, round(0.05 * self.steps)))
            decay = 0.5 * (1 + math.cos(math.pi * self.done / self.steps))
            self._set_learning_rate(self.learning_rate * warm_up * decay)
        rows = self._next_rows().to(self.features.device)
        batch = self.features[rows].float()
        augmented = augment_batch(batch, self.augmentations, self.generator, self.recipe.features.sounding)
        # A recorded step takes tensors only: leave out None.
        mixup = [tensor for tensor in (augmented.partners, augmented.shares) if tensor is not None]
        self.done += 1
        return optimize(augmented.batch, self.labels[rows], self.weights[rows], *mixup).clone()

    def _next_rows(self) -> torch.Tensor:
        """Return the rows of the next batch."""
        if self.done >= self.real_only_from:
            return self._take("real", self.batch)
        if self.use.real_share is None:
            return self._take("all", self.batch)
        n_real = max(1, round(self.use.real_share * self.batch))
        return torch.cat((self._take("real", n_real), self._take("synthetic", self.batch - n_real)))

    def _take(self, pool: str, n: int) -> torch.Tensor:
        """Take the next `n` rows of a pool. The pool is shuffled again whenever all its rows were taken."""
        rows, queue = self.pools[pool], self.queues[pool]
        while len(queue) < n:
            queue = torch.cat((queue, rows[torch.randperm(len(rows), generator=self.generator)]))
        self.queues[pool] = queue[n:]
        return queue[:n]

    def _prepare_step(self) -> TrainStep:
        """Return the function that takes an optimizer step, recorded as a CUDA graph where that is possible."""
        device = self.features.device
        # The function must not hold `self`: a reference cycle would keep features and the recorded step in memory.
        step: TrainStep = partial(_step, self.model, self.optimizer, self.loss_function, self.precision)
        # A transformer keeps a device busy by itself, and not all transformers can be recorded.
        if self.recipe.transformer is None and replayable(self.optimizer, device):
            make_replayable(self.optimizer, device)
            step = ReplayedStep(step, device)
        self._optimize = step
        return step

    def _set_learning_rate(self, rate: float) -> None:
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], torch.Tensor):
                group["lr"].fill_(rate)  # a recorded step reads this tensor
            else:
                group["lr"] = rate

    def reestimate_batch_norm(self, features: torch.Tensor) -> None:
        """Estimate the batch-norm statistics again from features [n, bands, frames] without augmentation.

        The running statistics come from augmented and mixed clips, but clips are tested as they are ("precise BatchNorm",
        Wu and Johnson, arXiv 2105.07576). A network without batch norm does not change.
        """
        if isinstance(self.model, Standardized):
            features = torch.cat(self.model.windows(features))
        batches = features.chunk(math.ceil(len(features) / BATCH_NORM_BATCH))  # of equal size and weight
        with autocast(features.device, self.precision):
            update_bn((batch.float() for batch in batches), self.model)

    def state(self) -> dict[str, Any]:
        """Return all that `resume` needs besides the model's weights."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "draw": self.generator.get_state(),
            "orders": dict(self.queues),
        }

    def resume(self, state: Mapping[str, Any], done: int) -> None:
        """Continue from `state` after `done` steps."""
        self.optimizer.load_state_dict(state["optimizer"])
        undo_replayable(self.optimizer)
        self._optimize = None  # a recorded step uses the old optimizer state
        self.generator.set_state(state["draw"])
        self.queues, self.done = dict(state["orders"]), done


def _step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss_function: nn.Module,
    precision: str,
    batch: torch.Tensor,
    labels: torch.Tensor,
    weights: torch.Tensor,
    partners: torch.Tensor | None = None,
    shares: torch.Tensor | None = None,
) -> torch.Tensor:
    """Run forward and backward passes and the optimizer's step. Return the loss, a scalar."""
    optimizer.zero_grad(set_to_none=True)
    with autocast(batch.device, precision):
        logits = model(batch)
        loss = Augmented(batch, partners, shares).loss(partial(loss_function, logits), labels, weights)
    loss.backward()
    optimizer.step()
    return loss.detach()


class EpochSelector:
    """Selects the epoch with the best mean validation accuracy, then log-likelihood, over the last `task.window` validations.

    On a few dozen recordings a single validation is mostly luck. So is an early validation if the learning rate still decays.
    The published protocol has a window of 1 and considers all epochs.
    """

    def __init__(self, task: TrainTask) -> None:
        self.task = task
        self.recent: list[tuple[float, float]] = []  # accuracy and mean log-likelihood of each validation
        # Score, epoch and weights of the selected epoch.
        self.best: tuple[tuple[float, ...], int, dict[str, torch.Tensor]] | None = None

    def consider(self, epoch: int, accuracy: float, likelihood: float, model: nn.Module) -> None:
        """Select `epoch` if it is the best so far. Without validation clips (NaN), the last epoch is selected."""
        self.recent.append((accuracy, likelihood))
        if epoch <= self.task.select_after:
            return
        score = tuple(np.mean(self.recent[-self.task.window :], axis=0).tolist())
        if self.best is None or math.isnan(accuracy) or score >= self.best[0]:
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
    """Train one classifier, or resume its training from a checkpoint. Raises UskError if the loss is not finite."""
    started = time.monotonic()
    features: torch.Tensor | ConcatenatedRows
    features = ConcatenatedRows([(tables[name].features, rows) for name, rows in task.parts])
    if device.type == "cuda":  # copy the rows once, so that each step needs one look-up
        features = features[torch.arange(len(features), device=device)]
    labels = torch.cat([tables[name].labels[rows.tolist()] for name, rows in task.parts]).to(device)
    data = TrainingData(features, labels)
    model: Any = _new_model(task, recipe, features, device)
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
    steps_per_epoch = task.steps // task.epochs
    selector, history, spent_s = EpochSelector(task), [], 0.0
    losses: list[torch.Tensor] = []  # of this epoch's steps
    if (saved := checkpoint.load()) is not None:
        model.load_state_dict(saved["model"])
        selector.recent, selector.best = saved["recent"], saved["best"]
        history, spent_s = saved["history"], saved["spent_s"]
        losses = [loss.to(device) for loss in saved["losses"]]
        training.resume(saved, len(history) * steps_per_epoch + len(losses))

    def save_checkpoint() -> None:
        results = {"history": history, "recent": selector.recent, "best": selector.best, "losses": losses}
        elapsed_s = spent_s + time.monotonic() - started
        checkpoint.save({"model": model.state_dict(), **training.state(), **results, "spent_s": elapsed_s})

    for epoch in range(len(history) + 1, task.epochs + 1):
        model.train()
        while len(losses) < steps_per_epoch:
            losses.append(training.step())
            if checkpoint.is_due:
                save_checkpoint()
        loss = float(torch.stack(losses).double().mean())
        losses.clear()
        if not math.isfinite(loss):
            checkpoint.remove()
            raise UskError(
                f"the training of {task.name} diverged in epoch {epoch}: its loss is not a number (NaN)",
                hint=f"Choose a lower learning rate than {task.learning_rate:g}.",
            )
        history.append({"epoch": epoch, "loss": round(loss, 5)})
        if (task.epochs - epoch) % task.validate_every == 0:
            training.reestimate_batch_norm(batch_norm_clips)
            accuracy, likelihood = _validate(model, tables["real"], task, device)
            history[-1] |= {
                "validation_accuracy": round_or_none(accuracy),
                "validation_loss": round_or_none(-likelihood),
            }
            selector.consider(epoch, accuracy, likelihood, model)
        if checkpoint.is_due:
            save_checkpoint()
        after_epoch(epoch, selector.last_accuracy)
    assert selector.best is not None
    score, best_epoch, weights = selector.best
    model.load_state_dict(weights)
    probabilities = _probabilities(model, tables["real"].features, task.test, task.precision, device)
    classifier = model.cpu().to(memory_format=torch.contiguous_format)
    took_s = spent_s + time.monotonic() - started
    return TrainedClassifier(probabilities, classifier, history, best_epoch, score[0], took_s)


def _new_model(
    task: TrainTask, recipe: ClassifierPreset, features: torch.Tensor | ConcatenatedRows, device: torch.device
) -> AudioClassifier:
    torch.manual_seed(task.seed)
    model = AudioClassifier(**task.classifier)
    probe_rows = torch.arange(0, len(features), max(1, len(features) // 512), device=features.device)
    model.initialize(recipe, features[probe_rows].float())
    return model.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _batch_norm_clips(
    task: TrainTask, tables: Mapping[str, FeatureTable], data: TrainingData
) -> torch.Tensor:
    """Return features of real training clips, since real clips are tested. Without real clips, return those of any."""
    real = [rows for name, rows in task.parts if name == "real"]
    if not real:
        rows = torch.arange(len(data.features), device=data.features.device)
        return data.features[evenly_spaced(rows, BATCH_NORM_CLIPS)]
    return tables["real"].features[evenly_spaced(real[-1], BATCH_NORM_CLIPS).tolist()]


def evenly_spaced(rows: Any, max_rows: int) -> Any:
    """Return at most `max_rows` evenly spaced rows of an array or a tensor."""
    return rows[:: math.ceil(len(rows) / max_rows)]


def round_or_none(value: float) -> float | None:
    """Round for JSON. Return None for NaN, which means that there were no validation clips."""
    return None if math.isnan(value) else round(value, 5)


def _validate(
    model: nn.Module, real: FeatureTable, task: TrainTask, device: torch.device
) -> tuple[float, float]:
    """Return accuracy and mean log-likelihood on the validation clips, or NaN without any."""
    if not len(task.validation):
        return math.nan, math.nan
    probabilities = _probabilities(model, real.features, task.validation, task.precision, device)
    truth = real.labels[task.validation].numpy()
    accuracy = float((probabilities.argmax(axis=1) == truth).mean())
    return accuracy, float(np.log(probabilities[np.arange(len(truth)), truth] + 1e-9).mean())


def _probabilities(
    model: nn.Module, features: torch.Tensor, rows: np.ndarray, precision: str, device: torch.device
) -> np.ndarray:
    """Return the class probabilities of the given rows, float32 [len(rows), n_classes]."""
    model.eval()
    batches = []
    with torch.no_grad():
        for start in range(0, len(rows), PREDICT_BATCH):
            batch = features[rows[start : start + PREDICT_BATCH].tolist()].float()
            with autocast(device, precision):
                batches.append(model(batch).float().softmax(dim=1).cpu())
    return torch.cat(batches).numpy()
