"""Where torch computes, and in which precision."""

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
CGROUP = Path("/sys/fs/cgroup")  # what a container is allowed, as it sees it


def resolve_device(device: str) -> torch.device:
    """`auto` takes CUDA where there is one. Raises UsageError for a device that is not there.

    For a CPU it sets the process's memory up as well, see `keep_freed_memory`.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        resolved = torch.device(device)
    except RuntimeError:
        raise _no_device(device, "is not a device that torch knows") from None
    if resolved.type not in ("cpu", "cuda"):
        raise _no_device(device, "usk does not compute on this device")
    if resolved.type == "cuda" and not torch.cuda.is_available():
        raise _no_device(device, "torch finds no CUDA device here")
    if resolved.type == "cuda" and resolved.index and resolved.index >= (count := torch.cuda.device_count()):
        raise _no_device(device, f"there are {count} CUDA devices, counted from cuda:0")
    if resolved.type == "cpu":
        keep_freed_memory()
    return resolved


def visible_devices(device: torch.device) -> tuple[str, ...]:
    """The devices that work may be spread over: of `cuda` without a number all there are."""
    if device.type != "cuda" or device.index is not None:
        return (str(device),)
    return tuple(f"cuda:{index}" for index in range(torch.cuda.device_count())) or (str(device),)


def _no_device(device: str, message: str) -> UsageError:
    return UsageError(message, field="device", value=device, hint="Use auto, cpu or cuda.")


def keep_freed_memory() -> None:
    """Have glibc keep what this process frees for its next tensors, instead of giving it back to the system.

    By default large tensors come as fresh pages that the system clears first: a fifth of the time of a small network on a CPU.
    The process holds on to its peak instead. Does nothing where there is no glibc.
    """
    mallopt = getattr(ctypes.CDLL(None) if os.name == "posix" else None, "mallopt", None)
    if mallopt is not None:
        mallopt(-3, 2**25)  # M_MMAP_THRESHOLD of malloc.h; 32 MB is the most it takes
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The tensor there; this process need not wait for the copy to a CUDA device."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def memory_allowed_bytes() -> float:
    """Memory that this process may fill: the machine's, or its container's share of it; infinite where nothing says."""
    found = []
    with contextlib.suppress(AttributeError, OSError, ValueError):  # not on Windows
        found.append(float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")))
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):  # no such group, or "max"
            found.append(float((CGROUP / name).read_text()))
    return min(found, default=math.inf)


def free_device_bytes(device: torch.device) -> float:
    """Memory of a CUDA device that nobody uses; infinite for the CPU, see `memory_allowed_bytes`."""
    return float(torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else math.inf


def cores_allowed() -> int:
    """Cores that this process may keep busy: those it may run on, or its container's quota of them."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):
        quota, period = (CGROUP / "cpu.max").read_text().split()
        count = min(count, math.ceil(float(quota) / float(period)))
    return max(1, count)


@contextlib.contextmanager
def threads_of_torch(count: int) -> Iterator[None]:
    """So many threads for torch's operators meanwhile: the last bits of their results depend on it."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def default_precision(device: torch.device, training: bool = True) -> str:
    """bf16 where the device multiplies it natively: CUDA from Ampere on, CPUs with AMX. On CPUs with AVX512-BF16 generators are
    1.8 times as fast in it; they are not trained in it there, since nothing was measured of that. fp32 elsewhere."""
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    names = ("_is_amx_tile_supported", *(() if training else ("_is_avx512_bf16_supported",)))
    return "bf16" if any(getattr(torch.cpu, name, bool)() for name in names) else "fp32"


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager[Any]:
    """Matrix products in the `precision`; everything else stays float32."""
    return torch.autocast(device.type, dtype=DTYPES[precision], enabled=precision != "fp32")
