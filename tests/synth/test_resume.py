"""An interrupted `usk synth` loses nothing: kill -9 and Ctrl-C at random moments, then the bytes of an undisturbed run."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fuzz.campaign import KILLS
from tests.manifests import contents

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.slow

# Imports once, then runs `usk ARGUMENTS` in a forked process for every line that it reads, printing its id and, once
# it ended, its exit code. Small shards make many moments at which something has just been or is being written.
LAUNCHER = """
import dataclasses, json, os, sys
import datasets, diffusers, pyarrow.parquet, soundfile, soxr, yaml, jinja2
import usk.classify.train, usk.cli.display
import usk.synth.synthesize as synthesize
from usk.cli.app import main
with __import__("usk.diffusion.weights", fromlist=["x"]).quiet_libraries():
    import audiodiffusion.pipeline_audio_diffusion
synthesize.ROWS_PER_SHARD = 6
from usk.classify import registry
registry.CLASSIFIERS["small"] = dataclasses.replace(registry.CLASSIFIERS["small"], epochs=1, batch=4)
import usk.synth.filter
usk.synth.filter.MIN_STEPS = 3
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        sys.argv = ["usk", *json.loads(line)]
        main()
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Launcher:
    """Starts one `usk` process after another without the seconds that importing takes."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", LAUNCHER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert self.process.stdin is not None and self.process.stdout is not None
        self.stdin, self.stdout = self.process.stdin, self.process.stdout

    def start(self, *arguments: object) -> int:
        """The id of the new process."""
        self.stdin.write(json.dumps([*map(str, arguments), "--quiet"]) + "\n")
        self.stdin.flush()
        return int(self.stdout.readline())

    def run(self, *arguments: object) -> None:
        self.start(*arguments)
        assert self.exit_code() == 0

    def kill(self, process: int) -> int:
        """The exit code of a process: it may have come to its end before."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
        return self.exit_code()

    def exit_code(self) -> int:
        """Of the process started last, when it has ended. `--quiet` prints its table all the same: skip it."""
        while not (line := self.stdout.readline()).strip().lstrip("-").isdecimal():
            assert line, "the launcher died"
        return int(line)

    def close(self) -> None:
        self.stdin.close()
        self.process.wait(timeout=60)


@pytest.fixture
def launcher() -> Iterator[Launcher]:
    started = Launcher()
    yield started
    started.close()


@pytest.fixture
def arguments(urbansound8k_folder: Path, tiny_pipeline: Callable[..., Path]) -> list[object]:
    more = ["--per-class", "32", "--steps", "2", "--batch", "3"]
    return ["synth", "--real", urbansound8k_folder, "--model", tiny_pipeline(), *more]


def written(folder: Path) -> int:
    """Files of the dataset, parents' latents included, that are there at this moment."""
    return sum(len(files) for _, _, files in os.walk(folder))


def made(folder: Path) -> int:
    """Units that are made, whether or not they are in shards by now: then it is at most one a clip."""
    return 96 if (folder / "data").is_dir() else len(list(folder.glob(".work/made-*.parquet")))


def finished(folder: Path) -> bool:
    return (folder / "README.md").is_file() and not (folder / ".work").exists()


def test_kills_at_random_moments_lose_nothing(
    launcher: Launcher, arguments: list[object], tmp_path: Path
) -> None:
    once, killed = tmp_path / "once", tmp_path / "killed"
    started = time.monotonic()
    launcher.run(*arguments, "--out", once)
    undisturbed_s = time.monotonic() - started
    undisturbed = contents(once)
    random_moment = random.Random(0)
    stages: list[int] = []
    while len(stages) < max(6, KILLS) or (len(set(stages)) < 3 and len(stages) < 24):
        if finished(killed):  # sooner than expected: the kills that are left go to another run
            assert contents(killed) == undisturbed
            shutil.rmtree(killed)
        before, n_files = made(killed), written(killed)
        process = launcher.start(*arguments, "--out", killed)
        if len(stages) % 3:  # two of three: when a file or two more have been written, or a moment later
            more = random_moment.randint(1, 2)
            while written(killed) < n_files + more and not finished(killed):
                time.sleep(0.002)
            time.sleep(random_moment.uniform(0, 0.02))
        else:  # the others: at any time
            time.sleep(random_moment.uniform(0, 0.3) * undisturbed_s)
        if launcher.kill(process) == -signal.SIGKILL:
            stages.append(made(killed))
        assert made(killed) >= before, "a finished unit was lost"
        for shard in killed.glob("data/train-*.parquet"):  # whatever has its name is whole
            assert shard.read_bytes() == undisturbed[f"data/{shard.name}"]
    assert len(set(stages)) >= 3, "the kills fell too close together to show anything"
    launcher.run(*arguments, "--out", killed)
    assert contents(killed) == undisturbed
    assert not (killed / ".work").exists()
    assert "96 synthetic audio clips of 3 classes" in (killed / "README.md").read_text()
    from datasets import load_dataset

    loaded = load_dataset(str(killed), split="train")
    assert len(set(loaded["clip_id"])) == 96


