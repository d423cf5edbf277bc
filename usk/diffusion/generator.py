"""The generator protocol: all that strategies, planning and rendering know of a diffusion model of audio.

Audio is encoded to clean latents, inverted to noisy ones at a strength, mixed, sampled back to clean ones and decoded.
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
    """What a batch of clips is conditioned on; a generator uses what it supports and ignores the rest."""

    texts: Sequence[str] = ()  # a class name, or a prompt, for each clip; empty: none
    guidance: float = 1.0  # above 1 pushes away from the unconditioned prediction (arXiv 2207.12598)
    parents: torch.Tensor | None = None  # audio [parents, batch, samples], if `conditioned_on_audio`
    weights: torch.Tensor | None = None  # [batch, parents], each row sums to 1


@dataclass(kw_only=True)
class Generator(GeneratorInfo, ABC):
    """A diffusion model, ready on its device. A clip does not depend on the others in its batch.

    Latents are [batch, ...] with the shape of `latent_shape`. Methods raise UsageError for settings that do not fit the
    model and ModelError where it fails.
    """

    model_id: str  # id@revision, as it stands in the rows of the clips made
    device: torch.device
    schedule: Schedule
    precision: str = "fp32"  # or bf16, fp16: inside the network; everything else stays float32

    @property
    def trained_codec(self) -> bool:
        """Whether encoding and decoding alone, without the network that samples, take trained weights."""
        return True

    @abstractmethod
    def crop(self, n_samples: int) -> int:
        """The length in samples of the shortest audio that the model can make and that holds `n_samples`.

        Few lengths are used, so that clips of similar lengths make batches; at most `longest_samples`.
        """

    @abstractmethod
    def latent_shape(self, n_samples: int) -> tuple[int, ...]:
        """The shape of one clip's latent, for a length that `crop` returns."""

    @abstractmethod
    def flop(self, n_samples: int) -> float:
        """About the operations of one evaluation of the network on one clip, of a length that `crop` returns. 0 if it has no weights.

        The configuration alone decides it, so that it is the same on every machine.
        """

    @abstractmethod
    def cut(self, latent: torch.Tensor, n_samples: int) -> torch.Tensor:
        """The beginning of latents [..., *latent_shape], as long as audio of a length that `crop` returns."""

    @abstractmethod
    def encode(self, audio: torch.Tensor) -> torch.Tensor:
        """Audio [batch, samples], of a length that `crop` returns, to clean latents on the device."""

    @abstractmethod
    def decode(
        self, latent: torch.Tensor, seeds: Sequence[int], iterations: int, source: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Clean latents to audio [batch, samples] on the device, at any level.

        Args:
            seeds: one per clip, for whatever is drawn at random.
            iterations: of the phase retrieval, in families that need one.
            source: sounds [batch, samples] whose phase and fine structure the clips keep, in families whose latents have
                neither; then no phase is retrieved.
        """

    @abstractmethod
    def predictor(self, condition: Condition = Condition()) -> Predictor:
        """The network for one batch: its raw output for noisy latents and a node of the schedule, float32."""

    def compiled(self) -> Self:
        """The same generator with its network compiled by torch, in families where that is known to work."""
        return self

    def expect(self, texts: Iterable[str], lengths: Iterable[int]) -> None:
        """Which texts will condition clips of which lengths, so that what encodes them can be freed; others still may."""

    def own(self, sampler: SamplerConfig) -> SamplerConfig:
        """The first-order solver for distilled models, whose noise is fresh at every step."""
        return sampler if self.inverts else replace(sampler, solver="ddim")

    def scales(self, sampler: SamplerConfig) -> Scales:
        """How much signal and noise latents hold where `invert` ends and `sample` starts."""
        alpha = top_alpha(self.own(sampler), self.schedule)
        return Scales(alpha**0.5, max(1 - alpha, 0.0) ** 0.5)

    def invert(
        self, clean: torch.Tensor, sampler: SamplerConfig, condition: Condition = Condition()
    ) -> torch.Tensor:
        """The noisy latents at the strength from which `sample` comes back to `clean`."""
        return invert(self.predictor(condition), clean, self.schedule, sampler)

    def sample(
        self,
        noisy: torch.Tensor,
        sampler: SamplerConfig,
        condition: Condition = Condition(),
        eta: float = 0.0,
        seeds: Sequence[int] = (),
    ) -> torch.Tensor:
        """Clean latents from noisy ones at the strength; `eta` above 0 adds noise from each clip's seed on the way."""
        eta = eta if self.inverts else math.inf
        return sample(self.predictor(condition), noisy, self.schedule, self.own(sampler), eta, seeds)
