"""Tests of the Ray engine with a real Ray on this machine: results do not depend on lost actors, and errors are one line."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import usk
from usk.engine import select
from usk.engine.engine import RAY

ROOT = Path(__file__).resolve().parents[2]
with_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")

UNITS = """
import os
import signal
import sys
import time
from pathlib import Path
import ray
from ray.cluster_utils import Cluster
import torch
import usk
from tests.engine.units import AddToShared, WriteFiles
from usk.engine.select import create_engine
from usk.engine.engine import RAY, Job, Workers
from usk.errors import UskError

here = os.getcwd()
os.chdir(sys.argv[3])  # the machines start here: relative paths must not be resolved here
cluster = Cluster(True, head_node_args={"num_cpus": 0, "include_dashboard": False})
for _ in range(2):
    cluster.add_node(num_cpus=1)
os.chdir(here)
os.environ["RAY_ADDRESS"] = cluster.address
signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the cluster has a handler of its own
folder = Path(sys.argv[1])
two = Workers(2, 1, engine=RAY)

def run(**faults):
    results = {}
    setup = WriteFiles(folder, tuple((int(name.removeprefix("unit")), fault) for name, fault in faults.items()))
    with create_engine(two, [folder]) as engine:
        engine.run(Job(4, setup, lambda number: number, on_result=results.__setitem__))
    return results

def error_of(call):
    try:
        call()
    except UskError as error:
        return type(error).__name__ + " " + str(error)

print(run(unit1="killed once", unit3="killed once"))
print(error_of(lambda: run(unit0="killed always")))
print(error_of(lambda: run(unit2="line")))
with create_engine(two, [folder]) as engine:
    shared = engine.share(torch.arange(5.0))
    engine.run(Job(3, AddToShared(), lambda number: (number, shared), on_result=print))
usk.__version__ = "0.0.1"
print(error_of(run))
usk.__version__ = usk_version = "0.1.0"
with create_engine(two, [folder, sys.argv[2]]) as engine:
    Path(sys.argv[2]).rename(sys.argv[2] + "-gone")  # as if only this machine saw the folder
    print(error_of(lambda: engine.run(Job(1, WriteFiles(folder), lambda number: number))))
print(error_of(lambda: create_engine(Workers(1, 1, ("cuda:0",), RAY), [folder]).__enter__()))
print(run(unit2="machine lost once"))
try:
    with create_engine(two, [folder]) as engine:
        os.kill(os.getpid(), 15)
        time.sleep(60.0)
except SystemExit as error:
    print(error.code)
print(sorted(file.name for file in folder.iterdir()))
ray.shutdown()
cluster.shutdown()
"""


@with_ray
@pytest.mark.slow
def test_lost_actors_are_replaced_and_unsuitable_machines_are_errors(tmp_path: Path) -> None:
    """The test cluster has two machines as far as Ray knows. The last run loses one of them."""
    for name in ("elsewhere", "out"):
        (tmp_path / name).mkdir()
    (data := tmp_path / "data").mkdir()
    ran = subprocess.run(
        [sys.executable, "-c", UNITS, "out", data, "elsewhere"], capture_output=True, text=True, timeout=600, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"},
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    after_loss, lost, raised, *sums, version, unseen, no_gpu, after_machine_loss, code, files = (
        ran.stdout.splitlines()
    )
    assert sorted(eval(after_loss)) == [0, 1, 2, 3]
    assert lost.startswith("UskError") and "3 times" in lost
    assert raised == "UskError per_class: that cannot be done. Do another."
    assert sorted(sums) == ["0 10.0", "1 15.0", "2 20.0"]
    assert version.startswith("UsageError") and f"usk {usk.__version__} in place of 0.0.1" in version
    assert unseen.startswith("UsageError") and str(data) in unseen
    assert no_gpu.startswith("UsageError") and "no GPU" in no_gpu
    assert sorted(eval(after_machine_loss)) == [0, 1, 2, 3] and code == "143"  # SIGTERM raises SystemExit
    names = [f"{number}.txt" for number in range(4)]
    assert eval(files) == [*names, *(f"lost-{number}" for number in range(4))]  # the marker file is gone


def contents(folder: Path) -> dict[str, bytes]:
    with_times = {"run.json", "README.md"} if folder.name == "runs" else set()
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in with_times
    }


def actors_below(command: int) -> set[int]:
    """Return the process ids of the Ray actors that descend from a command's process."""
    parents, found = dict[int, int](), set[int]()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(process.name)] = int((process / "stat").read_text().rpartition(")")[2].split()[1])
            if b"ray::Worker" in (process / "cmdline").read_bytes():
                found.add(int(process.name))
        except OSError:
            pass

    def is_below(pid: int) -> bool:
        return pid == command or (pid in parents and is_below(parents[pid]))

    return {pid for pid in found if is_below(pid)}


