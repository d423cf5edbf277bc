"""Both solvers, both ways: against audiodiffusion and diffusers with the same weights, and where the answer is known."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from usk.diffusion.load import load_generator
from usk.diffusion.mel_pipeline import MelGenerator, as_audiodiffusion
from usk.diffusion.sampler import SamplerConfig
from usk.diffusion.schedule import NoiseSchedule
from usk.diffusion.solvers import Predictor, invert, sample, top_alpha
from usk.errors import UsageError

Factory = Callable[..., Path]
PREDICTIONS = ("epsilon", "v_prediction", "sample")
FORMS = [
    {},
    {"prediction_type": "v_prediction"},
    {"set_alpha_to_one": False},
    {"clip_sample": False},
    {"beta_schedule": "squaredcos_cap_v2"},
    {"prediction_type": "sample"},
]
SPREAD = 0.5  # of the Gaussian data that `gaussian` knows the exact answer for


def generator(folder: Path) -> MelGenerator:
    return load_generator(str(folder), device="cpu", precision="fp32")


def latents(of: MelGenerator, n: int = 2, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, *of.image_shape, generator=torch.Generator().manual_seed(seed))


def quiet(pipeline: Any) -> Any:
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def ddim(steps: int, strength: float = 1.0) -> SamplerConfig:
    return SamplerConfig(steps, strength, "ddim")


# --- DDIM against audiodiffusion and diffusers -------------------------------------------------------------


@pytest.mark.parametrize("form", [{}, {"set_alpha_to_one": False}, {"beta_schedule": "squaredcos_cap_v2"}])
@pytest.mark.parametrize("steps", [1, 7, 50])
def test_inversion_equals_audiodiffusions(tiny_pipeline: Factory, form: dict, steps: int) -> None:
    folder = tiny_pipeline(**form)
    ours = generator(folder)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 16, 32), dtype=np.uint8)
    images = torch.from_numpy(pixels / 255 * 2 - 1).float()[:, None]
    theirs = quiet(as_audiodiffusion(folder)).encode([Image.fromarray(gray) for gray in pixels], steps=steps)
    inverted = ours.invert(ours.to_latent(images), ddim(steps))
    assert inverted.dtype == torch.float32
    torch.testing.assert_close(inverted, theirs.float(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("vae", [False, True], ids=["pixels", "VAE"])
@pytest.mark.parametrize("steps", [1, 10])
def test_sampling_equals_audiodiffusions_pipeline(tiny_pipeline: Factory, vae: bool, steps: int) -> None:
    folder = tiny_pipeline(vae=vae)
    ours = generator(folder)
    noise = latents(ours)
    gray, _ = quiet(as_audiodiffusion(folder))(batch_size=2, noise=noise, steps=steps, return_dict=False)
    theirs = torch.from_numpy(np.stack([np.asarray(picture) for picture in gray])).float() / 255 * 2 - 1
    images = ours.to_image(ours.sample(noise, ddim(steps)))
    assert images.shape == (2, 1, 16, 32)
    assert (images[:, 0] - theirs).abs().max() < 1 / 255 + 1e-3


@pytest.mark.parametrize("form", FORMS, ids=lambda form: ",".join(map(str, form.values())) or "default")
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("steps", [1, 12])
def test_sampling_equals_the_schedulers_steps(
    tiny_pipeline: Factory, form: dict, eta: float, steps: int
) -> None:
    from diffusers import DDIMScheduler

    folder = tiny_pipeline(**form)
    ours = generator(folder)
    predict, noise, seeds = ours.predictor(), latents(ours), [3, 4]
    scheduler = DDIMScheduler.from_pretrained(folder, subfolder="scheduler")
    scheduler.set_timesteps(steps)
    sources = [torch.Generator().manual_seed(seed) for seed in seeds]
    expected = noise
    for timestep in scheduler.timesteps:
        fresh = torch.stack([torch.randn(noise.shape[1:], generator=source) for source in sources])
        output, drawn = predict(expected, int(timestep)), fresh if eta else None
        expected = scheduler.step(output, timestep, expected, eta=eta, variance_noise=drawn).prev_sample
    sampled = ours.sample(noise, ddim(steps), eta=eta, seeds=seeds)
    torch.testing.assert_close(sampled, expected, atol=1e-4, rtol=1e-4)


# --- with networks that are known --------------------------------------------------------------------------


def schedule_of(prediction_type: str = "epsilon", **options: object) -> NoiseSchedule:
    plain = {"num_train_timesteps": 1000, "clip_sample": False, "prediction_type": prediction_type}
    return NoiseSchedule.from_config(plain | options)


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


def exact_factor(alpha: float) -> float:
    """The probability-flow ODE on N(0, SPREAD^2) multiplies by the ratio of the standard deviations."""
    return math.sqrt(alpha * SPREAD**2 + 1 - alpha) / SPREAD


def ramp() -> torch.Tensor:
    return torch.linspace(-1, 1, 16).reshape(1, 1, 4, 4)


@pytest.mark.parametrize("strength", [0.1, 0.57, 1.0])
@pytest.mark.parametrize("steps", [1, 20])
def test_a_constant_noise_is_added_and_taken_away_exactly(strength: float, steps: int) -> None:
    schedule = schedule_of()
    clean, noise = torch.randn(2, 2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    sampler = ddim(steps, strength)
    noisy = invert(lambda x, t: noise, clean, schedule, sampler)
    alpha = top_alpha(sampler, schedule)
    torch.testing.assert_close(noisy, alpha**0.5 * clean + (1 - alpha) ** 0.5 * noise, atol=1e-5, rtol=1e-5)
    sampled = sample(lambda x, t: noise, noisy, schedule, sampler)
    torch.testing.assert_close(sampled, clean, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("prediction_type", PREDICTIONS)
@pytest.mark.parametrize(
    ("strength", "options"),
    [
        *((strength, {"beta_schedule": name}) for strength in (0.5, 0.8, 1.0) for name in ("linear", "squaredcos_cap_v2")),
        (1.0, {"rescale_betas_zero_snr": True}),
        (1.0, {"rescale_betas_zero_snr": True, "beta_schedule": "squaredcos_cap_v2"}),
        (1.0, {"beta_end": 0.05}),
        (1.0, {"num_train_timesteps": 4000}),
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize(("steps", "inverted", "sampled"), [(12, 0.1, 0.25), (60, 0.01, 0.02)])
def test_both_ways_come_to_the_exact_answer_as_far_as_there_is_signal(
    prediction_type: str,
    strength: float,
    options: dict[str, Any],
    steps: int,
    inverted: float,
    sampled: float,
) -> None:
    schedule, sampler = schedule_of(prediction_type, **options), SamplerConfig(steps, strength)
    assert top_alpha(sampler, schedule) >= 1e-9
    exact = exact_factor(top_alpha(sampler, schedule)) * ramp()
    noisy = invert(gaussian(schedule), ramp(), schedule, sampler)
    torch.testing.assert_close(noisy, exact, rtol=inverted, atol=1e-4)
    back = sample(gaussian(schedule), exact, schedule, sampler)
    torch.testing.assert_close(back, ramp(), rtol=sampled, atol=1e-4)


@pytest.mark.parametrize("direction", ["invert", "sample"])
def test_the_error_falls_with_the_square_of_the_steps(direction: str) -> None:
    """Against first-order DDIM, whose error falls with the steps: that is what makes fewer of them enough."""
    schedule = schedule_of(beta_schedule="squaredcos_cap_v2")
    clean = torch.ones(1, 1, 2, 2)

    def error(solver: str, steps: int) -> float:
        sampler = SamplerConfig(steps, 0.6, solver)
        factor = exact_factor(top_alpha(sampler, schedule))
        if direction == "invert":
            return float((invert(gaussian(schedule), clean, schedule, sampler) / factor - 1).abs().max())
        return float((sample(gaussian(schedule), factor * clean, schedule, sampler) - 1).abs().max())

    assert error("second-order", 40) < 0.4 * error("second-order", 20)
    assert error("ddim", 40) > 0.4 * error("ddim", 20)
    assert error("second-order", 40) < 0.3 * error("ddim", 40)


@pytest.mark.parametrize("steps", [4, 6, 12, 25])
def test_few_steps_to_pure_noise_stay_in_bounds(steps: int) -> None:
    """The cosine schedule's last step goes from a noise ratio of a few to one of thousands."""
    schedule = schedule_of("v_prediction", beta_schedule="squaredcos_cap_v2")
    noisy = invert(gaussian(schedule), ramp(), schedule, SamplerConfig(steps, 1.0))
    exact = exact_factor(schedule.alpha(999)) * ramp()
    assert (noisy - exact).abs().max() < 0.25 * exact.abs().max()


