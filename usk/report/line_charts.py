"""Draw line charts: accuracy by number of real clips, and training curves."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from usk.report.canvas import Chart, Palette, format_percent, shorten
from usk.tables import Table, columns

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from usk.evaluate.details import ComparisonDetails, SweepPoint

MARKERS = "os^DvPX"  # seven markers and eight colors give 56 combinations


def sweep_chart(points: Sequence[SweepPoint]) -> Chart:
    """Draw accuracy by number of real clips, with a line for each mix."""
    series: dict[str, list[SweepPoint]] = {}
    for point in points:
        series.setdefault(point.series, []).append(point)
    baseline = points[0].series

    def draw(figure: Figure, palette: Palette, narrow: bool) -> None:
        axes = figure.add_subplot()
        slots = _slots([point.n_clips for point in points])
        axes.set_xscale("log")
        axes.set_xticks(slots, [f"{size:,}" for size in slots])
        axes.minorticks_off()
        markers = _draw_series(axes, palette, series, slots)
        axes.set_xlabel("real clips in training")
        axes.set_ylabel("test accuracy, %")
        axes.grid()
        # Legend entries are in the order of the lines' right ends.
        order = sorted(series, key=lambda name: (-series[name][-1].n_clips, -series[name][-1].mean))
        lines, labels = [markers[name] for name in order], _unique_names(order, 30)
        figure.legend(
            lines,
            labels,
            labelcolor=palette.ink,
            loc="outside lower left" if narrow else "outside right upper",
        )

    ranges = []
    for name, of_mix in series.items():
        ends = [f"{format_percent(point.mean)} % with {point.n_clips:,}" for point in (of_mix[0], of_mix[-1])]
        ranges.append(f"{name} from {' to '.join(ends)}" if len(of_mix) > 1 else f"{name} {ends[0]}")
    return Chart(
        name="sweep-real",
        title="Accuracy against the number of real clips",
        caption="Lines join means; bars reach from the lowest run to the highest. They stand side by side, with dots at the mean of "
        f"{baseline}.",
        description=f"{'; '.join(ranges)}.",
        table=Table(
            "Every point",
            columns("mix", numbers=("real clips", "runs", "mean %", "lowest %", "highest %")),
            [
                (p.series, f"{p.n_clips:,}", str(p.n_runs), format_percent(p.mean), format_percent(p.low), format_percent(p.high))
                for p in points
            ],
        ),
        draw=draw,
        height_in=lambda narrow: 3.4 + 0.25 * len(series) if narrow else 4.2,
    )  # fmt: skip


def _draw_series(
    axes: Axes, palette: Palette, series: dict[str, list[SweepPoint]], slots: Sequence[int]
) -> dict[str, Any]:
    """Draw each point as a marker with a bar, and return the markers of each series.

    Points of the same size are side by side. The lines between points are faint because the shifts change their slopes.
    """
    markers = {}
    for point in next(iter(series.values())):
        ends = [_shifted(point.n_clips, side, slots) for side in (-0.6, 0.6)]
        axes.plot(ends, [100 * point.mean] * 2, color=palette.series_color(0), lw=1, ls=(0, (2, 2)))
    for number, (name, points) in enumerate(series.items()):
        color, side = palette.series_color(number), number / max(1, len(series) - 1) - 0.5
        x = [_shifted(point.n_clips, side, slots) for point in points]
        means = [100 * point.mean for point in points]
        lows, highs = [100 * point.low for point in points], [100 * point.high for point in points]
        axes.plot(x, means, color=color, lw=1, alpha=0.35)
        axes.vlines(x, lows, highs, color=color, lw=1.2, alpha=0.6)
        marker = MARKERS[number % len(MARKERS)]
        (markers[name],) = axes.plot(x, means, color=color, marker=marker, ms=5.5, lw=0)
    return markers


def _slots(sizes: Iterable[int]) -> list[int]:
    """Return the sizes with a tick on the logarithmic axis, increasing. A size too close to the one before has none."""
    logs = {size: math.log(size) for size in sizes}
    span = max(logs.values()) - min(logs.values())
    slots: list[int] = []
    for size in sorted(logs):
        if not slots or logs[size] - logs[slots[-1]] > 0.09 * span:
            slots.append(size)
    return slots


def _shifted(size: int, side: float, slots: Sequence[int]) -> float:
    """Return the position of a size, shifted by `side` (-0.5 to 0.5) of the width of a slot."""
    logs = np.log(slots)
    width = min(0.6 * np.diff(logs).min(), 0.1 * (logs[-1] - logs[0])) if len(slots) > 1 else 0.0
    return float(size * np.exp(side * width))


def _unique_names(names: Sequence[str], limit: int) -> list[str]:
    """Shorten names. Names that would become equal keep their ends instead of their middles."""
    shortened, head = [shorten(name, limit) for name in names], limit // 3
    unique = []
    for name, short in zip(names, shortened, strict=True):
        if shortened.count(short) > 1 and len(name) > limit:
            short = f"{short[:head]}…{shorten(name, len(name))[head + 1 - limit :]}"
        unique.append(short)
    return unique


def curve_chart(details: ComparisonDetails, metric: str) -> Chart | None:
    """Draw one training metric by epoch, with a line for each mix. Return None without histories."""
    scale = 100 if metric.endswith("accuracy") else 1
    curves = {mix: (epochs, scale * values) for mix, (epochs, values) in details.curves(metric).items()}
    if not curves:
        return None
    means = {
        mix: dict(zip(epochs, values.mean(axis=0), strict=True)) for mix, (epochs, values) in curves.items()
    }
    order = {row.mix: number for number, row in enumerate(details.comparison.rows)}
    label = {"validation_accuracy": "validation accuracy, %", "loss": "training loss"}[metric]

    def draw(figure: Figure, palette: Palette, narrow: bool) -> None:
        axes = figure.add_subplot()
        for mix, (epochs, values) in curves.items():
            color = palette.series_color(order[mix])
            axes.fill_between(epochs, values.min(axis=0), values.max(axis=0), color=color, alpha=0.13, lw=0)
            axes.plot(epochs, values.mean(axis=0), color=color, lw=1.8, label=shorten(mix, 30))
        axes.set_xlabel("epoch")
        axes.locator_params(axis="x", integer=True)
        axes.set_ylabel(label)
        axes.grid()
        axes.legend(labelcolor=palette.ink)

    unit = " %" if scale == 100 else ""
    ends = "; ".join(
        f"{mix} from {by_epoch[min(by_epoch)]:.3g}{unit} to {by_epoch[max(by_epoch)]:.3g}{unit}"
        for mix, by_epoch in means.items()
    )
    all_epochs = sorted(set().union(*means.values()))
    return Chart(
        name=f"curve-{metric}",
        title=f"Learning curves: {label.partition(',')[0]}",
        caption="Means over runs; bands reach from the lowest run to the highest.",
        description=f"Over {max(next(iter(means.values())))} epochs: {ends}.",
        table=Table(
            "Every epoch",
            columns(numbers=("epoch", *means)),
            [
                (str(epoch), *(f"{mean[epoch]:.3g}" if epoch in mean else "" for mean in means.values()))
                for epoch in all_epochs
            ],
        ),
        draw=draw,
        height_in=lambda narrow: 2.9,
        half=True,
    )
