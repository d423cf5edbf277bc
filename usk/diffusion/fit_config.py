"""How a generator is trained: the options of `usk fit`, checked. Imports no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from usk.errors import UsageError, no_effect, require_at_least

LEARNING_RATE = 4e-4
LEARNING_RATE_FROM = 1e-4  # a trained network is to keep what it has learned


@dataclass(frozen=True)
class FitConfig:
    """How a generator is trained. The network's width and depth are multiples that a laptop can train.

    With `base`, everything that shapes the networks and the noise is the base's; the values here do not count.
    """

    steps: int = 4_000
    minutes: float | None = None  # stop after this long instead of after `steps`
    batch: int = 16
    learning_rate: float | None = None  # None: LEARNING_RATE, or LEARNING_RATE_FROM with a base
    ema_decay: float = 0.999
    channels: tuple[int, ...] = (32, 64, 128, 192)
    layers_per_block: int = 1
    class_conditional: bool = False  # the UNet is conditioned on each clip's class
    class_dropout: float = 0.15  # how often it is not, so that it works without one too (arXiv 2207.12598)
    prediction_type: str = "v_prediction"
    beta_schedule: str = "squaredcos_cap_v2"
    base: str | None = None  # the generator that is trained further
    lora: bool = False  # train LoRA weights (arXiv 2106.09685) of a text-to-audio base
    lora_rank: int = 8
    prompt: str | None = None  # with LoRA weights: as `usk.data.prompts.read_prompts` takes it
    seed: int = 0
    device: str = "auto"
    precision: str = "auto"
    checkpoint_every_s: float = 60.0
    validate_every: int = 250

    def resolved(self) -> FitConfig:
        """The same with its learning rate chosen. Raises UsageError for values out of range."""
        if self.lora and self.base is None:
            raise UsageError(
                "adapts a model, and none is named", field="lora", hint="Name a text-to-audio model."
            )
        for name, given in {"prompt": self.prompt, "class_conditional": self.class_conditional}.items():
            if given and self.lora != (name == "prompt"):
                why = (
                    "prompts condition LoRA weights" if self.lora else "only LoRA weights learn with prompts"
                )
                raise no_effect(name, None, why)
        rate = self.learning_rate
        if rate is None:
            rate = LEARNING_RATE if self.base is None else LEARNING_RATE_FROM
        require_at_least(0, seed=self.seed)
        require_at_least(1, steps=self.steps, batch=self.batch, lora_rank=self.lora_rank)
        for name, amount in {"learning_rate": rate, "minutes": self.minutes}.items():
            if amount is not None and not 0.0 < amount < math.inf:
                raise UsageError("must be greater than 0", field=name, value=f"{amount:g}")
        return replace(self, learning_rate=rate)
