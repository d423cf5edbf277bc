"""Classifiers and classical augmentations on folds that are never tested: what chooses the defaults.

    python -m tests.bench.classifiers --real UrbanSound8K --folds 1,3 --seeds 2 --json FILE

Each of the named pairs is trained on all folds but the last of `--folds` and tested on that one; no clip of any other fold
is opened, so that what is chosen here can be measured on those without bias. Beside the accuracy there stand seconds a run,
which are of the machine at that moment.

    python -m tests.bench.classifiers --real UrbanSound8K --folds 1,2,3 --rotate --pairs small:strong,medium:strong

tests each of the folds in turn instead: how good the classifiers are, which then must choose nothing.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from usk.classify.config import TrainConfig
from usk.classify.train import train
from usk.data.open import open_source
from usk.runs import read_run

PAIRS = (
    "small:none,small:shift+gain+mask,small:basic,small:basic+mixup,small:strong,resnet:basic,sb-cnn:basic"
)


def _mean(accuracies: dict[str, list[float]]) -> float:
    """Over folds, each by its seeds' mean."""
    return float(np.mean([np.mean(of_fold) for of_fold in accuracies.values()]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--real", default="demo")
    parser.add_argument("--folds", default="1,3")
    parser.add_argument("--rotate", action="store_true", help="test each of the folds, trained on the others")
    parser.add_argument("--pairs", default=PAIRS, help="CLASSIFIER:AUGMENT, joined by commas")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    folds = tuple(int(fold) for fold in options.folds.split(","))
    tested = folds if options.rotate else folds[-1:]
    source = open_source(options.real).select(folds=folds)
    rows = []
    with tempfile.TemporaryDirectory() as out:
        for pair in options.pairs.split(","):
            classifier, _, augment = pair.partition(":")
            config = TrainConfig(
                classifier, test_folds=tested, seeds=options.seeds, epochs=options.epochs, augment=augment
            )
            runs = train(source, out=out, config=config).runs
            rows.append(
                {
                    "classifier": classifier,
                    "augment": augment,
                    "accuracies": {
                        str(fold): [
                            round(read_run(run.folder).accuracy, 4) for run in runs if run.fold == fold
                        ]
                        for fold in tested
                    },
                    "s_per_run": round(float(np.mean([run.took_s for run in runs])), 1),
                }
            )
            Console(stderr=True).print(rows[-1])
            if options.json:
                settings = {
                    "folds": folds,
                    "tested": tested,
                    "seeds": options.seeds,
                    "epochs": options.epochs,
                }
                options.json.write_text(json.dumps({**settings, "rows": rows}, indent=1) + "\n")
    where = "tested in turn" if options.rotate else f"the last of them tested: {folds[-1]}"
    table = Table(title=f"folds {', '.join(map(str, folds))}, {where}")
    for column in ("classifier", "augment", "accuracy %", *(f"fold {fold}" for fold in tested), "s a run"):
        table.add_column(column)
    for row in sorted(rows, key=lambda row: -_mean(row["accuracies"])):
        by_fold = [
            "  ".join(f"{100 * value:.1f}" for value in row["accuracies"][str(fold)]) for fold in tested
        ]
        mean = f"{100 * _mean(row['accuracies']):.1f}"
        table.add_row(row["classifier"], row["augment"], mean, *by_fold, f"{row['s_per_run']:.0f}")
    Console().print(table)


if __name__ == "__main__":
    main()
