"""The row that everything else carries: one labeled piece of mono audio, and where it came from."""

from __future__ import annotations

from dataclasses import dataclass, fields

NO_MODEL = "none"
"""The `model` of synthetic clips that were made without a generator."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Where a synthetic clip came from, empty for real ones. Each field is a column of a synthetic dataset, of its name and type,
    which `usk.synth.clip_renderer.ClipRenderer.row` fills."""

    parents: tuple[str, ...] = ()  # by their `Clip.identity`
    parent_names: tuple[str, ...] = ()  # clip ids, to read
    parent_seconds: tuple[float, ...] = ()
    parent_groups: tuple[str, ...] = ()
    parent_folds: tuple[int, ...] = ()
    strategy: str = ""
    alpha: float = 0.0  # the share of what is not the first parent
    weights: tuple[float, ...] = ()  # the parents' shares
    seed: int = 0
    steps: int = 0
    model: str = ""
    gain_db: float = 0.0  # to the parents' loudness
    filter_score: float | None = None
    prompt: str = ""
    filter_folds: tuple[int, ...] = ()  # what the classifier filter that scored it was trained on


REQUIRED_COLUMNS = frozenset((
    "parents", "parent_groups", "parent_folds", "strategy", "alpha", "seed", "steps", "model", "gain_db", "filter_score",
))  # fmt: skip
"""Those by which a synthetic dataset is known. It may lack others, or have no value in them."""
PROVENANCE_COLUMNS = tuple(field.name for field in fields(Provenance))


@dataclass(frozen=True, slots=True)
class Clip(Provenance):
    """One labeled clip.

    `sound` is what the clip is: a hash of its decoded sound, "" until it is decoded (`usk.data.decode`). `clip_id` and `group`
    are labels, with the source's name in front; `group` is the recording that the clip was cut from. `fold` is the official
    (or made) fold, 0 where a synthetic clip's parents do not share one.
    """

    clip_id: str
    label: int
    group: str
    fold: int
    duration_s: float = 0.0
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
