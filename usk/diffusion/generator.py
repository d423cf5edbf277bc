"""The interface of all generators: what strategies, planning and rendering know of a diffusion model of audio.

Audio is encoded to clean latents, inverted to noisy latents at a strength, mixed, sampled back to clean latents, and decoded.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch

from usk.diffusion.interpolate import Scales
from usk.diffusion.pipeline import GeneratorInfo
from usk.diffusion.sampler import SamplerConfig
from usk.diffusion.schedule import Schedule
from usk.diffusion.solvers import Predictor, invert, sample, top_alpha


@dataclass(frozen=True)
class Condition:
    """What a batch of clips is conditioned on. A generator ignores what it does not support."""

    texts: Sequence[str] = ()  # a class name or a prompt for each clip; empty: unconditioned
    guidance: float = 1.0  # above 1 pushes away from the unconditioned prediction (arXiv 2207.12598)
    parents: torch.Tensor | None = None  # audio [parents, batch, samples], if `conditioned_on_audio`
    weights: torch.Tensor | None = None  # [batch, parents], each row sums to 1


@dataclass(kw_only=True)
class Generator(GeneratorInfo, ABC):
    """A diffusion model on its device. A clip does not depend on the other clips in its batch.

    Latents are [batch, *latent_shape]. Methods raise UsageError for settings that do not fit the model, and ModelError if the model
    fails.
    """

    model_id: str  # id@revision, as in the rows of the clips made
    device: torch.device
    schedule: Schedule
    precision: str = "fp32"  # of the network: or bf16, fp16; everything else is float32

    @property
    def trained_codec(self) -> bool:
        """Whether encoding and decoding use trained weights, too."""
        return True

    @abstractmethod
    def crop(self, n_samples: int) -> int:
        """Return the length of the shortest audio that the model can make and that holds `n_samples`, up to `longest_samples`.

        There are few such lengths, so that clips of similar lengths form batches.
        """

    @abstractmethod
    def latent_shape(self, n_samples: int) -> tuple[int, ...]:
        """Return the shape of one clip's latent, for a length that `crop` returns."""

    @abstractmethod
    def flop(self, n_samples: int) -> float:
        """Estimate the operations of evaluating the network on one clip of a length that `crop` returns.

        The estimate follows from the configuration alone, so that it is the same on every machine. It is 0 without weights.
        """

    @abstractmethod
    def encode(self, audio: torch.Tensor) -> torch.Tensor:
        """Encode audio [batch, samples], of a length that `crop` returns, to clean latents on the device."""

    @abstractmethod
    def decode(
        self, latent: torch.Tensor, seeds: Sequence[int], iterations: int, source: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Decode clean latents to audio [batch, samples] on the device, at any level.

        Args:
            seeds: of each clip's random numbers.
            iterations: of phase retrieval, for families that need it.
            source: sounds [batch, samples] whose phase and texture the clips take, for families whose latents have neither.
        """

    @abstractmethod
    def predictor(self, condition: Condition = Condition()) -> Predictor:
        """Return the function that evaluates the network on noisy latents of a batch, at a node of the schedule, in float32."""

    def compiled(self) -> Self:
        """Return the generator with its network compiled by torch, for families where this works."""
        return self

    def expect(self, texts: Iterable[str], lengths: Iterable[int]) -> None:
        """Announce the texts and lengths to come, so that text encoders can be freed. Other texts remain possible."""

    def _supported(self, sampler: SamplerConfig) -> SamplerConfig:
        """Return the sampler with the first-order solver for a distilled model, whose noise is fresh at every step."""
        return sampler if self.inverts else replace(sampler, solver="ddim")

    def scales(self, sampler: SamplerConfig) -> Scales:
        """Return the scales of signal and noise where `invert` ends and `sample` starts."""
        alpha = top_alpha(self._supported(sampler), self.schedule)
        return Scales(alpha**0.5, max(1 - alpha, 0.0) ** 0.5)

    def invert(
        self, clean: torch.Tensor, sampler: SamplerConfig, condition: Condition = Condition()
    ) -> torch.Tensor:
        """Return the noisy latents at the strength, from which `sample` returns to `clean`."""
        return invert(self.predictor(condition), clean, self.schedule, sampler)

    def sample(
        self,
        noisy: torch.Tensor,
        sampler: SamplerConfig,
        condition: Condition = Condition(),
        eta: float = 0.0,
        seeds: Sequence[int] = (),
    ) -> torch.Tensor:
        """Return clean latents from noisy ones at the strength. `eta` above 0 adds noise from each clip's seed."""
        eta = eta if self.inverts else math.inf
        return sample(self.predictor(condition), noisy, self.schedule, self._supported(sampler), eta, seeds)
