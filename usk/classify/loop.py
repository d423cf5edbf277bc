"""Train one classifier on features: optimizer steps, epoch selection, checkpoints, test probabilities."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
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
from usk.classify.feature_table import BatchSampler, ConcatenatedRows, FeatureTable, TrainingData
from usk.classify.networks import Standardized
from usk.classify.recipe import ClassifierPreset
from usk.device import autocast
from usk.errors import UskError
from usk.replay import ReplayedStep, TrainStep, make_replayable, replayable, undo_replayable

BATCH_NORM_CLIPS = 128  # clips from which batch-norm statistics are re-estimated
BATCH_NORM_BATCH = 128
PREDICT_BATCH = 64  # fits a processor's cache better than larger batches

AfterEpoch = Callable[[int, float], None]  # called with the epoch and the latest validation accuracy
Tables = Mapping[str, FeatureTable]  # by the name of their source


@dataclass(frozen=True, eq=False, kw_only=True)
class StepSettings:
    """What the optimizer steps of a training depend on, besides its recipe and its clips."""

    steps: int  # in all, for the schedule of the learning rate
    batch: int
    learning_rate: float
    augment: str
    precision: str
    seed: int  # of the batches and the augmentation
    synthetic: np.ndarray | None = None  # bool for each training clip: those to which `use` applies
    use: ClipUse = field(default_factory=ClipUse)


@dataclass(frozen=True, eq=False, kw_only=True)
class TrainTask(StepSettings):
    """The settings and rows that define the training of one classifier. Picklable."""

    classifier: dict[str, Any]  # arguments of its `AudioClassifier`
    epochs: int  # of which the steps are a multiple
    validate_every: int  # in epochs; the last epoch is always validated
    select_after: int  # epochs up to this one are not selected
    window: int  # number of validations whose mean accuracy selects the epoch
    parts: tuple[tuple[str, np.ndarray], ...]  # the training clips: names of tables, and rows of them
    validation: np.ndarray  # rows of `real`
    test: np.ndarray  # rows of `real`
    out: Path  # folder of the checkpoint
    name: str  # of the run

    @property
    def table_names(self) -> list[str]:
        """Return the names of the sources whose clips train, validate or test."""
        return list(dict.fromkeys(["real", *(name for name, _ in self.parts)]))

    @property
    def steps_per_epoch(self) -> int:
        return self.steps // self.epochs


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
        self, model: nn.Module, recipe: ClassifierPreset, data: TrainingData, settings: StepSettings
    ) -> None:
        """`data` is on the device of `model`."""
        self.model, self.recipe, self.features, self.labels = model, recipe, data.features, data.labels
        self.settings, self.augmentations = settings, recipe.augmentations(settings.augment)
        self.optimizer = torch.optim.AdamW(
            model.parameters(), lr=settings.learning_rate, weight_decay=recipe.weight_decay, fused=True
        )
        self.loss_function = nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing, reduction="none")
        self.generator = torch.Generator().manual_seed(settings.seed)  # of batches and augmentations, in turn
        is_synthetic = torch.zeros(len(self.features), dtype=torch.bool)
        if settings.synthetic is not None:
            is_synthetic |= torch.from_numpy(settings.synthetic)
        weights = torch.where(is_synthetic, settings.use.synthetic_weight, 1.0)
        self.weights = weights.to(self.features.device)
        self.sampler = BatchSampler(
            is_synthetic, settings.use, settings.batch, settings.steps, self.generator
        )
        self.done = 0
        self._optimize: TrainStep | None = None

    def step(self) -> torch.Tensor:
        """Take one step. Return its loss, a scalar on the device, without waiting for the device."""
        optimize = self._optimize or self._prepare_step()
        if self.recipe.cosine:
            steps = self.settings.steps
            warm_up = min(1.0, (self.done + 1) / max(1, round(0.05 * steps)))
            decay = 0.5 * (1 + math.cos(math.pi * self.done / steps))
            self._set_learning_rate(self.settings.learning_rate * warm_up * decay)
        rows = self.sampler.next_rows(self.done).to(self.features.device)
        batch = self.features[rows].float()
        augmented = augment_batch(batch, self.augmentations, self.generator, self.recipe.features.sounding)
        # A recorded step takes tensors only: leave out None.
        mixup = [tensor for tensor in (augmented.partners, augmented.shares) if tensor is not None]
        self.done += 1
        return optimize(augmented.batch, self.labels[rows], self.weights[rows], *mixup).clone()

    def _prepare_step(self) -> TrainStep:
        """Return the function that takes an optimizer step, recorded as a CUDA graph where that is possible."""
        device = self.features.device
        # The function must not hold `self`: a reference cycle would keep features and the recorded step in memory.
        step: TrainStep = partial(
            _step, self.model, self.optimizer, self.loss_function, self.settings.precision
        )
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
        with autocast(features.device, self.settings.precision):
            update_bn((batch.float() for batch in batches), self.model)

    def state(self) -> dict[str, Any]:
        """Return all that `resume` needs besides the model's weights."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "draw": self.generator.get_state(),
            "orders": dict(self.sampler.queues),
        }

    def resume(self, state: Mapping[str, Any], done: int) -> None:
        """Continue from `state` after `done` steps."""
        self.optimizer.load_state_dict(state["optimizer"])
        undo_replayable(self.optimizer)
        self._optimize = None  # a recorded step uses the old optimizer state
        self.generator.set_state(state["draw"])
        self.sampler.queues, self.done = dict(state["orders"]), done


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


