"""Both solvers, both ways: `invert` clean latents to noisy ones, and `sample` clean latents from noisy ones.

`ddim` is first-order (arXiv 2010.02502). At strength 1 and with the same number of steps both directions equal
audiodiffusion's own `encode` and pipeline.

`second-order` solves the probability-flow ODE (Song et al., arXiv 2011.13456) with one network evaluation a step, reusing
the one before it. Inversion is explicit two-step Adams-Bashforth: in x / sqrt(a) over s = sqrt((1 - a) / a), where the slope
is the predicted noise, and from s = 1 on in x / sqrt(1 - a) over 1 / s, where it is the predicted x_0 (s itself grows without
bound). Sampling is DPM-Solver++(2M) in the predicted x_0 over the log signal-to-noise ratio (Lu et al., arXiv 2211.01095),
which supports larger steps there and lets x_0 be clamped as the scheduler asks.

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
"""Maps a noisy batch [batch, channels, height, width] and its timestep to the network's raw output, same shape."""


def top_alpha(config: SamplerConfig, schedule: Schedule) -> float:
    """The cumulative alpha where inversion ends and sampling starts. Raises UsageError for steps that do not fit."""
    nodes = schedule.nodes if config.solver == "second-order" else schedule.timesteps
    return schedule.alpha(nodes(config.steps, config.strength)[-1])


def invert(
    predict: Predictor, clean: torch.Tensor, schedule: Schedule, config: SamplerConfig
) -> torch.Tensor:
    """The noisy latents at the strength from which `sample`, with eta 0, comes back to `clean`."""
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
    """Clean latents from noisy ones at the strength, clamped only as the scheduler's configuration says.

    Args:
        eta: 0 is deterministic, 1 adds the noise of DDPM ancestral sampling at every step. Needs the solver `ddim`.
        seeds: one per item of the batch, needed when eta > 0: an item's noise depends on its own seed alone.
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
    """The exact step needs the noise that the network will predict at its upper end, which is not known yet; the network
    looks at the lower end instead, as audiodiffusion does: a first-order error."""
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
    """Equation 12 of arXiv 2010.02502. An infinite eta makes all noise fresh at every step, as for distilled models."""
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
    """`steps + 1` evaluations: the first step, which has no step before it to learn from, is predicted twice."""
    nodes = schedule.nodes(config.steps, config.strength)
    alpha = schedule.alpha(nodes[0])
    latent = clean
    for _ in range(2):
        slope = schedule.epsilon(predict(latent, nodes[0]).float(), latent, alpha)
        latent = alpha**0.5 * clean + (1 - alpha) ** 0.5 * slope
    # Noise ratio, noise and x_0 at the last node
    before: tuple[float, torch.Tensor, torch.Tensor] | None = None
    for node, following in itertools.pairwise(nodes):
        alpha, alpha_to = schedule.alpha(node), schedule.alpha(following)
        ratio, ratio_to = schedule.noise_ratio(node), schedule.noise_ratio(following)
        output = predict(latent, node).float()
        noise, origin = schedule.epsilon(output, latent, alpha), schedule.clean(output, latent, alpha)
        if ratio < 1:  # mostly signal: x / sqrt(a) over the noise ratio, whose slope is the noise
            slope = noise
            if before is not None:
                slope = noise + (ratio_to - ratio) / (2 * (ratio - before[0])) * (noise - before[1])
            latent = alpha_to**0.5 * (latent / alpha**0.5 + (ratio_to - ratio) * slope)
        else:  # mostly noise: x / sqrt(1 - a) over the inverse of the ratio, whose slope is x_0
            width, slope = 1 / ratio_to - 1 / ratio, origin
            if before is not None:
                slope = origin + width / (2 * (1 / ratio - 1 / before[0])) * (origin - before[2])
            latent = (1 - alpha_to) ** 0.5 * (latent / (1 - alpha) ** 0.5 + width * slope)
        before = (ratio, noise, origin)
    return latent


def _sample_second_order(
    predict: Predictor, noisy: torch.Tensor, schedule: Schedule, config: SamplerConfig
) -> torch.Tensor:
    """`steps` evaluations."""
    descending = schedule.nodes(config.steps, config.strength)[::-1]
    latent = noisy
    # The x_0 predicted at the last node, and the step from there
    before: tuple[torch.Tensor, float] | None = None
    for node, following in itertools.pairwise(descending):
        alpha, alpha_to = schedule.alpha(node), schedule.alpha(following)
        origin = schedule.clipped(schedule.clean(predict(latent, node).float(), latent, alpha))
        width = math.log(schedule.noise_ratio(node) / schedule.noise_ratio(following))
        blend = origin
        if before is not None:
            bend = width / (2 * before[1])
            blend = (1 + bend) * origin - bend * before[0]
        latent = (1 - alpha_to) ** 0.5 / (1 - alpha) ** 0.5 * latent - alpha_to**0.5 * math.expm1(
            -width
        ) * blend
        before = (origin, width)
    output = predict(latent, descending[-1]).float()
    return schedule.clipped(schedule.clean(output, latent, schedule.alpha(descending[-1])))
