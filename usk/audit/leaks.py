"""What of a synthetic dataset may train where each fold is tested, and rows whose parents are not what the row says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from usk.data.mix import (
    foreign_generator,
    generator_training_groups,
    leaking,
    lineages,
    renamed_parents,
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
    tested = {real.clips[row].group for row in np.union1d(split.validation, split.test).tolist()}
    unknown = (
        unknown_generator(synthetic)
        or foreign_generator(synthetic, real)
        or (synthetic.model_groups and renamed_parents(synthetic, real))
    )
    trained_on = len(generator_training_groups(synthetic, real) & tested) or (None if unknown else 0)
    lineage_of = zip(synthetic.clips, lineages(synthetic, real), strict=True)
    filters = {clip.filter_folds for clip, lineage in lineage_of if not lineage & tested}
    by_filters = {group for folds in filters for group in synthetic.filter_groups.get(folds, ())}
    return FoldLeaks(fold, len(synthetic) - leaks, leaks, trained_on, len(by_filters & tested))


def _split_testing(real: Source, fold: int) -> Split:
    """The split in which `fold` tests. Where it is the only one, all clips test and none trains."""
    if len(real.folds) > 1:
        return fold_split(real.clips, fold)
    none = np.array([], dtype=np.int64)
    return Split(f"fold{fold}", none, none, np.arange(len(real)))


def wrong_provenance(synthetic: Source, real: Source) -> list[str]:
    """Rows whose parents are not in `real`, or have another recording, fold or class there than the row says; made folds, which
    change with every recording that comes or goes, are not compared."""
    known = {clip.clip_id: clip for clip in real.clips}
    wrong = []
    for clip in synthetic.clips:
        name = synthetic.class_names[clip.label]
        parents = [known.get(parent) for parent in clip.parents]
        if any(parent is None for parent in parents):
            wrong.append(f"{clip.clip_id} (a parent is not in the source)")
        elif any(
            (parent.group, real.class_names[parent.label]) != (group, name)
            or (parent.fold != fold and not real.made_folds)
            for parent, group, fold in zip(parents, clip.parent_groups, clip.parent_folds, strict=True)
            if parent is not None
        ):
            wrong.append(f"{clip.clip_id} (a parent has another recording, fold or class in the source)")
    return wrong
