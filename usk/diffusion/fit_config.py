"""How a generator is trained: the options of `usk fit`, checked."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from usk.errors import UsageError

LEARNING_RATE = 4e-4
LEARNING_RATE_FROM = 1e-4  # a network that has learnt already is to keep what it knows


@dataclass(frozen=True)
class FitConfig:
    """How a generator is trained. The network's width and depth are multiples that a laptop can train.

    With `base`, everything that shapes the networks and the noise is the base's; the values here do not count.
    """

    steps: int = 4_000
    minutes: float | None = None  # stop after this long instead of after `steps`
    batch: int = 16
    accumulate: int = 1  # micro-batches of `batch` whose mean gradient makes one step
    learning_rate: float | None = None  # None: LEARNING_RATE, or LEARNING_RATE_FROM with a base
    ema_decay: float = 0.999
    channels: tuple[int, ...] = (32, 64, 128, 192)
    layers_per_block: int = 1
    latent: bool = False
    latent_channels: int = 4
    class_conditional: bool = False  # the UNet is told each clip's class
    class_dropout: float = 0.15  # how often it is not, so that it works without one too (arXiv 2207.12598)
    prediction_type: str = "v_prediction"
    beta_schedule: str = "squaredcos_cap_v2"
    base: str | None = None  # `--from`: the generator whose training goes on
    checkpointing: bool = (
        False  # activations are computed again on the way back: less memory, a third more time
    )
    seed: int = 0
    device: str = "auto"
    precision: str = "auto"
    checkpoint_every_s: float = 120.0
    validate_every: int = 250

    def resolved(self) -> FitConfig:
        """The same with its learning rate chosen. Raises UsageError for values that cannot be meant."""
        rate = self.learning_rate
        if rate is None:
            rate = LEARNING_RATE if self.base is None else LEARNING_RATE_FROM
        if self.base is not None and self.latent:
            raise UsageError(
                "--latent cannot be used with --from: a generator that is trained further keeps the VAE it has, "
                "or has none; leave --latent out"
            )
        counts = {"--steps": self.steps, "--batch": self.batch, "--accumulate": self.accumulate}
        for flag, count in counts.items():
            if count < 1:
                raise UsageError(f"{flag} must be at least 1, not {count}")
        if self.seed < 0:
            raise UsageError(f"--seed must be 0 or more, not {self.seed}")
        amounts = {"--learning-rate": rate, "--minutes": 1.0 if self.minutes is None else self.minutes}
        for flag, amount in amounts.items():
            if not 0.0 < amount < math.inf:
                raise UsageError(f"{flag} must be greater than 0, not {amount:g}")
        return replace(self, learning_rate=rate)
