"""A run that is being trained, kept with the finished ones: a stopped `usk train` goes on from the last step kept."""

from __future__ import annotations

import io
import time
from pathlib import Path
from typing import Any

import torch

from usk.data.cache import checked, read_checked
from usk.errors import disk_errors
from usk.files import TORN, atomic_write

KEEP_EVERY_S = 60.0


class Checkpoint:
    """The file of one run in `out`, hidden, and named as the run will be, so that it belongs to no other."""

    def __init__(self, out: Path, run_name: str, device: torch.device) -> None:
        self.file = out / f".{run_name}.checkpoint"
        self.device = device
        self._kept_at = time.monotonic()

    def load(self) -> dict[str, Any] | None:
        """What was last kept, on the CPU; None without, and for a file that is damaged: training begins anew.

        Random generators of torch are set as they were.
        """
        if (content := read_checked(self.file)) is None:
            return None
        try:
            state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
            random = state.pop("random")
        except TORN:
            return None
        torch.set_rng_state(random["cpu"])
        if random["cuda"] is not None and self.device.type == "cuda":
            torch.cuda.set_rng_state(random["cuda"], self.device)
        return dict(state)

    @property
    def is_due(self) -> bool:
        """Whether nothing was kept in the last minute: that much a kill may cost."""
        return time.monotonic() - self._kept_at >= KEEP_EVERY_S

    def keep(self, state: dict[str, Any]) -> None:
        """Keep tensors and plain values, whole or not at all."""
        cuda = torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None
        whole = io.BytesIO()  # torch would say RuntimeError where a disk is full
        torch.save({**state, "random": {"cpu": torch.get_rng_state(), "cuda": cuda}}, whole)
        with disk_errors(self.file.parent):
            atomic_write(self.file, checked(whole.getbuffer()), durable=False)
        self._kept_at = time.monotonic()

    def remove(self) -> None:
        """The run is finished."""
        self.file.unlink(missing_ok=True)
