"""One network of a pipeline folder, loaded whole or refused in one line."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import logging
import pickle
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from usk.diffusion.pipeline import checked_sizes
from usk.errors import ModelError
from usk.hub import causes, first_line
from usk.text import abbreviate_list

WEIGHTS = re.compile(
    r"diffusion_pytorch_model(\.(?P<variant>\w+))?(-\d{5}-of-\d{5})?\.(?P<kind>safetensors|bin)"
)


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """audiodiffusion silences all warnings for the whole process when imported; this keeps that to its import."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def load_network(network_class: Any, folder: Path) -> Any:
    """The network in `folder`, in float32. Tensors that its file lacks raise ModelError: diffusers would make them up.

    Weights in `.bin` files are unpickled as plain tensors or not at all. Old names of attention weights (diffusers
    before 0.17: query, key, value, proj_attn) are understood.
    """
    weights: Path | None = None
    config = checked_sizes(folder)
    try:
        weights, variant = _weights_file(folder)
        _check_size(network_class, config, folder)
        with quiet_log():
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
    except Exception as error:  # a stranger's configuration can fail anywhere in diffusers
        raise ModelError(_why_not_loaded(error, weights)) from error
    return network


def _check_size(network_class: Any, config: dict[str, Any], folder: Path) -> None:
    """Raise ValueError if the network would have more parameters than its files hold bytes, or a setting is of a type that it has not."""
    if not hasattr(network_class, "load_config"):  # audiodiffusion's encoder has one size
        return
    scalars: dict[Any, tuple[type, ...]] = {
        str: (str,),
        **dict.fromkeys((bool, int, float), (bool, int, float)),
    }
    for name, parameter in inspect.signature(network_class).parameters.items():
        value, kinds = config.get(name), scalars.get(parameter.annotation)
        if kinds and value is not None and not isinstance(value, kinds) and name != "sample_size":
            raise ValueError(f"config.json: {name} is {value!r}")
    with torch.device("meta"), quiet_log():
        wanted = sum(parameter.numel() for parameter in network_class.from_config(config).parameters())
    held = sum(file.stat().st_size for file in folder.iterdir() if WEIGHTS.fullmatch(file.name))
    if wanted > max(held, 1 << 20):
        raise ValueError(f"config.json describes {wanted:,} parameters, and the files hold {held:,} bytes")


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
            reason = f"{file} is damaged or incomplete; fetch it again"
    return f"its weights cannot be loaded: {reason}"


@contextlib.contextmanager
def quiet_log(library: str = "diffusers") -> Iterator[None]:
    """diffusers (and transformers) logs what it then returns or raises, and its bars would tear ours."""
    log: Any = importlib.import_module(f"{library}.utils.logging")
    before, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity(logging.CRITICAL)
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(before)
        if bars:
            log.enable_progress_bar()
