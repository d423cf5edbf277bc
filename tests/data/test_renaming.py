"""Folders that are called otherwise than when clips were made of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from usk.data.clip import Clip
from usk.data.mix import foreign_parents, leaking, why_emptied
from usk.data.renaming import as_named_now, renaming
from usk.data.source import CLASS_FOLDERS, Source
from usk.data.splits import fold_split
from usk.data.train_subset import made_elsewhere


def folder(name: str, kind: str = CLASS_FOLDERS, suffix: str = "wav", revision: str = "1") -> Source:
    """Two classes, two folds, twelve recordings each of two clips, known by their paths: some recordings validate."""
    clips = tuple(
        Clip(
            f"{name}/{label}/r{fold}{recording}/{cut}.{suffix}",
            label,
            f"{name}/{label}/r{fold}{recording}",
            fold,
        )
        for label in range(2)
        for fold in (1, 2)
        for recording in range(12)
        for cut in range(2)
    )
    return Source(
        name=name, kind=kind, location=name, revision=revision, cache_key=name, class_names=("bark", "horn"),
        clips=clips, audio=(),
    )  # fmt: skip


def made_of(real: Source, heard: frozenset[str] = frozenset(), revision: str = "0") -> Source:
    """A synthetic clip of each pair of neighbors of a class and fold, by a clip_filter and a generator that heard `heard`."""
    clips = tuple(
        Clip(
            f"s{row}", one.label, f"s{row}", one.fold, parents=(one.clip_id, other.clip_id),
            parent_groups=(one.group, other.group), parent_folds=(one.fold, other.fold), model="m", filter_folds=(1,),
        )
        for row, (one, other) in enumerate(zip(real.clips[::2], real.clips[2::2], strict=False))
        if (one.label, one.fold) == (other.label, other.fold)
    )  # fmt: skip
    return replace(
        real, name="synth", location="synth", clips=clips, model_groups=heard, filter_groups={(1,): heard},
        made_of=(real.name, revision),
    )  # fmt: skip


def leaks(source: Source, real: Source) -> list[list[bool]]:
    return [leaking(source, real, fold_split(real.clips, fold)).tolist() for fold in (1, 2)]


def test_parents_generator_and_judge_go_by_the_new_name() -> None:
    before, after = folder("mine"), folder("yours")
    heard = frozenset(clip.group for clip in before.clips if clip.fold == 1)
    now = as_named_now(made_of(before, heard), after)
    expected = made_of(after, frozenset(name.replace("mine", "yours") for name in heard))
    assert now.clips == expected.clips
    assert (now.model_groups, dict(now.filter_groups)) == (
        expected.model_groups,
        dict(expected.filter_groups),
    )
    assert (now.renamed_from, now.renamed_by_paths) == ("mine", True)
    assert leaks(now, after) == leaks(expected, after)
    assert all(leaks(now, after)[0])
    said = why_emptied(now, after, fold_split(after.clips, 1))
    assert "call the folder mine again" in said
    assert "called mine; yours has the same paths" in (foreign_parents(now, after) or "")


@pytest.mark.parametrize("kind", [CLASS_FOLDERS, "Parquet", "files listed in a table"])
def test_the_same_content_is_the_same_folder_whatever_its_kind(kind: str) -> None:
    before, after = folder("mine", kind), folder("yours", kind)
    source = made_of(before, revision="1")
    now = as_named_now(source, after)
    assert now.clips == made_of(after).clips
    assert (now.renamed_from, now.renamed_by_paths) == ("mine", False)
    assert leaks(now, after) == leaks(made_of(after), after) != leaks(source, after)
    assert "the same content" in (renaming(now, after) or "")
    every = np.arange(len(after))
    assert not made_elsewhere(now, after, every).any()


def test_paths_alone_make_no_clip_one_of_the_shots() -> None:
    """They may be another corpus's, whose sounds are no train_clips."""
    after = folder("yours")
    now = as_named_now(made_of(folder("mine")), after)
    assert made_elsewhere(now, after, np.arange(len(after))).all()


def test_what_is_only_partly_the_same_is_found() -> None:
    """A generator that has heard more, a copy of some recordings, another file format, a row without parents."""
    before, after = folder("mine"), folder("yours")
    more = frozenset(f"mine/more/{n}" for n in range(500))
    few = replace(
        after, clips=tuple(clip for clip in after.clips if clip.group[-2:] in ("11", "21", "12", "22"))
    )
    flac = folder("yours", suffix="flac")
    own_row = before.clips[0]
    mixed = replace(made_of(before), clips=(*made_of(before).clips, own_row))
    for source, real, expected in (
        (made_of(before, more), after, made_of(after, frozenset(name.replace("mine", "yours") for name in more))),
        (made_of(before), few, made_of(after)),
        (made_of(before), flac, made_of(after)),
        (mixed, after, replace(made_of(after), clips=(*made_of(after).clips, after.clips[0]))),
    ):  # fmt: skip
        now = as_named_now(source, real)
        assert now.clips == expected.clips and now.model_groups == expected.model_groups
        assert leaks(now, real) == leaks(expected, real)
        assert sum(map(sum, leaks(now, real))) > sum(map(sum, leaks(source, real)))


def test_a_generator_alone_can_be_of_the_old_name() -> None:
    after = folder("yours")
    heard = frozenset(clip.group for clip in folder("mine").clips)
    other = frozenset({"urbansound8k/17", "demo/3"})
    now = as_named_now(made_of(after, heard | other), after)
    assert now.model_groups == frozenset(clip.group for clip in after.clips) | other
    assert now.clips == made_of(after).clips


def test_other_folders_stay_others() -> None:
    before = made_of(folder("mine"))
    elsewhere = folder("yours")
    elsewhere = replace(
        elsewhere,
        clips=tuple(
            replace(clip, clip_id=f"yours/{row}.wav", group=f"yours/{row}.wav")
            for row, clip in enumerate(elsewhere.clips)
        ),
    )
    for real in (elsewhere, folder("mine"), folder("mine", revision="2"), folder("yours", kind="Parquet")):
        assert as_named_now(before, real) is before
    real = folder("yours")
    assert as_named_now(real, real) is real and as_named_now(folder("mine"), real).renamed_from == ""
    assert renaming(before, real) is None
