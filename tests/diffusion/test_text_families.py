"""Text-to-audio generators against their pipelines, on tiny random models in the published folder layout."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch

from tests.diffusion.text_models import MODELS, save_model
from usk.diffusion.generator import Condition
from usk.diffusion.load import load_generator
from usk.diffusion.sampler import SamplerConfig
from usk.diffusion.text_pipeline import TextGenerator

PROMPTS = ["a dog barks", "rain on a roof"]
SAMPLES = 2_048
# The solver that does what the pipeline's own scheduler does.
SOLVERS = {"stable_audio": "second-order"}


@pytest.fixture(scope="module")
def generators(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TextGenerator]:
    """One of each family."""
    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in MODELS:
            folder = save_model(name, tmp_path_factory.mktemp(name))
            found[name] = load_generator(str(folder), "cpu", "fp32")
    return found


def noise(generator: TextGenerator, n_samples: int = SAMPLES) -> torch.Tensor:
    shape = generator.latent_shape(n_samples)
    return torch.randn(len(PROMPTS), *shape, generator=torch.Generator().manual_seed(1))


def by_pipeline(name: str, generator: TextGenerator, latents: torch.Tensor, guidance: float) -> torch.Tensor:
    """What the pipeline itself makes of the latents in six steps."""
    pipeline, seconds = generator.pipeline, SAMPLES / generator.sample_rate_hz
    pipeline.set_progress_bar_config(disable=True)
    common: dict[str, Any] = {"num_inference_steps": 6, "guidance_scale": guidance, "output_type": "latent"}
    if name == "audioldm":  # has no latents to give
        common["output_type"] = "pt"
    if name.startswith("audioldm"):  # one by one: the encoding of a prompt depends on those beside it there
        made = [
            pipeline(prompt, audio_length_in_s=seconds, latents=latent[None], **common).audios
            for prompt, latent in zip(PROMPTS, latents, strict=True)
        ]
        return torch.cat(made)
    if name == "stable_audio":
        pipeline.transformer.register_to_config(sample_size=latents.shape[-1])
        return pipeline(PROMPTS, audio_end_in_s=seconds, latents=latents, **common).audios
    if name == "stable_audio_3":
        return pipeline(PROMPTS, duration=seconds, latents=latents, **common).audios
    return pipeline(PROMPTS, latents=latents.transpose(1, 2), **common).audios.transpose(1, 2)


@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("name", MODELS)
def test_sampling_from_the_same_latents_equals_the_pipeline(
    name: str, generators: dict[str, TextGenerator], guidance: float
) -> None:
    generator = generators[name]
    latents = noise(generator)
    sampler = SamplerConfig(6, 1.0, SOLVERS.get(name, "ddim"))
    ours = generator.sample(latents, sampler, Condition(PROMPTS, guidance))
    theirs = by_pipeline(name, generator, latents.clone(), guidance)
    if name == "audioldm":
        ours = generator.decode(ours, [0, 1], 0)
    torch.testing.assert_close(ours, theirs.float(), atol=2e-4 * float(theirs.abs().max()), rtol=1e-3)


@pytest.mark.parametrize("name", MODELS)
def test_inversion_comes_back_and_more_steps_come_back_nearer(
    name: str, generators: dict[str, TextGenerator]
) -> None:
    generator = generators[name]
    clean = noise(generator)  # of unit variance, as a real model's latents are
    condition = Condition(PROMPTS)
    errors = []
    for steps in (4, 32):
        sampler = SamplerConfig(steps, 0.6)
        back = generator.sample(generator.invert(clean, sampler, condition), sampler, condition)
        errors.append(float((back - clean).norm() / clean.norm()))
    assert errors[1] < max(errors[0] / 3, 1e-3) and errors[1] < 0.05, errors


@pytest.mark.parametrize("name", MODELS)
def test_the_batch_does_not_change_a_clip(name: str, generators: dict[str, TextGenerator]) -> None:
    generator = generators[name]
    latents, sampler = noise(generator), SamplerConfig(3, 0.8)
    both = generator.sample(latents, sampler, Condition(PROMPTS, 2.0))
    for place, prompt in enumerate(PROMPTS):
        one = generator.sample(latents[place : place + 1], sampler, Condition([prompt], 2.0))
        torch.testing.assert_close(one[0], both[place], atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("name", MODELS)
def test_audio_goes_in_and_comes_out_as_long_as_it_was(
    name: str, generators: dict[str, TextGenerator]
) -> None:
    generator = generators[name]
    n_samples = generator.crop(3_000)
    assert 3_000 <= n_samples <= generator.longest_samples
    latent = generator.encode(0.1 * torch.randn(2, n_samples))
    assert latent.shape == (2, *generator.latent_shape(n_samples))
    audio = generator.decode(latent, [0, 1], 0)
    assert audio.shape == (2, n_samples) and bool(torch.isfinite(audio).all())
    shorter = generator.crop(1_000)
    assert generator.cut(latent, shorter).shape[1:] == generator.latent_shape(shorter)
