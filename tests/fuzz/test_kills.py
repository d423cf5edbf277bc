"""Processes that are killed at random moments: the same command goes on and ends with the same bytes, and leaves nothing else."""

from __future__ import annotations

import hashlib
import random
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fuzz.campaign import KILLS, Failures

VARYING = {"README.md", "history.json", "run.json", "usk.json"}  # they hold times, or the command line


def bytes_of(folder: Path) -> dict[str, str]:
    """A hash of each file; hidden ones by name alone."""
    return {
        str(file.relative_to(folder)): ""
        if file.name in VARYING
        else hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


@pytest.mark.slow
@pytest.mark.skipif(not KILLS, reason="USK_FUZZ_KILLS says how many")
@pytest.mark.parametrize("kind", ["synth", "train"])
def test_kills_at_random_moments(
    world: Path, usk_process: Callable[..., subprocess.Popen[str]], kind: str
) -> None:
    words: tuple[object, ...] = {
        "synth": ("synth", "--real", world / "clips", "--strategy", "waveform", "--per-class", 400, "--quiet", "--out"),
        "train": ("train", "--real", world / "clips", "--epochs", 1, "--seeds", 2, "--test-folds", 1, "--no-baseline", "--quiet", "--out"),
    }[kind]  # fmt: skip
    began = time.monotonic()
    process = usk_process(*words, "whole")
    assert process.wait(300) == 0
    whole_s, whole = time.monotonic() - began, bytes_of(Path("whole"))
    failures = Failures()
    rng = random.Random(f"kills {kind}")
    n = max(1, KILLS // 2)
    for number in range(n):
        shutil.rmtree("cut", ignore_errors=True)
        after_s = whole_s * rng.uniform(0.3, 1.0)
        process = usk_process(*words, "cut", USK_CACHE=str(Path("cache").resolve()))
        time.sleep(after_s)
        process.kill()
        process.wait(60)
        # In a process of its own, as the whole one was: the last bits of what is trained depend on torch's threads.
        process = usk_process(*words, "cut")
        said = process.communicate(timeout=300)[1]
        fault = f"exit code {process.returncode}: {said[-300:]}" if process.returncode else ""
        if not fault and (there := bytes_of(Path("cut"))) != whole:
            fault = f"other files: {sorted(set(there.items()) ^ set(whole.items()))}"
        failures.add(f"{kind} kill {number} after {after_s:.2f} of {whole_s:.2f} s", fault)
    failures.tell(n)
