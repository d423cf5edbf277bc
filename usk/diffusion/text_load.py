"""Load a text-to-audio pipeline folder of diffusers as a generator."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch

from usk.device import DTYPES
from usk.diffusion import text_families
from usk.diffusion.pipeline import INDEX_FILE, GeneratorInfo, read_pipeline_json
from usk.diffusion.text_info import text_shape
from usk.diffusion.text_memory import ModelSize, meta_networks
from usk.diffusion.text_pipeline import DECODERS, TextGenerator
from usk.diffusion.weights import quiet_libraries, quiet_log
from usk.errors import ModelError
from usk.hub import first_line
from usk.text import abbreviate_list

VOCABULARIES = ("tokenizer.json", "vocab.*", "*.model")  # without them, transformers makes an empty tokenizer
COPY_AGAIN = "Copy or download the whole folder again; weights are read from safetensors alone."


def load_text_generator(
    folder: Path, info: GeneratorInfo, model_id: str, device: torch.device, precision: str
) -> TextGenerator:
    """Load the pipeline in `folder`, which `info` describes. Raises ModelError."""
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
    family: type[TextGenerator] = getattr(text_families, info.family.removesuffix("Pipeline"))
    network_classes = {name: type(network) for name, network in networks.items()}
    read = partial(_read, folder, family, network_classes, dtype)
    pipeline = read({})
    network = getattr(pipeline, size.network)
    decoders = [part for name in DECODERS if (part := pipeline.components.get(name)) is not None]
    takes_turns = size.takes_turns(dtype.itemsize, device)
    if not takes_turns:
        for part in (network, *decoders):
            part.to(device)
    return family(
        **vars(info),
        model_id=model_id,
        device=device,
        precision=precision,
        pipeline=pipeline,
        schedule=family.schedule_of(dict(pipeline.scheduler.config)),
        hop_samples=text_shape(info.family, folder, read_pipeline_json).hop_samples,
        network=network,
        reread=read,
        takes_turns=takes_turns,
    )


def _read(
    folder: Path,
    family: type[TextGenerator],
    network_classes: dict[str, Any],
    dtype: torch.dtype,
    loaded: dict[str, Any],
) -> Any:
    """Read the pipeline in `folder` with frozen weights. Components that are `loaded` are not read again. Raises ModelError."""
    parts = loaded | dict.fromkeys(family.not_loaded)
    with quiet_libraries(), quiet_log(), quiet_log("transformers"):
        import diffusers

        for name, network_class in network_classes.items():
            if name not in parts:
                parts[name] = _read_network(network_class, folder / name, dtype)
        for name in read_pipeline_json(folder / INDEX_FILE):
            vocabularies = [file for pattern in VOCABULARIES for file in (folder / name).glob(pattern)]
            if name.startswith("tokenizer") and not vocabularies:
                raise ModelError(f"{name} cannot be loaded: its folder has no vocabulary", hint=COPY_AGAIN)
        try:
            pipeline_class = getattr(diffusers, f"{family.__name__}Pipeline")
            pipeline = pipeline_class.from_pretrained(folder, local_files_only=True, **parts)
        except Exception as error:  # damaged or foreign files can fail anywhere in diffusers and transformers
            raise ModelError(f"cannot be loaded: {first_line(error)}", hint=COPY_AGAIN) from error
        family.complete(pipeline, folder)
    for name in network_classes:
        getattr(pipeline, name).eval().requires_grad_(False)
    return pipeline


def _read_network(network_class: Any, folder: Path, dtype: torch.dtype) -> Any:
    """Read a network of a pipeline. Raises ModelError, also for missing tensors, which both libraries would initialize."""
    is_diffusers = hasattr(network_class, "from_config")
    options = {"torch_dtype": dtype, "low_cpu_mem_usage": False} if is_diffusers else {"dtype": dtype}
    try:
        network, report = network_class.from_pretrained(
            folder, use_safetensors=True, local_files_only=True, output_loading_info=True, **options
        )
        parameters = {name for name, _ in network.named_parameters()}
        if missing := sorted(parameters & set(report["missing_keys"])):
            raise ValueError(f"its files lack {abbreviate_list(missing)}")
        if quantized := _integer_weights(folder, parameters):
            raise ValueError(f"{quantized} is of whole numbers; quantized weights are not read")
    except Exception as error:  # damaged or foreign weights can fail anywhere in diffusers and transformers
        reason = first_line(error)
        if "ignore_mismatched_sizes" in reason:  # it names no size
            reason = "its weights do not have the sizes that its config.json says"
        raise ModelError(f"{folder.name} cannot be loaded: {reason}", hint=COPY_AGAIN) from error
    return network


def _integer_weights(folder: Path, parameters: set[str]) -> str:
    """Return the name of a parameter that is stored in whole numbers (they would be used unscaled), or an empty string."""
    from safetensors import safe_open

    for file in folder.glob("*.safetensors"):
        with safe_open(file, "pt") as opened:
            for name in parameters & set(opened.keys()):
                if not opened.get_slice(name).get_dtype().startswith(("F", "BF")):
                    return name
    return ""
