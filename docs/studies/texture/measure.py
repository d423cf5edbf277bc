"""The study's runs, each tested on several folds at once, told apart by UrbanSound8K's folds.

    python docs/studies/texture/measure.py UrbanSound8K RUNS... --json FILE

UrbanSound8K may also be a folder with labels.csv, whose columns `file` and `fold` tell the folds apart.

For each number of real clips, mix and use: accuracy (the mean of the folds'), the difference from real clips alone with the
interval that usk has (folds, recordings and seeds are resampled), the difference from the default so far used in the same way, and
the difference by fold. Recordings that the generator was trained on, because they have clips in several folds, are not counted.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from usk.diffusion.pipeline import describe_generator
from usk.evaluate.stats import Pair, paired_bootstrap
from usk.runs import RunRecord, read_runs

OLD = "real,decomposed"


def folds_of(whole: Path) -> dict[str, int]:
    """The fold of each clip by the name of its file, without suffix."""
    if (whole / "labels.csv").exists():
        with (whole / "labels.csv").open(newline="") as file:
            return {Path(row["file"]).stem: int(row["fold"]) for row in csv.DictReader(file)}
    with (whole / "metadata" / "UrbanSound8K.csv").open(newline="") as file:
        return {Path(row["slice_file_name"]).stem: int(row["fold"]) for row in csv.DictReader(file)}


def by_fold(base: RunRecord, other: RunRecord, folds: dict[str, int]) -> list[Pair]:
    first, second = base.predictions, other.predictions
    right = [part.predicted == part.labels for part in (first, second)]
    assert np.array_equal(first.clip_ids, second.clip_ids)
    of = np.array([folds[Path(name).stem] for name in first.clip_ids.tolist()])
    of[np.isin(first.groups, sorted(describe_generator().training_groups))] = 0
    return [
        Pair(f"fold{fold}", base.seed, first.groups[of == fold], right[0][of == fold], right[1][of == fold])
        for fold in np.unique(of[of > 0]).tolist()
    ]  # fmt: skip


def against(
    base: dict[int, RunRecord], runs: dict[int, RunRecord], folds: dict[str, int]
) -> dict[str, Any] | None:
    """Of the seeds that both have."""
    seeds = sorted(base.keys() & runs.keys())
    pairs = [pair for seed in seeds for pair in by_fold(base[seed], runs[seed], folds)]
    if not pairs:
        return None
    each: dict[str, list[float]] = defaultdict(list)
    for pair in pairs:
        each[pair.split].append(100 * pair.difference)
    of_seed = [float(np.mean([100 * pair.difference for pair in pairs if pair.seed == seed])) for seed in seeds]  # fmt: skip
    return {
        "seeds": seeds,
        **asdict(paired_bootstrap(pairs)),
        "by_fold": {fold: float(np.mean(values)) for fold, values in each.items()},
        "by_seed": dict(zip(map(str, seeds), of_seed, strict=True)),
        "accuracy": 100 * float(np.mean([np.mean(pair.other_correct) for pair in pairs])),
        "baseline_accuracy": 100 * float(np.mean([np.mean(pair.baseline_correct) for pair in pairs])),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("real", type=Path), parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--json", type=Path, required=True)
    args = parser.parse_args()
    folds, rows = folds_of(args.real), []
    trained: dict[tuple[int | None, str], dict[int, RunRecord]] = defaultdict(dict)
    for run in (run for folder in args.runs for run in read_runs(folder)):
        trained[run.train_clips, run.mix][run.seed] = run
    for (n, mix), runs in sorted(trained.items(), key=lambda item: (item[0][0] or 0, item[0][1])):
        if mix == "real":
            continue
        used = mix.partition(" (")[2]
        old = f"{OLD} ({used}" if used else OLD
        row = {"train_clips": n, "mix": mix, "over_real": against(trained[n, "real"], runs, folds)}
        row["over_old"] = against(trained[n, old], runs, folds) if mix != old else None
        rows.append(row)
        for name in ("over_real", "over_old"):
            if found := row[name]:
                low, high = found["low_points"], found["high_points"]
                interval = "" if low is None else f" ({low:+.1f} to {high:+.1f})"
                parts = " ".join(f"{fold} {value:+.1f}" for fold, value in found["by_fold"].items())
                print(f"{n} {mix} {name}: {found['baseline_accuracy']:.1f} -> {found['accuracy']:.1f}, "
                      f"{found['difference_points']:+.1f}{interval}; {len(found['seeds'])} seeds; {parts}")  # fmt: skip
    args.json.write_text(json.dumps(rows, indent=1, default=float) + "\n")


if __name__ == "__main__":
    main()
