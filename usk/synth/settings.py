"""What to make and what to render it with: the settings, and the presets of quality, one table. Imports no torch."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from usk.data.prompts import DEFAULT_PROMPT
from usk.diffusion.sampler import SamplerConfig
from usk.errors import UsageError, no_effect, require_at_least, require_known
from usk.synth.alpha import Alpha
from usk.synth.strategies import Strategy, strategy_named

if TYPE_CHECKING:
    from usk.data.train_subset import TrainSubset

DEFAULT_STRATEGY = "decomposed"
DEFAULT_QUALITY = "standard"
GUIDANCE = 2.0
MOST_PER_CLASS = 1_000_000
OUTSIDE = "hf:"  # in front of a folder or Hub id of a model that filters
FIRST_ORDER_STEPS = 4  # times as many as a preset that counts on the second-order solver
OF_SAMPLERS = ("strength", "steps", "solver", "eta", "guidance", "prompt", "negative_prompt")
OF_GENERATORS = (*OF_SAMPLERS, "phase", "precision", "batch")
NOT_RECORDED = {"prompt"}  # the manifest has the prompts themselves
PHASES = ("random", "parents")


def _check(holds: bool, message: str, name: str, value: object) -> None:
    if not holds:
        raise UsageError(message, field=name, value=value)


@dataclass(frozen=True)
class RenderConfig:
    """How parents are inverted, mixed and decoded. `render_config` fills it from a preset. An option of `usk synth` is a field here
    and a parameter in `usk.cli.synth`; the manifest and studies have it of themselves."""

    strategy: str = DEFAULT_STRATEGY
    strength: float = 0.5  # of the noise schedule, where parents are mixed
    steps: int = 6  # between clean and the strength, each way
    solver: str = "second-order"  # or "ddim", first-order
    eta: float = 0.0  # fresh noise while sampling; takes the first-order solver
    condition_on_class: bool = True  # class-conditional generators
    guidance: float | None = None  # towards the class; None: `GUIDANCE` if conditioned on it, else 1
    prompt: str | None = None  # of generators that take prompts: as `usk.data.prompts.read_prompts` takes it
    negative_prompt: str = ""  # what guidance leads away from; empty: as the generator does without a prompt
    crop: bool = True  # audio only as long as the clips need
    repeat_short: bool = True  # short parents are repeated to fill it, or followed by silence
    # Of families without phase in their latents: random, made consistent by Griffin-Lim, or the parents', whose sum is
    # filtered in time and frequency. A linear classifier on YAMNet recognizes 73.5 % of real clips, 50.5 % (random) and 73.5 %
    # (parents) of them after mel and back, 76.0 and 77.0 % of `decomposed`, at a KAD of 2.4 and 0.6 (n = 200). Beside 50 real
    # clips a network gains -0.4 points (-2.6 to +2.0) by `sample` on parents, a linear classifier on YAMNet +3.0 (-2.8 to +8.7),
    # over `decomposed` with random phase (docs/studies/clips).
    phase: str = "random"
    griffin_lim_iterations: int = 16
    precision: str = "auto"
    batch: int | None = None  # as many clips at a time; None: what suits the device

    def __post_init__(self) -> None:
        of = strategy_named(self.strategy)
        _check(
            of.strength in (None, self.strength),
            f"the strategy {self.strategy} works at {of.strength or 0:g} only",
            "strength",
            self.strength,
        )
        _check(0.0 < self.strength <= 1.0, "must lie above 0 and up to 1", "strength", self.strength)
        require_at_least(1, steps=self.steps, batch=self.batch)
        require_known(self.phase, PHASES, "phase")
        _ = self.sampler  # checks the solver
        _check(0.0 <= self.eta <= 1.0, "must lie between 0 and 1", "eta", self.eta)
        _check(self.eta == 0 or self.solver == "ddim", "only the solver ddim adds noise", "eta", self.eta)
        _check(
            self.guidance is None or 0.0 <= self.guidance <= 20.0,
            "must lie between 0 and 20",
            "guidance",
            self.guidance,
        )
        require_known(self.precision, ("auto", "fp32", "bf16", "fp16"), "precision")
        for name in ("prompt", "negative_prompt"):
            given = getattr(self, name)
            _check(
                not given or self.condition_on_class,
                "has no effect: nothing is conditioned here",
                name,
                given,
            )

    def resolved(self, takes_classes: bool, takes_prompts: bool = False) -> RenderConfig:
        """With the guidance and the prompts that such a generator gets."""
        guidance, prompt = self.guidance, self.prompt
        if guidance is None:
            guidance = GUIDANCE if takes_classes and self.condition_on_class else 1.0
        if prompt is None and takes_prompts and self.condition_on_class and self.row.samples:
            prompt = DEFAULT_PROMPT
        return replace(self, guidance=guidance, prompt=prompt)

    @property
    def row(self) -> Strategy:
        """The strategy's row of the table."""
        return strategy_named(self.strategy)

    @property
    def sampler(self) -> SamplerConfig:
        return SamplerConfig(self.steps, self.strength, self.solver)

    def as_dict(self) -> dict[str, Any]:
        """All that decides the clips, to the last bit; the plan has the prompts."""
        if self.row.mix is None:
            return {"strategy": self.strategy}
        without = NOT_RECORDED if self.row.samples else NOT_RECORDED | {"condition_on_class", *OF_SAMPLERS}
        return {name: value for name, value in asdict(self).items() if name not in without}


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
    require_known(quality, QUALITIES, "quality")
    preset = QUALITIES[quality]
    chosen = {name: value for name, value in given.items() if value is not None}
    name = chosen.get("strategy", preset.config.strategy)
    strategy = strategy_named(name)
    uses, options = ("no generator", OF_GENERATORS) if strategy.mix is None else ("no sampler", OF_SAMPLERS)
    ignored = [of for of in options if of in chosen]
    if ignored and not (strategy.mix and strategy.samples):
        raise no_effect(ignored[0], chosen[ignored[0]], f"the strategy {name} uses {uses}")
    chosen.setdefault("strength", preset.config.strength if strategy.strength is None else strategy.strength)
    conditions = strategy.samples and (preset.config.condition_on_class or not strategy.inverts)
    chosen.setdefault("condition_on_class", conditions)
    if chosen.get("eta", 0.0) > 0:
        chosen.setdefault("solver", "ddim")
    config = replace(preset.config, **chosen)
    if "steps" in chosen:
        return config
    is_slower = config.solver == "ddim" and preset.config.solver != "ddim"
    from_noise = preset.steps * (FIRST_ORDER_STEPS if is_slower else 1)
    return replace(config, steps=max(1, round(from_noise * config.strength)))


