"""What a classifier trains on: names of sources joined by commas, and their rows that may take part in a split."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from usk.data.leaks import leaking, made_elsewhere, why_emptied
from usk.data.source import Source
from usk.data.splits import Split
from usk.errors import LeakError, UsageError, UskError
from usk.files import expanded
from usk.text import abbreviate_list


@dataclass(frozen=True)
class Mix:
    """A parsed mix; `text` says it in one way of the several, `real` in front, then `synth`: its name in every table."""

    text: str
    parts: tuple[str, ...]  # `real`, `synth`, or any source's location


def parse_mix(text: str, synth: str | os.PathLike[str] | None = None) -> Mix:
    """`real,synth` or `synth`; any source's location may stand in place of a name.

    `synth` is where that is: a part that names the same place is called so too.
    """
    parts = []
    for name in map(str.strip, text.split(",")):
        if not name:
            raise UsageError(
                "has an empty part", field="mix", value=text, hint="Write for example real,synth."
            )
        is_synth = synth is not None and name != "real" and _same_place(name, os.fspath(synth))
        parts.append("synth" if is_synth else name)
    if len(set(parts)) < len(parts):
        raise UsageError("names a part twice", field="mix", value=text)
    parts.sort(key=lambda name: (name != "real", name != "synth"))
    return Mix(",".join(parts), tuple(parts))


def _same_place(one: str, other: str) -> bool:
    here, there = expanded(one), expanded(other)
    return one == other or (here.is_dir() and there.is_dir() and here.samefile(there))


@dataclass(frozen=True)
class TrainingRows:
    """The rows of each part of a mix that train in one split, and how many were dropped: leaks, and synthetic clips that
    were made from more than the real clips which train there."""

    parts: tuple[tuple[str, np.ndarray], ...]  # part name, rows of its source
    dropped: int

    def count(self, sources: Mapping[str, Source], synthetic: bool) -> int:
        return int((self.synthetic(sources) == synthetic).sum())

    def synthetic(self, sources: Mapping[str, Source]) -> np.ndarray:
        """Of each row of each part in turn, whether it is synthetic: bool [n]."""
        return np.array([sources[name].clips[row].is_synthetic for name, rows in self.parts for row in rows])


def training_rows(
    mix: Mix,
    sources: Mapping[str, Source],
    real: Source,
    split: Split,
    known: dict[Any, np.ndarray] | None = None,
) -> TrainingRows:
    """Which rows of each part train in `split`. `known` keeps which clips leak, for other runs of the same sources: all seeds of
    a fold.

    With train_clips, a synthetic clip trains only if all its parents are among those: what it brings of other real clips
    would be credited to synthesis.

    Raises LeakError if a part would be left empty by leaks, and UsageError for a part that trains nothing.
    """
    chosen = []
    dropped = 0
    few = split.train_clips is not None
    for name in mix.parts:
        source = sources[name]
        if source is real:
            rows = split.train
        else:
            evaluated = split.by_group, split.validation.tobytes(), split.test.tobytes()
            leaks = known.get((name, evaluated)) if known is not None else None
            if leaks is None:
                leaks = leaking(source, real, split)
            if known is not None:
                known[name, evaluated] = leaks
            dropped += int(leaks.sum())
            if leaks.all():
                raise LeakError(
                    f"all {len(source)} clips of {name} would leak where {split.name} tests: {why_emptied(source, real, split)}",
                    field="mix",
                    value=mix.text,
                )
            elsewhere = made_elsewhere(source, real, split.train) & ~leaks if few else np.zeros_like(leaks)
            dropped += int(elsewhere.sum())
            if (leaks | elsewhere).all():
                raise UsageError(
                    f"none of the {len(source)} clips of {name} was made from the {split.train_clips} real clips of "
                    f"{split.name} alone",
                    field="mix",
                    value=mix.text,
                    hint="Make such clips with `usk study`."
                    if split.of_fold
                    else "Only the protocol folds can have such clips.",
                )
            rows = np.flatnonzero(~leaks & ~elsewhere)
        if not len(rows):
            raise UsageError(
                f"{name} has no clip to train on in {split.name}: its recordings test or validate there, all of them",
                field="mix",
                value=mix.text,
                hint="Test another fold, or name other folds or recordings.",
            )
        chosen.append((name, rows))
    return TrainingRows(tuple(chosen), dropped)


def label_map(source: Source, real: Source) -> np.ndarray:
    """Class numbers of `source` in terms of `real`'s: int64 [n classes of source]. Unknown classes raise UskError."""
    unknown = [name for name in source.class_names if name not in real.class_names and source.counts()[name]]
    if unknown:
        raise UskError(
            f"{source.location} has classes that {real.location} has not: {abbreviate_list(unknown)}; "
            f"the real classes are {', '.join(real.class_names)}",
            hint="Make it again of these classes with `usk synth`."
            if source.has_synthetic
            else "Leave them out or rename them.",
        )
    return np.array(
        [real.class_names.index(name) if name in real.class_names else -1 for name in source.class_names],
        dtype=np.int64,
    )
