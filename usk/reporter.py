"""What a long job tells whoever started it: progress, notes and warnings.

The base class is silent, for use as a library; the command line has one that draws bars and prints (`usk.cli.display`).
"""

from __future__ import annotations

from typing import Any


class Task:
    """Progress of one piece of work. `done` and `total` are in the task's unit; a total of 0 is not known yet."""

    def update(self, done: int, total: int | None = None, text: str | None = None) -> None:
        """Set how much is done, and where they changed, of how much, and what is being done."""

    def __enter__(self) -> Task:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def close(self) -> None:
        """The work has ended, whether or not all of it was done."""


class Reporter:
    """Takes progress, notes and warnings. This one shows nothing, but keeps the warnings, each once and in order."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def task(self, label: str, unit: str = "", total: int = 0) -> Task:
        """Begin a piece of work, such as `rendering` of 400 `clips`."""
        return Task()

    def note(self, text: str) -> None:
        """Say something worth knowing that asks for nothing."""

    def detail(self, text: str) -> None:
        """Say every setting, for someone who asks for them."""

    def warn(self, text: str) -> None:
        """Say something that the reader of the result must know; the same words are said once."""
        if text not in self.warnings:
            self.warnings.append(text)
            self.show_warning(text)

    def show_warning(self, text: str) -> None:
        """Show a warning that was not shown before; subclasses say how."""
