"""What a classifier trains on: `name[:fraction]` parts joined by commas, and the rows that may take part in a split."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from usk.data.clip import Clip
from usk.data.leaks import leaking, made_elsewhere, why_emptied
from usk.data.source import Source
from usk.data.splits import Split, stable_order
from usk.errors import LeakError, UsageError, UskError
from usk.files import expanded
from usk.text import abbreviate_list


@dataclass(frozen=True)
class MixPart:
    """One part of a mix: `real`, `synth` or any source, and the share of its clips that is used."""

    name: str
    fraction: float = 1.0

    def __str__(self) -> str:
        return self.name if self.fraction == 1 else f"{self.name}:{self.fraction!r}"


@dataclass(frozen=True)
class Mix:
    """A parsed mix; `text` says it in one way of the several, `real` in front, then `synth`: its name in every table."""

    text: str
    parts: tuple[MixPart, ...]


def parse_mix(text: str, synth: str | os.PathLike[str] | None = None) -> Mix:
    """`real,synth`, `real:0.1,synth` or `synth`; any source's location may stand in place of a name.

    `synth` is where that is: a part that names the same place is called so too.
    """
    parts = []
    for piece in text.split(","):
        name, colon, share = piece.strip().rpartition(":")
        fraction = 1.0
        if colon:
            try:
                fraction = float(share)
            except ValueError:
                name = piece.strip()
        else:
            name = share
        if not name:
            raise UsageError(
                "has an empty part", field="mix", value=text, hint="Write for example real,synth or real:0.1."
            )
        if not 0 < fraction <= 1:
            raise UsageError(f"the fraction of {name} must lie above 0 and up to 1", field="mix", value=text)
        if synth is not None and name != "real" and _same_place(name, os.fspath(synth)):
            name = "synth"
        parts.append(MixPart(name, fraction))
    names = [part.name for part in parts]
    if len(set(names)) < len(names):
        raise UsageError("names a part twice", field="mix", value=text)
    parts.sort(key=lambda part: (part.name != "real", part.name != "synth"))
    return Mix(",".join(map(str, parts)), tuple(parts))


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


def share_of(clips: Sequence[Clip], rows: np.ndarray, fraction: float) -> np.ndarray:
    """About `fraction` of `rows`, the same share of every class, at least one each; smaller shares nest in larger."""
    if fraction >= 1:
        return rows
    by_class: dict[int, list[int]] = defaultdict(list)
    for row in rows.tolist():
        by_class[clips[row].label].append(row)
    kept = []
    for members in by_class.values():
        members.sort(key=lambda row: stable_order(clips[row].identity))
        kept += members[: max(1, round(fraction * len(members)))]
    return np.array(sorted(kept), dtype=np.int64)


def training_rows(
    mix: Mix,
    sources: Mapping[str, Source],
    real: Source,
    split: Split,
    known: dict[Any, np.ndarray] | None = None,
) -> TrainingRows:
    """Which rows of each part train in `split`. `known` keeps which clips leak, for other runs of the same sources: all seeds of
    a fold.

    With train_clips, or a fraction of the real clips (`real:0.1`), a synthetic clip trains only if all its parents are among
    those: what it brings of other real clips would be credited to synthesis.

    Raises LeakError if a part would be left empty by leaks, and UsageError for a part that trains nothing.
    """
    chosen = []
    dropped = 0
    share = min((part.fraction for part in mix.parts if sources[part.name] is real), default=1.0)
    given = share_of(real.clips, split.train, share)
    few = share < 1 or split.train_clips is not None
    for part in mix.parts:
        source = sources[part.name]
        if source is real:
            rows = given
        else:
            evaluated = split.by_group, split.validation.tobytes(), split.test.tobytes()
            leaks = known.get((part.name, evaluated)) if known is not None else None
            if leaks is None:
                leaks = leaking(source, real, split)
            if known is not None:
                known[part.name, evaluated] = leaks
            dropped += int(leaks.sum())
            if leaks.all():
                raise LeakError(
                    f"all {len(source)} clips of {part.name} would leak where {split.name} tests: {why_emptied(source, real, split)}",
                    field="mix",
                    value=mix.text,
                )
            elsewhere = made_elsewhere(source, real, given) & ~leaks if few else np.zeros_like(leaks)
            dropped += int(elsewhere.sum())
            if (leaks | elsewhere).all():
                raise UsageError(
                    f"none of the {len(source)} clips of {part.name} was made from the {_few_of(split, share, len(given))} alone",
                    field="mix",
                    value=mix.text,
                    hint=_fix_for_few(split, share, len(given)),
                )
            rows = share_of(source.clips, np.flatnonzero(~leaks & ~elsewhere), part.fraction)
        if not len(rows):
            raise UsageError(
                f"{part.name} has no clip to train on in {split.name}: its recordings test or validate there, all of them",
                field="mix",
                value=mix.text,
                hint="Test another fold, or name other folds or recordings.",
            )
        chosen.append((part.name, rows))
    return TrainingRows(tuple(chosen), dropped)


def _few_of(split: Split, share: float, n_real: int) -> str:
    if share < 1:
        return f"{n_real} real clips that train beside them in {split.name}"
    return f"{split.train_clips} real clips of {split.name}"


def _fix_for_few(split: Split, share: float, n_real: int) -> str:
    if not split.of_fold:
        return "Only the protocol folds can have such clips."
    if share < 1:
        return f"For few real clips give {n_real} train clips to `usk train` and `usk synth` alike, in place of real:{share:g}."
    return f"Make such clips with `usk synth`: {split.train_clips} train clips, test fold {split.name.removeprefix('fold')}."


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
