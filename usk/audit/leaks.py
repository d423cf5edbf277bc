"""Count the clips that would leak into each test fold, and find clips with wrong parents."""

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
    """The clips of a synthetic dataset that may be trained on (`usable`) if one fold is tested, and those that would leak."""

    fold: int
    usable: int
    leaking: int
    # How many recordings of the test and validation parts the generator was trained on. None if no such recording is known,
    # but the generator's training clips are not all known.
    generator_trained_on: int | None
    filters_trained_on: int  # the same for the filters of the other clips


def fold_leaks(synthetic: Source, real: Source, fold: int) -> FoldLeaks:
    """Return the leaks into `fold`, which is a fold of `real`."""
    split = _split_with_test_fold(real, fold)
    n_leaking = int(leaking(synthetic, real, split).sum())
    evaluated = evaluated_groups(real, split)
    n_trained_on: int | None = len(recordings_of(synthetic.generator_trained_on, real) & evaluated)
    if not n_trained_on and (unknown_generator(synthetic) or foreign_generator(synthetic, real)):
        n_trained_on = None
    clean_clips = [
        clip
        for clip, recordings in zip(synthetic.clips, lineages(synthetic, real), strict=True)
        if not recordings & evaluated
    ]
    filter_folds = {clip.filter_folds for clip in clean_clips}
    filter_parts = [part for folds, part in synthetic.filters_trained_on.items() if folds in filter_folds]
    n_filters = len(recordings_of(filter_parts, real) & evaluated)
    return FoldLeaks(fold, len(synthetic) - n_leaking, n_leaking, n_trained_on, n_filters)


def count_leaking(synthetic: Source, real: Source, folds: Sequence[int]) -> int:
    """Return the number of clips that leak into any of `folds`."""
    leaks = [leaking(synthetic, real, _split_with_test_fold(real, fold)) for fold in folds]
    return int(np.any(leaks, axis=0).sum())


def _split_with_test_fold(real: Source, fold: int) -> Split:
    """Return the split that tests `fold`. If there is only one fold, all clips are test clips."""
    if len(real.folds) > 1:
        return fold_split(real.clips, fold)
    none = np.array([], dtype=np.int64)
    return Split(f"fold{fold}", none, none, np.arange(len(real)))


def wrong_provenance(synthetic: Source, real: Source) -> list[str]:
    """Return texts for clips with a parent that is not in `real` or has another class there. Parents are found by content."""
    wrong = []
    for clip, parents in zip(synthetic.clips, Origins(synthetic, real).rows, strict=True):
        name = synthetic.class_names[clip.label]
        if not all(parents):
            wrong.append(f"{clip.clip_id} (a parent is not in the source)")
        elif not all(name in {real.class_names[real.clips[row].label] for row in rows} for rows in parents):
            wrong.append(f"{clip.clip_id} (a parent has another class in the source)")
    return wrong
