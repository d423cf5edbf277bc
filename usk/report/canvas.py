"""A chart as SVG that takes its colors from the page, and as PNG for papers and cards. The one importer of matplotlib, inside
its functions.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from usk.files import atomic_write
from usk.tables import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDE_IN, NARROW_IN = 8.4, 4.1  # widths in inches: a desktop's column and a phone's
PNG_DPI = 200
MAX_TICK_NAME = 22
N_SERIES = 8


@dataclass(frozen=True)
class Palette:
    """Colors by what they mean; `series` are for mixes, baseline first."""

    ink: str
    muted: str
    line: str
    surface: str
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
    up="#0b6e69",
    down="#b3471d",
    series=("#55606e", "#0b6e69", "#b3471d", "#6741b5", "#1f5fbf", "#a0286b", "#ad7600", "#5b8a1e"),
)
# Colors that no chart would choose: the SVG's are exchanged for the page's CSS variables.
PAGE = Palette(
    ink="#010101",
    muted="#010102",
    line="#010103",
    surface="#010104",
    up="#010105",
    down="#010106",
    series=tuple(f"#0102{number:02x}" for number in range(1, N_SERIES + 1)),
)
_VARIABLES = {
    **{getattr(PAGE, name): f"var(--{name.replace('_', '-')})" for name in Palette.__annotations__ if name != "series"},
    **{color: f"var(--series-{number})" for number, color in enumerate(PAGE.series)},
}  # fmt: skip


@dataclass(frozen=True)
class Chart:
    """A chart that can be drawn at any width, in any colors.

    `description` says what a reader would see, `table` holds every value: together they are its text alternative.
    """

    name: str
    title: str
    caption: str
    description: str
    table: Table
    draw: Callable[[Figure, Palette, bool], None] | None = None
    height_in: Callable[[bool], float] = lambda narrow: 0.0  # of a narrow one, or not
    half: bool = False  # narrow enough for two side by side
    mix: str = ""  # whose changes its shapes open; a shape's gid is `open-TRUE-PREDICTED`, two class numbers
    # Its SVG, where matplotlib is too slow; it is for pages alone
    markup: Callable[[bool], str] | None = None

    def svg(self, narrow: bool) -> str:
        """Markup for inside a page: no document head, no scripts, colors as CSS variables, text as text."""
        if self.markup is not None:
            return self.markup(narrow)
        figure = self._figure(PAGE, narrow)
        buffer = io.StringIO()
        with _style(PAGE, narrow, f"{self.name}-{narrow}"):
            from matplotlib.backends.backend_svg import FigureCanvasSVG

            if (layout := figure.get_layout_engine()) is not None:
                layout.execute(figure)
                figure.set_layout_engine("none")
            figure.patch.set_facecolor("none")
            FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})  # `savefig` draws twice
        return _inline(buffer.getvalue())

    def png(self, file: Path) -> None:
        """At 200 dpi on white. Raises OSError where it cannot be written."""
        figure = self._figure(PAPER, narrow=False)
        with _style(PAPER, False, self.name):
            buffer = io.BytesIO()
            figure.savefig(buffer, format="png", dpi=PNG_DPI, metadata={"Title": self.title})
            # Nothing goes through a link that was put there
            atomic_write(file, buffer.getvalue(), durable=False)

    def _figure(self, palette: Palette, narrow: bool) -> Figure:
        with _style(palette, narrow, self.name):
            from matplotlib.figure import Figure

            width = NARROW_IN if narrow else WIDE_IN
            figure = Figure(figsize=(width, self.height_in(narrow)), layout="constrained")
            assert self.draw is not None
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
        plain = re.sub(r'\s+id="open-([^"]*)"', r' data-open="\1"', tag[0])
        plain = re.sub(r'\s+id="([^"]*)"', lambda found: found[0] if found[1] in used else "", plain)
        plain = re.sub(r"font: ([0-9.]+px)[^;\"]*", r"font-size: \1", plain)
        return re.sub(r"#01010[1-6]|#01020[1-8]", lambda found: _VARIABLES[found[0]], plain)

    return re.sub(r"<[^>]*>", in_tag, svg)


def paint(values: np.ndarray) -> np.ndarray:
    """The color scale of spectrograms, `magma`: [0, 1] to uint8 [..., 3]."""
    from matplotlib import colormaps

    return np.asarray(colormaps["magma"](values, bytes=True)[..., :3])


def short(name: str, limit: int = MAX_TICK_NAME) -> str:
    """A name that fits beside an axis."""
    plain = "".join(character if character.isprintable() else " " for character in name)
    return plain if len(plain) <= limit else f"{plain[: limit - 1]}…"


def percent(value: float | None) -> str:
    """A fraction as `12.3`; empty without one."""
    return "" if value is None else f"{100 * value:.1f}"


def points_text(value: float | None) -> str:
    """`+1.2`, with a typographic minus, and none before a rounded zero."""
    return "" if value is None else f"{value:+z.1f}".replace("-", "−")
