"""The settings of `usk synth`: what to make, how to render it, and the presets of quality. Imports no torch."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from usk.data.prompts import DEFAULT_PROMPT
from usk.diffusion.sampler import SamplerConfig
from usk.errors import UsageError, no_effect, require_at_least, require_known
from usk.synth.alpha import Alpha
from usk.synth.strategies import DEFAULT_STRATEGIES, Strategy, strategy_named

if TYPE_CHECKING:
    from usk.data.train_subset import TrainSubset

DEFAULT_QUALITY = "standard"
DEFAULT_GUIDANCE = 2.0
MAX_PER_CLASS = 1_000_000
HUB_PREFIX = "hf:"  # before the folder or Hub id of a model that filters
# The first-order solver takes this many times the steps of the second-order solver
FIRST_ORDER_STEP_FACTOR = 4
SAMPLER_SETTINGS = ("strength", "steps", "solver", "eta", "guidance", "prompt", "negative_prompt")
GENERATOR_SETTINGS = (*SAMPLER_SETTINGS, "phase", "precision", "batch")
UNRECORDED_SETTINGS = {"strategy", "optional", "prompt"}  # the manifest has strategies and prompts elsewhere
PHASES = ("random", "parents")


def _require(holds: bool, message: str, name: str, value: object) -> None:
    if not holds:
        raise UsageError(message, field=name, value=value)


@dataclass(frozen=True)
class RenderConfig:
    """How the clips of one strategy are made: the help of `usk synth` explains most fields. `render_configs` fills it from a preset."""

    strategy: str = DEFAULT_STRATEGIES[0]
    optional: bool = False  # leave the strategy out if the generator does not know the classes
    strength: float = 0.5  # the share of the noise schedule at which parents are mixed
    steps: int = 6  # between clean latents and the strength, each way
    solver: str = "second-order"  # or "ddim", first-order
    eta: float = 0.0  # fresh noise while sampling; needs the first-order solver
    condition_on_class: bool = True  # for class-conditional generators
    guidance: float | None = None  # None: `DEFAULT_GUIDANCE` if conditioned on the class, else 1
    prompt: str | None = None  # for generators that take prompts, see `usk.data.prompts.read_prompts`
    negative_prompt: str = ""  # guidance leads away from it; empty: away from the unconditioned prediction
    crop: bool = True  # make audio only as long as the clips need
    repeat_short: bool = True  # repeat short parents to fill the length; otherwise silence follows them
    # The phase of clips from mel images: random (Griffin-Lim makes it consistent), or the parents', whose sum is filtered in
    # time and frequency. A linear classifier on YAMNet recognizes 73.5 % of real clips, 50.5 % (random) and 73.5 %
    # (parents) of them after mel and back, 76.0 and 77.0 % of `decomposed`, at a KAD of 2.4 and 0.6 (n = 200). Beside 50 real
    # clips a network gains -0.4 points (-2.6 to +2.0) by `sample` on parents, a linear classifier on YAMNet +3.0 (-2.8 to +8.7),
    # over `decomposed` with random phase (docs/studies/clips).
    phase: str = "random"
    griffin_lim_iterations: int = 16
    precision: str = "auto"
    batch: int | None = None  # clips that are rendered together; None: what suits the device

    def __post_init__(self) -> None:
        """Raise UsageError for values out of range and for settings that exclude each other."""
        only_strength = self.strategy_row.strength
        _require(
            only_strength in (None, self.strength),
            f"the strategy {self.strategy} works at {only_strength or 0:g} only",
            "strength",
            self.strength,
        )
        _require(0.0 < self.strength <= 1.0, "must lie above 0 and up to 1", "strength", self.strength)
        require_at_least(1, steps=self.steps, batch=self.batch)
        require_known(self.phase, PHASES, "phase")
        _ = self.sampler  # checks the solver
        _require(0.0 <= self.eta <= 1.0, "must lie between 0 and 1", "eta", self.eta)
        _require(self.eta == 0 or self.solver == "ddim", "only the solver ddim adds noise", "eta", self.eta)
        guidance = self.guidance
        in_range = guidance is None or 0.0 <= guidance <= 20.0
        _require(in_range, "must lie between 0 and 20", "guidance", guidance)
        require_known(self.precision, ("auto", "fp32", "bf16", "fp16"), "precision")
        for name in ("prompt", "negative_prompt"):
            value = getattr(self, name)
            has_effect = not value or self.condition_on_class
            _require(has_effect, "has no effect: nothing is conditioned here", name, value)

    def resolved(self, takes_classes: bool, takes_prompts: bool = False) -> RenderConfig:
        """Return the settings with the defaults of guidance and prompt for a generator that takes classes or prompts."""
        guidance, prompt = self.guidance, self.prompt
        if guidance is None:
            guidance = DEFAULT_GUIDANCE if takes_classes and self.condition_on_class else 1.0
        if prompt is None and takes_prompts and self.condition_on_class and self.strategy_row.samples:
            prompt = DEFAULT_PROMPT
        return replace(self, guidance=guidance, prompt=prompt)

    @property
    def strategy_row(self) -> Strategy:
        """Return the strategy's row of the table. Raises UsageError for an unknown strategy."""
        return strategy_named(self.strategy)

    @property
    def sampler(self) -> SamplerConfig:
        return SamplerConfig(self.steps, self.strength, self.solver)

    def as_dict(self) -> dict[str, Any]:
        """Return the settings that decide the clips to the last bit, for the manifest. The plan has strategies and prompts."""
        if self.strategy_row.mix is None:
            return {}
        left_out = set(UNRECORDED_SETTINGS)
        if not self.strategy_row.samples:
            left_out |= {"condition_on_class", *SAMPLER_SETTINGS}
        return {name: value for name, value in asdict(self).items() if name not in left_out}


