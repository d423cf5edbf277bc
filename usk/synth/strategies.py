"""The table of strategies: how many parents a clip has, and how their latents are mixed. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from usk.errors import require_known

if TYPE_CHECKING:
    import torch

    from usk.diffusion.interpolate import Scales


@dataclass(frozen=True)
class MixInputs:
    """The inputs of a batch of clips. Parents' latents are [parents, batch, *latent shape]."""

    noisy: torch.Tensor  # inverted up to the strength; equal to `clean` if the strategy does not invert
    clean: torch.Tensor
    weights: torch.Tensor  # [batch, parents], each row sums to 1
    draw_noise: Callable[[], torch.Tensor]  # unit Gaussian [batch, *latent shape], from each clip's own seed
    scales: Scales  # of signal and noise at the strength

    @property
    def alpha(self) -> torch.Tensor:
        """Return the weights of the second parents [batch]."""
        return self.weights[:, 1]


@dataclass(frozen=True)
class Strategy:
    """One row of the table."""

    # Called with the module `usk.diffusion.interpolate`, which imports torch, and the inputs. Returns latents [batch, *latent
    # shape] at the strength. None: the strategy works on waveforms, without a generator.
    mix: Callable[[Any, MixInputs], torch.Tensor] | None
    help: str
    n_parents: int = 2
    encodes: bool = True  # uses the parents' latents
    inverts: bool = True  # uses the parents' noisy latents, from DDIM inversion
    samples: bool = True  # the mixed latents are noisy and sampled from; otherwise they are clean
    strength: float | None = None  # the only strength that the strategy works at
    steps: float = 1.0  # the share of a preset's steps that the strategy takes

    @property
    def weighted(self) -> bool:
        """Whether the parents' weights, and so alpha, have an effect."""
        return self.n_parents == 2

    @property
    def is_control(self) -> bool:
        """Whether clips are made without the network. What the network adds is measured against these."""
        return self.mix is None or not self.samples


# Beside 50 real clips both kinds together are worth 5.6 points, `decomposed` alone 4.0 (docs/studies/clips)
DEFAULT_STRATEGIES = ("decomposed", "sample")
WAVEFORM, CLASSICAL = "waveform", "classical"
STRATEGIES: dict[str, Strategy] = {
    "decomposed": Strategy(
        lambda mix, x: mix.decomposed(*x.noisy, x.alpha, *x.clean, x.scales),
        "signal mixed linearly, noise spherically",
    ),
    "slerp": Strategy(
        lambda mix, x: mix.slerp(*x.noisy, x.alpha), "spherical linear interpolation (as published)"
    ),
    "variation": Strategy(
        lambda mix, x: mix.with_noise(x.clean[0], x.draw_noise(), x.scales),
        "one parent, noised up to the strength and decoded",
        n_parents=1,
        inverts=False,
    ),
    "sample": Strategy(
        lambda mix, x: x.draw_noise(),
        "new clips from noise and the class; one parent lends length and loudness, and its texture if the phase is the parents'",
        n_parents=1,
        encodes=False,
        inverts=False,
        strength=1.0,
        steps=2 / 3,  # 8 in the studies of what clips are worth (docs/studies/clips)
    ),
    "average": Strategy(
        lambda mix, x: mix.lerp(*x.clean, x.alpha),
        "a control: parents' latents (mel images in dB) averaged and decoded, without the network",
        inverts=False,
        samples=False,
    ),
    "resynthesis": Strategy(
        lambda mix, x: x.clean[0],
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
    """Return a row of the table. Raises UsageError for an unknown name."""
    require_known(name, STRATEGIES, "strategy")
    return STRATEGIES[name]
