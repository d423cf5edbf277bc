"""Train LoRA weights of a text-to-audio model on clips, with prompts for their classes.

The network learns its family's prediction, in latents of the clips' own lengths. Its own weights, the VAE and the text encoders are
not changed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from usk.audio.mel import stack_padded
from usk.data.cache import checked, read_checked
from usk.data.decode import DecodedSource, beginning
from usk.data.prompts import DEFAULT_PROMPT, Prompts, read_prompts
from usk.device import autocast, default_precision
from usk.diffusion.adapter import Adapter
from usk.diffusion.fit_config import FitConfig
from usk.diffusion.load import load_generator
from usk.diffusion.lora import add_adapter, attention_layers, require_peft, write_adapter
from usk.diffusion.networks import notes_on_base
from usk.diffusion.pipeline import TRAINED_ON_FILE, TRAINING_FILE, naming_model
from usk.diffusion.text_pipeline import Embedding, TextGenerator
from usk.diffusion.train import VALIDATION_CLIPS, FitWork, Trainer
from usk.diffusion.training_data import FitSources
from usk.errors import ModelError
from usk.files import atomic_write, expanded
from usk.reporter import Reporter

ENCODE_BATCH = 8
LATENTS_FILE = "latents-checkpoint.safetensors"  # begins with a hash of the clips and the model


@dataclass(frozen=True)
class LatentClips:
    """Clips to train on, as latents of their own lengths."""

    latents: list[torch.Tensor]  # float16 on the CPU
    lengths: np.ndarray  # int [n]: of the audio in samples
    labels: np.ndarray  # int [n]
    held_out: np.ndarray  # bool [n]: whether a clip is for validation only


class LatentBatch(NamedTuple):
    """A batch of clips of one length, with all its random numbers."""

    clean: torch.Tensor  # [n, *latent shape]
    nodes: torch.Tensor  # [n] of the schedule
    noise: torch.Tensor  # [n, *latent shape]
    prompts: torch.Tensor  # int64 [n]: indices in the trainer's list
    dropped: torch.Tensor  # bool [n]: whether the prompt is left out, which guidance needs


class LoraTrainer(Trainer):
    """Trains the LoRA weights in a generator's network."""

    batch_type = LatentBatch

    def __init__(
        self,
        generator: TextGenerator,
        clips: LatentClips,
        prompts: Prompts,
        class_names: Sequence[str],
        config: FitConfig,
        device: torch.device,
    ) -> None:
        super().__init__(generator.network, config, device)
        self.generator, self.clips, self.precision = generator, clips, generator.precision
        by_class = [prompts.of_class[name] for name in class_names]
        self.prompts = [prompt for of_class in by_class for prompt in of_class]
        counts = [len(of_class) for of_class in by_class]
        self.first_prompt, self.n_prompts = np.cumsum([0, *counts[:-1]]), np.array(counts)
        generator.bring_to_device("network")
        generator.expect(self.prompts, set(clips.lengths.tolist()))
        self.training, self.held_out = np.flatnonzero(~clips.held_out), np.flatnonzero(clips.held_out)

    def draw(self, step: int) -> LatentBatch:
        """Return the batch of a step: a clip, and others of its length. Every clip is equally likely."""
        draw = torch.Generator().manual_seed(self._seed(step))
        n = self.config.batch
        first = self.training[int(torch.randint(len(self.training), (1,), generator=draw))]
        same_length = self.training[self.clips.lengths[self.training] == self.clips.lengths[first]]
        rows = same_length[torch.randint(len(same_length), (n,), generator=draw).numpy()]
        labels = self.clips.labels[rows]
        chosen = (torch.rand(n, generator=draw).numpy() * self.n_prompts[labels]).astype(np.int64)
        dropped = torch.rand(n, generator=draw) < self.config.class_dropout
        return self._with_noise(rows, self.first_prompt[labels] + chosen, dropped, draw)

    def _with_noise(
        self, rows: np.ndarray, prompts: np.ndarray, dropped: torch.Tensor, draw: torch.Generator
    ) -> LatentBatch:
        """Add noise, and nodes that are spread evenly over the batch (low discrepancy)."""
        clean = torch.stack([self.clips.latents[row] for row in rows]).float()
        places = (torch.arange(len(rows)) + torch.rand(1, generator=draw)) / len(rows)
        nodes = self.generator.schedule.training_nodes(places.clamp(max=1 - 1e-6))
        noise = torch.randn(clean.shape, generator=draw)
        return LatentBatch(clean, nodes, noise, torch.from_numpy(prompts), dropped)

    def loss(self, batch: LatentBatch) -> torch.Tensor:
        """Return the mean squared error of the network's prediction: noise, v, or the velocity of a flow."""
        clean, nodes, noise, prompts, dropped = batch
        schedule = self.generator.schedule
        signal_scale, noise_scale = schedule.parts(nodes.reshape(-1, *(1,) * (clean.dim() - 1)))
        target = schedule.target(clean, noise, signal_scale, noise_scale)
        texts = self._texts(prompts, dropped, clean.shape[self.generator.time_axis])
        with autocast(self.device, self.precision):
            output = self.generator.output(signal_scale * clean + noise_scale * noise, nodes, texts)
        return (output.float() - target).square().mean()

    def _texts(self, prompts: torch.Tensor, dropped: torch.Tensor, n_steps: int) -> Embedding:
        """Return the prompts' embeddings, with the embedding for no prompt where it is dropped."""
        n_samples = n_steps * self.generator.hop_samples
        texts = self.generator.embed_batch([self.prompts[index] for index in prompts.tolist()], n_samples)
        without = self.generator.without_prompt(texts, n_samples)
        return {
            name: torch.where(dropped.reshape(-1, *(1,) * (none.dim() - 1)), none, texts[name])
            for name, none in without.items()
        }

    def validation(self) -> list[LatentBatch]:
        """Return held-out clips with the first prompts of their classes, in batches of one length."""
        draw = torch.Generator().manual_seed(0)
        chosen = self.held_out[torch.randperm(len(self.held_out), generator=draw).numpy()[:VALIDATION_CLIPS]]
        batches = []
        for length in np.unique(self.clips.lengths[chosen]):
            same_length = chosen[self.clips.lengths[chosen] == length]
            for begin in range(0, len(same_length), self.config.batch):
                rows = same_length[begin : begin + self.config.batch]
                prompts = self.first_prompt[self.clips.labels[rows]]
                dropped = torch.zeros(len(rows), dtype=torch.bool)
                batches.append(self._with_noise(rows, prompts, dropped, draw))
        return batches


