"""How time and memory grow: dry runs of plans by number of clips, and a folder opened twice.

    python -m tests.bench.growth --real FOLDER --per-class 100,1000,10000 --many FOLDER_OF_100000_FILES --json FILE

Each row is a process of its own: CPU seconds and peak memory are the operating system's figures for it. The cache is a new one.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any


def measured(what: str, *arguments: str) -> dict[str, Any]:
    """One usk process: CPU seconds and peak memory in MB."""
    process = subprocess.Popen([sys.executable, "-m", "usk", *arguments], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{what} failed with status {status}")
    cpu_s = round(usage.ru_utime + usage.ru_stime, 2)
    return {"what": what, "cpu_s": cpu_s, "peak_mb": round(usage.ru_maxrss / 1024)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--real", default="demo")
    parser.add_argument("--per-class", default="100,1000", help="sizes of the plan, joined by commas")
    parser.add_argument("--many", help="a folder of many small files")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as cache:
        os.environ["USK_CACHE"] = cache
        for size in options.per_class.split(","):
            plan = (
                "synth",
                "--real",
                options.real,
                "--strategy",
                "waveform",
                "--dry-run",
                "--per-class",
                size,
            )
            rows.append(measured(f"plan, {size} clips a class", *plan))
        for turn in ("first", "second") if options.many else ():
            rows.append(measured(f"open, {turn} time", "info", options.many))
    for row in rows:
        sys.stdout.write(f"{row['what']:32} {row['cpu_s']:8.2f} s {row['peak_mb']:8} MB\n")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
