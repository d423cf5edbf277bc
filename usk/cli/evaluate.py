"""`usk eval`: compare every run under a folder."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from usk.cli.options import display_for

if TYPE_CHECKING:
    from usk.evaluate.study import Study


def command(
    ctx: typer.Context,
    runs: Annotated[str, typer.Argument(metavar="RUNS", help="Folder of the runs.")] = "runs",
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

    Choose seeds and folds before you look: with seeds added until clips help, useless ones seem to help.
    """
    display = display_for(ctx)
    from usk.cli.comparison import comparison_shown, next_command, strips_table
    from usk.evaluate.study import study_runs
    from usk.evaluate.tables import train_clips_tables

    studies = study_runs(runs, baseline)
    comparisons = [study.comparison for study in studies]
    if save is not None:
        _save(save, runs, studies)
    display.result(
        [comparison.as_dict() for comparison in comparisons],
        *train_clips_tables(comparisons),
        *(strips_table(study) for study in studies if display.draws),
        *(
            shown
            for comparison in comparisons
            for shown in comparison_shown(comparison, *next_command(comparison, runs))
        ),
    )


def _save(dataset: Path, runs: str, studies: Sequence[Study]) -> None:
    """Show in the dataset's card what studies say of it."""
    from usk.data.open import open_source
    from usk.errors import UsageError
    from usk.evaluate.card import study_section
    from usk.evaluate.compare import is_about
    from usk.evaluate.study import sweeps_by_train_clips
    from usk.report.charts import accuracy_chart, train_clips_charts
    from usk.synth.card import save_study

    revision = open_source(dataset, field="save").revision
    about_it = [study for study in studies if is_about(study.comparison, revision)]
    if not about_it:
        raise UsageError(
            f"no run in {runs} was trained on it beside another mix",
            field="save",
            value=str(dataset),
            hint=f"Train some first: usk train --mix real,synth --synth {dataset}",
        )
    chart, *_ = [*train_clips_charts(sweeps_by_train_clips(about_it)), accuracy_chart(about_it[0])]
    sections = [study_section(study.comparison, revision) for study in about_it]
    save_study(dataset, sections, partial(chart.png, field="save"))
