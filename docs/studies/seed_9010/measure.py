"""The published experiment by its own protocol: what 100 synthetic clips a class are worth to the published CNN.

    python docs/studies/seed_9010/measure.py --real UrbanSound8K --work DIR --seeds 5 --steps 4000 --json FILE

For each seed a random 90:10 split of the clips (optimistic: clips of one recording are on both sides, and the epoch is chosen on
the test part). One generator is fitted on the clips that no seed tests (many seeds test nearly all clips, so `--share 5` fits one
for each five seeds, on what those do not test); for each seed clips are made from its training part, and `cnn` is trained without and with them, for equal steps: as many as 50 epochs of the real clips take. With `--own-epochs` a mix has
50 epochs of its own, as published, so that with synthetic clips half as many steps again are taken: runs in a folder of their own.
What is in `--work` already is not made again. `--only 3` does seed 3 alone, so that several processes can share a machine, once
`--only fit` has fitted the generators (`--only fit5` that of seed 5 alone); `--only results` compares what has been trained.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from usk.classify.config import TrainConfig
from usk.classify.registry import preset
from usk.classify.train import train
from usk.data.decode import decode_source
from usk.data.open import open_source
from usk.data.source import Source
from usk.data.splits import seed_9010_split
from usk.diffusion.fit import FitConfig, fit
from usk.evaluate.compare import compare_runs
from usk.runs import read_runs
from usk.synth.settings import SynthConfig, render_config
from usk.synth.synthesize import synthesize

SAVED = (
    "seeds",
    "strategies",
    "per_class",
    "classifier",
    "own_epochs",
    "share",
)  # options in --json, beside the generators'


def untested(source: Source, seeds: Iterable[int]) -> Source:
    """The clips that none of these seeds tests."""
    tested = {row for seed in seeds for row in seed_9010_split(source.clips, seed).test.tolist()}
    return source.subset(row for row in range(len(source)) if row not in tested)


def sharing(seed: int, seeds: int, share: int | None) -> range:
    """The seeds, among the first `seeds`, that have their generator in common with this one: `share` each, or all."""
    share = share or seeds
    first = seed // share * share
    return range(first, min(first + share, seeds))


def generator_of(group: range) -> str:
    """The folder of the generator of these seeds, and of no more."""
    return f"generator{group.start}-{group.stop - 1}"


def own_length(epochs: int, n_real: int, n_made: int) -> int:
    """usk counts epochs by the real clips: how many are `epochs` of these with `n_made` others."""
    return round(epochs * (n_real + n_made) / n_real)


def run_seed(
    source: Source,
    work: Path,
    runs: Path,
    seed: int,
    per_class: int,
    strategies: Sequence[str],
    config: TrainConfig,
    own_epochs: bool,
    generator: str,
) -> None:
    """The clips of one seed that `work` does not hold yet, and its classifiers that `runs` does not."""
    folder = work / f"seed{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    training = source.subset(seed_9010_split(source.clips, seed).train)
    os.chdir(folder)  # a mix names its clips by their folder here, the same for every seed
    usual = config.epochs or preset(config.classifier).epochs
    epochs = {"real": usual}
    for strategy in strategies:
        made = SynthConfig(per_class, seed=seed, render=render_config(strategy=strategy))
        n_made = len(synthesize(training, strategy, made, model=str(work / generator)).plan)
        epochs[f"real,{strategy}"] = own_length(usual, len(training), n_made) if own_epochs else usual
    for n in sorted(set(epochs.values())):
        alike = [mix for mix, of_mix in epochs.items() if of_mix == n]
        train(source, alike, out=runs, config=replace(config, seed=seed, epochs=n))
    print(f"seed {seed}: trained", file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--real", default="demo")
    parser.add_argument("--work", type=Path, required=True, help="folder of generator, clips and runs")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--share", type=int, help="seeds that share a generator; all of them by default")
    parser.add_argument("--only", help="fit, fit and the number of a seed, the number of a seed, or results")
    parser.add_argument("--strategies", default="decomposed,waveform")
    parser.add_argument("--per-class", type=int, default=100)
    parser.add_argument("--classifier", default="cnn")
    parser.add_argument("--epochs", type=int)
    parser.add_argument(
        "--own-epochs", action="store_true", help="as published: epochs of all clips of a mix"
    )
    parser.add_argument("--steps", type=int, default=4_000, help="of the generator")
    parser.add_argument("--minutes", type=float, help="for the generator, in place of --steps")
    parser.add_argument("--batch", type=int, default=16, help="of the generator")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    work, only = options.work.absolute(), options.only
    runs = work / ("runs_own_epochs" if options.own_epochs else "runs")
    strategies = [name for name in options.strategies.split(",") if name]
    fitting = FitConfig(
        steps=options.steps, minutes=options.minutes, batch=options.batch, class_conditional=True
    )
    source = open_source(str(Path(options.real).absolute()) if options.real != "demo" else options.real)
    decode_source(source)  # whole: the cache then has every seed's part
    groups = {seed: sharing(seed, options.seeds, options.share) for seed in range(options.seeds)}
    folders = {group: generator_of(group) for group in groups.values()}
    known = {"fit", "results", *(f"{what}{seed}" for seed in groups for what in ("", "fit"))}
    if only is not None and only not in known:
        parser.error(
            f"--only {only}: there are seeds 0 to {options.seeds - 1}, fit, fit and a seed, and results"
        )
    for group, name in folders.items():
        wanted = only in (None, "fit") or only in [f"fit{seed}" for seed in group]
        if wanted and not (work / name / "model_index.json").is_file():
            fit([untested(source, group)], work / name, fitting)
    if only is not None and only.startswith("fit"):
        return
    if only != "results":
        config = TrainConfig(options.classifier, protocol="seed-9010", epochs=options.epochs)
        for seed in range(options.seeds) if only is None else [int(only)]:
            made_by = folders[groups[seed]]
            run_seed(
                source, work, runs, seed, options.per_class, strategies, config, options.own_epochs, made_by
            )
    comparisons = compare_runs(runs)
    if options.json:
        generators = [json.loads((work / name / "training.json").read_text()) for name in folders.values()]
        for trained in generators:
            losses = [row["validation_loss"] for row in trained.pop("log")]
            trained["validation_loss"] = min((loss for loss in losses if loss is not None), default=None)
        result = {
            "options": {name: getattr(options, name) for name in SAVED},
            "device": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine(),
            "generators": generators,
            "runs": [
                {"mix": run.mix, "seed": run.seed, "steps": run.steps, "accuracy": run.accuracy}
                for run in read_runs(runs)
            ],
            "comparisons": [comparison.as_dict() for comparison in comparisons],
        }
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    for comparison in comparisons:
        table = Table(title=comparison.title)
        for column in ("trained on", "runs", "accuracy %", "to real clips"):
            table.add_column(column)
        for row in comparison.rows:
            table.add_row(row.mix, str(row.n_runs), f"{100 * row.accuracy.mean:.1f}", row.sentence)
        Console().print(table)


if __name__ == "__main__":
    main()
