"""What a clip is rendered with: the settings, and the presets of `--quality`, one table."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from usk.diffusion.sampler import SamplerConfig
from usk.errors import UsageError
from usk.synth.strategies import strategy_named

DEFAULT_STRATEGY = "decomposed"
DEFAULT_QUALITY = "standard"
GUIDANCE = 2.0
FIRST_ORDER_STEPS = 4  # times as many as a preset that counts on the second-order solver
OF_GENERATORS = frozenset(
    {"strength", "steps", "solver", "refinements", "eta", "guidance", "precision", "batch"}
)


@dataclass(frozen=True)
class RenderConfig:
    """How parents are inverted, mixed and decoded. `usk.synth.settings.render_config` fills it from a preset."""

    strategy: str = DEFAULT_STRATEGY
    n_parents: int = 2
    strength: float = 0.5  # of the noise schedule, where parents are mixed
    steps: int = 6  # between clean and the strength, each way
    solver: str = "second-order"  # or "ddim", first-order
    refinements: int = 1  # of each step of the inversion
    eta: float = 0.0  # fresh noise on the way down; takes the first-order solver
    condition_on_class: bool = True  # to class-conditional generators
    guidance: float | None = (
        None  # towards the class; None: `GUIDANCE` where the generator is told it, else 1
    )
    crop: bool = True  # images only as wide as the clips need
    repeat_short: bool = (
        True  # parents shorter than the image are repeated to fill it, or followed by silence
    )
    griffin_lim_iterations: int = 16
    precision: str = "auto"
    batch: int | None = None  # as many clips at a time; None: what suits the device

    def __post_init__(self) -> None:
        strategy = strategy_named(self.strategy)
        if strategy.n_parents is not None and self.n_parents != strategy.n_parents:
            raise UsageError(
                f"--parents {self.n_parents}: --strategy {self.strategy} takes {strategy.n_parents}; "
                "only barycentre takes any number"
            )
        if self.n_parents < 1 or (strategy.n_parents is None and self.n_parents < 2):
            raise UsageError(f"--parents must be at least 2, not {self.n_parents}")
        if strategy.strength is not None and self.strength != strategy.strength:
            raise UsageError(
                f"--strength {self.strength:g}: --strategy {self.strategy} works at {strategy.strength:g} only"
            )
        _ = self.sampler  # checks the solver
        if self.eta > 0 and self.solver != "ddim":
            raise UsageError(f"--eta {self.eta:g} needs --solver ddim: the second-order solver adds no noise")
        if self.precision not in ("auto", "fp32", "bf16"):
            raise UsageError(f"--precision {self.precision} is not known; choose auto, fp32 or bf16")
        if not 0.0 <= self.eta <= 1.0:
            raise UsageError(f"--eta must lie between 0 and 1, not {self.eta}")
        if not 0.0 < self.strength <= 1.0:
            raise UsageError(f"--strength must lie above 0 and up to 1, not {self.strength}")
        if self.steps < 1:
            raise UsageError(f"--steps must be at least 1, not {self.steps}")
        if self.refinements < 0:
            raise UsageError(f"--refinements must be 0 or more, not {self.refinements}")
        if self.guidance is not None and not 0.0 <= self.guidance <= 20.0:
            raise UsageError(f"--guidance must lie between 0 and 20, not {self.guidance}")
        if self.batch is not None and self.batch < 1:
            raise UsageError(f"--batch must be at least 1, not {self.batch}")

    def resolved(self, class_conditional: bool) -> RenderConfig:
        """With the guidance that such a generator gets."""
        if self.guidance is not None:
            return self
        return replace(self, guidance=GUIDANCE if class_conditional and self.condition_on_class else 1.0)

    @property
    def sampler(self) -> SamplerConfig:
        return SamplerConfig(self.steps, self.strength, self.solver)

    def as_dict(self) -> dict[str, Any]:
        """All that decides what the clips sound like; the batch does not."""
        if strategy_named(self.strategy).mix is None:
            return {"strategy": self.strategy, "n_parents": self.n_parents}
        return {name: value for name, value in asdict(self).items() if name != "batch"}


@dataclass(frozen=True)
class Quality:
    """One preset. `steps` are those from pure noise; a lower strength takes its share of them."""

    config: RenderConfig
    steps: int


QUALITIES = {
    "draft": Quality(RenderConfig(griffin_lim_iterations=8), steps=8),
    "standard": Quality(RenderConfig(), steps=12),
    "published": Quality(
        RenderConfig(
            strategy="slerp",
            strength=1.0,
            solver="ddim",
            refinements=0,
            condition_on_class=False,
            guidance=1.0,
            crop=False,
            repeat_short=False,
            griffin_lim_iterations=32,
        ),
        steps=50,
    ),
}


def render_config(quality: str = DEFAULT_QUALITY, **given: Any) -> RenderConfig:
    """The preset `quality`, with what is `given` (and not None) in its place; the rest follows the strategy.

    Raises UsageError for what is not known or does not go together.
    """
    if quality not in QUALITIES:
        raise UsageError(f"--quality {quality} is not known; choose one of {', '.join(QUALITIES)}")
    preset = QUALITIES[quality]
    chosen = {name: value for name, value in given.items() if value is not None}
    name = chosen.get("strategy", preset.config.strategy)
    strategy = strategy_named(name)
    if strategy.mix is None and chosen.get("precision") == "auto":
        del chosen["precision"]
    if strategy.mix is None and (ignored := sorted(chosen.keys() & OF_GENERATORS)):
        raise UsageError(
            f"--{ignored[0]} {chosen[ignored[0]]}: --strategy {name} has no generator that it could tell; leave it out"
        )
    if not strategy.inverts and chosen.get("refinements"):
        raise UsageError(
            f"--refinements {chosen['refinements']}: --strategy {name} inverts nothing; leave it out"
        )
    chosen.setdefault("n_parents", 3 if strategy.n_parents is None else strategy.n_parents)
    chosen.setdefault("strength", preset.config.strength if strategy.strength is None else strategy.strength)
    chosen.setdefault("condition_on_class", preset.config.condition_on_class or not strategy.inverts)
    if not 0.0 < float(chosen["strength"]) <= 1.0:
        raise UsageError(f"--strength must lie above 0 and up to 1, not {chosen['strength']}")
    if chosen.get("eta", 0.0) > 0:
        chosen.setdefault("solver", "ddim")
    from_noise = preset.steps
    if preset.config.solver == "second-order" and chosen.get("solver") == "ddim":
        from_noise *= FIRST_ORDER_STEPS
    chosen.setdefault("steps", max(1, round(from_noise * float(chosen["strength"]))))
    return replace(preset.config, **chosen)
