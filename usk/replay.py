"""A training step recorded once on a CUDA device, and replayed: one launch in place of hundreds.

The kernels of a small network take less time than their launches; a CUDA graph launches all of a step at once.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

WARM_UP = 3  # steps before one is recorded, in which libraries choose kernels and take their memory

Learn = Callable[..., torch.Tensor]  # tensors of a batch -> its loss; changes weights on the way


def replayable(optimizer: torch.optim.Optimizer, device: torch.device) -> bool:
    """Whether steps of this optimizer can be recorded there."""
    return device.type == "cuda" and all("capturable" in group for group in optimizer.param_groups)


def make_replayable(optimizer: torch.optim.Optimizer, device: torch.device) -> None:
    """Keep the learning rates and the counts of steps on the device, where a recorded step reads them."""
    for group in optimizer.param_groups:
        group["capturable"] = True
        group["lr"] = torch.tensor(float(group["lr"]), device=device)
    for state in optimizer.state.values():  # of a run that goes on
        if "step" in state:
            state["step"] = torch.as_tensor(state["step"], dtype=torch.float32, device=device)


def make_plain(optimizer: torch.optim.Optimizer) -> None:
    """The opposite, as an optimizer is made: what was kept on one kind of device goes on on another."""
    for group in optimizer.param_groups:
        group["lr"] = float(group["lr"])
        if "capturable" in group:
            group["capturable"] = False


class Replayed:
    """`learn`, whose first calls run as they are; the next is recorded, and all from then on are replayed.

    Each call takes tensors of the same shapes, on the device, and returns the loss, which the next call overwrites. What
    `learn` draws at random on the device goes on from call to call.
    """

    def __init__(self, learn: Learn, device: torch.device) -> None:
        self.learn, self.device = learn, device
        self._stream = torch.cuda.Stream(device)  # of that device, which need not be the current one
        self._calls = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs: tuple[torch.Tensor, ...] = ()
        self._loss = torch.empty(0)

    def __call__(self, *batch: torch.Tensor) -> torch.Tensor:
        self._calls += 1
        if self._calls <= WARM_UP:
            return self._on_side_stream(batch)
        if self._graph is None:
            self._inputs = tuple(torch.empty_like(tensor) for tensor in batch)
        for mine, given in zip(self._inputs, batch, strict=True):
            mine.copy_(given)
        if self._graph is None:
            graph = torch.cuda.CUDAGraph()
            recording = torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local")
            with recording:  # nothing is run
                self._loss = self.learn(*self._inputs)
            self._graph = graph
        self._graph.replay()
        return self._loss

    def _on_side_stream(self, batch: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """On another stream, as recording asks for: the default one cannot be recorded."""
        here = torch.cuda.current_stream(self.device)
        self._stream.wait_stream(here)
        with torch.cuda.stream(self._stream):
            loss = self.learn(*batch)
        here.wait_stream(self._stream)
        return loss
