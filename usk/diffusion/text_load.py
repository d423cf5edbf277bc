"""Load a text-to-audio pipeline folder of diffusers as a generator."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from usk.diffusion.continuous import ContinuousSchedule, CosineSchedule, FlowSchedule
from usk.diffusion.pipeline import INDEX_FILE, GeneratorInfo, read_pipeline_json
from usk.diffusion.schedule import NoiseSchedule
from usk.diffusion.text_families import AudioLdm, AudioLdm2, LongCatAudio, StableAudio, StableAudio3
from usk.diffusion.text_info import FAMILIES, check_components, text_shape
from usk.diffusion.text_pipeline import TextGenerator
from usk.diffusion.weights import quiet_libraries
from usk.errors import ModelError
from usk.hub import first_line

CLASSES: dict[str, type[TextGenerator]] = {
    "AudioLDM2Pipeline": AudioLdm2,
    "AudioLDMPipeline": AudioLdm,
    "MusicLDMPipeline": AudioLdm,
    "StableAudioPipeline": StableAudio,
    "StableAudio3Pipeline": StableAudio3,
    "LongCatAudioDiTPipeline": LongCatAudio,
}
ON_DEVICE = ("vae", "vocoder")  # beside the network; text encoders stay on the CPU


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
    with quiet_libraries(), _no_bars():
        import diffusers

        kind = getattr(diffusers, info.family)
        dtype = torch.bfloat16 if device.type == "cuda" and precision == "bf16" else torch.float32
        try:
            pipeline = kind.from_pretrained(
                folder,
                torch_dtype=dtype,
                use_safetensors=True,
                local_files_only=True,
                low_cpu_mem_usage=False,
            )
        except (
            Exception
        ) as error:  # a stranger's configuration can fail anywhere in diffusers and transformers
            raise ModelError(f"cannot be loaded: {first_line(error)}") from error
    for name, component in pipeline.components.items():
        if isinstance(component, torch.nn.Module):
            component.eval().requires_grad_(False)
            if name in (*ON_DEVICE, family.network):
                component.to(device)
    shape = text_shape(info.family, folder, read_pipeline_json)
    return CLASSES[info.family](
        **vars(info),
        model_id=model_id,
        device=device,
        precision=precision,
        pipeline=pipeline,
        schedule=schedule_of(info.family, pipeline),
        hop_samples=shape.hop_samples,
        network=getattr(pipeline, family.network),
    )


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