@dataclass(frozen=True)
class Quality:
    """A preset. `steps` are counted from pure noise; a lower strength takes its share of them."""

    config: RenderConfig
    steps: int
    strategies: tuple[str, ...] = DEFAULT_STRATEGIES


QUALITIES = {
    "draft": Quality(RenderConfig(griffin_lim_iterations=8), steps=8),
    "standard": Quality(RenderConfig(), steps=12),
    "published": Quality(
        RenderConfig(
            strength=1.0,
            solver="ddim",
            condition_on_class=False,
            guidance=1.0,
            crop=False,
            repeat_short=False,
            griffin_lim_iterations=32,
        ),
        steps=50,
        strategies=("slerp",),
    ),
}


def render_configs(
    quality: str = DEFAULT_QUALITY, strategy: str | None = None, **given: Any
) -> tuple[RenderConfig, ...]:
    """Return the settings of each strategy in `strategy`, joined by commas. Without it, they are the preset's.

    The settings `given` (those that are not None) replace those of the preset `quality` wherever they have an effect. The rest
    follows the strategy. Raises UsageError for unknown values and for settings that have no effect or exclude each other.
    """
    require_known(quality, QUALITIES, "quality")
    preset = QUALITIES[quality]
    if strategy is not None and not isinstance(strategy, str):
        raise UsageError("is not text", field="strategy", value=strategy, hint="Join names by commas.")
    names = preset.strategies if strategy is None else [name.strip() for name in strategy.split(",")]
    if len(set(names)) < len(names):
        raise UsageError("names a strategy twice", field="strategy", value=strategy)
    chosen = {name: value for name, value in given.items() if value is not None}
    ignored = {name: _without_effect(strategy_named(name), chosen) for name in names}
    for setting, value in chosen.items():
        if all(setting in settings for settings, _ in ignored.values()):
            raise no_effect(setting, value, f"the strategy {names[0]} {ignored[names[0]][1]}")
    return tuple(
        _render_config(
            preset,
            {setting: value for setting, value in chosen.items() if setting not in ignored[name][0]},
            strategy=name,
            optional=strategy is None and name != names[0],
        )
        for name in names
    )


def render_config(quality: str = DEFAULT_QUALITY, **given: Any) -> RenderConfig:
    """Return what `render_configs` returns for the first strategy."""
    return render_configs(quality, **given)[0]


