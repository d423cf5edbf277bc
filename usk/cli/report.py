"""`usk report`: one HTML page to look at and listen to."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Option

from usk.cli.options import ColumnsOption, Reading, RealOption, display_for

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
            help="All sounds and pictures as files beside the page, not as many as 25 MB hold inside.",
        ),
    ] = False,
    audit: Annotated[
        bool, Option("--audit/--no-audit", help="Show what usk audit finds in the dataset.")
    ] = True,
    columns: ColumnsOption = None,
) -> None:
    """Write one HTML page: the answer, charts, every clip to listen to, and what it all rests on.

    It opens from disk in any browser, offline.
    """
    display, reading = display_for(ctx), Reading.of(columns)
    from usk.cli.display import facts_table
    from usk.report.page import ReportConfig, report
    from usk.runs import run_folders

    found = runs or ("runs" if run_folders(Path("runs")) else None)
    config = ReportConfig(
        runs=found,
        synth=synth or _synth_here(display, bool(found)),
        baseline=baseline,
        split=split,
        audit=audit,
    )
    source = _parents(display, config.synth, real, reading) if config.synth is not None else None
    made = report(out, config, real=source, reporter=display)
    for note in made.notes:
        display.warn(note)
    facts = {
        "page": str(made.file),
        "MB": round(made.n_bytes / 1e6, 1),
        "charts": made.n_charts,
        "clips": made.n_clips,
        "clips in all": made.n_all_clips,
    }
    shown = facts_table("report", facts)
    display.result({**facts, "notes": list(made.notes)}, shown, f"Open {made.file} in a browser.")


def _synth_here(display: Display, has_runs: bool) -> str | None:
    """The dataset ./synth, unless it is not finished or damaged and there are runs to show without it."""
    from usk.data.open import open_source
    from usk.errors import UskError

    if not Path("synth").is_dir():
        return None
    try:
        open_source("synth", field="synth")
    except UskError as error:
        if not has_runs:
            raise
        display.warn(f"./synth is left out of the page: {error}")
        return None
    return "synth"


def _parents(display: Display, synth: str, real: str | None, reading: Reading) -> Source | None:
    """The real clips: as named, else the demo corpus for its own clips, else the Hub's if it can be reached."""
    from usk.errors import UskError
    from usk.files import expanded
    from usk.manifest import find_manifest

    folder = expanded(synth)
    manifest = find_manifest(folder)
    of_demo = manifest is not None and manifest.source.name == "demo"
    named = real if real is not None else "demo" if of_demo else os.environ.get("USK_REAL") or None
    try:
        return reading.open(named)
    except UskError as error:
        if named is not None:
            raise
        display.warn(f"parents have no sound on the page: {error}")
        return None
