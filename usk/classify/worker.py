"""`python -m usk.classify.worker`: one of the processes of `usk.classify.processes`.

Before anything large is imported it ignores Ctrl-C, which is for whoever started it, and keeps its standard output to itself:
what else prints must not land among its answers.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from usk.errors import UskError

READY = b"usk.classify.worker 1\n"  # the first line of its answers


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


def work(tasks_in: IO[bytes], answers: IO[bytes]) -> None:
    """Train what comes in, one task after another, until nothing more can come."""
    tasks: queue.Queue[Any] = queue.Queue()

    def listen() -> None:
        code = 1
        try:
            while True:
                tasks.put(pickle.load(tasks_in))
        except EOFError:
            code = 0
        except Exception as error:
            send(
                answers,
                (
                    "error",
                    UskError(f"a training process cannot read its task ({error})", hint="Start again."),
                ),
            )
        finally:
            os._exit(code)  # also in the middle of a training

    threading.Thread(target=listen, daemon=True).start()
    try:
        _train(tasks, answers)
    except BaseException as error:
        send(answers, ("error", as_sent(error)))
    while True:  # until whoever reads this has closed the pipe
        time.sleep(1.0)


def _train(tasks: queue.Queue[Any], answers: IO[bytes]) -> None:
    import torch

    from usk.classify.loop import fit_classifier
    from usk.classify.registry import preset
    from usk.device import keep_freed_memory

    name, where, threads = tasks.get()
    torch.set_num_threads(threads)
    device, recipe = torch.device(where), preset(name)
    keep_freed_memory()
    warnings.simplefilter("ignore")  # such as torch's, that what is mapped cannot be written to
    while True:
        task, files = tasks.get()
        trained = fit_classifier(
            task,
            recipe,
            _tables(files, device),
            device,
            lambda epoch, accuracy: send(answers, ("epoch", epoch, accuracy)),
        )
        send(answers, ("ended", trained))


def _tables(files: Mapping[str, tuple[Path, Any]], device: Any) -> dict[str, Any]:
    """Feature tables on the device, by source, from files of features and labels."""
    import numpy as np
    import torch

    from usk.classify.loop import FeatureTable

    return {
        name: FeatureTable(
            torch.from_numpy(np.load(path, mmap_mode="r")).to(device), torch.from_numpy(labels)
        )
        for name, (path, labels) in files.items()
    }


def as_sent(error: BaseException) -> Exception:
    """What a training process that `error` has ended says: one line if the user can do something, else the traceback."""
    if isinstance(error, UskError):
        return error
    # CUDA's words where a device takes one process (its compute mode).
    if "busy or unavailable" in str(error):
        return UskError(
            "the CUDA device takes one process at a time",
            hint="Train one run at a time (workers 1).",
        )
    return RuntimeError(f"in a training process:\n{''.join(traceback.format_exception(error))}")


if __name__ == "__main__":
    main()
