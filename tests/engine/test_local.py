"""Tests of the in-process and the process engine: each unit runs once, also after a worker was lost, and nothing is left behind."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.engine.units import WriteFiles
from usk.engine.engine import MAX_WORKER_LOSSES, Job, Workers
from usk.engine.select import create_engine
from usk.engine.worker import READY_LINE, sendable_error
from usk.errors import UskError

TWO = Workers(2, 1, ("cuda:0", "cuda:1", "cuda:2"))


def run(folder: Path, n_units: int, workers: Workers, **faults: str) -> tuple[dict[int, str], list[Any]]:
    """Return the device of each unit, and the progress. `unit3="killed once"` names the fault of a unit."""
    folder.mkdir(exist_ok=True)
    devices: dict[int, str] = {}
    progress: list[Any] = []

    def on_progress(*report: Any) -> None:
        progress.append(report)

    def on_result(number: int, result: tuple[int, str]) -> None:
        assert number == result[0] and number not in devices
        devices[number] = result[1]

    setup = WriteFiles(
        folder, tuple((int(name.removeprefix("unit")), fault) for name, fault in faults.items())
    )
    with create_engine(workers) as engine:
        engine.run(Job(n_units, setup, lambda number: number, on_progress, on_result))
    return devices, progress


@pytest.mark.parametrize("workers", [Workers(1, 1), TWO], ids=["in process", "two"])
def test_each_unit_runs_once(tmp_path: Path, workers: Workers) -> None:
    devices, progress = run(tmp_path / "out", 5, workers)
    assert sorted(devices) == list(range(5)) and sorted(progress) == [(n, "began", n) for n in range(5)]
    assert set(devices.values()) == ({"cpu"} if workers.processes == 1 else {"cuda:0", "cuda:1"})
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [f"{n}.txt" for n in range(5)]


def test_another_worker_runs_the_unit_of_a_lost_one(tmp_path: Path) -> None:
    devices, progress = run(tmp_path / "out", 4, TWO, unit1="killed once", unit3="killed once")
    assert sorted(devices) == [0, 1, 2, 3]
    assert [progress.count((number, "began", number)) for number in range(4)] == [1, 2, 1, 2]
    assert set(devices.values()) <= {"cuda:0", "cuda:1"}  # a new worker takes the device of the lost one


def test_a_unit_that_always_loses_its_worker_is_an_error_of_one_line(tmp_path: Path) -> None:
    with pytest.raises(UskError, match=rf"killed \(SIGKILL\), {MAX_WORKER_LOSSES} times") as lost:
        run(tmp_path / "out", 2, TWO, unit0="killed always")
    assert "\n" not in str(lost.value) and "workers 1" in str(lost.value)


@pytest.mark.parametrize("workers", [Workers(1, 1), TWO], ids=["in process", "two"])
def test_the_exception_of_a_unit_is_raised(tmp_path: Path, workers: Workers) -> None:
    with pytest.raises(UskError) as wrong:
        run(tmp_path / "out", 3, workers, unit1="line")
    assert (wrong.value.field, wrong.value.hint) == ("per_class", "Do another.")
    with pytest.raises((ValueError, RuntimeError), match=r"wrong"):
        run(tmp_path / "out", 3, workers, unit1="bug")


def test_only_an_error_that_the_user_can_fix_loses_its_traceback() -> None:
    busy = sendable_error(RuntimeError("CUDA error: all CUDA-capable devices are busy or unavailable"))
    assert isinstance(busy, UskError) and "workers 1" in str(busy)
    try:
        raise ValueError("wrong")
    except ValueError as error:
        sent = sendable_error(error)
    assert type(sent) is RuntimeError and "test_local.py" in str(sent) and "ValueError: wrong" in str(sent)


def test_a_worker_ignores_ctrl_c_and_exits_with_its_parent(tmp_path: Path) -> None:
    """It deletes the temporary folder if its parent is gone, and keeps it if it was dismissed."""
    import pickle
    import signal

    for dismissed in (True, False):
        (temporary := tmp_path / "temporary").mkdir(exist_ok=True)
        process = subprocess.Popen(
            [sys.executable, "-m", "usk.engine.worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )  # fmt: skip
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == READY_LINE
        process.send_signal(signal.SIGINT)
        pickle.dump((WriteFiles(tmp_path), "cpu", 1, temporary), process.stdin)
        pickle.dump(7, process.stdin)
        process.stdin.flush()
        assert pickle.load(process.stdout) == ("progress", ("began", 7))
        assert pickle.load(process.stdout) == ("result", (7, "cpu"))
        if dismissed:
            pickle.dump(None, process.stdin)
        process.stdin.close()
        assert process.wait(timeout=60) == 0
        assert temporary.exists() == dismissed
        assert process.stderr.read() == b""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs Linux")
@pytest.mark.parametrize("number", [9, 1], ids=["SIGKILL", "SIGHUP"])
def test_a_killed_parent_leaves_no_process_and_no_file(
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
    listed = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    workers = set(map(int, listed.split()))
    assert len(workers) == 2
    process.send_signal(number)
    process.wait(timeout=60)
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{pid}").exists() for pid in workers) or list(temporary.iterdir()):
        assert time.monotonic() < deadline, list(temporary.iterdir())
        time.sleep(0.05)
