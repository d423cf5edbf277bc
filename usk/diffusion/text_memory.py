"""Compute the memory that a text-to-audio model needs, from the configurations in its folder. No weights are read."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from usk.device import free_device_bytes, memory_allowed_bytes
from usk.diffusion.adapter import find_adapter
from usk.diffusion.pipeline import (
    CONFIG_FILES,
    INDEX_FILE,
    describe_folder,
    locate_base,
    locate_pipeline,
    naming_model,
    read_pipeline_json,
)
from usk.diffusion.text_info import FAMILIES, check_components
from usk.diffusion.text_pipeline import DECODERS
from usk.diffusion.weights import quiet_libraries, quiet_log
from usk.errors import ModelError
from usk.hub import first_line
from usk.typed_json import oversized_key

USABLE_SHARE = 0.9  # of free memory, for weights; the rest is for activations


def meta_networks(folder: Path, kind: str) -> dict[str, Any]:
    """Return the networks of the pipeline in `folder` by component, on the meta device. Raises ModelError."""
    index = read_pipeline_json(folder / INDEX_FILE)
    check_components(index, FAMILIES[kind])
    found = {}
    with quiet_libraries(), quiet_log(), torch.device("meta"):
        for name, entry in index.items():
            library, class_name = entry if isinstance(entry, list) and len(entry) == 2 else ("", "")
            if not library or not (folder / name / "config.json").is_file():
                continue  # a tokenizer or scheduler
            config = read_pipeline_json(folder / name / "config.json")
            if large := oversized_key(config):
                raise ModelError(f"{large} in {name}/config.json is too large")
            module = library if library in ("diffusers", "transformers") else f"diffusers.pipelines.{library}"
            try:
                network_class = getattr(importlib.import_module(module), class_name)
                if library == "transformers":
                    found[name] = network_class(network_class.config_class.from_dict(config))
                else:
                    found[name] = network_class.from_config(config)
            except Exception as error:  # damaged or foreign files can fail anywhere in these libraries
                raise ModelError(f"{name}/config.json is not understood: {first_line(error)}") from error
    return found


@dataclass(frozen=True)
class ModelSize:
    """The number of parameters of a pipeline's networks, by component."""

    parameters: Mapping[str, int]
    network: str  # the component that denoises

    @classmethod
    def of(cls, networks: Mapping[str, Any], kind: str) -> ModelSize:
        """Count the parameters of what `meta_networks` returns."""
        counts = {name: sum(p.numel() for p in part.parameters()) for name, part in networks.items()}
        return cls(counts, FAMILIES[kind].network)

    @property
    def total(self) -> int:
        return sum(self.parameters.values())

    @property
    def on_device(self) -> tuple[int, int]:
        """Return the parameters on the device: of the network that denoises, and of the decoders."""
        return self.parameters.get(self.network, 0), sum(self.parameters.get(name, 0) for name in DECODERS)

    def check_main_memory(self, itemsize: int) -> None:
        """Raise ModelError if all weights together, with the text encoders, exceed the memory of this process."""
        needed, allowed = self.total * itemsize, USABLE_SHARE * memory_allowed_bytes()
        if needed > allowed:
            raise ModelError(
                f"needs {needed / 1e9:.1f} GB of main memory for its weights, and {allowed / 1e9:.1f} GB can be used",
                hint="Use a smaller model, or a machine with more.",
            )

    def takes_turns(self, itemsize: int, device: torch.device) -> bool:
        """Whether network and decoders must take turns on the device. Raises ModelError if one of them does not fit alone."""
        sizes = [count * itemsize for count in self.on_device]
        free = USABLE_SHARE * free_device_bytes(device)
        if max(sizes) > free:
            raise ModelError(
                f"needs {max(sizes) / 1e9:.1f} GB on {device} with its parts taking turns there, and {free / 1e9:.1f} GB are free",
                hint="Use the device cpu, or a smaller model.",
            )
        return sum(sizes) > free


def memory_of(model: str) -> dict[str, Any]:
    """Return rows for `usk info` on the memory of a text-to-audio model; none for other models. Raises ModelError."""
    with naming_model(model):
        folder, _ = locate_pipeline(model, CONFIG_FILES)
        if (adapter := find_adapter(folder)) is not None:
            folder = locate_base(adapter, CONFIG_FILES)
        family = describe_folder(folder).family
        if family not in FAMILIES:
            return {}
        size = ModelSize.of(meta_networks(folder, family), family)
    half, whole = torch.bfloat16.itemsize, torch.float32.itemsize
    n_bytes = {
        "GPU GB": half * sum(size.on_device),
        "GPU GB, parts by turns": half * max(size.on_device),
        "main memory GB with a GPU": half * size.total,
        "main memory GB without": whole * size.total,
    }
    return {
        "parameters, millions": [f"{name} {count / 1e6:,.1f}" for name, count in size.parameters.items()],
        **{name: round(n / 1e9, 2) for name, n in n_bytes.items()},
    }
