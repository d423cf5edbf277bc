"""Draw the charts of a comparison."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from usk.report.canvas import Chart, Palette, format_percent, format_points, shorten
from usk.report.heat import matrices_svg
from usk.report.line_charts import curve_chart, sweep_chart
from usk.tables import Table, columns

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from usk.evaluate.details import ComparisonDetails, TrainClipsSweep


@dataclass(frozen=True)
class _Dots:
    """One row of a dot chart: values, their mean, and the bounds of an interval if there is one."""

    name: str
    series: int  # number of its color
    values: list[float]
    mean: float
    interval: list[float]

    def draw(self, axes: Axes, palette: Palette, row: int) -> None:
        """Draw a dot for each value, a stroke at their mean, and a bar over the interval."""
        color = palette.series_color(self.series)
        bar = [row] * len(self.interval)
        axes.plot(self.interval, bar, color=color, lw=7, alpha=0.28, solid_capstyle="round")
        heights = row + (np.linspace(-0.16, 0.16, len(self.values)) if len(self.values) > 1 else np.zeros(1))
        axes.scatter(
            self.values, heights, s=26, color=color, edgecolor=palette.surface, linewidth=0.7, zorder=3
        )
        axes.plot([self.mean] * 2, [row - 0.26, row + 0.26], color=color, lw=2.4, zorder=4)


def _dot_chart(rows: Sequence[_Dots], label: str, min_span: float, percent: bool = False) -> dict[str, Any]:
    """Return `draw` and `height_in` of a chart with a row for each of `rows`. Its axis spans at least `min_span`; it ends at 100 for
    `percent`, and otherwise has a line at 0."""

    def draw(figure: Figure, palette: Palette, narrow: bool) -> None:
        axes = figure.add_subplot()
        _set_up_rows(axes, palette, [row.name for row in rows], narrow)
        if not percent:
            axes.axvline(0, color=palette.muted, lw=1.2)
        for number, row in enumerate(rows):
            row.draw(axes, palette, number)
        low, high = axes.get_xlim()
        low, high = min(low, (low + high - min_span) / 2), max(high, (low + high + min_span) / 2)
        end = min(high, (100.0 if percent else np.inf) + 0.02 * min_span)
        axes.set_xlim(min(low, end - min_span), end)
        axes.set_xlabel(label)

    return {"draw": draw, "height_in": lambda narrow: 0.75 + len(rows) * (0.72 if narrow else 0.5)}


def _set_up_rows(axes: Axes, palette: Palette, names: Sequence[str], narrow: bool) -> None:
    """Set up an axis with a row for each name. In a narrow chart names are above their rows."""
    _frame_rows(axes, len(names))
    if narrow:
        axes.set_yticks([])
        for row, name in enumerate(names):
            axes.annotate(
                shorten(name, 40), (0, row - 0.36), xycoords=("axes fraction", "data"), fontsize=10.5,
                color=palette.ink, va="center",
            )  # fmt: skip
    else:
        axes.set_yticks(range(len(names)), [shorten(name) for name in names])


def _frame_rows(axes: Axes, count: int) -> None:
    """Make room for rows from top to bottom, with grid lines across them alone."""
    axes.set_ylim(count - 0.4, -0.6)
    axes.grid(axis="x")
    axes.spines["left"].set_visible(False)
    axes.tick_params(length=0)


def _bounds(low: float | None, high: float | None) -> list[float]:
    return [bound for bound in (low, high) if bound is not None]


def accuracy_chart(details: ComparisonDetails) -> Chart:
    """Draw every run as a dot, and the mean of each mix with its interval."""
    rows = details.comparison.rows
    dots = []
    for number, row in enumerate(rows):
        values = [100 * run.accuracy for run in details.runs if run.mix == row.mix]
        interval = [100 * bound for bound in _bounds(row.accuracy.low, row.accuracy.high)]
        dots.append(_Dots(row.mix, number, values, 100 * row.accuracy.mean, interval))
    paired = [row for row in rows if not row.n_unpaired] or rows  # means over the same folds and seeds
    highest = format_percent(max(row.accuracy.mean for row in paired))
    best = " and ".join(row.mix for row in paired if format_percent(row.accuracy.mean) == highest)
    accuracies = ", ".join(
        f"{row.mix} {format_percent(row.accuracy.mean)} %"
        + ("" if row.accuracy.half_width is None else f" ± {format_percent(row.accuracy.half_width)}")
        for row in rows
    )
    return Chart(
        name="accuracy",
        title="Accuracy of each mix",
        caption="A dot is one run (fold and seed), the stroke is the mean, the bar its 95 % interval over runs.",
        description=f"Accuracy by mix: {accuracies}. The highest mean is that of {best}.",
        table=Table(
            "Every run",
            columns("mix", "split", numbers=("seed", "accuracy %", "macro F1 %", "real clips", "synthetic")),
            [
                (run.mix, run.split, str(run.seed), format_percent(run.accuracy), format_percent(run.macro_f1), f"{run.n_real:,}",
                 f"{run.n_synthetic:,}")
                for run in details.runs
            ],
        ),
        **_dot_chart(dots, "test accuracy, %", min_span=5.0, percent=True),
    )  # fmt: skip


def difference_chart(details: ComparisonDetails) -> Chart | None:
    """Draw every pair's difference from the baseline as a dot, and the mean of each mix. Return None without pairs."""
    baseline, dots, sentences = details.comparison.baseline, [], []
    for number, row in enumerate(details.comparison.rows):
        if (difference := row.difference) is not None:
            values = [points for run, points in details.pairs if run.mix == row.mix]
            interval = _bounds(difference.low_points, difference.high_points)
            dots.append(_Dots(row.mix, number, values, difference.difference_points, interval))
            sentences.append(f"{row.mix}: {row.sentence}.")
    if not dots:
        return None
    return Chart(
        name="difference",
        title=f"Difference to {baseline}",
        caption="A dot is one pair: both mixes trained with the same fold and seed, tested on the same clips. The bar is the "
        "95 % interval; where it covers 0, no difference is shown.",
        description=" ".join(sentences),
        table=Table(
            "Every pair",
            columns("mix", "split", numbers=("seed", f"difference to {baseline}")),
            [(run.mix, run.split, str(run.seed), format_points(points)) for run, points in details.pairs],
        ),
        **_dot_chart(
            dots, f"difference in accuracy to {shorten(baseline, 30)}, percentage points", min_span=2.0
        ),
    )


