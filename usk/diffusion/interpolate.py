"""Mix the latents of two parents. Pure functions of batches [batch, channels, height, width].

`alpha` [batch] is the weight of the second parent: 0 gives the first one, 1 the second.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

NEARLY_PARALLEL = 1e-3  # directions with a smaller sine between them are interpolated linearly


class Scales(NamedTuple):
    """The scales of signal and noise in a noisy latent x = signal * x_0 + noise * eps."""

    signal: float
    noise: float


def _broadcast(weights: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return weights.to(like).reshape(-1, *[1] * (like.dim() - 1))


def _norm(latents: torch.Tensor) -> torch.Tensor:
    return latents.flatten(1).norm(dim=1)


def lerp(first: torch.Tensor, second: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
    """Interpolate linearly: (1 - alpha) first + alpha second."""
    return first + _broadcast(alpha, first) * (second - first)


def slerp(first: torch.Tensor, second: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
    """Interpolate spherically, with one angle for each pair (Shoemake 1985; White, arXiv 1609.04468).

    Between latents of equal norm the path stays on their sphere. Nearly parallel or opposite pairs, which have no unique shortest
    arc, are interpolated linearly.
    """
    weight = alpha.to(first)
    first_unit, second_unit = _unit(first), _unit(second)
    # Kahan's formula. In float32 the arc cosine of a dot product does not resolve angles within 4e-4 of 0 or pi.
    apart, along = _norm(first_unit - second_unit), _norm(first_unit + second_unit)
    angle = 2 * torch.atan2(apart, along)
    sine = 2 * apart * along / (apart.square() + along.square()).clamp_min(1e-20)
    on_line = sine < NEARLY_PARALLEL
    safe_sine = torch.where(on_line, torch.ones_like(sine), sine)
    arc = (
        _broadcast(torch.sin((1 - weight) * angle) / safe_sine, first) * first
        + _broadcast(torch.sin(weight * angle) / safe_sine, first) * second
    )
    return torch.where(_broadcast(on_line, first).bool(), lerp(first, second, alpha), arc)


def _unit(latents: torch.Tensor) -> torch.Tensor:
    return latents / _broadcast(_norm(latents).clamp_min(1e-20), latents)


def noise_part(noisy: torch.Tensor, clean: torch.Tensor, scales: Scales) -> torch.Tensor:
    """Return the eps of x = signal * x_0 + noise * eps."""
    return (noisy - scales.signal * clean) / max(scales.noise, 1e-6)


def with_noise(clean: torch.Tensor, noise: torch.Tensor, scales: Scales) -> torch.Tensor:
    """Return x = signal * x_0 + noise * eps. With fresh noise this is the start of SDEdit (Meng et al., arXiv 2108.01073)."""
    return scales.signal * clean + scales.noise * noise


def decomposed(
    first: torch.Tensor,
    second: torch.Tensor,
    alpha: torch.Tensor,
    first_clean: torch.Tensor,
    second_clean: torch.Tensor,
    scales: Scales,
) -> torch.Tensor:
    """Mix the signals of two noisy latents linearly and their noises spherically, given both parents' x_0.

    In the mix the signal's weights sum to one and the noise keeps its variance (the decomposition of NoiseDiffusion, arXiv
    2403.08840). `slerp` of whole latents gives the signals more weight (0.71 + 0.71 at alpha 0.5, for independent latents).
    """
    noise = slerp(noise_part(first, first_clean, scales), noise_part(second, second_clean, scales), alpha)
    return with_noise(lerp(first_clean, second_clean, alpha), noise, scales)
