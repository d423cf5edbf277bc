"""The second-order sampler: exact where it must be, of second order where the answer is known, better than DDIM."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from usk.diffusion.ddim import NoiseSchedule, Predictor
from usk.diffusion.load import load_generator
from usk.diffusion.sampler import SamplerConfig
from usk.errors import UsageError

PREDICTIONS = ("epsilon", "v_prediction", "sample")
SPREAD = 0.5  # of the Gaussian data that `gaussian` knows the exact answer for


def schedule_of(prediction_type: str = "epsilon", **options: object) -> NoiseSchedule:
    return NoiseSchedule.from_config(
        {"num_train_timesteps": 1000, "clip_sample": False, "prediction_type": prediction_type, **options}
    )


def gaussian(schedule: NoiseSchedule) -> Predictor:
    """The perfect network for data from N(0, SPREAD^2): E[x_0 | x_t] is linear in x_t."""

    def predict(noisy: torch.Tensor, timestep: int) -> torch.Tensor:
        alpha = schedule.alpha(timestep)
        origin = alpha**0.5 * SPREAD**2 / (alpha * SPREAD**2 + 1 - alpha) * noisy
        if schedule.prediction_type == "sample":
            return origin
        noise = (noisy - alpha**0.5 * origin) / max(1 - alpha, 1e-12) ** 0.5
        if schedule.prediction_type == "epsilon":
            return noise
        return alpha**0.5 * noise - (1 - alpha) ** 0.5 * origin

    return predict


def exact_up(schedule: NoiseSchedule, timestep: int) -> float:
    """The probability-flow ODE on N(0, SPREAD^2) multiplies by the ratio of the standard deviations."""
    alpha = schedule.alpha(timestep)
    return math.sqrt(alpha * SPREAD**2 + 1 - alpha) / SPREAD


@pytest.mark.parametrize("prediction_type", PREDICTIONS)
@pytest.mark.parametrize("strength", [0.5, 0.8, 1.0])
@pytest.mark.parametrize("beta_schedule", ["linear", "squaredcos_cap_v2"])
def test_both_ways_come_to_the_exact_answer(
    prediction_type: str, strength: float, beta_schedule: str
) -> None:
    schedule = schedule_of(prediction_type, beta_schedule=beta_schedule)
    clean = torch.linspace(-1, 1, 16).reshape(1, 1, 4, 4)
    sampler = SamplerConfig(60, strength)
    factor = exact_up(schedule, schedule.nodes(60, strength)[-1])
    noisy = sampler.up(gaussian(schedule), clean, schedule)
    torch.testing.assert_close(noisy, factor * clean, rtol=0.01, atol=1e-4)
    back = sampler.down(gaussian(schedule), factor * clean, schedule)
    torch.testing.assert_close(back, clean, rtol=0.02, atol=1e-4)


@pytest.mark.parametrize("prediction_type", PREDICTIONS)
@pytest.mark.parametrize(
    "options",
    [
        {"rescale_betas_zero_snr": True},
        {"rescale_betas_zero_snr": True, "beta_schedule": "squaredcos_cap_v2"},
        {"beta_end": 0.05},
        {"num_train_timesteps": 4000},
    ],
    ids=["zero SNR", "zero SNR of cosines", "steep", "long"],
)
def test_schedules_that_leave_no_signal_are_walked_as_far_as_there_is_some(
    prediction_type: str, options: dict[str, Any]
) -> None:
    schedule = schedule_of(prediction_type, **options)
    clean = torch.linspace(-1, 1, 16).reshape(1, 1, 4, 4)
    for steps in (12, 60):
        sampler = SamplerConfig(steps, 1.0)
        assert sampler.top(schedule) >= 1e-9
        noisy = sampler.up(gaussian(schedule), clean, schedule)
        exact = exact_up(schedule, schedule.nodes(steps, 1.0)[-1]) * clean
        torch.testing.assert_close(noisy, exact, rtol=0.1 if steps == 12 else 0.01, atol=1e-4)
        back = sampler.down(gaussian(schedule), exact, schedule)
        torch.testing.assert_close(back, clean, rtol=0.25 if steps == 12 else 0.02, atol=1e-4)


@pytest.mark.parametrize("direction", ["up", "down"])
def test_the_error_falls_with_the_square_of_the_steps(direction: str) -> None:
    """Against first-order DDIM, whose error falls with the steps: that is what makes fewer of them enough."""
    schedule = schedule_of(beta_schedule="squaredcos_cap_v2")
    clean = torch.ones(1, 1, 2, 2)
    strength = 0.6

    def error(solver: str, steps: int) -> float:
        sampler = SamplerConfig(steps, strength, solver, 0 if solver == "ddim" else 1)
        top = (schedule.nodes if solver != "ddim" else schedule.timesteps)(steps, strength)[-1]
        factor = exact_up(schedule, top)
        if direction == "up":
            return float((sampler.up(gaussian(schedule), clean, schedule) / factor - 1).abs().max())
        return float((sampler.down(gaussian(schedule), factor * clean, schedule) - 1).abs().max())

    assert error("second-order", 40) < 0.4 * error("second-order", 20)
    assert error("ddim", 40) > 0.4 * error("ddim", 20)
    assert error("second-order", 40) < 0.3 * error("ddim", 40)


@pytest.mark.parametrize("steps", [4, 6, 12, 25])
def test_few_steps_to_pure_noise_stay_in_bounds(steps: int) -> None:
    """The cosine schedule's last step goes from a noise ratio of a few to one of thousands."""
    schedule = schedule_of("v_prediction", beta_schedule="squaredcos_cap_v2")
    clean = torch.linspace(-1, 1, 16).reshape(1, 1, 4, 4)
    noisy = SamplerConfig(steps, 1.0).up(gaussian(schedule), clean, schedule)
    exact = exact_up(schedule, 999) * clean
    assert (noisy - exact).abs().max() < 0.25 * exact.abs().max()


