"""Load and run audio-diffusion's pipelines: a UNet over mel images or over a VAE's latents of them, conditional or not.

This is the only module that imports audiodiffusion's and diffusers' models.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from usk.audio.mel import MelSettings, audio_to_image
from usk.audio.vocoder import filter_source, image_to_audio
from usk.data.pinned import download
from usk.device import DTYPES, to_device
from usk.diffusion.audio_encoder import ENCODER_SIZE, encode_audio
from usk.diffusion.fast import Compiled, in_precision
from usk.diffusion.generator import Condition, Generator
from usk.diffusion.pipeline import (
    INDEX_FILE,
    GeneratorInfo,
    component_class,
    describe_folder,
    read_pipeline_json,
)
from usk.diffusion.schedule import NoiseSchedule
from usk.diffusion.solvers import Predictor
from usk.diffusion.weights import load_network, quiet_libraries
from usk.errors import ModelError

VAE_SCALE = 0.18215  # audiodiffusion's factor, for latents of unit variance
AUDIO_ENCODER = "teticio/audio-encoder"  # what published conditional pipelines were trained with
ENCODER_FILES = ("*.json", "*.safetensors", "*.bin")  # at the top of its repo
AUDIO_ENCODER_FOLDER = "audio_encoder"  # in pipeline folders with an encoder of their own
# How smooth the filter is through which a clip takes its texture from the source. Less smooth (50 ms, one band of 64) loses a
# little less texture than no smoothing; twice as smooth leaves more of the source than of the image.
GAIN_SMOOTH_S, GAIN_BANDS = 0.1, 32  # standard deviations: seconds, and a share of the mel bands
UNKNOWN_CONDITIONS = ("class_embed_type", "addition_embed_type", "encoder_hid_dim")
LUMA = (0.299, 0.587, 0.114)  # weights of red, green and blue (ITU-R 601), as in audiodiffusion


@dataclass(kw_only=True)
class MelGenerator(Generator):
    """A diffusion model over mel images. Latents are [batch, channels, height, width]; width is time."""

    unet: torch.nn.Module = field(repr=False)
    vae: Any | None = field(repr=False)
    schedule: NoiseSchedule = field(repr=False)
    mel: MelSettings
    image_shape: tuple[int, int, int]  # channels, height, width of the latents of a whole image
    frame_multiple: int  # widths of crops in frames are multiples of this
    encoder: Any | None = field(default=None, repr=False)  # of the audio that a conditional UNet attends to
    _converted: tuple[Any, Any] = field(
        default=(None, None), repr=False
    )  # a UNet, and its copy in `precision`

    @property
    def trained_codec(self) -> bool:
        return self.vae is not None

    def crop(self, n_samples: int) -> int:
        """Return the length of a quarter, half, three quarters or all of an image, in multiples of `frame_multiple`."""
        mel, multiple = self.mel, self.frame_multiple
        needed = min(mel.n_frames, -(-n_samples // mel.hop_samples) + 1)
        quarters = (-(-mel.n_frames * quarter // (4 * multiple)) * multiple for quarter in (1, 2, 3, 4))
        return mel.samples_of(next(width for width in quarters if min(width, mel.n_frames) >= needed))

    def latent_shape(self, n_samples: int) -> tuple[int, ...]:
        frames = (n_samples + 1) // self.mel.hop_samples
        return (*self.image_shape[:2], frames * self.image_shape[2] // self.mel.n_frames)

    def flop(self, n_samples: int) -> float:
        """Count the operations of convolutions and linear layers, in a copy of the UNet on the meta device."""
        network: Any = self.unet
        if not hasattr(network, "config"):
            return 0.0
        products: list[float] = []

        def count(layer: Any, _inputs: Any, output: torch.Tensor) -> None:
            products.append(layer.weight.numel() * output.numel() / len(layer.weight))

        conditions: dict[str, torch.Tensor] = {}
        with quiet_libraries(), torch.device("meta"), torch.no_grad():
            if self.class_names:
                conditions["class_labels"] = torch.zeros(1, dtype=torch.long)
            if self.conditioned_on_audio:
                conditions["encoder_hidden_states"] = torch.zeros(1, 1, ENCODER_SIZE)
            unet = type(network).from_config(network.config)
            for layer in unet.modules():
                if isinstance(layer, (torch.nn.Conv2d, torch.nn.Linear)):
                    layer.register_forward_hook(count)
            unet(torch.zeros(1, *self.latent_shape(n_samples)), torch.zeros(1), **conditions)
        return 2.0 * sum(products)

    def encode(self, audio: torch.Tensor) -> torch.Tensor:
        return self.to_latent(audio_to_image(to_device(audio, self.device), self.mel)[0])

    def decode(
        self,
        latent: torch.Tensor,
        seeds: Sequence[int],
        iterations: int = 16,
        source: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Decode by Griffin-Lim, with the loudest mel bin at 0 dB, or by filtering `source`."""
        image = self.to_image(latent)
        if source is None:
            return image_to_audio(image, self.mel, seeds, iterations)
        return filter_source(
            to_device(source, self.device), image, self.mel, GAIN_SMOOTH_S, self.mel.n_mels / GAIN_BANDS
        )

    def predictor(self, condition: Condition = Condition()) -> Predictor:
        """Return the function that evaluates the network on [batch, channels, height, width] at a timestep, in float32.

        Unknown classes count as no class. Guidance (classifier-free, Ho & Salimans, arXiv 2207.12598) takes a second evaluation,
        and has no effect if all classes are unknown. A UNet that is conditioned on audio attends to the weighted encodings of the
        parents. Raises ModelError for it without parents.
        """
        network, none = self.network(), len(self.class_names)
        known = self.class_names
        labels = [known.index(text) if text in known else none for text in condition.texts]
        guided = condition.guidance != 1.0 and any(label != none for label in labels)
        encodings = self.encodings(condition)

        def predict(noisy: torch.Tensor, timestep: int) -> torch.Tensor:
            batch, conditions = noisy, {}
            if self.class_names:
                conditions["class_labels"] = torch.tensor(labels or [none] * len(noisy), device=noisy.device)
            if encodings is not None:
                conditions["encoder_hidden_states"] = encodings.to(noisy.device, DTYPES[self.precision])
            if guided:
                batch = torch.cat((noisy, noisy))
                conditions = {key: torch.cat((value, value)) for key, value in conditions.items()}
                conditions["class_labels"][len(noisy) :] = none
            timesteps = torch.full((len(batch),), timestep, device=batch.device)
            batch = batch.to(DTYPES[self.precision], memory_format=torch.channels_last)
            with torch.no_grad():
                output = network(batch, timesteps, **conditions, return_dict=False)[0].float()
            if guided:
                with_class, without = output.chunk(2)
                output = without + condition.guidance * (with_class - without)
            return output

        return predict

    def encodings(self, condition: Condition) -> torch.Tensor | None:
        """Return what a conditional UNet attends to [batch, 1, 100]: the parents' encodings, mixed by their weights."""
        if self.encoder is None:
            return None
        if condition.parents is None:
            raise ModelError(
                "is conditioned on audio, and no audio was given", field="model", value=self.model_id
            )
        rate_hz = self.mel.sample_rate_hz
        encoded = torch.stack([encode_audio(self.encoder, audio, rate_hz) for audio in condition.parents])
        weights = condition.weights if condition.weights is not None else torch.ones(encoded.shape[1], 1)
        return torch.einsum("kb...,bk->b...", encoded, weights.to(encoded)).to(self.device)

    def network(self) -> Any:
        """Return the UNet in the generator's precision."""
        if self.precision == "fp32":
            return self.unet
        if self._converted[0] is not self.unet:
            self._converted = self.unet, in_precision(self.unet, self.precision)
        return self._converted[1]

    def compiled(self) -> MelGenerator:
        return replace(self, unet=Compiled(self.network()))  # type: ignore[arg-type]

    def to_latent(self, image: torch.Tensor) -> torch.Tensor:
        """Turn mel images [batch, 1, n_mels, n_frames] into the UNet's latents."""
        return image if self.vae is None else encode_image(self.vae, image)

    def to_image(self, latent: torch.Tensor) -> torch.Tensor:
        """Turn the UNet's latents into mel images, clamped to [-1, 1]."""
        if self.vae is None:
            return latent.clamp(-1, 1)
        with torch.no_grad():
            image = self.vae.decode(latent / VAE_SCALE).sample.clamp(-1, 1)
        if image.shape[1] == 3:
            image = torch.einsum("bchw,c->bhw", image, torch.tensor(LUMA, device=image.device))[:, None]
        return image


