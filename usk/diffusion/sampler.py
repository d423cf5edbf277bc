"""A sampler between clean and noisy latents: how many steps, how far up, by which solver. Both directions from one place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from usk.diffusion.ddim import NoiseSchedule, Predictor, ddim_decode, ddim_encode
from usk.diffusion.multistep import decode_second_order, encode_second_order
from usk.errors import UsageError

SOLVERS = ("second-order", "ddim")


@dataclass(frozen=True)
class SamplerConfig:
    """`steps` each way between clean and `strength` of the schedule.

    The solver `ddim` is first-order and takes any eta; `second-order` needs fewer steps and takes no fresh noise.
    """

    steps: int
    strength: float = 1.0
    solver: str = "second-order"
    refinements: int = 1  # further evaluations: ddim's at every step up, second-order's at the first alone

    def __post_init__(self) -> None:
        if self.solver not in SOLVERS:
            raise UsageError(f"--solver {self.solver} is not known; choose one of {', '.join(SOLVERS)}")

    def top(self, schedule: NoiseSchedule) -> float:
        """The cumulative alpha where the sampler up ends. Raises UsageError for steps that do not fit."""
        nodes = schedule.nodes if self.solver == "second-order" else schedule.timesteps
        return schedule.alpha(nodes(self.steps, self.strength)[-1])

    def evaluations(self, inverts: bool = True) -> tuple[int, int]:
        """Network evaluations up (of each parent) and down (of each clip)."""
        if not inverts:
            return 0, self.steps
        up = (
            self.steps + self.refinements
            if self.solver == "second-order"
            else self.steps * (1 + self.refinements)
        )
        return up, self.steps

    def up(self, predict: Predictor, clean: torch.Tensor, schedule: NoiseSchedule) -> torch.Tensor:
        """Invert: clean latents [batch, channels, height, width] to the noisy ones they come from."""
        encode = encode_second_order if self.solver == "second-order" else ddim_encode
        return encode(predict, clean, schedule, self.steps, self.strength, self.refinements)

    def down(
        self,
        predict: Predictor,
        noisy: torch.Tensor,
        schedule: NoiseSchedule,
        eta: float = 0.0,
        seeds: Sequence[int] | None = None,
    ) -> torch.Tensor:
        """Decode: the way back. Raises UsageError for `eta` with the second-order solver."""
        if self.solver == "ddim":
            return ddim_decode(predict, noisy, schedule, self.steps, self.strength, eta, seeds)
        if eta > 0:
            raise UsageError(f"--eta {eta:g} needs --solver ddim: the second-order solver adds no noise")
        return decode_second_order(predict, noisy, schedule, self.steps, self.strength)
