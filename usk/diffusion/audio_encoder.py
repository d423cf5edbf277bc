"""Encode audio for conditional audio-diffusion models, with audiodiffusion's audio encoder.

The encoder (`audiodiffusion.audio_encoder.AudioEncoder`) takes mel images of five seconds. The encoding of a longer clip is the
mean over its images.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from usk.audio.mel import SILENCE_POWER, MelSettings, audio_to_image, to_db
from usk.data.decode import resampled

ENCODER_MEL = MelSettings(
    sample_rate_hz=22_050, n_fft=2_048, hop_samples=512, n_mels=96, n_frames=216, top_db=80.0
)
ENCODER_SIZE = 100  # numbers in an encoding


def encode_audio(encoder: Any, audio: torch.Tensor, sample_rate_hz: int) -> torch.Tensor:
    """Encode clips [batch, samples] at `sample_rate_hz`: float32 [batch, 1, 100], on the encoder's device.

    The result equals `AudioEncoder.encode` with `pool="average"` for files with the same samples. Shorter clips are padded with
    silence to one image. Samples after the last whole image are ignored.
    """
    device = next(encoder.parameters()).device
    if sample_rate_hz != (rate_hz := ENCODER_MEL.sample_rate_hz):
        clips = [resampled(clip, sample_rate_hz, rate_hz) for clip in audio.float().cpu().numpy()]
        audio = torch.from_numpy(np.stack(clips))
    audio = audio.float().to(device)
    length = ENCODER_MEL.image_samples
    n_images = max(audio.shape[1] // length, 1)
    audio = torch.nn.functional.pad(audio, (0, max(n_images * length - audio.shape[1], 0)))
    images = encoder_images(audio[:, : n_images * length].reshape(-1, length))
    with torch.no_grad():
        return encoder(images).reshape(len(audio), n_images, ENCODER_SIZE).mean(dim=1, keepdim=True)


def encoder_images(audio: torch.Tensor) -> torch.Tensor:
    """Turn audio [batch, image samples] into the encoder's inputs: [batch, 1, 96, 216] in whole 255ths of [0, 1].

    A silent image is 1 everywhere, since its loudest value is the floor itself.
    """
    image, reference_db = audio_to_image(audio, ENCODER_MEL)
    image[reference_db <= to_db(torch.tensor(SILENCE_POWER, device=audio.device))] = 1.0
    return ((image + 1.0) / 2.0 * 255.0 + 0.5).floor() / 255.0
