"""Mel images against librosa's mel and audiodiffusion's own images."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.sounds import TINY_MEL, tone
from usk.audio.mel import (
    MelSettings,
    audio_to_image,
    image_to_power,
    mel_filterbank,
    mel_power,
    stack_padded,
    to_db,
)
from usk.diffusion.weights import quiet_libraries

SETTINGS = {
    "published": MelSettings(),
    "embedded": MelSettings(n_fft=2_048, hop_samples=552, n_mels=64, n_frames=160),
    "tiny": MelSettings.from_audiodiffusion(TINY_MEL),
}
each_settings = pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS.keys())


def sounds(settings: MelSettings) -> np.ndarray:
    """A tone, noise that swells, and a click in silence: float32 [3, image_samples]."""
    n, rate = settings.image_samples, settings.sample_rate_hz
    rng = np.random.default_rng(0)
    pure = tone(0.07 * rate, n / rate, rate)[:n]
    swell = (0.3 * rng.standard_normal(n) * np.linspace(0, 1, n) ** 2).astype(np.float32)
    click = np.zeros(n, np.float32)
    click[n // 2 : n // 2 + 40] = 0.9
    return np.stack([np.pad(pure, (0, n - len(pure))), swell, click])


@each_settings
def test_mel_equals_librosa(settings: MelSettings) -> None:
    import librosa

    audio = sounds(settings)
    ours = mel_power(torch.from_numpy(audio), settings).numpy()
    sizes = {"n_fft": settings.n_fft, "hop_length": settings.hop_samples, "n_mels": settings.n_mels}
    theirs = librosa.feature.melspectrogram(y=audio, sr=settings.sample_rate_hz, **sizes)
    assert ours.shape == (3, settings.n_mels, settings.n_frames)
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-5 * theirs.max())


@each_settings
def test_images_equal_audiodiffusion_within_its_eight_bits(settings: MelSettings) -> None:
    with quiet_libraries():
        from audiodiffusion.mel import Mel

        mel = Mel(**settings.to_audiodiffusion())
    audio = sounds(settings)
    images, _ = audio_to_image(torch.from_numpy(audio), settings)
    for samples, image in zip(audio, images, strict=True):
        mel.load_audio(raw_audio=samples)
        theirs = np.asarray(mel.audio_slice_to_image(0)).astype(np.float32) / 255 * 2 - 1
        assert image.shape == (1, *theirs.shape)
        assert np.abs(image[0].numpy() - theirs).max() < 1 / 255 + 1e-3


@each_settings
def test_the_reference_restores_the_level(settings: MelSettings) -> None:
    audio = torch.from_numpy(sounds(settings)) * torch.tensor([[1.0], [0.1], [0.01]])
    image, reference_db = audio_to_image(audio, settings)
    restored_db = to_db(image_to_power(image, settings)) + reference_db[:, None, None]
    exact_db = to_db(mel_power(audio, settings))
    above_floor = exact_db > reference_db[:, None, None] - settings.top_db + 0.1
    assert (restored_db - exact_db)[above_floor].abs().max() < 1e-3
    assert image.amax(dim=(1, 2, 3)).tolist() == [1.0, 1.0, 1.0] and image.min() >= -1


def test_loudness_moves_the_reference_and_not_the_image() -> None:
    settings = SETTINGS["tiny"]
    audio = torch.from_numpy(sounds(settings)[1:2])
    (loud, loud_db), (soft, soft_db) = audio_to_image(audio, settings), audio_to_image(audio / 10, settings)
    assert float(loud_db - soft_db) == pytest.approx(20, abs=1e-3)
    torch.testing.assert_close(soft, loud, atol=1e-3, rtol=0)


def test_a_silent_clip_is_black_and_leaves_its_neighbors_alone() -> None:
    settings = SETTINGS["tiny"]
    audio = torch.from_numpy(sounds(settings))
    image, reference_db = audio_to_image(torch.cat([torch.zeros(1, audio.shape[1]), audio]), settings)
    assert (image[0] == -1).all() and float(reference_db[0]) == pytest.approx(-100, abs=1e-3)
    torch.testing.assert_close(image[1:], audio_to_image(audio, settings)[0])


@pytest.mark.parametrize("n", [0, 1, 99, 100, 101, 500])
def test_clips_are_cut_or_padded_to_one_length(n: int) -> None:
    ramp = np.arange(1, n + 1, dtype=np.float64)
    stacked = stack_padded([ramp, ramp[:3]], 100)
    assert stacked.dtype == torch.float32 and stacked.shape == (2, 100)
    assert stacked[0].tolist() == [*range(1, min(n, 100) + 1), *[0] * (100 - min(n, 100))]
    assert stacked[1, 3:].abs().max() == 0


@each_settings
def test_settings_survive_the_way_through_a_pipeline_folder(settings: MelSettings) -> None:
    assert MelSettings.from_audiodiffusion(settings.to_audiodiffusion()) == settings
    assert MelSettings(**settings.as_dict()) == settings


def test_missing_settings_are_audiodiffusions_defaults() -> None:
    assert MelSettings.from_audiodiffusion({}) == MelSettings()
    assert mel_filterbank(MelSettings()).shape == (1_025, 256)
