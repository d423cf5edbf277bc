"""Choose torch's device, precision and threads, and find the memory and cores that this process may use."""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from usk.errors import UsageError

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
CGROUP = Path("/sys/fs/cgroup")  # the limits of a container


def resolve_device(device: str) -> torch.device:
    """Return the torch device; `auto` is CUDA if available, else the CPU. Raises UsageError for an unavailable device.

    For the CPU, this also calls `keep_freed_memory`.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        resolved = torch.device(device)
    except RuntimeError:
        raise _no_device(device, "is not a device that torch knows") from None
    if resolved.type not in ("cpu", "cuda"):
        raise _no_device(device, "usk does not support this device")
    if resolved.type == "cuda" and not torch.cuda.is_available():
        raise _no_device(device, "torch finds no CUDA device here")
    if resolved.type == "cuda" and resolved.index and resolved.index >= (count := torch.cuda.device_count()):
        raise _no_device(device, f"there are {count} CUDA devices, counted from cuda:0")
    if resolved.type == "cpu":
        keep_freed_memory()
    return resolved


def visible_devices(device: torch.device) -> tuple[str, ...]:
    """Return the devices to spread work over: for `cuda` without a number all CUDA devices, else `device` alone."""
    if device.type != "cuda" or device.index is not None:
        return (str(device),)
    return tuple(f"cuda:{index}" for index in range(torch.cuda.device_count())) or (str(device),)


def _no_device(device: str, message: str) -> UsageError:
    return UsageError(message, field="device", value=device, hint="Use auto, cpu or cuda.")


def keep_freed_memory() -> None:
    """Make glibc keep freed memory for the next tensors, instead of returning it to the system.

    By default the system clears fresh pages for each tensor above some megabytes. That took a fifth of the time of a small
    network on a CPU. The process then keeps its peak memory. Without glibc nothing changes.
    """
    mallopt = getattr(ctypes.CDLL(None) if os.name == "posix" else None, "mallopt", None)
    if mallopt is not None:
        mallopt(-3, 2**25)  # M_MMAP_THRESHOLD of malloc.h; 32 MB is the maximum
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy a tensor to `device`. The copy to a CUDA device is asynchronous."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def memory_allowed_bytes() -> float:
    """Return the memory that this process may use: the machine's or its container's limit; infinite if unknown."""
    limits = []
    with contextlib.suppress(AttributeError, OSError, ValueError):  # not on Windows
        limits.append(float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")))
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):  # no such group, or "max"
            limits.append(float((CGROUP / name).read_text()))
    return min(limits, default=math.inf)


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether torch found too little memory, on a CUDA device or a CPU."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def free_device_bytes(device: torch.device) -> float:
    """Return the free memory of a CUDA device; infinite for the CPU (see `memory_allowed_bytes`)."""
    return float(torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else math.inf


def cores_allowed() -> int:
    """Return the number of cores that this process may use: its CPU affinity or its container's quota."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):
        quota, period = (CGROUP / "cpu.max").read_text().split()
        count = min(count, math.ceil(float(quota) / float(period)))
    return max(1, count)


@contextlib.contextmanager
def threads_of_torch(count: int) -> Iterator[None]:
    """Set the number of torch's threads inside a `with` block. The last bits of results depend on it."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def default_precision(device: torch.device, training: bool = True) -> str:
    """Return bf16 if the device multiplies it natively (CUDA since Ampere, CPUs with AMX), else fp32.

    On CPUs with AVX512-BF16, generation in bf16 is 1.8 times as fast, and so is a step of `usk fit`, which times both.
    Other training there uses fp32: bf16 was not measured.
    """
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    names = ("_is_amx_tile_supported", *(() if training else ("_is_avx512_bf16_supported",)))
    return "bf16" if any(getattr(torch.cpu, name, bool)() for name in names) else "fp32"


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager[Any]:
    """Compute matrix products in `precision` and everything else in float32."""
    return torch.autocast(device.type, dtype=DTYPES[precision], enabled=precision != "fp32")
