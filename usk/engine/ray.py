"""Run units on a Ray cluster: the one at `RAY_ADDRESS`, one that runs on this machine, or a new one on this machine.

Each worker is an actor. Before an actor gets a unit, it checks that its machine sees the required paths and has the same
package versions. Shared tensors are in Ray's object store, once on each machine. A lost actor is replaced.
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

from usk.engine.engine import MAX_WORKER_LOSSES, Setup, SharedTensor, WorkerPool, Workers
from usk.engine.local import exit_on_sigterm
from usk.engine.part import job_versions
from usk.engine.worker import sendable_error
from usk.errors import UsageError, UskError, disk_errors
from usk.files import PARTIAL
from usk.hub import first_line

CONNECT_S = 10.0


@dataclass(frozen=True)
class _StoredTensor(SharedTensor):
    reference: Any

    def to(self, device: Any) -> Any:
        import ray
        import torch

        return torch.from_numpy(ray.get(self.reference)).to(device)


class RayEngine(WorkerPool):
    """Runs units in Ray actors. On exit it kills them."""

    def __init__(self, workers: Workers, required_paths: Sequence[str | Path]) -> None:
        super().__init__(workers)
        self.required_paths = [str(Path(path).absolute()) for path in required_paths if Path(path).exists()]
        self.actors: list[Any] = []  # a worker's number is its index
        self.setup_reference: Any = None  # of the setup function in the object store
        self.pending: dict[Any, int] = {}  # the worker of each call that has not returned
        self._cleanup = contextlib.ExitStack()

    def __enter__(self) -> RayEngine:
        _connect()
        self.on_gpu = self.workers.devices[0].startswith("cuda")
        self.resources = self._resources()
        with contextlib.ExitStack() as stack:
            stack.enter_context(exit_on_sigterm())
            if self.required_paths:
                # Machines look for a new file, since another folder may have the same path there.
                marker = Path(self.required_paths[0]) / PARTIAL.format(secrets.token_hex(8))
                with disk_errors(marker.parent):
                    marker.touch()
                stack.callback(marker.unlink, missing_ok=True)
                self.required_paths[0] = str(marker)
            self._cleanup = stack.pop_all()
        return self

    def _resources(self) -> dict[str, float]:
        """Return the CPUs and GPUs of each actor, and limit the workers to the cluster's room. Raise UsageError without room."""
        import ray

        machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        most_cpus = max((machine.get("CPU", 0) for machine in machines), default=0)
        n_cpus = max(1.0, min(self.workers.threads, most_cpus))
        n_gpus = self.workers.gpu_share if self.on_gpu else 0.0
        room = 0
        for machine in machines:
            fits = machine.get("CPU", 0) // n_cpus
            if self.on_gpu:
                fits = min(fits, machine.get("GPU", 0) // n_gpus)
            room += int(fits)
        if not room:
            kind = "GPU" if self.on_gpu else "CPU"
            hint = "Name another device, or another cluster in RAY_ADDRESS."
            raise UsageError(f"has no {kind} in its cluster", field="engine", value="ray", hint=hint)
        self.workers = replace(self.workers, processes=min(self.workers.processes, room))
        return {"num_cpus": n_cpus, "num_gpus": n_gpus}

    def share(self, tensor: Any) -> SharedTensor:
        import ray

        return _StoredTensor(ray.put(tensor.cpu().numpy()))

    def start(self, slot: int, setup: Setup) -> int:
        import ray

        threads = str(self.workers.threads)
        environment = {"env_vars": {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}}
        options = {**self.resources, "max_restarts": 0, "runtime_env": environment}
        actor: Any = ray.remote(_worker_class()).options(**options).remote()
        number = len(self.actors)
        self.actors.append(actor)
        self.setup_reference = self.setup_reference or ray.put(setup)
        check = actor.check_machine.remote(str(Path.cwd()), self.required_paths, job_versions())
        self.pending[check] = number
        return number

    def send(self, worker: int, unit: Any) -> None:
        device = "cuda:0" if self.on_gpu else "cpu"
        # A reference inside a list reaches the actor as it is; elsewhere Ray would replace it by its value.
        call = self.actors[worker].run.remote([self.setup_reference], device, self.workers.threads, unit)
        self.pending[call] = worker

    def dismiss(self, worker: int) -> None:
        import ray

        ray.kill(self.actors[worker])

    def receive(self) -> tuple[int, tuple[Any, ...]] | None:
        import ray

        ready, _ = ray.wait(list(self.pending), num_returns=1, timeout=1.0)
        if not ready:
            return None
        worker = self.pending.pop(ready[0])
        try:
            answer = ray.get(ready[0])
        except (
            ray.exceptions.RayActorError,
            ray.exceptions.NodeDiedError,
            ray.exceptions.ObjectLostError,
        ) as error:
            self.dismiss(worker)  # a result can be lost with a machine while its actor still runs
            return worker, ("lost", first_line(error))
        except ray.exceptions.RayError as error:
            failure = UskError(f"a machine of the cluster cannot do its work ({first_line(error)})")
            return worker, ("error", failure)
        if isinstance(answer, str):  # the problem that `check_machine` found
            hint = "Every machine needs the same usk, and the same folders under the same names."
            answer = ("error", UsageError(answer, field="engine", value="ray", hint=hint))
        return worker, answer

    def loss_error(self, worker: int, reason: str) -> UskError:
        hint = "If memory was short, use fewer workers."
        return UskError(
            f"a worker of the cluster was lost {MAX_WORKER_LOSSES} times with the same work", hint=hint
        )

    def __exit__(self, *_: object) -> None:
        import ray

        for actor in self.actors:
            ray.kill(actor)
        self._cleanup.close()


def _connect() -> None:
    """Connect to the cluster. Raise UsageError if it cannot be used."""
    import ray

    # Ray's daemon prints to standard output, among usk's results, even without `log_to_driver`.
    ray._private.worker.print_to_stdstream = lambda *_, **__: None
    if ray.is_initialized():
        return
    for name in ("RAY_USAGE_STATS_ENABLED", "RAY_worker_niceness"):  # read by a cluster that starts here
        os.environ.setdefault(name, "0")
    on_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        host, _, port = os.environ.get("RAY_ADDRESS", "").removeprefix("ray://").rpartition(":")
        if port.isdigit():  # if nothing listens there, `ray.init` would end this process
            socket.create_connection((host, int(port)), CONNECT_S).close()
        ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:  # Ray raises a plain Exception if a node does not start in time
        hint = "See that RAY_ADDRESS and RAY_AUTH_MODE are right, and that Ray and Python have one version everywhere."
        message = f"cannot be used ({first_line(error)})"
        raise UsageError(message, field="engine", value="ray", hint=hint) from error
    if threading.current_thread() is threading.main_thread():
        # Ray installs a handler that aborts with a C++ traceback.
        signal.signal(signal.SIGTERM, on_sigterm)


def run_in_actor(
    run_units: list[Any], setup_reference: Any, device: str, threads: int, unit: Any
) -> tuple[Any, ...]:
    """Run one unit and return a message for `WorkerPool.receive`. The first call puts the setup's result into `run_units`."""
    import ray
    import torch

    from usk.device import keep_freed_memory

    try:
        if not run_units:
            torch.set_num_threads(threads)
            keep_freed_memory()
            run_units.append(ray.get(setup_reference)(device))
        return "result", run_units[0](unit, lambda *_: None)
    except BaseException as error:
        return "error", sendable_error(error)


def _worker_class() -> type:
    """Return the class of the actors.

    Ray sends a class that is defined inside a function by value, so it also runs on a machine without usk and can report that.
    """

    class Worker:
        def __init__(self) -> None:
            self.run_units: list[Any] = []

        def check_machine(self, folder: str, required_paths: list[str], versions: dict[str, str]) -> Any:
            """Return `("ready",)`, or a text that says what is wrong with this machine. Change to `folder` if it exists."""
            import contextlib
            import importlib.metadata
            import os
            import socket

            machine = f"has a machine, {socket.gethostname()}"
            try:  # reading the version of torch takes no time; importing torch takes seconds
                here = {"usk": importlib.import_module("usk").__version__}
                here["torch"] = importlib.metadata.version("torch")
            except ImportError as error:
                return f"{machine}, without {error.name}"
            for name, version in versions.items():
                if here[name] != version:
                    return f"{machine}, with {name} {here[name]} in place of {version}"
            with contextlib.suppress(OSError):  # without the folder, only absolute paths work
                os.chdir(folder)
            for path in required_paths:
                if not os.path.exists(path):  # noqa: PTH110
                    unseen = path if path != required_paths[0] else os.path.dirname(path)  # noqa: PTH120
                    return f"{machine}, that does not see {unseen}"
            return ("ready",)

        def run(self, setup: list[Any], device: str, threads: int, unit: Any) -> Any:
            from usk.engine.ray import run_in_actor

            return run_in_actor(self.run_units, setup[0], device, threads, unit)

    return Worker
