"""Who does the units of a job: this process, several on this machine (`usk.engine.local`), or a Ray cluster's (`usk.engine.ray`).

A unit is what one worker does at a time: render a batch, train one run. Both it and `begin`, which prepares a worker for all of
its units, are picklable. Whoever does a unit, its result is the same. A worker that is killed costs its unit, which another one
does again.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from usk.errors import UskError

Do = Callable[[Any, Callable[..., None]], Any]
"""`do(unit, say)` does one unit and returns its result; `say(...)` is progress."""
Begin = Callable[[str], Do]
"""`begin(device)`, in each worker: what does its units."""
LOSSES = 3  # of one unit, each with its worker: then it is the unit
LOCAL, RAY = "local", "ray"


@dataclass(frozen=True)
class Workers:
    """How many work at the same time, how many threads each has, and the devices that those of this machine take in turn."""

    processes: int
    threads: int
    devices: tuple[str, ...] = ("cpu",)
    engine: str = LOCAL
    of_gpu: float = 1.0  # what each takes of a GPU in a cluster

    def by(self, engine: str, wanted: int | None, n_units: int) -> Workers:
        """The same, as many as are `wanted`, or as the cluster of `engine` has room for."""
        if engine == LOCAL:
            return self
        of_gpu = min(1.0, len(self.devices) / self.processes)
        return replace(self, processes=max(1, min(wanted or n_units, n_units)), engine=engine, of_gpu=of_gpu)

    def device(self, number: int) -> str:
        return self.devices[number % len(self.devices)]


class Shared(ABC):
    """A tensor that workers share. Picklable."""

    @abstractmethod
    def on(self, device: Any) -> Any:
        """It, in a worker, on a torch device."""

    def drop(self) -> None:  # noqa: B027
        """No unit needs it any more."""


class Engine(ABC):
    """Does units while it is entered; whatever it started or kept is gone when it is left."""

    def __init__(self, workers: Workers) -> None:
        self.workers = workers

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:  # noqa: B027
        pass

    @abstractmethod
    def share(self, tensor: Any) -> Shared:
        """Keep a tensor where all workers find it: units carry what this returns."""

    @abstractmethod
    def run(
        self,
        n_units: int,
        begin: Begin,
        unit: Callable[[int], Any],
        *,
        said: Callable[..., None] = lambda *_: None,
        ended: Callable[[int, Any], None] = lambda *_: None,
    ) -> None:
        """Do units 0 to `n_units` - 1.

        Args:
            unit: of a number, in this process, when a worker is about to do it.
            said, ended: called in this thread with a unit's number and its progress, or its result, as things happen. Not
                every engine hands progress on.

        Raises what a worker raised, once all others have been stopped; UskError for a unit whose worker was lost `LOSSES` times.
        """


@dataclass(frozen=True)
class _Mine(Shared):
    tensor: Any

    def on(self, device: Any) -> Any:
        return self.tensor.to(device)


class Here(Engine):
    """This process does all units, one after another."""

    def share(self, tensor: Any) -> Shared:
        return _Mine(tensor)

    def run(
        self,
        n_units: int,
        begin: Begin,
        unit: Callable[[int], Any],
        *,
        said: Callable[..., None] = lambda *_: None,
        ended: Callable[[int, Any], None] = lambda *_: None,
    ) -> None:
        from usk.device import threads_of_torch

        do = begin(self.workers.device(0))
        for number in range(n_units):
            what = unit(number)
            with threads_of_torch(self.workers.threads):
                result = do(what, lambda *told, number=number: said(number, *told))
            ended(number, result)


class Pool(Engine):
    """Workers that are started, given one unit after another, and replaced when they are lost."""

    @abstractmethod
    def start(self, place: int, begin: Begin) -> int:
        """A new worker in one of the places; returns its number."""

    @abstractmethod
    def send(self, worker: int, unit: Any) -> None:
        """Give it a unit."""

    @abstractmethod
    def dismiss(self, worker: int) -> None:
        """No unit is left for it: its memory is freed."""

    @abstractmethod
    def answer(self) -> tuple[int, tuple[Any, ...]] | None:
        """A worker and what it says; None after a second without an answer. `("ready",)` for a unit; `("said", what)`; `("ended",
        result)`; `("error", exception)`; `("gone", why)` if it was lost."""

    @abstractmethod
    def how_it_ended(self, worker: int, why: str) -> UskError: ...

    def run(
        self,
        n_units: int,
        begin: Begin,
        unit: Callable[[int], Any],
        *,
        said: Callable[..., None] = lambda *_: None,
        ended: Callable[[int, Any], None] = lambda *_: None,
    ) -> None:
        waiting, lost = deque(range(n_units)), Counter[int | None]()
        place_of = {self.start(place, begin): place for place in range(min(self.workers.processes, n_units))}
        now: dict[int, int | None] = dict.fromkeys(place_of)  # worker -> unit
        while waiting or any(number is not None for number in now.values()):
            if (found := self.answer()) is None:
                continue
            worker, (kind, *what) = found
            if worker not in now:
                continue
            number = now[worker]
            if kind == "said":
                said(number, *what[0])
            elif kind == "error":
                raise what[0]
            elif kind == "gone":
                del now[worker]
                lost[number] += 1
                if lost[number] == LOSSES:
                    raise self.how_it_ended(worker, *what)
                if number is not None:
                    waiting.appendleft(number)
                if waiting:
                    another = self.start(place_of[worker], begin)
                    place_of[another], now[another] = place_of[worker], None
            else:
                if kind == "ended":
                    now[worker] = None
                    ended(number if number is not None else -1, what[0])
                if waiting:
                    now[worker] = following = waiting.popleft()
                    self.send(worker, unit(following))
                else:
                    del now[worker]
                    self.dismiss(worker)
