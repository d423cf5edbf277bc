"""Second-order inversion and decoding: one network evaluation a step, the one before it reused.

Both directions solve the probability-flow ODE of a diffusion model (Song et al., arXiv 2011.13456). Up, explicit two-step
Adams-Bashforth: in x / sqrt(a) over s = sqrt((1 - a) / a), where the slope is the predicted noise, and from s = 1 on in
x / sqrt(1 - a) over 1 / s, where it is the predicted x_0 (s itself grows without bound). Down, DPM-Solver++(2M) in the
predicted x_0 over the log signal-to-noise ratio (Lu et al., arXiv 2211.01095), which bears larger steps there and lets
x_0 be clamped as the scheduler asks.
"""

from __future__ import annotations

import itertools
import math

import torch

from usk.diffusion.ddim import NoiseSchedule, Predictor


def encode_second_order(
    predict: Predictor,
    clean: torch.Tensor,
    schedule: NoiseSchedule,
    steps: int,
    strength: float = 1.0,
    refinements: int = 1,
) -> torch.Tensor:
    """The noisy latents at `strength` from which `decode_second_order` comes back to `clean`.

    Args:
        predict: the network.
        clean: batch [batch, channels, height, width] at noise strength zero.
        steps: steps; the network is evaluated `steps + refinements` times.
        strength: how far up to go, as a fraction of the schedule.
        refinements: further looks at the first step, which has no step before it to learn from.

    Returns: float32, the same shape as `clean`.
    """
    nodes = schedule.nodes(steps, strength)
    first_alpha = schedule.alpha(nodes[0])
    sample = clean.float()
    upper = sample
    for _ in range(1 + refinements):
        slope = schedule.epsilon(predict(upper, nodes[0]).float(), upper, first_alpha)
        upper = first_alpha**0.5 * sample + (1 - first_alpha) ** 0.5 * slope
    sample = upper
    before: tuple[float, torch.Tensor, torch.Tensor] | None = (
        None  # noise ratio, noise and x_0 at the node before
    )
    for node, following in itertools.pairwise(nodes):
        alpha, alpha_to = schedule.alpha(node), schedule.alpha(following)
        ratio, ratio_to = schedule.noise_ratio(node), schedule.noise_ratio(following)
        output = predict(sample, node).float()
        noise, origin = schedule.epsilon(output, sample, alpha), schedule.clean(output, sample, alpha)
        if ratio < 1:  # mostly signal: x / sqrt(a) over the noise ratio, whose slope is the noise
            slope = noise
            if before is not None:
                slope = noise + (ratio_to - ratio) / (2 * (ratio - before[0])) * (noise - before[1])
            sample = alpha_to**0.5 * (sample / alpha**0.5 + (ratio_to - ratio) * slope)
        else:  # mostly noise: x / sqrt(1 - a) over the inverse of the ratio, whose slope is x_0
            width, slope = 1 / ratio_to - 1 / ratio, origin
            if before is not None:
                slope = origin + width / (2 * (1 / ratio - 1 / before[0])) * (origin - before[2])
            sample = (1 - alpha_to) ** 0.5 * (sample / (1 - alpha) ** 0.5 + width * slope)
        before = (ratio, noise, origin)
    return sample


def decode_second_order(
    predict: Predictor, noisy: torch.Tensor, schedule: NoiseSchedule, steps: int, strength: float = 1.0
) -> torch.Tensor:
    """SamplerConfig latents down from `strength` to clean in `steps` evaluations of the network.

    Args:
        noisy: batch [batch, channels, height, width] as `encode_second_order` returns it for the same steps and strength.

    Returns: float32, the same shape, not clamped further than the scheduler's configuration says.
    """
    nodes = schedule.nodes(steps, strength)
    sample = noisy.float()
    before: tuple[torch.Tensor, float] | None = (
        None  # x_0 as seen from the node above, and the step from there
    )
    for place in range(steps - 1, -1, -1):
        alpha = schedule.alpha(nodes[place])
        origin = schedule.clean(predict(sample, nodes[place]).float(), sample, alpha)
        if schedule.clip_range is not None:
            origin = origin.clamp(-schedule.clip_range, schedule.clip_range)
        if place == 0:
            return origin
        alpha_to = schedule.alpha(nodes[place - 1])
        width = math.log(schedule.noise_ratio(nodes[place]) / schedule.noise_ratio(nodes[place - 1]))
        blend = origin
        if before is not None:
            bend = width / (2 * before[1])
            blend = (1 + bend) * origin - bend * before[0]
        sample = (1 - alpha_to) ** 0.5 / (1 - alpha) ** 0.5 * sample - alpha_to**0.5 * math.expm1(
            -width
        ) * blend
        before = (origin, width)
    raise AssertionError("a sampler has at least one step")
