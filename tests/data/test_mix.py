"""Mixes: parsing, and the rows that may train in a split."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.clips import child, real_source, source_of
from usk.data.clip import Clip
from usk.data.leaks import foreign_parents, leaking, unknown_generator
from usk.data.mix import label_map, parse_mix, training_rows
from usk.data.source import Source, TrainingClips
from usk.data.splits import Split, fold_split, seed_9010_split
from usk.errors import LeakError, UsageError, UskError


def of_part(real: Source, rows: np.ndarray, n: int = 2) -> list[Clip]:
    """`n` clips of one class and different recordings among `rows`."""
    chosen: dict[str, Clip] = {}
    for row in rows:
        if real.clips[row].label == 0:
            chosen.setdefault(real.clips[row].group, real.clips[row])
    return list(chosen.values())[:n]


# --- the text of a mix


@pytest.mark.parametrize(
    "text", ["real", "real,synth", " real , synth", "real,user/name@v1", "/data/at:noon/clips", "C:clips"]
)
def test_parts(text: str) -> None:
    mix = parse_mix(text)
    assert mix.parts == tuple(piece.strip() for piece in text.split(","))
    assert mix.text == ",".join(mix.parts)


def test_one_mix_has_one_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("made", "synth"):
        (tmp_path / name).mkdir()
    for text, name in (
        ("synth,real", "real,synth"),
        ("real,./made", "real,synth"),
        (f"{tmp_path}/made,real,other", "real,synth,other"),
        ("real,./synth", "real,./synth"),  # --synth is another folder
    ):
        assert parse_mix(text, "made") == parse_mix(name)
        assert parse_mix(text, Path("made")).text == name
    with pytest.raises(UsageError, match="names a part twice"):
        parse_mix("real,./made,synth", "made")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "an empty part. Write for example real,synth"),
        ("real,", "an empty part"),
        ("real,real", "a part twice"),
    ],
)
def test_a_wrong_mix_is_a_usage_error(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=f"^mix.*{message}"):
        parse_mix(text)


# --- leaks


@pytest.mark.parametrize("part", ["validation", "test"])
@pytest.mark.parametrize("which", [0, 1])
def test_a_clip_with_a_parents_recording_on_the_other_side_is_dropped(part: str, which: int) -> None:
    """It is dropped even if the parent itself trains, as another clip of that recording."""
    real = real_source()
    split = fold_split(real.clips, 2)
    mother, father = of_part(real, split.train)
    evaluated = of_part(real, getattr(split, part))[0]
    elsewhere = Clip("city/other-cut", 0, evaluated.group, 1)
    leaks = [
        child("leak", *((one, father) if which == 0 else (mother, one))) for one in (evaluated, elsewhere)
    ]
    synth = source_of([child("clean", mother, father), *leaks])
    assert leaking(synth, real, split).tolist() == [False, True, True]
    rows = training_rows(parse_mix("real,synth"), {"real": real, "synth": synth}, real, split)
    assert [(name, part.tolist()) for name, part in rows.parts] == [
        ("real", split.train.tolist()),
        ("synth", [0]),
    ]
    assert rows.dropped == 2
    assert rows.count({"real": real, "synth": synth}, synthetic=True) == 1
    assert rows.count({"real": real, "synth": synth}, synthetic=False) == len(split.train)
    nothing = Split("fold1", np.array([], dtype=np.int64), np.array([0]), np.array([1]))
    with pytest.raises(UsageError, match="mix real: real has no clip to train on in fold1"):
        training_rows(parse_mix("real"), {"real": real}, real, nothing)


@pytest.mark.parametrize("part", ["validation", "test"])
def test_a_generator_trained_on_the_other_side_makes_all_its_clips_leak(part: str) -> None:
    """The training record names a recording, or a clip of it."""
    real = real_source()
    split = fold_split(real.clips, 2)
    known = of_part(real, getattr(split, part))[0]

    def made_through(*trained_on: str) -> Source:
        trained = (TrainingClips(frozenset(trained_on)),)
        return source_of([child("c", *of_part(real, split.train))], generator_trained_on=trained)

    for name in (known.group, known.clip_id):
        synth = made_through(name, "elsewhere/1")
        assert leaking(synth, real, split).tolist() == [True]
        with pytest.raises(LeakError, match="trained on 1 of the recordings that validate or test"):
            training_rows(parse_mix("real,synth"), {"real": real, "synth": synth}, real, split)
    assert not leaking(made_through(*(real.clips[row].group for row in split.train)), real, split).any()


def test_clips_are_compared_if_the_protocol_divides_recordings() -> None:
    real = real_source()
    split = seed_9010_split(real.clips, 0)
    tested = real.clips[split.test[0]]
    trained = {real.clips[row].clip_id for row in split.train}
    sibling = next(c for c in real.clips if c.group == tested.group and c.clip_id in trained)
    other = next(
        c for c in real.clips if c.label == tested.label and c.group != tested.group and c.clip_id in trained
    )
    synth = source_of([child("leak", tested, other), child("sibling", sibling, other)])
    assert leaking(synth, real, split).tolist() == [True, False]
    rows = training_rows(parse_mix("synth"), {"real": real, "synth": synth}, real, split)
    assert (rows.parts[0][1].tolist(), rows.dropped) == ([1], 1)


def test_real_clips_of_another_source_leak_by_recording() -> None:
    real = real_source()
    split = fold_split(real.clips, 2)
    tested = real.clips[split.test[0]]
    more = source_of([Clip("a", 0, tested.group, 1), Clip("b", 0, "new", 1)])
    assert leaking(more, real, split).tolist() == [True, False]


@pytest.mark.parametrize("protocol", ["folds", "seed-9010"])
def test_a_mix_whose_clips_all_leak_is_refused_with_a_fix(protocol: str) -> None:
    real, folds = real_source(), protocol == "folds"
    split = fold_split(real.clips, 2) if folds else seed_9010_split(real.clips, 0)
    tested = [real.clips[row] for row in split.test]
    synth = source_of([child("c", tested[0], tested[-1])] * 3)
    other = "test another fold" if folds else r"test single folds \(the protocol folds\)"
    said = rf"mix real,synth: all 3 clips of synth would leak where {split.name} tests: .*; {other}, or"
    with pytest.raises(LeakError, match=said):
        training_rows(parse_mix("real,synth"), {"real": real, "synth": synth}, real, split)


# --- class names and names of recordings


def test_classes_are_matched_by_name_and_those_that_the_real_clips_lack_are_named() -> None:
    of_three = source_of([Clip("a", 0, "g", 1)], class_names=("bark", "horn", "siren"))
    other = source_of([Clip("b", 0, "h", 1), Clip("c", 1, "h", 1)], class_names=("siren", "bark"))
    assert label_map(other, of_three).tolist() == [2, 0]
    real, names = source_of([Clip("a", 0, "g", 1)]), ("bark", "meow")
    said = "has classes that city has not: meow; the real classes are bark, horn. Leave them out or rename them.$"
    with pytest.raises(UskError, match=said):
        label_map(source_of([Clip("b", 1, "h", 1)], class_names=names), real)
    assert label_map(source_of([Clip("b", 0, "h", 1)], class_names=names), real).tolist() == [0, -1]
    made = source_of([child("s", replace(real.clips[0], label=1))], class_names=names)
    with pytest.raises(UskError, match=r"are bark, horn. Make it again of these classes with `usk synth`.$"):
        label_map(made, real)


def test_parents_from_elsewhere_are_warned_about() -> None:
    real = real_source()
    ours = source_of([child("c", real.clips[0], real.clips[5])])
    stranger = Clip("demo/x", 0, "demo/x", 1)
    assert foreign_parents(real, real) is None
    assert foreign_parents(ours, real) is None
    warning = foreign_parents(source_of([child("c", stranger, stranger)]), real)
    assert warning is not None
    assert "(demo/x) are not clips of city: leaks between them cannot be ruled out" in warning
    assert "another real source" in (foreign_parents(source_of([stranger]), real) or "")


def made_by(real: Source, trained: tuple[str, ...], complete: bool = True) -> Source:
    """A clip between two of `real`'s by a generator that was trained on these recordings."""
    clip = replace(child("c", real.clips[0], real.clips[5]), model="gen@1")
    return source_of([clip], generator_trained_on=(TrainingClips(frozenset(trained), complete=complete),))


