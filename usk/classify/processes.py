"""Several classifiers trained at the same time, each in a process of its own.

A small network leaves most of a machine idle: on a CPU one thread each for several of them does more than all threads for
one, and a GPU waits for the process that tells it what to do next. The processes are fresh ones (`python -m
usk.classify.worker`), so that a script that calls `usk.train` needs no guard for its main module. They talk over their
standard input and output, in pickles, and end with whoever started them.
"""

from __future__ import annotations

import contextlib
import math
import os
import pickle
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from usk.classify.config import TRANSFORMER
from usk.classify.loop import FeatureTable, TrainedClassifier, TrainTask, tables_of
from usk.classify.worker import READY, send
from usk.device import cores_allowed, memory_allowed_bytes
from usk.errors import UskError

WORTH_CLIPS = 2**15  # a process takes seconds to start: with fewer clips trained on in all, one is enough
WORKER_BYTES = 1_500_000_000  # of memory for each, without its clips; at most half of the machine's in all
MOST_ON_A_GPU = 8
CORES_PER_GPU_PROCESS = 2
GPU_WORKER_BYTES = 4_000_000_000  # of its memory for each: CUDA itself, activations, cuDNN's workspaces
ONE_AT_A_TIME = "train one run at a time (workers 1)"


@dataclass(frozen=True)
class Workers:
    """How many processes train at the same time, and how many threads each has."""

    processes: int
    threads: int


