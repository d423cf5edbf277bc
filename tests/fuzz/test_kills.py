"""Processes that are killed at random moments: the same command goes on and ends with the same bytes, and leaves nothing else."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.fuzz.campaign import KILLS, Failures

ROOT = Path(__file__).resolve().parents[2]

# However small the job, it is shared among processes.
ENTRY = "import usk.classify.workers as of; of.MIN_CLIPS = 0; from usk.cli.app import main; main()"
KINDS = ("synth", "train", "study")
STUDY = """
real = "clips"
train_clips = ["full"]
test_folds = {full = [1]}
mixes = {full = ["real,a"]}
seeds = {full = 2}
per_class = {full = 150}
epochs = 2
[clips.a]
strategy = "waveform"
"""


def words_of(kind: str, world: Path, out: Path) -> list[object]:
    """A job that leaves what it makes in `out`."""
    if kind == "study":
        (file := out.with_name(f"{out.name}.toml")).write_text(STUDY)
        return ["study", file, "--real", world / "clips", "--work", out, "--quiet"]
    of_kind = {
        "synth": ("--strategy", "waveform", "--per-class", 300),
        "train": ("--epochs", 2, "--seeds", 4, "--test-folds", 1, "--no-baseline"),
    }[kind]
    return [kind, "--real", world / "clips", *of_kind, "--out", out, "--quiet"]


def started(words: list[object]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", ENTRY, *map(str, words)], text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "2"},
    )  # fmt: skip


def workers_of(process: subprocess.Popen[str]) -> list[int]:
    """Its worker processes; none where it does all by itself."""
    try:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        return [
            int(pid) for pid in children if b"usk.engine.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()
        ]
    except OSError:
        return []


def n_made(out: Path) -> int:
    return sum(
        1
        for pattern in (".work/made-*.parquet", "*/run.json", "*/*/run.json", "a/*/.work/made-*")
        for _ in out.glob(pattern)
    )


def everything(folder: Path) -> dict[str, str]:
    """A hash of each file; of runs' records and cards, which hold times, the name alone."""
    return {
        str(file.relative_to(folder)): ""
        if file.name == "run.json" or (file.name == "README.md" and (file.parent / "run.json").exists())
        else hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def job_with_a_kill(words: list[object], out: Path, way: str, kind: str, rng: random.Random) -> str:
    """Run a job and kill it, or one of its workers, at a random moment; what went wrong."""
    more = ["--workers", 1 if way == "alone" else 2] if way != "parts" and kind != "study" else []
    jobs = [[*words, "--part", f"{number}/2"] for number in (1, 2)] if way == "parts" else [[*words, *more]]
    processes = [started(job) for job in jobs]
    after, soon_s = rng.choice((0, 0, 1, 2)), rng.uniform(0, 1.0)
    victim = rng.choice(processes)
    seen: list[int] = []
    while victim.poll() is None and not (
        n_made(out) >= after and (seen := workers_of(victim) or seen or [victim.pid])
    ):
        time.sleep(0.01)
    time.sleep(soon_s)
    pid = rng.choice(workers_of(victim) or [victim.pid])
    if victim.poll() is None:
        os.kill(pid, signal.SIGKILL)
    said = [process.communicate(timeout=600)[1] for process in processes]
    for _ in range(4):  # a killed command is called again, and so is a part that waited for others
        for number, process in enumerate(processes):
            if process.returncode and (process.pid == pid or way == "parts"):
                processes[number] = started(jobs[number])
                said[number] = processes[number].communicate(timeout=600)[1]
    codes = [process.returncode for process in processes]
    return "" if not any(codes) else f"exit codes {codes}: {[text[-300:] for text in said]}"


@pytest.mark.slow
@pytest.mark.skipif(
    not KILLS or not Path("/proc/self/task").is_dir(), reason="USK_FUZZ_KILLS says how many; needs Linux"
)
@pytest.mark.parametrize("ways", [("engine", "parts"), ("alone",)], ids=["killed_worker", "killed_command"])
def test_a_kill_costs_its_unit_alone(world: Path, ways: tuple[str, ...]) -> None:
    """Jobs of every kind, by the local engine and in two parts, or alone: all end with the bytes of one process that nobody disturbed."""
    here, failures, undisturbed = Path.cwd(), Failures(), {}
    for kind in KINDS:
        process = started(words_of(kind, world, here / f"whole-{kind}"))
        assert process.wait(600) == 0, process.communicate()[1]
        undisturbed[kind] = everything(here / f"whole-{kind}")
    rng = random.Random("workers")
    for number in range(KILLS):
        kind, way = KINDS[number % 3], ways[number // 3 % len(ways)]
        out = here / f"cut-{number}"
        fault = job_with_a_kill(words_of(kind, world, out), out, way, kind, rng)
        if not fault and (there := everything(out)) != undisturbed[kind]:
            fault = f"other files: {sorted(set(there.items()) ^ set(undisturbed[kind].items()))[:6]}"
        failures.add(f"{kind} by {way}, kill {number}", fault)
        print(f"job {number}: {kind} by {way}: {fault or 'the same bytes'}", flush=True)
    failures.tell(KILLS)
