"""One training step of a generator's network: what it draws, its loss and its gradients.

Everything that is random in step k is drawn from a generator seeded by (seed, k), so that a run which resumes goes on exactly as if
it had never stopped.
"""

from __future__ import annotations

import functools
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
from usk.diffusion.mel_pipeline import VAE_SCALE, MelGenerator
from usk.diffusion.networks import Networks
from usk.diffusion.training_data import FitClips
from usk.replay import ReplayedStep

VALIDATION_CLIPS = 96
SMALL_PARAMETERS = 30_000_000
"""Up to this size a step is recorded once and replayed on CUDA. Measured for 3.5 million (1.9 times as fast); a recorded step
keeps its memory, of which large networks have none to spare, and their arithmetic hides the launches anyway."""
# Whose kernels wait for nothing from the CPU's memory; of others that is not known
RECORDABLE_BLOCKS = {
    f"{way}{kind}"
    for way in ("Down", "Up", "AttnDown", "AttnUp")
    for kind in ("Block2D", "EncoderBlock2D", "DecoderBlock2D")
}

Learn = Callable[..., torch.Tensor]
"""Takes the tensors of a Drawn, adds the gradient of its loss to the network's, and returns the loss."""


class Drawn(NamedTuple):
    """A batch, with everything that is random about it."""

    images: torch.Tensor  # [n, 1, n_mels, n_frames]
    labels: torch.Tensor  # int64 [n]; the number of classes where none is given
    timesteps: torch.Tensor  # int64 [n]
    noise: torch.Tensor  # [n, *latent shape]

    def to(self, device: torch.device) -> Drawn:
        return Drawn(*(tensor.to(device) for tensor in self))


class Trainer(ABC):
    """Draws batches and learns from them. What of the network needs a gradient is trained."""

    batch_type: type[Any]  # what `draw` gives
    precision: str
    held_out: Any  # clips that only measure the validation loss

    def __init__(self, network: Any, config: FitConfig, device: torch.device) -> None:
        """`config` is a resolved one."""
        self.network, self.config, self.device = network, config, device
        self.parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
        # Activations are computed again for the gradients: less memory, a third more time
        self.checkpointing = False
        self._ahead: tuple[int, Any] | None = None

    @abstractmethod
    def draw(self, step: int) -> Any:
        """The batch of step `step`, a named tuple of tensors in the CPU's memory."""

    @abstractmethod
    def loss(self, drawn: Any) -> torch.Tensor:
        """The mean loss of what `draw` gives, on the device."""

    @abstractmethod
    def validation(self) -> Sequence[Any]:
        """Batches of held-out clips, always the same, in the CPU's memory."""

    @property
    def recordable(self) -> bool:
        """Whether a step on CUDA may be recorded once and replayed."""
        return False

    def learner(self) -> Learn:
        """What learns from a batch: on CUDA, where the network is small, one recorded launch."""

        def learn(*drawn: torch.Tensor) -> torch.Tensor:
            loss = self.loss(self.batch_type(*drawn))
            loss.backward()
            return loss.detach()

        return ReplayedStep(learn, self.device) if self.recordable else learn

    def gradients(self, learn: Learn, step: int) -> float:
        """Leave the gradient of step `step` in the network; returns the loss."""
        before = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        if before and isinstance(learn, ReplayedStep):
            torch._foreach_zero_(before)  # in place: a recorded step adds to these very tensors
        else:
            forget_gradients(self.parameters)
        drawn = self._ahead[1] if self._ahead is not None and self._ahead[0] == step else self.draw(step)
        torch.manual_seed(self._seed(step))  # dropout, where a base has it
        loss = learn(*drawn.to(self.device))
        # While CUDA computes, which nothing waits for before the loss is asked for, the next one is drawn.
        self._ahead = step + 1, self.draw(step + 1)
        return float(loss)

    def _seed(self, step: int) -> int:
        return (self.config.seed * 1_000_003 + step) * 2 + 1

    def validation_loss(self, average: list[torch.Tensor]) -> float | None:
        """Loss of the averaged weights on held-out recordings, with the same noise every time.

        None if no recordings are held out.
        """
        if not len(self.held_out):
            return None
        current = [parameter.detach().clone() for parameter in self.parameters]
        total, n = 0.0, 0
        self.network.eval()
        with torch.no_grad():
            copy_into(self.parameters, average)
            for batch in self.validation():
                total += float(self.loss(batch.to(self.device))) * len(batch[0])
                n += len(batch[0])
            copy_into(self.parameters, current)
        self.network.train()
        return total / n


@dataclass(frozen=True)
class FitWork:
    """A generator that is ready to be fitted, and what becomes of it."""

    trainer: Trainer
    described: dict[str, Any]  # what else the folder is fitted with, for fit.json
    parts: list[dict[str, Any]]  # what it is trained on
    base: Generator | None  # that it starts from
    write: Callable[[Path, dict[str, Any], dict[str, Any]], None]
    """The result, into a folder: it takes the contents of trained_on.json and training.json."""
    # What a resumed fit begins with, into the claimed folder
    keep: Callable[[Path], None] = lambda root: None


