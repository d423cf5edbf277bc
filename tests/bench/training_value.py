"""What each strategy's clips are worth in training, judged on validation recordings alone.

    python -m tests.bench.training_value --real UrbanSound8K --test-fold 2 --per-class 30 --seeds 2 --json FILE

The default classifier is trained on real and on real + synthetic clips of each setting, with equal steps and the same
seeds, and compared on the recordings held out for validation: they gave no parents, trained no generator and no
classifier (though they choose its epoch, for every mix alike). The test fold's predictions are not looked at: this
chooses defaults, `usk eval` then measures them once.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from usk.classify.train import SELECTION_WINDOW_EPOCHS, TrainConfig, train
from usk.data.sources import open_source
from usk.synth.settings import RenderConfig, render_config
from usk.synth.synthesize import SynthConfig, synthesize

CANDIDATES: dict[str, RenderConfig] = {
    "decomposed": render_config(strategy="decomposed"),
    "decomposed, guidance 2": render_config(strategy="decomposed", guidance=2.0),
    "corrected": render_config(strategy="corrected"),
    "variation": render_config(strategy="variation"),
    "variation 0.7, guidance 2": render_config(strategy="variation", level=0.7, guidance=2.0),
    "sample, guidance 2": render_config(strategy="sample", guidance=2.0),
    "published": render_config("published"),
}


def validation_accuracy(folder: Path) -> float:
    """The accuracy that chose the epoch: the best mean over a few consecutive epochs."""
    epochs = json.loads((folder / "history.json").read_text())
    history = [epoch["validation_accuracy"] for epoch in epochs]
    window = SELECTION_WINDOW_EPOCHS
    return float(max(np.mean(history[max(0, end - window) : end]) for end in range(1, len(history) + 1)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--real", default="demo")
    parser.add_argument("--test-fold", type=int, default=2)
    parser.add_argument("--per-class", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--only", default="", help="candidates by name, joined by semicolons")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    names = [name for name in options.only.split(";") if name] or list(CANDIDATES)
    source = open_source(options.real)
    folds = tuple(fold for fold in source.folds if fold != options.test_fold)
    config = TrainConfig(folds=(options.test_fold,), seeds=options.seeds, epochs=options.epochs)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as work:
        for name in ["real alone", *names]:
            mix, synth = "real", None
            if name != "real alone":
                mix = "real,synth"
                made = Path(work) / name.replace(" ", "-")
                plan = SynthConfig(per_class=options.per_class, folds=folds, render=CANDIDATES[name])
                synth = str(synthesize(source, made, plan, model=options.model).folder)
            result = train(source, [mix], synth=synth, out=Path(work) / f"runs-{len(rows)}", config=config)
            scores = [validation_accuracy(run.folder) for run in result.runs]
            rows.append(
                {"clips": name, "mean": float(np.mean(scores)), "seeds": [round(s, 4) for s in scores]}
            )
            Console(stderr=True).print(rows[-1])
    table = Table(title=f"validation accuracy %, {options.seeds} seeds, {options.per_class} clips a class")
    for column in ("clips", "mean", "by seed"):
        table.add_column(column)
    for row in rows:
        seeds = "  ".join(f"{100 * score:.1f}" for score in row["seeds"])
        table.add_row(row["clips"], f"{100 * row['mean']:.1f}", seeds)
    Console().print(table)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
