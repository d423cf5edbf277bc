"""DDIM both ways, against audiodiffusion's own `encode` and pipeline and diffusers' scheduler, with the same weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from usk.diffusion.ddim import NoiseSchedule, ddim_decode, ddim_encode
from usk.diffusion.load import Generator, as_audiodiffusion, load_generator
from usk.errors import ModelError, UsageError

Factory = Callable[..., Path]
FORMS = [
    {},
    {"prediction_type": "v_prediction"},
    {"set_alpha_to_one": False},
    {"clip_sample": False},
    {"beta_schedule": "squaredcos_cap_v2"},
    {"prediction_type": "sample"},
]
each_form = pytest.mark.parametrize(
    "form", FORMS, ids=lambda form: ",".join(map(str, form.values())) or "default"
)


def generator(folder: Path) -> Generator:
    return load_generator(str(folder), device="cpu", precision="fp32")


def latents(of: Generator, n: int = 2, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, *of.latent_shape, generator=torch.Generator().manual_seed(seed))


def pictures(n: int, of: Generator) -> tuple[list[Image.Image], torch.Tensor]:
    """Grey images and the same as mel images [n, 1, n_mels, n_frames]."""
    pixels = np.random.default_rng(0).integers(0, 256, (n, of.mel.n_mels, of.mel.n_frames), dtype=np.uint8)
    return [Image.fromarray(picture) for picture in pixels], torch.from_numpy(pixels / 255 * 2 - 1).float()[
        :, None
    ]


def quiet(pipeline):
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


# --- against audiodiffusion and diffusers ------------------------------------------------------------------


@pytest.mark.parametrize("form", [{}, {"set_alpha_to_one": False}, {"beta_schedule": "squaredcos_cap_v2"}])
@pytest.mark.parametrize("steps", [1, 2, 7, 50])
def test_encode_equals_audiodiffusions(tiny_pipeline: Factory, form: dict, steps: int) -> None:
    folder = tiny_pipeline(**form)
    ours = generator(folder)
    gray, images = pictures(3, ours)
    theirs = quiet(as_audiodiffusion(folder)).encode(gray, steps=steps)
    encoded = ddim_encode(ours.predict, ours.to_latent(images), ours.schedule, steps)
    assert encoded.dtype == torch.float32
    torch.testing.assert_close(encoded, theirs.float(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("vae", [False, True], ids=["pixels", "VAE"])
@pytest.mark.parametrize("steps", [1, 10])
def test_decode_equals_audiodiffusions_pipeline(tiny_pipeline: Factory, vae: bool, steps: int) -> None:
    folder = tiny_pipeline(vae=vae)
    ours = generator(folder)
    noise = latents(ours)
    gray, _ = quiet(as_audiodiffusion(folder))(batch_size=2, noise=noise, steps=steps, return_dict=False)
    theirs = torch.from_numpy(np.stack([np.asarray(picture) for picture in gray])).float() / 255 * 2 - 1
    images = ours.to_image(ddim_decode(ours.predict, noise, ours.schedule, steps))
    assert images.shape == (2, 1, 16, 32)
    assert (images[:, 0] - theirs).abs().max() < 1 / 255 + 1e-3


@each_form
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("steps", [1, 12])
def test_decode_equals_the_schedulers_steps(
    tiny_pipeline: Factory, form: dict, eta: float, steps: int
) -> None:
    from diffusers import DDIMScheduler

    folder = tiny_pipeline(**form)
    ours = generator(folder)
    noise, seeds = latents(ours), [3, 4]
    scheduler = DDIMScheduler.from_pretrained(folder, subfolder="scheduler")
    scheduler.set_timesteps(steps)
    sources = [torch.Generator().manual_seed(seed) for seed in seeds]
    sample = noise
    for timestep in scheduler.timesteps:
        fresh = torch.stack([torch.randn(noise.shape[1:], generator=source) for source in sources])
        sample = scheduler.step(
            ours.predict(sample, int(timestep)),
            timestep,
            sample,
            eta=eta,
            variance_noise=fresh if eta else None,
        ).prev_sample
    decoded = ddim_decode(ours.predict, noise, ours.schedule, steps, eta=eta, seeds=seeds)
    torch.testing.assert_close(decoded, sample, atol=1e-4, rtol=1e-4)


@each_form
def test_timesteps_are_the_schedulers(tiny_pipeline: Factory, form: dict) -> None:
    from diffusers import DDIMScheduler

    folder = tiny_pipeline(**form)
    scheduler = DDIMScheduler.from_pretrained(folder, subfolder="scheduler")
    schedule = generator(folder).schedule
    for steps in (1, 3, 50, 999, 1000):
        scheduler.set_timesteps(steps)
        assert schedule.timesteps(steps)[::-1] == scheduler.timesteps.tolist()
    assert torch.equal(schedule.alphas_cumprod, scheduler.alphas_cumprod)


def test_the_vae_is_the_pipelines_and_its_mode_is_taken(tiny_pipeline: Factory) -> None:
    folder = tiny_pipeline(vae=True)
    ours, theirs = generator(folder), as_audiodiffusion(folder)
    _, images = pictures(2, ours)
    latent = ours.to_latent(images)
    assert latent.shape == (2, *ours.latent_shape) == (2, 2, 8, 16)
    with torch.no_grad():
        mean = 0.18215 * theirs.vqvae.encode(images).latent_dist.mean
        decoded = theirs.vqvae.decode(mean / 0.18215).sample.clamp(-1, 1)
    torch.testing.assert_close(latent, mean, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(ours.to_image(latent), decoded, atol=1e-4, rtol=1e-3)


# --- with a network that is known -------------------------------------------------------------------------


def schedule(**config) -> NoiseSchedule:
    return NoiseSchedule.from_config({"num_train_timesteps": 1000, "clip_sample": False, **config})


@pytest.mark.parametrize("strength", [0.1, 0.4, 0.57, 1.0])
@pytest.mark.parametrize("steps", [1, 5, 20])
def test_a_constant_noise_is_added_and_taken_away_exactly(strength: float, steps: int) -> None:
    known = schedule()
    clean, noise = torch.randn(2, 2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    asked: list[int] = []

    def predict(sample: torch.Tensor, timestep: int) -> torch.Tensor:
        asked.append(timestep)
        return noise

    encoded = ddim_encode(predict, clean, known, steps, strength)
    alpha = known.alpha(known.timesteps(steps, strength)[-1])
    torch.testing.assert_close(encoded, alpha**0.5 * clean + (1 - alpha) ** 0.5 * noise, atol=1e-5, rtol=1e-5)
    decoded = ddim_decode(predict, encoded, known, steps, strength)
    torch.testing.assert_close(decoded, clean, atol=1e-4, rtol=1e-4)
    assert asked == [*known.timesteps(steps, strength), *known.timesteps(steps, strength)[::-1]]


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
def test_timesteps_below_a_level(steps: int, strength: float, expected: list[int]) -> None:
    assert schedule().timesteps(steps, strength) == expected


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
def test_what_the_network_says_is_turned_into_noise_and_signal(prediction_type: str) -> None:
    known = schedule(prediction_type=prediction_type)
    clean, noise = torch.randn(2, 2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    for alpha in (0.9, 0.3):
        sample = alpha**0.5 * clean + (1 - alpha) ** 0.5 * noise
        velocity = alpha**0.5 * noise - (1 - alpha) ** 0.5 * clean
        output = {"epsilon": noise, "v_prediction": velocity, "sample": clean}[prediction_type]
        torch.testing.assert_close(known.epsilon(output, sample, alpha), noise, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(known.clean(output, sample, alpha), clean, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("config", "bound"),
    [
        ({"clip_sample": True}, 1.0),
        ({"clip_sample": True, "clip_sample_range": 0.5}, 0.5),
        ({}, None),
        ({"clip_sample": None}, None),
    ],
)
def test_the_predicted_signal_is_clipped_as_the_scheduler_says(config: dict, bound: float | None) -> None:
    known = schedule(**config)
    assert known.clip_range == bound
    decoded = ddim_decode(lambda sample, t: torch.zeros_like(sample), torch.full((1, 1, 4, 4), 9.0), known, 5)
    assert float(decoded.abs().max()) == pytest.approx(bound) if bound else float(decoded.min()) > 9


# --- on the tiny network -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "strength"),
    [
        ({}, 0.25),
        ({}, 0.5),
        ({"prediction_type": "v_prediction"}, 0.5),
        ({"prediction_type": "v_prediction"}, 1.0),
    ],
    ids=str,
)
def test_the_round_trip_comes_closer_with_steps(tiny_pipeline: Factory, form: dict, strength: float) -> None:
    ours = generator(tiny_pipeline(clip_sample=False, **form))
    _, images = pictures(2, ours)

    def predict(sample: torch.Tensor, timestep: int) -> torch.Tensor:
        return 0.2 * ours.predict(sample, timestep)  # smooth, as a trained network is and a random one is not

    def error(steps: int) -> float:
        encoded = ddim_encode(predict, images, ours.schedule, steps, strength)
        return float((ddim_decode(predict, encoded, ours.schedule, steps, strength) - images).abs().mean())

    errors = [error(steps) for steps in (4, 20, 100)]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.1


@pytest.mark.parametrize("form", [{}, {"prediction_type": "v_prediction"}])
def test_refinements_bring_the_inversion_to_the_exact_inverse(tiny_pipeline: Factory, form: dict) -> None:
    ours = generator(tiny_pipeline(clip_sample=False, **form))
    _, images = pictures(2, ours)

    def predict(sample: torch.Tensor, timestep: int) -> torch.Tensor:
        return 0.2 * ours.predict(sample, timestep)

    def error(refinements: int) -> float:
        encoded = ddim_encode(predict, images, ours.schedule, 10, 0.5, refinements)
        return float((ddim_decode(predict, encoded, ours.schedule, 10, 0.5) - images).abs().mean())

    errors = [error(refinements) for refinements in (0, 1, 12)]
    assert errors[0] > 2 * errors[1]
    assert errors[2] < 1e-4


def test_a_clip_depends_on_its_own_seed_alone(tiny_pipeline: Factory) -> None:
    ours = generator(tiny_pipeline())
    noise = latents(ours, 3)
    together = ddim_decode(ours.predict, noise, ours.schedule, 6, eta=1.0, seeds=[7, 8, 9])
    for row in range(3):
        alone = ddim_decode(ours.predict, noise[row : row + 1], ours.schedule, 6, eta=1.0, seeds=[7 + row])
        torch.testing.assert_close(together[row : row + 1], alone, atol=1e-5, rtol=1e-4)
    other = ddim_decode(ours.predict, noise, ours.schedule, 6, eta=1.0, seeds=[7, 8, 10])
    assert torch.equal(other[:2], together[:2]) and (other[2] - together[2]).abs().max() > 0.01


@pytest.mark.parametrize("seeds", [None, [], [1]])
def test_fresh_noise_needs_a_seed_for_each_clip(tiny_pipeline: Factory, seeds: list[int] | None) -> None:
    ours = generator(tiny_pipeline())
    with pytest.raises(ValueError, match="one seed for each item"):
        ddim_decode(ours.predict, latents(ours), ours.schedule, 3, eta=1.0, seeds=seeds)


# --- wrong input -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "strength", "message"),
    [
        (0, 1.0, "--steps 0 does not fit"),
        (-1, 1.0, "--steps -1 does not fit"),
        (1001, 1.0, "--steps 1001 does not fit: at strength 1.0 there are 1000 timesteps"),
        (101, 0.1, "--steps 101 does not fit: at strength 0.1 there are 100 timesteps"),
        (10, 0.0, r"--strength must lie in \(0, 1\], not 0.0"),
        (10, 1.1, "--strength must lie in"),
        (10, -0.5, "--strength must lie in"),
        (10, float("nan"), "--strength must lie in"),
    ],
)
def test_steps_and_levels_that_cannot_be_are_usage_errors(steps: int, strength: float, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ddim_encode(lambda sample, t: sample, torch.zeros(1, 1, 2, 2), schedule(), steps, strength)
    with pytest.raises(UsageError, match=message):
        ddim_decode(lambda sample, t: sample, torch.zeros(1, 1, 2, 2), schedule(), steps, strength)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"prediction_type": "flow"}, "prediction_type is 'flow'"),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler"}, "usk knows DDIMScheduler and DDPMScheduler"),
        ({"_class_name": "PNDMScheduler"}, "the scheduler is a PNDMScheduler"),
        ({"thresholding": True}, "dynamic thresholding"),
        ({"beta_schedule": "spiral"}, "configuration is not understood"),
        ({"num_train_timesteps": "many"}, "configuration is not understood"),
    ],
)
def test_a_scheduler_that_cannot_be_inverted_is_a_model_error(config: dict, message: str) -> None:
    with pytest.raises(ModelError, match=message) as raised:
        schedule(**config)
    assert "\n" not in str(raised.value)
