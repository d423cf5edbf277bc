"""Draw docs/picture.png: two clips of the demo corpus, the clip made of them, and what such clips were worth in the main study.

Run from the repository's root: python docs/picture.py
"""

from __future__ import annotations

import io
import json
import tempfile
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

import usk
from usk.data.decode import decode_source
from usk.data.leaks import Origins
from usk.diffusion.pipeline import EMBEDDED
from usk.report.canvas import PAPER
from usk.report.media import PICTURE, RANGE_DB, decibels

DOCS = Path(__file__).parent
CLASS, FOLD, MIX = "car_horn", 1, "real,decomposed,sample"


def sounds() -> list[tuple[str, np.ndarray]]:
    """The parents and between them the clip, as [96, frames] in dB."""
    real = usk.open_source("demo").select(classes=(CLASS,), folds=(FOLD,))
    with tempfile.TemporaryDirectory() as folder:
        config = usk.SynthConfig(per_class=1, seed=3)
        made = usk.open_source(usk.synthesize(real, folder, config, model=EMBEDDED).folder)
        clip, parents = (decode_source(source, PICTURE.sample_rate_hz) for source in (made, real))
        first, second = (parents.audio(rows[0]) for rows in Origins(clip.source, parents.source).rows[0])
        shown = {
            "one of your clips": first,
            "synthetic clip": clip.audio(0),
            "another of the same class": second,
        }
        return [(name, decibels(audio)) for name, audio in shown.items()]


def gains() -> list[tuple[str, float, float, float]]:
    """Real clips, and the mix's gain over them with its interval, in percentage points."""
    study = json.loads((DOCS / "studies" / "main" / "results.json").read_text(encoding="utf-8"))
    found = []
    for comparison in study["comparisons"]:
        if comparison["augment"] == "strong" and not comparison["choices"]:
            row = next(row for row in comparison["rows"] if row["mix"] == MIX)
            name = "all" if comparison["train_clips"] is None else str(comparison["train_clips"])
            gain = row["difference"]
            found.append((name, gain["difference_points"], gain["low_points"], gain["high_points"]))
    return found


def main() -> None:
    figure = Figure(figsize=(8.4, 4.6), layout="constrained")
    panels, (chart,) = (
        part.subplots(1, n, squeeze=False)[0] for part, n in zip(figure.subfigures(2, 1), (3, 1), strict=True)
    )
    shown = sounds()
    loudest = max(float(values.max()) for _, values in shown)
    for axes, (name, values) in zip(panels, shown, strict=True):
        axes.imshow(
            values, origin="lower", aspect="auto", cmap="magma", vmin=loudest - RANGE_DB, vmax=loudest
        )
        axes.set_title(name, fontsize=11, color=PAPER.ink)
        axes.set(xticks=[], yticks=[], xlabel="time", ylabel="frequency" if axes is panels[0] else "")
    for place, (_, gain, low, high) in enumerate(rows := gains()):
        color = PAPER.up if low > 0 else PAPER.muted
        chart.plot([low, high], [place] * 2, color=color, lw=7, alpha=0.3, solid_capstyle="round")
        chart.plot(gain, place, "o", color=color)
    chart.axvline(0, color=PAPER.muted, lw=1.2)
    chart.set_yticks(range(len(rows)), [name for name, *_ in rows])
    chart.invert_yaxis()
    chart.set_ylabel("real clips")
    chart.set_xlabel(
        "accuracy with synthetic clips minus accuracy without, percentage points (bar: 95 % interval)"
    )
    for side in ("top", "right", "left"):
        chart.spines[side].set_visible(False)
    chart.set_title(
        "What they were worth on UrbanSound8K, beside so many real clips", fontsize=11, color=PAPER.ink
    )
    with io.BytesIO() as drawn:
        figure.savefig(drawn, dpi=130)
        Image.open(drawn).convert("RGB").quantize(64).save(DOCS / "picture.png", optimize=True)


if __name__ == "__main__":
    main()
