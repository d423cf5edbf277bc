"""Known errors become one line and an exit code; a bug keeps its traceback."""

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

from usk.cli.help import without_types_of_flags
from usk.errors import UsageError, UskError
from usk.files import is_text

PARSER_ERROR = cast("type[Any]", typer.BadParameter.__mro__[1])
"""What the parser of options raises: typer does not export it."""


ARGUMENTS = {
    "runs": "RUNS",
    "run": "RUN",
    "dataset": "DATASET",
    "folder": "FOLDER",
    "repo_id": "REPO_ID",
    "study": "STUDY",
    "base": "--from",  # `from` is no name for a field
}
"""Fields that a command takes by position, or under another name."""


def option_name(field: str, command: Any = None) -> str:
    """What `command` calls a field: `--per-class` for `per_class`, or its place, such as `RUN`; empty for no field."""
    for parameter in command.params if command is not None else ():
        if parameter.name == field and parameter.param_type_name == "option":
            return str(parameter.opts[0])
    if field in ("audio_column", "label_column", "group_column", "fold_column"):
        field = "columns"
    return ARGUMENTS.get(field) or (f"--{field.replace('_', '-')}" if field else "")


class InterruptedByUser(UskError):
    """Ctrl-C."""

    exit_code = 130


@contextmanager
def parser_errors(command: Callable[[], str]) -> Iterator[None]:
    """What the parser finds wrong, as an error of ours that names the `command` to ask for help."""
    try:
        yield
    except PARSER_ERROR as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # is no mistake: it prints the help
            raise
        said = error.format_message().rstrip(".")
        dashed = next((word for word in sys.argv[1:] if word.startswith("-") and Path(word).exists()), None)
        hint = f"write ./{dashed} for the file of that name" if dashed else f"see {command()} --help"
        raise UsageError(f"{said[:1].lower()}{said[1:]}; {hint}") from error


COMMON_FLAGS = ("--json", "--quiet", "-q", "--verbose")


def common_first(args: Sequence[str]) -> list[str]:
    """Arguments with the flags of every command in front, where the group that owns them takes them: `usk eval --json`."""
    end = args.index("--") if "--" in args else len(args)
    first = [arg for arg in args[:end] if arg in COMMON_FLAGS]
    return [*first, *(arg for arg in args[:end] if arg not in COMMON_FLAGS), *args[end:]]


class Commands(TyperGroup):
    """Hands Ctrl-C and the parser's errors on as errors of ours, before typer makes a silent exit or a box of them."""

    def make_context(self, info_name: str | None, args: list[str], *more: Any, **extra: Any) -> Any:
        if odd := next((arg for arg in args if "\0" in arg), None):
            raise UsageError(f"{odd!r} holds a NUL character, which no name can have")
        called = next((arg for arg in args if not arg.startswith("-")), "")
        if called != "predict" and (odd := next((arg for arg in args if not is_text(arg)), None)):
            hint = "Rename it, or go into its folder and name what is there by a relative path."
            raise UsageError(f"{odd!a} is not UTF-8, and records could not say it", hint=hint)
        with parser_errors(lambda: "usk"):
            return super().make_context(info_name, common_first(args), *more, **extra)

    def get_params(self, ctx: Any) -> list[Any]:
        return without_types_of_flags(super().get_params(ctx))

    def invoke(self, ctx: Any) -> Any:
        try:
            with parser_errors(lambda: " ".join(filter(None, ("usk", ctx.invoked_subcommand)))):
                return super().invoke(ctx)
        except UskError as error:
            error.label = option_name(error.field, self.commands.get(ctx.invoked_subcommand or ""))
            raise
        except KeyboardInterrupt:
            raise InterruptedByUser(
                "stopped; what was finished is kept, and the same command goes on from there"
            ) from None


def guarded(call: Callable[[], object]) -> int:
    """Run a command; its exit code. `USK_DEBUG=1` lets the traceback through."""
    _prepare_streams()
    code = _exit_code(call)
    try:
        sys.stdout.flush()
    except OSError as error:
        code = _refused(error)
    return code


def _exit_code(call: Callable[[], object]) -> int:
    """Run a command and say what it raised."""
    try:
        with ctrl_c_is_never_lost():
            call()
    except SystemExit as ended:  # as every command of typer ends
        if isinstance(ended.code, str):
            raise
        return ended.code or 0
    except UskError as error:
        if os.environ.get("USK_DEBUG"):
            raise
        # Nothing that a terminal would obey
        line = " ".join(error.line(error.label or option_name(error.field)).split())
        _say("".join(c if c.isprintable() else chr(0xFFFD) for c in line))
        return error.exit_code
    except OSError as error:
        return _refused(error)
    return 0


NOT_OURS = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "where results are written; free some and run the same command again"),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), "at once; allow more (ulimit -n)"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO, errno.ESTALE, errno.ENAMETOOLONG, errno.ELOOP), ""),
}  # fmt: skip
"""What the operating system may refuse anywhere, and what to add to its words."""


def _refused(error: OSError) -> int:
    """Say what the operating system refuses, in one line; an error of any other kind is a bug and raised."""
    if error.errno not in NOT_OURS or os.environ.get("USK_DEBUG"):
        raise error
    place = f"{error.filename!s:.200}: ".replace("\n", " ") if error.filename is not None else ""
    _say(f"{place}{error.strerror} {NOT_OURS[error.errno]}".rstrip().encode(errors="replace").decode())
    # What is left in the buffer of standard output would fail again as the process ends.
    with contextlib.suppress(OSError):  # it has no file, in tests
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1


class _Unread(io.FileIO):
    """A standard stream whose reader may leave (`usk info | head -1`): the command goes on, and ends with its own code."""

    def write(self, content: Any) -> Any:
        try:
            return super().write(content)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())
            return len(content)


def _prepare_streams() -> None:
    """Standard streams that are closed, or whose reader leaves, stop nothing; nor does what their encoding does not know."""
    for name in ("stdin", "stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed: what is opened next would take its place
            setattr(sys, name, Path(os.devnull).open("r" if name == "stdin" else "w"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper) and name != "stdin":
            stream.reconfigure(errors="replace")
            if os.name == "posix" and isinstance(getattr(stream.buffer, "raw", stream.buffer), io.FileIO):
                stream.flush()
                raw = io.BufferedWriter(_Unread(stream.fileno(), "w", closefd=False))
                at_once = name == "stderr" or stream.line_buffering or stream.write_through
                setattr(sys, name, io.TextIOWrapper(raw, stream.encoding, "replace", line_buffering=at_once))


@contextmanager
def ctrl_c_is_never_lost() -> Iterator[None]:
    """Python drops what is raised in a destructor or a callback, Ctrl-C too (libraries have many as they are imported):
    raise it again a moment later."""
    before = sys.unraisablehook

    def again(unraisable: Any) -> None:
        if issubclass(unraisable.exc_type, KeyboardInterrupt):
            # At once, this very call would be interrupted
            later = threading.Timer(0.02, _thread.interrupt_main)
            later.daemon = True
            later.start()
        else:
            before(unraisable)

    sys.unraisablehook = again
    try:
        yield
    finally:
        sys.unraisablehook = before


def _say(line: str) -> None:
    sys.stderr.write(f"usk: {line}\n")