def lora_work(data: FitSources, config: FitConfig, device: torch.device, root: Path) -> FitWork:
    """Prepare to train LoRA weights of a text-to-audio model, into the folder `root`. Raises UskError."""
    assert config.base is not None
    names = data.class_names
    prompts = read_prompts(config.prompt or DEFAULT_PROMPT, names)  # before anything is downloaded
    generator, adapter = _load_base(config, device)
    generator.require_short([prompt for of_class in prompts.of_class.values() for prompt in of_class])
    for note in notes_on_base(generator):
        data.reporter.warn(note)
    clips, store, parts = _load_latents(data, generator, root)
    torch.manual_seed(config.seed)
    with naming_model(config.base, "base"):
        weights = add_adapter(generator.network, adapter)
    config = replace(config, base=generator.model_id)
    trainer = LoraTrainer(generator, clips, prompts, names, config, device)
    listed = {name: list(of_class) for name, of_class in prompts.of_class.items()}

    def write(folder: Path, trained_on: dict[str, Any], record: dict[str, Any]) -> None:
        records = {TRAINED_ON_FILE: trained_on, TRAINING_FILE: {**record, "prompts": listed}}
        write_adapter(folder, adapter, weights, records)

    return FitWork(trainer, {"prompts": listed}, parts, generator, write, store)


