"""Features: their shape, how short clips are filled, and that clips do not depend on their neighbors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torchaudio

from usk.audio.features import (
    FIRST_SECOND,
    FOUR_SECONDS,
    FeatureSettings,
    features_of,
    fit_length,
    log_mel,
)
from usk.audio.mel import MelSettings
from usk.data.decode import decode_source
from usk.data.open import open_source
from usk.data.source import Source

SMALL = FeatureSettings(MelSettings(n_fft=1_024, hop_samples=512, n_mels=16, n_frames=32), repeat_short=True)


@pytest.fixture
def tones(tone_folder: Path) -> Source:
    return open_source(tone_folder)


def test_the_published_features_are_the_first_second() -> None:
    assert FIRST_SECOND.shape == (64, 44)
    assert FIRST_SECOND.repeat_short is False
    assert 3.9 < FOUR_SECONDS.mel.image_samples / FOUR_SECONDS.mel.sample_rate_hz < 4.1


def test_the_published_features_are_those_of_torchaudios_defaults() -> None:
    """The published loop hands its network the output of this very call, at a rate of 22,050 Hz."""
    published = torchaudio.transforms.MelSpectrogram(
        sample_rate=22_050, n_fft=1024, hop_length=512, n_mels=64
    )
    tone = torch.sin(torch.arange(22_050) * 0.2)
    audio = torch.stack((torch.randn(22_050, generator=torch.Generator().manual_seed(0)), tone, 0.01 * tone))
    assert FIRST_SECOND.n_samples == 22_050
    kept = FIRST_SECOND.of_audio(audio).half().float()  # as training does
    given = torch.pow(10.0, kept / 10)  # what `cnn` makes of it
    expected = published(audio)
    assert given.shape == expected.shape == (3, *FIRST_SECOND.shape)
    torch.testing.assert_close(given, expected, rtol=5e-3, atol=1e-6)


def test_long_clips_are_cut_and_short_ones_repeated_or_followed_by_silence() -> None:
    samples = np.arange(1, 4, dtype=np.float32)
    assert fit_length(samples, 2, repeat=True).tolist() == [1, 2]
    assert fit_length(samples, 7, repeat=True).tolist() == [1, 2, 3, 1, 2, 3, 1]
    assert fit_length(samples, 5, repeat=False).tolist() == [1, 2, 3, 0, 0]


def test_one_float16_image_a_clip(tones: Source) -> None:
    features = features_of(decode_source(tones), SMALL)
    assert features.shape == (24, 16, 32)
    assert features.dtype == torch.float16
    assert torch.isfinite(features).all()


def test_repeating_fills_the_image_that_silence_leaves_empty(tones: Source) -> None:
    decoded = decode_source(tones)
    repeated = features_of(decoded, SMALL).float()
    padded = features_of(decoded, FeatureSettings(SMALL.mel, repeat_short=False)).float()
    floor_db = padded.amax(dim=(1, 2)) - SMALL.mel.top_db
    torch.testing.assert_close(padded[:, :, -1], floor_db[:, None].expand(-1, 16), rtol=0, atol=0.1)
    assert (repeated[:, :, -1].amax(dim=1) > floor_db + 40).all()


def test_a_clip_does_not_depend_on_its_neighbors(tones: Source) -> None:
    decoded = decode_source(tones)
    features = features_of(decoded, SMALL)
    order = np.random.default_rng(0).permutation(len(decoded))
    torch.testing.assert_close(
        features_of(decoded.subset(order), SMALL), features[order.tolist()], rtol=0, atol=0.07
    )


def test_features_follow_the_frequency(tones: Source) -> None:
    loudest = features_of(decode_source(tones), SMALL).float().mean(dim=2).argmax(dim=1).numpy()
    of = np.array([tones.class_names[clip.label] for clip in tones.clips])
    assert loudest[of == "low"].max() < loudest[of == "middle"].min()
    assert loudest[of == "middle"].max() < loudest[of == "high"].min()


def test_silence_has_finite_features() -> None:
    assert torch.isfinite(log_mel(torch.zeros(2, SMALL.mel.image_samples), SMALL.mel)).all()