def share_cores(
    cores: int, runs: int, memory_bytes: float = math.inf, each_bytes: float = WORKER_BYTES
) -> Workers:
    """As many processes as there are cores, runs and memory for; threads for each, so that they fill the cores."""
    most = max(1, int(min(cores, runs, memory_bytes / 2 / each_bytes)))
    threads = math.ceil(cores / most)
    return Workers(max(1, min(most, cores // threads)), threads)


def workers_for(
    workers: int | None,
    classifier: str,
    runs: int,
    clips_in_all: int,
    device: torch.device,
    data_bytes: int = 0,
) -> Workers:
    """The processes for `runs` that train on `clips_in_all` together; `workers` as the user said, None to choose.

    Chosen is one process for a `transformers` classifier, which keeps cores or GPU busy by itself, and for little work.
    `data_bytes` are the features that the largest run trains on: a process holds them twice while it begins.
    """
    if workers is not None:
        processes = max(1, min(workers, runs))
        return Workers(processes, max(1, torch.get_num_threads() // processes))
    if device.type not in ("cpu", "cuda") or classifier.startswith(TRANSFORMER) or clips_in_all < WORTH_CLIPS:
        return Workers(1, torch.get_num_threads())
    cores = min(torch.get_num_threads(), cores_allowed())
    each_bytes = WORKER_BYTES + 2 * data_bytes
    memory_bytes = memory_allowed_bytes()
    if device.type == "cpu":
        return share_cores(cores, runs, memory_bytes, each_bytes)
    on_gpu = torch.cuda.mem_get_info(device)[0] / GPU_WORKER_BYTES
    in_memory = memory_bytes / 4 / each_bytes  # CUDA takes as much again
    processes = max(1, int(min(runs, MOST_ON_A_GPU, cores / CORES_PER_GPU_PROCESS, in_memory, on_gpu)))
    return Workers(processes, max(1, cores // processes))


class TableFiles:
    """The tables of features as files that all processes map into memory."""

    def __init__(
        self, folder: Path, table_of: Callable[[str], FeatureTable], tasks: Sequence[TrainTask]
    ) -> None:
        """`table_of` computes the one of a source. The files of a source go when the last of `tasks` needs them no more."""
        self.folder, self.table_of = folder, table_of
        self._written: dict[str, tuple[Path, np.ndarray]] = {}
        self._waiting = Counter(name for task in tasks for name in tables_of(task))

    def of(self, names: Sequence[str]) -> dict[str, tuple[Path, np.ndarray]]:
        """File of the features and labels, by source; written when first asked for."""
        for name in names:
            if name not in self._written:
                table, path = self.table_of(name), self.folder / f"{len(self._written)}.npy"
                try:
                    with path.open("wb") as file:
                        np.save(file, table.features.cpu().numpy())
                except OSError as error:  # of a short write it has no number, only words
                    raise UskError(
                        f"the features of the clips cannot be written to {self.folder} ({error})",
                        hint=f"Free some space there, set $TMPDIR to a folder that has some, or {ONE_AT_A_TIME}.",
                    ) from error
                self._written[name] = path, table.labels.numpy()
        return {name: self._written[name] for name in names}

    def used(self, task: TrainTask) -> None:
        """One task less needs its tables."""
        for name in tables_of(task):
            self._waiting[name] -= 1
            if not self._waiting[name] and name in self._written:
                with contextlib.suppress(OSError):  # Windows keeps what is mapped; the folder goes in the end
                    self._written[name][0].unlink()


def fit_in_processes(
    tasks: Sequence[TrainTask],
    classifier: str,
    table_of: Callable[[str], FeatureTable],
    device: torch.device,
    share: Workers,
    after_epoch: Callable[[int, int, float], None],
    ended: Callable[[int, TrainedClassifier], None],
) -> None:
    """Train every task, several at a time. `after_epoch(index, epoch, validation accuracy)` and `ended(index, fitted)` are
    called in this thread, in the order in which things happen.

    Raises what a process raised, once all others have been stopped; UskError for one that was killed.
    """
    waiting = iter(range(len(tasks)))
    now: dict[int, int] = {}  # process -> task
    with contextlib.ExitStack() as stack:
        stack.enter_context(_sigterm_unwinds())
        folder = stack.enter_context(
            tempfile.TemporaryDirectory(prefix="usk-features-", ignore_cleanup_errors=True)
        )
        files = TableFiles(Path(folder), table_of, tasks)
        processes = stack.enter_context(_started(share))
        said = _listen(processes)

        def give(number: int) -> None:
            """The next task, or none: then it ends, and its memory is free."""
            pipe, index = processes[number].stdin, next(waiting, None)
            assert pipe is not None
            if index is None:
                del now[number]
                with contextlib.suppress(OSError):
                    pipe.close()
                return
            now[number] = index
            send(pipe, (tasks[index], files.of(tables_of(tasks[index]))))

        for number, process in enumerate(processes):
            assert process.stdin is not None
            send(process.stdin, (classifier, str(device), share.threads))
            now[number] = -1
            give(number)
        while now:
            try:
                number, (kind, *what) = said.get(
                    timeout=1.0
                )  # without a timeout, Windows does not notice Ctrl-C
            except queue.Empty:
                continue
            if number not in now:
                continue
            if kind == "epoch":
                after_epoch(now[number], *what)
            elif kind == "ended":
                ended(now[number], *what)
                files.used(tasks[now[number]])
                give(number)
            elif kind == "error":
                raise what[0]
            else:
                raise _how_it_ended(processes[number], *what)


def _listen(processes: Sequence[subprocess.Popen[bytes]]) -> queue.Queue[tuple[int, tuple[Any, ...]]]:
    """What the processes say, each with its number; `("gone", why)` once one says no more."""
    said: queue.Queue[tuple[int, tuple[Any, ...]]] = queue.Queue()

    def listen(number: int, pipe: IO[bytes]) -> None:
        with pipe:
            try:
                while (line := pipe.readline()) != READY:  # whatever Python itself printed as it began
                    if not line:
                        raise EOFError
                while True:
                    said.put((number, pickle.load(pipe)))
            except EOFError:
                said.put((number, ("gone", "")))
            except Exception as error:
                said.put((number, ("gone", f"said what cannot be read ({error})")))

    for number, process in enumerate(processes):
        assert process.stdout is not None
        threading.Thread(target=listen, args=(number, process.stdout), daemon=True).start()
    return said


def _how_it_ended(process: subprocess.Popen[bytes], why: str) -> UskError:
    code = 0 if why else process.wait()
    if code < 0:
        killed = f"a training process was killed ({signal.Signals(-code).name})"
        return UskError(killed, hint=f"If memory was short, {ONE_AT_A_TIME}.")
    why = why or f"ended with exit code {code}"
    return UskError(f"a training process {why}", hint=f"To avoid processes, {ONE_AT_A_TIME}.")


@contextlib.contextmanager
def _sigterm_unwinds() -> Iterator[None]:
    """SIGTERM ends this process by an exception, so that nothing stays in the folder of temporary files."""
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL
    ):
        yield
        return

    def stop(number: int, _frame: Any) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextlib.contextmanager
def _started(share: Workers) -> Iterator[list[subprocess.Popen[bytes]]]:
    """That many processes, which are killed in the end."""
    threads = str(share.threads)
    environment = {
        **os.environ,
        # What is found here, in that order.
        "PYTHONPATH": os.pathsep.join(str(Path(place).absolute()) for place in sys.path),
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
    }
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for _ in range(share.processes):
            processes.append(
                subprocess.Popen(
                    [sys.executable, "-P", "-m", "usk.classify.worker"],  # nothing from the current folder
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    env=environment,
                )
            )
        yield processes
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.wait()
            if process.stdin is not None:
                with contextlib.suppress(OSError):
                    process.stdin.close()
