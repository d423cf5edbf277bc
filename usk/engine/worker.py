"""`python -m usk.engine.worker`: one of the processes of `usk.engine.local`.

Before anything large is imported it ignores Ctrl-C, which is for whoever started it, and keeps its standard output to itself:
what else prints must not land among its answers. It ends when its standard input does, so with whoever started it, however that
one ended, and then removes what was temporary.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import shutil
import signal
import sys
import threading
import time
import traceback
import warnings
from pathlib import Path
from typing import IO, Any

from usk.errors import UskError

NO_MORE = None
READY = b"usk.engine.worker 1\n"  # the first line of its answers


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    answers.write(READY)
    answers.flush()
    work(sys.stdin.buffer, answers)


def send(pipe: IO[bytes], message: Any) -> None:
    with contextlib.suppress(OSError):  # it has ended: reading says how
        pickle.dump(message, pipe)
        pipe.flush()


def work(units_in: IO[bytes], answers: IO[bytes]) -> None:
    """Do the units that come in, one after another, until no more can come."""
    units: queue.Queue[Any] = queue.Queue()
    temporary: list[Path] = []  # must not outlive whoever started this

    def listen() -> None:
        code = 1
        try:
            begin, device, threads, folder = pickle.load(units_in)
            temporary.append(folder)
            units.put((begin, device, threads))
            while (unit := pickle.load(units_in)) is not NO_MORE:
                units.put(unit)
            temporary.clear()  # others go on
            code = 0
        except EOFError:
            code = 0
        except Exception as error:
            why = f"a worker process cannot read its work ({error})"
            send(answers, ("error", UskError(why, hint="Start again.")))
        finally:
            for folder in temporary:  # whoever started this was killed, or removes them too
                shutil.rmtree(folder, ignore_errors=True)
            os._exit(code)  # also in the middle of a unit

    threading.Thread(target=listen, daemon=True).start()
    try:
        _work_through(units, answers)
    except BaseException as error:
        send(answers, ("error", as_sent(error)))
    while True:  # until whoever reads this has closed the pipe
        time.sleep(1.0)


def _work_through(units: queue.Queue[Any], answers: IO[bytes]) -> None:
    begin, device, threads = units.get()
    import torch

    from usk.device import keep_freed_memory

    torch.set_num_threads(threads)
    keep_freed_memory()
    warnings.simplefilter("ignore")  # such as torch's, that what is mapped cannot be written to
    do = begin(device)
    while True:
        unit = units.get()
        send(answers, ("ended", do(unit, lambda *what: send(answers, ("said", what)))))


def as_sent(error: BaseException) -> Exception:
    """What a worker that `error` has ended says: one line if the user can do something, else the traceback."""
    if isinstance(error, UskError):
        return error
    # CUDA's words where a device takes one process (its compute mode).
    if "busy or unavailable" in str(error):
        return UskError(
            "the CUDA device takes one process at a time", hint="Use one process alone (workers 1)."
        )
    return RuntimeError(f"in a worker process:\n{''.join(traceback.format_exception(error))}")


if __name__ == "__main__":
    main()
