"""Write confusion matrices as SVG. matplotlib would be too slow for their thousands of cells and names."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

WIDE_PX, NARROW_PX, GAP_PX = 840, 400, 10
LETTER_PX, MAX_LETTERS = 5.6, 16  # of a class name
MAX_NUMBERED = 12  # with more classes there is no room for numbers


def matrices_svg(panels: Sequence[tuple[str, np.ndarray, bool]], names: Sequence[str], narrow: bool) -> str:
    """Return an SVG of panels (title, matrix, is signed), side by side, or one below the other if `narrow`."""
    room = 8 + LETTER_PX * min(MAX_LETTERS, max(map(len, names), default=0))
    width = NARROW_PX if narrow else WIDE_PX
    size = width - room if narrow else (width - room - 2 * GAP_PX) / 3
    step = 22 + size + room
    height = step * len(panels) if narrow else step
    parts = [f'<svg viewBox="0 0 {width} {height:.0f}" aria-hidden="true" focusable="false" class="matrix">']
    for number, (title, values, signed) in enumerate(panels):
        left = room if narrow else room + number * (size + GAP_PX)
        top = 22 + (number * step if narrow else 0)
        parts.append(f'<text x="{left:.1f}" y="{top - 7:.1f}" class="title">{escape(title)}</text>')
        parts.append(
            f'<rect x="{left:.1f}" y="{top:.1f}" width="{size:.1f}" height="{size:.1f}" class="frame"/>'
        )
        parts += _name_texts(names, left, top, size, name_rows=narrow or number == 0)
        parts += _cell_shapes(values, signed, left, top, size / len(names))
    return "".join([*parts, "</svg>"])


def _name_texts(names: Sequence[str], left: float, top: float, size: float, name_rows: bool) -> list[str]:
    texts, cell = [], size / len(names)
    for number, name in enumerate(names):
        text = escape(name if len(name) <= MAX_LETTERS else f"{name[: MAX_LETTERS - 1]}…")
        x, y = left + (number + 0.5) * cell + 3, top + size + 5
        texts.append(
            f'<text transform="translate({x:.1f} {y:.1f}) rotate(-90)" text-anchor="end">{text}</text>'
        )
        if name_rows:
            y = top + (number + 0.5) * cell + 3.5
            texts.append(f'<text x="{left - 5:.1f}" y="{y:.1f}" text-anchor="end">{text}</text>')
    return texts


def _cell_shapes(values: np.ndarray, signed: bool, left: float, top: float, size: float) -> list[str]:
    """Draw cells of `size` pixels for a matrix of fractions, or a difference of two if `signed`. NaN cells are left out."""
    shapes = []
    strongest = max(0.05, float(np.nanmax(np.abs(values)))) if signed else 1.0
    for row, column in np.argwhere(np.abs(np.nan_to_num(values)) >= 0.005).tolist():
        value = float(values[row, column])
        better = (value > 0) == (row == column)  # larger on the diagonal, or smaller elsewhere
        kind = "heat" if not signed else "up" if better else "down"
        strength = min(1.0, abs(value) / strongest) ** 0.8
        x, y = left + (column + 0.03) * size, top + (row + 0.03) * size
        shapes.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{0.94 * size:.1f}" height="{0.94 * size:.1f}" '
            f'fill="var(--{kind})" fill-opacity="{0.1 + 0.9 * strength:.2f}" data-open="{row}-{column}"/>'
        )
        if abs(value) >= 0.01 and len(values) <= MAX_NUMBERED:
            shade = "value dark" if strength > 0.62 else "value"
            number = f"{100 * value:+.0f}".replace("-", "−") if signed else f"{100 * value:.0f}"
            x, y = x + 0.47 * size, y + 0.47 * size + 3
            shapes.append(f'<text x="{x:.1f}" y="{y:.1f}" class="{shade}">{number}</text>')
    return shapes
