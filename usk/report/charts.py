"""Draw the charts of a comparison."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from usk.report.canvas import Chart, Palette, format_percent, format_points, shorten
from usk.report.heat import matrices_svg
from usk.report.line_charts import curve_chart, sweep_chart
from usk.tables import Table, columns

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from usk.evaluate.details import ComparisonDetails, TrainClipsSweep


def _set_up_rows(axes: Axes, palette: Palette, names: Sequence[str], narrow: bool) -> None:
    """Set up an axis with a row for each name, from top to bottom. In a narrow chart names are above their rows."""
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(axis="x")
    axes.spines["left"].set_visible(False)
    axes.tick_params(length=0)
    if narrow:
        axes.set_yticks([])
        for row, name in enumerate(names):
            axes.annotate(
                shorten(name, 40), (0, row - 0.36), xycoords=("axes fraction", "data"), fontsize=10.5,
                color=palette.ink, va="center",
            )  # fmt: skip
    else:
        axes.set_yticks(range(len(names)), [shorten(name) for name in names])


def _draw_dots(
    axes: Axes,
    palette: Palette,
    number: int,
    row: int,
    values: Sequence[float],
    mean: float,
    interval: Sequence[float],
) -> None:
    """Draw a row of dots in color `number`, a stroke at their mean, and a bar over the interval unless it is empty."""
    color = palette.series_color(number)
    axes.plot(interval, [row] * len(interval), color=color, lw=7, alpha=0.28, solid_capstyle="round")
    heights = row + (np.linspace(-0.16, 0.16, len(values)) if len(values) > 1 else np.zeros(1))
    axes.scatter(values, heights, s=26, color=color, edgecolor=palette.surface, linewidth=0.7, zorder=3)
    axes.plot([mean] * 2, [row - 0.26, row + 0.26], color=color, lw=2.4, zorder=4)


def _widen(axes: Axes, min_span: float, top: float = np.inf) -> None:
    """Widen the horizontal axis to `min_span`, but not far beyond `top`."""
    low, high = axes.get_xlim()
    low, high = min(low, (low + high - min_span) / 2), max(high, (low + high + min_span) / 2)
    end = min(high, top + 0.02 * min_span)
    axes.set_xlim(min(low, end - min_span), end)


def _row_height(rows: int, narrow: bool) -> float:
    return 0.75 + rows * (0.72 if narrow else 0.5)


def accuracy_chart(details: ComparisonDetails) -> Chart:
    """Draw every run as a dot, and the mean of each mix with its interval."""
    rows = details.comparison.rows
    dots = {row.mix: [run for run in details.runs if run.mix == row.mix] for row in rows}

    def draw(figure: Figure, palette: Palette, narrow: bool) -> None:
        axes = figure.add_subplot()
        _set_up_rows(axes, palette, [row.mix for row in rows], narrow)
        for number, row in enumerate(rows):
            values = [100 * run.accuracy for run in dots[row.mix]]
            interval = [100 * end for end in (row.accuracy.low, row.accuracy.high) if end is not None]
            _draw_dots(axes, palette, number, number, values, 100 * row.accuracy.mean, interval)
        _widen(axes, 5.0, top=100.0)
        axes.set_xlabel("test accuracy, %")

    paired = [row for row in rows if not row.n_unpaired] or rows  # means over the same folds and seeds
    best = max(paired, key=lambda row: row.accuracy.mean)
    accuracies = ", ".join(
        f"{row.mix} {format_percent(row.accuracy.mean)} %"
        + ("" if row.accuracy.half_width is None else f" ± {format_percent(row.accuracy.half_width)}")
        for row in rows
    )
    return Chart(
        "accuracy",
        "Accuracy of each mix",
        "A dot is one run (fold and seed), the stroke is the mean, the bar its 95 % interval over runs.",
        f"Accuracy by mix: {accuracies}. The highest mean is that of {best.mix}.",
        Table(
            "Every run",
            columns("mix", "split", numbers=("seed", "accuracy %", "macro F1 %", "real clips", "synthetic")),
            [
                (run.mix, run.split, str(run.seed), format_percent(run.accuracy), format_percent(run.macro_f1), f"{run.n_real:,}",
                 f"{run.n_synthetic:,}")
                for run in details.runs
            ],
        ),
        draw,
        lambda narrow: _row_height(len(rows), narrow),
    )  # fmt: skip


def difference_chart(details: ComparisonDetails) -> Chart | None:
    """Draw every pair's difference from the baseline as a dot, and the mean of each mix. Return None without pairs."""
    rows = [row for row in details.comparison.rows if row.difference is not None]
    if not rows:
        return None
    order = {row.mix: number for number, row in enumerate(details.comparison.rows)}
    baseline = details.comparison.baseline

    def draw(figure: Figure, palette: Palette, narrow: bool) -> None:
        axes = figure.add_subplot()
        _set_up_rows(axes, palette, [row.mix for row in rows], narrow)
        axes.axvline(0, color=palette.muted, lw=1.2)
        for number, row in enumerate(rows):
            difference = row.difference
            assert difference is not None
            values = [points for run, points in details.pairs if run.mix == row.mix]
            interval = [end for end in (difference.low_points, difference.high_points) if end is not None]
            _draw_dots(axes, palette, order[row.mix], number, values, difference.difference_points, interval)
        _widen(axes, 2.0)
        axes.set_xlabel(f"difference in accuracy to {shorten(baseline, 30)}, percentage points")

    return Chart(
        "difference",
        f"Difference to {baseline}",
        "A dot is one pair: both mixes trained with the same fold and seed, tested on the same clips. The bar is the "
        "95 % interval; where it covers 0, no difference is shown.",
        " ".join(f"{row.mix}: {row.sentence}." for row in rows),
        Table(
            "Every pair",
            columns("mix", "split", numbers=("seed", f"difference to {baseline}")),
            [(run.mix, run.split, str(run.seed), format_points(points)) for run, points in details.pairs],
        ),
        draw,
        lambda narrow: _row_height(len(rows), narrow),
    )


