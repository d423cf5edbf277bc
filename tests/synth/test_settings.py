"""The presets and what may be combined."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from usk.errors import UsageError
from usk.synth.settings import DEFAULT_GUIDANCE, RenderConfig, SynthConfig, render_config, render_configs


def test_the_published_preset_is_the_published_recipe() -> None:
    config = render_config("published")
    assert (config.strategy, config.strength, config.steps, config.solver) == ("slerp", 1.0, 50, "ddim")
    assert config.sampler.evaluations() == (50, 50)  # of each parent, and of the clip
    assert config.phase == "random" and config.griffin_lim_iterations == 32
    assert not config.crop and not config.repeat_short and config.eta == 0 and not config.condition_on_class


@pytest.mark.parametrize(
    ("quality", "given", "steps"),
    [
        ("standard", {"strength": 1.0}, 12),
        ("standard", {"strength": 0.5}, 6),
        ("standard", {"strength": 0.01}, 1),
        ("standard", {"strength": 1.0, "steps": 7}, 7),
        ("standard", {"eta": 0.5}, 24),  # the first-order solver needs more
        ("standard", {"solver": "ddim"}, 24),
        ("standard", {"solver": "ddim", "steps": 7}, 7),
        ("published", {"strength": 0.5}, 25),
        ("published", {"solver": "second-order"}, 50),
    ],
)
def test_steps_follow_quality_strength_and_solver(quality: str, given: dict[str, Any], steps: int) -> None:
    config = render_config(quality, **given)
    assert config.steps == steps
    assert "eta" not in given or config.solver == "ddim", "the solver that can add fresh noise"
    assert render_config() == render_config("standard") == RenderConfig()


def test_strategies_that_have_little_but_the_class_are_told_it_at_any_quality() -> None:
    assert render_config("published", strategy="sample").condition_on_class
    assert render_config("published", strategy="variation").condition_on_class
    assert not render_config("published").condition_on_class


@pytest.mark.parametrize(
    ("made", "given", "field"),
    [
        (render_config, {"solver": "euler"}, "solver"),
        (render_config, {"eta": 0.5, "solver": "second-order"}, "eta"),
        (render_config, {"precision": "fp8"}, "precision"),
        (render_config, {"guidance": -1.0}, "guidance"),
        (render_config, {"eta": 1.5}, "eta"),
        (render_config, {"eta": float("nan")}, "eta"),
        (render_config, {"strength": 0.0}, "strength"),
        (render_config, {"strength": 1.01}, "strength"),
        (render_config, {"steps": 0}, "steps"),
        (render_config, {"batch": 0}, "batch"),
        (render_config, {"strategy": "waveform", "steps": 7}, "steps"),
        (render_config, {"strategy": "waveform", "guidance": 3.0}, "guidance"),
        (render_config, {"strategy": "classical", "batch": 4}, "batch"),
        (render_config, {"strategy": "classical", "strength": 0.3, "eta": 0.1}, "strength"),
        (SynthConfig, {"alpha": "0.2", "render": RenderConfig("variation")}, "alpha"),
        (SynthConfig, {"alpha": "0:1", "render": RenderConfig("classical")}, "alpha"),
        (SynthConfig, {"filter": 0.0}, "filter"),
        (SynthConfig, {"render": ()}, "strategy"),
        (SynthConfig, {"render": (RenderConfig(), RenderConfig(steps=2))}, "strategy"),
        (SynthConfig, {"render": RenderConfig(optional=True)}, "strategy"),
    ],
)
def test_what_cannot_be_is_a_usage_error(
    made: Callable[..., object], given: dict[str, Any], field: str
) -> None:
    with pytest.raises(UsageError) as refusal:
        made(**given)
    assert refusal.value.field == field


@pytest.mark.parametrize(
    ("share", "n", "made"), [(0.5, 7, 14), (0.3, 3, 10), (0.1, 3, 30), (0.7, 7, 10), (1, 5, 5), (None, 5, 5)]
)
def test_so_many_are_made_that_per_class_remain(share: float | None, n: int, made: int) -> None:
    assert SynthConfig(per_class=n, filter=share).to_make == made


def test_guidance_goes_to_generators_that_are_told_the_class() -> None:
    assert render_config().resolved(takes_classes=True).guidance == DEFAULT_GUIDANCE
    assert render_config().resolved(takes_classes=False).guidance == 1.0
    assert render_config(condition_on_class=False).resolved(takes_classes=True).guidance == 1.0
    assert render_config("published").resolved(takes_classes=True).guidance == 1.0
    assert render_config(guidance=1.5).resolved(takes_classes=True).guidance == 1.5


@pytest.mark.parametrize("strategy", ["average", "resynthesis"])
def test_controls_without_the_network_take_no_settings_of_a_sampler(strategy: str) -> None:
    assert render_config(strategy=strategy, phase="random", batch=2).phase == "random"
    assert not {"strength", "steps", "guidance"} & render_config(strategy=strategy).as_dict().keys()
    with pytest.raises(UsageError, match="no sampler") as refused:
        render_config(strategy=strategy, steps=4)
    assert refused.value.field == "steps"


def test_the_phase_is_random_or_the_parents() -> None:
    assert [render_config(phase=phase).phase for phase in (None, "parents")] == ["random", "parents"]
    with pytest.raises(UsageError):
        render_config(phase="mine")


def test_several_strategies_take_the_settings_that_each_of_them_has() -> None:
    made = {
        one.strategy: one
        for one in render_configs(strategy="average,decomposed, sample", strength=0.7, steps=3)
    }
    assert list(made) == ["average", "decomposed", "sample"] and not any(
        one.optional for one in made.values()
    )
    assert (made["decomposed"].strength, made["sample"].strength) == (0.7, 1.0)
    assert (made["decomposed"].steps, made["sample"].steps) == (3, 3)
    assert made["average"] == render_config(strategy="average")
    with pytest.raises(UsageError) as refused:
        render_configs(strategy="average,waveform", guidance=3.0)
    assert refused.value.field == "guidance"
    SynthConfig(
        alpha="0.2", render=render_configs(strategy="sample,decomposed")
    )  # one of them weighs parents


@pytest.mark.parametrize("strategy", ["sample,sample", "sample,", "", "sample,nonsense"])
def test_a_list_of_strategies_that_makes_no_sense_is_refused(strategy: str) -> None:
    with pytest.raises(UsageError) as refused:
        render_configs(strategy=strategy)
    assert refused.value.field == "strategy"


def test_only_the_default_may_leave_a_strategy_out() -> None:
    assert [(one.strategy, one.optional) for one in SynthConfig().renders] == [
        ("decomposed", False),
        ("sample", True),
    ]
    assert [one.strategy for one in SynthConfig(per_class=1).renders] == ["decomposed"]
    assert [one.strategy for one in render_configs("published")] == ["slerp"]
    assert render_configs(strategy="sample", strength=1.0) == render_configs(strategy="sample")
