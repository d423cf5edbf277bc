"""Charts of a study, drawn by matplotlib: SVG that takes its colors from the page, PNG for papers and cards.

The one importer of matplotlib, inside its functions. Nothing is computed here but positions.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from usk.errors import disk_errors

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from usk.evaluate.study import Confusion, Curve, Study, Sweep, SweepPoint

WIDE_IN, NARROW_IN = 8.4, 4.1  # widths in inches: a desktop's column and a phone's
PNG_DPI = 200
MAX_TICK_NAME = 22
N_SERIES = 8
MARKERS = "os^DvPX"  # with the colors they tell 56 series apart
MAX_BANDS = 3  # more of them hide each other


@dataclass(frozen=True)
class Palette:
    """Colours by what they mean; `series` are for mixes, baseline first."""

    ink: str
    muted: str
    line: str
    surface: str
    heat: str
    on_heat: str
    up: str
    down: str
    series: tuple[str, ...]

    def of(self, number: int) -> str:
        return self.series[number % len(self.series)]


PAPER = Palette(
    ink="#1b1f24",
    muted="#57606a",
    line="#d0d4d9",
    surface="#ffffff",
    heat="#0b5f66",
    on_heat="#ffffff",
    up="#0b6e69",
    down="#b3471d",
    series=("#55606e", "#0b6e69", "#b3471d", "#6741b5", "#1f5fbf", "#a0286b", "#ad7600", "#5b8a1e"),
)
# Colours that no chart would choose: the SVG's are exchanged for the page's CSS variables.
PAGE = Palette(
    ink="#010101",
    muted="#010102",
    line="#010103",
    surface="#010104",
    heat="#010105",
    on_heat="#010106",
    up="#010107",
    down="#010108",
    series=tuple(f"#0102{number:02x}" for number in range(1, N_SERIES + 1)),
)
_VARIABLES = {
    **{getattr(PAGE, name): f"var(--{name.replace('_', '-')})" for name in Palette.__annotations__ if name != "series"},
    **{color: f"var(--series-{number})" for number, color in enumerate(PAGE.series)},
}  # fmt: skip


@dataclass(frozen=True)
class Table:
    """A chart's figures: its text alternative in full."""

    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Chart:
    """A chart that can be drawn at any width, in any colors. `description` says what a reader would see."""

    name: str
    title: str
    caption: str
    description: str
    table: Table
    draw: Callable[[Figure, Palette, bool], None]
    height_in: Callable[[bool], float]  # of a narrow one, or not

    def svg(self, narrow: bool) -> str:
        """Markup for inside a page: no document head, no scripts, colors as CSS variables, text as text."""
        figure = self._figure(PAGE, narrow)
        buffer = io.StringIO()
        with _style(PAGE, narrow, f"{self.name}-{narrow}"):
            figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
        return _inline(buffer.getvalue())

    def png(self, file: Path, flag: str = "--png") -> None:
        """At 200 dpi on white. Raises UsageError, naming `flag`, where it cannot be written."""
        figure = self._figure(PAPER, narrow=False)
        with _style(PAPER, False, self.name), disk_errors(file.parent, field=flag.lstrip("-")):
            file.parent.mkdir(parents=True, exist_ok=True)
            figure.savefig(file, format="png", dpi=PNG_DPI, metadata={"Title": self.title})

    def _figure(self, palette: Palette, narrow: bool) -> Figure:
        with _style(palette, narrow, self.name):
            from matplotlib.figure import Figure

            width = NARROW_IN if narrow else WIDE_IN
            figure = Figure(figsize=(width, self.height_in(narrow)), layout="constrained")
            self.draw(figure, palette, narrow)
            return figure


