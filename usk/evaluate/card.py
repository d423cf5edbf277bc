"""What a comparison says in the card of the dataset that it is about."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from usk.cards import escape_markdown
from usk.evaluate.compare import Comparison, runs_on
from usk.evaluate.tables import mix_table
from usk.tables import markdown

ROW = ("n_runs", "accuracy", "macro_f1", "n_real", "n_synthetic", "difference", "verdict")
SETTINGS = ("protocol", "augment", "train_clips", "optimistic", "details")


def study_section(comparison: Comparison, revision: str) -> dict[str, Any]:
    """What the card of the dataset of this revision shows of a comparison, and its results as plain values.

    Names of folders stand in place of their paths. Rows say how many of their runs trained on this very dataset (`n_here`): of few
    train clips each seed and test fold has one of its own.
    """
    values, here = comparison.as_dict(), runs_on(comparison, revision)
    places = {place for row in comparison.rows for place in (row.mix, *row.mix.split(","))}

    def public(text: str) -> str:
        for place in sorted(places, key=len, reverse=True):
            text = text.replace(place, _without_paths(place))
        return text

    rows = [
        {
            "mix": _without_paths(row["mix"]),
            "n_here": here[row["mix"]],
            **{name: row[name] for name in ROW},
            "sentence": public(row["sentence"]),
        }
        for row in values["rows"]
    ]
    table = mix_table(comparison)
    cells = [tuple(escape_markdown(public(cell)) for cell in row) for row in table.rows]
    headers = tuple(
        replace(column, header=escape_markdown(public(column.header))) for column in table.columns
    )
    return {
        **{name: values[name] for name in SETTINGS},
        "classifier": _without_paths(comparison.classifier),
        "baseline": _without_paths(comparison.baseline),
        "rows": rows,
        "table": markdown(replace(table, columns=headers, rows=cells)),
        "notes": [public(note) for note in comparison.notes],
    }


def _without_paths(text: str) -> str:
    """A mix or classifier as others may read it: of a folder's place, its name."""
    parts = []
    for part in text.split(","):
        kind, mark, place = part.rpartition(":") if part.startswith("hf:") else ("", "", part)
        local = place.startswith((".", "/", "~")) or place.count("/") > 1
        parts.append(f"{kind}{mark}{Path(place).name if local else place}")
    return ",".join(parts)
