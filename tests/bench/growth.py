"""How time and memory grow with the number of clips, files and runs: each command at two sizes, in one run.

    python -m tests.bench.growth --json FILE             # all rows of docs/results.md
    python -m tests.bench.growth --small --json FILE     # a hundredth of each: that the script works
    python -m tests.bench.growth --rows plan,audit       # some of them

Each measurement is a process of its own: CPU seconds and peak memory are the operating system's figures for it and its children. The
cache is a new one, and decoded clips are in it. `synth` makes averages of mel images, without a network: all but that shows. `open`
opens a folder of 100,000 sounds, which is written first.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from tests.bench.render import write_random
from tests.runs import write_run

MIXES = ("real", "real,synth", "real,waveform", "real,decomposed", "real,sample", "synth", "real,slerp")
# Of clips a class (the demo corpus has ten of them), turns, or runs.
SIZES = {
    "plan": (10_000, 100_000),
    "synth": (10, 1_000),
    "audit": (100, 1_000),
    "open": (1, 2),
    "report": (21, 84),
}
MANY = 100_000


def write_many(folder: Path, count: int) -> None:
    """So many sounds of a hundredth of a second, in ten classes."""
    for number in range(count):
        (place := folder / f"class{number % 10}").mkdir(parents=True, exist_ok=True)
        sound = np.sin(np.arange(160) * (0.1 + number / count)).astype(np.float32)
        soundfile.write(place / f"{number}.wav", sound, 16_000)


def measured(what: str, *arguments: object) -> dict[str, Any]:
    """One usk process: CPU seconds and peak memory in MB."""
    command = [sys.executable, "-m", "usk", *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{what} failed with status {status}")
    cpu_s = round(usage.ru_utime + usage.ru_stime, 2)
    return {"what": what, "cpu_s": cpu_s, "peak_mb": round(usage.ru_maxrss / 1024)}


def growth(
    row: str, sizes: list[int], run: Callable[[int], tuple[str, list[object]]]
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """A measurement for each size, and the last one over the first."""
    made = [measured(*((what, *arguments))) for what, arguments in map(run, sizes)]
    ratio = {
        "row": row,
        "sizes": sizes,
        "times": round(made[-1]["cpu_s"] / made[0]["cpu_s"], 2),
        "memory": round(made[-1]["peak_mb"] / made[0]["peak_mb"], 2),
    }
    return made, ratio


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", default=",".join(SIZES))
    parser.add_argument("--real", default="demo")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    share = 100 if options.small else 1
    made, ratios = list[dict[str, Any]](), list[dict[str, Any]]()
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        os.environ["USK_CACHE"] = str(work / "cache")
        model = work / "model"
        real = ["--real", options.real]

        def plan(size: int) -> tuple[str, list[object]]:
            waveform = ["--strategy", "waveform", "--dry-run"]
            return f"plan, {size} clips a class", ["synth", *real, *waveform, "--per-class", size]

        def synth(size: int) -> tuple[str, list[object]]:
            quick = ["--model", model, "--strategy", "average", "--phase", "parents", "--device", "cpu"]
            quick += ["--out", work / f"synth-{size}"]
            return f"synth, {size} clips a class", ["synth", *real, *quick, "--per-class", size]

        def audit(size: int) -> tuple[str, list[object]]:
            if not (work / f"synth-{size}").exists():
                measured(*((what := synth(size))[0], *what[1]))
            return f"audit, {size} clips a class", [
                "audit",
                work / f"synth-{size}",
                *real,
                "--embedding",
                "log-mel",
            ]

        def opened(turn: int) -> tuple[str, list[object]]:
            if not (work / "many").exists():
                write_many(work / "many", MANY // share)
            return f"open, time {turn}", ["info", work / "many"]

        def report(n_runs: int) -> tuple[str, list[object]]:
            for number in range(n_runs):
                mix, rest = MIXES[number % len(MIXES)], number // len(MIXES)
                clips = (50, 100, 200, None)[rest // 3]
                skill = 0.5 + 0.01 * (number % 10)
                write_run(work / f"runs-{n_runs}", mix, rest % 3, skill=skill, n_clips=400, train_clips=clips)
            return f"report, {n_runs} runs", [
                "report",
                work / f"runs-{n_runs}",
                "--out",
                work / f"{n_runs}.html",
            ]

        rows = {"plan": plan, "synth": synth, "audit": audit, "open": opened, "report": report}
        write_random(model, 32, (32, 32, 32))
        measured("decoding", *synth(1)[1])
        for row in options.rows.split(","):
            of_clips = row in ("plan", "synth", "audit")
            sizes = [max(1, size // share) if of_clips else size for size in SIZES[row]]
            some, ratio = growth(row, sizes, rows[row])
            made += some
            ratios.append(ratio)
            sys.stdout.write(f"{ratio}\n")
            sys.stdout.flush()
    for one in made:
        sys.stdout.write(f"{one['what']:32} {one['cpu_s']:8.2f} s {one['peak_mb']:8} MB\n")
    if options.json:
        options.json.write_text(json.dumps({"ratios": ratios, "rows": made}, indent=1) + "\n")


if __name__ == "__main__":
    main()