def class_chart(details: ComparisonDetails, mix: str) -> Chart | None:
    """Draw a mix's difference in recall from the baseline by class, sorted. Return None without pairs."""
    baseline = details.comparison.baseline
    changes = [
        (points, number, row)
        for number, row in enumerate(details.comparison.classes)
        if (points := row.difference_points.get(mix)) is not None
    ]
    if not changes:
        return None
    changes.sort(key=lambda change: -change[0])
    values = [points for points, _, _ in changes]

    def draw(figure: Figure, palette: Palette, narrow: bool) -> None:
        axes = figure.add_subplot()
        colors = [palette.up if value >= 0 else palette.down for value in values]
        bars = axes.barh(range(len(values)), values, height=0.62, color=colors)
        for (_, number, _), bar in zip(changes, bars, strict=True):
            bar.set_gid(f"open-{number}-{number}")
        axes.axvline(0, color=palette.muted, lw=1.2)
        low, high = min(0.0, *values), max(0.0, *values)
        room = 0.22 * max(4.0, high - low)  # for the numbers at the bars' ends
        axes.set_xlim(low - 1.25 * room, high + room)
        names = [shorten(row.class_name, 16 if narrow else 22) for _, _, row in changes]
        axes.set_yticks(range(len(values)), names)
        for place, value in enumerate(values):
            axes.annotate(format_points(value), (value, place), (4 if value >= 0 else -4, 0),
                          textcoords="offset points", ha="left" if value >= 0 else "right", va="center",
                          color=palette.ink, fontsize=9.5)  # fmt: skip
        _frame_rows(axes, len(values))
        axes.locator_params(axis="x", nbins=5)
        axes.set_xlabel(f"recall, points above {shorten(baseline, 12)}")

    up = ", ".join(row.class_name for points, _, row in changes if points > 0)
    down = ", ".join(row.class_name for points, _, row in changes if points < 0)
    moved = [f"{where} for {names}" for where, names in (("higher", up), ("lower", down)) if names]
    return Chart(
        name=f"classes-{mix}",
        title=f"Where {mix} helps, and where it hurts",
        caption="Recall by class over all pairs. Single classes rest on few recordings: read them as hints.",
        description=f"Recall is {', '.join(moved) or 'the same for every class'}.",
        table=Table(
            "Recall by class",
            columns("class", numbers=("test clips", f"{baseline} %", f"{mix} %", "difference")),
            [
                (row.class_name, str(row.support), format_percent(row.recall.get(baseline)), format_percent(row.recall.get(mix)),
                 format_points(points))
                for points, _, row in changes
            ],
        ),
        draw=draw,
        height_in=lambda narrow: 0.8 + 0.3 * len(changes),
        half=True,
        mix=mix,
    )  # fmt: skip


