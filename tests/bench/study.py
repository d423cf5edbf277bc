"""The study: real clips with and without the best classical augmentation, and on top of it clips made in several ways.

    python -m tests.bench.study tests/bench/study.toml --real UrbanSound8K --work DIR --workers 2 --json FILE --png FILE

The configuration names the train_clips (real clips in all), the seeds and clips for each, the test folds, the ways of making clips,
the mixes, and the augmentations of real clips alone and of the mixes; with several of them validation clips choose one for
each mix. Each seed draws its train_clips, synthesizes from those alone, and trains every mix with equal steps. Everything lands under `--work`, and
what is there already is not made again: an interrupted study goes on, a finished one can be widened, and `usk eval
DIR/runs` or `usk report` look at its runs as at any others. Each worker process keeps to one core (or to the GPU).
Several configurations can share a `--work`: each compares the mixes and test folds that it names.
`--only-results` compares what has been trained so far. `--json` writes comparisons without recall by class, and beside them
the same for each test fold alone, against the control that the configuration names, and against real clips alone of the next
size: whether clips are worth as much as collecting more.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import platform
import sys
import threading
import tomllib
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from usk.classify.train import TrainConfig, train
from usk.data.mix import parse_mix
from usk.data.open import open_source
from usk.evaluate.compare import Comparison, compare
from usk.evaluate.stats import Pair, exact_test, paired_bootstrap
from usk.evaluate.study import Study, sweeps_by_train_clips
from usk.evaluate.study import study as study_of
from usk.report.charts import train_clips_charts
from usk.runs import RunRecord, read_runs
from usk.synth.filter import FilterConfig
from usk.synth.settings import render_config
from usk.synth.subsets import TrainSubset, synthesize_subsets
from usk.synth.synthesize import SynthConfig


@dataclass(frozen=True)
class Config:
    """What the configuration says."""

    train_clips: tuple[int | None, ...]
    classifier: str
    mix_augments: tuple[str, ...]
    test_folds: dict[str, list[int]]  # by train_clips
    augments: dict[str, list[str]]  # by train_clips, of real clips alone
    mixes: dict[str, list[str]]  # by train_clips
    seeds: dict[str, int]  # by train_clips: how many, from `first_seed` on
    per_class: dict[str, int]  # by train_clips; a way of making clips may have its own
    clips: dict[str, dict[str, Any]]
    first_seed: int = 0
    epochs: int | None = None
    control: str | None = None  # the mix that shows what the same parents give without a generator
    model: str | dict[str, str] = "embedded"  # one, or by test fold; folders may be relative to --work

    @classmethod
    def read(cls, path: Path) -> Config:
        raw = tomllib.loads(path.read_text())
        train_clips = tuple(None if n == "full" else int(n) for n in raw.pop("train_clips"))
        listed = {"mix_augments": tuple(raw.pop("mix_augments"))}
        # A table by train_clips, or one value for all of them.
        for name in ("test_folds", "augments", "mixes", "seeds", "per_class"):
            if not isinstance(raw[name], dict):
                raw[name] = dict.fromkeys(map(_said, train_clips), raw[name])
        return cls(train_clips=train_clips, **listed, **raw)

    def model_for(self, test_fold: int) -> str:
        """The generator, which must not have heard that fold."""
        return self.model if isinstance(self.model, str) else self.model[str(test_fold)]

    def names(self, run: RunRecord) -> bool:
        return (
            run.train_clips in self.train_clips
            and run.fold in self.test_folds[_said(run.train_clips)]
            and run.seed in self.seeds_of(run.train_clips)
            and run.mix in ("real", *self.mixes[_said(run.train_clips)])
        )

    def seeds_of(self, train_clips: int | None) -> range:
        return range(self.first_seed, self.first_seed + self.seeds[_said(train_clips)])

    def synth(self, name: str, train_clips: int | None) -> SynthConfig:
        """How the clips called `name` are made of that many real ones."""
        settings = dict(self.clips[name])
        clip_filter = FilterConfig(classifier=self.classifier) if settings.pop("clip_filter", False) else None
        per_class = settings.pop("per_class", self.per_class[_said(train_clips)])
        return SynthConfig(per_class, render=render_config(**settings), clip_filter=clip_filter)


def _said(train_clips: int | None) -> str:
    return "full" if train_clips is None else str(train_clips)


def begin_worker(numbers: Any) -> None:
    """A worker keeps to a core of its own, and ends with the study."""
    threading.Thread(target=_end_with, args=(multiprocessing.parent_process(),), daemon=True).start()
    torch.set_num_threads(1)
    if not hasattr(os, "sched_setaffinity"):  # macOS and Windows place processes as they like
        return
    cores = sorted(os.sched_getaffinity(0))
    with numbers.get_lock():
        number, numbers.value = numbers.value, numbers.value + 1
    os.sched_setaffinity(0, {cores[number % len(cores)]})


def _end_with(parent: Any) -> None:
    parent.join()
    os._exit(1)


def work_on(study: Config, real: str, work: str, subset: TrainSubset) -> str:
    """Make the clips that the mixes of one subset (train_clips, test fold, seed) name, and train them all."""
    os.chdir(work)  # a mix names its clips by their folder here
    source = open_source(real)
    once = (
        subset.train_clips is None
    )  # `full` draws nothing: one dataset for all seeds, which the first makes
    mixes = study.mixes[_said(subset.train_clips)]
    for name in study.clips:
        if not any(name == part.name for mix in mixes for part in parse_mix(mix).parts):
            continue
        if once and subset.seed > study.first_seed:
            continue
        synthesize_subsets(
            source,
            name,
            [subset],
            study.synth(name, subset.train_clips),
            model=study.model_for(subset.test_fold),
        )
        print(f"{subset.name}, seed {subset.seed}: {name} made", file=sys.stderr, flush=True)
    for trained_on, augment in (
        (["real"], ",".join(study.augments[_said(subset.train_clips)])),
        (mixes, ",".join(study.mix_augments)),
    ):
        config = TrainConfig(
            study.classifier,
            folds=(subset.test_fold,),
            seed=subset.seed,
            train_clips=_said(subset.train_clips),
            epochs=study.epochs,
            augment=augment,
        )
        train(source, trained_on, out="runs", config=config)
    return f"{subset.name}, seed {subset.seed}: trained"


def run(study: Config, real: str, work: Path, workers: int) -> None:
    """Everything that `work` does not hold yet. `full` makes its clips once, so its other seeds wait for the first."""
    subsets = [
        TrainSubset(n, fold, seed)
        for n in study.train_clips
        for seed in study.seeds_of(n)  # what is interrupted has as many of each fold
        for fold in study.test_folds[_said(n)]
    ]
    first = [
        subset for subset in subsets if subset.train_clips is not None or subset.seed == study.first_seed
    ]
    numbers = multiprocessing.get_context("spawn").Value("i", 0)
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), begin_worker, (numbers,)) as pool:
        for wave in (first, [subset for subset in subsets if subset not in first]):
            waiting = [pool.submit(work_on, study, real, str(work), subset) for subset in wave]
            for done, future in enumerate(waiting, 1):
                print(f"{done}/{len(waiting)} {future.result()}", file=sys.stderr, flush=True)


def table_of(study: Config, comparisons: Sequence[Comparison]) -> Table:
    """A row a mix and augmentation, a column a number of train_clips: accuracy, and the difference to real clips with the same."""
    table = Table(
        title="accuracy %, and points above real clips with the same augmentation: 95 % interval, pairs up"
    )
    table.add_column("trained on")
    subsets: dict[tuple[str, str], str] = {}
    for comparison in comparisons:
        for row in comparison.rows:
            text = f"{100 * row.accuracy.mean:.1f}"
            if (found := row.difference) is not None:
                text += f"\n{found.difference_points:+z.1f}"
                if found.low_points is not None:
                    text += f" ({found.low_points:+.1f} to {found.high_points:+.1f})"
                text += f" {row.pairs_up}/{row.pairs}"
            subsets[f"{row.mix}, {comparison.augment}", _said(comparison.train_clips)] = text
    for name in [_said(train_clips) for train_clips in by_size(study.train_clips)]:
        table.add_column(f"{name} real")
    for mix in dict.fromkeys(mix for mix, _ in subsets):
        table.add_row(
            mix, *(subsets.get((mix, _said(train_clips)), "") for train_clips in by_size(study.train_clips))
        )
    return table


def by_size(train_clips: Sequence[int | None]) -> list[int | None]:
    """Ascending, the full training part last."""
    return sorted(train_clips, key=lambda n: float("inf") if n is None else n)


def validation_gains(study: Config, studies: Sequence[Study]) -> list[dict[str, Any]]:
    """What each mix was worth on validation recordings, which choose defaults where test clips may not: points above real
    clips with the same augmentation, the mean and its standard error over all subsets (augmentations, train_clips, folds, seeds)."""
    scores: dict[str, dict[tuple[Any, ...], float]] = {}
    for one in studies:
        if one.comparison.augment in study.mix_augments:
            for run in one.runs:
                subset = (one.comparison.augment, one.comparison.train_clips, run.split, run.seed)
                assert run.validation_accuracy is not None
                scores.setdefault(run.mix, {})[subset] = run.validation_accuracy
    rows = []
    for mix, of in scores.items():
        gains = [
            100 * (score - scores["real"][subset]) for subset, score in of.items() if subset in scores["real"]
        ]
        if mix != "real" and gains:
            error = float(np.std(gains, ddof=1) / len(gains) ** 0.5) if len(gains) > 1 else None
            rows.append(
                {
                    "mix": mix,
                    "gain_points": round(float(np.mean(gains)), 2),
                    "standard_error": None if error is None else round(error, 2),
                    "subsets": len(gains),
                    "cells_up": sum(gain > 0 for gain in gains),
                }
            )
    return sorted(rows, key=lambda row: -row["gain_points"])


def against_more_real(study: Config, runs: Sequence[RunRecord]) -> list[dict[str, Any]]:
    """Each mix, and real clips of the next size alone, against real clips of its size; and the mix against that next size."""
    kept = {
        (run.augment, run.train_clips, run.mix, *run.key): run
        for run in sorted(runs, key=lambda run: run.created)
        if run.augment in study.mix_augments
    }
    rows = []
    sizes = by_size(study.train_clips)
    for augment in study.mix_augments:
        for size, more in itertools.pairwise(sizes):
            mixes = dict.fromkeys(mix for a, n, mix, *_ in kept if (a, n) == (augment, size))
            for what, n, against in [
                ("real", more, size),
                *((mix, size, more) for mix in mixes if mix != "real"),
            ]:
                pairs = [
                    Pair(
                        split,
                        seed,
                        run.groups,
                        kept[augment, against, "real", split, seed].correct,
                        run.correct,
                    )
                    for (a, train_clips, mix, split, seed), run in kept.items()
                    if (a, train_clips, mix) == (augment, n, what)
                    and (augment, against, "real", split, seed) in kept
                ]
                if pairs:
                    found = {
                        "p_value_exact": exact_test(pairs),
                        "difference": asdict(paired_bootstrap(pairs)),
                    }
                    names = {
                        "mix": what,
                        "train_clips": _said(n),
                        "against_real": _said(against),
                        "augment": augment,
                    }
                    rows.append(names | found)
    return rows


def brief(comparison: Comparison) -> dict[str, Any]:
    """A comparison by its rows' accuracy and difference."""
    names = ("mix", "n_runs", "difference", "p_value_exact", "p_value", "p_value_holm", "sentence")
    rows = [
        {"accuracy": row["accuracy"]["mean"]} | {name: row[name] for name in names}
        for row in comparison.as_dict()["rows"]
    ]
    return {
        "train_clips": comparison.train_clips,
        "augment": comparison.augment,
        "baseline": comparison.baseline,
        "rows": rows,
    }


