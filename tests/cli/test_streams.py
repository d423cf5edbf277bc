"""Standard streams that are closed or full, errors of the operating system, and users without a home folder."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from usk.cli.errors import guarded
from usk.data.cache import cache_root
from usk.errors import UskError

Command = Callable[..., Any]
ROOT = Path(__file__).resolve().parents[2]


def in_shell(line: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a shell line in which `usk` is the command and $CODE the exit code of a pipe's first part."""
    script = f'usk() {{ "{sys.executable}" -m usk "$@"; }}; {line}'
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", **environment}
    return subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=300, env=environ)


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("usk synth --help | head -1; exit ${PIPESTATUS[0]}", 0),
        ("usk info demo 2>&1 | head -c 1; exit ${PIPESTATUS[0]}", 0),
        ("usk info demo --json | true; exit ${PIPESTATUS[0]}", 0),
        ("usk info nowhere/there/at-all 2>&1 | true; exit ${PIPESTATUS[0]}", 1),
        ("usk --version >&-", 0),
        ("usk --version <&- >&- 2>&-", 0),
        ("usk info demo >&- 2>&-", 0),
        ("usk eval nowhere 2>&-", 1),
    ],
)
def test_streams_that_nobody_reads_stop_nothing(line: str, code: int) -> None:
    ran = in_shell(line)
    assert ran.returncode == code and "Traceback" not in ran.stderr and not ran.stderr.strip(), ran.stderr


@pytest.mark.parametrize(
    ("words", "code"), [("info demo --json", 0), ("eval nowhere", 1), ("info demo -q", 0)]
)
def test_a_terminal_shows_that_a_command_works_until_its_answer(
    tmp_path: Path, words: str, code: int
) -> None:
    ours, theirs = pty.openpty()
    out, shown = tmp_path / "out", b""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm"}
    with out.open("wb") as stdout, os.fdopen(ours, "rb", buffering=0) as terminal:
        command = [sys.executable, "-m", "usk", *words.split()]
        running = subprocess.Popen(command, stdout=stdout, stderr=theirs, env=environment)
        os.close(theirs)
        with contextlib.suppress(OSError):  # at its end
            while part := terminal.read(4096):
                shown += part
    assert running.wait(300) == code
    if words.endswith("-q"):
        assert not shown
        return
    _, working, after = shown.partition(b"working")
    left = after.rpartition(b"\x1b[2K")[2]  # after its line was erased
    assert working and b"working" not in left and (b"usk: " in left) == bool(code)
    assert code or json.loads(out.read_text())["clips"] == 540


@pytest.mark.parametrize("most", [5, 14])
def test_few_open_files_are_enough_or_one_line(tmp_path: Path, tone_folder: Path, most: int) -> None:
    out = tmp_path / "out"
    words = f"synth --real {tone_folder} --strategy waveform --per-class 1 --out {out} --quiet"
    ran = in_shell(f"ulimit -n {most}; usk {words}", USK_CACHE=str(tmp_path / "cache"))
    done = (out / "README.md").is_file()
    assert ran.returncode == (0 if done else 1) and len(ran.stderr.splitlines()) == (not done), ran.stderr
    assert done or "ulimit -n" in ran.stderr
    assert done or most < 14


def test_a_home_that_is_not_known(usk: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    for words in ("info ~nouser/x", "synth --real ~nouser", "predict ~nouser x", "eval ~nouser"):
        ran = usk(words)
        ran.refused(ran.code or 1, "~nouser")
    for name in ("HOME", "USK_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name)
    monkeypatch.setattr("pwd.getpwuid", lambda uid: {}[uid])
    with pytest.raises(UskError, match="USK_CACHE"):
        cache_root()


def test_names_that_no_file_can_have(usk: Command, tone_folder: Path) -> None:
    assert usk("info", "a\0b").code == 2
    name = "x" * 5_000
    made = f"synth --real {tone_folder} --strategy waveform --per-class 1 --out {name}"
    trained = (f"train --real {tone_folder} {option} {name}" for option in ("--mix", "--out"))
    read = (f"{command} {name}" for command in ("info", "eval", "report", "study", "synth --real"))
    others = (f"predict {name} x", f"push {name} a/b", f"audit {name} --real demo")
    for words in (*read, *others, made, *trained, f"fit --real {tone_folder} --out {name}"):
        ran = usk(words)
        assert ran.code in (1, 2) and ran.err.strip().splitlines()[-1].startswith("usk: "), (words, ran.err)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EROFS, errno.EACCES, errno.EIO, errno.ENOSPC])
def test_what_the_operating_system_refuses_is_one_line(
    capsys: pytest.CaptureFixture[str], number: int
) -> None:
    def refuse() -> None:
        raise OSError(number, os.strerror(number), "a\nb")

    assert guarded(refuse) == 1
    assert capsys.readouterr().err.startswith(f"usk: a b: {os.strerror(number)}")


def test_a_broken_pipe_that_is_not_a_standard_stream_is_a_bug() -> None:
    def call() -> None:
        raise BrokenPipeError(errno.EPIPE, "of a worker")

    with pytest.raises(BrokenPipeError):
        guarded(call)
