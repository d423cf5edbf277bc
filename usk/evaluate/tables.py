"""Build the tables of a comparison, for the terminal, the HTML report and cards.

Accuracies, F1 and recalls are in per cent, differences in percentage points (pp).
"""

from __future__ import annotations

from collections.abc import Sequence

from usk.evaluate.compare import ClassRow, Comparison, MixRow
from usk.evaluate.stats import MeanInterval
from usk.evaluate.verdict import format_interval
from usk.tables import Column, Table

P_VALUE = "pp: percentage points. p value: the larger of the exact test's and the interval's, corrected for the mixes compared (Holm)"


def comparison_tables(comparison: Comparison) -> list[Table]:
    """Return the tables of mixes, chosen augmentations and recall by class, without empty ones."""
    tables = [mix_table(comparison), choice_table(comparison), recall_table(comparison)]
    return [table for table in tables if table.rows]


def mix_table(comparison: Comparison) -> Table:
    columns = (*_mix_columns(comparison.baseline), Column("p value", numeric=True, priority=4))
    notes = [comparison.warning] if comparison.warning else []
    if any(row.p_value_holm is not None for row in comparison.rows):
        notes.append(P_VALUE)
    table = Table(comparison.title, columns, notes=tuple(notes))
    for row in comparison.rows:
        table.add(*_mix_cells(row), "" if row.p_value_holm is None else f"{row.p_value_holm:.3g}")
    return table


def choice_table(comparison: Comparison) -> Table:
    """Return the table of the chosen augmentation of each mix. It is empty if the comparison has no choices."""
    names = list(dict.fromkeys(name for choice in comparison.choices for name in choice.validation_accuracy))
    columns = (Column("mix"), Column("chosen"), *(Column(name, numeric=True) for name in names))
    table = Table("augmentations chosen on validation clips, by validation accuracy, %", columns)
    for choice in comparison.choices:
        scores = (choice.validation_accuracy.get(name) for name in names)
        table.add(
            choice.mix, choice.augment, *("" if score is None else f"{100 * score:.1f}" for score in scores)
        )
    return table


def recall_table(comparison: Comparison) -> Table:
    """Return the table of each mix's recall by class, and its difference from the baseline's."""
    mixes = [row.mix for row in comparison.rows]
    difference = f", and pp vs {comparison.baseline}" if len(mixes) > 1 else ""
    numbers = (Column(name, numeric=True) for name in ("test clips", *mixes))
    table = Table(f"recall by class, %{difference}", (Column("class"), *numbers), n_repeated=3)
    for row in comparison.classes:
        table.add(row.class_name, row.support, *(_recall(row, mix) for mix in mixes))
    return table


def train_clips_tables(comparisons: Sequence[Comparison]) -> list[Table]:
    """Return a table for each setting with several numbers of train clips."""
    by_setting: dict[str, list[Comparison]] = {}
    for comparison in comparisons:
        by_setting.setdefault(comparison.setting, []).append(comparison)
    return [
        _train_clips_table(setting, members) for setting, members in by_setting.items() if len(members) > 1
    ]


def _train_clips_table(setting: str, comparisons: Sequence[Comparison]) -> Table:
    unpaired = dict.fromkeys(row.mix for one in comparisons for row in one.rows if row.n_unpaired)
    note = f"{'; '.join(unpaired)}: means over other folds or seeds than the baseline's, see the differences"
    columns = (Column("train clips", numeric=True), *_mix_columns(comparisons[0].baseline))
    table = Table(f"by train clips: {setting}", columns, notes=(note,) if unpaired else ())
    for comparison in comparisons:
        for row in comparison.rows:
            table.add("all" if comparison.train_clips is None else comparison.train_clips, *_mix_cells(row))
    return table


def _mix_columns(baseline: str) -> tuple[Column, ...]:
    """Return the columns that `_mix_cells` fills."""
    return (
        Column("mix"),
        Column("runs", numeric=True, priority=5),
        Column("real", numeric=True, priority=1),
        Column("synth", numeric=True, priority=2),
        Column("accuracy %", numeric=True),
        Column("macro F1 %", numeric=True, priority=6),
        Column(f"pp vs {baseline}", numeric=True),
        Column("95 % interval", numeric=True),
        Column("pairs up", numeric=True, priority=3),
    )


def _mix_cells(row: MixRow) -> tuple[str, ...]:
    difference = row.difference
    return (
        row.mix,
        f"{row.n_runs}",
        f"{row.n_real:,}",
        f"{row.n_synthetic:,}",
        _with_interval(row.accuracy),
        _with_interval(row.macro_f1),
        "" if difference is None else f"{difference.difference_points:+z.1f}",
        "" if difference is None else format_interval(difference),
        f"{row.pairs_up}/{row.pairs}" if row.pairs else "",
    )


def _with_interval(interval: MeanInterval) -> str:
    spread = "" if interval.half_width is None else f" ± {100 * interval.half_width:.1f}"
    return f"{100 * interval.mean:.1f}{spread}"


def _recall(row: ClassRow, mix: str) -> str:
    recall, points = row.recall[mix], row.difference_points.get(mix)
    text = "" if recall is None else f"{100 * recall:.1f}"
    return text if points is None else f"{text} {points:+z5.1f}"
