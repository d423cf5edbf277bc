"""One part of a job that several machines share: part K of N runs every N-th unit from the K-th on, and waits for no other."""

from __future__ import annotations

import importlib.metadata
import re
from dataclasses import dataclass

import usk
from usk.errors import UsageError


@dataclass(frozen=True)
class Part:
    """Part `number` (from 1) out of `of` parts. The default is the whole job."""

    number: int = 1
    of: int = 1

    @classmethod
    def parse(cls, text: str | None) -> Part:
        """Parse text such as `2/8`; None is the whole job. Raise UsageError for any other text."""
        if text is None:
            return cls()
        match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text.strip())
        number, of = map(int, match.groups()) if match else (0, 0)
        if not 1 <= number <= of:
            raise UsageError(
                "is not a part",
                field="part",
                value=text,
                hint="Write K/N with K from 1 to N, for example 2/8.",
            )
        return cls(number, of)

    @property
    def is_whole(self) -> bool:
        return self.of == 1

    def has(self, unit: int) -> bool:
        """Return whether a unit, numbered from 0, belongs to this part."""
        return part_number(unit, self.of) == self.number

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"


def part_number(unit: int, n_parts: int) -> int:
    """Return the number (from 1) of the part that runs a unit, numbered from 0."""
    return unit % n_parts + 1


def job_versions() -> dict[str, str]:
    """Return the package versions that all machines of a job must share, because results depend on them."""
    return {"usk": usk.__version__, "torch": importlib.metadata.version("torch")}
