"""The row of one labeled clip, and the provenance of a synthetic one."""

from __future__ import annotations

from dataclasses import dataclass, fields

NO_MODEL = "none"
"""The `model` of synthetic clips that were made without a generator."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """How a synthetic clip was made; empty for real clips. Each field is a column of a synthetic dataset, with its name and type.

    `usk.synth.clip_renderer.ClipRenderer.row` fills them.
    """

    parents: tuple[str, ...] = ()  # each parent's `Clip.identity`
    parent_names: tuple[str, ...] = ()  # clip ids, for people
    parent_seconds: tuple[float, ...] = ()
    parent_groups: tuple[str, ...] = ()
    parent_folds: tuple[int, ...] = ()
    strategy: str = ""
    alpha: float = 0.0  # the share of the parents other than the first
    weights: tuple[float, ...] = ()  # the parents' shares
    seed: int = 0
    steps: int = 0
    model: str = ""
    gain_db: float = 0.0  # applied to reach the parents' loudness
    filter_score: float | None = None
    prompt: str = ""
    filter_folds: tuple[int, ...] = ()  # folds that the classifier filter which scored it was trained on


REQUIRED_COLUMNS = frozenset((
    "parents", "parent_groups", "parent_folds", "strategy", "alpha", "seed", "steps", "model", "gain_db", "filter_score",
))  # fmt: skip
"""Columns by which a dataset of usk is known. It may lack the others, or have no values in them."""
PROVENANCE_COLUMNS = tuple(field.name for field in fields(Provenance))


@dataclass(frozen=True, slots=True)
class Clip(Provenance):
    """One labeled clip.

    `sound` identifies the clip: a hash of its decoded audio, "" before it is decoded (`usk.data.decode`). `clip_id` and `group`
    are names that begin with the source's name. `group` is the recording that the clip was cut from. `fold` is the published
    or made fold, or 0 for a synthetic clip whose parents come from several folds.
    """

    clip_id: str
    label: int
    group: str
    fold: int
    duration_s: float = 0.0
    sound: str = ""

    def __repr__(self) -> str:
        """Return the fields that have values: a real clip shows no provenance."""
        values = {
            one.name: getattr(self, one.name)
            for one in sorted(fields(self), key=lambda one: bool(one.kw_only))
        }
        shown = (f"{name}={value!r}" for name, value in values.items() if value or name in ("label", "fold"))
        return f"Clip({', '.join(shown)})"

    @property
    def is_synthetic(self) -> bool:
        return bool(self.parents)

    @property
    def identity(self) -> str:
        """The sound, or before decoding the clip id."""
        return self.sound or self.clip_id

    @property
    def lineage(self) -> frozenset[str]:
        """The recordings that are in this clip, by their names when it was made: the parents' recordings for a synthetic clip."""
        return frozenset(self.parent_groups) if self.is_synthetic else frozenset((self.group,))
