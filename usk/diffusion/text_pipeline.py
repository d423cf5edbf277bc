"""The base class of text-to-audio generators, which run pipelines of diffusers.

Text encoders stay on the CPU. They encode each prompt once, and are freed when all expected prompts are encoded. The network that
denoises, the VAE and the vocoder are on the device. If they do not fit there together, they take turns. Latents are
variance-preserving, see `usk.diffusion.continuous`.
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

CROP_S = 1.0  # clips are made at multiples of this, or as long as the model can

DECODERS = ("vae", "vocoder")
TEXT_ENCODERS = (
    "text_encoder", "text_encoder_2", "projection_model", "language_model", "duration_embedder",
)  # fmt: skip

Embedding = dict[str, torch.Tensor]
"""A prompt's embedding for one length of audio: tensors [1, ...] by name."""


@dataclass(kw_only=True)
class TextGenerator(Generator):
    """A text-to-audio model. Latents are [batch, ...] with time along `time_axis`."""

    pipeline: Any = field(repr=False)  # of diffusers
    network: Any = field(repr=False)  # the component that denoises
    hop_samples: int  # samples of audio in one step of the latents along time
    negative_prompt: str = ""
    embeddings: dict[tuple[str, int], Embedding] = field(default_factory=dict, repr=False)
    encoded: dict[str, Any] = field(
        default_factory=dict, repr=False
    )  # the text encoders' output for each prompt
    expected: frozenset[tuple[str, int]] = frozenset()  # prompts and lengths to come
    # Reads the pipeline again, given the components that are still loaded
    reread: Callable[[dict[str, Any]], Any] | None = None
    takes_turns: bool = False  # whether only the network or the decoders are on the device at a time
    _on_device: str = ""  # if they take turns: "network" or "vae"
    most_tokens: ClassVar[int] = 512  # of a prompt, if its tokenizer allows more
    not_loaded: ClassVar[tuple[str, ...]] = ()  # components that `complete` adds
    none_is_zero: ClassVar[bool] = False  # without a prompt, the context is zeros, not the empty prompt's

    @staticmethod
    def complete(pipeline: Any, folder: Path) -> None:
        """Add or replace components of the pipeline that was loaded from `folder`."""

    @staticmethod
    def schedule_of(config: dict[str, Any]) -> Schedule:
        """Return the noise schedule of a scheduler's config. Raises ModelError if its process cannot be inverted."""
        return NoiseSchedule.from_config({**config, "_class_name": "DDIMScheduler", "clip_sample": False})

    # --- what families define ------------------------------------------------------------------------------------

    @abstractmethod
    def embed(self, prompt: str, n_samples: int) -> Embedding:
        """Embed a prompt for audio of `n_samples`, on the CPU."""

    @abstractmethod
    def output(self, scaled: torch.Tensor, nodes: torch.Tensor, texts: Embedding) -> torch.Tensor:
        """Evaluate the network on latents in its own scale, each at its node [batch].

        With a continuous schedule the output is a velocity, otherwise what the schedule's `prediction_type` says.
        """

    @abstractmethod
    def to_latent(self, audio: torch.Tensor) -> torch.Tensor:
        """Encode audio [batch, samples] to clean latents."""

    @abstractmethod
    def to_audio(self, latent: torch.Tensor) -> torch.Tensor:
        """Decode clean latents to audio [batch, samples]."""

    @property
    def time_axis(self) -> int:
        return -1

    # --- audio and latents ---------------------------------------------------------------------------------------

    @property
    def dtype(self) -> torch.dtype:
        """Return the type of the network's weights."""
        return next(self.network.parameters()).dtype

    def crop(self, n_samples: int) -> int:
        """Return a multiple of `CROP_S`, rounded up to whole latent steps."""
        step = math.ceil(CROP_S * self.sample_rate_hz / self.hop_samples) * self.hop_samples
        longest = self.longest_samples // self.hop_samples * self.hop_samples
        return min(math.ceil(n_samples / step) * step, longest)

    def flop(self, n_samples: int) -> float:
        """Count two operations for each weight and position, as in transformers. UNets need about a tenth of this."""
        weights = sum(parameter.numel() for parameter in self.network.parameters())
        return 2.0 * weights * math.prod(self.latent_shape(n_samples)[1:])

    def encode(self, audio: torch.Tensor) -> torch.Tensor:
        self.bring_to_device("vae")
        with torch.no_grad():
            return self.to_latent(audio.to(self.device)).float()

    def decode(
        self, latent: torch.Tensor, seeds: Sequence[int], iterations: int, source: torch.Tensor | None = None
    ) -> torch.Tensor:
        self.bring_to_device("vae")
        with torch.no_grad():
            return self.to_audio(latent).float()

    def bring_to_device(self, what: str) -> None:
        """If components take turns, move the "network" or the "vae" (with its vocoder) to the device, and the other away."""
        if not self.takes_turns or self._on_device == what:
            return
        decoders = [part for name in DECODERS if (part := self.pipeline.components.get(name)) is not None]
        coming, leaving = (decoders, [self.network]) if what == "vae" else ([self.network], decoders)
        for part in leaving:
            part.to("cpu")
        for part in coming:
            part.to(self.device)
        self._on_device = what

    # --- denoising -----------------------------------------------------------------------------------------------

    def predictor(self, condition: Condition = Condition()) -> Predictor:
        """Return the function that evaluates the network. Guidance takes a second evaluation (arXiv 2207.12598)."""

        def predict(noisy: torch.Tensor, node: float) -> torch.Tensor:
            n_samples = noisy.shape[self.time_axis] * self.hop_samples
            self.bring_to_device("network")
            texts = self.embed_batch(list(condition.texts) or [self.negative_prompt] * len(noisy), n_samples)
            if not condition.texts:
                texts = self.without_prompt(texts, n_samples)
            with torch.no_grad(), autocast(self.device, self.precision):
                output = self.denoise(noisy, node, texts)
                if condition.guidance != 1.0 and condition.texts:
                    without = self.denoise(noisy, node, self.without_prompt(texts, n_samples))
                    output = without + condition.guidance * (output - without)
            return output

        return predict

    def denoise(self, noisy: torch.Tensor, node: float, texts: Embedding) -> torch.Tensor:
        """Evaluate the network on variance-preserving latents. With a continuous schedule, return x_0 for the solvers."""
        nodes = torch.full((len(noisy),), node, device=noisy.device)
        if not isinstance(self.schedule, ContinuousSchedule):
            return self.output(noisy, nodes, texts).float()
        signal_scale, noise_scale = self.schedule.parts(nodes[0])
        scaled = torch.hypot(signal_scale, noise_scale) * noisy
        return self.schedule.origin(scaled, self.output(scaled, nodes, texts).float(), nodes[0])

    # --- prompts -------------------------------------------------------------------------------------------------

    def require_short(self, prompts: Iterable[str]) -> None:
        """Raise UsageError for a prompt with more tokens than the text encoders read."""
        for name, tokenizer in self.pipeline.components.items():
            if tokenizer is None or not name.startswith("tokenizer"):
                continue
            most = min(tokenizer.model_max_length, self.most_tokens)
            for prompt in prompts:
                if (n_tokens := len(tokenizer(prompt, verbose=False)["input_ids"])) > most:
                    raise UsageError(
                        f"has {n_tokens} tokens, and the model reads the first {most}",
                        field="prompt",
                        value=f"{prompt:.60}...",
                        hint="Write a shorter prompt.",
                    )

    def encode_once(self, prompt: str, encode: Callable[[], Any]) -> Any:
        """Return the text encoders' output for a prompt, which does not depend on the length of audio."""
        if prompt not in self.encoded:
            self.encoded[prompt] = encode()
        return self.encoded[prompt]

    def embed_batch(self, prompts: Sequence[str], n_samples: int) -> Embedding:
        """Return the embeddings of a batch of prompts, padded to the longest, on the device."""
        wanted = {(prompt, n_samples) for prompt in prompts}
        if not wanted <= self.embeddings.keys():
            self._encode_texts((wanted | self.expected) - self.embeddings.keys())
        each = [self.embeddings[prompt, n_samples] for prompt in prompts]
        return {name: _stacked([one[name] for one in each]).to(self.device) for name in each[0]}

    def without_prompt(self, texts: Embedding, n_samples: int) -> Embedding:
        """Return the embedding for no prompt, for guidance: that of the negative prompt, or zeros."""
        if self.none_is_zero and not self.negative_prompt:
            return {**texts, "context": torch.zeros_like(texts["context"])}
        batch = len(next(iter(texts.values())))
        return self.embed_batch([self.negative_prompt] * batch, n_samples)

    def expect(self, texts: Iterable[str], lengths: Iterable[int]) -> None:
        lengths = tuple(lengths)
        self.expected |= frozenset((text, n) for text in {*texts, self.negative_prompt} for n in lengths)

    def _encode_texts(self, wanted: Iterable[tuple[str, int]]) -> None:
        """Add prompts to `embeddings`, then free the text encoders if any prompts were expected. They are read again if needed."""
        parts = self._text_encoders()
        if self.reread is not None and any(part is None for part in parts.values()):
            loaded = {name: part for name, part in self.pipeline.components.items() if part is not None}
            self.pipeline = self.reread(loaded)
        with torch.no_grad():
            for prompt, n_samples in sorted(wanted):
                self.embeddings[prompt, n_samples] = self.embed(prompt, n_samples)
        if self.expected and self.reread is not None:
            for name in parts:
                setattr(self.pipeline, name, None)

    def _text_encoders(self) -> dict[str, Any]:
        """Return the networks for prompts by name; None if they are freed."""
        return {
            name: part
            for name, part in self.pipeline.components.items()
            if name in TEXT_ENCODERS and (part is None or isinstance(part, torch.nn.Module))
        }


def _stacked(rows: Sequence[torch.Tensor]) -> torch.Tensor:
    """Stack tensors [1, length, ...] to a batch, padded with zeros (False) to the longest."""
    if rows[0].dim() < 2:
        return torch.cat(list(rows))
    return pad_sequence([row[0] for row in rows], batch_first=True)
