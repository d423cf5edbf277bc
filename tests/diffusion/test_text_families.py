"""Text-to-audio generators against their pipelines, on tiny random models in the published folder layout."""

from __future__ import annotations

import copy
import math
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tests.diffusion.text_models import MODELS
from usk.device import DTYPES
from usk.diffusion import load, text_memory
from usk.diffusion.generator import Condition
from usk.diffusion.load import load_generator
from usk.diffusion.pipeline import MEL_IMAGES
from usk.diffusion.sampler import SamplerConfig
from usk.diffusion.text_info import FAMILIES
from usk.diffusion.text_memory import USABLE_SHARE, ModelSize, meta_networks
from usk.diffusion.text_pipeline import DECODERS, TextGenerator
from usk.errors import ModelError

PROMPTS = ["a dog barks", "rain on a roof"]
SAMPLES = 2_048
# The solver that does what the pipeline's own scheduler does.
SOLVERS = {"stable_audio": "second-order"}


@pytest.fixture(scope="module")
def generators(models: dict[str, Path]) -> dict[str, TextGenerator]:
    """One of each family."""
    return {name: load_generator(str(folder), "cpu", "fp32") for name, folder in models.items()}


@pytest.fixture(params=MODELS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def generator(name: str, generators: dict[str, TextGenerator]) -> TextGenerator:
    return generators[name]


def test_every_family_has_a_class_and_a_tiny_model(generators: dict[str, TextGenerator]) -> None:
    assert {one.family for one in generators.values()} == set(FAMILIES)


def noise(generator: TextGenerator, n_samples: int = SAMPLES) -> torch.Tensor:
    shape = generator.latent_shape(n_samples)
    return torch.randn(len(PROMPTS), *shape, generator=torch.Generator().manual_seed(1))


def by_pipeline(name: str, generator: TextGenerator, latents: torch.Tensor, guidance: float) -> torch.Tensor:
    """What the pipeline itself makes of the latents in six steps."""
    pipeline, seconds = generator.pipeline, SAMPLES / generator.sample_rate_hz
    pipeline.set_progress_bar_config(disable=True)
    common: dict[str, Any] = {"num_inference_steps": 6, "guidance_scale": guidance, "output_type": "latent"}
    if name == "musicldm":  # whose pipeline encodes prompts with transformers before version 5 alone
        each = [generator.embed(prompt, SAMPLES) for prompt in PROMPTS]
        texts, without = (torch.cat([one[key] for one in each]) for key in ("text", "without text"))
        common |= {"prompt_embeds": texts, "negative_prompt_embeds": without}
        return pipeline(audio_length_in_s=seconds, latents=latents, **common).audios
    if name == "audioldm":  # has no latents to give
        common["output_type"] = "pt"
    pairs = list(zip(PROMPTS, latents, strict=True))
    if name.startswith("audioldm"):  # one by one: the encoding of a prompt depends on those beside it there
        common["audio_length_in_s"] = seconds
        return torch.cat([pipeline(text, latents=latent[None], **common).audios for text, latent in pairs])
    if name == "stable_audio":
        pipeline.transformer.register_to_config(sample_size=latents.shape[-1])
        return pipeline(PROMPTS, audio_end_in_s=seconds, latents=latents, **common).audios
    if name == "stable_audio_3":
        return pipeline(PROMPTS, duration=seconds, latents=latents, **common).audios
    # One by one: its layers for text see the padding of a batch.
    made = [pipeline(text, latents=latent.T[None], **common).audios for text, latent in pairs]
    return torch.cat(made).transpose(1, 2)


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_sampling_from_the_same_latents_equals_the_pipeline(
    name: str, generator: TextGenerator, guidance: float
) -> None:
    latents = noise(generator)
    sampler = SamplerConfig(6, 1.0, SOLVERS.get(name, "ddim"))
    ours = generator.sample(latents, sampler, Condition(PROMPTS, guidance))
    theirs = by_pipeline(name, generator, latents.clone(), guidance)
    if name == "audioldm":
        ours = generator.decode(ours, [0, 1], 0)
    torch.testing.assert_close(ours, theirs.float(), atol=2e-4 * float(theirs.abs().max()), rtol=1e-3)


def test_stable_audio_is_told_of_the_noise_as_its_published_scheduler_tells_it(
    generators: dict[str, TextGenerator],
) -> None:
    """CosineDPMSolverMultistepScheduler, which needs torchsde: what is loaded in its place has another way of its own."""
    sigma = torch.tensor([0.3, 1.0, 500.0])
    told = generators["stable_audio"].pipeline.scheduler.precondition_noise(sigma)
    torch.testing.assert_close(told, 2 / math.pi * torch.atan(sigma))


def test_inversion_comes_back_and_more_steps_come_back_nearer(generator: TextGenerator) -> None:
    clean = noise(generator)  # of unit variance, as a real model's latents are
    condition = Condition(PROMPTS)
    errors = []
    for steps in (4, 32):
        sampler = SamplerConfig(steps, 0.6)
        back = generator.sample(generator.invert(clean, sampler, condition), sampler, condition)
        errors.append(float((back - clean).norm() / clean.norm()))
    assert errors[1] < max(errors[0] / 3, 1e-3) and errors[1] < 0.05, errors


def test_the_batch_does_not_change_a_clip(generator: TextGenerator) -> None:
    latents, sampler = noise(generator), SamplerConfig(3, 0.8)
    both = generator.sample(latents, sampler, Condition(PROMPTS, 2.0))
    for place, prompt in enumerate(PROMPTS):
        one = generator.sample(latents[place : place + 1], sampler, Condition([prompt], 2.0))
        torch.testing.assert_close(one[0], both[place], atol=1e-4, rtol=1e-3)


def test_unconditioned_is_what_guidance_leads_away_from(generator: TextGenerator) -> None:
    noisy, node = noise(generator), generator.schedule.nodes(2, 0.5)[-1]
    away = [generator.predictor(Condition([""] * 2, guidance))(noisy, node) for guidance in (0.0, 1.0)]
    unconditioned = generator.predictor()(noisy, node)
    torch.testing.assert_close(unconditioned, away[0])
    assert generator.none_is_zero != torch.allclose(away[0], away[1]), "the empty prompt is one too"


def test_the_operations_of_an_evaluation_are_not_estimated_too_low(generator: TextGenerator) -> None:
    noisy = noise(generator)
    texts = generator.embed_batch(["a dog"], SAMPLES)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        generator.denoise(noisy[:1], generator.schedule.nodes(2, 0.5)[-1], texts)
    assert 0 < counter.get_total_flops() < 1.2 * generator.flop(SAMPLES)


def test_audio_goes_in_and_comes_out_as_long_as_it_was(generator: TextGenerator) -> None:
    n_samples = generator.crop(3_000)
    assert 3_000 <= n_samples <= generator.longest_samples
    latent = generator.encode(0.1 * torch.randn(2, n_samples))
    assert latent.shape == (2, *generator.latent_shape(n_samples))
    audio = generator.decode(latent, [0, 1], 0)
    assert audio.shape == (2, n_samples) and bool(torch.isfinite(audio).all())


def test_prompts_are_encoded_once_and_their_encoders_freed(
    name: str, generators: dict[str, TextGenerator], monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = replace(generators[name], pipeline=copy.copy(generators[name].pipeline))
    generator.embeddings, generator.encoded = {}, {}
    owner: Any = type(generator.pipeline.text_encoder if name == "musicldm" else generator.pipeline)
    encode = {"musicldm": "get_text_features", "audioldm": "_encode_prompt"}.get(name, "encode_prompt")
    counted: list[object] = []
    original = getattr(owner, encode)

    def counting(self: Any, *given: Any, **named: Any) -> Any:
        counted.append(given)
        return original(self, *given, **named)

    monkeypatch.setattr(owner, encode, counting)
    expected = generators[name].embed_batch(PROMPTS, SAMPLES)
    counted.clear()
    lengths = (SAMPLES, 2 * SAMPLES)
    generator.expect(PROMPTS, lengths)
    for n_samples in lengths:
        texts = generator.embed_batch(PROMPTS, n_samples)
        generator.without_prompt(texts, n_samples)
    assert len(counted) == len(PROMPTS) + 1, "each of the prompts, and none"
    assert all(part is None for part in generator._text_encoders().values())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        other = generator.embed_batch(["a car"], SAMPLES)  # the encoders come back
    assert not all(torch.equal(other[key], expected[key][:1]) for key in other)
    for key, part in generator.embed_batch(PROMPTS, SAMPLES).items():
        torch.testing.assert_close(part, expected[key])


class Watched:
    """A part of a pipeline that remembers where it was sent."""

    def __init__(self, part: Any, sent: list[tuple[str, str]], name: str) -> None:
        self.part, self.sent, self.name = part, sent, name

    def to(self, device: Any) -> None:
        self.sent.append((self.name, str(device)))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.part, name)

    def __call__(self, *given: Any, **named: Any) -> Any:
        return self.part(*given, **named)


def test_where_memory_is_short_parts_take_turns_on_the_device(
    name: str, generators: dict[str, TextGenerator], monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline, network = generators[name].pipeline, generators[name].network
    decoders = [part for part in DECODERS if pipeline.components.get(part) is not None]
    sizes = [
        sum(parameter.nbytes for part in parts for parameter in part.parameters())
        for parts in ([network], [getattr(pipeline, part) for part in decoders])
    ]
    folder = Path(pipeline.name_or_path)
    size = ModelSize.of(meta_networks(folder, generators[name].family), generators[name].family)
    whole = [part for part in pipeline.components.values() if isinstance(part, torch.nn.Module)]
    assert size.total == sum(parameter.numel() for part in whole for parameter in part.parameters())

    def turns(free: float) -> bool:
        monkeypatch.setattr(text_memory, "free_device_bytes", lambda device: free / USABLE_SHARE)
        return size.takes_turns(4, torch.device("cpu"))

    assert not turns(sum(sizes) + 1) and turns(sum(sizes) - 1) and turns(max(sizes) + 1)
    with pytest.raises(ModelError, match="taking turns"):
        turns(max(sizes) - 1)

    sent: list[tuple[str, str]] = []
    watched = Watched(network, sent, "network")
    short = replace(generators[name], pipeline=copy.copy(pipeline), network=watched, takes_turns=True)
    parts = {part: Watched(getattr(pipeline, part), sent, part) for part in decoders}
    monkeypatch.setattr(type(pipeline), "components", parts)
    latent = short.encode(0.1 * torch.randn(1, SAMPLES, generator=torch.Generator().manual_seed(0)))
    out = short.sample(latent, SamplerConfig(2, 0.5), Condition(PROMPTS[:1]))
    short.decode(out, [0], 0)
    away = [("network", "cpu")]
    there = [(part, "cpu") for part in decoders]
    assert sent == [*away, *there, *there, *away, *away, *there]
    plain = generators[name]
    assert torch.equal(out, plain.sample(latent, SamplerConfig(2, 0.5), Condition(PROMPTS[:1])))


def test_more_memory_than_there_is_is_one_line(
    models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_memory, "memory_allowed_bytes", lambda: 1e5)
    with pytest.raises(ModelError, match="main memory") as caught:
        load_generator(str(models["audioldm"]), "cpu")
    assert caught.value.field == "model" and caught.value.hint


def test_gpus_without_bf16_run_text_models_in_fp16(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: False)
    assert load.automatic_precision(cuda, "StableAudioPipeline") == "fp16"
    assert load.automatic_precision(cuda, MEL_IMAGES) == "fp32"
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    assert load.automatic_precision(cuda, "StableAudioPipeline") == "bf16"


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_each_stage_in_half_precision_as_on_cuda_stays_near_full_precision(
    name: str, precision: str, generators: dict[str, TextGenerator], models: dict[str, Path]
) -> None:
    """Stage by stage, from the same input: what a network of random weights makes of a rounding is not bounded."""
    full, half = generators[name], load_generator(str(models[name]), "cpu", "fp32")
    for part in half.pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            part.to(DTYPES[precision])
    half = replace(half, precision=precision)
    sampler = SamplerConfig(3, 0.5)
    audio = 0.1 * torch.randn(2, SAMPLES, generator=torch.Generator().manual_seed(0))
    latent = full.encode(audio)
    noisy = full.invert(latent, sampler, Condition(PROMPTS))
    for stage in (
        lambda generator: generator.encode(audio),
        lambda generator: generator.invert(latent, sampler, Condition(PROMPTS)),
        lambda generator: generator.sample(noisy, sampler, Condition(PROMPTS, 2.0)),
        lambda generator: generator.decode(latent, [0, 1], 0),
    ):
        exact, rounded = stage(full), stage(half)
        assert rounded.dtype == torch.float32
        error = float((rounded - exact).norm() / exact.norm())
        assert 0 < error < 0.1, error
