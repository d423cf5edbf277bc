"""What a generator is conditioned on: classes, guidance, and the audio that conditional UNets attend to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from tests.sounds import write_wav
from usk.diffusion.audio_encoder import ENCODER_MEL, encode_audio, encoder_images
from usk.diffusion.generator import Condition
from usk.diffusion.load import load_generator
from usk.diffusion.mel_pipeline import MelGenerator, as_audiodiffusion
from usk.diffusion.sampler import SamplerConfig
from usk.diffusion.weights import quiet_libraries
from usk.errors import ModelError

Factory = Callable[..., Path]


@pytest.fixture
def plain(tiny_pipeline: Factory) -> MelGenerator:
    return load_generator(str(tiny_pipeline()), device="cpu", precision="fp32")


# --- on a class ---------------------------------------------------------------------------------------------

CLASSES = ("siren", "drill", "bark")


@pytest.fixture
def of_classes(tiny_pipeline: Factory) -> MelGenerator:
    return load_generator(str(tiny_pipeline(class_names=CLASSES)), device="cpu", precision="fp32")


def labeled(generator: MelGenerator, noisy: torch.Tensor, labels: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return generator.unet(noisy, 300, torch.tensor(labels)).sample


def close(ours: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(ours, expected, atol=2e-5, rtol=1e-4)


def test_a_class_is_given_by_its_label_and_an_unknown_one_as_none_given(of_classes: MelGenerator) -> None:
    assert of_classes.class_names == CLASSES and of_classes.takes_classes
    noisy = torch.randn(5, 1, 16, 32)
    output = of_classes.predictor(Condition(["bark", "siren", "whale", "drill", ""]))(noisy, 300)
    close(output, labeled(of_classes, noisy, [2, 0, 3, 1, 3]))
    close(of_classes.predictor()(noisy, 300), labeled(of_classes, noisy, [3] * 5))
    same = noisy[:1].expand(4, -1, -1, -1)
    each = of_classes.predictor(Condition([*CLASSES, "whale"]))(same, 300)
    assert all((each[i] - each[j]).abs().max() > 1e-3 for i in range(4) for j in range(i))


def test_guidance_pushes_away_from_what_no_class_would_give(of_classes: MelGenerator) -> None:
    noisy, names, labels = torch.randn(3, 1, 16, 32), ["drill", "whale", "siren"], [1, 3, 0]
    with_class, without = labeled(of_classes, noisy, labels), labeled(of_classes, noisy, [3] * 3)
    close(of_classes.predictor(Condition(names))(noisy, 300), with_class)
    for guidance in (2.5, 0.0, 0.3):
        expected = without + guidance * (with_class - without)
        close(of_classes.predictor(Condition(names, guidance))(noisy, 300), expected)
    assert (with_class - without)[[0, 2]].abs().max() > 1e-2


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_an_item_does_not_depend_on_its_batch(of_classes: MelGenerator, guidance: float) -> None:
    noisy, names = torch.randn(4, 1, 16, 32), ["bark", "whale", "siren", "bark"]
    together = of_classes.predictor(Condition(names, guidance))(noisy, 300)
    for row, name in enumerate(names):
        alone = of_classes.predictor(Condition([name], guidance))(noisy[row : row + 1], 300)
        close(alone, together[row : row + 1])


def test_guidance_evaluates_twice_only_where_a_class_is_known(
    of_classes: MelGenerator, plain: MelGenerator
) -> None:
    batches: list[int] = []
    for generator in (of_classes, plain):
        generator.unet.register_forward_pre_hook(lambda unet, args: batches.append(len(args[0])))
    noisy = torch.randn(2, 1, 16, 32)
    of_classes.predictor(Condition(["drill", "whale"], 2.0))(noisy, 300)
    of_classes.predictor(Condition(["whale", "whale"], 2.0))(noisy, 300)
    of_classes.predictor(Condition(["drill", "whale"]))(noisy, 300)
    guided = plain.predictor(Condition(["drill", "whale"], 2.0))(noisy, 300)
    assert batches == [4, 2, 2, 2]
    assert torch.equal(guided, plain.predictor()(noisy, 300))


def test_audiodiffusion_draws_with_a_class_conditional_unet_as_if_no_class_were_given(
    tiny_pipeline: Factory, of_classes: MelGenerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = as_audiodiffusion(tiny_pipeline(class_names=CLASSES))
    noisy = torch.randn(2, 1, 16, 32)
    unconditioned = of_classes.predictor()(noisy, 300)
    with torch.no_grad():
        for arguments in ((), (None,)):
            close(pipeline.unet(noisy, 300, *arguments).sample, unconditioned)
        close(pipeline.unet(sample=noisy, timestep=300).sample, unconditioned)
        labels = torch.tensor([1, 0])
        expected = labeled(of_classes, noisy, [1, 0])
        close(pipeline.unet(noisy, 300, labels).sample, expected)
        close(pipeline.unet(noisy, 300, class_labels=labels).sample, expected)
    drawn(pipeline, of_classes, monkeypatch)


def drawn(pipeline: Any, generator: MelGenerator, monkeypatch: pytest.MonkeyPatch, **options: Any) -> None:
    """The pipeline's own images are what our decoding makes of the same noise."""
    pipeline.set_progress_bar_config(disable=True)
    monkeypatch.setattr(pipeline.mel, "image_to_audio", lambda image: np.zeros(8))
    noise = torch.randn(2, *generator.image_shape)
    with quiet_libraries():
        images, _ = pipeline(batch_size=2, noise=noise.clone(), steps=4, return_dict=False, **options)
    sampled = generator.sample(noise, SamplerConfig(4, 1.0, "ddim"))
    ours = generator.to_image(sampled)[:, 0].numpy() * 127.5 + 127.5
    theirs = np.stack([np.asarray(image, dtype=np.float32) for image in images])
    assert np.abs(ours - theirs).max() < 0.51 and theirs.std() > 5


