"""Add LoRA weights (arXiv 2106.09685) to a network of diffusers through peft, and read and write them in peft's format."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch

from usk.diffusion.adapter import ADAPTER_FILE, ADAPTER_WEIGHTS, Adapter
from usk.errors import ModelError
from usk.files import atomic_write
from usk.text import abbreviate_list

ATTENTION = re.compile(r"(?:^|\.)(to_(?:q|k|v|kv|qkv|out)(?:\.0)?)$")
"""Matches the names of attention's linear layers."""

PREFIX = "base_model.model."  # of tensor names in peft's files


def attention_layers(network: Any) -> tuple[str, ...]:
    """Return the ends of the names of a network's linear layers in attention."""
    found = {
        match[1]
        for name, module in network.named_modules()
        if isinstance(module, torch.nn.Linear) and (match := ATTENTION.search(name))
    }
    return tuple(sorted(found))


def require_peft() -> None:
    """Raise ModelError if peft is not installed, before gigabytes are downloaded."""
    try:
        import peft  # noqa: F401
    except ImportError as error:
        raise ModelError(
            "LoRA weights need the package peft", hint="pip install 'urban-sound-kit[hf]'"
        ) from error


def add_adapter(network: Any, adapter: Adapter) -> dict[str, torch.nn.Parameter]:
    """Add LoRA weights in float32 to a network, and freeze its own. One factor is zero, so that they change nothing yet.

    Returns what `adapter_weights` returns. Raises ModelError if the network lacks the layers.
    """
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(
        r=adapter.rank,
        lora_alpha=adapter.alpha,
        target_modules=list(adapter.target_modules),
        lora_dropout=0.0,
    )
    try:
        inject_adapter_in_model(config, network)
    except ValueError as error:
        raise ModelError(f"has none of the layers {abbreviate_list(list(adapter.target_modules))}") from error
    added = adapter_weights(network)
    for parameter in added.values():
        parameter.data = parameter.data.float()
    return added


def adapter_weights(network: Any) -> dict[str, torch.nn.Parameter]:
    """Return the LoRA weights of a network by their names in peft's files."""
    return {
        PREFIX + name.replace(".default.", "."): parameter
        for name, parameter in network.named_parameters()
        if ".lora_" in name
    }


def read_adapter(network: Any, folder: Path, adapter: Adapter) -> None:
    """Add the LoRA weights in `folder` to a network. Raises ModelError."""
    from safetensors.torch import load

    try:
        tensors = load((folder / ADAPTER_WEIGHTS).read_bytes())
    except Exception as error:  # safetensors raises several types
        raise ModelError(
            f"{ADAPTER_WEIGHTS} is missing or damaged", hint="Fit or download it again."
        ) from error
    added = add_adapter(network, adapter)
    shapes = {name: parameter.shape for name, parameter in added.items()}
    if shapes != {name: tensor.shape for name, tensor in tensors.items()}:
        raise ModelError(f"{ADAPTER_WEIGHTS} does not fit the layers of {adapter.base_name}")
    with torch.no_grad():
        for name, parameter in added.items():
            parameter.copy_(tensors[name])
    network.eval().requires_grad_(False)


def write_adapter(
    folder: Path, adapter: Adapter, added: dict[str, torch.nn.Parameter], records: dict[str, Any]
) -> None:
    """Write an adapter's folder: weights in float16, `records` (JSON by file name), and peft's configuration last."""
    from safetensors.torch import save

    tensors = {name: parameter.detach().cpu().half().contiguous() for name, parameter in added.items()}
    atomic_write(folder / ADAPTER_WEIGHTS, save(tensors, metadata={"format": "pt"}))
    for name, content in {**records, ADAPTER_FILE: adapter.as_dict()}.items():
        atomic_write(folder / name, (json.dumps(content, indent=1) + "\n").encode())
