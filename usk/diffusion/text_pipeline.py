"""Text-to-audio pipelines of diffusers as generators: what all families share.

Text encoders stay on the CPU, encode each prompt once and are freed once all that are expected are encoded; the network that
denoises, the VAE and the vocoder are on the device, or take turns there where memory is short. Latents are variance-preserving, see
`usk.diffusion.continuous`.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch.nn.utils.rnn import pad_sequence

from usk.device import autocast
from usk.diffusion.continuous import ContinuousSchedule
from usk.diffusion.generator import Condition, Generator
from usk.diffusion.schedule import NoiseSchedule, Schedule
from usk.diffusion.solvers import Predictor
from usk.errors import UsageError

CROP_S = 1.0  # clips are made at whole multiples of this, or as long as the model can

DECODERS = ("vae", "vocoder")
TEXT_ENCODERS = (
    "text_encoder", "text_encoder_2", "projection_model", "language_model", "duration_embedder",
)  # fmt: skip

Embedding = dict[str, torch.Tensor]
"""What a prompt of one length becomes: tensors [1, ...] by the name that the family's network takes them under."""


@dataclass(kw_only=True)
class TextGenerator(Generator):
    """A text-to-audio model. Latents are [batch, ...] with time along `time_axis`."""

    pipeline: Any  # of diffusers
    hop_samples: int  # of audio for one step of the latents along time
    time_multiple: int = 1  # lengths of latents are multiples of this
    negative_prompt: str = ""
    embeddings: dict[tuple[str, int], Embedding] = field(default_factory=dict)
    encoded: dict[str, Any] = field(default_factory=dict)  # what the text encoders made of each prompt
    expected: frozenset[tuple[str, int]] = frozenset()  # prompts and lengths of audio
    network: Any = None  # that denoises
    reread: Callable[[dict[str, Any]], Any] | None = None  # the pipeline again, with the components given
    # The network, and the VAE with its vocoder: one of them at a time is on the device
    takes_turns: bool = False
    _there: str = ""  # which
    most_tokens: ClassVar[int] = 512  # of a prompt, whatever its tokenizer says
    not_loaded: ClassVar[tuple[str, ...]] = ()  # components that `complete` adds
    none_is_zero: ClassVar[bool] = False  # no prompt is a context of zeros, and not the empty prompt's

    @staticmethod
    def complete(pipeline: Any, folder: Path) -> None:
        """Put right what the pipeline in `folder` lacks once it is loaded."""

    @staticmethod
    def schedule_of(config: dict[str, Any]) -> Schedule:
        """The noise schedule of its scheduler. Raises ModelError for one whose process cannot be inverted."""
        return NoiseSchedule.from_config({**config, "_class_name": "DDIMScheduler", "clip_sample": False})

    @abstractmethod
    def embed(self, prompt: str, n_samples: int) -> Embedding:
        """Encode a prompt for audio of so many samples, on the CPU."""

    def refuse_long(self, prompts: Iterable[str]) -> None:
        """Raise UsageError for a prompt whose end the text encoders would not see."""
        for name, tokenizer in self.pipeline.components.items():
            if tokenizer is None or not name.startswith("tokenizer"):
                continue
            most = min(tokenizer.model_max_length, self.most_tokens)
            for prompt in prompts:
                if (n_tokens := len(tokenizer(prompt, verbose=False)["input_ids"])) > most:
                    raise UsageError(
                        f"has {n_tokens} tokens, and the model reads the first {most}", field="prompt",
                        value=f"{prompt:.60}...", hint="Write a shorter prompt.",
                    )  # fmt: skip

    def once(self, prompt: str, encode: Callable[[], Any]) -> Any:
        """What the text encoders make of a prompt, whatever the lengths that it is embedded for."""
        if prompt not in self.encoded:
            self.encoded[prompt] = encode()
        return self.encoded[prompt]

    @abstractmethod
    def output(self, own: torch.Tensor, nodes: torch.Tensor, texts: Embedding) -> torch.Tensor:
        """The network's output for noisy latents of the family's own scale, each at its node [batch]: with a continuous
        schedule the velocity, else what the schedule says."""

    @abstractmethod
    def to_latent(self, audio: torch.Tensor) -> torch.Tensor:
        """Audio [batch, samples] to clean latents."""

    @abstractmethod
    def to_audio(self, latent: torch.Tensor) -> torch.Tensor:
        """Clean latents to audio [batch, samples]."""

    def denoise(self, noisy: torch.Tensor, node: float, texts: Embedding) -> torch.Tensor:
        """What solvers work with, for variance-preserving latents: x_0 with a continuous schedule, else the network's output."""
        nodes = torch.full((len(noisy),), node, device=noisy.device)
        if not isinstance(self.schedule, ContinuousSchedule):
            return self.output(noisy, nodes, texts).float()
        signal, noise = self.schedule.parts(nodes[0])
        own = torch.hypot(signal, noise) * noisy
        return self.schedule.origin(own, self.output(own, nodes, texts).float(), nodes[0])

    @property
    def time_axis(self) -> int:
        return -1

    @property
    def dtype(self) -> torch.dtype:
        """Of the network's weights."""
        return next(self.network.parameters()).dtype

    def without(self, texts: Embedding, n_samples: int) -> Embedding:
        """What the network is given for no prompt, in guidance: the negative prompt's embedding."""
        if self.none_is_zero and not self.negative_prompt:
            return {**texts, "context": torch.zeros_like(texts["context"])}
        return self.texts([self.negative_prompt] * _batch(texts), n_samples)

    def crop(self, n_samples: int) -> int:
        """A whole multiple of `CROP_S`, rounded up to whole latent steps."""
        unit = self.hop_samples * self.time_multiple
        step = math.ceil(CROP_S * self.sample_rate_hz / unit) * unit
        return min(math.ceil(n_samples / step) * step, self.longest_samples // unit * unit)

    def flop(self, n_samples: int) -> float:
        """Of transformers, whose weights all meet every position of the latents; UNets take a tenth of it."""
        weights = sum(parameter.numel() for parameter in self.network.parameters())
        return 2.0 * weights * math.prod(self.latent_shape(n_samples)[1:])

    def cut(self, latent: torch.Tensor, n_samples: int) -> torch.Tensor:
        return latent.narrow(self.time_axis, 0, n_samples // self.hop_samples)

    def encode(self, audio: torch.Tensor) -> torch.Tensor:
        self.bring("vae")
        with torch.no_grad():
            return self.to_latent(audio.to(self.device)).float()

    def decode(
        self, latent: torch.Tensor, seeds: Sequence[int], iterations: int, source: torch.Tensor | None = None
    ) -> torch.Tensor:
        self.bring("vae")
        with torch.no_grad():
            return self.to_audio(latent).float()

    def predictor(self, condition: Condition = Condition()) -> Predictor:
        """The network for one batch. Guidance takes a second evaluation (arXiv 2207.12598)."""

        def predict(noisy: torch.Tensor, node: float) -> torch.Tensor:
            n_samples = noisy.shape[self.time_axis] * self.hop_samples
            self.bring("network")
            texts = self.texts(list(condition.texts) or [self.negative_prompt] * len(noisy), n_samples)
            with torch.no_grad(), autocast(self.device, self.precision):
                output = self.denoise(noisy, node, texts)
                if condition.guidance != 1.0 and condition.texts:
                    without = self.denoise(noisy, node, self.without(texts, n_samples))
                    output = without + condition.guidance * (output - without)
            return output

        return predict

    def texts(self, prompts: Sequence[str], n_samples: int) -> Embedding:
        """The embeddings of a batch of prompts, padded to the longest, on the device."""
        wanted = {(prompt, n_samples) for prompt in prompts}
        if not wanted <= self.embeddings.keys():
            self._encode_texts((wanted | self.expected) - self.embeddings.keys())
        each = [self.embeddings[prompt, n_samples] for prompt in prompts]
        return {name: _stacked([one[name] for one in each]).to(self.device) for name in each[0]}

    def expect(self, texts: Iterable[str], lengths: Iterable[int]) -> None:
        lengths = tuple(lengths)
        self.expected = frozenset((text, n) for text in {*texts, self.negative_prompt} for n in lengths)

    def _encode_texts(self, wanted: Iterable[tuple[str, int]]) -> None:
        """Fill `embeddings`; where all that is expected is encoded, free the text encoders. Others come back for more."""
        parts = self._text_encoders()
        if self.reread is not None and any(part is None for part in parts.values()):
            rest = {name: part for name, part in self.pipeline.components.items() if part is not None}
            self.pipeline = self.reread(rest)
        with torch.no_grad():
            for prompt, n_samples in sorted(wanted):
                self.embeddings[prompt, n_samples] = self.embed(prompt, n_samples)
        if self.expected and self.reread is not None:
            for name in parts:
                setattr(self.pipeline, name, None)

    def _text_encoders(self) -> dict[str, Any]:
        """The networks that only prompts go through, by name; None where they are freed."""
        return {
            name: part
            for name, part in self.pipeline.components.items()
            if name in TEXT_ENCODERS and (part is None or isinstance(part, torch.nn.Module))
        }

    def bring(self, what: str) -> None:
        """Where components take turns, have the VAE (with its vocoder) or the network on the device, and not the other."""
        if not self.takes_turns or self._there == what:
            return
        decoders = [part for name in DECODERS if (part := self.pipeline.components.get(name)) is not None]
        coming, leaving = (decoders, [self.network]) if what == "vae" else ([self.network], decoders)
        for part in leaving:
            part.to("cpu")
        for part in coming:
            part.to(self.device)
        self._there = what


def _batch(texts: Embedding) -> int:
    return len(next(iter(texts.values())))


def _stacked(rows: Sequence[torch.Tensor]) -> torch.Tensor:
    """Tensors [1, length, ...] as one batch, padded with zeros (False) to the longest."""
    if rows[0].dim() < 2:
        return torch.cat(list(rows))
    return pad_sequence([row[0] for row in rows], batch_first=True)
