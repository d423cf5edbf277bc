"""A worker process of `usk.engine.local`, started as `python -m usk.engine.worker`.

The worker ignores Ctrl-C, which is meant for the parent process. It keeps its standard output for messages: other prints go
to standard error. It exits when its standard input closes, that is, when the parent exits or is killed. If the parent did not
dismiss it before, it then deletes the parent's temporary folder.
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

NO_MORE_UNITS = None
READY_LINE = b"usk.engine.worker 1\n"  # comes before the worker's messages


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    output.write(READY_LINE)
    output.flush()
    run_units(sys.stdin.buffer, output)


def send_message(pipe: IO[bytes], message: Any) -> None:
    with contextlib.suppress(OSError):  # the other process has ended: whoever reads from it finds out how
        pickle.dump(message, pipe)
        pipe.flush()


def run_units(units_in: IO[bytes], output: IO[bytes]) -> None:
    """Run the units that come in, one after another. Never returns: a thread exits the process when the input ends."""
    units: queue.Queue[Any] = queue.Queue()

    def read_units() -> None:
        code = 1
        to_delete: list[Path] = []
        try:
            setup, device, threads, folder = pickle.load(units_in)
            to_delete.append(folder)
            units.put((setup, device, threads))
            while (unit := pickle.load(units_in)) is not NO_MORE_UNITS:
                units.put(unit)
            to_delete.clear()  # other workers may still use the folder
            code = 0
        except EOFError:
            code = 0
        except Exception as error:
            message = f"a worker process cannot read its work ({error})"
            send_message(output, ("error", UskError(message, hint="Start again.")))
        finally:
            for folder in to_delete:  # the parent may have been killed
                shutil.rmtree(folder, ignore_errors=True)
            os._exit(code)  # even while a unit runs

    threading.Thread(target=read_units, daemon=True).start()
    try:
        _run_queue(units, output)
    except BaseException as error:
        send_message(output, ("error", sendable_error(error)))
    while True:  # wait until the parent closes the pipe
        time.sleep(1.0)


def _run_queue(units: queue.Queue[Any], output: IO[bytes]) -> None:
    setup, device, threads = units.get()
    import torch

    from usk.device import keep_freed_memory

    torch.set_num_threads(threads)
    keep_freed_memory()
    warnings.simplefilter("ignore")  # for example torch warns that a mapped tensor is read-only
    run_unit = setup(device)

    def on_progress(*progress: Any) -> None:
        send_message(output, ("progress", progress))

    while True:
        unit = units.get()
        send_message(output, ("result", run_unit(unit, on_progress)))


def sendable_error(error: BaseException) -> Exception:
    """Return a picklable error: a UskError if the user can act on it, else a RuntimeError that holds the traceback."""
    if isinstance(error, UskError):
        return error
    # CUDA says this where the device's compute mode allows one process.
    if "busy or unavailable" in str(error):
        return UskError(
            "the CUDA device takes one process at a time", hint="Use one process alone (workers 1)."
        )
    return RuntimeError(f"in a worker process:\n{''.join(traceback.format_exception(error))}")


if __name__ == "__main__":
    main()
