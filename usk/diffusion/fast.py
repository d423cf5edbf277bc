"""A network as it runs: its weights in the precision asked for, compiled where that repays."""

from __future__ import annotations

import copy
from typing import Any

import torch

from usk.device import DTYPES
from usk.diffusion.weights import quiet_libraries

EVALUATIONS_THAT_REPAY = 100_000
"""Of the network on one clip, for each width of latents. An estimate until `tests.bench.render_gpu` has run on a GPU: a minute
to compile 100 M parameters for one width, against half a millisecond that each evaluation saves."""


def in_precision(network: Any, precision: str) -> Any:
    """The network, or a copy with bf16 weights. Its norms take and give bf16 then, and sum in float32, as products do."""
    if precision == "fp32" or not isinstance(network, torch.nn.Module):
        return network
    # Not `network.to`: diffusers warns there of layers that some of its models keep in float32; UNets have none.
    return torch.nn.Module.to(copy.deepcopy(network), DTYPES[precision])


def repays_compiling(device: torch.device, evaluations: int, n_widths: int) -> bool:
    """Whether a job of so many evaluations is done sooner with its network compiled.

    The whole job counts, not a process's part of it: the last bits of clips must not depend on who makes them.
    """
    return device.type == "cuda" and evaluations >= EVALUATIONS_THAT_REPAY * n_widths


class Compiled:
    """A network that torch compiles for each width of latents when it is first asked for it, once for batches of all sizes.

    Where torch cannot compile, it stays as it was.
    """

    def __init__(self, network: Any) -> None:
        self.network = network
        self.compiled: Any = torch.compile(network)

    def __call__(
        self, noisy: torch.Tensor, timesteps: torch.Tensor, **given: Any
    ) -> tuple[torch.Tensor, ...]:
        if self.compiled is not None:
            try:
                return self._compiled(noisy, timesteps, given)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError:  # no compiler here
                self.compiled = None
        return tuple(self.network(noisy, timesteps, **given))

    def _compiled(
        self, noisy: torch.Tensor, timesteps: torch.Tensor, given: dict[str, Any]
    ) -> tuple[torch.Tensor, ...]:
        import torch._dynamo

        arguments = {"sample": noisy, "timestep": timesteps, **given}
        for name, value in arguments.items():
            if isinstance(value, torch.Tensor):
                if len(noisy) == 1:  # which would be compiled for itself
                    arguments[name] = value = torch.cat((value, value))
                torch._dynamo.mark_dynamic(value, 0)
        with quiet_libraries():  # torch warns of how diffusers is written
            return tuple(output[: len(noisy)] for output in self.compiled(**arguments))
