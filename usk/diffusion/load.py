"""Load a generator: an audio-diffusion pipeline folder or Hub id. The one importer of audiodiffusion and diffusers' models."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from usk.device import autocast, default_precision, resolve_device
from usk.diffusion.ddim import NoiseSchedule, Predictor
from usk.errors import ModelError, sample_of
from usk.mel.spectrogram import MelSettings

EMBEDDED = "embedded"
PUBLISHED = "teticio/audio-diffusion-ddim-256"
VAE_SCALE = 0.18215  # audiodiffusion's: latents of unit variance
TRAINED_ON_FILE = "trained_on.json"


@dataclass
class Generator:
    """A diffusion model over mel images, ready on its device."""

    model_id: str  # id@revision, as it stands in the rows of what it made
    unet: torch.nn.Module
    vae: Any | None
    schedule: NoiseSchedule
    mel: MelSettings
    latent_shape: tuple[int, int, int]  # channels, height, width
    device: torch.device
    precision: str = "fp32"  # "fp32" or "bf16" inside the network; everything else stays float32
    trained_on: list[dict[str, Any]] = field(default_factory=list)
    license: str = "unknown"
    frame_multiple: int = 1  # images may be cropped in time to multiples of this
    class_names: tuple[str, ...] = ()  # what a class-conditional UNet can be told; empty for others

    @property
    def seen_groups(self) -> frozenset[str]:
        """Recordings that the network was fitted on; none are known of a generator that usk did not fit."""
        return frozenset(group for part in self.trained_on for group in part.get("groups", ()))

    def predict(self, noisy: torch.Tensor, timestep: int) -> torch.Tensor:
        """The network's raw output for a batch [batch, channels, height, width], float32, told no class."""
        return self.predictor(())(noisy, timestep)

    def predictor(self, class_names: Sequence[str], guidance: float = 1.0) -> Predictor:
        """The network for a batch whose items have these classes, for `ddim_encode` and `ddim_decode`.

        Classes that the generator was not trained on, and all of them where it is not class-conditional, count as
        not given. `guidance` above 1 pushes away from what it would predict without a class, at the price of a second
        evaluation (classifier-free guidance, Ho & Salimans, arXiv 2207.12598); it does nothing where no class is
        known.
        """
        none = len(self.class_names)
        known = [self.class_names.index(name) if name in self.class_names else none for name in class_names]
        guided = guidance != 1.0 and any(label != none for label in known)

        def predict(noisy: torch.Tensor, timestep: int) -> torch.Tensor:
            batch, labels = noisy, None
            if self.class_names:
                labels = torch.tensor(known or [none] * len(noisy), device=noisy.device)
                if guided:
                    batch = torch.cat((noisy, noisy))
                    labels = torch.cat((labels, torch.full_like(labels, none)))
            with torch.no_grad(), autocast(self.device, self.precision):
                output = self.unet(
                    batch.to(memory_format=torch.channels_last), timestep, labels, return_dict=False
                )[0].float()
            if guided:
                told, untold = output.chunk(2)
                output = untold + guidance * (told - untold)
            return output

        return predict

    def to_latent(self, image: torch.Tensor) -> torch.Tensor:
        """Mel images [batch, 1, n_mels, n_frames] to what the UNet denoises [batch, *latent_shape]."""
        if self.vae is None:
            return image
        with torch.no_grad():
            return VAE_SCALE * self.vae.encode(image).latent_dist.mode()

    def to_image(self, latent: torch.Tensor) -> torch.Tensor:
        """The inverse of `to_latent`, clamped to [-1, 1]."""
        if self.vae is None:
            return latent.clamp(-1, 1)
        with torch.no_grad():
            return self.vae.decode(latent / VAE_SCALE).sample[:, :1].clamp(-1, 1)


