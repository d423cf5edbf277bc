"""The published experiment by its own protocol: what 100 synthetic clips a class are worth to the published CNN.

    python -m tests.bench.seed_9010 --real UrbanSound8K --work DIR --seeds 5 --steps 6000 --batch 64 --json FILE

For each seed a random 90:10 split of the clips (optimistic: clips of one recording are on both sides, and the epoch is chosen on
the test part). A generator is fitted on the training part alone, clips are made from it, and `cnn` is trained without and with
them, with equal steps. What is in `--work` already is not made again. `--seed 3 --seeds 1` does one of them, so that several
processes can share a machine; `--only-results` compares what has been trained.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from usk.classify.train import TrainConfig, train
from usk.data.decode import decode_source
from usk.data.sources import Source, open_source
from usk.data.splits import seed_9010_split
from usk.diffusion.fit import FitConfig, fit
from usk.evaluate.compare import compare_runs
from usk.synth.settings import render_config
from usk.synth.synthesize import SynthConfig, synthesize


def run_seed(
    source: Source,
    work: Path,
    seed: int,
    fitting: FitConfig,
    per_class: int,
    strategies: Sequence[str],
    config: TrainConfig,
) -> None:
    """Everything for one seed that `work` does not hold yet."""
    folder = work / f"seed{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    training = source.subset(seed_9010_split(source.clips, seed).train)
    generator = folder / "generator"
    if not (generator / "model_index.json").is_file():
        fit([training], generator, fitting)
    os.chdir(folder)  # a mix names its clips by their folder here, the same for every seed
    for strategy in strategies:
        made = SynthConfig(per_class, seed=seed, render=render_config(strategy=strategy))
        synthesize(training, strategy, made, model=str(generator))
    mixes = ["real", *(f"real,{strategy}" for strategy in strategies)]
    train(source, mixes, out=work / "runs", config=replace(config, seed=seed))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--real", default="demo")
    parser.add_argument(
        "--work", type=Path, required=True, help="folder of the generators, the clips and the runs"
    )
    parser.add_argument("--seed", type=int, default=0, help="the first")
    parser.add_argument("--seeds", type=int, default=1, help="how many")
    parser.add_argument("--strategies", default="decomposed,sample,waveform")
    parser.add_argument("--per-class", type=int, default=100)
    parser.add_argument("--classifier", default="cnn")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--steps", type=int, default=4_000, help="of a generator")
    parser.add_argument("--minutes", type=float, help="for a generator, in place of --steps")
    parser.add_argument("--batch", type=int, default=16, help="of a generator")
    parser.add_argument("--dropout", type=float, default=0.0, help="of a generator")
    parser.add_argument("--only-results", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    work = options.work.absolute()
    fitting = FitConfig(
        steps=options.steps,
        minutes=options.minutes,
        batch=options.batch,
        dropout=options.dropout,
        class_conditional=True,
    )
    config = TrainConfig(options.classifier, protocol="seed-9010", epochs=options.epochs)
    if not options.only_results:
        source = open_source(options.real)
        decode_source(source)  # whole: the cache then has every seed's part
        for seed in range(options.seed, options.seed + options.seeds):
            strategies = options.strategies.split(",")
            run_seed(source, work, seed, fitting, options.per_class, strategies, config)
            print(f"seed {seed}: trained", file=sys.stderr, flush=True)
    comparisons = compare_runs(work / "runs")
    if options.json:
        shown = [comparison.as_dict() for comparison in comparisons]
        options.json.write_text(json.dumps({"fit": vars(fitting), "comparisons": shown}, indent=1) + "\n")
    for comparison in comparisons:
        table = Table(title=comparison.title)
        for column in ("trained on", "runs", "accuracy %", "to real clips"):
            table.add_column(column)
        for row in comparison.rows:
            table.add_row(row.mix, str(row.n_runs), f"{100 * row.accuracy.mean:.1f}", row.sentence)
        Console().print(table)


if __name__ == "__main__":
    main()
