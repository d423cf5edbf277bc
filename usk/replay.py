"""Record a training step as a CUDA graph and replay it.

The kernels of a small network take microseconds, less than launching each of them takes. A CUDA graph
(`torch.cuda.CUDAGraph`) launches all kernels of a step at once.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

WARM_UP = 3  # ordinary steps before recording, in which libraries choose kernels and allocate memory

TrainStep = Callable[..., torch.Tensor]  # takes the tensors of a batch, updates the weights, returns the loss


def replayable(optimizer: torch.optim.Optimizer, device: torch.device) -> bool:
    """Whether steps of this optimizer can be recorded on `device`."""
    return device.type == "cuda" and all("capturable" in group for group in optimizer.param_groups)


def make_replayable(optimizer: torch.optim.Optimizer, device: torch.device) -> None:
    """Move the learning rates and step counts to the device, where a recorded step reads them."""
    for group in optimizer.param_groups:
        group["capturable"] = True
        group["lr"] = torch.tensor(float(group["lr"]), device=device)
    for state in optimizer.state.values():  # not empty if a checkpoint was loaded
        if "step" in state:
            state["step"] = torch.as_tensor(state["step"], dtype=torch.float32, device=device)


def undo_replayable(optimizer: torch.optim.Optimizer) -> None:
    """Undo `make_replayable`, so that a checkpoint from a CUDA device can be resumed on a CPU."""
    for group in optimizer.param_groups:
        group["lr"] = float(group["lr"])
        if "capturable" in group:
            group["capturable"] = False


class ReplayedStep:
    """Runs `step` the first `WARM_UP` times, then records it once and replays it.

    All calls take tensors of the same shapes on the device. They return the loss in a tensor that the next call overwrites.
    Random numbers on the device continue from call to call.
    """

    def __init__(self, step: TrainStep, device: torch.device) -> None:
        self.step, self.device = step, device
        self._stream = torch.cuda.Stream(device)
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
        for recorded, tensor in zip(self._inputs, batch, strict=True):
            recorded.copy_(tensor)
        if self._graph is None:
            graph = torch.cuda.CUDAGraph()
            recording = torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local")
            with recording:  # records the kernels without running them
                self._loss = self.step(*self._inputs)
            self._graph = graph
        self._graph.replay()
        return self._loss

    def _on_side_stream(self, batch: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """Run the step on the stream that will be recorded, since the default stream cannot be recorded."""
        default = torch.cuda.current_stream(self.device)
        self._stream.wait_stream(default)
        with torch.cuda.stream(self._stream):
            loss = self.step(*batch)
        default.wait_stream(self._stream)
        return loss
