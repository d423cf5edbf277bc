"""One part of a job that several machines share: part K of N does every N-th unit, from the K-th on. Nobody waits for others."""

from __future__ import annotations

import importlib.metadata
import re
from dataclasses import dataclass

import usk
from usk.errors import UsageError


@dataclass(frozen=True)
class Part:
    """Part `number`, from 1, `of` so many. The default is the whole job."""

    number: int = 1
    of: int = 1

    @classmethod
    def parse(cls, text: str | None) -> Part:
        """`2/8`; None is the whole job. Raises UsageError."""
        if text is None:
            return cls()
        found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text.strip())
        number, of = map(int, found.groups()) if found else (0, 0)
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
        """Whether a unit, numbered from 0, is this part's."""
        return part_of(unit, self.of) == self.number

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"


def part_of(unit: int, of: int) -> int:
    """The number of the part that a unit, numbered from 0, belongs to."""
    return unit % of + 1


def versions() -> dict[str, str]:
    """Of what has one version for all who share a job, since results depend on it."""
    return {"usk": usk.__version__, "torch": importlib.metadata.version("torch")}