def encode_image(vae: Any, image: torch.Tensor) -> torch.Tensor:
    """Encode mel images [batch, 1, n_mels, n_frames] with a VAE of gray or RGB images."""
    with torch.no_grad():
        return VAE_SCALE * vae.encode(image.expand(-1, vae.config.in_channels, -1, -1)).latent_dist.mode()


def load_mel_generator(
    folder: Path, info: GeneratorInfo, model_id: str, device: torch.device, precision: str
) -> MelGenerator:
    """Load the pipeline in `folder`, which `info` describes. Raises ModelError."""
    unet, vae = load_networks(folder)
    assert info.mel is not None
    schedule = NoiseSchedule.from_config(read_pipeline_json(folder / "scheduler" / "scheduler_config.json"))
    shape = _image_shape(unet, vae, info.mel)
    encoder = _load_encoder(folder, unet) if info.conditioned_on_audio else None
    for network in (unet, vae, encoder):
        if network is not None:
            network.eval().requires_grad_(False).to(device, memory_format=torch.channels_last)
    return MelGenerator(
        **vars(info),
        model_id=model_id,
        device=device,
        precision=precision,
        unet=unet,
        vae=vae,
        schedule=schedule,
        image_shape=shape,
        frame_multiple=frame_multiple(unet, shape, info.mel),
        encoder=encoder,
    )