@dataclass(frozen=True)
class SynthConfig:
    """What to make: `per_class` clips of each class. With a classifier filter that is how many are kept; more are made."""

    per_class: int = 100
    alpha: str = "0.5"  # as `Alpha.parse` reads it
    seed: int = 0
    classes: tuple[str, ...] = ()  # empty: all
    test_folds: tuple[int, ...] = ()  # give no parents
    train_clips: TrainSubset | None = None  # parents are these alone, paired whatever their folds
    skip_bad: bool = False
    render: RenderConfig = field(default_factory=RenderConfig)
    # Share of the clips of a class that the classifier filter keeps; None: no filter
    filter: float | None = None

    filter_model: str | None = None  # an outside model that filters: hf: and a folder or Hub id
    trained_on: str | None = None  # a list of the recordings that the generator was trained on

    def __post_init__(self) -> None:
        require_at_least(1, MOST_PER_CLASS, per_class=self.per_class)
        require_at_least(0, seed=self.seed)
        _check(
            self.filter is None or 0 < self.filter <= 1,
            "must lie above 0 and up to 1: the share of the clips that is kept",
            "filter",
            self.filter,
        )
        if Alpha.parse(self.alpha) != Alpha() and not self.render.row.weighted:
            raise no_effect("alpha", self.alpha, f"the strategy {self.render.strategy} weighs no parents")
        if self.filter_model is not None:
            _check(
                self.filter_model.startswith(OUTSIDE) and self.filter_model != OUTSIDE,
                f"is not {OUTSIDE} and a model, such as {OUTSIDE}laion/clap-htsat-unfused",
                "filter_model",
                self.filter_model,
            )
            what = "does not go together with a model that filters"
            _check(self.filter is None, what, "filter", self.filter)
        if self.trained_on is not None and self.render.row.mix is None:
            why = f"the strategy {self.render.strategy} uses no generator"
            raise no_effect("trained_on", self.trained_on, why)

    @property
    def to_make(self) -> int:
        """Clips of each class to make, of which the classifier filter keeps `per_class`."""
        return self.per_class if self.filter is None else math.ceil(self.per_class / self.filter - 1e-9)
