"""Load a generator of any family."""

from __future__ import annotations

from typing import Any

import torch

from usk.device import default_precision, resolve_device
from usk.diffusion.adapter import find_adapter
from usk.diffusion.generator import Generator
from usk.diffusion.lora import read_adapter, require_peft
from usk.diffusion.mel_pipeline import load_mel_generator
from usk.diffusion.pipeline import (
    EMBEDDED,
    describe_folder,
    folder_fingerprint,
    locate_base,
    locate_pipeline,
    model_id,
    naming_model,
    resolve_model,
)
from usk.diffusion.text_info import FAMILIES
from usk.diffusion.text_load import load_text_generator
from usk.errors import ModelError


def load_generator(model: str = EMBEDDED, device: str = "auto", precision: str = "auto") -> Generator:
    """Load `model`: `embedded`, `auto`, a pipeline folder, or a Hub id with optional `@revision`.

    Raises ModelError if it is not a pipeline that usk supports, and UsageError if the device is not available.
    """
    resolved = resolve_device(device)
    name = resolve_model(model, resolved.type)
    with naming_model(name):
        folder, commit = locate_pipeline(name)
        info = describe_folder(folder)
        adapter = find_adapter(folder)
        if adapter is not None:
            require_peft()
        base = folder if adapter is None else locate_base(adapter)
        if adapter is not None and not adapter.base_on_hub and folder_fingerprint(base) != adapter.revision:
            raise ModelError(
                f"adapts {adapter.base} as it was before: its files have changed",
                hint="Put them back, or fit it again.",
            )
        if precision == "auto":
            precision = automatic_precision(resolved, info.family)
        load: Any = load_text_generator if info.family in FAMILIES else load_mel_generator
        generator: Any = load(base, info, model_id(name, folder, commit), resolved, precision)
        if adapter is not None:
            read_adapter(generator.network, folder, adapter)
        return generator


def automatic_precision(device: torch.device, family: str) -> str:
    """Return the precision for `auto`.

    GPUs before Ampere have no bf16. Text-to-audio models, which are large, run in fp16 there, as their publishers run them.
    """
    precision = default_precision(device, training=False)
    return "fp16" if precision == "fp32" and device.type == "cuda" and family in FAMILIES else precision
