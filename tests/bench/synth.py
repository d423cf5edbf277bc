"""Time and memory of `usk synth`, whole process, at several sizes.

    python -m tests.bench.synth --real UrbanSound8K --folds 1,3 --per-class 5,20

Each size runs as its own process. Seconds a clip leave out the process's start and decoding (a first, smallest run warms
the cache of decoded audio); peak memory is the operating system's figure for the process. Memory must not grow with the
number of clips.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table


def run(options: argparse.Namespace, per_class: int, folder: Path) -> dict[str, float]:
    """One `usk synth` process: clips, seconds a clip as it reports them, wall seconds, peak memory in MB."""
    command = [
        sys.executable,
        "-m",
        "usk",
        "synth",
        "--real",
        options.real,
        "--model",
        options.model,
        "--per-class",
        str(per_class),
        "--out",
        str(folder),
        "--seed",
        str(time.time_ns() % 2**31),  # no latents of these parents wait in the cache
        "--json",
        "--quiet",
        *(["--folds", options.folds] if options.folds else []),
    ]
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    result = json.loads(process.stdout.read())
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"usk synth failed with status {status}")
    peak_kb = usage.ru_maxrss if isinstance(usage, resource.struct_rusage) else 0
    return {
        "per_class": per_class,
        "clips": result["made"],
        "s_per_clip": round(result["elapsed_s"] / result["made"], 3),
        "wall_s": round(time.perf_counter() - started, 1),
        "peak_mb": round(peak_kb / 1024),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--real", default="demo")
    parser.add_argument("--folds", default="")
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--per-class", default="2,8", help="sizes to compare, joined by commas")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    sizes = [int(size) for size in options.per_class.split(",")]
    with tempfile.TemporaryDirectory() as work:
        run(options, 1, Path(work) / "warm")
        rows = [run(options, size, Path(work) / str(size)) for size in sizes]
    table = Table(title=f"usk synth, {options.model}, {options.real}")
    for name in rows[0]:
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(*map(str, row.values()))
    Console().print(table)
    Console().print(f"peak memory, largest over smallest run: {rows[-1]['peak_mb'] / rows[0]['peak_mb']:.2f}")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
