"""The strategies of `usk synth`: how many parents a clip takes, and how their latents become one. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from usk.errors import require_known

if TYPE_CHECKING:
    import torch

    from usk.diffusion.interpolate import Scales


@dataclass(frozen=True)
class Ingredients:
    """What one batch of clips is mixed from; latents are [parents, batch, *latent shape]."""

    noisy: torch.Tensor  # inverted up to the strength; equal to `clean` where the strategy does not invert
    clean: torch.Tensor
    weights: torch.Tensor  # [batch, parents], each row sums to 1
    fresh: Callable[[], torch.Tensor]  # [batch, *latent shape], unit Gaussian, from each clip's own seed
    scales: Scales  # of signal and noise at the strength

    @property
    def alpha(self) -> torch.Tensor:
        """The second parent's share [batch]."""
        return self.weights[:, 1]


@dataclass(frozen=True)
class Strategy:
    """One row of the table."""

    # Takes `usk.diffusion.interpolate`, which imports torch, and gives latents at the strength, [batch, *latent shape]; None: no
    # generator, waveforms become waveforms.
    mix: Callable[[Any, Ingredients], torch.Tensor] | None
    help: str
    n_parents: int = 2
    encodes: bool = True  # latents of parents are needed
    inverts: bool = True  # parents are encoded by DDIM inversion; otherwise their clean latents suffice
    samples: bool = True  # what is mixed is sampled from; otherwise it is clean, and decoded as it is
    strength: float | None = None  # the only strength that makes sense, where there is one

    @property
    def weighted(self) -> bool:
        """Whether parents' weights, and so alpha, count."""
        return self.n_parents == 2

    @property
    def is_control(self) -> bool:
        """Whether clips come without the network: what it adds is what other clips do beyond these."""
        return self.mix is None or not self.samples


WAVEFORM, CLASSICAL = "waveform", "classical"
STRATEGIES: dict[str, Strategy] = {
    "decomposed": Strategy(
        lambda ways, of: ways.decomposed(*of.noisy, of.alpha, *of.clean, of.scales),
        "signal mixed linearly, noise spherically",
    ),
    "slerp": Strategy(
        lambda ways, of: ways.slerp(*of.noisy, of.alpha), "spherical linear interpolation (as published)"
    ),
    "variation": Strategy(
        lambda ways, of: ways.with_noise(of.clean[0], of.fresh(), of.scales),
        "one parent, noised up to the strength and decoded",
        n_parents=1,
        inverts=False,
    ),
    "sample": Strategy(
        lambda ways, of: of.fresh(),
        "new clips from noise and the class; one parent lends length and loudness, and its texture if the phase is the parents'",
        n_parents=1,
        encodes=False,
        inverts=False,
        strength=1.0,
    ),
    "average": Strategy(
        lambda ways, of: ways.lerp(*of.clean, of.alpha),
        "a control: parents' latents (mel images in dB) averaged and decoded, without the network",
        inverts=False,
        samples=False,
    ),
    "resynthesis": Strategy(
        lambda ways, of: of.clean[0],
        "a control: one parent encoded and decoded, without the network",
        n_parents=1,
        inverts=False,
        samples=False,
    ),
    WAVEFORM: Strategy(None, "the control: parents' waveforms summed, without a generator", inverts=False),
    CLASSICAL: Strategy(
        None,
        "one parent's waveform at another speed and pitch, with noise, without a generator",
        n_parents=1,
        inverts=False,
    ),
}


def strategy_named(name: str) -> Strategy:
    """The row of the table. Raises UsageError for a name that is not in it."""
    require_known(name, STRATEGIES, "strategy")
    return STRATEGIES[name]
