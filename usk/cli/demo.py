"""`usk demo`: the whole job on the demo corpus with the embedded generator, offline."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from usk.cli.options import DeviceOption, display_for

TEST_FOLD = 2  # the embedded generator has heard folds 1 and 3


def command(
    ctx: typer.Context,
    out: Annotated[str, typer.Option("--out", help="Folder for the dataset and the runs.")] = "usk-demo",
    per_class: Annotated[int, typer.Option("--per-class", help="Synthetic clips of each class.")] = 6,
    epochs: Annotated[int, typer.Option("--epochs", help="Epochs of each run.")] = 10,
    device: DeviceOption = "auto",
) -> None:
    """Synthesize, train on real and on real + synthetic clips, and compare: offline, on procedural sound."""
    display = display_for(ctx)
    from usk.classify.config import TrainConfig
    from usk.classify.train import train
    from usk.cli.comparison import comparison_shown
    from usk.cli.display import plan_table
    from usk.data.open import open_source
    from usk.diffusion.pipeline import EMBEDDED
    from usk.errors import UsageError
    from usk.evaluate.compare import compare_runs
    from usk.synth.settings import SynthConfig
    from usk.synth.synthesize import synthesize

    if epochs < 1:
        raise UsageError(f"--epochs must be at least 1, not {epochs}")  # before any clip is made
    root = Path(out)
    real = open_source("demo")
    for note in real.notes:
        display.warn(note)
    made = synthesize(
        real,
        root / "synth",
        SynthConfig(per_class=per_class, test_folds=(TEST_FOLD,)),
        model=EMBEDDED,
        device=device,
        reporter=display,
    )
    config = TrainConfig(test_folds=(TEST_FOLD,), seeds=1, epochs=epochs, device=device)
    train(real, "real,synth", synth=made.folder, out=root / "runs", config=config, reporter=display)
    comparisons = compare_runs(root / "runs")
    display.result(
        {
            "synth": str(made.folder),
            "runs": str(root / "runs"),
            "made": made.n_made,
            "comparisons": [comparison.as_dict() for comparison in comparisons],
        },
        plan_table(made.plan.counts(), f"{len(made.plan)} synthetic clips in {made.folder}"),
        *(shown for comparison in comparisons for shown in comparison_shown(comparison)),
        "One seed on procedural sound: this shows how the parts fit, not whether synthetic clips help. With real clips:",
        "  usk synth --real UrbanSound8K --per-class 100\n"
        "  usk train --real UrbanSound8K --mix real,synth\n"
        "  usk eval",
        f"To look and listen: usk report {root / 'runs'} --synth {root / 'synth'}",
    )
