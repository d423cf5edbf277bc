"""A real Ray on this machine: the same bytes as one process, whoever is killed; and what a cluster may lack."""

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
from usk.engine import chosen
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
from tests.engine.units import Adding, Writing
from usk.engine.chosen import engine_for
from usk.engine.engine import RAY, Workers
from usk.errors import UskError

here = os.getcwd()
os.chdir(sys.argv[3])  # where its machines start: what is relative must not be looked for there
cluster = Cluster(True, head_node_args={"num_cpus": 0, "include_dashboard": False})
for _ in range(2):
    cluster.add_node(num_cpus=1)
os.chdir(here)
os.environ["RAY_ADDRESS"] = cluster.address
signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the cluster has a handler of its own
folder = Path(sys.argv[1])
two = Workers(2, 1, engine=RAY)

def run(**wrong):
    done = {}
    begin = Writing(folder, tuple((int(name.removeprefix("unit")), kind) for name, kind in wrong.items()))
    with engine_for(two, [folder]) as engine:
        engine.run(4, begin, lambda number: number, ended=done.__setitem__)
    return done

def refused(call):
    try:
        call()
    except UskError as error:
        return type(error).__name__ + " " + str(error)

print(run(unit1="killed once", unit3="killed once"))
print(refused(lambda: run(unit0="killed always")))
print(refused(lambda: run(unit2="line")))
with engine_for(two, [folder]) as engine:
    shared = engine.share(torch.arange(5.0))
    engine.run(3, Adding(), lambda number: (number, shared), ended=lambda *told: print(*told))
usk.__version__ = "0.0.1"
print(refused(run))
usk.__version__ = usk_version = "0.1.0"
with engine_for(two, [folder, sys.argv[2]]) as engine:
    Path(sys.argv[2]).rename(sys.argv[2] + "-gone")  # as if this machine saw what the other does not
    print(refused(lambda: engine.run(1, Writing(folder), lambda number: number)))
print(refused(lambda: engine_for(Workers(1, 1, ("cuda:0",), RAY), [folder]).__enter__()))
print(run(unit2="machine lost once"))
try:
    with engine_for(two, [folder]) as engine:
        os.kill(os.getpid(), 15)
        time.sleep(60.0)
except SystemExit as ended:
    print(ended.code)
print(sorted(file.name for file in folder.iterdir()))
ray.shutdown()
cluster.shutdown()
"""


@with_ray
@pytest.mark.slow
def test_actors_are_replaced_and_look_at_their_machine_first(tmp_path: Path) -> None:
    """On two machines, as far as Ray knows, one of which is lost in the end."""
    for name in ("elsewhere", "out"):
        (tmp_path / name).mkdir()
    (data := tmp_path / "data").mkdir()
    ran = subprocess.run(
        [sys.executable, "-c", UNITS, "out", data, "elsewhere"], capture_output=True, text=True, timeout=600, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"},
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    done, lost, line, *added, version, data_line, gpu, after, code, files = ran.stdout.splitlines()
    assert sorted(eval(done)) == [0, 1, 2, 3]
    assert lost.startswith("UskError") and "3 times" in lost
    assert line == "UskError per_class: that cannot be done. Do another."
    assert sorted(added) == ["0 10.0", "1 15.0", "2 20.0"]
    assert version.startswith("UsageError") and f"usk {usk.__version__} in place of 0.0.1" in version
    assert data_line.startswith("UsageError") and str(data) in data_line
    assert gpu.startswith("UsageError") and "no GPU" in gpu
    assert sorted(eval(after)) == [0, 1, 2, 3] and code == "143"  # SIGTERM unwinds
    names = [f"{number}.txt" for number in range(4)]
    assert eval(files) == [*names, *(f"lost-{number}" for number in range(4))]  # no mark of usk is left


def contents(folder: Path) -> dict[str, bytes]:
    names = {"run.json", "README.md"}  # of a run, they hold times
    runs = folder.name == "runs"
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not (runs and path.name in names)
    }


def actors(of: int) -> set[int]:
    """The processes below a command's that are an actor of usk."""
    parents, found = dict[int, int](), set[int]()
    for place in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(place.name)] = int((place / "stat").read_text().rpartition(")")[2].split()[1])
            if b"ray::Worker" in (place / "cmdline").read_bytes():
                found.add(int(place.name))
        except OSError:
            pass

    def is_below(pid: int) -> bool:
        return pid == of or (pid in parents and is_below(parents[pid]))

    return {pid for pid in found if is_below(pid)}