@pytest.mark.parametrize("sampler", [SamplerConfig(5, 0.5), SamplerConfig(1, 0.3), ddim(7)])
def test_the_network_is_evaluated_as_often_as_said(sampler: SamplerConfig) -> None:
    schedule, evaluated = schedule_of(), []

    def predict(noisy: torch.Tensor, timestep: int) -> torch.Tensor:
        evaluated.append(timestep)
        return torch.zeros_like(noisy)

    inverting, sampling = sampler.evaluations()
    noisy = invert(predict, torch.ones(1, 1, 2, 2), schedule, sampler)
    assert len(evaluated) == inverting
    sample(predict, noisy, schedule, sampler)
    assert len(evaluated) == inverting + sampling
    assert sampler.evaluations(inverts=False) == (0, sampling)


@pytest.mark.parametrize(
    ("config", "bound"),
    [
        ({"clip_sample": True}, 1.0),
        ({"clip_sample": True, "clip_sample_range": 0.5}, 0.5),
        ({"clip_sample": None}, None),
    ],
)
@pytest.mark.parametrize("solver", ["ddim", "second-order"])
def test_x0_is_clamped_as_the_scheduler_says(config: dict, bound: float | None, solver: str) -> None:
    schedule = schedule_of("sample", **config)
    noisy = torch.zeros(1, 1, 2, 2)
    sampled = sample(lambda x, t: torch.full_like(x, 3.0), noisy, schedule, SamplerConfig(4, 0.5, solver))
    assert float(sampled.max()) == pytest.approx(3.0 if bound is None else bound)


