"""Noise schedules: how much signal and noise a latent holds at each noise level.

Notation follows Song, Meng & Ermon, "Denoising diffusion implicit models" (arXiv 2010.02502):
x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) eps, where a_t is the cumulative product of alphas.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch

from usk.errors import ModelError, UsageError

NODE_POWER = 1.5  # spacing of a second-order solver's timesteps; 1 is even
LEAST_ALPHA = 1e-9  # a second-order solver starts where at least this share of the signal's power is left
MAX_TIMESTEPS = 100_000
SCHEDULERS = ("DDIMScheduler", "DDPMScheduler")
PREDICTIONS = ("epsilon", "v_prediction", "sample")
FORWARD_PROCESS = (
    "num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "set_alpha_to_one",
    "rescale_betas_zero_snr",
)  # fmt: skip


class Schedule(ABC):
    """The noise levels ("nodes") of a model, and the meaning of its network's output.

    The network gets the node as its time. Latents at nodes below 0 are clean.
    """

    @abstractmethod
    def alpha(self, node: Any) -> float:
        """Return a at a node: the signal's share of the power."""

    @abstractmethod
    def timesteps(self, steps: int, strength: float = 1.0) -> list[Any]:
        """Return the `steps` nodes of a first-order solver up to `strength`, ascending. Raises UsageError."""

    @abstractmethod
    def nodes(self, steps: int, strength: float = 1.0) -> list[Any]:
        """Return the `steps` nodes of a second-order solver up to `strength`, ascending. Raises UsageError."""

    def noise_ratio(self, node: Any) -> float:
        """Return sqrt((1 - a) / a): the noise relative to a signal of scale one; infinite for pure noise."""
        alpha = self.alpha(node)
        return math.inf if alpha == 0 else ((1 - alpha) / alpha) ** 0.5

    @abstractmethod
    def epsilon(self, output: torch.Tensor, sample: torch.Tensor, alpha: float) -> torch.Tensor:
        """Return the noise in `sample`, given the network's output for it."""

    @abstractmethod
    def clean(self, output: torch.Tensor, sample: torch.Tensor, alpha: float) -> torch.Tensor:
        """Return the x_0 of `sample`, given the network's output for it."""

    def clipped(self, origin: torch.Tensor) -> torch.Tensor:
        """Return predicted x_0, clamped if the scheduler asks for it."""
        return origin

    # --- for training --------------------------------------------------------------------------------------------

    @abstractmethod
    def training_nodes(self, places: torch.Tensor) -> torch.Tensor:
        """Return nodes to train on [n], given places that are drawn uniformly from [0, 1)."""

    @abstractmethod
    def parts(self, node: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the scales of signal and noise that the network's input has at nodes."""

    @abstractmethod
    def target(
        self, clean: torch.Tensor, noise: torch.Tensor, signal_scale: torch.Tensor, noise_scale: torch.Tensor
    ) -> torch.Tensor:
        """Return what the network is to predict for `signal_scale * clean + noise_scale * noise`."""


@dataclass(frozen=True)
class NoiseSchedule(Schedule):
    """The schedule of a DDIM or DDPM scheduler, which share the forward process. Nodes are its timesteps."""

    alphas_cumprod: torch.Tensor  # [n_train], float32 on the CPU
    final_alpha: float
    prediction_type: str  # "epsilon", "v_prediction" or "sample"
    clip_range: float | None  # predicted x_0 is clamped to +- this; None: it is not

    @property
    def n_train(self) -> int:
        return len(self.alphas_cumprod)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> NoiseSchedule:
        """Build the schedule of a diffusers `DDIMScheduler` or `DDPMScheduler`. Raises ModelError for any other.

        `timestep_spacing` and `steps_offset` are ignored: usk chooses its own timesteps, and any are valid DDIM steps.
        """
        from diffusers import DDIMScheduler  # type: ignore[attr-defined,unused-ignore]

        kind = str(config.get("_class_name", SCHEDULERS[0]))
        # Others have another forward process, or do not say whether x_0 is clamped
        if kind not in SCHEDULERS:
            raise ModelError(f"the scheduler is a {kind}; usk supports {' and '.join(SCHEDULERS)}")
        prediction = str(config.get("prediction_type", "epsilon"))
        if prediction not in PREDICTIONS:
            raise ModelError(
                f"the scheduler's prediction_type is {prediction!r}; usk supports {', '.join(PREDICTIONS)}"
            )
        if config.get("thresholding"):
            raise ModelError("the scheduler uses dynamic thresholding, which cannot be inverted")
        settings = {key: config[key] for key in FORWARD_PROCESS if config.get(key) is not None}
        try:
            if not 1 <= int(settings.get("num_train_timesteps", 1_000)) <= MAX_TIMESTEPS:
                raise ValueError(f"num_train_timesteps must be between 1 and {MAX_TIMESTEPS}")
            scheduler = DDIMScheduler(**settings)
            clip_range = float(config.get("clip_sample_range", 1.0))
        except (NotImplementedError, TypeError, ValueError, RuntimeError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ModelError(f"the scheduler's configuration is not understood: {reason}") from error
        return cls(
            alphas_cumprod=scheduler.alphas_cumprod.float(),
            final_alpha=float(scheduler.final_alpha_cumprod),
            prediction_type=prediction,
            clip_range=clip_range if config.get("clip_sample", True) else None,
        )

    def alpha(self, node: int) -> float:
        return float(self.alphas_cumprod[node]) if node >= 0 else self.final_alpha

    def timesteps(self, steps: int, strength: float = 1.0) -> list[int]:
        """Return the `steps` evenly spaced timesteps of a first-order solver, ascending, up to `strength`.

        At strength 1 these are the scheduler's own 0, s, 2s, ... ("leading" spacing), which end a step below the top. At a lower
        strength the last timestep is just below it, as for a second-order solver: a step lower would leave too little noise, and
        none at all with one step.
        """
        top = self._top(steps, strength, self.n_train)
        if strength == 1.0:
            return [index * (top // steps) for index in range(steps)]
        return [round(top * place / steps) - 1 for place in range(1, steps + 1)]

    def nodes(self, steps: int, strength: float = 1.0) -> list[int]:
        """Return the `steps` timesteps of a second-order solver, ascending, denser near clean, the last just below `strength`.

        Timesteps with next to no signal (none, at zero terminal SNR) are left out: there the noise cannot be told from the latent.
        """
        top = self._top(steps, strength, int((self.alphas_cumprod >= LEAST_ALPHA).sum()))
        nodes: list[int] = []
        for place in range(1, steps + 1):
            ideal = round(top * (place / steps) ** NODE_POWER) - 1
            nodes.append(max(ideal, nodes[-1] + 1 if nodes else 0))
        return nodes

    def _top(self, steps: int, strength: float, usable: int) -> int:
        """Return how many of the first `usable` timesteps lie below `strength`. Raises UsageError if they are fewer than `steps`."""
        require_strength(strength)
        top = min(int(self.n_train * strength + 1e-6), usable)  # 0.57 * 1000 is a little less than 570
        if not 1 <= steps <= top:
            raise UsageError(
                f"must be between 1 and {top}, the number of timesteps at strength {strength:g}",
                field="steps",
                value=steps,
            )
        return top

    def epsilon(self, output: torch.Tensor, sample: torch.Tensor, alpha: float) -> torch.Tensor:
        if self.prediction_type == "epsilon":
            return output
        if self.prediction_type == "v_prediction":
            return alpha**0.5 * output + (1 - alpha) ** 0.5 * sample
        return noise_of(output, sample, alpha)

    def clean(self, output: torch.Tensor, sample: torch.Tensor, alpha: float) -> torch.Tensor:
        if self.prediction_type == "epsilon":
            return (sample - (1 - alpha) ** 0.5 * output) / alpha**0.5
        if self.prediction_type == "v_prediction":
            return alpha**0.5 * sample - (1 - alpha) ** 0.5 * output
        return output

    def clipped(self, origin: torch.Tensor) -> torch.Tensor:
        return origin if self.clip_range is None else origin.clamp(-self.clip_range, self.clip_range)

    def training_nodes(self, places: torch.Tensor) -> torch.Tensor:
        return (places * self.n_train).long()

    def parts(self, node: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        alpha = self.alphas_cumprod.to(node.device)[node]
        return alpha.sqrt(), (1 - alpha).sqrt()

    def target(
        self, clean: torch.Tensor, noise: torch.Tensor, signal_scale: torch.Tensor, noise_scale: torch.Tensor
    ) -> torch.Tensor:
        if self.prediction_type == "epsilon":
            return noise
        if self.prediction_type == "v_prediction":
            return signal_scale * noise - noise_scale * clean
        return clean


def noise_of(origin: torch.Tensor, sample: torch.Tensor, alpha: float) -> torch.Tensor:
    """Return the noise in `sample` if its x_0 is `origin`."""
    return (sample - alpha**0.5 * origin) / max(1 - alpha, 1e-12) ** 0.5


def require_strength(strength: float) -> None:
    """Raise UsageError for a strength that is not above 0 and at most 1."""
    if not 0.0 < strength <= 1.0:
        raise UsageError("must be above 0 and at most 1", field="strength", value=strength)
