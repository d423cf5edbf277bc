"""A training step of a generator's network: its batch, its loss and its gradients.

The random numbers of step k come from a generator seeded with (seed, k), so that a resumed run gives the same weights as one without
a stop.
"""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from usk.device import autocast, default_precision
from usk.diffusion.fit_config import FitConfig
from usk.diffusion.generator import Generator
from usk.diffusion.mel_pipeline import encode_image
from usk.diffusion.networks import Networks
from usk.diffusion.training_data import FitClips
from usk.replay import ReplayedStep
from usk.reporter import Reporter

VALIDATION_CLIPS = 96
SMALL_PARAMETERS = 30_000_000
"""On CUDA, the step of a network up to this size is recorded once and replayed. Measured with 3.5 million parameters: 1.9 times as
fast. A recorded step holds memory that large networks need, and their kernels hide the launches anyway."""
# Blocks whose kernels are known not to wait for the CPU
RECORDABLE_BLOCKS = {
    f"{way}{kind}"
    for way in ("Down", "Up", "AttnDown", "AttnUp")
    for kind in ("Block2D", "EncoderBlock2D", "DecoderBlock2D")
}

Learn = Callable[..., torch.Tensor]
"""Takes the tensors of a batch, adds the gradient of its loss to the network's, and returns the loss."""


class MelBatch(NamedTuple):
    """A batch of mel images, with all its random numbers."""

    images: torch.Tensor  # [n, 1, n_mels, n_frames]
    labels: torch.Tensor  # int64 [n]; the number of classes for no class
    timesteps: torch.Tensor  # int64 [n]
    noise: torch.Tensor  # [n, *latent shape]


class Trainer(ABC):
    """Draws batches, and computes the gradients of the network's trainable parameters."""

    batch_type: type[Any]  # of what `draw` returns
    precision: str
    held_out: Any  # clips for validation only

    def __init__(self, network: Any, config: FitConfig, device: torch.device) -> None:
        """`config` is resolved."""
        self.network, self.config, self.device = network, config, device
        self.parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
        self.checkpointing = False  # recompute activations for the gradients: less memory, a third more time
        self._next: tuple[int, Any] | None = None  # the next step and its batch

    @abstractmethod
    def draw(self, step: int) -> Any:
        """Return the batch of a step, a named tuple of tensors on the CPU."""

    @abstractmethod
    def loss(self, batch: Any) -> torch.Tensor:
        """Return the mean loss of a batch on the device."""

    @abstractmethod
    def validation(self) -> Sequence[Any]:
        """Return the same batches of held-out clips every time, on the CPU."""

    def class_effect(self) -> float | None:
        """Return how much another class changes the predictions for some clips: RMS change / RMS error. None: no classes."""
        return None

    @property
    def recordable(self) -> bool:
        """Whether a step on CUDA may be recorded once and replayed."""
        return False

    def learner(self) -> Learn:
        """Return the function that learns from a batch: a replayed step if `recordable`."""

        def learn(*tensors: torch.Tensor) -> torch.Tensor:
            loss = self.loss(self.batch_type(*tensors))
            loss.backward()
            return loss.detach()

        return ReplayedStep(learn, self.device) if self.recordable else learn

    def gradients(self, learn: Learn, step: int) -> float:
        """Compute the gradients of a step, and return its loss."""
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        if gradients and isinstance(learn, ReplayedStep):
            torch._foreach_zero_(gradients)  # in place, because a recorded step adds to these tensors
        else:
            clear_gradients(self.parameters)
        batch = self._next[1] if self._next is not None and self._next[0] == step else self.draw(step)
        torch.manual_seed(self._seed(step))  # for dropout, which a base may have
        loss = learn(*self._on_device(batch))
        self._next = step + 1, self.draw(step + 1)  # while CUDA computes
        return float(loss)  # waits for CUDA

    def _on_device(self, batch: Any) -> Any:
        return batch._make(tensor.to(self.device) for tensor in batch)

    def _seed(self, step: int) -> int:
        return (self.config.seed * 1_000_003 + step) * 2 + 1

    def validation_loss(self, average: list[torch.Tensor]) -> float | None:
        """Return the loss of the averaged weights on held-out recordings, or None without such recordings."""
        if not len(self.held_out):
            return None
        current = [parameter.detach().clone() for parameter in self.parameters]
        total, n = 0.0, 0
        self.network.eval()
        with torch.no_grad():
            copy_into(self.parameters, average)
            for batch in self.validation():
                total += float(self.loss(self._on_device(batch))) * len(batch[0])
                n += len(batch[0])
            copy_into(self.parameters, current)
        self.network.train()
        return total / n