def _load_base(config: FitConfig, device: torch.device) -> tuple[TextGenerator, Adapter]:
    """Load the base, and describe the adapter that it will get. Raises ModelError."""
    assert config.base is not None
    with naming_model(config.base, "base"):
        require_peft()
        precision = default_precision(device) if config.precision == "auto" else config.precision
        generator = load_generator(config.base, str(device), precision)
        if not isinstance(generator, TextGenerator):
            raise ModelError("is not a text-to-audio model; LoRA weights are fitted to these alone")
        if hasattr(generator.network, "peft_config"):
            raise ModelError("has LoRA weights already", hint="Name the model that they adapt.")
        location, _, revision = generator.model_id.rpartition("@")
        folder = expanded(config.base)
        if folder.is_dir():
            location = str(folder.resolve())
        layers = attention_layers(generator.network)
        return generator, Adapter(location, revision, config.lora_rank, config.lora_rank, layers)


def _load_latents(
    data: FitSources, generator: TextGenerator, root: Path
) -> tuple[LatentClips, Callable[[Path], None], list[dict[str, Any]]]:
    """Encode the clips, or read their latents from an interrupted fit in `root`.

    Return the clips, labeled with the indices of their classes, a function that stores the latents in a folder, and each source's
    entry in `trained_on.json`.
    """
    sources, class_names = list(data.parts(generator.sample_rate_hz)), data.class_names
    clips = [
        (clip, decoded.source.class_names[clip.label], clip.group in held_out)
        for decoded, held_out, _ in sources
        for clip in decoded.source.clips
    ]
    inputs = json.dumps([generator.model_id, *(clip.identity for clip, _, _ in clips)])
    key = hashlib.sha256(inputs.encode()).digest()
    stored = _read_latents(root / LATENTS_FILE, key)
    latents = stored or [
        latent for decoded, _, _ in sources for latent in _latents_of(decoded, generator, data.reporter)
    ]

    def store(folder: Path) -> None:
        from safetensors.torch import save

        if not stored:
            content = save({str(row): latent.contiguous() for row, latent in enumerate(latents)})
            atomic_write(folder / LATENTS_FILE, checked(key + content), durable=False)

    latent_clips = LatentClips(
        latents,
        np.array([latent.shape[generator.time_axis] * generator.hop_samples for latent in latents]),
        np.array([class_names.index(name) for _, name, _ in clips]),
        np.array([is_held_out for _, _, is_held_out in clips], dtype=bool),
    )
    return latent_clips, store, [part for _, _, part in sources]


def _read_latents(file: Path, key: bytes) -> list[torch.Tensor] | None:
    """Read stored latents. Return None if they are missing, damaged, or of other clips or another model."""
    from safetensors.torch import load

    content = read_checked(file) or b""
    if not content.startswith(key):
        return None
    latents = load(content[len(key) :])
    return [latents[str(row)] for row in range(len(latents))]


def _latents_of(decoded: DecodedSource, generator: TextGenerator, reporter: Reporter) -> list[torch.Tensor]:
    """Encode the beginning of every clip, repeated to a length that the model can make."""
    sounds = [beginning(decoded.audio(row), generator.longest_samples) for row in range(len(decoded))]
    lengths = [generator.crop(len(sound)) for sound in sounds]
    latents: dict[int, torch.Tensor] = {}
    with reporter.task("encoding", "clips", len(sounds)) as task:
        for length in sorted(set(lengths)):
            rows = [row for row, own in enumerate(lengths) if own == length]
            for begin in range(0, len(rows), ENCODE_BATCH):
                batch = rows[begin : begin + ENCODE_BATCH]
                audio = stack_padded([np.resize(sounds[row], length) for row in batch], length)
                latents.update(zip(batch, generator.encode(audio).half().cpu(), strict=True))
                task.update(len(latents))
    return [latents[row] for row in range(len(sounds))]
