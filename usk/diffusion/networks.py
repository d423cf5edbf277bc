"""The networks that `usk fit` trains: new ones, or those of a generator that is trained further."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from usk.audio.mel import MelSettings
from usk.data.licenses import UNKNOWN
from usk.diffusion.fit_config import FitConfig
from usk.diffusion.load import load_generator
from usk.diffusion.mel_pipeline import VAE_SCALE, MelGenerator, frame_multiple, quiet_libraries
from usk.diffusion.pipeline import (
    MEL_IMAGES,
    component_class,
    locate_pipeline,
    naming_model,
    read_pipeline_json,
    resolve_model,
)
from usk.diffusion.schedule import NoiseSchedule
from usk.errors import ModelError, UsageError
from usk.text import abbreviate_list


@dataclass
class Networks:
    """What a generator is made of while it is trained."""

    unet: Any
    vae: Any | None
    new_vae: bool  # the VAE is trained before the UNet; one that a base brings stays as it is
    shape: tuple[int, int, int]  # channels, height, width of what the UNet denoises
    mel: MelSettings
    scheduler_config: dict[str, Any]  # as diffusers saves it
    class_names: tuple[str, ...]  # what the UNet is told; one more label means none given

    def __post_init__(self) -> None:
        self.schedule = NoiseSchedule.from_config(self.scheduler_config)

    def generator(self, device: torch.device, precision: str) -> MelGenerator:
        """The networks as they stand, to make images with."""
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
    """A diffusers `UNet2DModel` for latents of `shape` (channels, height, width), attention at the lowest strength.

    With `n_classes` it takes class labels; label `n_classes` means none given.
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


def build_vae(config: FitConfig, mel: MelSettings) -> Any:
    """A small `AutoencoderKL` that halves both axes twice."""
    from diffusers import AutoencoderKL  # type: ignore[attr-defined,unused-ignore]

    width = config.channels[0]
    return AutoencoderKL(
        in_channels=1,
        out_channels=1,
        latent_channels=config.latent_channels,
        layers_per_block=1,
        block_out_channels=(width, width * 2, width * 2),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        norm_num_groups=math.gcd(8, width),
        sample_size=mel.n_mels,
        scaling_factor=VAE_SCALE,
    )


