"""The networks that `usk fit` trains: new ones, or those of a base, a generator that is trained further."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from usk.audio.mel import MelSettings
from usk.data.licenses import UNKNOWN
from usk.diffusion.fit_config import FitConfig
from usk.diffusion.generator import Generator
from usk.diffusion.load import load_generator
from usk.diffusion.mel_pipeline import MelGenerator, frame_multiple
from usk.diffusion.pipeline import (
    MEL_IMAGES,
    component_class,
    locate_pipeline,
    naming_model,
    read_pipeline_json,
    resolve_model,
)
from usk.diffusion.schedule import NoiseSchedule
from usk.diffusion.text_pipeline import TextGenerator
from usk.diffusion.weights import quiet_libraries
from usk.errors import ModelError, UsageError
from usk.text import abbreviate_list


@dataclass
class Networks:
    """The parts of a generator while it is trained."""

    unet: Any
    vae: Any | None  # of a base that works on latents; it is not trained
    shape: tuple[int, int, int]  # channels, height, width of the UNet's latents
    mel: MelSettings
    scheduler_config: dict[str, Any]  # as diffusers saves it
    class_names: tuple[str, ...]  # that condition the UNet; one more label means no class

    def __post_init__(self) -> None:
        self.schedule = NoiseSchedule.from_config(self.scheduler_config)

    def generator(self, device: torch.device, precision: str) -> MelGenerator:
        """Return a generator with the networks as they are."""
        return MelGenerator(
            family=MEL_IMAGES,
            sample_rate_hz=self.mel.sample_rate_hz,
            longest_samples=self.mel.image_samples,
            class_names=self.class_names,
            mel=self.mel,
            model_id="fitted",
            device=device,
            precision=precision,
            unet=self.unet.eval(),
            vae=self.vae,
            schedule=self.schedule,
            image_shape=self.shape,
            frame_multiple=frame_multiple(self.unet, self.shape, self.mel),
        )


def build_unet(config: FitConfig, shape: tuple[int, int, int], n_classes: int = 0) -> Any:
    """Return a diffusers `UNet2DModel` for latents of `shape` (channels, height, width), with attention at the lowest resolution.

    With `n_classes` it takes class labels; label `n_classes` means no class.
    """
    from diffusers import UNet2DModel  # type: ignore[attr-defined,unused-ignore]

    depth = len(config.channels)
    halvings = 2 ** (depth - 1)
    if shape[1] % halvings or shape[2] % halvings:
        raise UsageError(
            f"images of {shape[1]} x {shape[2]} cannot be halved {depth - 1} times; use fewer channel levels"
        )
    return UNet2DModel(
        sample_size=shape[1:],
        in_channels=shape[0],
        out_channels=shape[0],
        layers_per_block=config.layers_per_block,
        block_out_channels=config.channels,
        down_block_types=("DownBlock2D",) * (depth - 1) + ("AttnDownBlock2D",),
        up_block_types=("AttnUpBlock2D",) + ("UpBlock2D",) * (depth - 1),
        norm_num_groups=math.gcd(8, config.channels[0]),
        attention_head_dim=min(32, config.channels[-1]),
        num_class_embeds=n_classes + 1 if n_classes else None,
    )


def new_networks(
    config: FitConfig, mel: MelSettings, class_names: tuple[str, ...], device: torch.device
) -> Networks:
    """Return an untrained UNet over mel images, initialized with the configuration's seed."""
    torch.manual_seed(config.seed)
    shape = (1, mel.n_mels, mel.n_frames)
    with quiet_libraries():
        from diffusers import DDIMScheduler  # type: ignore[attr-defined,unused-ignore]

        unet = build_unet(config, shape, len(class_names)).to(device)
        scheduler = DDIMScheduler(
            num_train_timesteps=1000,
            beta_schedule=config.beta_schedule,
            clip_sample=True,
            clip_sample_range=1.0,
            prediction_type=config.prediction_type,
            set_alpha_to_one=True,
            steps_offset=0,
        )
    return Networks(
        unet=unet.to(memory_format=torch.channels_last),
        vae=None,
        shape=shape,
        mel=mel,
        scheduler_config=json.loads(scheduler.to_json_string()),
        class_names=class_names,
    )


@dataclass(frozen=True)
class Base:
    """A generator that is trained further."""

    generator: MelGenerator
    scheduler_config: dict[str, Any]

    def described(self, config: FitConfig, class_names: tuple[str, ...]) -> FitConfig:
        """Return `config` with the base's id, and with its settings in place of those that have no effect."""
        unet = self.generator.unet.config
        return replace(
            config,
            base=self.generator.model_id,
            channels=tuple(unet.block_out_channels),  # type: ignore[union-attr,arg-type]
            layers_per_block=unet.layers_per_block,  # type: ignore[union-attr,arg-type]
            class_conditional=bool(class_names),
            prediction_type=self.generator.schedule.prediction_type,
            beta_schedule=str(self.scheduler_config.get("beta_schedule", "linear")),
        )

    def networks(self, class_names: tuple[str, ...]) -> Networks:
        """Return its networks, conditioned on `class_names`, with the UNet trainable and the VAE frozen."""
        generator = self.generator
        unet: Any = generator.unet
        if class_names:
            set_classes(unet, generator.class_names, class_names)
        unet.requires_grad_(True)
        return Networks(
            unet=unet,
            vae=generator.vae,
            shape=generator.image_shape,
            mel=generator.mel,
            scheduler_config=self.scheduler_config,
            class_names=class_names,
        )