def _without_effect(strategy: Strategy, chosen: dict[str, Any]) -> tuple[tuple[str, ...], str]:
    """Return the settings that have no effect with a strategy, and why."""
    if strategy.mix is None:
        return GENERATOR_SETTINGS, "uses no generator"
    if not strategy.samples:
        return SAMPLER_SETTINGS, "uses no sampler"
    if strategy.strength not in (None, chosen.get("strength")):
        return ("strength",), f"works at {strategy.strength:g} only"
    return (), ""


def _render_config(preset: Quality, chosen: dict[str, Any], *, strategy: str, optional: bool) -> RenderConfig:
    row = strategy_named(strategy)
    settings: dict[str, Any] = {
        "strength": preset.config.strength if row.strength is None else row.strength,
        "condition_on_class": row.samples and (preset.config.condition_on_class or not row.inverts),
        "solver": "ddim" if chosen.get("eta", 0.0) > 0 else preset.config.solver,
    }
    config = replace(preset.config, **{**settings, **chosen}, strategy=strategy, optional=optional)
    if "steps" in chosen:
        return config
    is_slower = config.solver == "ddim" and preset.config.solver != "ddim"
    from_noise = preset.steps * row.steps * (FIRST_ORDER_STEP_FACTOR if is_slower else 1)
    return replace(config, steps=max(1, round(from_noise * config.strength)))


@dataclass(frozen=True)
class SynthConfig:
    """What to make: `per_class` clips of each class. The help of `usk synth` explains the fields.

    With a classifier filter, more are made and `per_class` are kept.
    """

    per_class: int = 100
    alpha: str = "0.5"  # see `Alpha.parse`
    seed: int = 0
    classes: tuple[str, ...] = ()  # empty: all
    test_folds: tuple[int, ...] = ()  # their clips are not used as parents
    train_clips: TrainSubset | None = None  # only these are used as parents, in pairs across folds
    skip_bad: bool = False
    # One strategy, or several that make equal shares of each class. `optional` ones need a generator that knows the classes.
    render: RenderConfig | tuple[RenderConfig, ...] = field(default_factory=render_configs)
    # The share of each class that the classifier filter keeps, or hf: and a CLAP model that filters. None: no filter.
    filter: float | str | None = None
    trained_on: str | None = None  # a list of the recordings that the generator was trained on

    def __post_init__(self) -> None:
        """Raise UsageError for values out of range and for settings that exclude each other."""
        require_at_least(1, MAX_PER_CLASS, per_class=self.per_class)
        require_at_least(0, seed=self.seed)
        if isinstance(self.filter, str):
            is_model = self.filter.startswith(HUB_PREFIX) and self.filter != HUB_PREFIX
            expected = f"is neither a share such as 0.5 nor {HUB_PREFIX} and a CLAP model"
            _require(is_model, expected, "filter", self.filter)
        elif self.filter is not None:
            _require(
                0 < self.filter <= 1,
                "must lie above 0 and up to 1: the share of the clips that is kept",
                "filter",
                self.filter,
            )
        names = [one.strategy for one in self.renders]
        if not names or self.renders[0].optional or len(set(names)) < len(names):
            reason = "needs different strategies, the first of them not optional"
            raise UsageError(reason, field="strategy", value=",".join(names))
        first = names[0]
        if Alpha.parse(self.alpha) != Alpha() and not any(one.strategy_row.weighted for one in self.renders):
            raise no_effect("alpha", self.alpha, f"the strategy {first} weighs no parents")
        if self.trained_on is not None and not self.uses_generator:
            raise no_effect("trained_on", self.trained_on, f"the strategy {first} uses no generator")

    @property
    def renders(self) -> tuple[RenderConfig, ...]:
        """The settings of each strategy that makes clips. Precision and prompts are the same in all."""
        several = (self.render,) if isinstance(self.render, RenderConfig) else tuple(self.render)
        return several[: self.to_make]

    @property
    def uses_generator(self) -> bool:
        return any(one.strategy_row.mix is not None for one in self.renders)

    @property
    def share_kept(self) -> float:
        """The share of the clips that the classifier filter keeps; 1 without it."""
        return 1.0 if self.filter is None or isinstance(self.filter, str) else self.filter

    @property
    def to_make(self) -> int:
        """Return the number of clips of each class to make, of which the classifier filter keeps `per_class`."""
        return math.ceil(self.per_class / self.share_kept - 1e-9)
