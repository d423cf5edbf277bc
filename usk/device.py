"""Where torch computes, and in which precision."""

from __future__ import annotations

import contextlib
from typing import Any

import torch

from usk.errors import UsageError


def resolve_device(device: str) -> torch.device:
    """`auto` takes CUDA where there is one. Raises UsageError for a device that is not there."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
    except RuntimeError:
        raise UsageError(f"--device {device} is no device that torch knows; use auto, cpu or cuda") from None
    if resolved.type == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: torch finds no CUDA device here; use --device cpu, or --device auto")
    return resolved


def default_precision(device: torch.device) -> str:
    """bf16 where the device multiplies it natively (CUDA from Ampere on, CPUs with AMX), fp32 elsewhere."""
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    return "bf16" if _cpu_has_amx() else "fp32"


def _cpu_has_amx() -> bool:
    has_amx = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return bool(has_amx and has_amx())


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager[Any]:
    """Matrix products in bfloat16 if `precision` is bf16; everything else stays float32."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")
