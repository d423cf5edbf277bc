"""Several studies of one question as one: the mean of what the runs of several folders say, seed by seed.

    python docs/studies/together/together.py amount/runs more/runs --train-clips 100 --mixes real,decomposed real,waveform --json FILE

Of each folder the mixes named, and real clips alone, with one augmentation; `--as real,many:0.5=real,decomposed` has a mix that
one study calls otherwise. A seed draws the same real clips in all studies, and much else: so it stays one pair a test fold, whose
difference is the mean over the studies that have it.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from usk.evaluate.stats import Pair
from usk.evaluate.verdict import MixResult, correct_p_values, write_sentence
from usk.runs import RunRecord, read_runs


def named(runs: Sequence[RunRecord], mixes: Sequence[str], names: Mapping[str, str]) -> list[RunRecord]:
    """The runs of these mixes and of real clips alone; those called otherwise here (`names`) by their common name, and beside as
    many real clips no others of that name, which are another draw of the same."""
    common = {(run.train_clips, names[run.mix]) for run in runs if run.mix in names}
    called = [
        replace(run, mix=names.get(run.mix, run.mix))
        for run in runs
        if (run.train_clips, run.mix) not in common
    ]
    return [run for run in called if run.mix in ("real", *mixes)]


def pairs_of(runs: Sequence[RunRecord], mix: str) -> dict[tuple[str, int], Pair]:
    """By split and seed, each mix's run beside that of real clips alone; the newest of several."""
    newest = {(run.mix, *run.key): run for run in sorted(runs, key=lambda run: run.created)}
    pairs = {}
    for (name, split, seed), run in newest.items():
        if name == mix and (real := newest.get(("real", split, seed))) is not None:
            if (real.steps, real.real.revision) != (run.steps, run.real.revision) or not np.array_equal(
                real.predictions.clip_ids, run.predictions.clip_ids
            ):
                raise SystemExit(
                    f"{real.folder} and {run.folder} took other steps, or were trained or tested on other real clips"
                )
            pairs[split, seed] = Pair(split, seed, run.predictions.groups, real.correct, run.correct)
    return pairs


def averaged(studies: Sequence[Mapping[tuple[str, int], Pair]]) -> list[Pair]:
    """One pair for each split and seed: the clips of all studies behind each other, those of one alone as often."""
    made = []
    for split, seed in sorted(set().union(*studies)):
        found = [study[split, seed] for study in studies if (split, seed) in study]
        whole = [found[n % len(found)] for n in range(math.lcm(*range(1, len(studies) + 1)))]
        made.append(
            Pair(
                split,
                seed,
                np.concatenate([pair.groups for pair in whole]),
                np.concatenate([pair.baseline_correct for pair in whole]),
                np.concatenate([pair.other_correct for pair in whole]),
            )
        )
    return made


def together(
    studies: Sequence[Sequence[RunRecord]], train_clips: int | None, mixes: Sequence[str]
) -> dict[str, Any]:
    """What all of them say of each mix and real clips alone, in the form of the studies' results."""
    pairs = {
        mix: averaged(
            [pairs_of([run for run in runs if run.train_clips == train_clips], mix) for runs in studies]
        )
        for mix in mixes
    }
    there = {mix: made for mix, made in pairs.items() if made}
    compared = correct_p_values({mix: MixResult.from_pairs(made) for mix, made in there.items()})
    rows = []
    for mix, made in there.items():
        compared_mix = compared[mix]
        rows.append(
            {
                "mix": mix,
                "accuracy": float(np.mean([pair.other_correct.mean() for pair in made])),
                "accuracy_of_real": float(np.mean([pair.baseline_correct.mean() for pair in made])),
                "studies": sum(
                    any(run.mix == mix and run.train_clips == train_clips for run in runs) for runs in studies
                ),
                "difference": asdict(compared_mix.difference),
                "p_value_exact": compared_mix.p_value_exact,
                "p_value": compared_mix.p_value,
                "p_value_holm": compared_mix.p_value_holm,
                "sentence": write_sentence(compared_mix, "real"),
            }
        )
    return {"train_clips": train_clips, "augment": studies[0][0].augment, "baseline": "real", "rows": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument(
        "--train-clips", required=True, help="one or several numbers, or full, joined by commas"
    )
    parser.add_argument("--mixes", nargs="+", required=True)
    parser.add_argument("--as", dest="names", nargs="*", default=[], metavar="MIX=MIX")
    parser.add_argument("--augment", default="strong")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    names: dict[str, str] = dict(pair.split("=") for pair in options.names)
    found: list[dict[str, Any]] = []
    studies = [
        [run for run in named(read_runs(folder), options.mixes, names) if run.augment == options.augment]
        for folder in options.runs
    ]
    for word in options.train_clips.split(","):
        found.append(together(studies, None if word == "full" else int(word), options.mixes))
        for row in found[-1]["rows"]:
            Console().print(
                f"{word} real clips, {row['mix']}: {100 * row['accuracy']:.1f} %, {row['sentence']}"
            )
    if options.json:
        options.json.write_text(json.dumps({"comparisons": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
