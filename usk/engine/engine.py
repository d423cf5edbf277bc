"""Run the units of a job in this process, or in a pool of workers (`usk.engine.local`, `usk.engine.ray`).

A unit is the work that one worker does at a time, such as rendering a batch or training one run. A setup function prepares
each worker for its units. Units and setup functions are picklable. The result of a unit does not depend on the worker that
runs it. If a worker is killed, another worker runs its unit again.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from usk.errors import UskError

RunUnit = Callable[[Any, Callable[..., None]], Any]
"""`run_unit(unit, on_progress)` runs one unit and returns its result. It reports progress by `on_progress(...)`."""
Setup = Callable[[str], RunUnit]
"""`setup(device)` is called once in each worker and returns the function that runs its units."""
MAX_WORKER_LOSSES = 3  # while running the same unit; after that the unit counts as the cause
LOCAL, RAY = "local", "ray"


@dataclass(frozen=True)
class Workers:
    """How many workers run at the same time, the torch threads of each, and the devices of this machine that they share."""

    processes: int
    threads: int
    devices: tuple[str, ...] = ("cpu",)
    engine: str = LOCAL
    gpu_share: float = 1.0  # the fraction of a GPU that each worker reserves in a cluster

    def on_engine(self, engine: str, wanted: int | None, n_units: int) -> Workers:
        """Return these workers for another engine: `wanted` of them, or one for each unit if `wanted` is None."""
        if engine == LOCAL:
            return self
        gpu_share = min(1.0, len(self.devices) / self.processes)
        processes = max(1, min(wanted or n_units, n_units))
        return replace(self, processes=processes, engine=engine, gpu_share=gpu_share)

    def device(self, number: int) -> str:
        """Return the device of a worker: workers take the devices in turn."""
        return self.devices[number % len(self.devices)]


@dataclass(frozen=True)
class Job:
    """Units to run. All functions but `setup` are called in this process, in the thread that runs the job.

    `make_unit` gets the number of a unit, from 0, just before a worker runs it. `on_progress` and `on_result` get a unit's
    number and its progress or its result. The Ray engine reports no progress.
    """

    n_units: int
    setup: Setup
    make_unit: Callable[[int], Any]
    on_progress: Callable[..., None] = lambda *_: None
    on_result: Callable[[int, Any], None] = lambda *_: None


class SharedTensor(ABC):
    """A picklable handle of a tensor that all workers can read."""

    @abstractmethod
    def to(self, device: Any) -> Any:
        """Return the tensor on a torch device. Workers call this."""

    def delete(self) -> None:  # noqa: B027
        """Free the tensor: no unit needs it any more."""


class Engine(ABC):
    """Runs units. As a context manager it stops its workers and deletes its temporary files on exit."""

    def __init__(self, workers: Workers) -> None:
        self.workers = workers

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:  # noqa: B027
        pass

    @abstractmethod
    def share(self, tensor: Any) -> SharedTensor:
        """Store a tensor where all workers can read it. Units carry the handle that this returns."""

    @abstractmethod
    def run(self, job: Job) -> None:
        """Run all units. Raise a failed unit's exception, or UskError if `MAX_WORKER_LOSSES` workers were lost with one unit."""


@dataclass(frozen=True)
class _InProcessTensor(SharedTensor):
    tensor: Any

    def to(self, device: Any) -> Any:
        return self.tensor.to(device)


class InProcessEngine(Engine):
    """Runs all units in this process, one after another."""

    def share(self, tensor: Any) -> SharedTensor:
        return _InProcessTensor(tensor)

    def run(self, job: Job) -> None:
        from usk.device import threads_of_torch

        run_unit = job.setup(self.workers.device(0))
        for number in range(job.n_units):
            unit = job.make_unit(number)
            with threads_of_torch(self.workers.threads):
                result = run_unit(unit, partial(job.on_progress, number))
            job.on_result(number, result)


class WorkerPool(Engine):
    """Starts workers, sends each one unit at a time, and replaces workers that are lost.

    Subclasses exchange messages with the workers. A worker has a number, and a slot that decides its device.
    """

    @abstractmethod
    def start(self, slot: int, setup: Setup) -> int:
        """Start a worker in a slot and return the worker's number."""

    @abstractmethod
    def send(self, worker: int, unit: Any) -> None:
        """Send a unit to a worker."""

    @abstractmethod
    def dismiss(self, worker: int) -> None:
        """Stop a worker that no unit is left for."""

    @abstractmethod
    def receive(self) -> tuple[int, tuple[Any, ...]] | None:
        """Return the number of a worker and its next message, or None after a second without one.

        Messages are `("ready",)`, `("progress", arguments)`, `("result", result)`, `("error", exception)`, `("lost", reason)`.
        """

    @abstractmethod
    def loss_error(self, worker: int, reason: str) -> UskError:
        """Return the error for a unit that lost too many workers; `worker` is the last of them."""

    def run(self, job: Job) -> None:
        """Run all units. An idle worker gets the next one; the unit of a lost worker comes next again, and a new worker replaces it."""
        waiting, losses = deque(range(job.n_units)), Counter[int | None]()
        n_slots = min(self.workers.processes, job.n_units)
        slots = {self.start(slot, job.setup): slot for slot in range(n_slots)}
        # The unit of each worker; None before its first
        running: dict[int, int | None] = dict.fromkeys(slots)

        def give_unit(worker: int) -> None:
            if waiting:
                running[worker] = number = waiting.popleft()
                self.send(worker, job.make_unit(number))
            else:
                del running[worker]
                self.dismiss(worker)

        while waiting or any(number is not None for number in running.values()):
            worker, message = self.receive() or (None, ())
            if worker is None or worker not in running:
                continue
            number = running[worker]
            match message:
                case ("ready",):
                    give_unit(worker)
                case "progress", arguments:
                    job.on_progress(number, *arguments)
                case "result", result:
                    assert number is not None
                    job.on_result(number, result)
                    give_unit(worker)
                case "error", exception:
                    raise exception
                case "lost", reason:
                    del running[worker]
                    losses[number] += 1
                    if losses[number] == MAX_WORKER_LOSSES:
                        raise self.loss_error(worker, reason)
                    if number is not None:
                        waiting.appendleft(number)
                    if waiting:
                        replacement = self.start(slots[worker], job.setup)
                        slots[replacement], running[replacement] = slots[worker], None
