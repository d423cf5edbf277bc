"""The row that everything else carries: one labeled piece of mono audio, and where it came from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

NO_MODEL = "none"
"""The `model` of synthetic clips that were made without a generator."""


@dataclass(frozen=True, slots=True)
class Clip:
    """One labeled clip.

    `sound` is what the clip is: a hash of its decoded sound, "" until it is decoded (`usk.data.decode`). `clip_id` and `group`
    are labels, with the source's name in front; `group` is the recording that the clip was cut from. `fold` is the official
    (or made) fold, 0 where a synthetic clip's parents do not share one. The provenance fields are empty for real clips;
    `parents` names the parents by their `identity`.
    """

    clip_id: str
    label: int
    group: str
    fold: int
    duration_s: float = 0.0
    parents: tuple[str, ...] = ()
    parent_groups: tuple[str, ...] = ()
    parent_folds: tuple[int, ...] = ()
    strategy: str = ""
    alpha: float = 0.0
    seed: int = 0
    steps: int = 0
    model: str = ""
    gain_db: float = 0.0
    filter_score: float | None = None
    filter_folds: tuple[int, ...] = ()  # what the classifier filter that scored it was trained on
    parent_names: tuple[str, ...] = ()  # clip ids, to read
    parent_seconds: tuple[float, ...] = ()
    prompt: str = ""
    sound: str = ""

    @property
    def is_synthetic(self) -> bool:
        return bool(self.parents)

    @property
    def identity(self) -> str:
        """Its sound once it is decoded, before that its id."""
        return self.sound or self.clip_id

    @property
    def lineage(self) -> frozenset[str]:
        """The recordings whose sound is in this clip, as named when it was made: its own, or its parents' if it is synthetic."""
        return frozenset(self.parent_groups) if self.is_synthetic else frozenset((self.group,))


PROVENANCE_COLUMNS = (
    "parents",
    "parent_groups",
    "parent_folds",
    "strategy",
    "alpha",
    "seed",
    "steps",
    "model",
    "gain_db",
    "filter_score",
)
OPTIONAL_COLUMNS = ("parent_names", "parent_seconds", "filter_folds", "prompt")


def provenance_of(row: dict[str, Any]) -> dict[str, Any]:
    """The provenance fields of one dataset row, as `Clip` takes them."""
    return {
        "parents": tuple(row["parents"]),
        "parent_groups": tuple(row["parent_groups"]),
        "parent_folds": tuple(int(fold) for fold in row["parent_folds"]),
        "strategy": str(row["strategy"]),
        "alpha": float(row["alpha"]),
        "seed": int(row["seed"]),
        "steps": int(row["steps"]),
        "model": str(row["model"]),
        "gain_db": float(row["gain_db"]),
        "filter_score": None if row["filter_score"] is None else float(row["filter_score"]),
        "filter_folds": tuple(int(fold) for fold in row.get("filter_folds") or ()),
        "parent_names": tuple(row.get("parent_names") or ()),
        "parent_seconds": tuple(float(length_s) for length_s in row.get("parent_seconds") or ()),
        "prompt": str(row.get("prompt") or ""),
    }