@given(st.integers(1, 1000), st.floats(0.001, 1.0))
def test_nodes_rise_to_just_below_the_level(steps: int, strength: float) -> None:
    schedule = schedule_of()
    if steps > schedule.below(strength):
        with pytest.raises(UsageError, match=f"--steps {steps} does not fit"):
            schedule.nodes(steps, strength)
        return
    nodes = schedule.nodes(steps, strength)
    assert len(nodes) == steps
    assert nodes == sorted(set(nodes))
    assert nodes[0] >= 0 and nodes[-1] == schedule.below(strength) - 1


@pytest.mark.parametrize("strength", [0.0, -0.1, 1.1])
def test_a_level_out_of_range_is_a_usage_error(strength: float) -> None:
    with pytest.raises(UsageError, match="--strength must lie in"):
        schedule_of().nodes(5, strength)


@pytest.mark.parametrize("prediction_type", PREDICTIONS)
def test_the_network_is_asked_as_often_as_said(prediction_type: str) -> None:
    schedule = schedule_of(prediction_type)
    asked: list[int] = []

    def predict(noisy: torch.Tensor, timestep: int) -> torch.Tensor:
        asked.append(timestep)
        return torch.zeros_like(noisy)

    for sampler in (
        SamplerConfig(5, 0.5),
        SamplerConfig(5, 0.5, refinements=0),
        SamplerConfig(7, 1.0, "ddim", 1),
        SamplerConfig(1, 0.3),
    ):
        up, down = sampler.evaluations()
        noisy = sampler.up(predict, torch.ones(1, 1, 2, 2), schedule)
        assert len(asked) == up
        sampler.down(predict, noisy, schedule)
        assert len(asked) == up + down
        assert sampler.evaluations(inverts=False) == (0, down)
        asked.clear()


def test_fewer_looks_than_ddim_for_the_same_round_trip() -> None:
    """On smooth data: a random network is not what a solver is for."""
    schedule = schedule_of("v_prediction", beta_schedule="squaredcos_cap_v2")
    clean = torch.linspace(-1, 1, 16).reshape(1, 1, 4, 4)

    def error(sampler: SamplerConfig) -> float:
        noisy = sampler.up(gaussian(schedule), clean, schedule)
        return float((sampler.down(gaussian(schedule), noisy, schedule) - clean).abs().mean())

    second, first = SamplerConfig(20, 0.5), SamplerConfig(24, 0.5, "ddim", 0)
    assert sum(second.evaluations()) < sum(first.evaluations())
    assert error(second) < 0.6 * error(first)


def test_an_item_does_not_depend_on_its_batch(tiny_pipeline: Callable[..., Path]) -> None:
    generator = load_generator(str(tiny_pipeline()), "cpu", precision="fp32")
    clean = torch.rand(3, 1, 16, 32) - 0.5
    sampler = SamplerConfig(4, 0.5)
    noisy = sampler.up(generator.predict, clean, generator.schedule)
    alone = sampler.up(generator.predict, clean[1:2], generator.schedule)
    torch.testing.assert_close(noisy[1:2], alone, rtol=0, atol=1e-4)


def test_x0_is_clamped_as_the_scheduler_says() -> None:
    schedule = schedule_of("sample", clip_sample=True, clip_sample_range=1.0)
    down = SamplerConfig(4, 0.5).down(lambda x, t: torch.full_like(x, 3.0), torch.zeros(1, 1, 2, 2), schedule)
    assert float(down.max()) == 1.0
    free = SamplerConfig(4, 0.5).down(
        lambda x, t: torch.full_like(x, 3.0), torch.zeros(1, 1, 2, 2), schedule_of("sample")
    )
    assert float(free.max()) == 3.0


def test_fresh_noise_needs_the_first_order_solver() -> None:
    with pytest.raises(UsageError, match=r"--eta 0\.5 needs --solver ddim"):
        SamplerConfig(4, 0.5).down(lambda x, t: x, torch.zeros(1, 1, 2, 2), schedule_of(), eta=0.5, seeds=[0])


def test_a_solver_that_is_not_known_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="--solver heun is not known; choose one of second-order, ddim"):
        SamplerConfig(4, 0.5, "heun")
