"""Units in this process or in several: each is done once, a lost process costs its unit alone, and nothing is left behind."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.engine.units import Writing
from usk.engine.chosen import engine_for
from usk.engine.engine import LOSSES, Workers
from usk.engine.worker import READY, as_sent
from usk.errors import UskError

TWO = Workers(2, 1, ("cuda:0", "cuda:1", "cuda:2"))


def run(folder: Path, n_units: int, workers: Workers, **wrong: str) -> tuple[dict[int, str], list[Any]]:
    """The device of each unit, and what was said; `unit3="killed once"` says what is wrong with a unit."""
    folder.mkdir(exist_ok=True)
    done: dict[int, str] = {}
    said: list[Any] = []

    def ended(number: int, result: tuple[int, str]) -> None:
        assert number == result[0] and number not in done
        done[number] = result[1]

    begin = Writing(folder, tuple((int(name.removeprefix("unit")), kind) for name, kind in wrong.items()))
    with engine_for(workers) as engine:
        engine.run(n_units, begin, lambda number: number, said=lambda *what: said.append(what), ended=ended)
    return done, said


@pytest.mark.parametrize("workers", [Workers(1, 1), TWO], ids=["here", "two"])
def test_every_unit_is_done_once(tmp_path: Path, workers: Workers) -> None:
    done, said = run(tmp_path / "out", 5, workers)
    assert sorted(done) == list(range(5)) and sorted(said) == [(n, "began", n) for n in range(5)]
    assert set(done.values()) == ({"cpu"} if workers.processes == 1 else {"cuda:0", "cuda:1"})
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [f"{n}.txt" for n in range(5)]


def test_a_lost_process_costs_its_unit_which_another_does(tmp_path: Path) -> None:
    done, said = run(tmp_path / "out", 4, TWO, unit1="killed once", unit3="killed once")
    assert sorted(done) == [0, 1, 2, 3]
    assert [said.count((number, "began", number)) for number in range(4)] == [1, 2, 1, 2]
    assert set(done.values()) <= {"cuda:0", "cuda:1"}  # in the place of the one that was lost


def test_a_unit_that_is_lost_again_and_again_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UskError, match=rf"killed \(SIGKILL\), {LOSSES} times") as lost:
        run(tmp_path / "out", 2, TWO, unit0="killed always")
    assert "\n" not in str(lost.value) and "workers 1" in str(lost.value)


@pytest.mark.parametrize("workers", [Workers(1, 1), TWO], ids=["here", "two"])
def test_what_a_unit_raises_comes_back(tmp_path: Path, workers: Workers) -> None:
    with pytest.raises(UskError) as wrong:
        run(tmp_path / "out", 3, workers, unit1="line")
    assert (wrong.value.field, wrong.value.hint) == ("per_class", "Do another.")
    with pytest.raises((ValueError, RuntimeError), match=r"wrong"):
        run(tmp_path / "out", 3, workers, unit1="bug")


def test_a_device_for_one_process_is_one_line_and_a_bug_keeps_its_traceback() -> None:
    busy = as_sent(RuntimeError("CUDA error: all CUDA-capable devices are busy or unavailable"))
    assert isinstance(busy, UskError) and "workers 1" in str(busy)
    try:
        raise ValueError("wrong")
    except ValueError as error:
        sent = as_sent(error)
    assert type(sent) is RuntimeError and "test_local.py" in str(sent) and "ValueError: wrong" in str(sent)


def test_a_worker_gets_no_ctrl_c_and_ends_with_whoever_started_it(tmp_path: Path) -> None:
    """Then it removes what was temporary; not when it is merely dismissed."""
    import pickle
    import signal

    for dismissed in (True, False):
        (temporary := tmp_path / "temporary").mkdir(exist_ok=True)
        process = subprocess.Popen(
            [sys.executable, "-m", "usk.engine.worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )  # fmt: skip
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == READY
        process.send_signal(signal.SIGINT)
        pickle.dump((Writing(tmp_path), "cpu", 1, temporary), process.stdin)
        pickle.dump(7, process.stdin)
        process.stdin.flush()
        assert pickle.load(process.stdout) == ("said", ("began", 7))
        assert pickle.load(process.stdout) == ("ended", (7, "cpu"))
        if dismissed:
            pickle.dump(None, process.stdin)
        process.stdin.close()
        assert process.wait(timeout=60) == 0
        assert temporary.exists() == dismissed
        assert process.stderr.read() == b""


def children(pid: int) -> set[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return set(map(int, listed.split()))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs Linux")
@pytest.mark.parametrize("number", [9, 1], ids=["SIGKILL", "SIGHUP"])
def test_a_parent_that_is_killed_leaves_no_process_and_no_file(
    urbansound8k_folder: Path, usk_process: Callable[..., Any], tmp_path: Path, number: int
) -> None:
    (temporary := tmp_path / "temporary").mkdir()
    process = usk_process(
        "train", "--real", urbansound8k_folder, "--out", tmp_path / "runs", "--seeds", 4, "--workers", 2, "--epochs", 9999,
        "--device", "cpu", "--quiet", TMPDIR=str(temporary),
    )  # fmt: skip
    while not list(temporary.glob("usk-features-*/*.npy")):
        assert process.poll() is None
        time.sleep(0.05)
    workers = children(process.pid)
    assert len(workers) == 2
    process.send_signal(number)
    process.wait(timeout=60)
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{pid}").exists() for pid in workers) or list(temporary.iterdir()):
        assert time.monotonic() < deadline, list(temporary.iterdir())
        time.sleep(0.05)