@with_ray
@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs Linux")
def test_a_job_with_a_killed_actor_ends_with_the_bytes_of_one_process(
    urbansound8k_folder: Path,
    tiny_pipeline: Callable[..., Path],
    usk_process: Callable[..., Any],
    tmp_path: Path,
) -> None:
    """Clips, and then a training on them. Ray is started by the command and ends with it."""
    real = ("--real", urbansound8k_folder)
    synth = (
        "synth", *real, "--model", tiny_pipeline(), "--per-class", 12, "--steps", 1, "--batch", 2, "--json"
    )  # fmt: skip
    train = (
        "train", *real, "--mix", "real,synth", "--test-folds", 1, "--seeds", 2, "--epochs", 2, "--json", "--synth"
    )  # fmt: skip
    seen: set[int] = set()

    def ran(*words: object, kill_when: Callable[[], bool] | None = None) -> None:
        process = usk_process(*words, OMP_NUM_THREADS="1", RAY_ADDRESS="local")
        while kill_when is not None and process.poll() is None and not kill_when():
            time.sleep(0.02)
        if kill_when is not None and process.poll() is None:
            seen.update(actors(process.pid))
            os.kill(max(actors(process.pid)), signal.SIGKILL)
        out, err = process.communicate(timeout=900)
        assert process.returncode == 0, err
        assert "Traceback" not in err and out

    for folder, more in (("once", ()), ("ray", ("--engine", RAY, "--workers", 2))):
        place = tmp_path / folder
        (place / "synth" / ".work").parent.mkdir(parents=True)
        made = (place / "synth" / ".work").glob
        in_clips = (lambda made=made: any(made("made-*.parquet"))) if more else None
        ran(*synth, *more, "--out", place / "synth", kill_when=in_clips)
        first = (lambda place=place: any(place.glob("runs/*/run.json"))) if more else None
        ran(*train, place / "synth", *more, "--out", place / "runs", kill_when=first)
    assert contents(tmp_path / "ray" / "synth") == contents(tmp_path / "once" / "synth")
    assert contents(tmp_path / "ray" / "runs") == contents(tmp_path / "once" / "runs")
    assert len(seen) >= 3
    deadline = time.monotonic() + 60
    while seen & actors(1):
        assert time.monotonic() < deadline, seen
        time.sleep(0.1)


@pytest.mark.parametrize("command", ["synth", "train", "study"])
def test_what_cannot_be_an_engine_is_one_line(
    usk: Callable[..., Any], command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = (command, "none.toml") if command == "study" else (command, "--real", tmp_path / "none")
    monkeypatch.setattr(chosen.importlib.util, "find_spec", lambda name: None)
    for given, said in (
        ((RAY,), "urban-sound-kit[ray]"),
        (("slurm",), "local, ray"),
        ((RAY, "--part", "1/2"), "no part"),
    ):
        usk(*words, "--engine", *given).refused(2, "--engine", said)


@with_ray
@pytest.mark.slow
def test_a_cluster_that_is_not_there_is_one_line(
    usk_process: Callable[..., Any], tone_folder: Path, tmp_path: Path
) -> None:
    words = ("synth", "--real", tone_folder, "--strategy", "waveform", "--across-folds", "--per-class", 1)
    where = tmp_path / "out"
    process = usk_process(*words, "--engine", RAY, "--quiet", "--out", where, RAY_ADDRESS="127.0.0.1:1")
    _, err = process.communicate(timeout=300)
    assert process.returncode == 2 and err.splitlines()[-1].startswith("usk: --engine"), err
    assert "Traceback" not in err
