"""Noise schedules of text-to-audio models, whose noise level is a number and not one of a thousand timesteps.

Solvers want variance-preserving latents, x = sqrt(a) x_0 + sqrt(1 - a) eps. Every Gaussian process is one up to a scale: with
signal s and noise n it is x / sqrt(s^2 + n^2), where a = s^2 / (s^2 + n^2). A family's network is given its own scale back.

A node is the noise level itself: sigma of a rectified flow, x = (1 - sigma) x_0 + sigma eps (arXiv 2209.03003), or the ratio of
noise to signal of Stable Audio's cosine schedule (EDM, arXiv 2206.00364). Solvers are given x_0.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch

from usk.errors import UsageError

LEAST_SIGNAL = 1e-4  # of a second-order solver's first node, which needs some


@dataclass(frozen=True)
class ContinuousSchedule(ABC):
    """What solvers need to know, as of `usk.diffusion.schedule.NoiseSchedule`; nodes below 0 are clean."""

    @abstractmethod
    def alpha(self, node: float) -> float:
        """The share of the signal's power a at a node; 1 below 0."""

    @abstractmethod
    def timesteps(self, steps: int, strength: float = 1.0) -> list[float]:
        """The `steps` nodes of a first-order solver, ascending; at strength 1 those of the pipeline itself."""

    def nodes(self, steps: int, strength: float = 1.0) -> list[float]:
        """The same of a second-order solver, which starts where a little of the signal is left."""
        return self.timesteps(steps, strength)

    def noise_ratio(self, node: float) -> float:
        """sqrt((1 - a) / a): the noise relative to a signal of scale one; infinite for pure noise."""
        alpha = self.alpha(node)
        return math.inf if alpha == 0 else ((1 - alpha) / alpha) ** 0.5

    @abstractmethod
    def parts(self, node: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """How much signal and noise the family's own latents hold at nodes, which is what its network is given."""

    @abstractmethod
    def origin(self, own: torch.Tensor, velocity: torch.Tensor, node: torch.Tensor) -> torch.Tensor:
        """x_0 from the family's own latents and what its network predicts; `node` is broadcast."""

    @abstractmethod
    def velocity(self, clean: torch.Tensor, noise: torch.Tensor, node: torch.Tensor) -> torch.Tensor:
        """What the network is to predict."""

    @abstractmethod
    def spread(self, places: torch.Tensor) -> torch.Tensor:
        """The nodes that training draws, for places in [0, 1) drawn evenly."""

    def epsilon(self, output: torch.Tensor, sample: torch.Tensor, alpha: float) -> torch.Tensor:
        """The noise in `sample` if its x_0 is `output`."""
        return (sample - alpha**0.5 * output) / max(1 - alpha, 1e-12) ** 0.5

    def clean(self, output: torch.Tensor, sample: torch.Tensor, alpha: float) -> torch.Tensor:
        """The network's output, which is x_0."""
        return output

    def clipped(self, origin: torch.Tensor) -> torch.Tensor:
        """Audio latents have no range to be clamped to."""
        return origin


@dataclass(frozen=True)
class FlowSchedule(ContinuousSchedule):
    """A rectified flow. Nodes are even in sigma, or in the log signal-to-noise ratio between `logsnr_min` and `logsnr_max`."""

    shift: float = 1.0  # of diffusers' FlowMatchEulerDiscreteScheduler
    logsnr_min: float | None = None
    logsnr_max: float = 2.0

    def alpha(self, node: float) -> float:
        if node < 0:
            return 1.0
        signal = (1 - node) ** 2
        return signal / (signal + node**2)

    def parts(self, node: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return 1 - node, node

    def origin(self, own: torch.Tensor, velocity: torch.Tensor, node: torch.Tensor) -> torch.Tensor:
        return own - node * velocity

    def velocity(self, clean: torch.Tensor, noise: torch.Tensor, node: torch.Tensor) -> torch.Tensor:
        return noise - clean

    def spread(self, places: torch.Tensor) -> torch.Tensor:
        return self.shift * places / (1 + (self.shift - 1) * places)

    def timesteps(self, steps: int, strength: float = 1.0) -> list[float]:
        _check(steps, strength)
        if self.logsnr_min is None:
            sigmas = [strength * place / steps for place in range(1, steps + 1)]
        else:
            spread = self.logsnr_max - self.logsnr_min
            top = 1.0 if strength == 1.0 else (self.logsnr_max + math.log(strength / (1 - strength))) / spread
            if top <= 0:
                lowest = 1 / (1 + math.exp(self.logsnr_max))
                raise UsageError(
                    f"must be above {lowest:.2f}, the least noise of this model",
                    field="strength",
                    value=strength,
                )
            places = torch.linspace(top, 0.0, steps + 1)[:-1].flip(0)  # in float32, as the pipeline does
            sigmas = [*torch.sigmoid(places * spread - self.logsnr_max).tolist()[:-1], strength]
        return [self.shift * sigma / (1 + (self.shift - 1) * sigma) for sigma in sigmas]

    def nodes(self, steps: int, strength: float = 1.0) -> list[float]:
        found = self.timesteps(steps, strength)
        return [*found[:-1], min(found[-1], 1 - LEAST_SIGNAL)]


@dataclass(frozen=True)
class CosineSchedule(ContinuousSchedule):
    """Stable Audio's: the angle of the noise grows from 0 to pi / 2. Nodes are noise ratios, even in their logarithm."""

    ratio_min: float = 0.3
    ratio_max: float = 500.0

    def alpha(self, node: float) -> float:
        return 1.0 if node < 0 else 1 / (1 + node**2)

    def parts(self, node: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        signal = (1 + node**2).rsqrt()
        return signal, node * signal

    def origin(self, own: torch.Tensor, velocity: torch.Tensor, node: torch.Tensor) -> torch.Tensor:
        signal, noise = self.parts(node)
        return signal * own - noise * velocity

    def velocity(self, clean: torch.Tensor, noise: torch.Tensor, node: torch.Tensor) -> torch.Tensor:
        signal, sigma = self.parts(node)
        return signal * noise - sigma * clean

    def spread(self, places: torch.Tensor) -> torch.Tensor:
        return torch.tan(math.pi / 2 * places).clamp(max=self.ratio_max)

    def timesteps(self, steps: int, strength: float = 1.0) -> list[float]:
        _check(steps, strength)
        top = self.ratio_max
        if strength < 1.0:
            top = min(math.tan(math.pi / 2 * strength), top)
        if top <= self.ratio_min:
            lowest = 2 / math.pi * math.atan(self.ratio_min)
            raise UsageError(
                f"must be above {lowest:.2f}, the least noise of this model", field="strength", value=strength
            )
        if steps == 1:
            return [top]
        growth = (top / self.ratio_min) ** (1 / (steps - 1))
        return [self.ratio_min * growth**place for place in range(steps)]


def _check(steps: int, strength: float) -> None:
    if not 0.0 < strength <= 1.0:
        raise UsageError("must be above 0 and at most 1", field="strength", value=strength)
    if steps < 1:
        raise UsageError("must be at least 1", field="steps", value=steps)
