"""`usk eval`: compare every run under a folder."""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from usk.cli.options import display_for


def command(
    ctx: typer.Context,
    runs: Annotated[str, typer.Argument(metavar="[RUNS]", help="Folder of the runs.")] = "runs",
    baseline: Annotated[
        str | None,
        typer.Option("--baseline", help="Mix that the others are compared with. \\[default: real]"),
    ] = None,
    save: Annotated[
        Path | None,
        typer.Option(
            "--save",
            metavar="DATASET",
            help="Show what the runs say of this synthetic dataset in its card, with a chart.",
        ),
    ] = None,
) -> None:
    """Compare mixes: accuracy and macro F1 with intervals, paired differences, recall by class.

    The p values hold for seeds and folds fixed before: adding seeds until clips help finds so too often.
    """
    display = display_for(ctx)
    from usk.cli.display import comparison_tables, strips_table, train_clips_tables
    from usk.evaluate.compare import compare_runs

    comparisons = compare_runs(runs, baseline)
    if save is not None:
        _save(save, runs, baseline)
    drawn = []
    if display.draws:
        from usk.evaluate.study import study_runs

        drawn = [strips_table(study) for study in study_runs(runs, baseline)]
    display.result(
        [comparison.as_dict() for comparison in comparisons],
        *train_clips_tables(comparisons, display.out.width),
        *(shown for comparison in comparisons for shown in comparison_tables(comparison, display.out.width)),
        *drawn,
    )


def _save(dataset: Path, runs: str, baseline: str | None) -> None:
    from usk.data.open import open_source
    from usk.errors import UsageError
    from usk.evaluate.card import study_sections
    from usk.evaluate.study import studies_of, sweeps_by_train_clips
    from usk.report.charts import accuracy_chart, train_clips_charts
    from usk.runs import read_runs
    from usk.synth.card import save_study

    revision = open_source(dataset, flag="--save").revision
    studies = studies_of(revision, runs, baseline)
    if not studies:
        raise UsageError(
            f"--save {dataset}: no run in {runs} was trained on it beside another mix; train some first: "
            f"usk train --mix real --mix real,synth --synth {dataset}"
        )
    chart, *_ = [*train_clips_charts(sweeps_by_train_clips(studies)), accuracy_chart(studies[0])]
    on_it = {run.folder.name for run in read_runs(runs) if revision in run.revisions}
    here = [Counter(run.mix for run in study.runs if run.name in on_it) for study in studies]
    sections = study_sections([study.comparison.as_dict() for study in studies], here)
    save_study(dataset, sections, partial(chart.png, flag="--save"))
