"""The settings of `usk fit`. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, replace

from usk.errors import UsageError, no_effect, require_at_least

LEARNING_RATE = 4e-4
BASE_LEARNING_RATE = 1e-4  # lower, so that a trained network keeps what it has learned


@dataclass(frozen=True)
class FitConfig:
    """How a generator is trained: the help of `usk fit` explains most fields. The default network can be trained on a laptop.

    With `base`, the settings of networks and noise are the base's, and the values here have no effect.
    """

    steps: int = 4_000
    minutes: float | None = None  # stop after this long instead of after `steps`
    batch: int = 16
    learning_rate: float | None = None  # None: LEARNING_RATE, or BASE_LEARNING_RATE with a base
    ema_decay: float = 0.999
    channels: tuple[int, ...] = (32, 64, 128, 192)
    layers_per_block: int = 1
    class_conditional: bool = False  # condition the UNet on each clip's class
    class_dropout: float = 0.15  # the share of clips without a class, for guidance (arXiv 2207.12598)
    prediction_type: str = "v_prediction"
    beta_schedule: str = "squaredcos_cap_v2"
    base: str | None = None  # a generator to train further
    lora: bool = False  # train LoRA weights (arXiv 2106.09685) of a text-to-audio base
    lora_rank: int = 8
    prompt: str | None = None  # for LoRA weights, see `usk.data.prompts.read_prompts`
    seed: int = 0
    device: str = "auto"
    precision: str = "auto"
    checkpoint_every_s: float = 60.0
    validate_every: int = 250

    def resolved(self) -> FitConfig:
        """Return the settings with the default learning rate. Raises UsageError for invalid values."""
        if self.lora and self.base is None:
            raise UsageError(
                "adapts a model, and none is named", field="lora", hint="Name a text-to-audio model."
            )
        if self.prompt and not self.lora:
            raise no_effect("prompt", None, "only LoRA weights learn with prompts")
        if self.class_conditional and self.lora:
            raise no_effect("class_conditional", None, "prompts condition LoRA weights")
        rate = self.learning_rate
        if rate is None:
            rate = LEARNING_RATE if self.base is None else BASE_LEARNING_RATE
        require_at_least(0, seed=self.seed)
        require_at_least(1, steps=self.steps, lora_rank=self.lora_rank)
        require_at_least(1, 1 << 16, batch=self.batch)
        for name, value in {"learning_rate": rate, "minutes": self.minutes}.items():
            if value is not None and not 0.0 < value <= 1e30:
                raise UsageError("must be greater than 0, and at most 1e30", field=name, value=f"{value:g}")
        return replace(self, learning_rate=rate)
