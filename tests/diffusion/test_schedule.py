"""The noise schedule: whose timesteps, what the network's output stands for, and which schedulers are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from usk.diffusion.schedule import NoiseSchedule
from usk.errors import ModelError, UsageError


def schedule(**config: object) -> NoiseSchedule:
    return NoiseSchedule.from_config({"num_train_timesteps": 1000, "clip_sample": False, **config})


@pytest.mark.parametrize("form", [{}, {"set_alpha_to_one": False}, {"beta_schedule": "squaredcos_cap_v2"}])
def test_timesteps_are_the_schedulers(tiny_pipeline: Callable[..., Path], form: dict) -> None:
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler.from_pretrained(tiny_pipeline(**form), subfolder="scheduler")
    ours = NoiseSchedule.from_config(dict(scheduler.config))
    for steps in (1, 3, 50, 999, 1000):
        scheduler.set_timesteps(steps)
        assert ours.timesteps(steps)[::-1] == scheduler.timesteps.tolist()
    assert torch.equal(ours.alphas_cumprod, scheduler.alphas_cumprod)


@pytest.mark.parametrize(
    ("steps", "strength", "expected"),
    [
        (4, 1.0, [0, 250, 500, 750]),
        (3, 1.0, [0, 333, 666]),
        (2, 0.5, [249, 499]),
        (3, 0.1, [32, 66, 99]),
        (1, 0.5, [499]),
        (570, 0.57, list(range(570))),
    ],
)
def test_timesteps_below_a_strength(steps: int, strength: float, expected: list[int]) -> None:
    assert schedule().timesteps(steps, strength) == expected


@given(st.integers(1, 1000), st.floats(0.001, 1.0))
def test_nodes_rise_to_just_below_the_strength(steps: int, strength: float) -> None:
    top = int(1000 * strength + 1e-6)
    if steps > top:
        with pytest.raises(UsageError):
            schedule().nodes(steps, strength)
        return
    nodes = schedule().nodes(steps, strength)
    assert len(nodes) == steps
    assert nodes == sorted(set(nodes))
    assert nodes[0] >= 0 and nodes[-1] == top - 1


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
def test_the_networks_output_is_turned_into_noise_and_signal(prediction_type: str) -> None:
    known = schedule(prediction_type=prediction_type)
    clean, noise = torch.randn(2, 2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    for alpha in (0.9, 0.3):
        sample = alpha**0.5 * clean + (1 - alpha) ** 0.5 * noise
        velocity = alpha**0.5 * noise - (1 - alpha) ** 0.5 * clean
        output = {"epsilon": noise, "v_prediction": velocity, "sample": clean}[prediction_type]
        torch.testing.assert_close(known.epsilon(output, sample, alpha), noise, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(known.clean(output, sample, alpha), clean, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("steps", "strength", "field"),
    [
        (0, 1.0, "steps"),
        (1001, 1.0, "steps"),
        (101, 0.1, "steps"),
        (10, 0.0, "strength"),
        (10, 1.1, "strength"),
        (10, float("nan"), "strength"),
    ],
)
def test_steps_and_strengths_that_cannot_be_are_usage_errors(steps: int, strength: float, field: str) -> None:
    for timesteps in (schedule().timesteps, schedule().nodes):
        with pytest.raises(UsageError) as raised:
            timesteps(steps, strength)
        assert raised.value.field == field


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"prediction_type": "flow"}, "prediction_type is 'flow'"),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler"}, "usk supports DDIMScheduler and DDPMScheduler"),
        ({"thresholding": True}, "dynamic thresholding"),
        ({"beta_schedule": "spiral"}, "not understood"),
        ({"num_train_timesteps": "many"}, "not understood"),
        ({"num_train_timesteps": 10**11}, "not understood"),
        ({"clip_sample_range": []}, "not understood"),
    ],
)
def test_a_scheduler_that_cannot_be_inverted_is_a_model_error(config: dict, message: str) -> None:
    with pytest.raises(ModelError, match=message) as raised:
        schedule(**config)
    assert "\n" not in str(raised.value)