def new_networks(
    config: FitConfig, mel: MelSettings, class_names: tuple[str, ...], device: torch.device
) -> Networks:
    """Untrained networks, drawn with the configuration's seed."""
    torch.manual_seed(config.seed)
    with quiet_libraries():
        from diffusers import DDIMScheduler  # type: ignore[attr-defined,unused-ignore]

        vae = build_vae(config, mel).to(device) if config.latent else None
        shape = (1, mel.n_mels, mel.n_frames)
        if vae is not None:
            shape = (config.latent_channels, mel.n_mels // 4, mel.n_frames // 4)
        unet = build_unet(config, shape, len(class_names)).to(device)
        scheduler = DDIMScheduler(
            num_train_timesteps=1000,
            beta_schedule=config.beta_schedule,
            clip_sample=vae is None,
            clip_sample_range=1.0,
            prediction_type=config.prediction_type,
            set_alpha_to_one=True,
            steps_offset=0,
        )
    return Networks(
        unet=unet.to(memory_format=torch.channels_last),
        vae=vae,
        new_vae=vae is not None,
        shape=shape,
        mel=mel,
        scheduler_config=json.loads(scheduler.to_json_string()),
        class_names=class_names,
    )


@dataclass(frozen=True)
class Base:
    """A generator that is trained further (`--from`)."""

    generator: MelGenerator
    scheduler_config: dict[str, Any]

    @property
    def trained_on(self) -> list[dict[str, Any]]:
        """The sources that it was trained on; where it does not say, one entry that says so and names no recording."""
        name, _, revision = self.generator.model_id.rpartition("@")
        return self.generator.trained_on or [
            {
                "source": f"unknown clips of {name}",
                "revision": revision,
                "license": UNKNOWN,
                "folds": [],
                "clips": 0,
                "groups": [],
                "held_out_groups": [],
                "note": "the generator that this one was fitted from does not say what it was trained on",
            }
        ]

    @property
    def notes(self) -> tuple[str, ...]:
        """What to warn of before training goes on."""
        name = self.generator.model_id
        notes = []
        if not self.generator.trained_on:
            notes.append(
                f"--from {name} does not say what it was trained on: leaks from its training data cannot be ruled out"
            )
        if self.generator.license == UNKNOWN:
            notes.append(f"the license of {name} is unknown: look it up before you share what comes of it")
        return tuple(notes)

    def described(self, config: FitConfig, class_names: tuple[str, ...]) -> FitConfig:
        """`config` with what the base decides in the place of what does not count, and its id for its place."""
        unet = self.generator.unet.config
        return replace(
            config,
            base=self.generator.model_id,
            channels=tuple(unet.block_out_channels),  # type: ignore[union-attr,arg-type]
            layers_per_block=unet.layers_per_block,  # type: ignore[union-attr,arg-type]
            latent=self.generator.vae is not None,
            latent_channels=self.generator.image_shape[0],
            class_conditional=bool(class_names),
            prediction_type=self.generator.schedule.prediction_type,
            beta_schedule=str(self.scheduler_config.get("beta_schedule", "linear")),
        )

    def networks(self, class_names: tuple[str, ...]) -> Networks:
        """Its networks, told of `class_names`, the UNet ready to be trained and the VAE frozen."""
        generator = self.generator
        unet: Any = generator.unet
        if class_names:
            tell_classes(unet, generator.class_names, class_names)
        unet.requires_grad_(True)
        return Networks(
            unet=unet,
            vae=generator.vae,
            new_vae=False,
            shape=generator.image_shape,
            mel=generator.mel,
            scheduler_config=self.scheduler_config,
            class_names=class_names,
        )


def load_base(name: str, device: torch.device) -> Base:
    """The generator `name` to train further: whatever `load_generator` loads, but for conditional pipelines.

    Raises ModelError with its words, naming `--from`.
    """
    with naming_model(name, "base"):
        generator = load_generator(name, str(device), "fp32")
        folder, _ = locate_pipeline(resolve_model(name, device.type))
        scheduler_config = read_pipeline_json(folder / "scheduler" / "scheduler_config.json")
        index = read_pipeline_json(folder / "model_index.json")
    assert isinstance(generator, MelGenerator)
    unet: Any = generator.unet
    kind = type(unet).__name__
    if kind != "UNet2DModel":
        raise ModelError(
            f"--from {name} is conditional ({kind}); usk fit goes on from unconditional and class-conditional "
            "pipelines (UNet2DModel) alone"
        )
    if unet.config.class_embed_type is not None:
        raise ModelError(
            f"--from {name}: its UNet takes classes as {unet.config.class_embed_type!r}; usk fit knows class numbers alone"
        )
    scheduler_config.setdefault("_class_name", component_class(index, "scheduler") or "DDIMScheduler")
    return Base(generator, scheduler_config)


def conditioned_classes(config: FitConfig, base: Base | None, names: Sequence[str]) -> tuple[str, ...]:
    """The classes that the UNet will be told of, `names` being those of the clips; empty for none.

    A class-conditional base stays what it is. Raises UsageError if it does not know every class of the clips, unless
    `config.class_conditional` lets it be given them.
    """
    if config.class_conditional:
        return tuple(names)
    if base is None or not base.generator.class_names:
        return ()
    known = base.generator.class_names
    if unknown := [name for name in names if name not in known]:
        raise UsageError(
            f"--from {config.base} is class-conditional and does not know {abbreviate_list(unknown)}; add "
            "--class-conditional to teach it the classes of your clips in the place of its own"
        )
    return known


def tell_classes(unet: Any, before: tuple[str, ...], after: tuple[str, ...]) -> None:
    """Make a UNet that knows the classes `before` (none, if it is not class-conditional) take those of `after`.

    An embedding that is new is zero, so that the UNet says what it said without one. One that was there keeps the
    rows of shared names and the one for none given, from which new names start too.
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
            known = {name: row for row, name in enumerate(before)}
            rows = [known.get(name, len(before)) for name in after] + [len(before)]
            table.weight.copy_(unet.class_embedding.weight[rows])
    unet.class_embedding = table
    unet.register_to_config(num_class_embeds=len(after) + 1)