@dataclass(frozen=True)
class FitWork:
    """A generator that is ready to be fitted."""

    trainer: Trainer
    settings: dict[str, Any]  # what fit.json records besides the configuration and the training data
    parts: list[dict[str, Any]]  # the training data, see trained_on.json
    base: Generator | None  # that training starts from
    # Writes the result into a folder, with the contents of trained_on.json and training.json
    write: Callable[[Path, dict[str, Any], dict[str, Any]], None]
    # Stores data for a resumed fit in the claimed folder
    store: Callable[[Path], None] = lambda root: None


class MelTrainer(Trainer):
    """Trains the UNet of a generator of mel images."""

    batch_type = MelBatch

    def __init__(
        self, clips: FitClips, networks: Networks, config: FitConfig, device: torch.device, reporter: Reporter
    ) -> None:
        super().__init__(networks.unet, config, device)
        self.networks, self._alphas = networks, networks.schedule.alphas_cumprod.to(device)
        self.training, self.held_out = clips[~clips.held_out], clips[clips.held_out]
        self.precision = self._faster_precision(reporter) if config.precision == "auto" else config.precision

    def _faster_precision(self, reporter: Reporter) -> str:
        """bf16 or fp32. On a CPU by timing a training step of each: on some of those that have bf16 it is slower."""
        precision = default_precision(self.device, training=False)
        if precision == "fp32" or self.device.type == "cuda":
            return precision
        noisy = torch.randn(min(16, self.config.batch), *self.networks.shape, device=self.device)
        labels = torch.zeros(len(noisy), dtype=torch.long) if self.networks.class_names else None
        took_s: dict[str, list[float]] = {"bf16": [], "fp32": []}
        with reporter.task("timing bf16 and float32", "steps", 6) as task:
            # The best of three: other work disturbs single ones
            for number, precision in enumerate(("bf16", "fp32") * 3):
                task.update(number)
                start = time.perf_counter()
                with autocast(self.device, precision):
                    loss = self.network(noisy, 10, labels, return_dict=False)[0].float().square().mean()
                loss.backward()
                took_s[precision].append(time.perf_counter() - start)
        self.network.zero_grad(set_to_none=True)
        return min(took_s, key=lambda precision: min(took_s[precision]))

    @property
    def recordable(self) -> bool:
        if self.device.type != "cuda" or self.checkpointing:
            return False
        size = sum(parameter.numel() for parameter in self.network.parameters())
        blocks = {*self.network.config.down_block_types, *self.network.config.up_block_types}
        return size <= SMALL_PARAMETERS and blocks <= RECORDABLE_BLOCKS

    def draw(self, step: int) -> MelBatch:
        """Return the batch of a step, on the CPU.

        Half of the clips start at their beginning, and silence follows short ones. The others are repeated and rolled in time, as
        `usk synth` repeats short parents.
        """
        draw = torch.Generator().manual_seed(self._seed(step))
        n, n_frames = self.config.batch, self.networks.mel.n_frames
        rows = torch.randint(len(self.training), (n,), generator=draw).tolist()
        shifts = torch.randint(n_frames, (n,), generator=draw).tolist()
        rolled = (torch.rand(n, generator=draw) < 0.5).tolist()
        images = [
            self.training.image(row, shift if roll else None)
            for row, shift, roll in zip(rows, shifts, rolled, strict=True)
        ]
        labels = torch.from_numpy(self.training.labels[rows])
        unconditioned = torch.rand(n, generator=draw) < self.config.class_dropout
        labels[unconditioned] = len(self.networks.class_names)
        return self._with_noise(np.stack(images), labels, draw)

    def _with_noise(self, images: np.ndarray, labels: torch.Tensor, draw: torch.Generator) -> MelBatch:
        """Add noise, and timesteps that are spread evenly over the batch (low discrepancy), to images [n, n_mels, n_frames]."""
        n, n_train = len(images), self.networks.schedule.n_train
        offsets = (torch.arange(n) + torch.rand(1, generator=draw)) / n
        timesteps = (offsets * n_train).long().clamp_max(n_train - 1)
        noise = torch.randn((n, *self.networks.shape), generator=draw)
        batch = torch.from_numpy(images.astype(np.float32))[:, None]
        return MelBatch(batch, labels, timesteps, noise)

    def loss(self, batch: MelBatch) -> torch.Tensor:
        predicted, target = self._predict(batch)
        return (predicted - target).square().mean()

    def class_effect(self) -> float | None:
        n_classes = len(self.networks.class_names)
        if n_classes < 2:
            return None
        batches = self._fixed_batches(self.held_out if len(self.held_out) else self.training)
        change, error = 0.0, 0.0
        self.network.eval()
        with torch.no_grad():
            for batch in map(self._on_device, batches):
                predicted, target = self._predict(batch)
                other, _ = self._predict(batch._replace(labels=(batch.labels + 1) % n_classes))
                change += float((predicted - other).square().sum())
                error += float((predicted - target).square().sum())
        return (change / error) ** 0.5 if 0 < error < math.inf and change < math.inf else 0.0

    def _predict(self, batch: MelBatch) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the UNet's prediction (noise, v or image, as the schedule says) and what it should be."""
        images, labels, timesteps, noise = batch
        if self.networks.vae is not None:
            images = encode_image(self.networks.vae, images)
        alpha = self._alphas[timesteps].reshape(-1, 1, 1, 1)
        signal_scale, noise_scale = alpha.sqrt(), (1 - alpha).sqrt()
        noisy = signal_scale * images + noise_scale * noise
        with autocast(self.device, self.precision):
            output = self.network(
                noisy.to(memory_format=torch.channels_last),
                timesteps,
                labels if self.networks.class_names else None,
                return_dict=False,
            )[0]
        return output.float(), self.networks.schedule.target(images, noise, signal_scale, noise_scale)

    def validation(self) -> list[MelBatch]:
        return self._fixed_batches(self.held_out)

    def _fixed_batches(self, clips: FitClips) -> list[MelBatch]:
        """Return the same clips with the same noise every time, conditioned on their classes."""
        order = torch.randperm(len(clips), generator=torch.Generator().manual_seed(0)).numpy()
        chosen = clips[order[:VALIDATION_CLIPS]]
        labels, draw = torch.from_numpy(chosen.labels), torch.Generator().manual_seed(0)
        tensors = self._with_noise(chosen.images, labels, draw)
        size = min(32, self.config.batch)
        return [MelBatch(*batch) for batch in zip(*(tensor.split(size) for tensor in tensors), strict=True)]


def copy_into(parameters: Sequence[torch.Tensor], values: Sequence[torch.Tensor]) -> None:
    """Copy values into parameters."""
    with torch.no_grad():
        for parameter, value in zip(parameters, values, strict=True):
            parameter.copy_(value)


def clear_gradients(parameters: Sequence[torch.Tensor]) -> None:
    for parameter in parameters:
        parameter.grad = None
