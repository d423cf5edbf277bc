"""Planned clips, kept in columns: a plan of a million fits into memory. Pure."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, overload

import numpy as np


@dataclass(frozen=True, slots=True)
class PlannedClip:
    """One synthetic clip to make. Its fold is its parents' fold, 0 if they do not share one."""

    clip_id: str
    label: int
    fold: int
    parents: tuple[str, ...]
    parent_groups: tuple[str, ...]
    parent_folds: tuple[int, ...]
    weights: tuple[float, ...]  # the parents' shares, which sum to 1
    seed: int
    parent_names: tuple[str, ...] = ()
    parent_seconds: tuple[float, ...] = ()
    prompt: str = ""  # of generators that take prompts

    @property
    def alpha(self) -> float:
        """The share of what is not the first parent: of two, the second's."""
        return round(1 - self.weights[0], 6)

    def as_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in FIELDS}


FIELDS = tuple(field.name for field in fields(PlannedClip))


COLUMNS = {"label": "i", "fold": "i", "parents": "i", "weights": "d", "seed": "q"}
"""Numbers that are kept of each clip, by the code of their type; several of a clip follow each other."""


class Parent(NamedTuple):
    """What a planned clip says of one of its parents; name and seconds are None in plans that leave them out."""

    identity: str
    group: str
    fold: int
    name: str | None
    seconds: float | None


class PlannedClips(Sequence[PlannedClip]):
    """Planned clips of one number of parents. Each takes about 120 bytes: what a parent is, is kept once for all its clips,
    and a `PlannedClip` is made when it is looked at."""

    def __init__(self, clips: Iterable[PlannedClip] = ()) -> None:
        self._ids: list[str] = []
        self._prompts: list[str] = []
        self._places: dict[Parent, int] = {}
        self._parents: list[Parent] = []
        self._n_parents = 0
        self._columns: dict[str, array[Any]] = {name: array(kind) for name, kind in COLUMNS.items()}
        self.extend(clips)

    def extend(self, clips: Iterable[PlannedClip]) -> None:
        columns: dict[str, array[Any]] = self._columns
        for clip in clips:
            self._n_parents = self._n_parents or len(clip.parents)
            if len(clip.parents) != self._n_parents:
                raise ValueError(f"{clip.clip_id} has {len(clip.parents)} parents, others {self._n_parents}")
            unknown = (None,) * self._n_parents
            names, seconds = clip.parent_names or unknown, clip.parent_seconds or unknown
            for parent in map(Parent, clip.parents, clip.parent_groups, clip.parent_folds, names, seconds):
                place = self._places.setdefault(parent, len(self._places))
                if place == len(self._parents):
                    self._parents.append(parent)
                columns["parents"].append(place)
            self._ids.append(clip.clip_id)
            self._prompts.append(clip.prompt)
            columns["label"].append(clip.label)
            columns["fold"].append(clip.fold)
            columns["seed"].append(clip.seed)
            columns["weights"].extend(clip.weights)

    def __len__(self) -> int:
        return len(self._ids)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Sequence)
            and len(self) == len(other)
            and all(one == another for one, another in zip(self, other, strict=True))
        )

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
        several = slice(index * self._n_parents, (index + 1) * self._n_parents)
        columns = self._columns
        parents = [self._parents[place] for place in columns["parents"][several]]
        return PlannedClip(
            clip_id=self._ids[index],
            label=columns["label"][index],
            fold=columns["fold"][index],
            parents=tuple([parent.identity for parent in parents]),
            parent_groups=tuple([parent.group for parent in parents]),
            parent_folds=tuple([parent.fold for parent in parents]),
            weights=tuple(columns["weights"][several]),
            seed=columns["seed"][index],
            parent_names=tuple([parent.name for parent in parents if parent.name is not None]),
            parent_seconds=tuple([parent.seconds for parent in parents if parent.seconds is not None]),
            prompt=self._prompts[index],
        )

    def __iter__(self) -> Iterator[PlannedClip]:
        return (self[index] for index in range(len(self)))

    def take(self, order: np.ndarray) -> PlannedClips:
        """The clips at the places `order` [n], in that order."""
        taken, places = PlannedClips(), order.tolist()
        taken._parents, taken._places, taken._n_parents = self._parents, self._places, self._n_parents
        taken._ids = [self._ids[place] for place in places]
        taken._prompts = [self._prompts[place] for place in places]
        for name, column in self._columns.items():
            of_clips = np.asarray(column).reshape(len(self), -1) if len(self) else np.asarray(column)
            taken._columns[name] = array(column.typecode, of_clips[order].tobytes())
        return taken
