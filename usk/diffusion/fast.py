"""Run a network faster: with weights in half precision, and compiled for large jobs."""

from __future__ import annotations

import copy
from typing import Any

import torch

from usk.device import DTYPES
from usk.diffusion.weights import quiet_libraries

EVALUATIONS_THAT_REPAY = 100_000
"""Evaluations of one clip, for each width of latents. An estimate until `tests.bench.render_gpu` has run on a GPU: compiling 100 M
parameters for one width takes a minute, and each evaluation saves half a millisecond."""


def in_precision(network: Any, precision: str) -> Any:
    """Return the network, or a copy with weights in `precision`. In bf16, norms and products still sum in float32."""
    if precision == "fp32" or not isinstance(network, torch.nn.Module):
        return network
    # `network.to` of diffusers would warn of layers to keep in float32, which UNets do not have.
    return torch.nn.Module.to(copy.deepcopy(network), DTYPES[precision])


def repays_compiling(device: torch.device, evaluations: int, n_widths: int) -> bool:
    """Whether a job with this many evaluations is done sooner if its network is compiled.

    This is decided for the whole job and not for a process, since compiling changes the last bits of clips.
    """
    return device.type == "cuda" and evaluations >= EVALUATIONS_THAT_REPAY * n_widths


class Compiled:
    """A network that torch compiles once for each width of latents, for batches of any size.

    Without a compiler, the network runs as it is.
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
            except RuntimeError:  # there is no compiler
                self.compiled = None
        return tuple(self.network(noisy, timesteps, **given))

    def _compiled(
        self, noisy: torch.Tensor, timesteps: torch.Tensor, given: dict[str, Any]
    ) -> tuple[torch.Tensor, ...]:
        import torch._dynamo

        arguments = {"sample": noisy, "timestep": timesteps, **given}
        for name, value in arguments.items():
            if isinstance(value, torch.Tensor):
                if len(noisy) == 1:  # a batch of one would be compiled separately
                    arguments[name] = value = torch.cat((value, value))
                torch._dynamo.mark_dynamic(value, 0)
        with quiet_libraries():  # torch warns of code in diffusers
            return tuple(output[: len(noisy)] for output in self.compiled(**arguments))
