"""`Reporter`: receives the progress, notes and warnings of long jobs.

The base class shows nothing, for use as a library. The command line has a subclass that prints (`usk.cli.display`).
"""

from __future__ import annotations

from typing import Any


class Task:
    """The progress of one piece of work. `done` and `total` are in the task's unit; an unknown total is 0."""

    def update(self, done: int, total: int | None = None, text: str | None = None) -> None:
        """Set how much is done. Also set the total and the description `text`, unless they are None."""

    def __enter__(self) -> Task:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def close(self) -> None:
        """End the task, finished or not."""


class Reporter:
    """Receives progress, notes and warnings. This class shows nothing, but keeps each distinct warning in `warnings`."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def task(self, label: str, unit: str = "", total: int = 0) -> Task:
        """Start a task, such as `rendering` 400 `clips`."""
        return Task()

    def note(self, text: str) -> None:
        """Show information that needs no action."""

    def detail(self, text: str) -> None:
        """Show information, such as all settings, in verbose mode only."""

    def warn(self, text: str) -> None:
        """Show a warning for the reader of the results, unless it was shown before."""
        if text not in self.warnings:
            self.warnings.append(text)
            self.show_warning(text)

    def show_warning(self, text: str) -> None:
        """Show a new warning. Subclasses override this."""