@contextmanager
def _style(palette: Palette, narrow: bool, salt: str) -> Iterator[None]:
    import matplotlib

    settings: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": salt,
        "text.parse_math": False,  # names are text, dollars and all
        "font.family": "sans-serif",
        "font.size": 10.5 if narrow else 10,
        "text.color": palette.ink,
        "axes.edgecolor": palette.line,
        "axes.labelcolor": palette.muted,
        "axes.facecolor": "none",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": 10.5,
        "axes.titlelocation": "left",
        "axes.axisbelow": True,
        "xtick.color": palette.line,
        "ytick.color": palette.line,
        "xtick.labelcolor": palette.muted,
        "ytick.labelcolor": palette.ink,
        "grid.color": palette.line,
        "grid.linewidth": 0.7,
        "figure.facecolor": palette.surface,
        "legend.frameon": False,
        "axes.unicode_minus": True,
    }
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # the browser has its own fonts
        yield


def _inline(document: str) -> str:
    """The svg element alone, without matplotlib's metadata, global style and names that nothing refers to."""
    svg = document[document.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", svg, flags=re.DOTALL)
    used = set(re.findall(r'(?:xlink:href="|url\()#([^")]+)', svg))
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*" height="[^"]*"', r"\1", svg, count=1)
    svg = svg.replace("<svg", '<svg aria-hidden="true" focusable="false"', 1)
    svg = re.sub(r"\s*\n\s*", " ", svg)

    def in_tag(tag: re.Match[str]) -> str:  # text between tags is names, whatever they look like
        plain = re.sub(r'\s+id="([^"]*)"', lambda found: found[0] if found[1] in used else "", tag[0])
        plain = re.sub(r"font: ([0-9.]+px)[^;\"]*", r"font-size: \1", plain)
        return re.sub(r"#01010[1-8]|#01020[1-8]", lambda found: _VARIABLES[found[0]], plain)

    return re.sub(r"<[^>]*>", in_tag, svg)


def paint(values: np.ndarray) -> np.ndarray:
    """The color scale of spectrograms, `magma`: [0, 1] to uint8 [..., 3]."""
    from matplotlib import colormaps

    return np.asarray(colormaps["magma"](values, bytes=True)[..., :3])


def short(name: str, limit: int = MAX_TICK_NAME) -> str:
    """A name that fits beside an axis."""
    plain = "".join(character if character.isprintable() else " " for character in name)
    return plain if len(plain) <= limit else f"{plain[: limit - 1]}…"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"


def points_text(value: float | None) -> str:
    """`+1.2`, with a typographic minus, and none before a rounded zero."""
    return "" if value is None else f"{value:+z.1f}".replace("-", "−")


def _whole_axis(axes: Axes, palette: Palette, names: Sequence[str], narrow: bool) -> None:
    """A row a name, first on top; names above their rows where the chart is narrow."""
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(axis="x")
    axes.spines["left"].set_visible(False)
    axes.tick_params(length=0)
    if narrow:
        axes.set_yticks([])
        for row, name in enumerate(names):
            axes.annotate(
                short(name, 40), (0, row - 0.36), xycoords=("axes fraction", "data"), fontsize=10.5,
                color=palette.ink, va="center",
            )  # fmt: skip
    else:
        axes.set_yticks(range(len(names)), [short(name) for name in names])


def _spread(row: int, n: int) -> np.ndarray:
    """Heights of `n` dots about a row."""
    return row + (np.linspace(-0.16, 0.16, n) if n > 1 else np.zeros(1))


def _row_height(rows: int, narrow: bool, wide_in: float, narrow_in: float, margin: float) -> float:
    return margin + rows * (narrow_in if narrow else wide_in)


def accuracy_chart(study: Study) -> Chart:
    """Every run as a dot, and each mix's mean with its interval."""
    rows = study.comparison.rows
    dots = {row.mix: [run for run in study.runs if run.mix == row.mix] for row in rows}

    def draw(figure: Figure, palette: Palette, narrow: bool) -> None:
        axes = figure.add_subplot()
        _whole_axis(axes, palette, [row.mix for row in rows], narrow)
        for number, row in enumerate(rows):
            color, half = palette.of(number), row.accuracy.half_width
            mean = 100 * row.accuracy.mean
            if half is not None:
                axes.plot([mean - 100 * half, mean + 100 * half], [number] * 2, color=color, lw=7, alpha=0.28,
                          solid_capstyle="round")  # fmt: skip
            values = [100 * run.accuracy for run in dots[row.mix]]
            axes.scatter(values, _spread(number, len(values)), s=26, color=color, edgecolor=palette.surface,
                         linewidth=0.7, zorder=3)  # fmt: skip
            axes.plot([mean] * 2, [number - 0.26, number + 0.26], color=color, lw=2.4, zorder=4)
        axes.set_xlabel("test accuracy, %")

    alike = [row for row in rows if not row.n_unpaired] or rows  # over the baseline's folds and seeds
    best = max(alike, key=lambda row: row.accuracy.mean)
    said = ", ".join(
        f"{row.mix} {_percent(row.accuracy.mean)} %"
        + ("" if row.accuracy.half_width is None else f" ± {_percent(row.accuracy.half_width)}")
        for row in rows
    )
    return Chart(
        "accuracy",
        "Accuracy of each mix",
        "A dot is one run (fold and seed), the stroke is the mean, the bar its 95 % interval over runs.",
        f"Accuracy by mix: {said}. The highest mean is that of {best.mix}.",
        Table(
            ("mix", "split", "seed", "accuracy %", "macro F1 %", "real clips", "synthetic"),
            tuple(
                (run.mix, run.split, str(run.seed), _percent(run.accuracy), _percent(run.macro_f1), f"{run.n_real:,}",
                 f"{run.n_synthetic:,}")
                for run in study.runs
            ),
        ),
        draw,
        lambda narrow: _row_height(len(rows), narrow, 0.5, 0.72, 0.75),
    )  # fmt: skip


def difference_chart(study: Study) -> Chart | None:
    """Paired differences to the baseline, each pair a dot; None where nothing is paired."""
    rows = [row for row in study.comparison.rows if row.difference is not None]
    if not rows:
        return None
    order = {row.mix: number for number, row in enumerate(study.comparison.rows)}
    baseline = study.comparison.baseline

    def draw(figure: Figure, palette: Palette, narrow: bool) -> None:
        axes = figure.add_subplot()
        _whole_axis(axes, palette, [row.mix for row in rows], narrow)
        axes.axvline(0, color=palette.muted, lw=1.2)
        for number, row in enumerate(rows):
            color, difference = palette.of(order[row.mix]), row.difference
            assert difference is not None
            if difference.low_points is not None and difference.high_points is not None:
                axes.plot([difference.low_points, difference.high_points], [number] * 2, color=color, lw=7,
                          alpha=0.28, solid_capstyle="round")  # fmt: skip
            values = [pair.difference_points for pair in study.pairs if pair.mix == row.mix]
            axes.scatter(values, _spread(number, len(values)), s=26, color=color, edgecolor=palette.surface,
                         linewidth=0.7, zorder=3)  # fmt: skip
            axes.plot([difference.difference_points] * 2, [number - 0.26, number + 0.26], color=color, lw=2.4,
                      zorder=4)  # fmt: skip
        axes.set_xlabel(f"points of accuracy above or below {short(baseline, 30)}")

    return Chart(
        "difference",
        f"Difference to {baseline}",
        "A dot is one pair: both mixes trained with the same fold and seed, tested on the same clips. The bar is the "
        "95 % interval over recordings and seeds; where it covers 0, the mixes cannot be told apart.",
        " ".join(f"{row.mix}: {row.sentence}." for row in rows),
        Table(
            ("mix", "split", "seed", f"points to {baseline}"),
            tuple((p.mix, p.split, str(p.seed), points_text(p.difference_points)) for p in study.pairs),
        ),
        draw,
        lambda narrow: _row_height(len(rows), narrow, 0.5, 0.72, 0.75),
    )


def class_chart(study: Study, mix: str) -> Chart | None:
    """Recall of one mix less the baseline's by class, sorted; None where nothing is paired."""
    baseline = study.comparison.baseline
    rows = sorted(
        (row for row in study.comparison.classes if row.difference_points.get(mix) is not None),
        key=lambda row: -(row.difference_points[mix] or 0.0),
    )
    if not rows:
        return None

    def draw(figure: Figure, palette: Palette, narrow: bool) -> None:
        axes = figure.add_subplot()
        values = [row.difference_points[mix] or 0.0 for row in rows]
        colors = [palette.up if value >= 0 else palette.down for value in values]
        axes.barh(range(len(rows)), values, height=0.62, color=colors)
        axes.axvline(0, color=palette.muted, lw=1.2)
        low, high = min(0.0, *values), max(0.0, *values)
        room = 0.22 * max(4.0, high - low)  # for the figures at the bars' ends
        axes.set_xlim(low - 1.25 * room, high + room)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_yticks(range(len(rows)), [short(row.class_name, 16 if narrow else 22) for row in rows])
        for number, value in enumerate(values):
            axes.annotate(points_text(value), (value, number), (4 if value >= 0 else -4, 0),
                          textcoords="offset points", ha="left" if value >= 0 else "right", va="center",
                          color=palette.ink, fontsize=9.5)  # fmt: skip
        axes.grid(axis="x")
        axes.spines["left"].set_visible(False)
        axes.tick_params(length=0)
        axes.set_xlabel(f"points of recall, {short(mix, 24)} less {short(baseline, 16)}")

    up = [row.class_name for row in rows if (row.difference_points[mix] or 0) > 0]
    down = [row.class_name for row in rows if (row.difference_points[mix] or 0) < 0]
    return Chart(
        f"classes-{mix}",
        f"Where {mix} helps, and where it hurts",
        "Recall by class over all pairs. Single classes rest on few recordings: read them as hints.",
        f"Recall is higher for {', '.join(up) or 'no class'}, lower for {', '.join(down) or 'no class'}.",
        Table(
            ("class", "test clips", f"{baseline} %", f"{mix} %", "points"),
            tuple(
                (row.class_name, str(row.support), _percent(row.recall.get(baseline)), _percent(row.recall.get(mix)),
                 points_text(row.difference_points[mix]))
                for row in rows
            ),
        ),
        draw,
        lambda narrow: 0.8 + 0.3 * len(rows),
    )  # fmt: skip


def confusion_chart(study: Study, mix: str) -> Chart | None:
    """The baseline's confusion matrix, the mix's, and their difference."""
    by_mix = {one.mix: one for one in study.confusions}
    baseline = study.comparison.baseline
    if mix not in by_mix or baseline not in by_mix:
        return None
    names = [row.class_name for row in study.comparison.classes]
    first, second = (_matrix(by_mix[name]) for name in (baseline, mix))
    change = second - first

    def draw(figure: Figure, palette: Palette, narrow: bool) -> None:
        grid = figure.subplots(3, 1) if narrow else figure.subplots(1, 3)
        shown = ((baseline, first, False), (mix, second, False), (f"{mix} less {baseline}", change, True))
        for place, (axes, (title, values, signed)) in enumerate(zip(grid, shown, strict=True)):
            _heat(axes, palette, values, signed)
            axes.set_title(short(title, 34 if narrow else 26), fontsize=10.5)
            axes.set_xticks(range(len(names)), [short(name, 16) for name in names], rotation=90, fontsize=8)
            labeled = [short(name, 16) for name in names] if narrow or place == 0 else []
            axes.set_yticks(range(len(labeled)), labeled, fontsize=8)

    pairs = sorted(
        ((change[i, j], names[i], names[j]) for i in range(len(names)) for j in range(len(names))
         if i != j and np.isfinite(change[i, j])),
        key=lambda entry: -abs(entry[0]),
    )[:12]  # fmt: skip
    told = "; ".join(
        f"{true} taken for {other} {points_text(100 * value)} points" for value, true, other in pairs[:3]
    )
    return Chart(
        f"confusion-{mix}",
        f"What is taken for what: {baseline}, {mix}, and the difference",
        "Rows are the true class, columns the predicted one; figures are per cent of a class's test clips over all "
        "runs, the third matrix in points. Figures below 1 are left out.",
        f"The confusions that changed most: {told or 'none'}.",
        Table(
            ("true class", "taken for", "change in points"),
            tuple((true, other, points_text(100 * value)) for value, true, other in pairs),
        ),
        draw,
        lambda narrow: 13.0 if narrow else 3.7,
    )  # fmt: skip


def _matrix(confusion: Confusion) -> np.ndarray:
    n = len(confusion.shares)
    return np.array([[np.nan] * n if row is None else row for row in confusion.shares])


def _heat(axes: Axes, palette: Palette, values: np.ndarray, signed: bool) -> None:
    from matplotlib.patches import Rectangle

    n = len(values)
    top = max(0.05, float(np.nanmax(np.abs(values)))) if signed else 1.0
    for row in range(n):
        for column in range(n):
            value = values[row, column]
            if not np.isfinite(value) or abs(value) < 0.005:
                continue
            color = palette.heat if not signed else palette.up if (value > 0) else palette.down
            strength = min(1.0, abs(value) / top) ** 0.8
            axes.add_patch(Rectangle((column - 0.47, row - 0.47), 0.94, 0.94, facecolor=color, alpha=0.1 + 0.9 * strength,
                                     edgecolor="none"))  # fmt: skip
            if abs(value) >= 0.01 and n <= 12:
                text = f"{100 * value:+.0f}".replace("-", "−") if signed else f"{100 * value:.0f}"
                axes.text(column, row, text, ha="center", va="center", fontsize=6.5,
                          color=palette.on_heat if strength > 0.62 else palette.ink)  # fmt: skip
    axes.set_xlim(-0.5, n - 0.5)
    axes.set_ylim(n - 0.5, -0.5)
    axes.set_aspect("equal")
    axes.tick_params(length=0, labelcolor=palette.ink)
    for spine in axes.spines.values():
        spine.set_visible(True)


def sweep_chart(points: Sequence[SweepPoint], kind: str) -> Chart | None:
    """Accuracy against the number of `kind` ("real" or "synthetic") clips; None where only one size was run."""
    if not points:
        return None
    series: dict[str, list[SweepPoint]] = {}
    for point in points:
        series.setdefault(point.series, []).append(point)
    baseline = points[0].series
    logarithmic = kind == "real" and min(point.n_clips for point in points) > 0
    crowded = len(series) > MAX_BANDS

    def draw(figure: Figure, palette: Palette, narrow: bool) -> None:
        axes = figure.add_subplot()
        slots = _slots([point.n_clips for point in points], logarithmic)
        if logarithmic:
            axes.set_xscale("log")
            axes.set_xticks(slots, [f"{size:,}" for size in slots])
            axes.minorticks_off()
        drawn = _side_by_side(axes, palette, series, slots) if crowded else _bands(axes, palette, series)
        axes.set_xlabel(f"{kind} clips in training")
        axes.set_ylabel("test accuracy, %")
        axes.grid()
        # As the lines end, from the top down: the eye finds a line's name at its height.
        order = sorted(series, key=lambda name: (-series[name][-1].n_clips, -series[name][-1].mean))
        lines, labels = [drawn[name] for name in order], _told_apart(order, 30)
        if not crowded:
            axes.legend(lines, labels, labelcolor=palette.ink)
        elif narrow:
            figure.legend(lines, labels, labelcolor=palette.ink, loc="outside lower left")
        else:
            figure.legend(lines, labels, labelcolor=palette.ink, loc="outside right upper")

    ends = "; ".join(
        f"{name} from {_percent(of[0].mean)} % with {of[0].n_clips:,} to {_percent(of[-1].mean)} % with {of[-1].n_clips:,}"
        if len(of) > 1
        else f"{name} {_percent(of[0].mean)} % with {of[0].n_clips:,}"
        for name, of in series.items()
    )
    spread = (
        f"bars reach from the lowest run to the highest; they stand side by side, with dots at the mean of {baseline}"
        if crowded
        else "bands reach from the lowest run to the highest"
    )
    return Chart(
        f"sweep-{kind}",
        f"Accuracy against the number of {kind} clips",
        f"Lines join means, {spread}.",
        f"{ends}.",
        Table(
            ("series", f"{kind} clips", "runs", "mean %", "lowest %", "highest %"),
            tuple(
                (p.series, f"{p.n_clips:,}", str(p.n_runs), _percent(p.mean), _percent(p.low), _percent(p.high))
                for p in points
            ),
        ),
        draw,
        lambda narrow: 3.2 if not crowded else 3.4 + 0.25 * len(series) if narrow else 4.2,
    )  # fmt: skip


def train_clips_charts(sweeps: Sequence[Sweep]) -> list[Chart]:
    """One for each setting."""
    charts = [chart for sweep in sweeps if (chart := sweep_chart(sweep.points, "real")) is not None]
    return [
        replace(
            chart,
            name="train_clips" if len(charts) == 1 else f"train_clips-{number}",
            caption=f"Each mix trained on more and more real clips (--train-clips). {chart.caption}",
        )
        for number, chart in enumerate(charts, 1)
    ]


def _bands(axes: Axes, palette: Palette, series: dict[str, list[SweepPoint]]) -> dict[str, Any]:
    """A line and a band a series; the lines by name."""
    drawn = {}
    for number, (name, of) in enumerate(series.items()):
        sizes, color = [point.n_clips for point in of], palette.of(number)
        low, high = [100 * point.low for point in of], [100 * point.high for point in of]
        axes.fill_between(sizes, low, high, color=color, alpha=0.16, lw=0)
        (drawn[name],) = axes.plot(
            sizes, [100 * p.mean for p in of], color=color, marker=MARKERS[number], ms=5
        )
    return drawn


def _side_by_side(
    axes: Axes, palette: Palette, series: dict[str, list[SweepPoint]], slots: Sequence[int]
) -> dict[str, Any]:
    """A marker and a bar a point, those of one size beside each other; the markers by name.

    The lines that join them are faint: on a slope, what is moved aside seems to lie lower or higher.
    """
    logarithmic, drawn = axes.get_xscale() == "log", {}
    for point in next(iter(series.values())):
        ends = [_aside(point.n_clips, side, slots, logarithmic) for side in (-0.6, 0.6)]
        axes.plot(ends, [100 * point.mean] * 2, color=palette.of(0), lw=1, ls=(0, (2, 2)))
    for number, (name, of) in enumerate(series.items()):
        color, side = palette.of(number), number / (len(series) - 1) - 0.5
        places = [_aside(point.n_clips, side, slots, logarithmic) for point in of]
        means = [100 * point.mean for point in of]
        axes.plot(places, means, color=color, lw=1, alpha=0.35)
        axes.vlines(
            places, [100 * p.low for p in of], [100 * p.high for p in of], color=color, lw=1.2, alpha=0.6
        )
        marker = MARKERS[number % len(MARKERS)]
        (drawn[name],) = axes.plot(places, means, color=color, marker=marker, ms=5.5, lw=0)
    return drawn


def _slots(sizes: Iterable[int], logarithmic: bool) -> list[int]:
    """Sizes that stand apart on an axis, smallest first: of those that would meet, the first."""
    places = {size: math.log(size) if logarithmic else size for size in sizes}
    span = max(places.values()) - min(places.values())
    slots: list[int] = []
    for size in sorted(places):
        if not slots or places[size] - places[slots[-1]] > 0.09 * span:
            slots.append(size)
    return slots


def _aside(size: int, side: float, slots: Sequence[int], logarithmic: bool) -> float:
    """Where a size stands moved aside: `side` is -0.5 to 0.5 of the room that the series of one slot take."""
    places = np.log(slots) if logarithmic else np.array(slots, dtype=float)
    room = min(0.6 * np.diff(places).min(), 0.1 * (places[-1] - places[0])) if len(slots) > 1 else 0.0
    return float(size * np.exp(side * room) if logarithmic else size + side * room)


def _told_apart(names: Sequence[str], limit: int) -> list[str]:
    """`short` names; those that begin alike keep their ends instead."""
    cut, head = [short(name, limit) for name in names], limit // 3
    return [
        one
        if cut.count(one) == 1 or len(name) <= limit
        else f"{one[:head]}…{short(name, len(name))[head + 1 - limit :]}"
        for name, one in zip(names, cut, strict=True)
    ]


def curve_chart(study: Study, figure_name: str) -> Chart | None:
    """One figure of training over epochs, a line a mix."""
    curves: list[Curve] = [curve for curve in study.curves if curve.figure == figure_name]
    if not curves:
        return None
    by_epoch = [dict(zip(curve.epochs, curve.mean, strict=True)) for curve in curves]
    order = {row.mix: number for number, row in enumerate(study.comparison.rows)}
    scale = 100 if figure_name.endswith("accuracy") else 1
    label = {"validation_accuracy": "validation accuracy, %", "loss": "training loss"}[figure_name]

    def draw(figure: Figure, palette: Palette, narrow: bool) -> None:
        axes = figure.add_subplot()
        for curve in curves:
            color = palette.of(order[curve.mix])
            axes.fill_between(curve.epochs, scale * np.array(curve.low), scale * np.array(curve.high), color=color,
                              alpha=0.13, lw=0)  # fmt: skip
            axes.plot(
                curve.epochs, scale * np.array(curve.mean), color=color, lw=1.8, label=short(curve.mix, 30)
            )
        axes.set_xlabel("epoch")
        axes.set_ylabel(label)
        axes.grid()
        axes.legend(labelcolor=palette.ink)

    unit = " %" if scale == 100 else ""
    ends = "; ".join(
        f"{c.mix} from {scale * c.mean[0]:.3g}{unit} to {scale * c.mean[-1]:.3g}{unit}" for c in curves
    )
    return Chart(
        f"curve-{figure_name}",
        f"Learning curves: {label.partition(',')[0]}",
        "Means over runs; bands reach from the lowest run to the highest.",
        f"Over {curves[0].epochs[-1]} epochs: {ends}.",
        Table(
            ("epoch", *(curve.mix for curve in curves)),
            tuple(
                (str(epoch), *(f"{scale * means[epoch]:.3g}" if epoch in means else "" for means in by_epoch))
                for epoch in sorted(set[int]().union(*by_epoch))
            ),
        ),
        draw,
        lambda narrow: 2.9,
    )  # fmt: skip


def charts_of(study: Study) -> list[Chart]:
    """Every chart that the study has figures for, most important first."""
    others = [row.mix for row in study.comparison.rows if not row.is_baseline]
    found: list[Any] = [accuracy_chart(study), difference_chart(study)]
    found += [class_chart(study, mix) for mix in others]
    found += [confusion_chart(study, mix) for mix in others]
    found += [sweep_chart(study.by_real, "real"), sweep_chart(study.by_synthetic, "synthetic")]
    found += [curve_chart(study, figure) for figure in ("validation_accuracy", "loss")]
    return [chart for chart in found if chart is not None]


def file_name(chart: Chart, number: int | None = None) -> str:
    """A PNG's name that any file system takes."""
    plain = re.sub(r"[^A-Za-z0-9.]+", "-", chart.name).strip("-.")
    return f"{plain}.png" if number is None else f"{number + 1}-{plain}.png"