@with_ray
@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs Linux")
def test_a_job_with_a_killed_actor_writes_the_same_bytes_as_one_process(
    urbansound8k_folder: Path,
    tiny_pipeline: Callable[..., Path],
    usk_process: Callable[..., Any],
    tmp_path: Path,
) -> None:
    """The jobs make clips and train on them. Each command starts Ray and stops it."""
    real = ("--real", urbansound8k_folder)
    synth = (
        "synth", *real, "--model", tiny_pipeline(), "--per-class", 12, "--steps", 1, "--batch", 2, "--json"
    )  # fmt: skip
    train = (
        "train", *real, "--mix", "real,synth", "--test-folds", 1, "--seeds", 2, "--epochs", 2, "--json", "--synth"
    )  # fmt: skip
    seen: set[int] = set()

    def run(*words: object, kill_when: Callable[[], bool] | None = None) -> None:
        process = usk_process(*words, OMP_NUM_THREADS="1", RAY_ADDRESS="local")
        while kill_when is not None and process.poll() is None and not kill_when():
            time.sleep(0.02)
        if kill_when is not None and process.poll() is None:
            seen.update(actors_below(process.pid))
            os.kill(max(actors_below(process.pid)), signal.SIGKILL)
        out, err = process.communicate(timeout=900)
        assert process.returncode == 0, err
        assert "Traceback" not in err and out

    def made(pattern: str) -> Callable[[], bool]:
        return lambda: any((tmp_path / "ray").glob(pattern))

    once = tmp_path / "once"
    run(*synth, "--out", once / "synth")
    run(*train, once / "synth", "--out", once / "runs")
    ray, engine = tmp_path / "ray", ("--engine", RAY, "--workers", 2)
    run(*synth, *engine, "--out", ray / "synth", kill_when=made("synth/.work/made-*.parquet"))
    run(*train, ray / "synth", *engine, "--out", ray / "runs", kill_when=made("runs/*/run.json"))
    assert contents(ray / "synth") == contents(once / "synth")
    assert contents(ray / "runs") == contents(once / "runs")
    assert len(seen) >= 3
    deadline = time.monotonic() + 60
    while seen & actors_below(1):
        assert time.monotonic() < deadline, seen
        time.sleep(0.1)


@pytest.mark.parametrize("command", ["synth", "train", "study"])
def test_an_engine_that_cannot_be_used_is_an_error_of_one_line(
    usk: Callable[..., Any], command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = (command, "none.toml") if command == "study" else (command, "--real", tmp_path / "none")
    monkeypatch.setattr(select.importlib.util, "find_spec", lambda name: None)
    for given, expected in (
        ((RAY,), "urban-sound-kit[ray]"),
        (("slurm",), "local, ray"),
        ((RAY, "--part", "1/2"), "part of a job"),
    ):
        usk(*words, "--engine", *given).refused(2, "--engine", expected)


@with_ray
@pytest.mark.slow
def test_a_cluster_that_does_not_answer_is_an_error_of_one_line(
    usk_process: Callable[..., Any], tone_folder: Path, tmp_path: Path
) -> None:
    words = ("synth", "--real", tone_folder, "--strategy", "waveform", "--per-class", 1)
    where = tmp_path / "out"
    process = usk_process(*words, "--engine", RAY, "--quiet", "--out", where, RAY_ADDRESS="127.0.0.1:1")
    _, err = process.communicate(timeout=300)
    assert process.returncode == 2 and err.splitlines()[-1].startswith("usk: --engine"), err
    assert "Traceback" not in err
