"""Parse mixes, such as `real,synth`, and choose the rows of each source that may train in a split."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from usk.data.leaks import explain_all_leak, has_outside_parent, leaking
from usk.data.source import Source
from usk.data.splits import Split
from usk.errors import LeakError, UsageError, UskError
from usk.files import expanded
from usk.text import abbreviate_list


@dataclass(frozen=True)
class Mix:
    """The sources that a classifier trains on together."""

    text: str  # the parts joined by commas: the mix's name in tables
    parts: tuple[str, ...]  # `real`, `synth`, then locations of other sources


def parse_mix(text: str, synth: str | os.PathLike[str] | None = None) -> Mix:
    """Parse names and locations of sources joined by commas. Raise UsageError with the field `mix`.

    `synth` is the location of the part of this name. Other spellings of the same location are renamed to `synth`.
    """
    parts = []
    for name in map(str.strip, text.split(",")):
        if not name:
            message = "has an empty part"
            raise UsageError(message, field="mix", value=text, hint="Write for example real,synth.")
        is_synth = synth is not None and name != "real" and _same_place(name, os.fspath(synth))
        parts.append("synth" if is_synth else name)
    if len(set(parts)) < len(parts):
        raise UsageError("names a part twice", field="mix", value=text)
    parts.sort(key=lambda name: (name != "real", name != "synth"))
    return Mix(",".join(parts), tuple(parts))


def _same_place(one: str, other: str) -> bool:
    first, second = expanded(one), expanded(other)
    return one == other or (first.is_dir() and second.is_dir() and first.samefile(second))


@dataclass(frozen=True)
class TrainingRows:
    """The rows of each part of a mix that train in one split."""

    parts: tuple[tuple[str, np.ndarray], ...]  # part name, rows of its source
    dropped: int  # leaks, and synthetic clips with parents outside the real training clips

    def count(self, sources: Mapping[str, Source], synthetic: bool) -> int:
        return int((self.synthetic(sources) == synthetic).sum())

    def synthetic(self, sources: Mapping[str, Source]) -> np.ndarray:
        """Return whether each row of each part in turn is synthetic: bool [n]."""
        return np.array([sources[name].clips[row].is_synthetic for name, rows in self.parts for row in rows])


def training_rows(
    mix: Mix,
    sources: Mapping[str, Source],
    real: Source,
    split: Split,
    leaks_cache: dict[Any, np.ndarray] | None = None,
) -> TrainingRows:
    """Choose the rows of each part that train in `split`.

    If the split trains on `train_clips` real clips, a synthetic clip trains only if all its parents are among these: otherwise
    synthesis would get the credit for other real clips. `leaks_cache` keeps leaks for other calls with the same sources.

    Raise LeakError if all clips of a part leak, and UsageError if a part has no other clips to train on.
    """
    chosen = []
    dropped = 0
    for name in mix.parts:
        source = sources[name]
        rows = split.train
        if source is not real:
            rows = _rows_without_leaks(
                name, source, real, split, mix, {} if leaks_cache is None else leaks_cache
            )
            dropped += len(source) - len(rows)
        if not len(rows):
            message = f"{name} has no clip to train on in {split.name}: its recordings test or validate there, all of them"
            hint = "Test another fold, or name other folds or recordings."
            raise UsageError(message, field="mix", value=mix.text, hint=hint)
        chosen.append((name, rows))
    return TrainingRows(tuple(chosen), dropped)


def _rows_without_leaks(
    name: str, source: Source, real: Source, split: Split, mix: Mix, leaks_cache: dict[Any, np.ndarray]
) -> np.ndarray:
    key = (name, split.by_group, split.validation.tobytes(), split.test.tobytes())
    if key not in leaks_cache:
        leaks_cache[key] = leaking(source, real, split)
    leaks = leaks_cache[key]
    if leaks.all():
        message = f"all {len(source)} clips of {name} would leak where {split.name} tests: {explain_all_leak(source, real, split)}"
        raise LeakError(message, field="mix", value=mix.text)
    dropped = leaks if split.train_clips is None else leaks | has_outside_parent(source, real, split.train)
    if dropped.all():
        hint = "Only the protocol folds can have such clips."
        raise UsageError(
            f"none of the {len(source)} clips of {name} was made from the {split.train_clips} real clips of "
            f"{split.name} alone",
            field="mix",
            value=mix.text,
            hint="Make such clips with `usk study`." if split.of_fold else hint,
        )
    return np.flatnonzero(~dropped)


def label_map(source: Source, real: Source) -> np.ndarray:
    """Return the number of each class of `source` in `real`: int64 [n classes]. Raise UskError for clips of other classes."""
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
