"""`usk demo`: make clips, train and compare on the demo corpus with the embedded generator, offline."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import typer

from usk.cli.options import display_for

TEST_FOLD = 2  # the embedded generator was trained on folds 1 and 3
PER_CLASS, EPOCHS = 6, 10


def command(ctx: typer.Context) -> None:
    """Run the whole job offline on built-in sounds: make clips, train with and without them, compare.

    All that it makes lies in the folder usk-demo.
    """
    display = display_for(ctx)
    from usk.classify.config import TrainConfig
    from usk.classify.train import train
    from usk.cli.comparison import comparison_output
    from usk.cli.display import plan_table
    from usk.data.open import open_source
    from usk.diffusion.pipeline import EMBEDDED
    from usk.evaluate.compare import compare_runs
    from usk.report.page import ReportConfig, report
    from usk.synth.settings import SynthConfig, render_configs
    from usk.synth.synthesize import synthesize

    root = Path("usk-demo")
    real = open_source("demo")
    for note in real.notes:
        display.warn(note)
    made = synthesize(
        real,
        root / "synth",
        # Clips of `sample` would be street sounds, unlike the computed ones
        SynthConfig(
            per_class=PER_CLASS, test_folds=(TEST_FOLD,), render=render_configs(strategy="decomposed")
        ),
        model=EMBEDDED,
        reporter=display,
    )
    config = TrainConfig(test_folds=(TEST_FOLD,), seeds=1, epochs=EPOCHS, augment="basic")  # for few steps
    train(real, "real,synth", synth=made.folder, out=root / "runs", config=config, reporter=display)
    comparisons = compare_runs(root / "runs")
    page = report(
        root / "report.html",
        ReportConfig(runs=str(root / "runs"), synth=str(root / "synth"), audit=False),
        real=real,
        reporter=display,
    )
    usk = "usk" if shutil.which("usk") or not sys.argv[0].endswith("/usk") else sys.argv[0]
    display.result(
        {
            "synth": str(made.folder),
            "runs": str(root / "runs"),
            "report": str(page.file),
            "made": made.n_made,
            "comparisons": [comparison.as_dict() for comparison in comparisons],
        },
        plan_table(made.plan.counts(), f"{len(made.plan)} synthetic clips in {made.folder}"),
        *(shown for comparison in comparisons for shown in comparison_output(comparison)),
        f"What you see: usk made {len(made.plan)} clips from pairs of computed sounds, trained a classifier with and without "
        "them, and compared the two. One seed on such sounds shows how the parts fit together, not whether clips help.",
        f"Look and listen: open {page.file} in a browser. Then try your own folder, one sub-folder for each class:",
        f"  {usk} synth --real FOLDER --per-class 50\n  {usk} train --real FOLDER --mix real,synth\n  {usk} eval",
    )
