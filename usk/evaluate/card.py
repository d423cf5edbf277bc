"""What a comparison says in the card of the dataset that it is about."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any


def study_sections(
    comparisons: Sequence[dict[str, Any]], trained_here: Sequence[Mapping[str, int]]
) -> list[dict[str, Any]]:
    """What the card shows of comparisons of runs that trained on the dataset. Names of folders stand in place of their paths.

    Args:
        comparisons: `Comparison.as_dict()` of each.
        trained_here: for each, by mix, how many of its runs trained on this very dataset: of few real clips each seed and
            test fold has one of its own.
    """
    sections = []
    for one, here in zip(comparisons, trained_here, strict=True):
        rows = [
            {
                "mix": _without_paths(row["mix"]),
                "n_here": here.get(row["mix"], 0),
                **{
                    name: row[name]
                    for name in ("n_runs", "accuracy", "macro_f1", "n_real", "n_synthetic", "difference")
                },
                "sentence": row["sentence"].replace(row["mix"], _without_paths(row["mix"])),
            }
            for row in one["rows"]
        ]
        settings = {
            name: one[name]
            for name in ("protocol", "classifier", "augment", "train_clips", "optimistic", "details")
        }
        settings["classifier"] = _without_paths(settings["classifier"])
        places = {place for row in one["rows"] for place in (row["mix"], *row["mix"].split(","))}
        notes = [_without_places(note, places) for note in one["notes"]]
        sections.append(
            {**settings, "baseline": _without_paths(one["baseline"]), "rows": rows, "notes": notes}
        )
    return sections


def _without_places(note: str, places: Iterable[str]) -> str:
    """A note with the names of the folders that it speaks of, in place of their places."""
    for place in sorted(places, key=len, reverse=True):
        note = note.replace(place, _without_paths(place))
    return note


def _without_paths(text: str) -> str:
    """A mix or classifier as others may read it: of a folder's place, its name."""
    parts = []
    for part in text.split(","):
        kind, mark, place = part.rpartition(":") if part.startswith("hf:") else ("", "", part)
        local = place.startswith((".", "/", "~")) or place.count("/") > 1
        parts.append(f"{kind}{mark}{Path(place).name if local else place}")
    return ",".join(parts)