class MelTrainer(Trainer):
    """Trains the UNet of a generator of mel images."""

    batch_type = Drawn

    def __init__(self, clips: FitClips, networks: Networks, config: FitConfig, device: torch.device) -> None:
        super().__init__(networks.unet, config, device)
        self.networks = networks
        self.training, self.held_out = clips[~clips.held_out], clips[clips.held_out]
        self.precision = self._faster_precision() if config.precision == "auto" else config.precision

    def _faster_precision(self) -> str:
        """bf16 or fp32. On a CPU by timing a training step of each: on some of those that have bf16 it is slower."""
        precision = default_precision(self.device, training=False)
        if precision == "fp32" or self.device.type == "cuda":
            return precision
        noisy = torch.randn(self.config.batch, *self.networks.shape, device=self.device)
        labels = torch.zeros(len(noisy), dtype=torch.long) if self.networks.class_names else None
        took_s: dict[str, list[float]] = {"bf16": [], "fp32": []}
        for precision in ("bf16", "fp32") * 3:  # the best of three: other work disturbs single ones
            start = time.perf_counter()
            with autocast(self.device, precision):
                loss = self.network(noisy, 10, labels, return_dict=False)[0].float().square().mean()
            loss.backward()
            took_s[precision].append(time.perf_counter() - start)
        self.network.zero_grad(set_to_none=True)
        return min(took_s, key=lambda precision: min(took_s[precision]))

    @functools.cached_property
    def _alphas(self) -> torch.Tensor:
        """The schedule's share of signal at each timestep, on the device."""
        return self.networks.schedule.alphas_cumprod.to(self.device)

    @property
    def recordable(self) -> bool:
        if self.device.type != "cuda" or self.checkpointing:
            return False
        size = sum(parameter.numel() for parameter in self.network.parameters())
        blocks = {*self.network.config.down_block_types, *self.network.config.up_block_types}
        return size <= SMALL_PARAMETERS and blocks <= RECORDABLE_BLOCKS

    def draw(self, step: int) -> Drawn:
        """The batch of step `step`, in the CPU's memory.

        Half of the clips begin where they begin and end in silence if they are short; the others are repeated and
        rolled in time, as `usk synth` repeats short parents.
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

    def _with_noise(self, images: np.ndarray, labels: torch.Tensor, draw: torch.Generator) -> Drawn:
        """Timesteps spread evenly over the batch (low-discrepancy), and noise, for images [n, n_mels, n_frames]."""
        n, n_train = len(images), self.networks.schedule.n_train
        offsets = (torch.arange(n) + torch.rand(1, generator=draw)) / n
        timesteps = (offsets * n_train).long().clamp_max(n_train - 1)
        noise = torch.randn((n, *self.networks.shape), generator=draw)
        batch = torch.from_numpy(images.astype(np.float32))[:, None]
        return Drawn(batch, labels, timesteps, noise)

    def loss(self, drawn: Drawn) -> torch.Tensor:
        """Mean squared error of the UNet's output, which is noise, v or image as the schedule says."""
        images, labels, timesteps, noise = drawn
        schedule = self.networks.schedule
        if self.networks.vae is not None:
            with torch.no_grad():
                images = VAE_SCALE * self.networks.vae.encode(images).latent_dist.mode()
        alpha = self._alphas[timesteps].reshape(-1, 1, 1, 1)
        noisy = alpha.sqrt() * images + (1 - alpha).sqrt() * noise
        with autocast(self.device, self.precision):
            output = self.network(
                noisy.to(memory_format=torch.channels_last),
                timesteps,
                labels if self.networks.class_names else None,
                return_dict=False,
            )[0]
        return (output.float() - schedule.target(images, noise, alpha)).square().mean()

    def validation(self) -> list[Drawn]:
        """Held-out recordings, conditioned on their classes."""
        order = torch.randperm(len(self.held_out), generator=torch.Generator().manual_seed(0)).numpy()
        some = self.held_out[order[:VALIDATION_CLIPS]]
        drawn = self._with_noise(some.images, torch.from_numpy(some.labels), torch.Generator().manual_seed(0))
        piece = min(32, self.config.batch)
        return [
            Drawn(*(tensor[begin : begin + piece] for tensor in drawn))
            for begin in range(0, len(some), piece)
        ]

    def generator(self) -> MelGenerator:
        """The networks as they stand, for previews."""
        return self.networks.generator(self.device, self.precision)


def copy_into(parameters: Sequence[torch.Tensor], values: Sequence[torch.Tensor]) -> None:
    """Set parameters."""
    with torch.no_grad():
        for parameter, value in zip(parameters, values, strict=True):
            parameter.copy_(value)


def forget_gradients(parameters: Sequence[torch.Tensor]) -> None:
    for parameter in parameters:
        parameter.grad = None
