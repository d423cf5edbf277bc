"""Units for tests of the engines: worker processes import them."""

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
class Writing:
    """Each unit writes a file named after it; what is wrong with some is said by `wrong`, a unit's number to a kind."""

    folder: Path
    wrong: tuple[tuple[int, str], ...] = ()

    def __call__(self, device: str) -> Callable[..., Any]:
        def do(unit: int, say: Callable[..., None]) -> tuple[int, str]:
            say("began", unit)
            kind = dict(self.wrong).get(unit, "")
            mark = self.folder / f"lost-{unit}"
            if kind == "killed always" or (kind == "killed once" and not mark.exists()):
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            if kind == "machine lost once" and not mark.exists():
                mark.touch()
                os.kill(os.getppid(), signal.SIGKILL)  # Ray's daemon of the machine
                time.sleep(60.0)  # until it has taken this process along
            if kind == "line":
                raise UskError("that cannot be done", field="per_class", hint="Do another.")
            if kind == "bug":
                raise ValueError("wrong")
            (self.folder / f"{unit}.txt").write_text(f"unit {unit}\n")
            return unit, device

        return do


@dataclass(frozen=True)
class Adding:
    """A unit is a number and a shared tensor: the sum of the tensor with the number added to each of it."""

    def __call__(self, device: str) -> Callable[..., Any]:
        return lambda unit, say: float((unit[1].on(device) + unit[0]).sum())
