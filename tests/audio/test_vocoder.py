"""Mel images back to audio."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from usk.audio.mel import MelSettings, audio_to_image, image_to_power, mel_filterbank, stack_padded
from usk.audio.vocoder import (
    filter_source,
    griffin_lim,
    image_to_audio,
    log_mel_error_db,
    mel_to_linear_power,
    spread_over_bins,
)
from usk.data import demo_corpus

SETTINGS = MelSettings(n_fft=2_048, hop_samples=552, n_mels=64, n_frames=40)


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    """Four sounds with texture, one second each."""
    classes = ("dog_bark", "jackhammer", "siren", "street_music")
    corpus = demo_corpus.corpus()
    clips = [next(c for c in corpus if demo_corpus.CLASSES[c.label] == name) for name in classes]
    sounds = [demo_corpus.render(clip) for clip in clips]
    return audio_to_image(stack_padded(sounds, SETTINGS.image_samples), SETTINGS)[0]


def round_trip_error_db(images: torch.Tensor, audio: torch.Tensor) -> float:
    again = audio_to_image(stack_padded(list(audio.numpy()), SETTINGS.image_samples), SETTINGS)[0]
    return float(log_mel_error_db(images, again, SETTINGS).mean())


def test_the_round_trip_is_as_close_as_librosas(images: torch.Tensor) -> None:
    import librosa

    audio = image_to_audio(images, SETTINGS, seeds=[1, 2, 3, 4])
    assert audio.shape == (4, (SETTINGS.n_frames - 1) * SETTINGS.hop_samples)
    ours_db = round_trip_error_db(images, audio)
    sizes = {"sr": SETTINGS.sample_rate_hz, "n_fft": SETTINGS.n_fft, "hop_length": SETTINGS.hop_samples}
    powers = image_to_power(images, SETTINGS).numpy()
    theirs = np.stack([librosa.feature.inverse.mel_to_audio(power, n_iter=32, **sizes) for power in powers])
    assert ours_db < 1.5
    assert ours_db < round_trip_error_db(images, torch.from_numpy(theirs)) + 0.25


def test_the_loudest_bin_comes_back_at_zero_db(images: torch.Tensor) -> None:
    audio = image_to_audio(images, SETTINGS, seeds=range(4))
    _, reference_db = audio_to_image(stack_padded(list(audio.numpy()), SETTINGS.image_samples), SETTINGS)
    assert reference_db.abs().max() < 3


def test_a_clip_depends_on_its_seed_and_not_on_its_neighbors(images: torch.Tensor) -> None:
    together = image_to_audio(images, SETTINGS, seeds=[1, 2, 3, 4])
    alone = image_to_audio(images[2:3], SETTINGS, seeds=[3])
    torch.testing.assert_close(together[2:3], alone, atol=1e-4, rtol=1e-3)
    other = image_to_audio(images[2:3], SETTINGS, seeds=[4])
    assert (other - alone).abs().max() > 0.01
    assert torch.equal(image_to_audio(images[2:3], SETTINGS, seeds=[3]), alone)


@pytest.mark.parametrize("value", [-1.0, 1.0, 5.0, -5.0], ids=["silent", "full", "above", "below"])
def test_flat_images_give_finite_audio(value: float) -> None:
    audio = image_to_audio(torch.full((2, 1, 64, 40), value), SETTINGS, seeds=[0, 1])
    assert torch.isfinite(audio).all()
    if value < 0:
        assert audio.abs().max() < 1e-2


def test_a_silent_image_beside_a_sound_changes_nothing(images: torch.Tensor) -> None:
    pair = torch.cat([torch.full_like(images[:1], -1.0), images[:1]])
    together, alone = (
        image_to_audio(of, SETTINGS, seeds=seeds) for of, seeds in ((pair, [5, 6]), (images[:1], [6]))
    )
    torch.testing.assert_close(together[1:], alone, atol=1e-4, rtol=1e-3)


def test_the_linear_spectrum_has_the_given_mel_and_no_negative_power(images: torch.Tensor) -> None:
    mel = image_to_power(images, SETTINGS)
    linear = mel_to_linear_power(mel, SETTINGS, n_updates=30)
    assert linear.shape == (4, 1_025, 40) and (linear >= 0).all()
    filters = mel_filterbank(SETTINGS)
    error_db = (10 * ((filters.T @ linear) / mel).log10()).abs()
    assert error_db.median() < 0.1 and error_db.mean() < 1.0
    assert (linear[:, filters.sum(dim=1) == 0] == 0).all()


def test_phase_retrieval_comes_closer_with_iterations(images: torch.Tensor) -> None:
    magnitude = mel_to_linear_power(image_to_power(images[:2], SETTINGS), SETTINGS).sqrt()
    window = torch.hann_window(SETTINGS.n_fft)

    def error(n_iterations: int) -> float:
        audio = griffin_lim(magnitude, SETTINGS, [1, 2], n_iterations)
        sizes = {"n_fft": SETTINGS.n_fft, "hop_length": SETTINGS.hop_samples, "window": window}
        spectrum = torch.stft(audio, **sizes, pad_mode="constant", return_complex=True)
        return float((spectrum.abs() - magnitude).norm() / magnitude.norm())

    assert error(0) > error(4) > error(32)


def test_the_error_is_in_decibels() -> None:
    dark, light = torch.full((2, 1, 4, 4), -1.0), torch.full((2, 1, 4, 4), -1.0)
    light[1] += 0.5
    assert log_mel_error_db(dark, light, SETTINGS).tolist() == [0.0, 20.0]


@pytest.fixture(scope="module")
def sounds() -> torch.Tensor:
    """Two sounds as long as an image, [2, samples]."""
    clips = demo_corpus.corpus()
    chosen = [clips[0], next(clip for clip in clips if clip.label != clips[0].label)]
    return stack_padded([demo_corpus.render(clip) for clip in chosen], SETTINGS.image_samples)


@pytest.mark.parametrize(("smooth_s", "smooth_mels"), [(0.0, 0.0), (0.1, 2.0)])
def test_a_sound_filtered_towards_its_own_image_comes_back(
    sounds: torch.Tensor, smooth_s: float, smooth_mels: float
) -> None:
    same = filter_source(sounds, audio_to_image(sounds, SETTINGS)[0], SETTINGS, smooth_s, smooth_mels)
    assert same.shape == sounds.shape
    assert torch.allclose(same, sounds, atol=1e-5)


def test_a_filtered_sound_takes_the_wanted_mel_up_to_its_level(sounds: torch.Tensor) -> None:
    images = audio_to_image(sounds, SETTINGS)[0]
    softer = torch.linspace(-0.25, 0.0, SETTINGS.n_mels)  # by up to 10 dB, the lower the more
    wanted = images + softer[:, None]
    made = audio_to_image(filter_source(sounds, wanted, SETTINGS), SETTINGS)[0]
    for image, other, own in zip(made, wanted, images, strict=True):
        error_db = ((image - other) * SETTINGS.top_db / 2)[own > -0.5]  # within 60 dB of the loudest
        assert (error_db - error_db.median()).abs().mean() < 0.5


def test_a_filtered_sound_does_not_burst_at_its_end() -> None:
    """With frames half a window apart, the last samples lie in one window alone, which is almost zero there."""
    settings = MelSettings(n_fft=1_024, hop_samples=512, n_mels=32, n_frames=16)
    noise = torch.randn(2, settings.image_samples, generator=torch.Generator().manual_seed(0))
    noise[1] *= torch.linspace(0, 1, settings.image_samples)
    made = filter_source(noise, audio_to_image(noise.flip(0), settings)[0], settings).abs()
    assert made[:, -512:].max() < 2 * made[:, :-512].max()


def test_a_smoothed_gain_leaves_fine_structure_to_the_source(sounds: torch.Tensor) -> None:
    images = audio_to_image(sounds, SETTINGS)[0]
    flat = images.mean(dim=3, keepdim=True).expand_as(images)

    def change(audio: torch.Tensor) -> float:
        return float(audio_to_image(audio, SETTINGS)[0].diff(dim=3).abs().mean())

    assert change(filter_source(sounds, flat, SETTINGS)) < 0.7 * change(sounds)
    assert change(filter_source(sounds, flat, SETTINGS, 0.1, 2.0)) > 0.8 * change(sounds)


def test_silence_stays_silent_and_what_is_wanted_of_it_is_limited(sounds: torch.Tensor) -> None:
    silent = torch.zeros_like(sounds)
    assert not filter_source(silent, audio_to_image(sounds, SETTINGS)[0], SETTINGS).any()
    towards_silence = filter_source(sounds, audio_to_image(silent, SETTINGS)[0], SETTINGS)
    assert torch.isfinite(towards_silence).all()
    assert towards_silence.square().sum() < 0.01 * sounds.square().sum()


def test_a_filtered_clip_does_not_depend_on_its_batch(sounds: torch.Tensor) -> None:
    wanted = audio_to_image(sounds.flip(0), SETTINGS)[0]
    together = filter_source(sounds, wanted, SETTINGS, 0.1, 2.0)
    for row in range(len(sounds)):
        alone = filter_source(sounds[row : row + 1], wanted[row : row + 1], SETTINGS, 0.1, 2.0)
        assert torch.allclose(alone[0], together[row], atol=1e-6)


def test_what_mels_count_in_bins_sums_to_one() -> None:
    spread = spread_over_bins(SETTINGS)
    assert spread.shape == (SETTINGS.n_fft // 2 + 1, SETTINGS.n_mels)
    assert torch.allclose(spread.sum(dim=1), torch.ones(len(spread)), atol=1e-5)
