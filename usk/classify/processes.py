"""Several classifiers trained at the same time, each in a process of its own.

A small network leaves most of a machine idle: on a CPU one thread each for several of them does more than all threads for
one. The processes are fresh ones (`python -m usk.classify.processes`), so that a script that calls `usk.train` needs no
guard for its main module. They talk over their standard input and output, in pickles, and end with whoever started them.
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
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from usk.classify.fitting import Assignment, Fitted, Table, fit_classifier
from usk.classify.models import TRANSFORMER, preset
from usk.device import keep_freed_memory
from usk.errors import UskError, disk_errors

WORTH_CLIPS = (
    2**15
)  # a process takes seconds to start; below this many clips trained on in all, one is enough
WORKER_BYTES = 1_500_000_000  # of memory for each, at most half of the machine's in all


@dataclass(frozen=True)
class Share:
    """How many processes train at the same time, and how many threads each has."""

    processes: int
    threads: int


def share_cores(cores: int, runs: int, memory_bytes: float = math.inf) -> Share:
    """As many processes as there are cores, runs and memory for; threads for each, so that they fill the cores."""
    most = max(1, min(cores, runs, int(memory_bytes / 2 / WORKER_BYTES)))
    threads = math.ceil(cores / most)
    return Share(max(1, min(most, cores // threads)), threads)


def share_of(
    workers: int | None, classifier: str, runs: int, clips_in_all: int, device: torch.device
) -> Share:
    """The processes for `runs` that train on `clips_in_all` together; `workers` as the user said, None to choose.

    Chosen are one process on CUDA, for a `transformers` classifier, which keeps all cores busy by itself, and for little
    work.
    """
    cores = torch.get_num_threads()
    if workers is not None:
        processes = max(1, min(workers, runs))
        return Share(processes, max(1, cores // processes))
    if device.type != "cpu" or classifier.startswith(TRANSFORMER) or clips_in_all < WORTH_CLIPS:
        return Share(1, cores)
    return share_cores(cores, runs, _memory_bytes())


def _memory_bytes() -> float:
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, OSError, ValueError):  # not on Windows
        return math.inf


# --- the side that has work to give -----------------------------------------------------------------------------


class TableFiles:
    """The tables of features as files that all processes map into memory."""

    def __init__(self, folder: Path, table_of: Callable[[str], Table]) -> None:
        """`table_of` computes the one of a source."""
        self.folder, self.table_of = folder, table_of
        self._written: dict[str, tuple[Path, np.ndarray]] = {}

    def of(self, names: Sequence[str]) -> dict[str, tuple[Path, np.ndarray]]:
        """File of the features and labels, by source; written when first asked for."""
        for name in names:
            if name not in self._written:
                table, path = self.table_of(name), self.folder / f"{len(self._written)}.npy"
                with disk_errors(self.folder):
                    np.save(path, table.features.cpu().numpy())
                self._written[name] = path, table.labels.numpy()
        return {name: self._written[name] for name in names}


def fit_in_processes(
    tasks: Sequence[Assignment],
    classifier: str,
    table_of: Callable[[str], Table],
    device: torch.device,
    share: Share,
    after_epoch: Callable[[int, int, float], None],
    ended: Callable[[int, Fitted], None],
) -> None:
    """Train every task, several at a time. `after_epoch(index, epoch, validation accuracy)` and `ended(index, fitted)` are
    called one at a time, in the order in which things happen.

    Raises what a process raised, once all others have been stopped; UskError for one that was killed.
    """
    lock = threading.Lock()
    waiting = iter(range(len(tasks)))

    def work(process: subprocess.Popen[bytes], files: TableFiles) -> None:
        assert process.stdin is not None and process.stdout is not None
        _send(process.stdin, (classifier, str(device), share.threads))
        while True:
            with lock:
                index = next(waiting, None)
                if index is None:
                    process.stdin.close()  # it ends, and its memory is free
                    return
                task = tasks[index]
                tables = files.of(list(dict.fromkeys(["real", *(name for name, _ in task.parts)])))
            _send(process.stdin, (task, tables))
            for kind, *said in _messages(process):
                with lock:
                    if kind == "epoch":
                        after_epoch(index, *said)
                        continue
                    ended(index, *said)
                break

    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="usk-features-"))
        files = TableFiles(Path(folder), table_of)
        pool = stack.enter_context(ThreadPoolExecutor(share.processes, thread_name_prefix="training"))
        processes = stack.enter_context(
            _started(share)
        )  # stopped before the threads that listen to them are joined
        futures = [pool.submit(work, process, files) for process in processes]
        done, _ = wait(futures, return_when=FIRST_EXCEPTION)
        for future in done:
            future.result()


@contextlib.contextmanager
def _started(share: Share) -> Iterator[list[subprocess.Popen[bytes]]]:
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
                    [sys.executable, "-P", "-m", __name__],  # nothing from the current folder
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
            for pipe in filter(None, (process.stdin, process.stdout)):
                with contextlib.suppress(OSError):
                    pipe.close()


def _send(pipe: IO[bytes], message: Any) -> None:
    with contextlib.suppress(BrokenPipeError):  # it has ended: reading says how
        pickle.dump(message, pipe)
        pipe.flush()


def _messages(process: subprocess.Popen[bytes]) -> Iterator[tuple[Any, ...]]:
    """What a process says, until it has finished a task. Raises what it raised."""
    assert process.stdout is not None
    while True:
        try:
            message = pickle.load(process.stdout)
        except (EOFError, pickle.UnpicklingError, ValueError) as error:
            code = process.wait()
            how = f"was killed ({signal.Signals(-code).name})" if code < 0 else f"ended with exit code {code}"
            raise UskError(
                f"a training process {how}; if memory was short, train fewer at a time: --workers 1"
            ) from error
        if message[0] == "error":
            raise message[1]
        yield message


# --- the side that works ------------------------------------------------------------------------------------------


def main() -> None:
    """Train what comes in, one task after another, until nothing more can come."""
    if hasattr(signal, "SIGINT"):
        signal.signal(
            signal.SIGINT, signal.SIG_IGN
        )  # Ctrl-C is for whoever started this: the pipe will close
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what else prints must not land among the answers
    tasks: queue.Queue[Any] = queue.Queue()

    def listen() -> None:
        with contextlib.suppress(EOFError, OSError, pickle.UnpicklingError):
            while True:
                tasks.put(pickle.load(sys.stdin.buffer))
        os._exit(0)  # also in the middle of a training

    threading.Thread(target=listen, daemon=True).start()
    name, where, threads = tasks.get()
    torch.set_num_threads(threads)
    device = torch.device(where)
    keep_freed_memory()
    recipe = preset(name)
    warnings.simplefilter("ignore")
    while True:
        task, files = tasks.get()
        try:
            fitted = fit_classifier(
                task,
                recipe,
                _tables(files, device),
                device,
                lambda epoch, accuracy: _send(answers, ("epoch", epoch, accuracy)),
            )
            _send(answers, ("ended", fitted))
        except UskError as error:
            _send(answers, ("error", error))
        except BaseException:
            _send(answers, ("error", RuntimeError(f"in a training process:\n{traceback.format_exc()}")))


def _tables(files: Mapping[str, tuple[Path, np.ndarray]], device: torch.device) -> dict[str, Table]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns that what is mapped cannot be written to
        return {
            name: Table(
                torch.from_numpy(np.load(path, mmap_mode="r")).to(device),
                torch.from_numpy(labels),
            )
            for name, (path, labels) in files.items()
        }


if __name__ == "__main__":
    main()