def confusion_chart(details: ComparisonDetails, mix: str) -> Chart:
    """Draw the confusion matrices of the baseline and of the mix, and their difference."""
    baseline = details.comparison.baseline
    names = [row.class_name for row in details.comparison.classes]
    first, second = details.confusion_matrix(baseline), details.confusion_matrix(mix)
    change = second - first
    panels = ((baseline, first, False), (mix, second, False), (f"{mix} minus {baseline}", change, True))
    confusions = [(change[i, j], names[i], names[j]) for i, j in np.argwhere(abs(change) > 5e-4) if i != j]
    largest = sorted(confusions, key=lambda confusion: -abs(confusion[0]))[:12]
    changes = "; ".join(
        f"{true} predicted as {other} {format_points(100 * value)} points"
        for value, true, other in largest[:3]
    )
    return Chart(
        name=f"confusion-{mix}",
        title=f"Confusion matrix: {baseline}, {mix}, and the difference",
        caption="Rows are the true class, columns the predicted one, in per cent of a class's test clips over all runs; the "
        "difference is in percentage points. Numbers below 1 are left out.",
        description=f"The confusions that changed most: {changes or 'none'}.",
        table=Table(
            "What changed most",
            columns("true class", "predicted", numbers=("change in percentage points",)),
            [(true, other, format_points(100 * value)) for value, true, other in largest],
        ),
        mix=mix,
        markup=lambda narrow: matrices_svg(
            [(shorten(title, 40 if narrow else 32), values, signed) for title, values, signed in panels], names, narrow
        ),
    )  # fmt: skip


def comparison_charts(details: ComparisonDetails) -> list[Chart]:
    """Return all charts of a comparison, the most important first."""
    others = [row.mix for row in details.comparison.rows if not row.is_baseline]
    charts: list[Chart | None] = [accuracy_chart(details), difference_chart(details)]
    charts += [class_chart(details, mix) for mix in others]
    charts += [confusion_chart(details, mix) for mix in others]
    charts += [curve_chart(details, metric) for metric in ("validation_accuracy", "loss")]
    return [chart for chart in charts if chart is not None]


def train_clips_charts(sweeps: Sequence[TrainClipsSweep]) -> list[Chart]:
    """Return a chart for each sweep."""
    charts = [sweep_chart(sweep.points) for sweep in sweeps]
    return [
        replace(
            chart,
            name="train_clips" if len(charts) == 1 else f"train_clips-{number}",
            caption=f"Each mix trained on more and more real clips. {chart.caption}",
        )
        for number, chart in enumerate(charts, 1)
    ]
