"""Setup functions for tests of the engines. They are in a module of their own because worker processes import them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from usk.errors import UskError


@dataclass(frozen=True)
class WriteFiles:
    """Each unit writes a file named after its number. `faults` are pairs of a unit's number and what goes wrong with it."""

    folder: Path
    faults: tuple[tuple[int, str], ...] = ()

    def __call__(self, device: str) -> Callable[..., Any]:
        def run_unit(unit: int, on_progress: Callable[..., None]) -> tuple[int, str]:
            on_progress("began", unit)
            fault = dict(self.faults).get(unit, "")
            mark = self.folder / f"lost-{unit}"
            if fault == "killed always" or (fault == "killed once" and not mark.exists()):
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            if fault == "machine lost once" and not mark.exists():
                mark.touch()
                os.kill(os.getppid(), signal.SIGKILL)  # Ray's daemon on this machine
                time.sleep(60.0)  # the daemon takes this process along
            if fault == "line":
                raise UskError("that cannot be done", field="per_class", hint="Do another.")
            if fault == "bug":
                raise ValueError("wrong")
            (self.folder / f"{unit}.txt").write_text(f"unit {unit}\n")
            return unit, device

        return run_unit


@dataclass(frozen=True)
class AddToShared:
    """A unit is a number and a shared tensor. Its result is the sum of the tensor after adding the number to each element."""

    def __call__(self, device: str) -> Callable[..., Any]:
        return lambda unit, _on_progress: float((unit[1].to(device) + unit[0]).sum())
