"""An interrupted `usk synth` loses nothing: kill -9 and Ctrl-C at random moments, then the bytes of an undisturbed run."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.slow

# Imports once, then runs `usk ARGUMENTS` in a forked process for every line that it reads, printing its id and, once
# it ended, its exit code. Small shards make many moments at which something has just been or is being written.
LAUNCHER = """
import json, os, sys
import datasets, diffusers, pyarrow.parquet, soundfile, soxr, yaml, jinja2
import usk.classify.train, usk.show.console
import usk.synth.synthesize as synthesize
from usk.cli.app import main
with __import__("usk.diffusion.load", fromlist=["x"]).quiet_libraries():
    import audiodiffusion.pipeline_audio_diffusion
synthesize.ROWS_PER_SHARD = 6
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

    def exit_code(self) -> int:
        """Of the process started last, when it has ended. `--quiet` prints its table all the same: skip it."""
        while not (line := self.stdout.readline()).strip().lstrip("-").isdecimal():
            assert line, "the launcher died"
        return int(line)


@pytest.fixture
def launcher() -> Iterator[Launcher]:
    started = Launcher()
    yield started
    started.stdin.close()
    started.process.wait(timeout=60)


@pytest.fixture
def arguments(urbansound8k_folder: Path, tiny_pipeline: Callable[..., Path]) -> list[object]:
    return [
        "synth", "--real", urbansound8k_folder, "--model", tiny_pipeline(), "--per-class", 24, "--steps", 2,
        "--batch", 3,
    ]  # fmt: skip


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def written(folder: Path) -> int:
    """Files of the dataset, parents' latents included, that are there at this moment."""
    return sum(len(files) for _, _, files in os.walk(folder))


def shards(folder: Path) -> int:
    return len(list(folder.glob("data/train-*.parquet")))


def test_ten_kills_at_random_moments_lose_nothing(
    launcher: Launcher, arguments: list[object], tmp_path: Path
) -> None:
    once, killed = tmp_path / "once", tmp_path / "killed"
    started = time.monotonic()
    launcher.start(*arguments, "--out", once)
    assert launcher.exit_code() == 0
    undisturbed_s = time.monotonic() - started
    undisturbed = contents(once)
    random_moment = random.Random(0)
    stages: list[int] = []
    for kill in range(40):
        process = launcher.start(*arguments, "--out", killed)
        n_files, since = written(killed), time.monotonic()
        if kill % 3:  # two of three: when a file or two more have been written, or a moment later
            more = random_moment.randint(1, 3)
            while written(killed) < n_files + more and time.monotonic() < since + 2 * undisturbed_s:
                time.sleep(0.0005)
            time.sleep(random_moment.uniform(0, 0.02))
        else:  # the others: at any time
            time.sleep(random_moment.uniform(0, 0.5) * undisturbed_s)
        os.kill(process, signal.SIGKILL)
        if launcher.exit_code() == -signal.SIGKILL:
            stages.append(shards(killed))
        for shard in killed.glob("data/train-*.parquet"):  # whatever has its name is whole
            assert shard.read_bytes() == undisturbed[f"data/{shard.name}"]
        if len(stages) == 10:
            break
    assert len(stages) == 10
    assert stages == sorted(stages), "a finished shard was lost"
    assert stages[-1] > 0, "no kill fell between two shards"
    launcher.start(*arguments, "--out", killed)
    assert launcher.exit_code() == 0
    after = contents(killed)
    assert {name: after[name] for name in sorted(after)} == {
        name: undisturbed[name] for name in sorted(undisturbed)
    }
    assert not (killed / ".work").exists()
    assert "72 synthetic audio clips of 3 classes" in (killed / "README.md").read_text()
    from datasets import load_dataset

    loaded = load_dataset(str(killed), split="train")
    assert len(set(loaded["clip_id"])) == 72


def test_ctrl_c_ends_with_one_line_and_the_same_command_goes_on(
    usk_process: Callable[..., subprocess.Popen[str]],
    usk: Callable[..., Any],
    arguments: list[object],
    tmp_path: Path,
) -> None:
    out = tmp_path / "out"
    process = usk_process(*arguments, "--out", out, "--per-class", 600, "--quiet")
    while not list(out.glob(".work/latents-*.npy")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors == "usk: stopped; what was finished is kept, and the same command goes on from there\n"
    assert not list(out.rglob("*.part"))
    manifest = (out / "usk.json").read_bytes()
    refused = usk(*arguments, "--out", out, "--quiet")  # 24 a class where 600 were begun
    assert (refused.code, refused.out) == (2, "")
    assert "holds clips of another plan" in refused.err
    assert (out / "usk.json").read_bytes() == manifest


@pytest.mark.parametrize(
    "other", [("--per-class", 3), ("--level", 0.25), ("--seed", 1), ("--strategy", "slerp")]
)
def test_another_plan_into_the_same_folder_is_refused(
    usk: Callable[..., Any], arguments: list[object], tmp_path: Path, other: tuple[object, ...]
) -> None:
    small = [*arguments, "--per-class", 2, "--out", tmp_path / "out", "--quiet"]
    assert usk(*small).code == 0
    before = contents(tmp_path / "out")
    refused = usk(*small, *other)
    assert (refused.code, refused.out) == (2, "")
    assert refused.err.startswith(f"usk: --out {tmp_path / 'out'} holds clips of another plan")
    assert refused.err.count("\n") == 1
    assert contents(tmp_path / "out") == before


def test_the_same_command_again_makes_nothing_and_changes_nothing(
    usk: Callable[..., Any], arguments: list[object], tmp_path: Path
) -> None:
    small = [*arguments, "--per-class", 2, "--out", tmp_path / "out", "--json"]
    assert usk(*small).value["made"] == 6
    before = contents(tmp_path / "out")
    assert usk(*small).value["made"] == 0
    assert contents(tmp_path / "out") == before
