"""Units on a Ray cluster, as tasks of actors: a running one (`RAY_ADDRESS`, or of this machine), else one that is started here.

An actor is one worker, on one machine. Before it is given anything it looks whether that machine sees what the job needs and has
the same versions. What units share lies in Ray's object store, once a machine. A lost actor is replaced, and its unit done again.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import signal
import socket
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from usk.engine.engine import LOSSES, Begin, Pool, Shared, Workers
from usk.engine.local import sigterm_unwinds
from usk.engine.part import versions
from usk.engine.worker import as_sent
from usk.errors import UsageError, UskError, disk_errors
from usk.files import PARTIAL
from usk.hub import first_line

CONNECT_S = 10.0


@dataclass(frozen=True)
class _InStore(Shared):
    reference: Any

    def on(self, device: Any) -> Any:
        import ray
        import torch

        return torch.from_numpy(ray.get(self.reference)).to(device)


class RayActors(Pool):
    """The actors, by their number."""

    def __init__(self, workers: Workers, needed: Sequence[str | Path]) -> None:
        super().__init__(workers)
        self.needed = [str(Path(place).absolute()) for place in needed if Path(place).exists()]
        self.actors: list[Any] = []
        self.begin: Any = None  # where it lies in the store
        self.asked: dict[Any, int] = {}  # what an actor has not answered yet
        self._left = contextlib.ExitStack()

    def __enter__(self) -> RayActors:
        _connect()
        self.on_gpu = self.workers.devices[0].startswith("cuda")
        self.each = self._resources()
        with contextlib.ExitStack() as stack:
            stack.enter_context(sigterm_unwinds())
            if self.needed:  # a folder of the same name would not do
                mark = Path(self.needed[0]) / PARTIAL.format(secrets.token_hex(8))
                with disk_errors(mark.parent):
                    mark.touch()
                stack.callback(mark.unlink, missing_ok=True)
                self.needed[0] = str(mark)
            self._left = stack.pop_all()
        return self

    def _resources(self) -> dict[str, float]:
        """Of each actor; there are no more of them than the cluster has room for. Raises UsageError where none fits."""
        import ray

        machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        most_cpus = max((machine.get("CPU", 0) for machine in machines), default=0)
        each = {"num_cpus": max(1.0, min(self.workers.threads, most_cpus)), "num_gpus": 0.0}
        if self.on_gpu:
            each["num_gpus"] = self.workers.of_gpu
        room = 0
        for machine in machines:
            fits = machine.get("CPU", 0) // each["num_cpus"]
            if self.on_gpu:
                fits = min(fits, machine.get("GPU", 0) // each["num_gpus"])
            room += int(fits)
        if not room:
            what = "GPU" if self.on_gpu else "CPU"
            hint = "Name another device, or another cluster in RAY_ADDRESS."
            raise UsageError(f"has no {what} in its cluster", field="engine", value="ray", hint=hint)
        self.workers = replace(self.workers, processes=min(self.workers.processes, room))
        return each

    def share(self, tensor: Any) -> Shared:
        import ray

        return _InStore(ray.put(tensor.cpu().numpy()))

    def start(self, place: int, begin: Begin) -> int:
        import ray

        threads = str(self.workers.threads)
        environment = {"env_vars": {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}}
        options = {**self.each, "max_restarts": 0, "runtime_env": environment}
        actor: Any = ray.remote(_worker_class()).options(**options).remote()
        number = len(self.actors)
        self.actors.append(actor)
        self.begin = self.begin or ray.put(begin)
        self.asked[actor.look.remote(str(Path.cwd()), self.needed, versions())] = number
        return number

    def send(self, worker: int, unit: Any) -> None:
        device = "cuda:0" if self.on_gpu else "cpu"
        asked = self.actors[worker].do.remote([self.begin], device, self.workers.threads, unit)
        self.asked[asked] = worker

    def dismiss(self, worker: int) -> None:
        import ray

        ray.kill(self.actors[worker])

    def answer(self) -> tuple[int, tuple[Any, ...]] | None:
        import ray

        ready, _ = ray.wait(list(self.asked), num_returns=1, timeout=1.0)
        if not ready:
            return None
        worker = self.asked.pop(ready[0])
        try:
            answer = ray.get(ready[0])
        except (
            ray.exceptions.RayActorError,
            ray.exceptions.NodeDiedError,
            ray.exceptions.ObjectLostError,
        ) as error:
            self.dismiss(worker)  # its result may be lost with a machine's store, and it not
            return worker, ("gone", first_line(error))
        except ray.exceptions.RayError as error:
            wrong = UskError(f"a machine of the cluster cannot do its work ({first_line(error)})")
            return worker, ("error", wrong)
        if isinstance(answer, str):  # what it found wrong with its machine
            hint = "Every machine needs the same usk, and the same folders under the same names."
            answer = ("error", UsageError(answer, field="engine", value="ray", hint=hint))
        return worker, answer

    def how_it_ended(self, worker: int, why: str) -> UskError:
        hint = "If memory was short, use fewer workers."
        return UskError(f"a worker of the cluster was lost {LOSSES} times with the same work", hint=hint)

    def __exit__(self, *_: object) -> None:
        import ray

        for actor in self.actors:
            ray.kill(actor)
        self._left.close()


def _connect() -> None:
    """Raises UsageError for a cluster that cannot be used."""
    import ray

    # What its daemon says would stand among results on the standard output, whatever `log_to_driver` says.
    ray._private.worker.print_to_stdstream = lambda *_, **__: None
    if ray.is_initialized():
        return
    for name in ("RAY_USAGE_STATS_ENABLED", "RAY_worker_niceness"):  # of a cluster that is started here
        os.environ.setdefault(name, "0")
    on_sigterm = signal.getsignal(signal.SIGTERM)
    hint = "See that RAY_ADDRESS and RAY_AUTH_MODE are right, and that Ray and Python have one version everywhere."
    try:
        host, _, port = os.environ.get("RAY_ADDRESS", "").removeprefix("ray://").rpartition(":")
        if port.isdigit():  # where nobody answers, Ray would end this process
            socket.create_connection((host, int(port)), CONNECT_S).close()
        ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:  # of a node that does not start in time it is no other
        why = f"cannot be used ({first_line(error)})"
        raise UsageError(why, field="engine", value="ray", hint=hint) from error
    if threading.current_thread() is threading.main_thread():  # Ray's handler would abort, with a C++ trace
        signal.signal(signal.SIGTERM, on_sigterm)


def do_unit(doing: list[Any], begin: Any, device: str, threads: int, unit: Any) -> tuple[Any, ...]:
    """One unit, in an actor, which keeps what does them in `doing`."""
    import ray
    import torch

    from usk.device import keep_freed_memory

    try:
        if not doing:
            torch.set_num_threads(threads)
            keep_freed_memory()
            doing.append(ray.get(begin)(device))
        return "ended", doing[0](unit, lambda *_: None)
    except BaseException as error:
        return "error", as_sent(error)


def _worker_class() -> type:
    """What runs in an actor. A class inside a function is sent by value: a machine without usk can say so."""

    class Worker:
        def __init__(self) -> None:
            self.doing: list[Any] = []

        def look(self, folder: str, needed: list[str], versions: dict[str, str]) -> Any:
            """What is wrong with this machine, or that it is ready. It works in the command's `folder`, where there is one."""
            import contextlib
            import importlib.metadata
            import os
            import socket

            machine = f"has a machine, {socket.gethostname()}"
            try:  # without the seconds that importing torch takes
                here = {"usk": importlib.import_module("usk").__version__}
                here["torch"] = importlib.metadata.version("torch")
            except ImportError as error:
                return f"{machine}, without {error.name}"
            for name, version in versions.items():
                if here[name] != version:
                    return f"{machine}, with {name} {here[name]} in place of {version}"
            with contextlib.suppress(OSError):  # then only absolute paths will do
                os.chdir(folder)
            for place in needed:
                if not os.path.exists(place):  # noqa: PTH110
                    unseen = place if place != needed[0] else os.path.dirname(place)  # noqa: PTH120
                    return f"{machine}, that does not see {unseen}"
            return ("ready",)

        def do(self, begin: list[Any], device: str, threads: int, unit: Any) -> Any:
            from usk.engine.ray import do_unit

            return do_unit(self.doing, begin[0], device, threads, unit)

    return Worker
