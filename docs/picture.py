"""Make the pictures and sounds of README and docs from the demo corpus and the study of clips. Needs Chromium and some minutes.

Run from the repository's root: python docs/picture.py
"""

from __future__ import annotations

import io
import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from playwright.sync_api import sync_playwright

import usk
from usk.cli.app import app
from usk.data.decode import decode_source
from usk.data.leaks import Origins
from usk.diffusion.pipeline import EMBEDDED
from usk.report.canvas import PRINT_COLORS
from usk.report.media import PICTURE, RANGE_DB, compress, decibels

DOCS = Path(__file__).parent
SOUNDS = DOCS / "_static" / "sounds"
CLASS, FOLD, SEED, MIX = "car_horn", 1, 3, "real,decomposed,sample"
STRATEGIES = ("decomposed", "slerp", "variation", "sample", "average", "waveform")
SCREEN = {"width": 1100, "height": 800}

Sounds = dict[str, np.ndarray]
"""By name: mono float [n] at the rate of `PICTURE`."""


def sounds() -> Sounds:
    """Two parents, and what each strategy makes of them (of the first alone, where it takes one)."""
    real = usk.open_source("demo").select(classes=(CLASS,), folds=(FOLD,))
    parents = decode_source(real, PICTURE.sample_rate_hz)
    found: Sounds = {}
    for strategy in STRATEGIES:
        with tempfile.TemporaryDirectory() as folder:
            settings = usk.render_configs(strategy=strategy)
            config = usk.SynthConfig(per_class=1, seed=SEED, render=settings)
            folder_made = usk.synthesize(real, folder, config, model=EMBEDDED).folder
            clip = decode_source(usk.open_source(folder_made), PICTURE.sample_rate_hz)
            rows = [rows[0] for rows in Origins(clip.source, parents.source).rows[0]]
            for name, row in zip(("parent-a", "parent-b"), rows, strict=False):
                found.setdefault(name, parents.audio(row))
            found[strategy] = clip.audio(0)
    return found


def gains() -> list[tuple[str, float, float, float]]:
    """Real clips, and the mix's gain over them with its interval, in percentage points."""
    rows = json.loads((DOCS / "studies" / "clips" / "results_3600.json").read_text(encoding="utf-8"))
    return [
        (
            str(row["train_clips"] or "all"),
            *(row["over_real"][f"{name}_points"] for name in ("difference", "low", "high")),
        )
        for row in rows
        if row["mix"] == MIX
    ]


def draw_sounds(panels: Sequence[Axes], shown: Sounds) -> None:
    """Mel spectrograms on one scale."""
    values = {name: decibels(audio) for name, audio in shown.items()}
    loudest = max(float(one.max()) for one in values.values())
    for axes, (name, one) in zip(panels, values.items(), strict=True):
        axes.imshow(one, origin="lower", aspect="auto", cmap="magma", vmin=loudest - RANGE_DB, vmax=loudest)
        axes.set_title(name, fontsize=11, color=PRINT_COLORS.ink)
        axes.set(xticks=[], yticks=[])
    panels[0].set(xlabel="time", ylabel="frequency")


def draw_gains(chart: Axes) -> None:
    for place, (_, gain, low, high) in enumerate(rows := gains()):
        color = PRINT_COLORS.up if low > 0 else PRINT_COLORS.muted
        chart.plot([low, high], [place] * 2, color=color, lw=7, alpha=0.3, solid_capstyle="round")
        chart.plot(gain, place, "o", color=color)
    chart.axvline(0, color=PRINT_COLORS.muted, lw=1.2)
    chart.set_yticks(range(len(rows)), [name for name, *_ in rows])
    chart.invert_yaxis()
    chart.set_ylabel("real clips")
    chart.set_xlabel(
        "accuracy with synthetic clips minus accuracy without, percentage points (bar: 95 % interval)"
    )
    for side in ("top", "right", "left"):
        chart.spines[side].set_visible(False)
    chart.set_title(
        "What they were worth on UrbanSound8K, beside so many real clips", fontsize=11, color=PRINT_COLORS.ink
    )


def save(figure: Figure, name: str) -> None:
    with io.BytesIO() as drawn:
        figure.savefig(drawn, dpi=130)
        Image.open(drawn).convert("RGB").quantize(256, method=Image.Quantize.MAXCOVERAGE).save(
            DOCS / name, optimize=True
        )


def photograph_report(to: Path) -> None:
    """The report of `usk demo`, in ./usk-demo if it is there: the test clips that changed."""
    page = Path("usk-demo/report.html").resolve()
    if not page.is_file():
        app(["demo"], standalone_mode=False)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        tab = browser.new_page(viewport=SCREEN)
        tab.goto(f"{page.as_uri()}#tab=changed")
        tab.wait_for_timeout(1_500)
        Image.open(io.BytesIO(tab.screenshot())).convert("RGB").quantize(256).save(to, optimize=True)
        browser.close()


def main() -> None:
    found = sounds()
    SOUNDS.mkdir(parents=True, exist_ok=True)
    for name, audio in found.items():
        (SOUNDS / f"{name}.mp3").write_bytes(compress(audio, PICTURE.sample_rate_hz).content)

    figure = Figure(figsize=(8.4, 4.6), layout="constrained")
    upper, lower = figure.subfigures(2, 1)
    titles = ("one of your clips", "synthetic clip", "another of the same class")
    names = ("parent-a", "decomposed", "parent-b")
    draw_sounds(upper.subplots(1, 3), {title: found[name] for title, name in zip(titles, names, strict=True)})
    draw_gains(lower.subplots())
    save(figure, "picture.png")

    figure = Figure(figsize=(8.4, 3.0), layout="constrained")
    draw_gains(figure.subplots())
    save(figure, "gains.png")

    figure = Figure(figsize=(8.4, 3.6), layout="constrained")
    draw_sounds(figure.subplots(2, 4).ravel(), found)
    save(figure, "strategies.png")

    photograph_report(DOCS / "report.png")


if __name__ == "__main__":
    main()
