"""The checkpoint of an unfinished run. A stopped `usk train` resumes from it."""

from __future__ import annotations

import io
import time
from pathlib import Path
from typing import Any

import torch

from usk.data.cache import checked, read_checked
from usk.errors import disk_errors
from usk.files import DAMAGED, atomic_write

SAVE_EVERY_S = 60.0


class Checkpoint:
    """The checkpoint file of one run: a hidden file in `out`, named after the run."""

    def __init__(self, out: Path, run_name: str, device: torch.device) -> None:
        self.file = out / f".{run_name}.checkpoint"
        self.device = device
        self._saved_at = time.monotonic()

    def load(self) -> dict[str, Any] | None:
        """Return the saved state, on the CPU, and restore torch's random generators.

        Return None if there is no file or it is damaged: training then starts from the beginning.
        """
        if (content := read_checked(self.file)) is None:
            return None
        try:
            state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
            random = state.pop("random")
        except DAMAGED:
            return None
        torch.set_rng_state(random["cpu"])
        if random["cuda"] is not None and self.device.type == "cuda":
            torch.cuda.set_rng_state(random["cuda"], self.device)
        return dict(state)

    @property
    def is_due(self) -> bool:
        """Whether the last save is a minute old. A killed process loses at most that much work."""
        return time.monotonic() - self._saved_at >= SAVE_EVERY_S

    def save(self, state: dict[str, Any]) -> None:
        """Write tensors and plain values atomically."""
        cuda = torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None
        buffer = io.BytesIO()  # written by us: on a full disk torch.save raises RuntimeError, not OSError
        torch.save({**state, "random": {"cpu": torch.get_rng_state(), "cuda": cuda}}, buffer)
        with disk_errors(self.file.parent):
            atomic_write(self.file, checked(buffer.getbuffer()), durable=False)
        self._saved_at = time.monotonic()

    def remove(self) -> None:
        self.file.unlink(missing_ok=True)
