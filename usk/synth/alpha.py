"""The weights of a clip's parents. Imports no numpy, so that options are checked quickly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from usk.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

REPEAT_SPREAD = 0.2  # of a fixed alpha, for pairs that are drawn again


@dataclass(frozen=True)
class Alpha:
    """How the parents' weights are drawn: evenly from `low` to `high` for the second of two."""

    low: float = 0.5
    high: float = 0.5

    @classmethod
    def parse(cls, text: str) -> Alpha:
        """`0.5` (that weight for every clip) or `0.3:0.7` (drawn evenly for each)."""
        head, colon, tail = text.partition(":")
        try:
            low = float(head)
            high = float(tail) if colon else low
        except ValueError:
            raise UsageError(
                "is not a weight",
                field="alpha",
                value=text,
                hint="Give a number from 0 to 1, or a range such as 0.3:0.7.",
            ) from None
        if not 0 <= low <= high <= 1:
            raise UsageError("must lie between 0 and 1 (a range: low:high)", field="alpha", value=text)
        return cls(low, high)

    @property
    def text(self) -> str:
        """In words, for cards."""
        return (
            f"{self.low:g}" if self.low == self.high else f"drawn evenly from {self.low:g} to {self.high:g}"
        )

    @property
    def spread(self) -> Alpha:
        """For pairs that are drawn again: of a fixed weight the range around it, so that no clip is made twice."""
        if self.low < self.high:
            return self
        return Alpha(max(0.0, self.low - REPEAT_SPREAD), min(1.0, self.high + REPEAT_SPREAD))

    def draw(self, n_parents: int, rng: np.random.Generator) -> tuple[float, ...]:
        """Weights of one or two parents, which sum to 1."""
        if n_parents == 1:
            return (1.0,)
        share = round(float(self.low + (self.high - self.low) * rng.random()), 6)
        return (1 - share, share)
