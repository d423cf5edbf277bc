"""`python -m usk.classify.worker`: one of the processes of `usk.classify.processes`.

Before anything large is imported it stops filter_training Ctrl-C, which is for whoever started it, and keeps its standard output
to itself: what else prints must not land among its answers.
"""

from __future__ import annotations

import os
import signal
import sys

READY = b"usk.classify.worker 1\n"  # the first line of its answers


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    answers.write(READY)
    answers.flush()
    from usk.classify.processes import work

    work(sys.stdin.buffer, answers)


if __name__ == "__main__":
    main()
