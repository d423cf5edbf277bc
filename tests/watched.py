"""A reporter that records the progress of a training, and can stop it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from usk.reporter import Reporter, Task


@dataclass(frozen=True)
class Epoch:
    """Where a training stands."""

    run: int  # from 1
    n_runs: int
    epoch: int
    epochs: int
    validated: bool
    done_steps: int
    all_steps: int


class Watched(Reporter):
    """`each` is called after each epoch, in the middle of the training."""

    def __init__(self, each: Callable[[Epoch], object] = lambda _: None) -> None:
        super().__init__()
        self.each, self.seen, self.notes = each, list[Epoch](), list[str]()

    def note(self, text: str) -> None:
        self.notes.append(text)

    def task(self, label: str, unit: str = "", total: int = 0) -> Task:
        return _Watched(self, total) if label == "training" else Task()

    @property
    def epochs(self) -> list[int]:
        return [one.epoch for one in self.seen]


class _Watched(Task):
    def __init__(self, of: Watched, total: int) -> None:
        self.of, self.total = of, total

    def update(self, done: int, total: int | None = None, text: str | None = None) -> None:
        found = re.search(r"^run (\d+)/(\d+) · .* · epoch (\d+)/(\d+)( · validation \d+%)?$", text or "")
        assert found is not None, text
        run, n_runs, epoch, epochs = map(int, found.groups()[:4])
        self.of.seen.append(Epoch(run, n_runs, epoch, epochs, bool(found[5]), done, self.total))
        self.of.each(self.of.seen[-1])
