"""`usk audit`: check a synthetic dataset for leaks, defects, near-copies and distances."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Option

from usk.cli.options import ColumnsOption, DeviceOption, ReadOptions, RealOption, display_for, split_numbers

if TYPE_CHECKING:
    from usk.audit.audit import Audit
    from usk.tables import Table

FOUND_LEAKS = 3  # exit code


def command(
    ctx: typer.Context,
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="Synthetic dataset.")] = "synth",
    real: RealOption = None,
    test_folds: Annotated[
        str | None, Option(help="Folds held out for testing, which no clip may leak into.")
    ] = None,
    embedding: Annotated[
        str,
        Option(
            help="Features for comparing sounds: log-mel, the classifier of a run, an audio model of transformers (a folder or "
            "a Hub id\\[@revision]), or auto: the run under ./runs trained on most real clips alone, else log-mel."
        ),
    ] = "auto",
    device: DeviceOption = "auto",
    save: Annotated[
        bool, Option("--save", help="Keep the results in the dataset's folder and show them in its card.")
    ] = False,
    columns: ColumnsOption = None,
) -> None:
    """Compare a synthetic dataset with the real clips it was made from: leaks, defects, near-copies, distances.

    Exit code 3: a clip's row names other parents than its own, or clips would leak into --test-folds.
    """
    folds = split_numbers(test_folds, "test_folds")
    display, reading = display_for(ctx), ReadOptions.parse(columns)
    from usk.audit.audit import audit
    from usk.audit.embeddings import load_embedding
    from usk.audit.tables import card_section
    from usk.data.open import open_source
    from usk.device import resolve_device
    from usk.synth.card import open_own_dataset, save_audit

    chosen = resolve_device(device)
    if save:
        open_own_dataset(Path(dataset))  # fail before the audit if it cannot be saved
    synthetic = open_source(dataset, field="dataset")
    source = reading.open(real)
    for note in source.notes:
        display.warn(note)
    result = audit(
        synthetic,
        source,
        test_folds=folds,
        embedding=load_embedding(embedding, class_names=source.class_names, device=chosen),
        reporter=display,
    )
    if save:
        section = {**result.as_dict(), **card_section(result)}
        save_audit(Path(dataset), section, f"{source.name} ({source.revision})")
    display.result(result.as_dict(), *_output(result))
    if result.leaks:
        raise typer.Exit(FOUND_LEAKS)


def _output(result: Audit) -> list[str | Table]:
    """Return the tables, then the findings with the worst first."""
    from usk.audit.tables import audit_tables, findings
    from usk.cli.display import escape

    styles = {"bad": "bold red", "look": "bold"}
    problems = [
        f"[{styles[finding.kind]}]{finding.what}[/]: {escape(finding.text)}"
        for finding in findings(result)
        if finding.kind in styles
    ]
    clean = [finding.what for finding in findings(result) if finding.kind == "good"]
    return [
        *audit_tables(result),
        *problems,
        *([f"none found: {', '.join(clean)}"] if clean else []),
        *(f"[dim]{escape(note)}[/dim]" for note in result.notes),
    ]