def class_chart(details: ComparisonDetails, mix: str) -> Chart | None:
    """Draw a mix's difference in recall from the baseline by class, sorted. Return None without pairs."""
    baseline = details.comparison.baseline
    rows = sorted(
        (row for row in details.comparison.classes if row.difference_points.get(mix) is not None),
        key=lambda row: -(row.difference_points[mix] or 0.0),
    )
    if not rows:
        return None
    numbers = {row.class_name: number for number, row in enumerate(details.comparison.classes)}

    def draw(figure: Figure, palette: Palette, narrow: bool) -> None:
        axes = figure.add_subplot()
        values = [row.difference_points[mix] or 0.0 for row in rows]
        colors = [palette.up if value >= 0 else palette.down for value in values]
        for row, bar in zip(
            rows, axes.barh(range(len(rows)), values, height=0.62, color=colors), strict=True
        ):
            bar.set_gid(f"open-{numbers[row.class_name]}-{numbers[row.class_name]}")
        axes.axvline(0, color=palette.muted, lw=1.2)
        low, high = min(0.0, *values), max(0.0, *values)
        room = 0.22 * max(4.0, high - low)  # for the numbers at the bars' ends
        axes.set_xlim(low - 1.25 * room, high + room)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_yticks(range(len(rows)), [shorten(row.class_name, 16 if narrow else 22) for row in rows])
        for number, value in enumerate(values):
            axes.annotate(format_points(value), (value, number), (4 if value >= 0 else -4, 0),
                          textcoords="offset points", ha="left" if value >= 0 else "right", va="center",
                          color=palette.ink, fontsize=9.5)  # fmt: skip
        axes.grid(axis="x")
        axes.spines["left"].set_visible(False)
        axes.tick_params(length=0)
        axes.locator_params(axis="x", nbins=5)
        axes.set_xlabel(f"recall, points above {shorten(baseline, 12)}")

    up = [row.class_name for row in rows if (row.difference_points[mix] or 0) > 0]
    down = [row.class_name for row in rows if (row.difference_points[mix] or 0) < 0]
    return Chart(
        f"classes-{mix}",
        f"Where {mix} helps, and where it hurts",
        "Recall by class over all pairs. Single classes rest on few recordings: read them as hints.",
        f"Recall is higher for {', '.join(up) or 'no class'}, lower for {', '.join(down) or 'no class'}.",
        Table(
            "Recall by class",
            columns("class", numbers=("test clips", f"{baseline} %", f"{mix} %", "difference")),
            [
                (row.class_name, str(row.support), format_percent(row.recall.get(baseline)), format_percent(row.recall.get(mix)),
                 format_points(row.difference_points[mix]))
                for row in rows
            ],
        ),
        draw,
        lambda narrow: 0.8 + 0.3 * len(rows),
        half=True,
        mix=mix,
    )  # fmt: skip


def confusion_chart(details: ComparisonDetails, mix: str) -> Chart:
    """Draw the confusion matrices of the baseline and of the mix, and their difference."""
    baseline = details.comparison.baseline
    names = [row.class_name for row in details.comparison.classes]
    first, second = details.confusion_matrix(baseline), details.confusion_matrix(mix)
    change = second - first
    shown = ((baseline, first, False), (mix, second, False), (f"{mix} minus {baseline}", change, True))

    pairs = sorted(
        ((change[i, j], names[i], names[j]) for i in range(len(names)) for j in range(len(names))
         if i != j and np.isfinite(change[i, j])),
        key=lambda entry: -abs(entry[0]),
    )[:12]  # fmt: skip
    changes = "; ".join(
        f"{true} predicted as {other} {format_points(100 * value)} points" for value, true, other in pairs[:3]
    )
    return Chart(
        f"confusion-{mix}",
        f"Confusion matrix: {baseline}, {mix}, and the difference",
        "Rows are the true class, columns the predicted one, in per cent of a class's test clips over all runs; the "
        "difference is in percentage points. Numbers below 1 are left out.",
        f"The confusions that changed most: {changes or 'none'}.",
        Table(
            "What changed most",
            columns("true class", "predicted", numbers=("change in percentage points",)),
            [(true, other, format_points(100 * value)) for value, true, other in pairs],
        ),
        mix=mix,
        markup=lambda narrow: matrices_svg(
            [(shorten(title, 40 if narrow else 32), values, signed) for title, values, signed in shown], names, narrow
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
