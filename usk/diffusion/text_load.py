"""Load a text-to-audio pipeline folder of diffusers as a generator."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from usk.device import DTYPES
from usk.diffusion import text_families
from usk.diffusion.continuous import ContinuousSchedule, CosineSchedule, FlowSchedule
from usk.diffusion.pipeline import INDEX_FILE, GeneratorInfo, read_pipeline_json
from usk.diffusion.schedule import NoiseSchedule
from usk.diffusion.text_info import text_shape
from usk.diffusion.text_memory import ModelSize, meta_networks
from usk.diffusion.text_pipeline import DECODERS, TextGenerator
from usk.diffusion.weights import quiet_libraries, quiet_log
from usk.errors import ModelError
from usk.hub import first_line
from usk.text import abbreviate_list

VOCABULARIES = ("tokenizer.json", "vocab.*", "*.model")  # without one transformers makes an empty tokenizer
COPY = "Copy or download the whole folder again; weights are read from safetensors alone."


def load_text_generator(
    folder: Path, info: GeneratorInfo, model_id: str, device: torch.device, precision: str
) -> TextGenerator:
    """The pipeline in `folder`, which `info` describes. Raises ModelError."""
    try:
        import transformers  # noqa: F401
    except ImportError as error:
        raise ModelError(
            "is a text-to-audio pipeline and needs the package transformers",
            hint="pip install 'urban-sound-kit[hf]'",
        ) from error
    dtype = DTYPES[precision] if device.type == "cuda" else torch.float32
    networks = meta_networks(folder, info.family)
    size = ModelSize.of(networks, info.family)
    size.check_main_memory(dtype.itemsize)
    read = partial(_read, folder, info.family, {name: type(of) for name, of in networks.items()}, dtype)
    pipeline = read({})
    network = getattr(pipeline, size.network)
    decoders = [part for name in DECODERS if (part := pipeline.components.get(name)) is not None]
    takes_turns = size.takes_turns(dtype.itemsize, device)
    if not takes_turns:
        for part in (network, *decoders):
            part.to(device)
    shape = text_shape(info.family, folder, read_pipeline_json)
    of_family: type[TextGenerator] = getattr(text_families, info.family.removesuffix("Pipeline"))
    return of_family(
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


def _read(
    folder: Path, kind: str, networks: Mapping[str, Any], dtype: torch.dtype, given: Mapping[str, Any]
) -> Any:
    """The pipeline in `folder`, frozen; components that are `given` are not read from the disk."""
    parts = dict(given)
    with quiet_libraries(), quiet_log(), quiet_log("transformers"):
        import diffusers

        for name, of in networks.items():
            if name not in parts:
                parts[name] = _network(of, folder / name, dtype)
        if kind == "StableAudioPipeline":
            parts["scheduler"] = None
        for name in read_pipeline_json(folder / INDEX_FILE):
            if name.startswith("tokenizer") and not any(
                list((folder / name).glob(of)) for of in VOCABULARIES
            ):
                raise ModelError(f"{name} cannot be loaded: its folder has no vocabulary", hint=COPY)
        try:
            pipeline = getattr(diffusers, kind).from_pretrained(folder, local_files_only=True, **parts)
        # A stranger's configuration can fail anywhere in diffusers and transformers
        except Exception as error:
            raise ModelError(f"cannot be loaded: {first_line(error)}", hint=COPY) from error
        if kind == "StableAudioPipeline":
            pipeline.scheduler = cosine_scheduler(folder)
        if kind == "AudioLDM2Pipeline":
            pipeline.language_model = generating(pipeline.language_model)
    for name in networks:
        getattr(pipeline, name).eval().requires_grad_(False)
    return pipeline


def _network(of: Any, folder: Path, dtype: torch.dtype) -> Any:
    """A pipeline's network, whole. Raises ModelError, also for tensors that its files lack: both libraries would make them up."""
    is_diffusers = hasattr(of, "from_config")
    more = {"torch_dtype": dtype, "low_cpu_mem_usage": False} if is_diffusers else {"dtype": dtype}
    try:
        network, report = of.from_pretrained(
            folder, use_safetensors=True, local_files_only=True, output_loading_info=True, **more
        )
        parameters = {name for name, _ in network.named_parameters()}
        if missing := sorted(parameters & set(report["missing_keys"])):
            raise ValueError(f"its files lack {abbreviate_list(missing)}")
        if whole := _integer_weights(folder, parameters):
            raise ValueError(f"{whole} is of whole numbers; quantized weights are not read")
    except Exception as error:  # a stranger's weights can fail anywhere in diffusers and transformers
        said = first_line(error)
        if "ignore_mismatched_sizes" in said:  # which says no more
            said = "its weights do not have the sizes that its config.json says"
        raise ModelError(f"{folder.name} cannot be loaded: {said}", hint=COPY) from error
    return network


def _integer_weights(folder: Path, parameters: set[str]) -> str:
    """The name of a parameter that a file holds in whole numbers, which would count as they are; empty for none."""
    from safetensors import safe_open

    for file in folder.glob("*.safetensors"):
        with safe_open(file, "pt") as opened:
            for name in parameters & set(opened.keys()):
                if not opened.get_slice(name).get_dtype().startswith(("F", "BF")):
                    return name
    return ""


def cosine_scheduler(folder: Path) -> Any:
    """The scheduler that Stable Audio names, for what its network is told of the noise: diffusers' own class needs torchsde."""
    from diffusers import EDMDPMSolverMultistepScheduler

    class Cosine(EDMDPMSolverMultistepScheduler):
        def precondition_noise(self, sigma: torch.Tensor) -> torch.Tensor:
            return sigma.atan() / math.pi * 2

    config = read_pipeline_json(folder / "scheduler" / "scheduler_config.json")
    own = config.get("_class_name") == EDMDPMSolverMultistepScheduler.__name__
    return (EDMDPMSolverMultistepScheduler if own else Cosine).from_config(config)


def generating(language_model: Any) -> Any:
    """AudioLDM 2's language model: published folders name GPT2Model, and the pipeline calls what only GPT2LMHeadModel has."""
    from transformers import GPT2LMHeadModel, GPT2Model

    if not isinstance(language_model, GPT2Model):
        return language_model
    with torch.device("meta"):
        whole = GPT2LMHeadModel(language_model.config)
    whole.transformer = language_model
    whole.lm_head.weight = language_model.wte.weight  # which shares it, and nothing asks for
    return whole


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
