"""Units in several processes of this machine, spread over its GPUs.

The processes are fresh ones (`python -m usk.engine.worker`), so that a script needs no guard for its main module. They talk over
their standard input and output, in pickles, and end with whoever started them.
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

from usk.engine.engine import LOSSES, Begin, Pool, Shared, Workers
from usk.engine.worker import NO_MORE, READY, send
from usk.errors import UskError

ALONE = "use one process alone (workers 1)"


@dataclass(frozen=True)
class _InFile(Shared):
    file: Path

    def on(self, device: Any) -> Any:
        """On a CPU it is mapped into memory that all processes share."""
        import torch

        return torch.from_numpy(np.load(self.file, mmap_mode="r")).to(device)

    def drop(self) -> None:
        with contextlib.suppress(OSError):  # Windows keeps what is mapped; the folder goes in the end
            self.file.unlink()


class Processes(Pool):
    """The worker processes, by their number; all are killed in the end, and what they share is deleted, whoever is killed."""

    def __init__(self, workers: Workers) -> None:
        super().__init__(workers)
        self.answers: queue.Queue[tuple[int, tuple[Any, ...]]] = queue.Queue()
        self.started: list[subprocess.Popen[bytes]] = []
        self.n_shared = 0

    def __enter__(self) -> Processes:
        with contextlib.ExitStack() as stack:
            stack.enter_context(sigterm_unwinds())
            folder = tempfile.TemporaryDirectory(prefix="usk-features-", ignore_cleanup_errors=True)
            self.folder = Path(stack.enter_context(folder))
            self._left = stack.pop_all()
        return self

    def share(self, tensor: Any) -> Shared:
        path = self.folder / f"{self.n_shared}.npy"
        self.n_shared += 1
        try:
            with path.open("wb") as file:
                np.save(file, tensor.cpu().numpy())
        except OSError as error:  # of a short write it has no number, only words
            raise UskError(
                f"the features of the clips cannot be written to {self.folder} ({error})",
                hint=f"Free some space there, set $TMPDIR to a folder that has some, or {ALONE}.",
            ) from error
        return _InFile(path)

    def start(self, place: int, begin: Begin) -> int:
        threads = str(self.workers.threads)
        environment = {
            **os.environ,
            # What is found here, in that order.
            "PYTHONPATH": os.pathsep.join(str(Path(entry).absolute()) for entry in sys.path),
            "OMP_NUM_THREADS": threads,
            "MKL_NUM_THREADS": threads,
        }
        number = len(self.started)
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "usk.engine.worker"],  # nothing from the current folder
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
        )
        self.started.append(process)
        assert process.stdout is not None
        threading.Thread(target=_listen, args=(number, process.stdout, self.answers), daemon=True).start()
        self.send(number, (begin, self.workers.device(place), self.workers.threads, self.folder))
        return number

    def send(self, worker: int, unit: Any) -> None:
        pipe = self.started[worker].stdin
        assert pipe is not None
        send(pipe, unit)

    def dismiss(self, worker: int) -> None:
        self.send(worker, NO_MORE)

    def answer(self) -> tuple[int, tuple[Any, ...]] | None:
        try:  # without a timeout, Windows does not notice Ctrl-C
            return self.answers.get(timeout=1.0)
        except queue.Empty:
            return None

    def how_it_ended(self, worker: int, why: str) -> UskError:
        code = 0 if why else self.started[worker].wait()
        if code < 0:
            killed = f"a worker process was killed ({signal.Signals(-code).name}), {LOSSES} times with the same work"
            return UskError(killed, hint=f"If memory was short, {ALONE}.")
        why = why or f"ended with exit code {code}"
        return UskError(f"a worker process {why}", hint=f"{ALONE.capitalize()}.")

    def __exit__(self, *_: object) -> None:
        for process in self.started:
            process.kill()
        for process in self.started:
            process.wait()
            if process.stdin is not None:
                with contextlib.suppress(OSError):
                    process.stdin.close()
        self._left.close()


def _listen(number: int, pipe: IO[bytes], answers: queue.Queue[tuple[int, tuple[Any, ...]]]) -> None:
    """Hand on what a process says, with its number; `("gone", why)` once it says no more."""
    with pipe:
        try:
            while (line := pipe.readline()) != READY:  # whatever Python itself printed as it began
                if not line:
                    raise EOFError
            answers.put((number, ("ready",)))
            while True:
                answers.put((number, pickle.load(pipe)))
        except EOFError:
            answers.put((number, ("gone", "")))
        except Exception as error:
            answers.put((number, ("gone", f"said what cannot be read ({error})")))


@contextlib.contextmanager
def sigterm_unwinds() -> Iterator[None]:
    """SIGTERM and SIGHUP end this process by an exception, so that nothing stays in folders of temporary files."""
    signals = [signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
    mine = [one for one in signals if signal.getsignal(one) == signal.SIG_DFL]
    if threading.current_thread() is not threading.main_thread():
        mine = []

    def stop(number: int, _frame: Any) -> None:
        raise SystemExit(128 + number)

    for one in mine:
        signal.signal(one, stop)
    try:
        yield
    finally:
        for one in mine:
            signal.signal(one, signal.SIG_DFL)