def test_kills_of_parts_that_run_at_the_same_time_lose_nothing(
    launcher: Launcher, arguments: list[object], tmp_path: Path
) -> None:
    """Kills of one of two parts, which share the encoding of parents; what goes on is never waited for."""
    once = tmp_path / "once"
    command = [*arguments, "--per-class", 16]
    launcher.run(*command, "--out", once)
    undisturbed = contents(once)
    other = Launcher()
    random_moment = random.Random(2)
    n_killed, kills = 0, max(6, KILLS)
    for job in range(2 * kills):
        out = tmp_path / f"job{job}"
        while not finished(out):
            parts = [(launcher, "1/2"), (other, "2/2")]
            processes = [by.start(*command, "--out", out, "--part", part) for by, part in parts]
            n_files, lost = written(out), random_moment.randrange(2)
            while written(out) < n_files + random_moment.randint(1, 12) and not finished(out):
                time.sleep(0.002)
            if n_killed < kills:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(processes[lost], signal.SIGKILL)
            codes = [by.exit_code() for by, _ in parts]
            assert codes[1 - lost] == 0 and codes[lost] in (0, -signal.SIGKILL)
            n_killed += codes[lost] != 0
        assert contents(out) == undisturbed
        if n_killed >= kills:
            break
    assert n_killed >= kills
    other.close()


def test_a_filtered_run_that_is_killed_ends_with_the_same_rows(
    launcher: Launcher, arguments: list[object], tmp_path: Path
) -> None:
    once, killed = tmp_path / "once", tmp_path / "killed"
    command = [*arguments, "--filter", 0.5, "--per-class", 6]
    launcher.run(*command, "--out", once)
    undisturbed = contents(once)
    assert {"rejected/rejected-00000-of-00003.parquet", "data/train-00002-of-00003.parquet"} <= {*undisturbed}
    random_moment = random.Random(1)
    stages = []
    for _ in range(8):  # plan, latents, clip_filters, clips that wait, kept ones, rejected ones
        n_files = written(killed)
        process = launcher.start(*command, "--out", killed)
        while written(killed) < n_files + 3 and not finished(killed):
            time.sleep(0.002)
        time.sleep(random_moment.uniform(0, 0.02))
        if launcher.kill(process) == 0:
            break
        stages.append(written(killed))
    assert len(set(stages)) >= 4, "the kills fell too close together to show anything"
    launcher.run(*command, "--out", killed)
    assert contents(killed) == undisturbed


def test_ctrl_c_ends_with_one_line_and_the_same_command_goes_on(
    usk_process: Callable[..., subprocess.Popen[str]],
    usk: Callable[..., Any],
    arguments: list[object],
    tmp_path: Path,
) -> None:
    out = tmp_path / "out"
    command = [*arguments, "--out", out, "--per-class", 60]
    process = usk_process(*command, "--quiet")
    while not list(out.glob(".work/latents-*.bin")):
        assert process.poll() is None
        time.sleep(0.002)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors == "usk: stopped; finished work is kept, and the same command continues from there\n"
    assert not list(out.rglob("*.part"))
    assert not (out / "README.md").exists()
    manifest, plan = json.loads((out / "usk.json").read_text()), (out / "plan.jsonl").read_bytes()
    assert usk(*command, "--json").value["clips"] == 180
    finished = json.loads((out / "usk.json").read_text())
    assert all(shard["sha256"] for shard in finished["shards"].values())
    assert ({**finished, "shards": {}}, (out / "plan.jsonl").read_bytes()) == (manifest, plan)
    assert usk("info", out, "--json").value["clips"] == 180
