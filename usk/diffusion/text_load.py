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
    kind: type[TextGenerator] = getattr(text_families, info.family.removesuffix("Pipeline"))
    read = partial(_read, folder, kind, {name: type(of) for name, of in networks.items()}, dtype)
    pipeline = read({})
    network = getattr(pipeline, size.network)
    decoders = [part for name in DECODERS if (part := pipeline.components.get(name)) is not None]
    takes_turns = size.takes_turns(dtype.itemsize, device)
    if not takes_turns:
        for part in (network, *decoders):
            part.to(device)
    return kind(
        **vars(info),
        model_id=model_id,
        device=device,
        precision=precision,
        pipeline=pipeline,
        schedule=kind.schedule_of(dict(pipeline.scheduler.config)),
        hop_samples=text_shape(info.family, folder, read_pipeline_json).hop_samples,
        network=network,
        reread=read,
        takes_turns=takes_turns,
    )


def _read(
    folder: Path,
    kind: type[TextGenerator],
    networks: dict[str, Any],
    dtype: torch.dtype,
    given: dict[str, Any],
) -> Any:
    """The pipeline in `folder`, frozen; components that are `given` are not read from the disk."""
    parts = given | dict.fromkeys(kind.not_loaded)
    with quiet_libraries(), quiet_log(), quiet_log("transformers"):
        import diffusers

        for name, of in networks.items():
            if name not in parts:
                parts[name] = _network(of, folder / name, dtype)
        for name in read_pipeline_json(folder / INDEX_FILE):
            if name.startswith("tokenizer") and not any([*(folder / name).glob(of)] for of in VOCABULARIES):
                raise ModelError(f"{name} cannot be loaded: its folder has no vocabulary", hint=COPY)
        try:
            published = getattr(diffusers, f"{kind.__name__}Pipeline")
            pipeline = published.from_pretrained(folder, local_files_only=True, **parts)
        # A stranger's configuration can fail anywhere in diffusers and transformers
        except Exception as error:
            raise ModelError(f"cannot be loaded: {first_line(error)}", hint=COPY) from error
        kind.complete(pipeline, folder)
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