def resolve_model(model: str, device: torch.device) -> str:
    """`auto` is the published 256 x 256 model on CUDA and the embedded generator elsewhere."""
    if model != "auto":
        return model
    return PUBLISHED if device.type == "cuda" else EMBEDDED


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """audiodiffusion silences all warnings for the whole process when imported; this keeps that to its import."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def load_generator(model: str = EMBEDDED, device: str = "auto", precision: str = "auto") -> Generator:
    """Load `model`: `embedded`, `auto`, a pipeline folder, or a Hub id with optional `@revision`.

    Raises ModelError if it is no audio-diffusion pipeline, UsageError if the device is not there.
    """
    on = resolve_device(device)
    name = resolve_model(model, on)
    folder, model_id = _locate(name)
    index = _read_json(folder / "model_index.json", name)
    unet_class, has_vae = _class_name(index, "unet"), bool(_class_name(index, "vqvae"))
    if unet_class == "UNet2DConditionModel":
        raise ModelError(
            f"--model {name} is conditional (UNet2DConditionModel); usk needs an unconditional pipeline"
        )
    if unet_class != "UNet2DModel" or "mel" not in index:
        raise ModelError(
            f"--model {name} is no audio-diffusion pipeline: model_index.json names no UNet2DModel and mel"
        )
    with quiet_libraries():
        from diffusers import AutoencoderKL, UNet2DModel  # type: ignore[attr-defined,unused-ignore]

        try:
            unet = _load_network(UNet2DModel, folder, "unet")
            vae = _load_network(AutoencoderKL, folder, "vqvae") if has_vae else None
        except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
            first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise ModelError(f"--model {name}: its weights cannot be loaded: {first_line}") from error
    try:
        mel = MelSettings.from_audiodiffusion(_read_json(folder / "mel" / "mel_config.json", name))
    except (TypeError, ValueError) as error:
        raise ModelError(f"--model {name}: mel/mel_config.json is not understood: {error}") from error
    schedule = NoiseSchedule.from_config(_read_json(folder / "scheduler" / "scheduler_config.json", name))
    size = unet.config.sample_size
    height, width = (size, size) if isinstance(size, int) else tuple(size)
    shape = (int(unet.config.in_channels), int(height), int(width))
    if vae is None and shape != (1, mel.n_mels, mel.n_frames):
        raise ModelError(
            f"--model {name}: its UNet takes {shape[0]} x {shape[1]} x {shape[2]} but its mel makes "
            f"1 x {mel.n_mels} x {mel.n_frames} images"
        )
    trained_on, licence = [], "unknown"
    if (folder / TRAINED_ON_FILE).is_file():
        record = _read_json(folder / TRAINED_ON_FILE, name)
        if not isinstance(record.get("sources"), list):
            raise ModelError(
                f"--model {name}: {TRAINED_ON_FILE} does not say what the generator was trained on"
            )
        trained_on, licence = record["sources"], str(record.get("license", "unknown"))
    for network in (unet, vae):
        if network is not None:
            network.eval().requires_grad_(False).to(on, memory_format=torch.channels_last)
    return Generator(
        model_id=model_id,
        unet=unet,
        vae=vae,
        schedule=schedule,
        mel=mel,
        latent_shape=shape,
        device=on,
        precision=default_precision(on) if precision == "auto" else precision,
        trained_on=trained_on,
        license=licence,
        class_names=_class_names(index, unet, name),
        frame_multiple=frame_multiple(unet, shape, mel),
    )


def frame_multiple(unet: Any, latent_shape: tuple[int, int, int], mel: MelSettings) -> int:
    """What an image's width in frames must be a multiple of: the VAE's factor times the UNet's halvings."""
    halvings = 2 ** (len(unet.config.block_out_channels) - 1)
    return int(mel.n_frames // latent_shape[2] * halvings)


def _class_names(index: dict[str, Any], unet: Any, name: str) -> tuple[str, ...]:
    """The names of a class-conditional UNet's labels; the last label, which means none given, has no name."""
    n_labels = unet.config.num_class_embeds
    if not n_labels:
        return ()
    named = index.get("id2label")
    if not isinstance(named, dict) or sorted(named) != sorted(str(label) for label in range(n_labels - 1)):
        raise ModelError(
            f"--model {name} is class-conditional, but its model_index.json does not name {n_labels - 1} classes "
            "in id2label (as `usk fit --class-conditional` does)"
        )
    return tuple(str(named[str(label)]) for label in range(n_labels - 1))


def _load_network(network_class: Any, folder: Path, name: str) -> Any:
    """One network in float32. diffusers would give tensors that the file lacks random values, with a mere warning."""
    network, report = network_class.from_pretrained(
        folder, subfolder=name, torch_dtype=torch.float32, output_loading_info=True
    )
    if report["missing_keys"]:
        raise ValueError(f"{sample_of(sorted(report['missing_keys']))} is missing")
    return network


def embedded_folder() -> Path:
    return Path(__file__).parent / "embedded"


def folder_fingerprint(folder: Path) -> str:
    """Twelve hex digits of SHA-256 over a pipeline folder's weights and configurations; cards and logs do not count."""
    digest = hashlib.sha256()
    for path in sorted([folder / "model_index.json", *folder.glob("*/*")]):
        if path.suffix in (".json", ".safetensors", ".bin") and path.is_file():
            digest.update(path.relative_to(folder).as_posix().encode())
            with path.open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
    return digest.hexdigest()[:12]


def _locate(name: str) -> tuple[Path, str]:
    """The pipeline folder of `name`, downloaded if it is a Hub id, and its id@revision."""
    if name == EMBEDDED:
        folder = embedded_folder()
        return folder, f"{EMBEDDED}@{folder_fingerprint(folder)}"
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "model_index.json").is_file():
            raise ModelError(f"--model {name} is no pipeline folder: it has no model_index.json")
        return folder, f"{folder.resolve().name}@{folder_fingerprint(folder)}"
    hub_id, _, revision = name.partition("@")
    if folder.exists() or hub_id.count("/") != 1 or name.startswith((".", "/", "~")):
        raise ModelError(
            f"--model {name}: no such pipeline folder; give a folder, a Hub id (user/name), or `embedded`"
        )
    return _download(hub_id, revision or None)


