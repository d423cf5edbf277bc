"""Folders that are called otherwise than when clips were made of them."""

from __future__ import annotations

from dataclasses import replace

from usk.data.clip import Clip
from usk.data.mix import leaking
from usk.data.renaming import as_named_now
from usk.data.sources import CLASS_FOLDERS, Source
from usk.data.splits import fold_split


def folder(name: str, kind: str = CLASS_FOLDERS) -> Source:
    """Two classes, two folds, four recordings each of two clips, known by their paths."""
    clips = tuple(
        Clip(
            f"{name}/{label}/r{fold}{recording}/{cut}.wav", label, f"{name}/{label}/r{fold}{recording}", fold
        )
        for label in range(2)
        for fold in (1, 2)
        for recording in range(4)
        for cut in range(2)
    )
    return Source(
        name=name, kind=kind, location=name, revision="1", cache_key=name, class_names=("bark", "horn"), clips=clips, audio=()
    )  # fmt: skip


def made_of(real: Source, heard: frozenset[str] = frozenset()) -> Source:
    """A synthetic clip of each pair of neighbours of a class and fold, by a judge and a generator that heard `heard`."""
    clips = tuple(
        Clip(
            f"s{row}", one.label, f"s{row}", one.fold, parents=(one.clip_id, other.clip_id),
            parent_groups=(one.group, other.group), parent_folds=(one.fold, other.fold), model="m", judge_folds=(1,),
        )
        for row, (one, other) in enumerate(zip(real.clips[::2], real.clips[2::2], strict=False))
        if (one.label, one.fold) == (other.label, other.fold)
    )  # fmt: skip
    return replace(
        real, name="synth", location="synth", clips=clips, model_groups=heard, judge_groups={(1,): heard}
    )


def test_parents_generator_and_judge_go_by_the_new_name() -> None:
    before, after = folder("mine"), folder("yours")
    heard = frozenset(clip.group for clip in before.clips if clip.fold == 1)
    now = as_named_now(made_of(before, heard), after)
    expected = made_of(after, frozenset(name.replace("mine", "yours") for name in heard))
    assert now.clips == expected.clips
    assert (now.model_groups, dict(now.judge_groups)) == (expected.model_groups, dict(expected.judge_groups))
    assert now.renamed_from == "mine"
    for fold in (1, 2):
        split = fold_split(after.clips, fold)
        assert leaking(now, after, split).tolist() == leaking(expected, after, split).tolist()
    assert leaking(now, after, fold_split(after.clips, 1)).all()


def test_a_generator_alone_can_be_of_the_old_name() -> None:
    after = folder("yours")
    heard = frozenset(clip.group for clip in folder("mine").clips)
    other = frozenset({"urbansound8k/17", "demo/3"})
    now = as_named_now(made_of(after, heard | other), after)
    assert now.model_groups == frozenset(clip.group for clip in after.clips) | other
    assert now.clips == made_of(after).clips


def test_other_folders_stay_others() -> None:
    before = made_of(folder("mine"))
    few = folder("yours")
    few = replace(few, clips=tuple(clip for clip in few.clips if "r10" in clip.clip_id))
    for real in (few, folder("mine"), folder("yours", kind="Parquet")):
        assert as_named_now(before, real) is before
    real = folder("yours")
    assert as_named_now(real, real) is real and as_named_now(folder("mine"), real).renamed_from == ""
