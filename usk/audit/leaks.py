"""What of a synthetic dataset may train where each fold is tested, and rows whose parents are not what the row says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from usk.data.leaks import (
    Origins,
    evaluated_groups,
    foreign_generator,
    leaking,
    lineages,
    recordings_of,
    unknown_generator,
)
from usk.data.source import Source
from usk.data.splits import Split, fold_split


@dataclass(frozen=True)
class FoldLeaks:
    """What of a synthetic dataset may train where one fold is tested."""

    fold: int
    usable: int
    leaking: int
    # Recordings of the test and validation parts that the generator was trained on; None where it found none of them, but not
    # all that the generator was trained on is known.
    generator_trained_on: int | None
    filters_trained_on: int  # the same of the filters of clips that could train there otherwise


def fold_leaks(synthetic: Source, real: Source, folds: Sequence[int]) -> tuple[FoldLeaks, ...]:
    """One for each of `folds`, which are folds of `real`."""
    return tuple(_fold_leaks(synthetic, real, fold) for fold in folds)


def _fold_leaks(synthetic: Source, real: Source, fold: int) -> FoldLeaks:
    split = _split_testing(real, fold)
    leaks = int(leaking(synthetic, real, split).sum())
    tested = evaluated_groups(real, split)
    unknown = unknown_generator(synthetic) or foreign_generator(synthetic, real)
    trained_on = len(recordings_of(synthetic.generator_trained_on, real) & tested) or (None if unknown else 0)
    lineage_of = zip(synthetic.clips, lineages(synthetic, real), strict=True)
    filters = {clip.filter_folds for clip, lineage in lineage_of if not lineage & tested}
    by_filters = recordings_of(
        [part for folds, part in synthetic.filters_trained_on.items() if folds in filters], real
    )
    return FoldLeaks(fold, len(synthetic) - leaks, leaks, trained_on, len(by_filters & tested))


def _split_testing(real: Source, fold: int) -> Split:
    """The split in which `fold` tests. Where it is the only one, all clips test and none trains."""
    if len(real.folds) > 1:
        return fold_split(real.clips, fold)
    none = np.array([], dtype=np.int64)
    return Split(f"fold{fold}", none, none, np.arange(len(real)))


def wrong_provenance(synthetic: Source, real: Source) -> list[str]:
    """Rows with a parent that is not in `real`, or is of another class there; recordings and folds may be named anew."""
    wrong = []
    for clip, found in zip(synthetic.clips, Origins(synthetic, real).rows, strict=True):
        name = synthetic.class_names[clip.label]
        if not all(found):
            wrong.append(f"{clip.clip_id} (a parent is not in the source)")
        elif not all(name in {real.class_names[real.clips[row].label] for row in rows} for rows in found):
            wrong.append(f"{clip.clip_id} (a parent has another class in the source)")
    return wrong
