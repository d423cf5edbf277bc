"""The forward process of a diffusion model: how much signal and noise a latent holds at each timestep.

Notation follows Song, Meng & Ermon, "Denoising diffusion implicit models" (arXiv 2010.02502):
x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) eps, where a_t is the cumulative product of alphas.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch

from usk.errors import ModelError, UsageError

NODE_POWER = 1.5  # spacing of a second-order solver's timesteps; 1 is even
LEAST_ALPHA = 1e-9  # a second-order solver starts where at least this much of the signal's power is left
MOST_TIMESTEPS = 100_000
SCHEDULERS = ("DDIMScheduler", "DDPMScheduler")
PREDICTIONS = ("epsilon", "v_prediction", "sample")
FORWARD_PROCESS = (
    "num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "set_alpha_to_one",
    "rescale_betas_zero_snr",
)  # fmt: skip


class Schedule(Protocol):
    """What solvers need to know: noise levels ("nodes", which the network takes too) and what its output stands for.

    `alpha` is the share of the signal's power at a node; nodes below 0 are clean.
    """

    def alpha(self, node: Any, /) -> float: ...

    def timesteps(self, steps: int, strength: float = 1.0) -> list[Any]: ...

    def nodes(self, steps: int, strength: float = 1.0) -> list[Any]: ...

    def noise_ratio(self, node: Any, /) -> float: ...

    def epsilon(self, output: torch.Tensor, sample: torch.Tensor, alpha: float) -> torch.Tensor: ...

    def clean(self, output: torch.Tensor, sample: torch.Tensor, alpha: float) -> torch.Tensor: ...

    def clipped(self, origin: torch.Tensor) -> torch.Tensor: ...


@dataclass(frozen=True)
class NoiseSchedule:
    """What solvers need to know of a diffusion scheduler (DDIM or DDPM: they share the forward process)."""

    alphas_cumprod: torch.Tensor  # [n_train], float32 on the CPU
    final_alpha: float
    prediction_type: str  # "epsilon", "v_prediction" or "sample"
    # Predicted x_0 is clamped to +- this when sampling, as the scheduler's config says
    clip_range: float | None

    @property
    def n_train(self) -> int:
        return len(self.alphas_cumprod)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> NoiseSchedule:
        """From the config of a diffusers `DDIMScheduler` or `DDPMScheduler`. Raises ModelError for any other.

        `timestep_spacing` and `steps_offset` are ignored: usk chooses its own timesteps, and any are valid DDIM steps.
        """
        from diffusers import DDIMScheduler  # type: ignore[attr-defined,unused-ignore]

        kind = str(config.get("_class_name", SCHEDULERS[0]))
        # Other schedulers add noise in other ways, or do not say whether x_0 is clamped
        if kind not in SCHEDULERS:
            raise ModelError(f"the scheduler is a {kind}; usk supports {' and '.join(SCHEDULERS)}")
        prediction = str(config.get("prediction_type", "epsilon"))
        if prediction not in PREDICTIONS:
            raise ModelError(
                f"the scheduler's prediction_type is {prediction!r}; usk supports {', '.join(PREDICTIONS)}"
            )
        if config.get("thresholding"):
            raise ModelError("the scheduler uses dynamic thresholding, which cannot be inverted")
        given = {key: config[key] for key in FORWARD_PROCESS if config.get(key) is not None}
        try:
            if not 1 <= int(given.get("num_train_timesteps", 1_000)) <= MOST_TIMESTEPS:
                raise ValueError(f"num_train_timesteps must be between 1 and {MOST_TIMESTEPS}")
            scheduler = DDIMScheduler(**given)
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

    def alpha(self, timestep: int) -> float:
        """a_t; below the first timestep the scheduler's final alpha."""
        return float(self.alphas_cumprod[timestep]) if timestep >= 0 else self.final_alpha

    def timesteps(self, steps: int, strength: float = 1.0) -> list[int]:
        """The `steps` evenly spaced timesteps of a first-order solver, ascending, up to `strength` (0 < strength <= 1).

        At strength 1 these are the scheduler's own 0, s, 2s, ... ("leading" spacing), which end a step short of the top.
        Below it the last is the one just below `strength`, as for a second-order solver: a step short would be too little
        noise, and with one step none at all.
        """
        top = self._top(steps, strength, self.n_train)
        if strength == 1.0:
            return [index * (top // steps) for index in range(steps)]
        return [round(top * place / steps) - 1 for place in range(1, steps + 1)]

    def nodes(self, steps: int, strength: float = 1.0) -> list[int]:
        """The `steps` timesteps of a second-order solver, ascending, the last just below `strength`, denser near clean.

        None lies where next to nothing is left of the signal (nothing, at zero terminal SNR): there noise cannot be
        told from the latent, and the clean latent is no multiple of it.
        """
        top = self._top(steps, strength, int((self.alphas_cumprod >= LEAST_ALPHA).sum()))
        nodes: list[int] = []
        for place in range(1, steps + 1):
            ideal = round(top * (place / steps) ** NODE_POWER) - 1
            nodes.append(max(ideal, nodes[-1] + 1 if nodes else 0))
        return nodes

    def _top(self, steps: int, strength: float, usable: int) -> int:
        """How many of the first `usable` timesteps lie below `strength`. Raises UsageError if they are fewer than `steps`."""
        if not 0.0 < strength <= 1.0:
            raise UsageError("must be above 0 and at most 1", field="strength", value=strength)
        top = min(int(self.n_train * strength + 1e-6), usable)  # 0.57 * 1000 is a little less than 570
        if not 1 <= steps <= top:
            raise UsageError(
                f"must be between 1 and {top}, the number of timesteps at strength {strength:g}",
                field="steps", value=steps,
            )  # fmt: skip
        return top

    def noise_ratio(self, timestep: int) -> float:
        """sqrt((1 - a_t) / a_t): the noise relative to a signal of scale one."""
        alpha = self.alpha(timestep)
        return float(((1 - alpha) / alpha) ** 0.5)

    def target(self, clean: torch.Tensor, noise: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
        """What the network is to predict."""
        return {
            "epsilon": noise,
            "v_prediction": alpha.sqrt() * noise - (1 - alpha).sqrt() * clean,
            "sample": clean,
        }[self.prediction_type]

    def epsilon(self, output: torch.Tensor, sample: torch.Tensor, alpha: float) -> torch.Tensor:
        """The noise that the network's raw output stands for, given `sample` at cumulative alpha `alpha`."""
        if self.prediction_type == "epsilon":
            return output
        if self.prediction_type == "v_prediction":
            return alpha**0.5 * output + (1 - alpha) ** 0.5 * sample
        return (sample - alpha**0.5 * output) / max(1 - alpha, 1e-12) ** 0.5

    def clean(self, output: torch.Tensor, sample: torch.Tensor, alpha: float) -> torch.Tensor:
        """The x_0 that the network's raw output stands for, given `sample` at cumulative alpha `alpha`."""
        if self.prediction_type == "epsilon":
            return (sample - (1 - alpha) ** 0.5 * output) / alpha**0.5
        if self.prediction_type == "v_prediction":
            return alpha**0.5 * sample - (1 - alpha) ** 0.5 * output
        return output

    def clipped(self, origin: torch.Tensor) -> torch.Tensor:
        """Predicted x_0, clamped where the scheduler asks for it."""
        return origin if self.clip_range is None else origin.clamp(-self.clip_range, self.clip_range)
