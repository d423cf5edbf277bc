"""Planned clips, stored in columns so that a plan of a million clips fits into memory. Pure functions."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, overload

import numpy as np

from usk.synth.strategies import DEFAULT_STRATEGIES


@dataclass(frozen=True, slots=True)
class PlannedClip:
    """A synthetic clip to make. Its fold is its parents' fold, or 0 if they lie in different folds."""

    clip_id: str
    label: int
    fold: int
    parents: tuple[str, ...]
    parent_groups: tuple[str, ...]
    parent_folds: tuple[int, ...]
    weights: tuple[float, ...]  # of the parents; they sum to 1
    seed: int
    parent_names: tuple[str, ...] = ()
    parent_seconds: tuple[float, ...] = ()
    strategy: str = DEFAULT_STRATEGIES[0]
    prompt: str = ""  # for generators that take prompts

    @property
    def alpha(self) -> float:
        """Return the weight of the second parent; 0 with one parent."""
        return round(1 - self.weights[0], 6)

    def as_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in FIELDS}


FIELDS = tuple(field.name for field in fields(PlannedClip))

COLUMN_TYPES = {"label": "i", "fold": "i", "seed": "q", "first_parent": "q", "n_parents": "b"}
"""Type codes of the columns with one number a clip."""


class Parent(NamedTuple):
    """A parent of planned clips. Name and seconds are None in plans without them."""

    identity: str
    group: str
    fold: int
    name: str | None
    seconds: float | None


class PlannedClips(Sequence[PlannedClip]):
    """A sequence of planned clips.

    A clip takes about 140 bytes: each parent is stored once, and a `PlannedClip` is built on access.
    """

    def __init__(self, clips: Iterable[PlannedClip] = ()) -> None:
        self._ids: list[str] = []
        self._prompts: list[str] = []
        self._strategies: list[str] = []
        self._places: dict[Parent, int] = {}
        self._parents: list[Parent] = []
        self._columns: dict[str, array[Any]] = {name: array(code) for name, code in COLUMN_TYPES.items()}
        # The parents' places in `_parents` and their weights, one clip after another
        self._place_of, self._weights = array("i"), array("d")
        self.extend(clips)

    def extend(self, clips: Iterable[PlannedClip]) -> None:
        """Append clips."""
        columns = self._columns
        for clip in clips:
            unknown = (None,) * len(clip.parents)
            columns["first_parent"].append(len(self._place_of))
            columns["n_parents"].append(len(clip.parents))
            names, seconds = clip.parent_names or unknown, clip.parent_seconds or unknown
            for parent in map(Parent, clip.parents, clip.parent_groups, clip.parent_folds, names, seconds):
                place = self._places.setdefault(parent, len(self._places))
                if place == len(self._parents):
                    self._parents.append(parent)
                self._place_of.append(place)
            self._ids.append(clip.clip_id)
            self._prompts.append(clip.prompt)
            self._strategies.append(sys.intern(clip.strategy))
            columns["label"].append(clip.label)
            columns["fold"].append(clip.fold)
            columns["seed"].append(clip.seed)
            self._weights.extend(clip.weights)

    def __len__(self) -> int:
        return len(self._ids)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    @overload
    def __getitem__(self, index: int) -> PlannedClip: ...
    @overload
    def __getitem__(self, index: slice) -> PlannedClips: ...
    def __getitem__(self, index: int | slice) -> PlannedClip | PlannedClips:
        if isinstance(index, slice):
            return self.take(np.arange(len(self))[index])
        if index < 0:
            index += len(self)
        columns = self._columns
        first = columns["first_parent"][index]
        of_clip = slice(first, first + columns["n_parents"][index])
        parents = [self._parents[place] for place in self._place_of[of_clip]]
        return PlannedClip(
            clip_id=self._ids[index],
            label=columns["label"][index],
            fold=columns["fold"][index],
            parents=tuple([parent.identity for parent in parents]),
            parent_groups=tuple([parent.group for parent in parents]),
            parent_folds=tuple([parent.fold for parent in parents]),
            weights=tuple(self._weights[of_clip]),
            seed=columns["seed"][index],
            parent_names=tuple([parent.name for parent in parents if parent.name is not None]),
            parent_seconds=tuple([parent.seconds for parent in parents if parent.seconds is not None]),
            strategy=self._strategies[index],
            prompt=self._prompts[index],
        )

    def __iter__(self) -> Iterator[PlannedClip]:
        return (self[index] for index in range(len(self)))

    def take(self, order: np.ndarray) -> PlannedClips:
        """Return the clips at the places `order` [n], in that order."""
        taken, places = PlannedClips(), order.tolist()
        taken._parents, taken._places = self._parents, self._places
        taken._place_of, taken._weights = self._place_of, self._weights
        taken._ids = [self._ids[place] for place in places]
        taken._prompts = [self._prompts[place] for place in places]
        taken._strategies = [self._strategies[place] for place in places]
        for name, column in self._columns.items():
            taken._columns[name] = array(column.typecode, np.asarray(column)[order].tobytes())
        return taken
