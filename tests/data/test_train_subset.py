"""Small training parts: their clips, and the synthetic clips that train with them."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.clips import child, source_of
from usk.data.clip import Clip
from usk.data.leaks import has_outside_parent
from usk.data.mix import parse_mix, training_rows
from usk.data.splits import fold_split
from usk.data.train_subset import (
    TrainSubset,
    draw_train_clips,
    parse_train_clips,
    subset_name,
    subset_split,
)
from usk.errors import UsageError


def corpus(
    recordings: dict[tuple[int, int], int], cuts: int = 2, n_classes: int = 3
) -> tuple[list[Clip], np.ndarray]:
    """`recordings` of each (class, fold), `cuts` clips each, and all their rows."""
    clips = [
        Clip(f"s/{label}-{fold}-{number}-{cut}", label, f"s/{label}-{fold}-{number}", fold)
        for (label, fold), n in recordings.items()
        for number in range(n)
        for cut in range(cuts)
    ]
    return clips, np.arange(len(clips))


corpora = st.builds(
    lambda sizes, cuts: corpus({(label, 1): n for label, n in enumerate(sizes)}, cuts),
    st.lists(st.integers(1, 6), min_size=1, max_size=4),
    st.integers(1, 4),
)


@given(corpora, st.integers(1, 60), st.integers(0, 5))
def test_smaller_draws_are_part_of_larger_ones(
    drawn: tuple[list[Clip], np.ndarray], n: int, seed: int
) -> None:
    clips, rows = drawn
    rows = rows[::2]
    few, more = draw_train_clips(clips, rows, n, seed), draw_train_clips(clips, rows, n + 3, seed)
    assert len(few) == min(n, len(rows))
    assert few.tolist() == sorted(set(few.tolist()))
    assert set(few.tolist()) <= set(more.tolist()) <= set(rows.tolist())
    shuffled = np.random.default_rng(seed).permutation(rows)
    assert draw_train_clips(clips, shuffled, n, seed).tolist() == few.tolist()


@given(corpora, st.integers(1, 60), st.integers(0, 5))
def test_train_clips_are_balanced_over_classes_and_spread_over_recordings(
    drawn: tuple[list[Clip], np.ndarray], n: int, seed: int
) -> None:
    clips, rows = drawn
    chosen = [clips[row] for row in draw_train_clips(clips, rows, n, seed)]
    have, taken = Counter(clip.label for clip in clips), Counter(clip.label for clip in chosen)
    for label in have:  # a class has fewer than another only if it has no more to give, or by the last turn
        assert taken[label] >= min(have[label], max(taken.values()) - 1)
    groups, used = Counter(clip.group for clip in clips), Counter(clip.group for clip in chosen)
    for clip in chosen:
        for other in {c.group for c in clips if c.label == clip.label}:
            assert used[other] >= min(groups[other], used[clip.group] - 1)


def test_seeds_draw_different_clips() -> None:
    clips, rows = corpus({(label, fold): 8 for label in range(3) for fold in (1, 2)})
    drawn = [draw_train_clips(clips, rows, 12, seed) for seed in range(4)]
    assert len({tuple(clips[row].clip_id for row in chosen) for chosen in drawn}) == 4
    assert len({tuple(clips[row].group for row in chosen) for chosen in drawn}) == 4


def test_a_split_keeps_its_validation_and_test_parts_whole() -> None:
    clips, _ = corpus({(label, fold): 8 for label in range(3) for fold in (1, 2)})
    split = fold_split(clips, 2)
    cut = subset_split(split, clips, 9, seed=1)
    assert (cut.train_clips, len(cut.train)) == (9, 9)
    assert set(cut.train.tolist()) < set(split.train.tolist())
    assert cut.validation is split.validation and cut.test is split.test
    assert subset_split(split, clips, None, seed=1) is split
    assert TrainSubset(9, 2, 1).split(clips).train.tolist() == cut.train.tolist()
    with pytest.raises(UsageError, match=r"train_clips 1000: the training part of fold2 has \d+ clips"):
        subset_split(split, clips, 1000, seed=1)


def test_synthetic_clips_train_only_if_every_parent_does() -> None:
    clips, _ = corpus({(label, fold): 8 for label in range(3) for fold in (1, 2)})
    split = subset_split(fold_split(clips, 2), clips, 6, seed=0)
    inside = [clips[row] for row in split.train]
    outside = next(
        clips[row]
        for row in fold_split(clips, 2).train
        if clips[row] not in inside and clips[row].label == inside[0].label
    )
    twin = next(clip for clip in inside[1:] if clip.label == inside[0].label)
    made = [child("in", inside[0], twin), child("half", inside[0], outside), child("out", outside, outside)]
    real, synth = source_of(clips, class_names=("a", "b", "c")), source_of(made, class_names=("a", "b", "c"))
    assert has_outside_parent(synth, real, split.train).tolist() == [False, True, True]
    assert not has_outside_parent(synth, real, fold_split(clips, 2).train).any()
    rows = training_rows(parse_mix("real,synth"), {"real": real, "synth": synth}, real, split)
    assert [(name, len(part)) for name, part in rows.parts] == [("real", 6), ("synth", 1)]
    assert rows.dropped == 2
    sources = {"real": real, "synth": synth.subset([1, 2])}
    with pytest.raises(
        UsageError, match="none of the 2 clips of synth was made from the 6 real clips of fold2"
    ):
        training_rows(parse_mix("real,synth"), sources, real, split)


def test_train_clips_are_parsed_and_name_datasets() -> None:
    assert parse_train_clips("50, 100,full,50") == (50, 100, None)
    for text in ("", "0", "-5", "ten", "50,,100", "²"):
        with pytest.raises(UsageError, match="train_clips"):
            parse_train_clips(text)
    assert subset_name(50, "fold2", 1) == "50-train_clips-fold2-seed1"
    assert subset_name(None, "fold2", 1) == TrainSubset(None, 2).name == "full-fold2"
