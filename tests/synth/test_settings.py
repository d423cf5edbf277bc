"""The presets and what may be combined."""

from __future__ import annotations

from typing import Any

import pytest

from usk.errors import UsageError
from usk.synth.settings import GUIDANCE, QUALITIES, RenderConfig, render_config
from usk.synth.strategies import STRATEGIES


def test_the_published_preset_is_the_published_recipe() -> None:
    config = render_config("published")
    assert (config.strategy, config.strength, config.steps, config.solver) == ("slerp", 1.0, 50, "ddim")
    assert config.sampler.evaluations() == (50, 50)  # of each parent, and of the clip
    assert not config.crop and not config.repeat_short and config.eta == 0 and not config.condition_on_class


def test_the_default_is_the_standard_preset() -> None:
    assert render_config() == render_config("standard") == RenderConfig()


def test_better_presets_look_at_the_network_more_often() -> None:
    looks = [
        sum(render_config(quality).sampler.evaluations()) for quality in ("draft", "standard", "published")
    ]
    assert looks == sorted(set(looks))


@pytest.mark.parametrize("quality", QUALITIES)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_goes_with_every_preset(quality: str, strategy: str) -> None:
    config = render_config(quality, strategy=strategy)
    assert config.strategy == strategy
    assert config.n_parents == (STRATEGIES[strategy].n_parents or 3)


def test_steps_follow_the_level() -> None:
    whole = render_config("standard", strength=1.0).steps
    assert render_config("standard", strength=0.5).steps == whole // 2
    assert render_config("standard", strength=0.01).steps == 1
    assert render_config("standard", strength=1.0, steps=7).steps == 7


def test_fresh_noise_takes_the_solver_that_can_add_it() -> None:
    assert render_config(eta=0.5).solver == "ddim"


def test_the_first_order_solver_gets_the_steps_that_it_needs() -> None:
    second = render_config()
    assert render_config(eta=0.5).steps == render_config(solver="ddim").steps == 4 * second.steps
    assert render_config(solver="ddim", steps=7).steps == 7
    assert render_config("published", strength=0.5).steps == 25
    assert render_config("published", solver="second-order").steps == 50


def test_strategies_that_have_little_but_the_class_are_told_it_at_any_quality() -> None:
    assert render_config("published", strategy="sample").condition_on_class
    assert render_config("published", strategy="variation").condition_on_class
    assert not render_config("published").condition_on_class


def test_what_is_none_is_not_given() -> None:
    assert render_config(strategy=None, strength=None, eta=None) == RenderConfig()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"quality": "best"}, "--quality best is not known; choose one of draft, standard, published"),
        ({"strategy": "best"}, f"--strategy best is not known; choose one of {', '.join(STRATEGIES)}"),
        ({"n_parents": 3}, "--parents 3: --strategy decomposed takes 2; only barycentre takes any number"),
        (
            {"strategy": "variation", "n_parents": 2},
            "--parents 2: --strategy variation takes 1; only barycentre",
        ),
        ({"strategy": "barycentre", "n_parents": 1}, "--parents must be at least 2, not 1"),
        ({"strategy": "sample", "strength": 0.5}, "--strength 0.5: --strategy sample works at 1 only"),
        ({"solver": "euler"}, "--solver euler is not known; choose one of second-order, ddim"),
        ({"eta": 0.5, "solver": "second-order"}, "--eta 0.5 needs --solver ddim"),
        ({"precision": "fp8"}, "--precision fp8 is not known; choose auto, fp32 or bf16"),
        ({"guidance": -1.0}, "--guidance must lie between 0 and 20, not -1.0"),
        ({"eta": 1.5}, "--eta must lie between 0 and 1, not 1.5"),
        ({"eta": float("nan")}, "--eta must lie between 0 and 1, not nan"),
        ({"strength": 0.0}, "--strength must lie above 0 and up to 1, not 0.0"),
        ({"strength": 1.01}, "--strength must lie above 0 and up to 1, not 1.01"),
        ({"steps": 0}, "--steps must be at least 1, not 0"),
        ({"refinements": -1}, "--refinements must be 0 or more, not -1"),
        ({"batch": 0}, "--batch must be at least 1, not 0"),
        (
            {"strategy": "waveform", "steps": 7},
            "--steps 7: --strategy waveform has no generator that it could tell",
        ),
        (
            {"strategy": "classical", "strength": 0.3, "eta": 0.1},
            "--eta 0.1: --strategy classical has no generator",
        ),
        ({"strategy": "sample", "refinements": 2}, "--refinements 2: --strategy sample inverts nothing"),
    ],
)
def test_what_cannot_be_is_a_usage_error(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as refusal:
        render_config(**given)
    assert str(refusal.value).startswith(message)


def test_guidance_goes_to_generators_that_are_told_the_class() -> None:
    assert render_config().resolved(class_conditional=True).guidance == GUIDANCE
    assert render_config().resolved(class_conditional=False).guidance == 1.0
    assert render_config(condition_on_class=False).resolved(class_conditional=True).guidance == 1.0
    assert render_config("published").resolved(class_conditional=True).guidance == 1.0
    assert render_config(guidance=1.5).resolved(class_conditional=True).guidance == 1.5
