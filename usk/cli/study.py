"""`usk study`: run an experiment from one TOML file."""

from __future__ import annotations

from typing import Annotated

import typer
from typer import Option

from usk.cli.options import DeviceOption, EngineOption, PartOption, RealOption, display_for


def command(
    ctx: typer.Context,
    file: Annotated[str, typer.Argument(metavar="STUDY.toml", help="What to make, train and compare.")],
    real: RealOption = None,
    work: Annotated[
        str | None, Option(help="Folder of generators, clips and runs. \\[default: work, beside STUDY.toml]")
    ] = None,
    device: DeviceOption = "auto",
    part: PartOption = None,
    engine: EngineOption = "local",
    dry_run: Annotated[bool, Option("--dry-run", help="Show what would be done.")] = False,
) -> None:
    """Fit, synthesize, train and compare as a file says, and write tables, charts and results.json beside it.

    Run it again after an interruption and it goes on.
    """
    display = display_for(ctx)
    from usk.cli.display import facts_table
    from usk.engine.part import Part
    from usk.study.run import study

    result = study(
        file,
        real=real,
        work=work,
        device=device,
        dry_run=dry_run,
        reporter=display,
        part=Part.parse(part),
        engine=engine,
    )
    if dry_run:
        steps = {str(number): step for number, step in enumerate(result.steps, 1)}
        display.result(list(result.steps), facts_table("steps; what is done is not done again", steps))
        return
    written = facts_table("written", {path.name: str(path) for path in result.files})
    answers = [
        f"{row['mix']} ({comparison['title']}): {row['answer']}"
        for comparison in result.results["comparisons"]
        for row in comparison["rows"]
        if row["answer"]
    ]
    display.result(result.results, written, *result.tables, *answers)
