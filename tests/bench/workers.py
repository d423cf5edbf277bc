"""Two worker processes against one, each with one thread: the same clips of `usk synth`, whole processes.

    OMP_NUM_THREADS=1 python -m tests.bench.workers --real UrbanSound8K --per-class 20 --json FILE

The time is that of the whole command, decoding and the start of the workers included; the clips must be the same to the byte.
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
    started = time.monotonic()
    made = json.loads(subprocess.run(command, env=environment, capture_output=True, check=True).stdout)
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            digest.update(file.read_bytes())
    row = {"workers": workers, "clips": made["made"], "seconds": round(time.monotonic() - started, 1)}
    return {**row, "rendering_s": made["elapsed_s"], "sha256": digest.hexdigest()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--real", default="demo")
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--per-class", type=int, default=20)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as work:
        for workers in (1, 2):  # each with a cache of its own: no latents wait there
            rows.append(run(options, workers, Path(work) / str(workers), Path(work) / f"cache{workers}"))
    assert rows[0]["sha256"] == rows[1]["sha256"]
    result = {"ratio": round(rows[0]["seconds"] / rows[1]["seconds"], 2), "rows": rows}
    sys.stdout.write(json.dumps(result, indent=1) + "\n")
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