def as_json(
    study: Config,
    runs: Sequence[RunRecord],
    comparisons: Sequence[Comparison],
    validation: Sequence[dict[str, Any]],
) -> dict[str, Any]:
    """The configuration, and each comparison without what it says of single classes."""
    shown = []
    for comparison in comparisons:
        whole = comparison.as_dict()
        shown.append({key: value for key, value in whole.items() if key not in ("classes", "confusions")})
    augmented = [run for run in runs if run.augment in study.mix_augments]
    controlled = study.control and any(run.mix == study.control for run in augmented)
    return {
        "config": asdict(study),
        "machine": platform.machine(),
        "validation": list(validation),
        "comparisons": shown,
        "against_control": [brief(one) for one in compare(augmented, study.control)] if controlled else [],
        "against_more_real": against_more_real(study, runs),
        "by_fold": {
            fold: [brief(one) for one in compare(of_fold, "real")]
            for fold in sorted(set().union(*study.test_folds.values()))
            if (of_fold := [run for run in augmented if run.fold == fold])
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", type=Path)
    parser.add_argument("--real", default="demo")
    parser.add_argument("--work", type=Path, required=True, help="folder of the clips and the runs")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--only-results", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--png", type=Path)
    options = parser.parse_args()
    study = Config.read(options.config)
    real = options.real if options.real == "demo" else str(Path(options.real).absolute())
    options.work.mkdir(parents=True, exist_ok=True)
    if not options.only_results:
        run(study, real, options.work.absolute(), options.workers)
    runs = [run for run in read_runs(options.work / "runs") if study.names(run)]
    studies = study_of(runs, "real")
    comparisons = [one.comparison for one in studies]
    validation = validation_gains(study, studies)
    if options.json:
        options.json.write_text(json.dumps(as_json(study, runs, comparisons, validation), indent=1) + "\n")
    several = len(study.mix_augments) > 1  # else the chart has the one augmentation, real clips' included
    best = [one for one in studies if several and one.comparison.choices]
    augmented = best or [one for one in studies if one.comparison.augment in study.mix_augments]
    if options.png and (charts := train_clips_charts(sweeps_by_train_clips(augmented))):
        charts[0].png(options.png)
    Console(width=200).print(table_of(study, comparisons))
    table = Table(title="points above real clips alone on validation recordings, over all subsets")
    for column in ("trained on", "gain ± standard error", "subsets up"):
        table.add_column(column)
    for row in validation:
        spread = "" if row["standard_error"] is None else f" ± {row['standard_error']:.1f}"
        table.add_row(
            row["mix"], f"{row['gain_points']:+z.1f}{spread}", f"{row['cells_up']} of {row['subsets']}"
        )
    Console().print(table)
    for comparison in comparisons:
        for row in comparison.rows:
            if not row.is_baseline:
                setting = f"{_said(comparison.train_clips)} train_clips, {comparison.augment}"
                Console().print(f"{setting}, {row.mix}: {row.sentence}")


if __name__ == "__main__":
    main()
