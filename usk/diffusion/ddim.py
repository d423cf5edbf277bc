"""DDIM inversion and decoding of batches, from and to any noise strength, with any eta.

Notation follows Song, Meng & Ermon, "Denoising diffusion implicit models" (arXiv 2010.02502):
x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) eps, where a_t is the cumulative product of alphas. At `strength` 1 and with the
same number of steps both directions equal audiodiffusion's own `encode` and pipeline.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from usk.errors import ModelError, UsageError

NODE_POWER = 1.5  # of the nodes' spacing in a second-order sampler; 1 is even
LEAST_ALPHA = (
    1e-9  # a second-order sampler ends where this much of the signal's power is left, or a little more
)
SCHEDULERS = ("DDIMScheduler", "DDPMScheduler")

Predictor = Callable[[torch.Tensor, int], torch.Tensor]
"""Maps a noisy batch [batch, channels, height, width] and its timestep to the network's raw output, same shape."""


@dataclass(frozen=True)
class NoiseSchedule:
    """What DDIM steps need to know of a diffusion scheduler (DDIM or DDPM: they share the forward process)."""

    alphas_cumprod: torch.Tensor  # [n_train], float32 on the CPU
    final_alpha: float
    prediction_type: str  # "epsilon", "v_prediction" or "sample"
    clip_range: (
        float | None
    )  # predicted x_0 is clamped to +- this on the way down, as the scheduler's config says

    @property
    def n_train(self) -> int:
        return len(self.alphas_cumprod)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> NoiseSchedule:
        """From the config of a diffusers `DDIMScheduler` or `DDPMScheduler`.

        `timestep_spacing` and `steps_offset` are left aside: usk chooses its own timesteps, and any are valid DDIM steps.
        """
        from diffusers import DDIMScheduler  # type: ignore[attr-defined,unused-ignore]

        kind = str(config.get("_class_name", SCHEDULERS[0]))
        if kind not in SCHEDULERS:  # others noise in other ways, or leave unsaid whether x_0 is clamped
            raise ModelError(f"the scheduler is a {kind}; usk knows {' and '.join(SCHEDULERS)}")
        prediction = str(config.get("prediction_type", "epsilon"))
        if prediction not in ("epsilon", "v_prediction", "sample"):
            raise ModelError(
                f"the scheduler's prediction_type is {prediction!r}; usk knows epsilon, v_prediction, sample"
            )
        if config.get("thresholding"):
            raise ModelError("the scheduler uses dynamic thresholding, which cannot be inverted")
        kept = (
            "num_train_timesteps",
            "beta_start",
            "beta_end",
            "beta_schedule",
            "trained_betas",
            "set_alpha_to_one",
            "rescale_betas_zero_snr",
        )
        try:
            scheduler = DDIMScheduler(**{key: config[key] for key in kept if config.get(key) is not None})
        except (NotImplementedError, TypeError, ValueError) as error:
            raise ModelError(
                f"the scheduler's configuration is not understood: {str(error).splitlines()[0]}"
            ) from error
        return cls(
            alphas_cumprod=scheduler.alphas_cumprod.float(),
            final_alpha=float(scheduler.final_alpha_cumprod),
            prediction_type=prediction,
            clip_range=float(config.get("clip_sample_range", 1.0))
            if config.get("clip_sample", True)
            else None,
        )

    def alpha(self, timestep: int) -> float:
        """a_t; below the first timestep the scheduler's final alpha."""
        return float(self.alphas_cumprod[timestep]) if timestep >= 0 else self.final_alpha

    def below(self, strength: float) -> int:
        """How many of the timesteps lie below `strength`."""
        return int(self.n_train * strength + 1e-6)  # 0.57 * 1000 is a little less than 570

    def timesteps(self, steps: int, strength: float = 1.0) -> list[int]:
        """The `steps` evenly spaced timesteps of a first-order sampler, ascending, up to `strength` (0 < strength <= 1).

        At strength 1 these are the scheduler's own 0, s, 2s, ... ("leading" spacing), which end a step short of the top.
        Below it the last is the one just below `strength`, as in a second-order sampler: a step short would be too little
        noise, and with one step none at all.
        """
        if not 0.0 < strength <= 1.0:
            raise UsageError(f"--strength must lie in (0, 1], not {strength}")
        top = self.below(strength)
        if not 1 <= steps <= top:
            raise UsageError(
                f"--steps {steps} does not fit: at strength {strength} there are {top} timesteps"
            )
        if strength == 1.0:
            return [index * (top // steps) for index in range(steps)]
        return [round(top * place / steps) - 1 for place in range(1, steps + 1)]

    def nodes(self, steps: int, strength: float = 1.0) -> list[int]:
        """The `steps` timesteps of a second-order sampler, ascending, the last just below `strength`, denser near clean.

        Where next to nothing is left of the signal (at zero terminal SNR nothing), there is none: noise cannot be told
        from it there, and clean is no multiple of noisy.
        """
        if not 0.0 < strength <= 1.0:
            raise UsageError(f"--strength must lie in (0, 1], not {strength}")
        top = min(self.below(strength), int((self.alphas_cumprod >= LEAST_ALPHA).sum()))
        if not 1 <= steps <= top:
            raise UsageError(
                f"--steps {steps} does not fit: at strength {strength} there are {top} timesteps"
            )
        nodes: list[int] = []
        for place in range(1, steps + 1):
            ideal = round(top * (place / steps) ** NODE_POWER) - 1
            nodes.append(max(ideal, nodes[-1] + 1 if nodes else 0))
        return nodes

    def noise_ratio(self, timestep: int) -> float:
        """sqrt((1 - a_t) / a_t): the noise beside a signal of scale one."""
        alpha = self.alpha(timestep)
        return float(((1 - alpha) / alpha) ** 0.5)

    def epsilon(self, output: torch.Tensor, sample: torch.Tensor, alpha: float) -> torch.Tensor:
        """The noise that the network's raw output means for `sample` at cumulative alpha `alpha`."""
        if self.prediction_type == "epsilon":
            return output
        if self.prediction_type == "v_prediction":
            return alpha**0.5 * output + (1 - alpha) ** 0.5 * sample
        return (sample - alpha**0.5 * output) / max(1 - alpha, 1e-12) ** 0.5

    def clean(self, output: torch.Tensor, sample: torch.Tensor, alpha: float) -> torch.Tensor:
        """The x_0 that the network's raw output means for `sample` at cumulative alpha `alpha`."""
        if self.prediction_type == "epsilon":
            return (sample - (1 - alpha) ** 0.5 * output) / alpha**0.5
        if self.prediction_type == "v_prediction":
            return alpha**0.5 * sample - (1 - alpha) ** 0.5 * output
        return output


def ddim_encode(
    predict: Predictor,
    clean: torch.Tensor,
    schedule: NoiseSchedule,
    steps: int,
    strength: float = 1.0,
    refinements: int = 0,
) -> torch.Tensor:
    """Invert DDIM: the noisy latents at `strength` from which eta-0 decoding comes back to `clean`.

    The step up is implicit: it wants the noise that the network will see at its upper end, which is not known yet.
    Without refinements the network looks at the lower end instead (as audiodiffusion does, a first-order error). Each
    refinement looks again from where the step ended, a fixed-point iteration towards the exact inverse of the
    decoding step (Pan et al., "Effective real image editing with accelerated iterative diffusion inversion",
    arXiv 2309.04907): one brings more than twice the steps would.

    Args:
        predict: the network.
        clean: batch [batch, channels, height, width] at noise strength zero.
        steps: network evaluations; more is closer to the exact inverse.
        strength: how far up to go, as a fraction of the schedule.
        refinements: further evaluations at each step.

    Returns: float32, the same shape as `clean`.
    """
    sample = clean.float()
    timesteps = schedule.timesteps(steps, strength)
    below = -1  # clean
    for timestep in timesteps:
        alpha_from, alpha_to = schedule.alpha(below), schedule.alpha(timestep)
        origin_scale, origin_spread = alpha_from**0.5, (1 - alpha_from) ** 0.5
        upper = sample
        for _ in range(1 + refinements):
            noise = schedule.epsilon(predict(upper, timestep).float(), upper, alpha_to)
            origin = (sample - origin_spread * noise) / origin_scale
            upper = alpha_to**0.5 * origin + (1 - alpha_to) ** 0.5 * noise
        sample = upper
        below = timestep
    return sample


def ddim_decode(
    predict: Predictor,
    noisy: torch.Tensor,
    schedule: NoiseSchedule,
    steps: int,
    strength: float = 1.0,
    eta: float = 0.0,
    seeds: Sequence[int] | None = None,
) -> torch.Tensor:
    """SamplerConfig latents down from `strength` to clean in `steps` DDIM steps (equation 12 of arXiv 2010.02502).

    Args:
        noisy: batch [batch, channels, height, width] as `ddim_encode` returns it for the same steps and strength.
        eta: 0 is deterministic, 1 adds the noise of DDPM ancestral sampling back at every step.
        seeds: one a batch item, needed when eta > 0: an item's noise depends on its own seed alone.

    Returns: float32, the same shape, not clamped.
    """
    if eta > 0 and (seeds is None or len(seeds) != len(noisy)):
        raise ValueError("eta > 0 needs one seed for each item of the batch")
    generators = [torch.Generator().manual_seed(int(seed)) for seed in seeds or ()] if eta > 0 else []
    sample = noisy.float()
    timesteps = schedule.timesteps(steps, strength)
    for timestep, below in zip(reversed(timesteps), [*reversed(timesteps[:-1]), -1], strict=True):
        alpha_from, alpha_to = schedule.alpha(timestep), schedule.alpha(below)
        output = predict(sample, timestep).float()
        noise = schedule.epsilon(output, sample, alpha_from)
        origin = schedule.clean(output, sample, alpha_from)
        if schedule.clip_range is not None:
            origin = origin.clamp(-schedule.clip_range, schedule.clip_range)
        variance = (1 - alpha_to) / (1 - alpha_from) * (1 - alpha_from / alpha_to)
        sigma = eta * max(variance, 0.0) ** 0.5
        sample = alpha_to**0.5 * origin + max(1 - alpha_to - sigma**2, 0.0) ** 0.5 * noise
        if sigma > 0:
            fresh = torch.stack(
                [torch.randn(noisy.shape[1:], generator=generator) for generator in generators]
            )
            sample = sample + sigma * fresh.to(sample.device)
    return sample