def _download(hub_id: str, revision: str | None) -> tuple[Path, str]:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        folder = Path(
            snapshot_download(hub_id, revision=revision, allow_patterns=["*.json", "*.safetensors", "*.bin"])
        )
    except RevisionNotFoundError as error:
        raise ModelError(f"--model {hub_id} has no revision {revision}") from error
    except GatedRepoError as error:
        raise ModelError(
            f"--model {hub_id} is gated: accept its terms on its Hub page, then `hf auth login`"
        ) from error
    except RepositoryNotFoundError as error:
        raise ModelError(f"--model {hub_id} is not on the Hub (or private: `hf auth login`)") from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        raise ModelError(
            f"--model {hub_id} cannot be downloaded (no network?); use --model embedded, or a pipeline folder"
        ) from error
    if not (folder / "model_index.json").is_file():
        raise ModelError(f"--model {hub_id} is no pipeline: it has no model_index.json")
    return folder, f"{hub_id}@{folder.name}"


def _read_json(path: Path, name: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(
            f"--model {name} is no audio-diffusion pipeline: {path.parent.name}/{path.name} is missing"
        ) from error
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ModelError(f"--model {name}: {path.parent.name}/{path.name} is not valid JSON") from error
    if not isinstance(content, dict):
        raise ModelError(f"--model {name}: {path.parent.name}/{path.name} is not a JSON object")
    return content


def _class_name(index: dict[str, Any], component: str) -> str:
    """The class of a component in `model_index.json`, which has [library, class]; empty where there is none."""
    entry = index.get(component)
    return str(entry[1] or "") if isinstance(entry, list) and len(entry) == 2 else ""


def as_audiodiffusion(folder: str | os.PathLike[str]) -> Any:
    """The folder as audiodiffusion's own `AudioDiffusionPipeline` (fp32, CPU), whatever it calls its mel class."""
    with quiet_libraries():
        from audiodiffusion.mel import Mel
        from audiodiffusion.pipeline_audio_diffusion import AudioDiffusionPipeline
        from diffusers import AutoencoderKL, DDIMScheduler, DDPMScheduler, UNet2DModel

        root = Path(folder)
        index = _read_json(root / "model_index.json", str(root))
        scheduler_class = (
            DDPMScheduler if _class_name(index, "scheduler") == "DDPMScheduler" else DDIMScheduler
        )
        with_vae = bool(_class_name(index, "vqvae"))
        return AudioDiffusionPipeline(
            vqvae=AutoencoderKL.from_pretrained(root, subfolder="vqvae") if with_vae else None,
            unet=UNet2DModel.from_pretrained(root, subfolder="unet"),
            mel=Mel.from_pretrained(root, subfolder="mel"),
            scheduler=scheduler_class.from_pretrained(root, subfolder="scheduler"),
        )
