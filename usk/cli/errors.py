"""Turn known errors into one line and an exit code. A bug keeps its traceback."""

from __future__ import annotations

import _thread
import contextlib
import errno
import io
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import typer
from typer.core import TyperGroup

from usk.cli.help import hide_flag_types
from usk.errors import UsageError, UskError
from usk.files import is_text

PARSER_ERROR = cast("type[Any]", typer.BadParameter.__mro__[1])
"""The base class of the option parser's errors, which typer does not export."""
POSITIONAL = ("runs", "run", "dataset", "folder", "repo_id", "study")
ARGUMENTS = {**{name: name.upper() for name in POSITIONAL}, "base": "--from"}  # `from` is a Python keyword
"""Names of fields that are positional arguments, or options with another name."""


def option_name(error: UskError, command: Any = None) -> str:
    """Return what `command` calls an error's field: `--per-class` for `per_class`, `RUN` for `run`; empty for no field."""
    for parameter in command.params if command is not None else ():
        if parameter.name == error.field and parameter.param_type_name == "option":
            return str(parameter.opts[0])
    if error.field.endswith("_column"):
        was_found = error.value is not None and not any(arg.startswith("--columns") for arg in sys.argv)
        return "column" if was_found else "--columns"
    return ARGUMENTS.get(error.field) or (f"--{error.field.replace('_', '-')}" if error.field else "")


class InterruptedByUser(UskError):
    """Ctrl-C."""

    exit_code = 130


@contextmanager
def parser_errors(command: Callable[[], str]) -> Iterator[None]:
    """Turn errors of the option parser into UsageError. The hint names `command()` for help."""
    try:
        yield
    except PARSER_ERROR as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # not a mistake: it prints the help
            raise
        problem = error.format_message().rstrip(".")
        dashed = next((word for word in sys.argv[1:] if word.startswith("-") and Path(word).exists()), None)
        hint = f"write ./{dashed} for the file of that name" if dashed else f"see {command()} --help"
        end = "" if problem.endswith("?") else ";"
        raise UsageError(f"{problem[:1].lower()}{problem[1:]}{end} {hint}") from error


COMMON_FLAGS = ("--json", "--quiet", "-q", "--verbose")


def common_first(args: Sequence[str]) -> list[str]:
    """Move the flags that all commands share to the front, where the parser expects them: `usk eval --json`."""
    end = args.index("--") if "--" in args else len(args)
    flags = [arg for arg in args[:end] if arg in COMMON_FLAGS]
    return [*flags, *(arg for arg in args[:end] if arg not in COMMON_FLAGS), *args[end:]]


class Commands(TyperGroup):
    """The group of all commands. It raises Ctrl-C and parser errors as UskError, which typer would print or hide."""

    def make_context(self, info_name: str | None, args: list[str], *more: Any, **extra: Any) -> Any:
        if bad := next((arg for arg in args if "\0" in arg), None):
            raise UsageError(f"{bad!r} holds a NUL character, which no name can have")
        command = next((arg for arg in args if not arg.startswith("-")), "")
        if command != "predict" and (bad := next((arg for arg in args if not is_text(arg)), None)):
            hint = "Rename it, or go into its folder and use a relative path."
            raise UsageError(f"{bad!a} is not UTF-8, so records cannot store it", hint=hint)
        with parser_errors(lambda: "usk"):
            return super().make_context(info_name, common_first(args), *more, **extra)

    def get_params(self, ctx: Any) -> list[Any]:
        return hide_flag_types(super().get_params(ctx))

    def invoke(self, ctx: Any) -> Any:
        try:
            with parser_errors(lambda: " ".join(filter(None, ("usk", ctx.invoked_subcommand)))):
                return super().invoke(ctx)
        except UskError as error:
            command: Any = self.commands.get(ctx.invoked_subcommand or "")
            error.label = option_name(error, command)
            for parameter in command.params if command is not None else ():
                error.hint = error.hint.replace(f"`{parameter.name}`", parameter.opts[0])
            raise
        except KeyboardInterrupt:
            raise InterruptedByUser(
                "stopped; finished work is kept, and the same command continues from there"
            ) from None


def guarded(call: Callable[[], object]) -> int:
    """Run a command and return its exit code. With `USK_DEBUG=1`, known errors are raised too."""
    _prepare_streams()
    code = _exit_code(call)
    try:
        sys.stdout.flush()
    except OSError as error:
        code = _report_os_error(error)
    return code


def _exit_code(call: Callable[[], object]) -> int:
    """Run a command. Print known errors, and return the exit code."""
    try:
        with keep_ctrl_c():
            call()
    except SystemExit as exit_:  # raised at the end of every typer command
        if isinstance(exit_.code, str):
            raise
        return exit_.code or 0
    except UskError as error:
        if os.environ.get("USK_DEBUG"):
            raise
        line = " ".join(error.line(error.label or option_name(error)).split())
        _print_error("".join(c if c.isprintable() else chr(0xFFFD) for c in line))
        return error.exit_code
    except OSError as error:
        return _report_os_error(error)
    return 0


OS_ERRORS = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "where results are written; free some and run the same command again"),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), "at once; allow more (ulimit -n)"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO, errno.ESTALE, errno.ENAMETOOLONG, errno.ELOOP), ""),
}  # fmt: skip
"""Error numbers that are not bugs of usk, and what to add to the operating system's message."""


def _report_os_error(error: OSError) -> int:
    """Print an error of the operating system in one line and return the exit code. Raise the error if it is a bug."""
    if error.errno not in OS_ERRORS or os.environ.get("USK_DEBUG"):
        raise error
    place = f"{error.filename!s:.200}: ".replace("\n", " ") if error.filename is not None else ""
    message = f"{place}{error.strerror} {OS_ERRORS[error.errno]}".rstrip()
    _print_error(message.encode(errors="replace").decode())
    # Discard standard output, since flushing its buffer at exit would fail again.
    with contextlib.suppress(OSError):  # in tests it has no file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1


class _PipeStream(io.FileIO):
    """A standard stream that ignores a closed pipe (`usk info | head -1`), so that the command keeps its own exit code."""

    def write(self, content: Any) -> Any:
        try:
            return super().write(content)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())
            return len(content)


def _prepare_streams() -> None:
    """Keep commands running when a standard stream or its reader is closed, or text does not fit its encoding."""
    for name in ("stdin", "stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed: the next file to be opened would get its number
            setattr(sys, name, Path(os.devnull).open("r" if name == "stdin" else "w"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper) and name != "stdin":
            stream.reconfigure(errors="replace")
            if os.name == "posix" and isinstance(getattr(stream.buffer, "raw", stream.buffer), io.FileIO):
                stream.flush()
                raw = io.BufferedWriter(_PipeStream(stream.fileno(), "w", closefd=False))
                by_line = name == "stderr" or stream.line_buffering or stream.write_through
                setattr(sys, name, io.TextIOWrapper(raw, stream.encoding, "replace", line_buffering=by_line))


@contextmanager
def keep_ctrl_c() -> Iterator[None]:
    """Raise Ctrl-C again if Python drops it, as it drops all exceptions in destructors and callbacks.

    Importing libraries runs many of these.
    """
    previous_hook = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        if issubclass(unraisable.exc_type, KeyboardInterrupt):
            timer = threading.Timer(0.02, _thread.interrupt_main)  # later, so as not to interrupt this hook
            timer.daemon = True
            timer.start()
        else:
            previous_hook(unraisable)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = previous_hook


def _print_error(line: str) -> None:
    sys.stderr.write(f"usk: {line}\n")
