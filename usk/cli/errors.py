"""Known errors become one line and an exit code; a bug keeps its traceback."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

INTERRUPTED = 130


def guarded(call: Callable[[], object]) -> int:
    """Run a command; its exit code. `USK_DEBUG=1` lets the traceback through."""
    from usk.errors import UskError

    try:
        call()
    except UskError as error:
        if os.environ.get("USK_DEBUG"):
            raise
        sys.stderr.write(f"usk: {error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("usk: stopped; what was finished is kept, and the same command goes on from there\n")
        return INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    return 0
