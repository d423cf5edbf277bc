"""Held-out recordings, made folds, and the two protocols."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from usk.data.clip import Clip
from usk.data.splits import (
    embedded_groups,
    fold_split,
    held_out_groups,
    in_several_folds,
    make_folds,
    seed_9010_split,
)
from usk.errors import UsageError

# A recording: its fold, its class, and how many clips were cut from it.
recordings = st.lists(
    st.tuples(st.integers(1, 4), st.integers(0, 2), st.integers(1, 6)), min_size=1, max_size=40
)


def clips_of(of: list[tuple[int, int, int]], group_of=lambda index: f"g{index}") -> list[Clip]:
    return [
        Clip(f"c{index}-{cut}", label, group_of(index), fold)
        for index, (fold, label, n_clips) in enumerate(of)
        for cut in range(n_clips)
    ]


def groups_of(clips: list[Clip], rows: np.ndarray) -> set[str]:
    return {clips[row].group for row in rows}


def recordings_left(clips: list[Clip], held: frozenset[str]) -> dict[tuple[int, int], tuple[int, int]]:
    """(recordings, recordings that stay) of each fold and class."""
    every, stay = defaultdict(set), defaultdict(set)
    for clip in clips:
        every[clip.fold, clip.label].add(clip.group)
        if clip.group not in held:
            stay[clip.fold, clip.label].add(clip.group)
    return {subset: (len(groups), len(stay[subset])) for subset, groups in every.items()}


@given(recordings, st.integers(1, 5))
def test_two_recordings_of_each_fold_and_class_stay(of: list[tuple[int, int, int]], n: int) -> None:
    """This holds if a recording has several classes, too."""
    for clips in (clips_of(of), clips_of(of, lambda index: f"speaker{index % (3 * n)}")):
        for total, stay in recordings_left(clips, held_out_groups(clips)).values():
            assert stay >= min(2, total)


@given(recordings)
def test_no_fold_decides_what_another_holds_out(of: list[tuple[int, int, int]]) -> None:
    clips = clips_of(of)
    held = held_out_groups(clips)
    for fold in {clip.fold for clip in clips}:
        alone = [clip for clip in clips if clip.fold == fold]
        assert held_out_groups(alone) == {clip.group for clip in alone} & held


@given(recordings, st.integers(1, 5), st.randoms())
def test_the_order_of_rows_changes_nothing(of: list[tuple[int, int, int]], n: int, random) -> None:
    clips = clips_of(of, lambda index: f"speaker{index % (3 * n)}")
    shuffled = random.sample(clips, len(clips))
    assert held_out_groups(shuffled) == held_out_groups(clips)
    by_id = dict(zip((clip.clip_id for clip in shuffled), make_folds(shuffled), strict=True))
    assert [by_id[clip.clip_id] for clip in clips] == make_folds(clips)


@pytest.mark.parametrize(
    ("n_recordings", "n_held"), [(1, 0), (2, 0), (3, 0), (4, 1), (7, 2), (20, 3), (40, 6)]
)
def test_a_share_of_equal_recordings_is_held_out(n_recordings: int, n_held: int) -> None:
    assert len(held_out_groups(clips_of([(1, 0, 3)] * n_recordings))) == n_held


@given(recordings)
def test_at_most_twice_the_share_is_held_out(of: list[tuple[int, int, int]]) -> None:
    clips = clips_of(of)
    held = held_out_groups(clips)
    for subset in {(clip.fold, clip.label) for clip in clips}:
        mine = [clip.group in held for clip in clips if (clip.fold, clip.label) == subset]
        assert sum(mine) <= max(2 * 0.15 * len(mine), 1)


def test_recordings_of_the_embedded_generator_never_validate() -> None:
    known = sorted(group for group in embedded_groups() if group.startswith("urbansound8k/"))
    assert len(known) > 100
    names = [name for group in known for name in (group, f"{group}-new")]
    clips = [Clip(f"{name}-{cut}", 0, name, 1 + n % 3) for n, name in enumerate(names) for cut in range(2)]
    held = held_out_groups(clips)
    assert held and not held & embedded_groups()


def test_synthetic_clips_are_not_held_out_and_do_not_count() -> None:
    real = clips_of([(1, 0, 3)] * 7)
    synthetic = [
        Clip(f"s{i}", 0, f"s{i}", 1, parents=("c0-0", "c1-0"), parent_groups=("g0", "g1")) for i in range(50)
    ]
    assert held_out_groups(real + synthetic) == held_out_groups(real)


@given(recordings, st.integers(3, 30))
def test_no_recording_is_on_two_sides_of_a_fold_split(of: list[tuple[int, int, int]], n_groups: int) -> None:
    """Some recordings lie in several folds; where none does, every clip is used once."""
    for clips in (clips_of(of, lambda index: f"g{index % n_groups}"), clips_of(of)):
        folds = {clip.fold for clip in clips}
        for fold in folds if len(folds) > 1 else ():
            split = fold_split(clips, fold)
            sides = [groups_of(clips, rows) for rows in (split.train, split.validation, split.test)]
            assert sum(map(len, sides)) == len(set().union(*sides))
            assert split.test.tolist() == [row for row, clip in enumerate(clips) if clip.fold == fold]
            assert split.by_group and not split.optimistic
            if not in_several_folds(clips):
                assert sorted([*split.train, *split.validation, *split.test]) == list(range(len(clips)))


def test_validation_recordings_do_not_depend_on_the_test_fold() -> None:
    clips = clips_of([(fold, label, 3) for fold in (1, 2, 3) for label in (0, 1) for _ in range(8)])
    first, second = (groups_of(clips, fold_split(clips, fold).validation) for fold in (1, 2))
    third = {clip.group for clip in clips if clip.fold == 3}
    assert first & third == second & third != set()


@pytest.mark.parametrize(
    ("folds", "asked", "message"),
    [
        ([1, 2, 4], 3, "test_folds 3: the source has no such fold; it has 1, 2, 4"),
        ([1], 1, "one fold only"),
    ],
)
def test_an_impossible_fold_is_a_usage_error(folds: list[int], asked: int, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        fold_split(clips_of([(fold, 0, 2) for fold in folds]), asked)


@given(st.integers(2, 200), st.integers(0, 10))
def test_seed_9010_is_a_random_tenth_that_also_chooses_the_epoch(n: int, seed: int) -> None:
    clips = clips_of([(1, 0, 1)] * n)
    split = seed_9010_split(clips, seed)
    assert len(split.test) == max(1, round(0.1 * n))
    assert sorted([*split.train, *split.test]) == list(range(n))
    assert np.array_equal(split.validation, split.test)
    assert split.optimistic and not split.by_group
    again = seed_9010_split(clips, seed)
    assert np.array_equal(again.train, split.train) and np.array_equal(again.test, split.test)
    assert n < 100 or not np.array_equal(seed_9010_split(clips, seed + 1).test, split.test)


@given(recordings, st.integers(2, 6))
def test_made_folds_keep_recordings_whole(of: list[tuple[int, int, int]], n_folds: int) -> None:
    clips = clips_of(of)
    folds = make_folds(clips, n_folds)
    assert len({(clip.group, fold) for clip, fold in zip(clips, folds, strict=True)}) == len(of)
    assert set(folds) <= set(range(1, n_folds + 1))
    assert len(set(folds)) > 1 or len(of) == 1 or max(np.bincount([clip.label for clip in clips])) == 1


def test_made_folds_are_stratified() -> None:
    clips = clips_of([(0, label, 2) for label in range(3) for _ in range(10)])
    folds = make_folds(clips)
    for fold in range(1, 6):
        counts = [
            sum(f == fold and c.label == label for c, f in zip(clips, folds, strict=True))
            for label in range(3)
        ]
        assert counts == [4, 4, 4]
