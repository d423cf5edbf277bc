"""Two worker processes against one, each with one thread: the same clips of `usk synth`, whole processes.

    OMP_NUM_THREADS=1 python -m tests.bench.workers --real UrbanSound8K --per-class 20 --json FILE

The time is that of the whole command, decoding and the start of the workers included; the clips must be the same to the byte.
One worker and two take turns, and the shortest of each counts. On a machine that others use too, what two workers would gain
alone is bounded by the processor's time: twice that of one worker over that of two (`ratio_by_cpu`).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any


def run(options: argparse.Namespace, workers: int, folder: Path, cache: Path) -> dict[str, Any]:
    """Seconds and the hash of what was made by so many workers; the cache of latents is not used."""
    command = [
        sys.executable, "-m", "usk", "synth", "--real", options.real, "--model", options.model, "--device", "cpu",
        "--per-class", str(options.per_class), "--steps", str(options.steps), "--batch", str(options.batch),
        "--workers", str(workers), "--out", str(folder), "--json", "--quiet",
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "USK_CACHE": str(cache)}
    started, cpu = time.monotonic(), sum(os.times()[2:4])
    made = json.loads(subprocess.run(command, env=environment, capture_output=True, check=True).stdout)
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            digest.update(file.read_bytes())
    row = {"workers": workers, "clips": made["made"], "seconds": round(time.monotonic() - started, 1)}
    row |= {"cpu_s": round(sum(os.times()[2:4]) - cpu, 1), "load": round(os.getloadavg()[0], 1)}
    return {**row, "rendering_s": made["elapsed_s"], "sha256": digest.hexdigest()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--real", default="demo")
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--per-class", type=int, default=20)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as work:
        for number in range(2 * options.rounds):  # each with a cache of its own: no latents wait there
            place = Path(work) / str(number)
            rows.append(run(options, 1 + number % 2, place, Path(work) / f"cache{number}"))
    assert len({row["sha256"] for row in rows}) == 1
    least = {
        name: [min(row[name] for row in rows[one::2]) for one in (0, 1)] for name in ("seconds", "cpu_s")
    }
    (one_s, two_s), (one_cpu_s, two_cpu_s) = least.values()
    result = {
        "ratio": round(one_s / two_s, 2),
        "ratio_by_cpu": round(2 * one_cpu_s / two_cpu_s, 2),
        "rows": rows,
    }
    sys.stdout.write(json.dumps(result, indent=1) + "\n")
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
