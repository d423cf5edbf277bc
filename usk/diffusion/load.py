"""Load a generator: an audio-diffusion pipeline folder or Hub id. The one importer of audiodiffusion and diffusers' models."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import pickle
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from usk.audio.mel import MelSettings
from usk.data.pinned import download_model
from usk.device import autocast, default_precision, resolve_device
from usk.diffusion.ddim import NoiseSchedule, Predictor
from usk.diffusion.encoder import ENCODER_SIZE, encode_audio
from usk.errors import ModelError, UsageError
from usk.hub import causes, first_line
from usk.text import abbreviate_list

EMBEDDED = "embedded"
PUBLISHED = "teticio/audio-diffusion-ddim-256"
VAE_SCALE = 0.18215  # audiodiffusion's: latents of unit variance
TRAINED_ON_FILE = "trained_on.json"
AUDIO_ENCODER = "teticio/audio-encoder"  # what published conditional pipelines were trained with
AUDIO_ENCODER_FOLDER = "audio_encoder"  # in a pipeline folder that brings its encoder along
NETWORK_FILES = ("*.json", "*.safetensors", "*.bin")
WEIGHTS = re.compile(
    r"diffusion_pytorch_model(\.(?P<variant>\w+))?(-\d{5}-of-\d{5})?\.(?P<kind>safetensors|bin)"
)
LUMA = (0.299, 0.587, 0.114)  # red, green and blue in a gray image (ITU-R 601), as audiodiffusion mixes them


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
    encoder: Any | None = None  # of the audio that a conditional UNet is told; None for others

    @property
    def seen_groups(self) -> frozenset[str]:
        """Recordings that the network was fitted on; none are known of a generator that usk did not fit."""
        return frozenset(group for part in self.trained_on for group in part.get("groups", ()))

    def encodings(self, audio: torch.Tensor) -> torch.Tensor | None:
        """What a conditional UNet is told of clips [batch, samples] at the mel's sample rate: [batch, 1, 100] float32.

        None for an unconditional one, which is told nothing.
        """
        if self.encoder is None:
            return None
        return encode_audio(self.encoder, audio, self.mel.sample_rate_hz).to(self.device)

    def predict(self, noisy: torch.Tensor, timestep: int) -> torch.Tensor:
        """The network's raw output for a batch [batch, channels, height, width], float32, told no class."""
        return self.predictor(())(noisy, timestep)

    def predictor(
        self, class_names: Sequence[str], guidance: float = 1.0, encodings: torch.Tensor | None = None
    ) -> Predictor:
        """The network for a batch whose items have these classes, for `ddim_encode` and `ddim_decode`.

        Classes that the generator was not trained on, and all of them where it is not class-conditional, count as
        not given. `guidance` above 1 pushes away from what it would predict without a class, at the price of a second
        evaluation (classifier-free guidance, Ho & Salimans, arXiv 2207.12598); it does nothing where no class is
        known.

        `encodings` [batch, n, dimensions] are what a conditional UNet is told beside that (see `encodings`); without
        them it raises ModelError. Others are told nothing of them.
        """
        if self.encoder is not None and encodings is None:
            raise ModelError(
                f"--model {self.model_id} is conditional: it can only draw clips that it is given encodings for"
            )
        none = len(self.class_names)
        known = [self.class_names.index(name) if name in self.class_names else none for name in class_names]
        guided = guidance != 1.0 and any(label != none for label in known)

        def predict(noisy: torch.Tensor, timestep: int) -> torch.Tensor:
            batch, told = noisy, {}
            if self.class_names:
                told["class_labels"] = torch.tensor(known or [none] * len(noisy), device=noisy.device)
            if self.encoder is not None and encodings is not None:
                told["encoder_hidden_states"] = encodings.to(noisy.device)
            if guided:
                batch = torch.cat((noisy, noisy))
                told = {key: torch.cat((value, value)) for key, value in told.items()}
                told["class_labels"][len(noisy) :] = none
            with torch.no_grad(), autocast(self.device, self.precision):
                output = self.unet(
                    batch.to(memory_format=torch.channels_last), timestep, **told, return_dict=False
                )[0].float()
            if guided:
                with_class, without = output.chunk(2)
                output = without + guidance * (with_class - without)
            return output

        return predict

    def compiled(self) -> Generator:
        """This generator with its UNet compiled by torch, which takes a minute or more at its first evaluation.

        Raises UsageError where torch cannot compile (no C++ compiler, for example).
        """
        import torch._dynamo.exc
        import torch._inductor.exc

        compiled = replace(self, unet=torch.compile(self.unet))  # type: ignore[arg-type]
        if self.encoder is None:
            try:
                compiled.predict(torch.zeros(1, *self.latent_shape, device=self.device), 0)
            except (
                torch._dynamo.exc.TorchDynamoException,
                torch._inductor.exc.InductorError,
                RuntimeError,
            ) as error:
                reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
                raise UsageError(f"--compile does not work here ({reason}); leave it out") from error
        return compiled

    def to_latent(self, image: torch.Tensor) -> torch.Tensor:
        """Mel images [batch, 1, n_mels, n_frames] to what the UNet denoises [batch, *latent_shape]."""
        if self.vae is None:
            return image
        with torch.no_grad():
            gray = image.expand(-1, self.vae.config.in_channels, -1, -1)
            return VAE_SCALE * self.vae.encode(gray).latent_dist.mode()

    def to_image(self, latent: torch.Tensor) -> torch.Tensor:
        """The inverse of `to_latent`, clamped to [-1, 1]."""
        if self.vae is None:
            return latent.clamp(-1, 1)
        with torch.no_grad():
            image = self.vae.decode(latent / VAE_SCALE).sample.clamp(-1, 1)
        if image.shape[1] == 3:
            image = torch.einsum("bchw,c->bhw", image, torch.tensor(LUMA, device=image.device))[:, None]
        return image


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
    folder, model_id = locate_pipeline(name)
    index = read_pipeline_json(folder / "model_index.json", name)
    unet, vae = _load_networks(folder, index, name)
    class_names = _class_names(index, unet, name)
    try:
        mel = MelSettings.from_audiodiffusion(read_pipeline_json(folder / "mel" / "mel_config.json", name))
    except (TypeError, ValueError) as error:
        raise ModelError(f"--model {name}: mel/mel_config.json is not understood: {error}") from error
    schedule = NoiseSchedule.from_config(
        read_pipeline_json(folder / "scheduler" / "scheduler_config.json", name)
    )
    shape = _latent_shape(unet, vae, mel, name)
    encoder = _load_encoder(folder, unet, name) if _is_conditional(unet) else None
    trained_on, license = [], "unknown"
    if (folder / TRAINED_ON_FILE).is_file():
        record = read_pipeline_json(folder / TRAINED_ON_FILE, name)
        if not isinstance(record.get("sources"), list):
            raise ModelError(
                f"--model {name}: {TRAINED_ON_FILE} does not say what the generator was trained on"
            )
        trained_on, license = record["sources"], str(record.get("license", "unknown"))
    for network in (unet, vae, encoder):
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
        license=license,
        class_names=class_names,
        encoder=encoder,
        frame_multiple=frame_multiple(unet, shape, mel),
    )


