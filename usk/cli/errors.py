"""Known errors become one line and an exit code; a bug keeps its traceback."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

from typer.core import TyperGroup

from usk.errors import UskError


class InterruptedByUser(UskError):
    """Ctrl-C."""

    exit_code = 130


class Commands(TyperGroup):
    """Hands Ctrl-C on as an error of ours, before typer makes a silent exit of it."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise InterruptedByUser(
                "stopped; what was finished is kept, and the same command goes on from there"
            ) from None


def guarded(call: Callable[[], object]) -> int:
    """Run a command; its exit code. `USK_DEBUG=1` lets the traceback through."""
    try:
        call()
    except UskError as error:
        if os.environ.get("USK_DEBUG"):
            raise
        line = " ".join(str(error).split())  # and nothing that a terminal would obey
        sys.stderr.write(f"usk: {''.join(c if c.isprintable() else chr(0xFFFD) for c in line)}\n")
        return error.exit_code
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    return 0
