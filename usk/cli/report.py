"""`usk report`: write one HTML page with results and sounds."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Option

from usk.cli.options import ColumnsOption, ReadOptions, RealOption, display_for

if TYPE_CHECKING:
    from usk.cli.display import Display
    from usk.data.source import Source


def command(
    ctx: typer.Context,
    runs: Annotated[
        str | None,
        typer.Argument(metavar="RUNS", help="Folder of the runs. \\[default: runs, if it is there]"),
    ] = None,
    synth: Annotated[
        str | None, Option(metavar="DATASET", help="Synthetic dataset. \\[default: synth, if it is there]")
    ] = None,
    real: RealOption = None,
    out: Annotated[str, Option(help="The page.")] = "report.html",
    baseline: Annotated[
        str | None, Option(help="Mix that the others are compared with. \\[default: real]")
    ] = None,
    split: Annotated[
        bool,
        Option(
            "--split",
            help="Write all sounds and pictures as files beside the page, instead of up to 25 MB of them inside it.",
        ),
    ] = False,
    audit: Annotated[
        bool, Option("--audit/--no-audit", help="Show what usk audit finds in the dataset.")
    ] = True,
    columns: ColumnsOption = None,
) -> None:
    """Write one HTML page: the answer, charts, every clip to listen to, and the data behind the answer.

    It opens from disk in any browser, offline.
    """
    display, reading = display_for(ctx), ReadOptions.parse(columns)
    from usk.cli.display import facts_table
    from usk.report.page import ReportConfig, report
    from usk.runs import run_folders

    runs = runs or ("runs" if run_folders(Path("runs")) else None)
    config = ReportConfig(
        runs=runs,
        synth=synth or _default_dataset(display, bool(runs)),
        baseline=baseline,
        split=split,
        audit=audit,
    )
    source = _open_real(display, config.synth, real, reading) if config.synth is not None else None
    page = report(out, config, real=source, reporter=display)
    for note in page.notes:
        display.warn(note)
    facts = {
        "page": str(page.file),
        "MB": round(page.n_bytes / 1e6, 1),
        "charts": page.n_charts,
        "clips": page.n_clips,
        **({"clips in all": page.n_all_clips} if page.n_all_clips != page.n_clips else {}),
    }
    table = facts_table("report", facts)
    display.result({**facts, "notes": list(page.notes)}, table, f"Open {page.file} in a browser.")


def _default_dataset(display: Display, has_runs: bool) -> str | None:
    """Return ./synth if it exists. If it is unfinished or damaged, warn and return None, or raise without runs to show."""
    from usk.data.open import open_source
    from usk.errors import UskError

    if not Path("synth").is_dir():
        display.warn(
            "the page has no clips to play: ./synth is not there, and --synth names no other dataset"
        )
        return None
    try:
        open_source("synth", field="synth")
    except UskError as error:
        if not has_runs:
            raise
        display.warn(f"./synth is left out of the page: {error}")
        return None
    return "synth"


def _open_real(display: Display, synth: str, real: str | None, reading: ReadOptions) -> Source | None:
    """Open the real clips: the named ones, or the demo corpus for clips made from it, or the Hub's if it can be reached."""
    from usk.errors import UskError
    from usk.files import expanded
    from usk.manifest import find_manifest

    manifest = find_manifest(expanded(synth))
    if real is None:
        from_demo = manifest is not None and manifest.source.name == "demo"
        real = "demo" if from_demo else os.environ.get("USK_REAL") or None
    try:
        return reading.open(real)
    except UskError as error:
        if real is not None:
            raise
        display.warn(f"parents have no sound on the page: {error}")
        return None