def frame_multiple(unet: Any, latent_shape: tuple[int, int, int], mel: MelSettings) -> int:
    """What an image's width in frames must be a multiple of: the VAE's factor times the UNet's halvings."""
    halvings = 2 ** (len(unet.config.block_out_channels) - 1)
    return int(mel.n_frames // latent_shape[2] * halvings)


def _load_networks(folder: Path, index: dict[str, Any], name: str) -> tuple[Any, Any | None]:
    """The UNet and, where the pipeline has one, the VAE: float32, on the CPU."""
    unet_class = component_class(index, "unet")
    if unet_class not in ("UNet2DModel", "UNet2DConditionModel") or "mel" not in index:
        raise ModelError(
            f"--model {name} is no audio-diffusion pipeline: model_index.json names no UNet2DModel and mel"
        )
    with quiet_libraries():
        import diffusers

        unet = _load_network(getattr(diffusers, unet_class), folder / "unet", name)
        vae = None
        if component_class(index, "vqvae"):
            vae = _load_network(diffusers.AutoencoderKL, folder / "vqvae", name)  # type: ignore[attr-defined,unused-ignore]
    wanted = [
        key for key in ("class_embed_type", "addition_embed_type", "encoder_hid_dim") if unet.config.get(key)
    ]
    if wanted:
        raise ModelError(
            f"--model {name}: its UNet wants to be told things that usk does not know ({', '.join(wanted)})"
        )
    if unet.config.out_channels != unet.config.in_channels:
        raise ModelError(
            f"--model {name}: its UNet makes {unet.config.out_channels} channels of {unet.config.in_channels}; "
            "usk needs one that predicts the noise alone, not its variance"
        )
    return unet, vae


def _is_conditional(unet: Any) -> bool:
    """Whether the UNet attends to encodings."""
    return type(unet).__name__ == "UNet2DConditionModel"


def _latent_shape(unet: Any, vae: Any | None, mel: MelSettings, name: str) -> tuple[int, int, int]:
    """Channels, height and width of what the UNet denoises, which must be what the mel (and the VAE) make."""
    scale = 1 if vae is None else 2 ** (len(vae.config.block_out_channels) - 1)
    channels = 1 if vae is None else int(vae.config.latent_channels)
    made = (channels, mel.n_mels // scale, mel.n_frames // scale)
    size = unet.config.sample_size
    if size is None:  # not said: whatever comes
        size = made[1:]
    taken = (unet.config.in_channels, *((size, size) if isinstance(size, int) else size))
    if taken != made:
        raise ModelError(
            f"--model {name}: its UNet takes {' x '.join(map(str, taken))} but its mel {'makes' if vae is None else 'and VAE make'} "
            f"{' x '.join(map(str, made))} images"
        )
    return made


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


def _load_encoder(folder: Path, unet: Any, name: str) -> Any:
    """audiodiffusion's audio encoder for a conditional UNet: the pipeline's own, else the published one."""
    sizes = unet.config.cross_attention_dim
    if any(size != ENCODER_SIZE for size in ([sizes] if isinstance(sizes, int) else sizes)):
        raise ModelError(
            f"--model {name} is conditional on encodings of {sizes} numbers; usk knows audio-diffusion's audio encoder, "
            f"which makes {ENCODER_SIZE}"
        )
    own = folder / AUDIO_ENCODER_FOLDER
    place = own if own.is_dir() else _published_encoder(own, name)
    with quiet_libraries():
        from audiodiffusion.audio_encoder import AudioEncoder

        return _load_network(AudioEncoder, place, name)


def _published_encoder(own: Path, name: str) -> Path:
    """The folder with the encoder that published pipelines were trained with, for one that has none in `own`."""
    subject = f"--model {name} is conditional, and its audio encoder {AUDIO_ENCODER}"
    instead = f"put its files into {own}"
    return download_model(AUDIO_ENCODER, NETWORK_FILES, subject, instead, ModelError)[0]


def _load_network(network_class: Any, folder: Path, name: str) -> Any:
    """The network in `folder`, in float32. Tensors that its file lacks raise ModelError: diffusers would make them up.

    Weights in `.bin` files are unpickled as plain tensors or not at all. Old names of attention weights (diffusers
    before 0.17: query, key, value, proj_attn) are understood.
    """
    weights: Path | None = None
    try:
        weights, variant = _weights_file(folder)
        with _quiet_log():
            network, report = network_class.from_pretrained(
                folder,
                torch_dtype=torch.float32,
                use_safetensors=weights.suffix == ".safetensors",
                variant=variant,
                low_cpu_mem_usage=False,  # with and without accelerate, the same way through diffusers
                output_loading_info=True,
            )
        if report["missing_keys"]:
            raise ValueError(f"{abbreviate_list(sorted(report['missing_keys']))} is missing")
    except (
        OSError,
        ValueError,
        RuntimeError,
        LookupError,
        TypeError,
        AttributeError,
        ArithmeticError,
    ) as error:
        raise ModelError(f"--model {name}: {_why_not_loaded(error, weights)}") from error
    return network


def _weights_file(folder: Path) -> tuple[Path, str | None]:
    """A network's weights (of many shards, one) and the variant in their name: plain ones before fp16 before others."""
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    found = [(file, match) for file in files if (match := WEIGHTS.fullmatch(file.name))]
    if not found:
        raise FileNotFoundError(f"{folder.name} has no diffusion_pytorch_model.safetensors or .bin")
    file, match = min(
        found,
        key=lambda pair: (
            pair[1]["variant"] is not None,
            pair[1]["variant"] != "fp16",
            pair[1]["kind"] != "safetensors",
        ),
    )
    return file, match["variant"]


def _why_not_loaded(error: Exception, weights: Path | None) -> str:
    """Why a network did not load, in one line."""
    reason = first_line(error)
    if weights is not None:
        file = f"{weights.parent.name}/{weights.name}"
        if "git-lfs" in reason:
            reason = f"{file} is a pointer of Git LFS; run `git lfs pull` in its folder"
        elif any(isinstance(cause, pickle.UnpicklingError) for cause in causes(error)):
            return (
                f"{file} is refused: it is not plain tensors, and unpickling anything else could run code; "
                "ask its author for safetensors"
            )
        elif reason.startswith(("Unable to load weights", "Unable to locate the file")):
            reason = f"{file} is damaged or not whole; fetch it again"
    return f"its weights cannot be loaded: {reason}"


@contextlib.contextmanager
def _quiet_log() -> Iterator[None]:
    """diffusers logs what it then returns or raises."""
    logger = logging.getLogger("diffusers")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


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


def locate_pipeline(name: str) -> tuple[Path, str]:
    """The pipeline folder of `name`, downloaded if it is a Hub id, and its id@revision."""
    if name == EMBEDDED:
        folder = embedded_folder()
        return folder, f"{EMBEDDED}@{folder_fingerprint(folder)}"
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "model_index.json").is_file():
            if (folder / "fit.json").is_file():
                raise ModelError(
                    f"--model {name} is not finished; run the same `usk fit` again and it goes on where it stopped"
                )
            raise ModelError(f"--model {name} is no pipeline folder: it has no model_index.json")
        return folder, f"{folder.resolve().name}@{folder_fingerprint(folder)}"
    hub_id = name.partition("@")[0]
    if folder.exists() or hub_id.count("/") != 1 or name.startswith((".", "/", "~")):
        raise ModelError(
            f"--model {name}: no such pipeline folder; give a folder, a Hub id (user/name), or `embedded`"
        )
    return _download(name)


def _download(name: str) -> tuple[Path, str]:
    hub_id = name.partition("@")[0]
    subject, instead = f"--model {hub_id}", "use --model embedded, or a pipeline folder"
    index = "model_index.json"
    for files in ((index,), NETWORK_FILES):  # first what says whether it is worth its gigabytes
        folder, commit = download_model(name, files, subject, instead, ModelError)
        if not (folder / index).is_file():
            raise ModelError(f"{subject} is no pipeline: it has no {index}")
    return folder, f"{hub_id}@{commit}"


def read_pipeline_json(path: Path, name: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(
            f"--model {name} is no audio-diffusion pipeline: {path.parent.name}/{path.name} is missing"
        ) from error
    except (ValueError, RecursionError) as error:  # no UTF-8, no JSON, or nested too deep
        raise ModelError(f"--model {name}: {path.parent.name}/{path.name} is not valid JSON") from error
    if not isinstance(content, dict):
        raise ModelError(f"--model {name}: {path.parent.name}/{path.name} is not a JSON object")
    return content


def component_class(index: dict[str, Any], component: str) -> str:
    """The class of a component in `model_index.json`, which has [library, class]; empty where there is none."""
    entry = index.get(component)
    return str(entry[1] or "") if isinstance(entry, list) and len(entry) == 2 else ""


def as_audiodiffusion(folder: str | os.PathLike[str]) -> Any:
    """The folder as audiodiffusion's own `AudioDiffusionPipeline` (fp32, CPU), whatever it calls its mel class.

    Its UNet, if class-conditional, is told that no class is given wherever it is called without one, as the pipeline
    calls it.
    """
    root = Path(folder)
    index = read_pipeline_json(root / "model_index.json", str(root))
    unet, vae = _load_networks(root, index, str(root))
    if unet.config.num_class_embeds:
        unet.register_forward_pre_hook(_tell_no_class, with_kwargs=True)
    with quiet_libraries():
        from audiodiffusion.mel import Mel
        from audiodiffusion.pipeline_audio_diffusion import AudioDiffusionPipeline
        from diffusers import DDIMScheduler, DDPMScheduler

        scheduler_class = (
            DDPMScheduler if component_class(index, "scheduler") == "DDPMScheduler" else DDIMScheduler
        )
        return AudioDiffusionPipeline(
            vqvae=vae,
            unet=unet,
            mel=Mel.from_pretrained(root, subfolder="mel"),
            scheduler=scheduler_class.from_pretrained(root, subfolder="scheduler"),
        )


def _tell_no_class(
    unet: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """A forward pre-hook: fills in the last label, which means that no class is given, where there is none."""
    position = 3 if _is_conditional(unet) else 2  # of class_labels among forward's parameters
    if (args[position] if len(args) > position else kwargs.get("class_labels")) is not None:
        return args, kwargs
    sample = args[0] if args else kwargs["sample"]
    none = torch.full((len(sample),), unet.config.num_class_embeds - 1, device=sample.device)
    if len(args) > position:
        return (*args[:position], none, *args[position + 1 :]), kwargs
    return args, {**kwargs, "class_labels": none}
