"""Second-order inversion and decoding: one network evaluation a step, the one before it reused.

Both directions solve the probability-flow ODE of a diffusion model (Song et al., arXiv 2011.13456). Up, in
x / sqrt(a) over s = sqrt((1 - a) / a), its slope is the predicted noise: explicit two-step Adams-Bashforth. Down,
DPM-Solver++(2M) in the predicted x_0 over the log signal-to-noise ratio (Lu et al., arXiv 2211.01095), which bears
larger steps there and lets x_0 be clamped as the scheduler asks.
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
    level: float = 1.0,
    refinements: int = 1,
) -> torch.Tensor:
    """The noisy latents at `level` from which `decode_second_order` comes back to `clean`.

    Args:
        predict: the network.
        clean: batch [batch, channels, height, width] at noise level zero.
        steps: steps; the network is evaluated `steps + refinements` times.
        level: how far up to go, as a fraction of the schedule.
        refinements: further looks at the first step, which has no step before it to learn from.

    Returns: float32, the same shape as `clean`.
    """
    nodes = schedule.nodes(steps, level)
    first_alpha = schedule.alpha(nodes[0])
    sample = clean.float()
    upper = sample
    for _ in range(1 + refinements):
        slope = schedule.epsilon(predict(upper, nodes[0]).float(), upper, first_alpha)
        upper = first_alpha**0.5 * sample + (1 - first_alpha) ** 0.5 * slope
    scaled = upper / first_alpha**0.5
    before: tuple[torch.Tensor, float] | None = None  # the slope at the node before, and the step from there
    for node, following in itertools.pairwise(nodes):
        alpha, width = schedule.alpha(node), schedule.noise_ratio(following) - schedule.noise_ratio(node)
        sample = alpha**0.5 * scaled
        slope = schedule.epsilon(predict(sample, node).float(), sample, alpha)
        if before is None:
            scaled = scaled + width * slope
        else:
            bend = width / (2 * before[1])
            scaled = scaled + width * ((1 + bend) * slope - bend * before[0])
        before = (slope, width)
    return schedule.alpha(nodes[-1]) ** 0.5 * scaled


def decode_second_order(
    predict: Predictor, noisy: torch.Tensor, schedule: NoiseSchedule, steps: int, level: float = 1.0
) -> torch.Tensor:
    """Walk latents down from `level` to clean in `steps` evaluations of the network.

    Args:
        noisy: batch [batch, channels, height, width] as `encode_second_order` returns it for the same steps and level.

    Returns: float32, the same shape, not clamped further than the scheduler's configuration says.
    """
    nodes = schedule.nodes(steps, level)
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
    raise AssertionError("a walk has at least one step")
