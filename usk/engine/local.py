"""Run units in several processes of this machine, spread over its GPUs.

Each worker is a new process of `python -m usk.engine.worker`, so a script that calls usk needs no `__main__` guard. Workers
exchange pickled messages with this process over their standard input and output. They exit when this process ends.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from usk.engine.engine import MAX_WORKER_LOSSES, Setup, SharedTensor, WorkerPool, Workers
from usk.engine.worker import NO_MORE_UNITS, READY_LINE, send_message
from usk.errors import UskError

USE_ONE_PROCESS = "use one process alone (workers 1)"


@dataclass(frozen=True)
class _FileTensor(SharedTensor):
    file: Path

    def to(self, device: Any) -> Any:
        """Return the tensor. On a CPU, all processes share the memory of the mapped file."""
        import torch

        return torch.from_numpy(np.load(self.file, mmap_mode="r")).to(device)

    def delete(self) -> None:
        with contextlib.suppress(OSError):  # Windows cannot delete a mapped file: it goes with the folder
            self.file.unlink()


class ProcessEngine(WorkerPool):
    """Runs units in worker processes. On exit it kills them and deletes the shared tensors."""

    def __init__(self, workers: Workers) -> None:
        super().__init__(workers)
        self.messages: queue.Queue[tuple[int, tuple[Any, ...]]] = queue.Queue()
        self.processes: list[subprocess.Popen[bytes]] = []  # a worker's number is its index
        self.n_shared = 0

    def __enter__(self) -> ProcessEngine:
        with contextlib.ExitStack() as stack:
            stack.enter_context(exit_on_sigterm())
            folder = tempfile.TemporaryDirectory(prefix="usk-features-", ignore_cleanup_errors=True)
            self.folder = Path(stack.enter_context(folder))
            self._cleanup = stack.pop_all()
        return self

    def share(self, tensor: Any) -> SharedTensor:
        path = self.folder / f"{self.n_shared}.npy"
        self.n_shared += 1
        try:
            with path.open("wb") as file:
                np.save(file, tensor.cpu().numpy())
        except OSError as error:  # its errno is not set when numpy could write only a part
            raise UskError(
                f"the features of the clips cannot be written to {self.folder} ({error})",
                hint=f"Free some space there, set $TMPDIR to a folder that has some, or {USE_ONE_PROCESS}.",
            ) from error
        return _FileTensor(path)

    def start(self, slot: int, setup: Setup) -> int:
        threads = str(self.workers.threads)
        environment = {
            **os.environ,
            # The worker imports modules from the same places, in the same order.
            "PYTHONPATH": os.pathsep.join(str(Path(entry).absolute()) for entry in sys.path),
            "OMP_NUM_THREADS": threads,
            "MKL_NUM_THREADS": threads,
        }
        number = len(self.processes)
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "usk.engine.worker"],  # -P: import nothing from the current folder
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
        )
        self.processes.append(process)
        assert process.stdout is not None
        arguments = (number, process.stdout, self.messages)
        threading.Thread(target=_read_messages, args=arguments, daemon=True).start()
        self.send(number, (setup, self.workers.device(slot), self.workers.threads, self.folder))
        return number

    def send(self, worker: int, unit: Any) -> None:
        pipe = self.processes[worker].stdin
        assert pipe is not None
        send_message(pipe, unit)

    def dismiss(self, worker: int) -> None:
        self.send(worker, NO_MORE_UNITS)

    def receive(self) -> tuple[int, tuple[Any, ...]] | None:
        try:  # without a timeout, Windows does not notice Ctrl-C
            return self.messages.get(timeout=1.0)
        except queue.Empty:
            return None

    def loss_error(self, worker: int, reason: str) -> UskError:
        code = 0 if reason else self.processes[worker].wait()
        if code < 0:
            name = signal.Signals(-code).name
            killed = f"a worker process was killed ({name}), {MAX_WORKER_LOSSES} times with the same work"
            return UskError(killed, hint=f"If memory was short, {USE_ONE_PROCESS}.")
        reason = reason or f"ended with exit code {code}"
        return UskError(f"a worker process {reason}", hint=f"{USE_ONE_PROCESS.capitalize()}.")

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.wait()
            if process.stdin is not None:
                with contextlib.suppress(OSError):
                    process.stdin.close()
        self._cleanup.close()


def _read_messages(number: int, pipe: IO[bytes], messages: queue.Queue[tuple[int, tuple[Any, ...]]]) -> None:
    """Put the messages of one worker into the queue, and `("lost", reason)` when its pipe ends or cannot be read."""
    with pipe:
        try:
            while (line := pipe.readline()) != READY_LINE:  # skip what Python prints at its start
                if not line:
                    raise EOFError
            messages.put((number, ("ready",)))
            while True:
                messages.put((number, pickle.load(pipe)))
        except EOFError:
            messages.put((number, ("lost", "")))
        except Exception as error:
            messages.put((number, ("lost", f"sent a message that cannot be read ({error})")))


@contextlib.contextmanager
def exit_on_sigterm() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into SystemExit, so that temporary files are deleted.

    Signals that have a handler keep it. Only the main thread may set handlers, so in another thread nothing changes.
    """
    signals = [signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
    unhandled = [number for number in signals if signal.getsignal(number) == signal.SIG_DFL]
    if threading.current_thread() is not threading.main_thread():
        unhandled = []
    for number in unhandled:
        signal.signal(number, lambda number, _frame: sys.exit(128 + number))
    try:
        yield
    finally:
        for number in unhandled:
            signal.signal(number, signal.SIG_DFL)
