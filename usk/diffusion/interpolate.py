"""Ways to mix latents: pure functions of batches.

Of two: `alpha` [batch] is the share of the second, 0 gives the first and 1 the second. Of k: `weights` [batch, k] are
their shares and sum to one. All take and return latents [batch, channels, height, width].
"""

from __future__ import annotations

from typing import NamedTuple

import torch

NEARLY_PARALLEL = 1e-3  # below this sine two directions are taken for one line


class Scales(NamedTuple):
    """How much of each a noisy latent x = signal * x_0 + noise * eps holds."""

    signal: float
    noise: float


def _broadcast(weights: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return weights.to(like).reshape(-1, *[1] * (like.dim() - 1))


def _norm(latents: torch.Tensor) -> torch.Tensor:
    return latents.flatten(1).norm(dim=1)


def lerp(first: torch.Tensor, second: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
    """(1 - alpha) first + alpha second."""
    return first + _broadcast(alpha, first) * (second - first)


def slerp(first: torch.Tensor, second: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
    """Spherical linear interpolation, one angle for each pair (Shoemake 1985; White, arXiv 1609.04468).

    Between latents of equal norm the path stays on their sphere. Identical (nearly parallel) pairs, where the
    angle vanishes, are interpolated linearly. Opposite pairs have no shortest arc: they turn through a fixed
    direction at right angles to the first, so that the result keeps its norm and is never NaN.
    """
    weight = alpha.to(first)
    first_unit, second_unit = _unit(first), _unit(second)
    # Kahan's form: the arc cosine of a dot product cannot tell angles within 4e-4 of 0 or pi apart in float32.
    apart, along = _norm(first_unit - second_unit), _norm(first_unit + second_unit)
    angle = 2 * torch.atan2(apart, along)
    sine = 2 * apart * along / (apart.square() + along.square()).clamp_min(1e-20)
    degenerate = sine < NEARLY_PARALLEL
    safe_sine = torch.where(degenerate, torch.ones_like(sine), sine)
    arc = (
        _broadcast(torch.sin((1 - weight) * angle) / safe_sine, first) * first
        + _broadcast(torch.sin(weight * angle) / safe_sine, first) * second
    )
    straight = lerp(first, second, alpha)
    turned = _half_turn(first, second, weight)
    line = torch.where(_broadcast(along >= apart, first).bool(), straight, turned)
    return torch.where(_broadcast(degenerate, first).bool(), line, arc)


def _unit(latents: torch.Tensor) -> torch.Tensor:
    return latents / _broadcast(_norm(latents).clamp_min(1e-20), latents)


def _half_turn(first: torch.Tensor, second: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """From `first` to its opposite through a right angle; the norm moves linearly from one to the other's.

    The side that it turns through depends on their line alone, so that the way back is the same.
    """
    line = _unit(_unit(first) - _unit(second)).flatten(1)
    # Swapping neighbors with a sign turns any vector with an even number of entries by exactly 90 degrees.
    even = line[:, : line.shape[1] // 2 * 2].reshape(line.shape[0], -1, 2)
    side = torch.zeros_like(line)
    side[:, : even.shape[1] * 2] = torch.stack((-even[..., 1], even[..., 0]), dim=-1).flatten(1)
    side = _unit(side) * line.gather(1, line.abs().argmax(dim=1, keepdim=True)).sign()
    angle = weight * torch.pi
    size = (1 - weight) * _norm(first) + weight * _norm(second)
    turned = torch.cos(angle)[:, None] * line + torch.sin(angle)[:, None] * side
    return (size[:, None] * turned).reshape(first.shape)


def noise_part(noisy: torch.Tensor, clean: torch.Tensor, scales: Scales) -> torch.Tensor:
    """The eps of x = signal * x_0 + noise * eps: of unit variance where it is Gaussian."""
    return (noisy - scales.signal * clean) / max(scales.noise, 1e-6)


def with_noise(clean: torch.Tensor, noise: torch.Tensor, scales: Scales) -> torch.Tensor:
    """x = signal * x_0 + noise * eps. With fresh noise and one parent this is SDEdit's start (Meng et al., arXiv 2108.01073)."""
    return scales.signal * clean + scales.noise * noise


def decomposed(
    first: torch.Tensor,
    second: torch.Tensor,
    alpha: torch.Tensor,
    first_clean: torch.Tensor,
    second_clean: torch.Tensor,
    scales: Scales,
) -> torch.Tensor:
    """Mix the signal in noisy latents linearly and the noise spherically.

    Both parents' x_0 are known. `slerp` of the whole latents weighs the common signal by more than one (0.71 + 0.71 between
    independent halves); here the signal keeps weights that sum to one, and the noise its variance (the decomposition of
    NoiseDiffusion, arXiv 2403.08840).
    """
    noise = slerp(noise_part(first, first_clean, scales), noise_part(second, second_clean, scales), alpha)
    return with_noise(lerp(first_clean, second_clean, alpha), noise, scales)
