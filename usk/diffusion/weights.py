"""Load a network of a pipeline folder completely, or raise a one-line ModelError."""

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
    """Suppress warnings inside. Importing audiodiffusion silences all warnings of the process; on exit they are back."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def load_network(network_class: Any, folder: Path) -> Any:
    """Load the network in `folder`, in float32. Raises ModelError, also for missing tensors, which diffusers would initialize.

    Weights in `.bin` files are unpickled only if they are plain tensors. The names of attention weights before diffusers 0.17
    (query, key, value, proj_attn) are supported.
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
                low_cpu_mem_usage=False,  # so that diffusers loads the same way with and without accelerate
                output_loading_info=True,
            )
        if report["missing_keys"]:
            raise ValueError(f"{abbreviate_list(sorted(report['missing_keys']))} is missing")
    except Exception as error:  # damaged or foreign files can fail anywhere in diffusers
        raise ModelError(_failure_reason(error, weights)) from error
    return network


def _check_size(network_class: Any, config: dict[str, Any], folder: Path) -> None:
    """Raise ValueError for a setting of the wrong type, and for more parameters than the files have bytes."""
    if not hasattr(network_class, "load_config"):  # audiodiffusion's encoder has one size
        return
    numbers = (bool, int, float)
    for name, parameter in inspect.signature(network_class).parameters.items():
        value, annotation = config.get(name), parameter.annotation
        allowed: Any = numbers if annotation in numbers else str if annotation is str else object
        if value is not None and not isinstance(value, allowed) and name != "sample_size":
            raise ValueError(f"config.json: {name} is {value!r}")
    with torch.device("meta"), quiet_log():
        n_parameters = sum(parameter.numel() for parameter in network_class.from_config(config).parameters())
    n_bytes = sum(file.stat().st_size for file in folder.iterdir() if WEIGHTS.fullmatch(file.name))
    if n_parameters > max(n_bytes, 1 << 20):
        raise ValueError(
            f"config.json describes {n_parameters:,} parameters, and the files hold {n_bytes:,} bytes"
        )


def _weights_file(folder: Path) -> tuple[Path, str | None]:
    """Return a file of weights (one of several shards) and the variant in its name. Plain weights come before fp16 and others."""
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    found = [(file, match) for file in files if (match := WEIGHTS.fullmatch(file.name))]
    if not found:
        raise FileNotFoundError(f"{folder.name} has no diffusion_pytorch_model.safetensors or .bin")

    def rank(candidate: tuple[Path, re.Match[str]]) -> tuple[bool, bool, bool]:
        _, match = candidate
        return match["variant"] is not None, match["variant"] != "fp16", match["kind"] != "safetensors"

    file, match = min(found, key=rank)
    return file, match["variant"]


def _failure_reason(error: Exception, weights: Path | None) -> str:
    """Return in one line why a network did not load."""
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
    """Silence the log of diffusers or transformers, which repeats errors, and its progress bars, which would break ours."""
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
