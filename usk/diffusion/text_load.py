"""Load a text-to-audio pipeline folder of diffusers as a generator."""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from usk.device import free_device_bytes, memory_allowed_bytes
from usk.diffusion.continuous import ContinuousSchedule, CosineSchedule, FlowSchedule
from usk.diffusion.pipeline import INDEX_FILE, GeneratorInfo, read_pipeline_json
from usk.diffusion.schedule import NoiseSchedule
from usk.diffusion.text_families import AudioLdm, AudioLdm2, LongCatAudio, MusicLdm, StableAudio, StableAudio3
from usk.diffusion.text_info import FAMILIES, check_components, text_shape
from usk.diffusion.text_pipeline import DECODERS, TextGenerator
from usk.diffusion.weights import quiet_libraries
from usk.errors import ModelError
from usk.hub import first_line

CLASSES: dict[str, type[TextGenerator]] = {
    "AudioLDM2Pipeline": AudioLdm2,
    "AudioLDMPipeline": AudioLdm,
    "MusicLDMPipeline": MusicLdm,
    "StableAudioPipeline": StableAudio,
    "StableAudio3Pipeline": StableAudio3,
    "LongCatAudioDiTPipeline": LongCatAudio,
}
FILLED = 0.9  # of what is free; the rest is for activations, whose batches find what fits
LOADED = re.compile(r"(diffusion_pytorch_)?model(-\d{5}-of-\d{5})?\.safetensors")


def load_text_generator(
    folder: Path, info: GeneratorInfo, model_id: str, device: torch.device, precision: str
) -> TextGenerator:
    """The pipeline in `folder`, which `info` describes. Raises ModelError."""
    index = read_pipeline_json(folder / INDEX_FILE)
    family = FAMILIES[info.family]
    check_components(index, family)
    try:
        import transformers  # noqa: F401
    except ImportError as error:
        raise ModelError(
            "is a text-to-audio pipeline and needs the package transformers",
            hint="pip install 'urban-sound-kit[hf]'",
        ) from error
    dtype = torch.bfloat16 if device.type == "cuda" and precision == "bf16" else torch.float32
    _check_memory(folder, dtype)

    def read(given: dict[str, Any]) -> Any:
        """The pipeline, frozen; components that are `given` are not read from the disk."""
        with quiet_libraries(), _no_bars():
            import diffusers

            kind = getattr(diffusers, info.family)
            try:
                pipeline = kind.from_pretrained(
                    folder,
                    torch_dtype=dtype,
                    use_safetensors=True,
                    local_files_only=True,
                    low_cpu_mem_usage=False,
                    **given,
                )
            except (
                Exception
            ) as error:  # a stranger's configuration can fail anywhere in diffusers and transformers
                raise ModelError(f"cannot be loaded: {first_line(error)}") from error
        for component in pipeline.components.values():
            if isinstance(component, torch.nn.Module):
                component.eval().requires_grad_(False)
        return pipeline

    pipeline = read({})
    network = getattr(pipeline, family.network)
    decoders = [part for name in DECODERS if (part := pipeline.components.get(name)) is not None]
    takes_turns = take_turns([network], decoders, device)
    if not takes_turns:
        for part in (network, *decoders):
            part.to(device)
    shape = text_shape(info.family, folder, read_pipeline_json)
    return CLASSES[info.family](
        **vars(info),
        model_id=model_id,
        device=device,
        precision=precision,
        pipeline=pipeline,
        schedule=schedule_of(info.family, pipeline),
        hop_samples=shape.hop_samples,
        network=network,
        reread=read,
        takes_turns=takes_turns,
    )


def take_turns(network: Sequence[Any], decoders: Sequence[Any], device: torch.device) -> bool:
    """Whether the network and what decodes do not fit on the device together. Raises ModelError if one of them alone does not."""
    sizes = [sum(_bytes_of(part) for part in parts) for parts in (network, decoders)]
    free = FILLED * free_device_bytes(device)
    if max(sizes) > free:
        raise ModelError(
            f"needs {max(sizes) / 1e9:.1f} GB on {device} with its parts taking turns there, and {free / 1e9:.1f} GB are free",
            hint="Use the device cpu, or a smaller model.",
        )
    return sum(sizes) > free


def _bytes_of(part: Any) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in part.state_dict().values())


def _check_memory(folder: Path, dtype: torch.dtype) -> None:
    """Raise ModelError if the pipeline's weights, text encoders too, are more than this process may hold."""
    needed = sum(map(_parameters_in, folder.glob("*/*.safetensors"))) * dtype.itemsize
    allowed = FILLED * memory_allowed_bytes()
    if needed > allowed:
        raise ModelError(
            f"needs {needed / 1e9:.1f} GB of main memory for its weights, and {allowed / 1e9:.1f} GB can be used",
            hint="Use a smaller model, or a machine with more.",
        )


def _parameters_in(file: Path) -> int:
    """How many numbers a file that diffusers would read holds, by its header; 0 for variants and what cannot be read."""
    if not LOADED.fullmatch(file.name):
        return 0
    try:
        with file.open("rb") as stream:
            header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
        return sum(math.prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")
    except (OSError, ValueError, KeyError, TypeError, OverflowError, MemoryError):
        return 0  # what is wrong with it is said when it is loaded


@contextlib.contextmanager
def _no_bars() -> Iterator[None]:
    """The libraries' own bars would tear ours."""
    from diffusers.utils import logging as of_diffusers
    from transformers.utils import logging as of_transformers

    of_diffusers.disable_progress_bar()
    of_transformers.disable_progress_bar()
    try:
        yield
    finally:
        of_diffusers.enable_progress_bar()
        of_transformers.enable_progress_bar()


def schedule_of(kind: str, pipeline: Any) -> NoiseSchedule | ContinuousSchedule:
    """The noise schedule of a pipeline. Raises ModelError for a scheduler whose process cannot be inverted."""
    config = dict(pipeline.scheduler.config)
    if kind == "StableAudioPipeline":
        if (
            config.get("prediction_type", "v_prediction") != "v_prediction"
            or config.get("sigma_data", 1.0) != 1.0
        ):
            raise ModelError("its scheduler does not predict v with data of unit variance")
        return CosineSchedule(float(config["sigma_min"]), float(config["sigma_max"]))
    if kind == "StableAudio3Pipeline":
        return FlowSchedule(float(config.get("shift", 1.0)), logsnr_min=-6.2, logsnr_max=2.0)
    if kind == "LongCatAudioDiTPipeline":
        return FlowSchedule(float(config.get("shift", 1.0)))
    return NoiseSchedule.from_config({**config, "_class_name": "DDIMScheduler", "clip_sample": False})
