"""The published recipe, written with the audiodiffusion package itself: what usk is measured against.

For each pair: both clips to mel images, each encoded by itself in fp32, slerp at one half, decoded, and librosa's mel
inversion. audiodiffusion's `encode` takes the network's output for noise; a v-prediction network is therefore shown to
it as one that predicts noise, the same weights and the same work.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from usk.diffusion.mel_pipeline import as_audiodiffusion
from usk.diffusion.schedule import NoiseSchedule
from usk.diffusion.weights import quiet_libraries

STEPS = 50


@dataclass
class Recipe:
    """audiodiffusion's pipeline on one device."""

    pipe: Any
    evaluations: int = 0

    @classmethod
    def load(cls, folder: str | os.PathLike[str], device: torch.device) -> Recipe:
        with quiet_libraries():
            from diffusers import DDIMScheduler  # type: ignore[attr-defined,unused-ignore]

            pipe = as_audiodiffusion(folder)
            schedule = NoiseSchedule.from_config(dict(pipe.scheduler.config))
            pipe.scheduler = DDIMScheduler.from_config(dict(pipe.scheduler.config), prediction_type="epsilon")
            pipe.to(device)
            pipe.set_progress_bar_config(disable=True)
        recipe = cls(pipe)

        def as_noise(_: Any, arguments: tuple[Any, ...], output: Any) -> Any:
            recipe.evaluations += 1
            sample, timestep = arguments[0], int(arguments[1])
            output.sample = schedule.epsilon(output.sample, sample, schedule.alpha(timestep))
            return output

        pipe.unet.register_forward_hook(as_noise)
        return recipe

    def clip(self, first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """One synthetic clip of two parents: its audio, and its mel image [n_mels, n_frames] in [-1, 1]."""
        with quiet_libraries():
            noises = [self.pipe.encode([self._image(audio)], steps=STEPS) for audio in (first, second)]
            mixed = self.pipe.slerp(*noises, 0.5)
            images, (_, audio) = self.pipe(noise=mixed, steps=STEPS, return_dict=False)
        return np.asarray(audio[0]), np.asarray(images[0], dtype=np.float32) / 127.5 - 1

    def _image(self, audio: np.ndarray) -> Any:
        self.pipe.mel.load_audio(raw_audio=audio)
        return self.pipe.mel.audio_slice_to_image(0)