# --- on the tiny network -----------------------------------------------------------------------------------


def test_a_clip_depends_on_its_own_seed_and_not_on_its_batch(tiny_pipeline: Factory) -> None:
    ours = generator(tiny_pipeline())
    noise = latents(ours, 3)
    together = ours.sample(noise, ddim(6), eta=1.0, seeds=[7, 8, 9])
    for row in range(3):
        alone = ours.sample(noise[row : row + 1], ddim(6), eta=1.0, seeds=[7 + row])
        torch.testing.assert_close(together[row : row + 1], alone, atol=1e-5, rtol=1e-4)
    other = ours.sample(noise, ddim(6), eta=1.0, seeds=[7, 8, 10])
    assert torch.equal(other[:2], together[:2]) and (other[2] - together[2]).abs().max() > 0.01
    second = SamplerConfig(4, 0.5)
    inverted, alone = ours.invert(noise, second)[1:2], ours.invert(noise[1:2], second)
    torch.testing.assert_close(inverted, alone, rtol=0, atol=1e-4)


# --- wrong input -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seeds", [[], [1]])
def test_fresh_noise_needs_a_seed_for_each_clip_and_the_first_order_solver(
    tiny_pipeline: Factory, seeds: list[int]
) -> None:
    ours = generator(tiny_pipeline())
    with pytest.raises(ValueError, match="one seed for each item"):
        ours.sample(latents(ours), ddim(3), eta=1.0, seeds=seeds)
    with pytest.raises(UsageError) as raised:
        ours.sample(latents(ours), SamplerConfig(4, 0.5), eta=0.5, seeds=[0, 1])
    assert raised.value.field == "eta"
    with pytest.raises(UsageError) as raised:
        SamplerConfig(4, 0.5, "heun")
    assert raised.value.field == "solver"