class _Fit:
    """One training on its way: its model, its epochs, and the checkpoint of all of it."""

    def __init__(
        self, task: TrainTask, recipe: ClassifierPreset, tables: Tables, device: torch.device
    ) -> None:
        self.started, self.spent_s = time.monotonic(), 0.0  # now, and before the checkpoint
        self.task, self.real, self.device = task, tables["real"], device
        data = _training_data(task, tables, device)
        self.model: Any = _new_model(task, recipe, data.features, device)
        self.training = Training(self.model, recipe, data, task)
        self.batch_norm_clips = _batch_norm_clips(task, tables, data)
        self.checkpoint = Checkpoint(task.out, task.name, device)
        self.selector, self.history = EpochSelector(task), list[dict[str, Any]]()
        self.losses: list[torch.Tensor] = []  # of this epoch's steps
        if (saved := self.checkpoint.load()) is not None:
            self._resume(saved)

    @property
    def took_s(self) -> float:
        return self.spent_s + time.monotonic() - self.started

    def _resume(self, saved: dict[str, Any]) -> None:
        self.model.load_state_dict(saved["model"])
        self.selector.recent, self.selector.best = saved["recent"], saved["best"]
        self.history, self.spent_s = saved["history"], saved["spent_s"]
        self.losses = [loss.to(self.device) for loss in saved["losses"]]
        self.training.resume(saved, len(self.history) * self.task.steps_per_epoch + len(self.losses))

    def save_if_due(self) -> None:
        if self.checkpoint.is_due:
            epochs = {"history": self.history, "losses": self.losses, "spent_s": self.took_s}
            selected = {"recent": self.selector.recent, "best": self.selector.best}
            weights = {"model": self.model.state_dict(), **self.training.state()}
            self.checkpoint.save({**weights, **epochs, **selected})

    def train_epoch(self, epoch: int) -> None:
        """Take the steps of an epoch. Raises UskError, and removes the checkpoint, if the loss is not finite."""
        self.model.train()
        while len(self.losses) < self.task.steps_per_epoch:
            self.losses.append(self.training.step())
            self.save_if_due()
        loss = float(torch.stack(self.losses).double().mean())
        self.losses.clear()
        if not math.isfinite(loss):
            self.checkpoint.remove()
            raise UskError(
                f"the training of {self.task.name} diverged in epoch {epoch}: its loss is not a number (NaN)",
                hint=f"Choose a lower learning rate than {self.task.learning_rate:g}.",
            )
        self.history.append({"epoch": epoch, "loss": round(loss, 5)})

    def validate(self, epoch: int) -> None:
        self.training.reestimate_batch_norm(self.batch_norm_clips)
        accuracy, likelihood = _validate(self.model, self.real, self.task, self.device)
        results = {"validation_accuracy": accuracy, "validation_loss": -likelihood}
        self.history[-1] |= {name: round_or_none(value) for name, value in results.items()}
        self.selector.consider(epoch, accuracy, likelihood, self.model)


def fit_classifier(
    task: TrainTask,
    recipe: ClassifierPreset,
    tables: Tables,
    device: torch.device,
    after_epoch: AfterEpoch = lambda *_: None,
) -> TrainedClassifier:
    """Train one classifier, or resume its training from a checkpoint. Raises UskError if the loss is not finite."""
    fit = _Fit(task, recipe, tables, device)
    recent = fit.selector.recent
    for epoch in range(len(fit.history) + 1, task.epochs + 1):
        fit.train_epoch(epoch)
        if (task.epochs - epoch) % task.validate_every == 0:
            fit.validate(epoch)
        fit.save_if_due()
        after_epoch(epoch, recent[-1][0] if recent else math.nan)
    assert fit.selector.best is not None
    score, best_epoch, weights = fit.selector.best
    fit.model.load_state_dict(weights)
    probabilities = _probabilities(fit.model, fit.real.features, task.test, task.precision, device)
    classifier = fit.model.cpu().to(memory_format=torch.contiguous_format)
    return TrainedClassifier(probabilities, classifier, fit.history, best_epoch, score[0], fit.took_s)


def _training_data(task: TrainTask, tables: Tables, device: torch.device) -> TrainingData:
    features: torch.Tensor | ConcatenatedRows
    features = ConcatenatedRows([(tables[name].features, rows) for name, rows in task.parts])
    if device.type == "cuda":  # copy the rows once, so that each step needs one look-up
        features = features[torch.arange(len(features), device=device)]
    labels = torch.cat([tables[name].labels[rows.tolist()] for name, rows in task.parts])
    return TrainingData(features, labels.to(device))


def _new_model(
    task: TrainTask, recipe: ClassifierPreset, features: torch.Tensor | ConcatenatedRows, device: torch.device
) -> AudioClassifier:
    torch.manual_seed(task.seed)
    model = AudioClassifier(**task.classifier)
    probe_rows = torch.arange(0, len(features), max(1, len(features) // 512), device=features.device)
    model.initialize(recipe, features[probe_rows].float())
    return model.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _batch_norm_clips(task: TrainTask, tables: Tables, data: TrainingData) -> torch.Tensor:
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
