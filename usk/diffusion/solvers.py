"""The solvers: `invert` clean latents to noisy ones, and `sample` clean latents from noisy ones.

`ddim` is first-order (arXiv 2010.02502). At strength 1 and with the same number of steps, both directions equal audiodiffusion's
own `encode` and pipeline.

`second-order` solves the probability-flow ODE (Song et al., arXiv 2011.13456). It evaluates the network once a step and reuses
the previous evaluation. Inversion is explicit two-step Adams-Bashforth. Below s = sqrt((1 - a) / a) = 1 it integrates x / sqrt(a)
over s, where the slope is the predicted noise. From there on it integrates x / sqrt(1 - a) over 1 / s, where the slope is the
predicted x_0, because s grows without bound. Sampling is DPM-Solver++(2M) in the predicted x_0 over the log signal-to-noise ratio
(Lu et al., arXiv 2211.01095), which allows larger steps there and lets x_0 be clamped.

Latents are batches [batch, channels, height, width]; results are float32 of the same shape.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from usk.device import to_device
from usk.diffusion.sampler import SamplerConfig
from usk.diffusion.schedule import Schedule
from usk.errors import UsageError

Predictor = Callable[[torch.Tensor, Any], torch.Tensor]
"""`predict(noisy, node)` returns the network's raw output for a noisy batch, in the batch's shape."""


def top_alpha(config: SamplerConfig, schedule: Schedule) -> float:
    """Return the cumulative alpha where inversion ends and sampling starts. Raises UsageError for steps that do not fit."""
    nodes = schedule.nodes if config.solver == "second-order" else schedule.timesteps
    return schedule.alpha(nodes(config.steps, config.strength)[-1])


def invert(
    predict: Predictor, clean: torch.Tensor, schedule: Schedule, config: SamplerConfig
) -> torch.Tensor:
    """Return the noisy latents at the strength, from which `sample` with eta 0 returns to `clean`."""
    solve = _invert_second_order if config.solver == "second-order" else _invert_ddim
    return solve(predict, clean.float(), schedule, config)


def sample(
    predict: Predictor,
    noisy: torch.Tensor,
    schedule: Schedule,
    config: SamplerConfig,
    eta: float = 0.0,
    seeds: Sequence[int] = (),
) -> torch.Tensor:
    """Return clean latents from noisy ones at the strength. Predicted x_0 is clamped if the scheduler asks for it.

    Args:
        eta: 0 is deterministic; 1 adds the noise of DDPM ancestral sampling at every step. Needs the solver `ddim`.
        seeds: of each item's noise, needed if eta > 0.
    """
    if eta > 0 and config.solver != "ddim":
        raise UsageError(
            "the second-order solver adds no noise",
            field="eta",
            value=f"{eta:g}",
            hint="Use the solver ddim.",
        )
    if config.solver == "ddim":
        return _sample_ddim(predict, noisy.float(), schedule, config, eta, seeds)
    return _sample_second_order(predict, noisy.float(), schedule, config)


def _invert_ddim(
    predict: Predictor, clean: torch.Tensor, schedule: Schedule, config: SamplerConfig
) -> torch.Tensor:
    """Invert with first-order DDIM.

    The exact step needs the network's prediction at its upper end, which is not known yet. As in audiodiffusion, the latents at
    the lower end are used instead: a first-order error.
    """
    latent, below = clean, -1
    for timestep in schedule.timesteps(config.steps, config.strength):
        alpha_from, alpha_to = schedule.alpha(below), schedule.alpha(timestep)
        noise = schedule.epsilon(predict(latent, timestep).float(), latent, alpha_to)
        origin = (latent - (1 - alpha_from) ** 0.5 * noise) / alpha_from**0.5
        latent = alpha_to**0.5 * origin + (1 - alpha_to) ** 0.5 * noise
        below = timestep
    return latent


def _sample_ddim(
    predict: Predictor,
    noisy: torch.Tensor,
    schedule: Schedule,
    config: SamplerConfig,
    eta: float,
    seeds: Sequence[int],
) -> torch.Tensor:
    """Sample by equation 12 of arXiv 2010.02502. An infinite eta makes all noise fresh at every step, for distilled models."""
    if eta > 0 and len(seeds) != len(noisy):
        raise ValueError("eta > 0 needs one seed for each item of the batch")
    generators = [torch.Generator().manual_seed(int(seed)) for seed in seeds] if eta > 0 else []
    latent = noisy
    timesteps = schedule.timesteps(config.steps, config.strength)
    for timestep, below in zip(reversed(timesteps), [*reversed(timesteps[:-1]), -1], strict=True):
        alpha_from, alpha_to = schedule.alpha(timestep), schedule.alpha(below)
        output = predict(latent, timestep).float()
        noise = schedule.epsilon(output, latent, alpha_from)
        origin = schedule.clipped(schedule.clean(output, latent, alpha_from))
        variance = (1 - alpha_to) / (1 - alpha_from) * (1 - alpha_from / alpha_to)
        sigma = min(eta * variance**0.5, (1 - alpha_to) ** 0.5) if variance > 0 else 0.0
        latent = alpha_to**0.5 * origin + max(1 - alpha_to - sigma**2, 0.0) ** 0.5 * noise
        if sigma > 0:
            fresh = [torch.randn(noisy.shape[1:], generator=generator) for generator in generators]
            latent = latent + sigma * to_device(torch.stack(fresh), latent.device)
    return latent


def _invert_second_order(
    predict: Predictor, clean: torch.Tensor, schedule: Schedule, config: SamplerConfig
) -> torch.Tensor:
    """Invert with `steps + 1` evaluations: the first step has no previous evaluation and is evaluated twice."""
    nodes = schedule.nodes(config.steps, config.strength)
    alpha = schedule.alpha(nodes[0])
    latent = clean
    for _ in range(2):
        slope = schedule.epsilon(predict(latent, nodes[0]).float(), latent, alpha)
        latent = alpha**0.5 * clean + (1 - alpha) ** 0.5 * slope
    # Noise ratio, noise and x_0 at the previous node
    previous: tuple[float, torch.Tensor, torch.Tensor] | None = None
    for node, following in itertools.pairwise(nodes):
        alpha, alpha_to = schedule.alpha(node), schedule.alpha(following)
        ratio, ratio_to = schedule.noise_ratio(node), schedule.noise_ratio(following)
        output = predict(latent, node).float()
        noise, origin = schedule.epsilon(output, latent, alpha), schedule.clean(output, latent, alpha)
        if ratio < 1:  # mostly signal: x / sqrt(a) over the noise ratio, whose slope is the noise
            slope = noise
            if previous is not None:
                slope = noise + (ratio_to - ratio) / (2 * (ratio - previous[0])) * (noise - previous[1])
            latent = alpha_to**0.5 * (latent / alpha**0.5 + (ratio_to - ratio) * slope)
        else:  # mostly noise: x / sqrt(1 - a) over the inverse of the ratio, whose slope is x_0
            width, slope = 1 / ratio_to - 1 / ratio, origin
            if previous is not None:
                slope = origin + width / (2 * (1 / ratio - 1 / previous[0])) * (origin - previous[2])
            latent = (1 - alpha_to) ** 0.5 * (latent / (1 - alpha) ** 0.5 + width * slope)
        previous = (ratio, noise, origin)
    return latent


def _sample_second_order(
    predict: Predictor, noisy: torch.Tensor, schedule: Schedule, config: SamplerConfig
) -> torch.Tensor:
    """Sample with `steps` evaluations."""
    descending = schedule.nodes(config.steps, config.strength)[::-1]
    latent = noisy
    # The x_0 that was predicted at the previous node, and the width of the step from there
    previous: tuple[torch.Tensor, float] | None = None
    for node, following in itertools.pairwise(descending):
        alpha, alpha_to = schedule.alpha(node), schedule.alpha(following)
        origin = schedule.clipped(schedule.clean(predict(latent, node).float(), latent, alpha))
        width = math.log(schedule.noise_ratio(node) / schedule.noise_ratio(following))
        blend = origin
        if previous is not None:
            bend = width / (2 * previous[1])
            blend = (1 + bend) * origin - bend * previous[0]
        shrink = (1 - alpha_to) ** 0.5 / (1 - alpha) ** 0.5
        latent = shrink * latent - alpha_to**0.5 * math.expm1(-width) * blend
        previous = (origin, width)
    output = predict(latent, descending[-1]).float()
    return schedule.clipped(schedule.clean(output, latent, schedule.alpha(descending[-1])))
