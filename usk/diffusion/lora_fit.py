"""LoRA weights of a text-to-audio model, trained on clips with prompts for their classes.

The network learns what its family predicts, in the latents of the clips' own lengths; its own weights, the VAE and the text
encoders stay as they are.
"""

from __future__ import annotations

import functools
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
from usk.diffusion.continuous import ContinuousSchedule
from usk.diffusion.fit_config import FitConfig
from usk.diffusion.load import load_generator
from usk.diffusion.lora import add_adapter, attention_layers, require_peft, write_adapter
from usk.diffusion.networks import notes_on_base
from usk.diffusion.pipeline import TRAINED_ON_FILE, TRAINING_FILE, naming_model
from usk.diffusion.schedule import NoiseSchedule
from usk.diffusion.text_pipeline import Embedding, TextGenerator
from usk.diffusion.train import VALIDATION_CLIPS, FitWork, Trainer
from usk.diffusion.training_data import FitSources
from usk.errors import ModelError
from usk.files import atomic_write, expanded
from usk.reporter import Reporter

ENCODED_TOGETHER = 8  # clips
LATENTS_FILE = "latents-checkpoint.safetensors"  # behind a hash of what it depends on


@dataclass(frozen=True)
class LatentClips:
    """What is trained on: each clip's latent, as long as its sound, and what is known of it."""

    latents: list[torch.Tensor]  # float16 on the CPU
    lengths: np.ndarray  # int [n]: samples of the audio
    labels: np.ndarray  # int [n]
    held_out: np.ndarray  # bool [n]: it only measures the validation loss


class LatentBatch(NamedTuple):
    """A batch of clips of one length, with everything that is random about it."""

    clean: torch.Tensor  # [n, *latent shape]
    nodes: torch.Tensor  # [n] of the schedule
    noise: torch.Tensor  # [n, *latent shape]
    prompts: torch.Tensor  # int64 [n]: places in the trainer's list
    dropped: torch.Tensor  # bool [n]: without a prompt, which guidance needs

    def to(self, device: torch.device) -> LatentBatch:
        return LatentBatch(*(tensor.to(device) for tensor in self))


