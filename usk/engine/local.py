"""Units of work on this machine: in this process, or in several, spread over its GPUs.

A unit is what one worker does at a time: render a batch, train one run. Both it and `begin`, which prepares a worker for all of
its units, are picklable. The processes are fresh ones (`python -m usk.engine.worker`), so that a script needs no guard for its
main module. They talk over their standard input and output, in pickles, and end with whoever started them. A process that is
killed costs its unit, which another one does again.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from usk.engine.worker import NO_MORE, READY, send
from usk.errors import UskError

Do = Callable[[Any, Callable[..., None]], Any]
"""`do(unit, say)` does one unit and returns its result; `say(...)` is progress."""
LOSSES = 3  # of one unit, each with its process: then it is the unit


@dataclass(frozen=True)
class Workers:
    """How many processes work at the same time, how many threads each has, and the devices that they take in turn."""

    processes: int
    threads: int
    devices: tuple[str, ...] = ("cpu",)

    def device(self, number: int) -> str:
        return self.devices[number % len(self.devices)]


def run_units(
    n_units: int,
    begin: Callable[[str], Do],
    unit: Callable[[int], Any],
    workers: Workers,
    *,
    said: Callable[..., None] = lambda *_: None,
    ended: Callable[[int, Any], None] = lambda *_: None,
    temporary: Sequence[Path] = (),
) -> None:
    """Do units 0 to `n_units` - 1.

    Args:
        begin: of a device, in each worker: what does its units.
        unit: of a number, in this process, when a worker is about to do it.
        said, ended: called in this thread with a unit's number and its progress, or its result, as things happen.
        temporary: folders that must not outlive this process, even if it is killed; removing them otherwise is the caller's.

    Raises what a worker raised, once all others have been stopped; UskError for a unit whose worker was lost `LOSSES` times.
    """
    if workers.processes <= 1:
        do = begin(workers.device(0))
        for number in range(n_units):
            ended(number, do(unit(number), lambda *what, number=number: said(number, *what)))
        return
    waiting, lost = deque(range(n_units)), Counter[int]()
    now: dict[int, int] = {}  # process -> unit
    with _sigterm_unwinds(), _Processes(begin, workers, temporary) as processes:

        def give(process: int) -> None:
            """The next unit, or none: then the process ends, and its memory is free."""
            if not waiting:
                processes.dismiss(process)
                return
            now[process] = waiting.popleft()
            processes.send(process, unit(now[process]))

        for place in range(min(workers.processes, n_units)):
            give(processes.start(place))
        while now:
            try:  # without a timeout, Windows does not notice Ctrl-C
                process, (kind, *what) = processes.answers.get(timeout=1.0)
            except queue.Empty:
                continue
            if process not in now:
                continue
            if kind == "said":
                said(now[process], *what[0])
            elif kind == "ended":
                ended(now.pop(process), what[0])
                give(process)
            elif kind == "error":
                raise what[0]
            else:
                number = now.pop(process)
                lost[number] += 1
                if lost[number] == LOSSES:
                    raise processes.how_it_ended(process, *what)
                waiting.appendleft(number)
                give(processes.start(processes.place_of[process]))


class _Processes:
    """The worker processes, by their number; all are killed in the end."""

    def __init__(self, begin: Callable[[str], Do], workers: Workers, temporary: Sequence[Path]) -> None:
        self.begin, self.workers, self.temporary = begin, workers, list(temporary)
        self.answers: queue.Queue[tuple[int, tuple[Any, ...]]] = queue.Queue()
        self.started: list[subprocess.Popen[bytes]] = []
        self.place_of: dict[int, int] = {}

    def __enter__(self) -> _Processes:
        return self

    def start(self, place: int) -> int:
        """A new process in a place, which says its device; returns its number."""
        threads = str(self.workers.threads)
        environment = {
            **os.environ,
            # What is found here, in that order.
            "PYTHONPATH": os.pathsep.join(str(Path(place).absolute()) for place in sys.path),
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
        self.place_of[number] = place
        assert process.stdout is not None
        threading.Thread(target=_listen, args=(number, process.stdout, self.answers), daemon=True).start()
        self.send(number, (self.begin, self.workers.device(place), self.workers.threads, self.temporary))
        return number

    def send(self, number: int, message: Any) -> None:
        pipe = self.started[number].stdin
        assert pipe is not None
        send(pipe, message)

    def dismiss(self, number: int) -> None:
        self.send(number, NO_MORE)

    def how_it_ended(self, number: int, why: str) -> UskError:
        code = 0 if why else self.started[number].wait()
        if code < 0:
            killed = f"a worker process was killed ({signal.Signals(-code).name}), {LOSSES} times with the same work"
            return UskError(killed, hint="If memory was short, use one process alone (workers 1).")
        why = why or f"ended with exit code {code}"
        return UskError(f"a worker process {why}", hint="Use one process alone (workers 1).")

    def __exit__(self, *_: object) -> None:
        for process in self.started:
            process.kill()
        for process in self.started:
            process.wait()
            if process.stdin is not None:
                with contextlib.suppress(OSError):
                    process.stdin.close()


def _listen(number: int, pipe: IO[bytes], answers: queue.Queue[tuple[int, tuple[Any, ...]]]) -> None:
    """Hand on what a process says, with its number; `("gone", why)` once it says no more."""
    with pipe:
        try:
            while (line := pipe.readline()) != READY:  # whatever Python itself printed as it began
                if not line:
                    raise EOFError
            while True:
                answers.put((number, pickle.load(pipe)))
        except EOFError:
            answers.put((number, ("gone", "")))
        except Exception as error:
            answers.put((number, ("gone", f"said what cannot be read ({error})")))


@contextlib.contextmanager
def _sigterm_unwinds() -> Iterator[None]:
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