def training_sources_of(generator: Generator) -> list[dict[str, Any]]:
    """Return the sources that a base was trained on. If it names none, one entry says so and names no recording."""
    name, _, revision = generator.model_id.rpartition("@")
    sources = generator.trained_on or [
        {
            "source": f"unknown clips of {name}",
            "license": UNKNOWN,
            "note": "the generator that this one was fitted from does not say what it was trained on",
        }
    ]
    defaults = {
        "revision": revision, "license": generator.license, "folds": [], "clips": 0, "groups": [],
        "held_out_groups": [],
    }  # fmt: skip
    return [{**defaults, **part} for part in sources]


def notes_on_base(generator: Generator) -> list[str]:
    """Return warnings about a base that does not name its training data or its license."""
    name, notes = generator.model_id, []
    if not generator.trained_on:
        notes.append(
            f"{name} does not say what it was trained on: leaks from its training data cannot be ruled out"
        )
    if generator.license == UNKNOWN:
        notes.append(f"the license of {name} is unknown: look it up before you share what you make from it")
    return notes


def load_base(name: str, device: torch.device) -> Base:
    """Load a generator to train further: anything that `load_generator` loads, except conditional pipelines.

    Raises ModelError with the field `base`.
    """
    with naming_model(name, "base"):
        generator = load_generator(name, str(device), "fp32")
        if isinstance(generator, TextGenerator):
            raise ModelError(
                "is a text-to-audio model, of which only LoRA weights are trained",
                hint="Ask for LoRA weights.",
            )
        if not isinstance(generator, MelGenerator) or type(generator.unet).__name__ != "UNet2DModel":
            raise ModelError(
                "is conditioned on more than classes; only unconditional and class-conditional pipelines (UNet2DModel) can be "
                "trained further"
            )
        folder, _ = locate_pipeline(resolve_model(name, device.type))
        scheduler_config = read_pipeline_json(folder / "scheduler" / "scheduler_config.json")
        index = read_pipeline_json(folder / "model_index.json")
    scheduler_config.setdefault("_class_name", component_class(index, "scheduler") or "DDIMScheduler")
    return Base(generator, scheduler_config)


def conditioned_classes(config: FitConfig, base: Base | None, names: Sequence[str]) -> tuple[str, ...]:
    """Return the classes that will condition the UNet, given the clips' classes `names`; empty for none.

    A class-conditional base keeps its classes. Raises UsageError if it does not know all of `names`, unless
    `config.class_conditional` replaces its classes.
    """
    if config.class_conditional:
        return tuple(names)
    if base is None or not base.generator.class_names:
        return ()
    known = base.generator.class_names
    if unknown := [name for name in names if name not in known]:
        raise UsageError(
            f"is class-conditional and does not know {abbreviate_list(unknown)}",
            field="base",
            value=config.base,
            hint="Train it class-conditional, on the classes of your clips.",
        )
    return known


def set_classes(unet: Any, before: tuple[str, ...], after: tuple[str, ...]) -> None:
    """Change the classes of a UNet from `before` (empty if it is not class-conditional) to `after`.

    A new embedding is zero, so that the UNet's output does not change. An existing embedding keeps the rows of shared names and the
    row for no class. New names start from rows of names that are gone, and after these from mixes of rows: from rows that differ,
    the UNet learns within some hundred steps to tell its classes apart. From the row for no class it does not.
    """
    if before == after:
        return
    weight = unet.conv_in.weight
    table = torch.nn.Embedding(
        len(after) + 1, unet.time_embedding.linear_2.out_features, device=weight.device, dtype=weight.dtype
    )
    with torch.no_grad():
        table.weight.zero_()
        if before:
            rows = unet.class_embedding.weight
            known = dict(zip(before, rows, strict=False))
            unused = [known[name] for name in before if name not in after]
            draw = np.random.default_rng(0)
            mixes = (rows.new_tensor(draw.dirichlet(np.full(len(known), 0.3))) @ rows[:-1] for _ in after)
            starts = itertools.chain(unused, mixes)
            chosen = [known[name] if name in known else next(starts) for name in after]
            table.weight.copy_(torch.stack([*chosen, rows[-1]]))
    unet.class_embedding = table
    unet.register_to_config(num_class_embeds=len(after) + 1)
