"""Accuracy by number of clips, and the course of training: the charts whose points are joined by lines."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from usk.report.canvas import Chart, Palette, percent, short
from usk.tables import Table, columns

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from usk.evaluate.details import ComparisonDetails, SweepPoint

MARKERS = "os^DvPX"  # with the colors they tell 56 series apart


def sweep_chart(points: Sequence[SweepPoint]) -> Chart:
    """Accuracy against the number of real clips in training."""
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
        drawn = _side_by_side(axes, palette, series, slots)
        axes.set_xlabel("real clips in training")
        axes.set_ylabel("test accuracy, %")
        axes.grid()
        # As the lines end, from the top down: the eye finds a line's name at its height.
        order = sorted(series, key=lambda name: (-series[name][-1].n_clips, -series[name][-1].mean))
        lines, labels = [drawn[name] for name in order], _distinct(order, 30)
        figure.legend(
            lines,
            labels,
            labelcolor=palette.ink,
            loc="outside lower left" if narrow else "outside right upper",
        )

    ends = "; ".join(
        f"{name} from {percent(of[0].mean)} % with {of[0].n_clips:,} to {percent(of[-1].mean)} % with {of[-1].n_clips:,}"
        if len(of) > 1
        else f"{name} {percent(of[0].mean)} % with {of[0].n_clips:,}"
        for name, of in series.items()
    )
    return Chart(
        "sweep-real",
        "Accuracy against the number of real clips",
        "Lines join means; bars reach from the lowest run to the highest. They stand side by side, with dots at the mean of "
        f"{baseline}.",
        f"{ends}.",
        Table(
            "Every point",
            columns("mix", numbers=("real clips", "runs", "mean %", "lowest %", "highest %")),
            [
                (p.series, f"{p.n_clips:,}", str(p.n_runs), percent(p.mean), percent(p.low), percent(p.high))
                for p in points
            ],
        ),
        draw,
        lambda narrow: 3.4 + 0.25 * len(series) if narrow else 4.2,
    )  # fmt: skip


def _side_by_side(
    axes: Axes, palette: Palette, series: dict[str, list[SweepPoint]], slots: Sequence[int]
) -> dict[str, Any]:
    """A marker and a bar a point, those of one size beside each other; the markers by name.

    The lines that join them are faint: on a slope, what is moved aside seems to lie lower or higher.
    """
    drawn = {}
    for point in next(iter(series.values())):
        ends = [_aside(point.n_clips, side, slots) for side in (-0.6, 0.6)]
        axes.plot(ends, [100 * point.mean] * 2, color=palette.of(0), lw=1, ls=(0, (2, 2)))
    for number, (name, of) in enumerate(series.items()):
        color, side = palette.of(number), number / max(1, len(series) - 1) - 0.5
        places = [_aside(point.n_clips, side, slots) for point in of]
        means = [100 * point.mean for point in of]
        axes.plot(places, means, color=color, lw=1, alpha=0.35)
        axes.vlines(
            places, [100 * p.low for p in of], [100 * p.high for p in of], color=color, lw=1.2, alpha=0.6
        )
        marker = MARKERS[number % len(MARKERS)]
        (drawn[name],) = axes.plot(places, means, color=color, marker=marker, ms=5.5, lw=0)
    return drawn


def _slots(sizes: Iterable[int]) -> list[int]:
    """Sizes that stand apart on a logarithmic axis, smallest first: of those that would meet, the first."""
    places = {size: math.log(size) for size in sizes}
    span = max(places.values()) - min(places.values())
    slots: list[int] = []
    for size in sorted(places):
        if not slots or places[size] - places[slots[-1]] > 0.09 * span:
            slots.append(size)
    return slots


def _aside(size: int, side: float, slots: Sequence[int]) -> float:
    """Where a size stands moved aside: `side` is -0.5 to 0.5 of the room that the series of one slot take."""
    places = np.log(slots)
    room = min(0.6 * np.diff(places).min(), 0.1 * (places[-1] - places[0])) if len(slots) > 1 else 0.0
    return float(size * np.exp(side * room))


def _distinct(names: Sequence[str], limit: int) -> list[str]:
    """`short` names; those that begin alike keep their ends instead."""
    cut, head = [short(name, limit) for name in names], limit // 3
    return [
        one
        if cut.count(one) == 1 or len(name) <= limit
        else f"{one[:head]}…{short(name, len(name))[head + 1 - limit :]}"
        for name, one in zip(names, cut, strict=True)
    ]


def curve_chart(details: ComparisonDetails, value_name: str) -> Chart | None:
    """One value of training over epochs, a line a mix."""
    scale = 100 if value_name.endswith("accuracy") else 1
    curves = {mix: (epochs, scale * values) for mix, (epochs, values) in details.curves(value_name).items()}
    if not curves:
        return None
    means = {mix: dict(zip(of, values.mean(axis=0), strict=True)) for mix, (of, values) in curves.items()}
    order = {row.mix: number for number, row in enumerate(details.comparison.rows)}
    label = {"validation_accuracy": "validation accuracy, %", "loss": "training loss"}[value_name]

    def draw(figure: Figure, palette: Palette, narrow: bool) -> None:
        axes = figure.add_subplot()
        for mix, (epochs, values) in curves.items():
            color = palette.of(order[mix])
            axes.fill_between(epochs, values.min(axis=0), values.max(axis=0), color=color, alpha=0.13, lw=0)
            axes.plot(epochs, values.mean(axis=0), color=color, lw=1.8, label=short(mix, 30))
        axes.set_xlabel("epoch")
        axes.locator_params(axis="x", integer=True)
        axes.set_ylabel(label)
        axes.grid()
        axes.legend(labelcolor=palette.ink)

    unit = " %" if scale == 100 else ""
    ends = "; ".join(
        f"{mix} from {of[min(of)]:.3g}{unit} to {of[max(of)]:.3g}{unit}" for mix, of in means.items()
    )
    all_epochs = sorted(set().union(*means.values()))
    return Chart(
        f"curve-{value_name}",
        f"Learning curves: {label.partition(',')[0]}",
        "Means over runs; bands reach from the lowest run to the highest.",
        f"Over {max(next(iter(means.values())))} epochs: {ends}.",
        Table(
            "Every epoch",
            columns(numbers=("epoch", *means)),
            [
                (str(epoch), *(f"{of[epoch]:.3g}" if epoch in of else "" for of in means.values()))
                for epoch in all_epochs
            ],
        ),
        draw,
        lambda narrow: 2.9,
        half=True,
    )
