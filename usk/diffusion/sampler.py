"""The settings of a solver. Imports no torch, so that options are checked quickly."""

from __future__ import annotations

from dataclasses import dataclass

from usk.errors import require_known

SOLVERS = ("second-order", "ddim")


@dataclass(frozen=True)
class SamplerConfig:
    """`steps` each way between clean latents and `strength`, a share of the noise schedule.

    The solver `ddim` is first-order and takes any eta; `second-order` needs fewer steps and adds no noise.
    """

    steps: int
    strength: float = 1.0
    solver: str = "second-order"

    def __post_init__(self) -> None:
        require_known(self.solver, SOLVERS, "solver")

    def evaluations(self, inverts: bool = True) -> tuple[int, int]:
        """Return the network evaluations to invert a parent, and to sample a clip."""
        extra = 1 if self.solver == "second-order" else 0
        return (self.steps + extra if inverts else 0), self.steps
