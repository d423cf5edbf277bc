"""Several studies of one question as one: the runs of several folders, the seeds of each further folder taken for other ones.

    python -m tests.bench.together amount/runs more/runs --shots 100 --mixes real,decomposed real,waveform --json FILE

Of each folder the mixes named, and real clips alone, with one augmentation; `--as real,many:0.5=real,decomposed` has a mix that
one study calls otherwise. Seeds draw the same real clips in all of them, which the interval takes for others: what differs is
everything else that is drawn (clips, their noise, weights), the generators, and the machine.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from tests.bench.study import brief
from usk.evaluate.compare import Comparison, compare
from usk.evaluate.records import RunRecord, read_runs

APART = 1_000  # no study has as many seeds


def further_seeds(studies: Sequence[Sequence[RunRecord]]) -> list[RunRecord]:
    """All runs, none with the seed of one of another study."""
    return [
        replace(run, seed=run.seed + APART * number) for number, runs in enumerate(studies) for run in runs
    ]


def named(runs: Sequence[RunRecord], mixes: Sequence[str], names: Mapping[str, str]) -> list[RunRecord]:
    """The runs of these mixes and of real clips alone, under their common names."""
    called = [replace(run, mix=names.get(run.mix, run.mix)) for run in runs]
    return [run for run in called if run.mix in ("real", *mixes)]


def together(
    folders: Sequence[Path],
    shots: int | None,
    mixes: Sequence[str],
    names: Mapping[str, str],
    augment: str,
) -> list[Comparison]:
    """What all of them say: one comparison, of each mix with real clips alone."""
    studies = [
        [
            run
            for run in named(read_runs(folder), mixes, names)
            if (run.shots, run.augment) == (shots, augment)
        ]
        for folder in folders
    ]
    return compare(further_seeds(studies), "real")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--shots", required=True, help="one or several numbers, or full, joined by commas")
    parser.add_argument("--mixes", nargs="+", required=True)
    parser.add_argument("--as", dest="names", nargs="*", default=[], metavar="MIX=MIX")
    parser.add_argument("--augment", default="strong")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    names: dict[str, str] = dict(pair.split("=") for pair in options.names)
    found: list[dict[str, Any]] = []
    for word in options.shots.split(","):
        shots = None if word == "full" else int(word)
        for comparison in together(options.runs, shots, options.mixes, names, options.augment):
            found.append(brief(comparison))
            for row in comparison.rows:
                text = f"{word} real clips, {row.mix}: {100 * row.accuracy.mean:.1f} %, {row.n_runs} runs, {row.sentence}"
                Console().print(text)
    if options.json:
        options.json.write_text(json.dumps({"comparisons": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
