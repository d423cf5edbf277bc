"""Draw a chart as SVG with the colors of the page, or as PNG for papers and cards.

Functions of this package import matplotlib when they draw, since the import is slow.
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

WIDE_IN, NARROW_IN = 8.4, 4.1  # widths of a chart in inches, for a desktop and a phone
PNG_DPI = 200
MAX_TICK_CHARACTERS = 22
N_SERIES = 8


@dataclass(frozen=True)
class Palette:
    """Colors by meaning. `series` are the colors of mixes, the baseline first."""

    ink: str
    muted: str
    line: str
    surface: str
    up: str
    down: str
    series: tuple[str, ...]

    def series_color(self, number: int) -> str:
        return self.series[number % len(self.series)]


PRINT_COLORS = Palette(
    ink="#1b1f24",
    muted="#57606a",
    line="#d0d4d9",
    surface="#ffffff",
    up="#0b6e69",
    down="#b3471d",
    series=("#55606e", "#0b6e69", "#b3471d", "#6741b5", "#1f5fbf", "#a0286b", "#ad7600", "#5b8a1e"),
)
# Placeholders that no chart uses otherwise. CSS variables of the page replace them in the SVG.
_NAMES = ("ink", "muted", "line", "surface", "up", "down")
_SERIES = tuple(f"#0102{number:02x}" for number in range(1, N_SERIES + 1))
PAGE_COLORS = Palette(**{name: f"#01010{number}" for number, name in enumerate(_NAMES, 1)}, series=_SERIES)
_VARIABLES = {
    **{getattr(PAGE_COLORS, name): f"var(--{name})" for name in _NAMES},
    **{color: f"var(--series-{number})" for number, color in enumerate(_SERIES)},
}


@dataclass(frozen=True)
class Chart:
    """A chart in two widths and any colors. `description` and `table` are its text alternative."""

    name: str
    title: str
    caption: str
    description: str
    table: Table
    draw: Callable[[Figure, Palette, bool], None] | None = None
    height_in: Callable[[bool], float] = lambda narrow: 0.0
    half: bool = False  # two such charts fit side by side
    # A click on a shape shows the changed test clips of this mix. The shape's gid is `open-TRUE-PREDICTED` (class numbers).
    mix: str = ""
    markup: Callable[[bool], str] | None = None  # the SVG of a chart that matplotlib would draw too slowly

    def svg(self, narrow: bool) -> str:
        """Return an SVG element for the page, with CSS variables as colors and with selectable text."""
        if self.markup is not None:
            return self.markup(narrow)
        figure = self._figure(PAGE_COLORS, narrow)
        buffer = io.StringIO()
        with _style(PAGE_COLORS, narrow, f"{self.name}-{narrow}"):
            from matplotlib.backends.backend_svg import FigureCanvasSVG

            if (layout := figure.get_layout_engine()) is not None:
                layout.execute(figure)
                figure.set_layout_engine("none")
            figure.patch.set_facecolor("none")
            FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})  # `savefig` would draw twice
        return _inline(buffer.getvalue())

    def png(self, file: Path) -> None:
        """Write a PNG file with 200 dpi. Raise OSError if it cannot be written."""
        figure = self._figure(PRINT_COLORS, narrow=False)
        with _style(PRINT_COLORS, False, self.name):
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
        "text.parse_math": False,  # names may contain dollar signs
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
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # the browser has other fonts
        yield


def _inline(document: str) -> str:
    """Return the svg element without metadata, global style and unused ids, and with CSS variables as colors."""
    svg = document[document.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", svg, flags=re.DOTALL)
    used = set(re.findall(r'(?:xlink:href="|url\()#([^")]+)', svg))
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*" height="[^"]*"', r"\1", svg, count=1)
    svg = svg.replace("<svg", '<svg aria-hidden="true" focusable="false"', 1)
    svg = re.sub(r"\s*\n\s*", " ", svg)

    def clean_tag(tag: re.Match[str]) -> str:
        plain = re.sub(r'\s+id="open-([^"]*)"', r' data-open="\1"', tag[0])
        plain = re.sub(r'\s+id="([^"]*)"', lambda match: match[0] if match[1] in used else "", plain)
        plain = re.sub(r"font: ([0-9.]+px)[^;\"]*", r"font-size: \1", plain)
        return re.sub(r"#01010[1-6]|#01020[1-8]", lambda match: _VARIABLES[match[0]], plain)

    return re.sub(r"<[^>]*>", clean_tag, svg)  # tags only: a name between tags may look like a color


def magma(values: np.ndarray) -> np.ndarray:
    """Map values in [0, 1] to the color scale of spectrograms, uint8 [..., 3]."""
    from matplotlib import colormaps

    return np.asarray(colormaps["magma"](values, bytes=True)[..., :3])


def shorten(name: str, limit: int = MAX_TICK_CHARACTERS) -> str:
    """Shorten a name to at most `limit` characters, and replace characters that cannot be printed."""
    plain = "".join(character if character.isprintable() else " " for character in name)
    return plain if len(plain) <= limit else f"{plain[: limit - 1]}…"


def format_percent(value: float | None) -> str:
    """Format a fraction in per cent, such as `12.3`; None is empty."""
    return "" if value is None else f"{100 * value:.1f}"


def format_points(value: float | None) -> str:
    """Format percentage points, such as `+1.2`, with a typographic minus and without a negative zero; None is empty."""
    return "" if value is None else f"{value:+z.1f}".replace("-", "−")