# --- on audio -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def conditional(tiny_pipeline: Factory) -> MelGenerator:
    return load_generator(str(tiny_pipeline(conditional=100)), device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def theirs(audio_encoder_folder: Path) -> Any:
    """audiodiffusion's own encoder."""
    with quiet_libraries():
        from audiodiffusion.audio_encoder import AudioEncoder

        return AudioEncoder.from_pretrained(
            audio_encoder_folder, torch_dtype=torch.float32, low_cpu_mem_usage=False
        )


def sounds(duration_s: float, sample_rate_hz: int, n: int = 2) -> np.ndarray:
    """Noise that swells over a tone: [n, samples], each its own."""
    rng = np.random.default_rng(round(duration_s * 10))
    t = np.arange(round(duration_s * sample_rate_hz)) / sample_rate_hz
    rows = [
        0.3 * np.sin(2 * np.pi * 200 * 3**row * t)
        + 0.2 * rng.standard_normal(len(t)) * np.sin(t * (row + 1)) ** 2
        for row in range(n)
    ]
    return np.stack(rows).astype(np.float32)


@pytest.mark.parametrize(
    ("duration_s", "rate_hz", "silent_s", "tolerance"),
    [
        (2.0, 22_050, None, 2e-3),
        (110_591 / 22_050, 22_050, None, 2e-3),
        (110_593 / 22_050, 22_050, None, 2e-3),
        (12.0, 22_050, None, 2e-3),
        (11.0, 22_050, (5.1, 11.0), 2e-3),
        (6.0, 8_000, None, 1e-2),
    ],
    ids=[
        "shorter than an image",
        "an image",
        "a little more",
        "two images and a rest",
        "a silent image",
        "resampled",
    ],
)
def test_encodings_are_those_of_audiodiffusions_encoder(
    conditional: MelGenerator, theirs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, duration_s: float,
    rate_hz: int, silent_s: tuple[float, float] | None, tolerance: float,
) -> None:  # fmt: skip
    if rate_hz == 22_050:
        monkeypatch.setattr(conditional, "mel", ENCODER_MEL)
    assert conditional.mel.sample_rate_hz == rate_hz
    audio = sounds(duration_s, rate_hz)
    if silent_s:
        audio[:, slice(*(round(second * rate_hz) for second in silent_s))] = 0.0
        audio[:, 110_591:] = 0.0
    files = [write_wav(tmp_path / f"{row}.wav", samples, rate_hz) for row, samples in enumerate(audio)]
    stored = np.stack([soundfile.read(file, dtype="float32")[0] for file in files])
    with quiet_libraries():
        expected = theirs.encode([str(file) for file in files])
    ours = encode_audio(conditional.encoder, torch.from_numpy(stored), rate_hz)
    assert ours.shape == (2, 1, 100) and ours.dtype == torch.float32
    apart = float((expected[0] - expected[1]).abs().max())
    assert float((ours[:, 0] - expected).abs().max()) < tolerance * apart


def test_the_encoder_sees_the_bytes_that_audiodiffusion_shows_it(theirs: Any) -> None:
    audio = sounds(110_591 / 22_050, 22_050)
    ours = encoder_images(torch.from_numpy(audio))
    for image, samples in zip(ours, audio, strict=True):
        theirs.mel.load_audio(raw_audio=samples)
        expected = np.asarray(theirs.mel.audio_slice_to_image(0))
        difference = np.abs(image[0].numpy() * 255 - expected)
        assert image.shape == (1, 96, 216) and difference.max() < 1.01 and (difference > 0.01).mean() < 1e-3
    assert torch.equal(encoder_images(torch.zeros(1, 110_591)), torch.ones(1, 1, 96, 216))


def test_a_clips_encoding_does_not_depend_on_its_batch(conditional: MelGenerator) -> None:
    audio = torch.from_numpy(sounds(1.0, 8_000, n=3))
    together = conditional.encodings(Condition(parents=audio[None]))
    assert together is not None
    for row in range(3):
        alone = conditional.encodings(Condition(parents=audio[None, row : row + 1]))
        torch.testing.assert_close(alone, together[row : row + 1], atol=1e-5, rtol=1e-4)


@pytest.fixture
def encodings(monkeypatch: pytest.MonkeyPatch) -> torch.Tensor:
    """What UNets attend to in this test, in place of their parents' encodings."""
    encodings = torch.randn(2, 1, 100, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(MelGenerator, "encodings", lambda self, condition: encodings)
    return encodings


def test_a_conditional_unet_attends_to_the_encodings_and_says_so_where_it_has_no_audio(
    conditional: MelGenerator, plain: MelGenerator, request: pytest.FixtureRequest
) -> None:
    assert conditional.conditioned_on_audio and not plain.conditioned_on_audio
    assert plain.encodings(Condition()) is None
    with pytest.raises(ModelError, match="is conditioned on audio") as raised:
        conditional.predictor()
    assert raised.value.field == "model"
    encodings, noisy = request.getfixturevalue("encodings"), torch.randn(2, 1, 16, 32)
    output = conditional.predictor()(noisy, 300)
    with torch.no_grad():
        close(output, conditional.unet(noisy, 300, encodings).sample)
        other = conditional.unet(noisy, 300, encodings.flip(0)).sample
    assert (output - other)[0].abs().max() > 1e-4
    assert torch.equal(conditional.predictor(Condition(["siren"] * 2, 3.0))(noisy, 300), output)


def test_a_unet_that_is_conditioned_on_both_a_class_and_audio(
    tiny_pipeline: Factory, encodings: torch.Tensor
) -> None:
    path = tiny_pipeline(conditional=100, class_names=CLASSES)
    generator = load_generator(str(path), device="cpu", precision="fp32")
    noisy = torch.randn(2, 1, 16, 32)

    def expected(unet: Any, labels: list[int]) -> torch.Tensor:
        with torch.no_grad():
            return unet(noisy, 300, encodings, class_labels=torch.tensor(labels)).sample

    with_class, without = (expected(generator.unet, labels) for labels in ([2, 3], [3, 3]))
    guided = generator.predictor(Condition(["bark", "whale"], 2.0))(noisy, 300)
    close(guided, without + 2.0 * (with_class - without))
    with torch.no_grad():
        close(as_audiodiffusion(path).unet(noisy, 300, encodings).sample, without)


def test_audiodiffusion_draws_with_a_conditional_unet(
    tiny_pipeline: Factory,
    conditional: MelGenerator,
    encodings: torch.Tensor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn(as_audiodiffusion(tiny_pipeline(conditional=100)), conditional, monkeypatch, encoding=encodings)
