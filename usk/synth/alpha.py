"""Parse and draw alpha, the weight of a clip's second parent. Imports no numpy, so that options are checked quickly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from usk.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

REPEAT_SPREAD = 0.2  # how far alpha may lie from a fixed value, for pairs of parents that are drawn again


@dataclass(frozen=True)
class Alpha:
    """The range that the weight of the second of two parents is drawn from, uniformly."""

    low: float = 0.5
    high: float = 0.5

    @classmethod
    def parse(cls, text: str) -> Alpha:
        """Parse `0.5` (the weight of every clip) or `0.3:0.7` (a weight is drawn for each clip). Raises UsageError."""
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
        """Return the range in words, for cards."""
        if self.low == self.high:
            return f"{self.low:g}"
        return f"drawn evenly from {self.low:g} to {self.high:g}"

    @property
    def for_repeats(self) -> Alpha:
        """Return the range for pairs that are drawn again: a fixed weight is widened, so that no clip is made twice."""
        if self.low < self.high:
            return self
        return Alpha(max(0.0, self.low - REPEAT_SPREAD), min(1.0, self.high + REPEAT_SPREAD))

    def draw(self, n_parents: int, rng: np.random.Generator) -> tuple[float, ...]:
        """Draw the weights of one or two parents. They sum to 1."""
        if n_parents == 1:
            return (1.0,)
        second = round(float(self.low + (self.high - self.low) * rng.random()), 6)
        return (1 - second, second)