class LoraTrainer(Trainer):
    """Trains the LoRA weights that were added to a generator's network."""

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
        of_class = [prompts.of_class[name] for name in class_names]
        self.prompts = [prompt for some in of_class for prompt in some]
        counts = [len(some) for some in of_class]
        self.first_prompt, self.n_prompts = np.cumsum([0, *counts[:-1]]), np.array(counts)
        generator.bring("network")
        generator.expect(self.prompts, set(clips.lengths.tolist()))
        self.training, self.held_out = np.flatnonzero(~clips.held_out), np.flatnonzero(clips.held_out)

    def draw(self, step: int) -> LatentBatch:
        """The batch of step `step`: a clip, and others of its length; every clip is as likely."""
        draw = torch.Generator().manual_seed(self._seed(step))
        n = self.config.batch
        first = self.training[int(torch.randint(len(self.training), (1,), generator=draw))]
        alike = self.training[self.clips.lengths[self.training] == self.clips.lengths[first]]
        rows = alike[torch.randint(len(alike), (n,), generator=draw).numpy()]
        labels = self.clips.labels[rows]
        chosen = (torch.rand(n, generator=draw).numpy() * self.n_prompts[labels]).astype(np.int64)
        dropped = torch.rand(n, generator=draw) < self.config.class_dropout
        return self._with_noise(rows, self.first_prompt[labels] + chosen, dropped, draw)

    def _with_noise(
        self, rows: np.ndarray, prompts: np.ndarray, dropped: torch.Tensor, draw: torch.Generator
    ) -> LatentBatch:
        """Nodes spread evenly over the batch (low-discrepancy), and noise."""
        clean = torch.stack([self.clips.latents[row] for row in rows]).float()
        places = (torch.arange(len(rows)) + torch.rand(1, generator=draw)) / len(rows)
        places = places.clamp(max=1 - 1e-6)
        schedule = self.generator.schedule
        if isinstance(schedule, ContinuousSchedule):
            nodes = schedule.spread(places)
        else:
            assert isinstance(schedule, NoiseSchedule)
            nodes = (places * schedule.n_train).long()
        noise = torch.randn(clean.shape, generator=draw)
        return LatentBatch(clean, nodes, noise, torch.from_numpy(prompts), dropped)

    @functools.cached_property
    def _alphas(self) -> torch.Tensor:
        assert isinstance(self.generator.schedule, NoiseSchedule)
        return self.generator.schedule.alphas_cumprod.to(self.device)

    def loss(self, drawn: LatentBatch) -> torch.Tensor:
        """Mean squared error of what the family's network predicts: noise, v, or the velocity of its flow."""
        clean, nodes, noise, chosen, dropped = drawn
        schedule, like = self.generator.schedule, (-1, *(1,) * (clean.dim() - 1))
        if isinstance(schedule, ContinuousSchedule):
            signal, sigma = schedule.parts(nodes.reshape(like))
            target = schedule.velocity(clean, noise, nodes.reshape(like))
        else:
            assert isinstance(schedule, NoiseSchedule)
            alpha = self._alphas[nodes].reshape(like)
            signal, sigma = alpha.sqrt(), (1 - alpha).sqrt()
            target = schedule.target(clean, noise, alpha)
        texts = self._texts(chosen, dropped, clean.shape[self.generator.time_axis])
        with autocast(self.device, self.precision):
            output = self.generator.output(signal * clean + sigma * noise, nodes, texts)
        return (output.float() - target).square().mean()

    def _texts(self, chosen: torch.Tensor, dropped: torch.Tensor, n_steps: int) -> Embedding:
        """The prompts' embeddings, with those that the network is given for no prompt where it is dropped."""
        n_samples = n_steps * self.generator.hop_samples
        given = self.generator.texts([self.prompts[place] for place in chosen.tolist()], n_samples)
        without = self.generator.without(given, n_samples)
        return {
            name: torch.where(dropped.reshape(-1, *(1,) * (none.dim() - 1)), none, given[name])
            for name, none in without.items()
        }

    def validation(self) -> list[LatentBatch]:
        """Clips held out, with the first prompts of their classes, in pieces of one length."""
        draw = torch.Generator().manual_seed(0)
        some = self.held_out[torch.randperm(len(self.held_out), generator=draw).numpy()[:VALIDATION_CLIPS]]
        batches = []
        for length in np.unique(self.clips.lengths[some]):
            alike = some[self.clips.lengths[some] == length]
            for begin in range(0, len(alike), self.config.batch):
                rows = alike[begin : begin + self.config.batch]
                prompts = self.first_prompt[self.clips.labels[rows]]
                batches.append(
                    self._with_noise(rows, prompts, torch.zeros(len(rows), dtype=torch.bool), draw)
                )
        return batches


def lora_work(given: FitSources, config: FitConfig, device: torch.device, root: Path) -> FitWork:
    """A text-to-audio model with LoRA weights to train, into the folder `root`. Raises UskError."""
    assert config.base is not None
    names = given.class_names
    prompts = read_prompts(config.prompt or DEFAULT_PROMPT, names)  # before anything is downloaded
    generator, adapter = _adapted(config, device)
    generator.refuse_long([prompt for some in prompts.of_class.values() for prompt in some])
    for note in notes_on_base(generator):
        given.reporter.warn(note)
    clips, keep, parts = _load_latents(given, generator, root)
    torch.manual_seed(config.seed)
    with naming_model(config.base, "base"):
        added = add_adapter(generator.network, adapter)
    config = replace(config, base=generator.model_id)
    trainer = LoraTrainer(generator, clips, prompts, names, config, device)
    listed = {name: list(some) for name, some in prompts.of_class.items()}

    def write(folder: Path, trained_on: dict[str, Any], record: dict[str, Any]) -> None:
        records = {TRAINED_ON_FILE: trained_on, TRAINING_FILE: {**record, "prompts": listed}}
        write_adapter(folder, adapter, added, records)

    return FitWork(trainer, {"prompts": listed}, parts, generator, write, keep)


