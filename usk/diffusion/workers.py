"""The processes that train one generator together: one, or as many as `torchrun` or `accelerate launch` started.

Each computes the gradients of its own micro-batches and all take the same step, so that N processes do what one does
with N times as many micro-batches (`accumulate`). Both launchers say who is who in the environment (RANK, WORLD_SIZE, LOCAL_RANK).
"""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

from usk.device import resolve_device
from usk.errors import UsageError

PATIENCE = timedelta(hours=3)  # while the main process decodes clips or validates, the others wait


@dataclass(frozen=True)
class Workers:
    """One process among those that train together."""

    device: torch.device
    rank: int = 0
    count: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes, validates and reports."""
        return self.rank == 0

    def average(self, tensors: Iterable[torch.Tensor]) -> None:
        """Put the mean over all processes into each tensor. All processes must give the same shapes."""
        if self.count == 1:
            return
        sums = [(tensor, dist.all_reduce(tensor, async_op=True)) for tensor in tensors]
        for tensor, handle in sums:
            handle.wait()
            tensor /= self.count

    def greatest(self, *values: float) -> list[float]:
        """The maximum over all processes, value by value. All wait for one another here."""
        if self.count == 1:
            return list(values)
        maxima = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(maxima, dist.ReduceOp.MAX)
        return maxima.tolist()

    @contextlib.contextmanager
    def main_first(self) -> Iterator[None]:
        """The main process does what is inside, then the others: they find what it left on the disk."""
        if not self.is_main:
            self.greatest(0.0)
        yield
        if self.is_main:
            self.greatest(0.0)


def is_main_process() -> bool:
    """Whether this process is the only one, or the one of several that reports."""
    return _number("WORLD_SIZE", 1) <= 1 or _number("RANK", 0) == 0


@contextlib.contextmanager
def workers(device: str) -> Iterator[Workers]:
    """Join the processes that were started together, if there are several. Each takes a CUDA device of its own.

    Raises UsageError if the device is not there, or if the environment does not say where the others are.
    """
    on, count = resolve_device(device), _number("WORLD_SIZE", 1)
    if count <= 1:
        yield Workers(on)
        return
    missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise UsageError(
            f"WORLD_SIZE is {count}, but {', '.join(missing)} is not set",
            hint="Start several processes with torchrun, or unset WORLD_SIZE.",
        )
    rank = _number("RANK", 0)
    if on.type == "cuda":
        local = _number("LOCAL_RANK", rank)
        if local >= torch.cuda.device_count():
            raise UsageError(
                f"process {local + 1} on this machine finds {torch.cuda.device_count()} CUDA devices",
                field="device", value=device, hint="Start as many processes as there are devices.",
            )  # fmt: skip
        on = torch.device("cuda", local)
        torch.cuda.set_device(on)
    # Its functions take the group that exists when it is imported (diffusers does so) as a default, which would keep
    # the group's threads alive after its end: they abort the process if it exits while one drops a tensor.
    importlib.import_module("torch.distributed.nn")
    dist.init_process_group("cpu:gloo,cuda:nccl" if on.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield Workers(on, rank, count)
    finally:
        dist.destroy_process_group()


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, "")
    return int(text) if text.isdecimal() else default
