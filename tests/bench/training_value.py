"""What each strategy's clips are worth in training, judged on validation recordings alone.

    python -m tests.bench.training_value --real UrbanSound8K --test-fold 2 --shots 100 --per-class 12 --seeds 4 --json FILE

For each seed the default classifier is trained on that many real clips, and on them with the clips that each setting
makes of those alone; with equal steps, the same seeds and the same classical augmentation. They are compared on the
recordings held out for validation: these gave no parents, trained no generator and no classifier (though they choose
its epoch, for every mix alike). The test fold's predictions are not looked at: this chooses defaults, `usk eval` then
measures them once. Differences to real clips alone are paired by seed; their spread is the standard error over seeds.
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
from usk.data.shots import parse_shots
from usk.data.sources import open_source
from usk.synth.few_shot import shots_cells, synthesize_shots
from usk.synth.settings import RenderConfig, render_config
from usk.synth.synthesize import SynthConfig

CANDIDATES: dict[str, RenderConfig] = {
    "waveform (control)": render_config(strategy="waveform"),
    "slerp": render_config(strategy="slerp", guidance=1.0),
    "variation": render_config(strategy="variation", guidance=1.0),
    "decomposed, guidance 2": render_config(strategy="decomposed", guidance=2.0),
    "corrected": render_config(strategy="corrected", guidance=1.0),
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
    parser.add_argument("--shots", default="100", help="a number of real clips, or full")
    parser.add_argument("--per-class", type=int, default=12)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--augment", default="auto")
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--only", default="", help="candidates by name, joined by semicolons")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    names = [name for name in options.only.split(";") if name] or list(CANDIDATES)
    source, fold = open_source(options.real), options.test_fold
    config = TrainConfig(
        folds=(fold,),
        seeds=options.seeds,
        shots=options.shots,
        epochs=options.epochs,
        augment=options.augment,
    )
    cells = shots_cells(source, parse_shots(options.shots), (fold,), options.seeds)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as work:
        for name in ["real alone", *names]:
            mix, synth = "real", None
            if name != "real alone":
                mix, synth = "real,synth", str(Path(work) / f"clips-{len(rows)}")
                plan = SynthConfig(per_class=options.per_class, render=CANDIDATES[name])
                synthesize_shots(source, synth, cells, plan, model=options.model)
            result = train(source, [mix], synth=synth, out=Path(work) / f"runs-{len(rows)}", config=config)
            scores = np.array([validation_accuracy(run.folder) for run in result.runs])
            gain = scores - (np.array(rows[0]["seeds"]) if rows else scores)
            rows.append(
                {
                    "clips": name,
                    "mean": round(float(scores.mean()), 4),
                    "gain": round(float(gain.mean()), 4),
                    "standard_error": round(float(gain.std(ddof=1) / len(gain) ** 0.5), 4)
                    if len(gain) > 1
                    else None,
                    "seeds": [round(float(score), 4) for score in scores],
                }
            )
            Console(stderr=True).print(rows[-1])
            if options.json:
                settings = {key: value for key, value in vars(options).items() if key not in ("json", "real")}
                options.json.write_text(json.dumps({**settings, "rows": rows}, indent=1) + "\n")
    table = Table(
        title=f"validation accuracy %: {options.shots} real clips, {options.per_class} made a class, {options.seeds} seeds"
    )
    for column in ("clips", "mean", "gain in points", "by seed"):
        table.add_column(column)
    for row in rows:
        seeds = "  ".join(f"{100 * score:.1f}" for score in row["seeds"])
        spread = f" ± {100 * row['standard_error']:.1f}" if row["standard_error"] is not None else ""
        table.add_row(row["clips"], f"{100 * row['mean']:.1f}", f"{100 * row['gain']:+.1f}{spread}", seeds)
    Console().print(table)


if __name__ == "__main__":
    main()