def test_unknown_training_data_of_a_generator_is_warned_of() -> None:
    real = real_source()
    trained_on = (real.clips[0].group,)
    assert unknown_generator(made_by(real, trained_on)) is None
    assert (unknown_generator(made_by(real, ())) or "").startswith("what gen@1 was trained on is not known")
    in_part = made_by(real, trained_on, complete=False)
    assert (unknown_generator(in_part) or "").startswith("a part of what gen@1 was trained on is not known")


@pytest.mark.parametrize(
    ("real_names", "trained_on", "named"),
    [
        ("city", ("city/000",), None),
        ("city", ("urbansound8k/1", "city/of another fold"), None),
        ("city", ("urbansound8k/1", "demo/siren-f1-r1"), "urbansound8k"),
        ("city", ("demo/siren-f1-r1",), None),  # procedural sound is in no recording
        ("demo", ("urbansound8k/1", "demo/siren-f1-r1"), None),
        ("demo", ("urbansound8k/1",), None),
        ("urbansound8k/siren", ("urbansound8k/1",), "urbansound8k"),  # sorted into a folder a class
        ("urbansound8k/siren", ("urbansound8k/siren/1",), None),
    ],
)
def test_a_generator_trained_on_another_source_is_warned_of(
    real_names: str, trained_on: tuple[str, ...], named: str | None
) -> None:
    real = source_of([replace(c, group=c.group.replace("city", real_names)) for c in real_source().clips])
    warning = foreign_parents(made_by(real, trained_on), real)
    assert warning == (
        named
        and f"gen@1 was trained on {named}: if city holds recordings of that under other names, leaks cannot "
        "be ruled out"
    )
    assert foreign_parents(made_by(real, trained_on, complete=False), real) is None, "that says more already"