def _adapted(config: FitConfig, device: torch.device) -> tuple[TextGenerator, Adapter]:
    """The base, and the adapter that it is to have."""
    assert config.base is not None
    with naming_model(config.base, "base"):
        require_peft()
        precision = default_precision(device) if config.precision == "auto" else config.precision
        generator = load_generator(config.base, str(device), precision)
        if not isinstance(generator, TextGenerator):
            raise ModelError("is not a text-to-audio model; LoRA weights are fitted to these alone")
        if hasattr(generator.network, "peft_config"):
            raise ModelError("has LoRA weights already", hint="Name the model that they adapt.")
        place, _, revision = generator.model_id.rpartition("@")
        folder = expanded(config.base)
        if folder.is_dir():
            place = str(folder.resolve())
        layers = attention_layers(generator.network)
        return generator, Adapter(place, revision, config.lora_rank, config.lora_rank, layers)


def _load_latents(
    given: FitSources, generator: TextGenerator, root: Path
) -> tuple[LatentClips, Callable[[Path], None], list[dict[str, Any]]]:
    """The clips to train on, labeled with their places among all classes, what keeps their latents in a folder, and what
    `trained_on.json` says of each source. Latents that an interrupted fit kept in `root` are not encoded again."""
    trained, classes = list(given.parts(generator.sample_rate_hz)), given.class_names
    of = [
        (decoded.source, clip, clip.group in held)
        for decoded, held, _ in trained
        for clip in decoded.source.clips
    ]
    of_what = json.dumps([generator.model_id, *(clip.identity for _, clip, _ in of)])
    key = hashlib.sha256(of_what.encode()).digest()
    kept = _kept_latents(root / LATENTS_FILE, key)
    latents = kept or [
        latent for decoded, _, _ in trained for latent in _latents_of(decoded, generator, given.reporter)
    ]

    def keep(folder: Path) -> None:
        from safetensors.torch import save

        if kept:
            return
        content = save({str(row): latent.contiguous() for row, latent in enumerate(latents)})
        atomic_write(folder / LATENTS_FILE, checked(key + content), durable=False)

    clips = LatentClips(
        latents,
        np.array([latent.shape[generator.time_axis] * generator.hop_samples for latent in latents]),
        np.array([classes.index(source.class_names[clip.label]) for source, clip, _ in of]),
        np.array([held for _, _, held in of], dtype=bool),
    )
    return clips, keep, [part for _, _, part in trained]


def _kept_latents(file: Path, key: bytes) -> list[torch.Tensor] | None:
    """The latents in `file`; None where they are of other clips or another model, damaged, or not there."""
    from safetensors.torch import load

    content = read_checked(file) or b""
    if not content.startswith(key):
        return None
    latents = load(content[len(key) :])
    return [latents[str(row)] for row in range(len(latents))]


def _latents_of(decoded: DecodedSource, generator: TextGenerator, reporter: Reporter) -> list[torch.Tensor]:
    """Latents of every clip's beginning, repeated up to a length that the model makes."""
    sounds = [beginning(decoded.audio(row), generator.longest_samples) for row in range(len(decoded))]
    lengths = [generator.crop(len(sound)) for sound in sounds]
    latents: dict[int, torch.Tensor] = {}
    with reporter.task("encoding", "clips", len(sounds)) as task:
        for length in sorted(set(lengths)):
            rows = [row for row, own in enumerate(lengths) if own == length]
            for begin in range(0, len(rows), ENCODED_TOGETHER):
                some = rows[begin : begin + ENCODED_TOGETHER]
                audio = stack_padded([np.resize(sounds[row], length) for row in some], length)
                latents.update(zip(some, generator.encode(audio).half().cpu(), strict=True))
                task.update(len(latents))
    return [latents[row] for row in range(len(sounds))]
