"""Noise schedules of text-to-audio models, whose noise level is a number instead of one of a thousand timesteps.

Solvers work on variance-preserving latents, x = sqrt(a) x_0 + sqrt(1 - a) eps. Any Gaussian process becomes one by scaling: with
signal s and noise n it is x / sqrt(s^2 + n^2), where a = s^2 / (s^2 + n^2). `usk.diffusion.text_pipeline` scales back for the
network, and gives x_0 to the solvers as the network's output.

A node is the noise level itself: sigma of a rectified flow, x = (1 - sigma) x_0 + sigma eps (arXiv 2209.03003), or the ratio of
noise to signal of Stable Audio's cosine schedule (EDM, arXiv 2206.00364).
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import torch

from usk.diffusion.schedule import Schedule, noise_of, require_strength
from usk.errors import UsageError, require_at_least

LEAST_SIGNAL = 1e-4  # at the first node of a second-order solver, which needs some signal


class ContinuousSchedule(Schedule):
    """A schedule whose nodes are numbers."""

    def nodes(self, steps: int, strength: float = 1.0) -> list[float]:
        return self.timesteps(steps, strength)

    @abstractmethod
    def origin(self, scaled: torch.Tensor, velocity: torch.Tensor, node: torch.Tensor) -> torch.Tensor:
        """Return x_0, given latents in the network's scale and the network's prediction; `node` is broadcast."""

    def epsilon(self, output: torch.Tensor, sample: torch.Tensor, alpha: float) -> torch.Tensor:
        return noise_of(output, sample, alpha)

    def clean(self, output: torch.Tensor, sample: torch.Tensor, alpha: float) -> torch.Tensor:
        return output


@dataclass(frozen=True)
class FlowSchedule(ContinuousSchedule):
    """A rectified flow. Nodes are even in sigma, or in the log signal-to-noise ratio from `logsnr_min` to `logsnr_max`."""

    shift: float = 1.0  # of diffusers' FlowMatchEulerDiscreteScheduler
    logsnr_min: float | None = None
    logsnr_max: float = 2.0

    def alpha(self, node: float) -> float:
        if node < 0:
            return 1.0
        signal = (1 - node) ** 2
        return signal / (signal + node**2)

    def timesteps(self, steps: int, strength: float = 1.0) -> list[float]:
        _require_valid(steps, strength)
        if self.logsnr_min is None:
            sigmas = [strength * place / steps for place in range(1, steps + 1)]
        else:
            spread = self.logsnr_max - self.logsnr_min
            top = 1.0 if strength == 1.0 else (self.logsnr_max + math.log(strength / (1 - strength))) / spread
            if top <= 0:
                raise _too_low(strength, 1 / (1 + math.exp(self.logsnr_max)))
            places = torch.linspace(top, 0.0, steps + 1)[:-1].flip(0)  # in float32, as in the pipeline
            sigmas = [*torch.sigmoid(places * spread - self.logsnr_max).tolist()[:-1], strength]
        return [self._shifted(sigma) for sigma in sigmas]

    def nodes(self, steps: int, strength: float = 1.0) -> list[float]:
        sigmas = self.timesteps(steps, strength)
        return [*sigmas[:-1], min(sigmas[-1], 1 - LEAST_SIGNAL)]

    def _shifted(self, sigma: Any) -> Any:
        return self.shift * sigma / (1 + (self.shift - 1) * sigma)

    def origin(self, scaled: torch.Tensor, velocity: torch.Tensor, node: torch.Tensor) -> torch.Tensor:
        return scaled - node * velocity

    def training_nodes(self, places: torch.Tensor) -> torch.Tensor:
        return self._shifted(places)

    def parts(self, node: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return 1 - node, node

    def target(
        self, clean: torch.Tensor, noise: torch.Tensor, signal_scale: torch.Tensor, noise_scale: torch.Tensor
    ) -> torch.Tensor:
        return noise - clean


@dataclass(frozen=True)
class CosineSchedule(ContinuousSchedule):
    """Stable Audio's schedule: the angle of the noise grows from 0 to pi / 2. Nodes are noise ratios, even in their logarithm."""

    ratio_min: float = 0.3
    ratio_max: float = 500.0

    def alpha(self, node: float) -> float:
        return 1.0 if node < 0 else 1 / (1 + node**2)

    def timesteps(self, steps: int, strength: float = 1.0) -> list[float]:
        _require_valid(steps, strength)
        top = self.ratio_max
        if strength < 1.0:
            top = min(math.tan(math.pi / 2 * strength), top)
        if top <= self.ratio_min:
            raise _too_low(strength, 2 / math.pi * math.atan(self.ratio_min))
        if steps == 1:
            return [top]
        growth = (top / self.ratio_min) ** (1 / (steps - 1))
        return [self.ratio_min * growth**place for place in range(steps)]

    def origin(self, scaled: torch.Tensor, velocity: torch.Tensor, node: torch.Tensor) -> torch.Tensor:
        signal_scale, noise_scale = self.parts(node)
        return signal_scale * scaled - noise_scale * velocity

    def training_nodes(self, places: torch.Tensor) -> torch.Tensor:
        return torch.tan(math.pi / 2 * places).clamp(max=self.ratio_max)

    def parts(self, node: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        signal_scale = (1 + node**2).rsqrt()
        return signal_scale, node * signal_scale

    def target(
        self, clean: torch.Tensor, noise: torch.Tensor, signal_scale: torch.Tensor, noise_scale: torch.Tensor
    ) -> torch.Tensor:
        return signal_scale * noise - noise_scale * clean


def _require_valid(steps: int, strength: float) -> None:
    require_strength(strength)
    require_at_least(1, steps=steps)


def _too_low(strength: float, lowest: float) -> UsageError:
    return UsageError(
        f"must be above {lowest:.2f}, the least noise of this model", field="strength", value=strength
    )
