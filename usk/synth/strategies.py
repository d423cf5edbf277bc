"""The strategies of `usk synth --strategy`: how many parents a clip takes, and how their latents become one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from usk.diffusion.interpolate import (
    Scales,
    barycentre,
    corrected,
    decomposed,
    lerp,
    midpoint,
    noise_part,
    slerp,
    with_noise,
)
from usk.errors import UsageError


@dataclass(frozen=True)
class Ingredients:
    """What one batch of clips is mixed from; latents are [parents, batch, channels, height, width]."""

    noisy: torch.Tensor  # inverted up to the strength; equal to `clean` where the strategy does not invert
    clean: torch.Tensor
    weights: torch.Tensor  # [batch, parents], each row sums to 1
    fresh: torch.Tensor  # [batch, channels, height, width], unit Gaussian, from each clip's own seed
    scales: Scales  # of signal and noise at the strength

    @property
    def alpha(self) -> torch.Tensor:
        """The second parent's share [batch]."""
        return self.weights[:, 1]

    @property
    def noise(self) -> torch.Tensor:
        """What the inversion of each parent found to be noise, of unit variance where it is Gaussian."""
        return noise_part(self.noisy, self.clean, self.scales)


@dataclass(frozen=True)
class Strategy:
    """One row of the table."""

    # To latents at the strength, [batch, channels, height, width]; None: no generator, waveforms become waveforms.
    mix: Callable[[Ingredients], torch.Tensor] | None
    help: str
    n_parents: int | None = 2  # None: as many as asked for
    inverts: bool = True  # parents are encoded by DDIM inversion; otherwise their clean latents suffice
    strength: float | None = None  # the only strength that makes sense, where there is one
    weighted: bool = True  # parents' weights count


def _slerp(of: Ingredients) -> torch.Tensor:
    return slerp(of.noisy[0], of.noisy[1], of.alpha)


def _decomposed(of: Ingredients) -> torch.Tensor:
    return decomposed(of.noisy[0], of.noisy[1], of.alpha, of.clean[0], of.clean[1], of.scales)


def _corrected(of: Ingredients) -> torch.Tensor:
    noise = slerp(of.noise[0], of.noise[1], of.alpha)
    return with_noise(lerp(of.clean[0], of.clean[1], of.alpha), corrected(noise, of.fresh), of.scales)


def _barycentre(of: Ingredients) -> torch.Tensor:
    signal = torch.einsum("kb...,bk->b...", of.clean, of.weights.to(of.clean))
    return with_noise(signal, barycentre(list(of.noise), of.weights), of.scales)


STRATEGIES: dict[str, Strategy] = {
    "decomposed": Strategy(_decomposed, "signal mixed linearly, noise spherically"),
    "slerp": Strategy(_slerp, "spherical linear interpolation (as published)"),
    "midpoint": Strategy(
        lambda of: midpoint(of.noisy[0], of.noisy[1]),
        "mean rescaled to its parents' norm; no --alpha",
        weighted=False,
    ),
    "corrected": Strategy(_corrected, "decomposed, its noise made more Gaussian (after NoiseDiffusion)"),
    "barycentre": Strategy(_barycentre, "normalized mean of --parents clips", n_parents=None),
    "variation": Strategy(
        lambda of: with_noise(of.clean[0], of.fresh, of.scales),
        "one parent, noised up to the strength and decoded",
        n_parents=1,
        inverts=False,
        weighted=False,
    ),
    "sample": Strategy(
        lambda of: of.fresh,
        "new clips from noise and the class; one parent lends length and loudness only",
        n_parents=1,
        inverts=False,
        strength=1.0,
        weighted=False,
    ),
}


WAVEFORM, CLASSICAL = "waveform", "classical"
STRATEGIES[WAVEFORM] = Strategy(
    None, "the control: parents' waveforms summed, without a generator", inverts=False
)
STRATEGIES[CLASSICAL] = Strategy(
    None,
    "one parent's waveform at another speed and pitch, with noise, without a generator",
    n_parents=1,
    inverts=False,
    weighted=False,
)


def strategy_named(name: str) -> Strategy:
    """The row of the table. Raises UsageError for a name that is not in it."""
    if name not in STRATEGIES:
        raise UsageError(f"--strategy {name} is not known; choose one of {', '.join(STRATEGIES)}")
    return STRATEGIES[name]