def load_networks(folder: Path) -> tuple[Any, Any | None]:
    """Load the UNet, and the VAE if the pipeline has one, in float32 on the CPU. Raises ModelError."""
    index = read_pipeline_json(folder / INDEX_FILE)
    with quiet_libraries():
        import diffusers

        unet = load_network(getattr(diffusers, component_class(index, "unet")), folder / "unet")
        vae = None
        if component_class(index, "vqvae"):
            vae = load_network(diffusers.AutoencoderKL, folder / "vqvae")  # type: ignore[attr-defined,unused-ignore]
    unknown = [key for key in UNKNOWN_CONDITIONS if unet.config.get(key)]
    if unknown:
        raise ModelError(f"its UNet takes conditions that usk does not support ({', '.join(unknown)})")
    if unet.config.out_channels != unet.config.in_channels:
        raise ModelError(
            f"its UNet makes {unet.config.out_channels} channels of {unet.config.in_channels}; usk needs one that "
            "predicts the noise alone, not its variance"
        )
    return unet, vae


def _image_shape(unet: Any, vae: Any | None, mel: MelSettings) -> tuple[int, int, int]:
    """Return channels, height and width of the UNet's latents. Raises ModelError if mel and VAE make another shape."""
    scale = 1 if vae is None else 2 ** (len(vae.config.block_out_channels) - 1)
    channels = 1 if vae is None else int(vae.config.latent_channels)
    shape = (channels, mel.n_mels // scale, mel.n_frames // scale)
    size = shape[1:] if unet.config.sample_size is None else unet.config.sample_size  # None: any size
    unet_shape = (unet.config.in_channels, *((size, size) if isinstance(size, int) else size))
    if unet_shape != shape:
        makes = "makes" if vae is None else "and VAE make"
        raise ModelError(
            f"its UNet takes {' x '.join(map(str, unet_shape))} but its mel {makes} {' x '.join(map(str, shape))} images"
        )
    return shape


def frame_multiple(unet: Any, image_shape: tuple[int, int, int], mel: MelSettings) -> int:
    """Return what the width of a crop must be a multiple of, in frames: the VAE's factor times the UNet's."""
    halvings = 2 ** (len(unet.config.block_out_channels) - 1)
    return int(mel.n_frames // image_shape[2] * halvings)


def _load_encoder(folder: Path, unet: Any) -> Any:
    """Load audiodiffusion's audio encoder for a conditional UNet: the pipeline's own, or the published one. Raises ModelError."""
    sizes = unet.config.cross_attention_dim
    if any(size != ENCODER_SIZE for size in ([sizes] if isinstance(sizes, int) else sizes)):
        raise ModelError(
            f"is conditioned on encodings of {sizes} numbers; usk supports audio-diffusion's audio encoder, "
            f"which makes {ENCODER_SIZE}"
        )
    own = folder / AUDIO_ENCODER_FOLDER
    if not own.is_dir():
        subject = f"the model is conditional, and its audio encoder {AUDIO_ENCODER}"
        own = download(AUDIO_ENCODER, ENCODER_FILES, subject, f"put its files into {own}", ModelError)
    with quiet_libraries():
        from audiodiffusion.audio_encoder import AudioEncoder

        return load_network(AudioEncoder, own)


def as_audiodiffusion(folder: str | os.PathLike[str]) -> Any:
    """Load a folder as audiodiffusion's own `AudioDiffusionPipeline` (fp32, CPU), whatever the name of its mel class.

    A class-conditional UNet gets the label for no class if it is called without a label, as the pipeline calls it.
    """
    root = Path(folder)
    describe_folder(root)
    index = read_pipeline_json(root / INDEX_FILE)
    unet, vae = load_networks(root)
    if unet.config.num_class_embeds:
        unet.register_forward_pre_hook(_add_label, with_kwargs=True)
    with quiet_libraries():
        from audiodiffusion.mel import Mel
        from audiodiffusion.pipeline_audio_diffusion import AudioDiffusionPipeline
        from diffusers import DDIMScheduler, DDPMScheduler

        is_ddpm = component_class(index, "scheduler") == "DDPMScheduler"
        return AudioDiffusionPipeline(
            vqvae=vae,
            unet=unet,
            mel=Mel.from_pretrained(root, subfolder="mel"),
            scheduler=(DDPMScheduler if is_ddpm else DDIMScheduler).from_pretrained(
                root, subfolder="scheduler"
            ),
        )


def _add_label(
    unet: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Add the last label, for no class, if there is no label: a forward pre-hook."""
    position = 3 if type(unet).__name__ == "UNet2DConditionModel" else 2  # of class_labels in forward
    if (args[position] if len(args) > position else kwargs.get("class_labels")) is not None:
        return args, kwargs
    sample = args[0] if args else kwargs["sample"]
    none = torch.full((len(sample),), unet.config.num_class_embeds - 1, device=sample.device)
    if len(args) > position:
        return (*args[:position], none, *args[position + 1 :]), kwargs
    return args, {**kwargs, "class_labels": none}
