"""Leaks are found by the sound of clips, not by the names of files, folders and recordings."""

from __future__ import annotations

import csv
import itertools
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from tests.clips import CLASSES, child, real_source, source_of
from tests.sounds import tone, write_wav
from usk.audio.mel import MelSettings
from usk.data.clip import Clip
from usk.data.decode import decode_source
from usk.data.leaks import foreign_parents, leaking, lineages, recordings_of
from usk.data.open import open_source
from usk.data.source import TrainingClips
from usk.data.splits import fold_split, held_out_groups, make_folds, seed_9010_split
from usk.data.train_subset import draw_train_clips
from usk.diffusion.fit import FitConfig, fit

Command = Callable[..., Any]
RATE_HZ = 8_000
MEL = MelSettings(sample_rate_hz=RATE_HZ, n_fft=256, hop_samples=128, n_mels=16, n_frames=32)
TINY = FitConfig(steps=1, batch=4, channels=(8, 16), device="cpu", precision="fp32")


# --- what names change: nothing


@given(st.randoms(use_true_random=False), st.booleans())
def test_renamed_moved_and_reordered_clips_train_as_before(random, copied: bool) -> None:
    before = real_source()
    pairs = [random.sample([c for c in before.clips if c.label == label], 2) for label in (0, 1) * 8]
    made = [child(f"s{n}", *pair, filter_folds=(pair[0].fold,)) for n, pair in enumerate(pairs)]
    known = [
        clip for clip in before.clips if clip.fold == 1 and clip.group not in held_out_groups(before.clips)
    ]
    trained = TrainingClips(frozenset(c.group for c in known), frozenset(c.sound for c in known))
    filters = {(fold,): TrainingClips(frozenset(), frozenset({before.clips[0].sound})) for fold in (1, 2, 3)}
    synth = source_of(made, "synth", filters_trained_on=filters)
    groups = sorted({clip.group for clip in before.clips})
    other = dict(zip(groups, random.sample(groups, len(groups)), strict=True))  # names change hands
    clips = [
        replace(c, clip_id=f"town/{len(c.clip_id)}-{c.sound[::-1]}", group=other[c.group].replace("city", "town" if copied else "city"))
        for c in before.clips
    ]  # fmt: skip
    after = source_of(random.sample(clips, len(clips)), "town" if copied else "city")
    splits = [*(partial(fold_split, test_fold=fold) for fold in (1, 2, 3)), partial(seed_9010_split, seed=0)]
    for source in (synth, replace(synth, generator_trained_on=(trained,))):
        for split in splits:
            one, other = (leaking(source, real, split(real.clips)).tolist() for real in (before, after))
            assert one == other
        assert foreign_parents(source, after) is None


@given(st.randoms(use_true_random=False))
def test_draws_depend_on_sounds_only(random) -> None:
    """Made folds, validation clips and few training clips do not depend on names of clips, recordings and classes."""
    before = list(real_source().clips)
    groups = sorted({clip.group for clip in before})
    named = dict(zip(groups, random.sample(groups, len(groups)), strict=True))
    ids = random.sample(range(len(before)), len(before))
    after = [
        replace(c, clip_id=f"x{n}", group=named[c.group], label=1 - c.label)
        for c, n in zip(before, ids, strict=True)
    ]
    random.shuffle(after)

    def sounds(clips: list[Clip], groups: frozenset[str]) -> set[str]:
        return {clip.sound for clip in clips if clip.group in groups}

    assert sounds(before, held_out_groups(before)) == sounds(after, held_out_groups(after))
    first, second = (
        {clip.sound: fold for clip, fold in zip(clips, make_folds(clips), strict=True)}
        for clips in (before, after)
    )
    assert first == second
    few = [
        {clips[row].sound for row in draw_train_clips(clips, np.arange(len(clips)), 11, 3)}
        for clips in (before, after)
    ]
    assert few[0] == few[1]


@given(st.randoms(use_true_random=False), st.integers(1, 12))
def test_however_recordings_are_grouped_no_parent_is_tested(random, n_groups: int) -> None:
    """The recordings are those of the real source now, not of the time when the clips were made."""
    then = real_source()
    made = [child(f"s{n}", *random.sample(then.clips, 2)) for n in range(12)]
    known = frozenset(clip.sound for clip in random.sample(then.clips, 5))
    now = source_of([replace(c, group=f"speaker {random.randrange(n_groups)}") for c in then.clips])
    group_of = {clip.sound: clip.group for clip in now.clips}
    for trained in (frozenset(), known):
        synth = source_of(made, "synth", generator_trained_on=(TrainingClips(frozenset({"x"}), trained),))
        for fold in (1, 2, 3):
            split = fold_split(now.clips, fold)
            evaluated = {now.clips[row].group for row in (*split.validation, *split.test)}
            leaks = [
                any(group_of[sound] in evaluated for sound in (*clip.parents, *trained))
                for clip in synth.clips
            ]
            assert leaking(synth, now, split).tolist() == leaks


# --- what is not found by its sound


def test_a_reencoded_copy_is_matched_by_name_and_length() -> None:
    before = real_source()
    parents = [before.clips[0], before.clips[4]]
    synth = source_of([child("s", *parents)], "synth")
    for suffix, longer_s, is_copy in ((".wav", 0.0, True), (".mp3", 0.05, True), (".mp3", 1.0, False)):
        after = source_of(
            [
                replace(c, sound=f"x{c.sound}", duration_s=c.duration_s + longer_s, group=f"town/{c.group}",
                        clip_id=c.clip_id.replace("city", "town").replace(".wav", suffix))
                for c in before.clips
            ],
            "town",
        )  # fmt: skip
        said = foreign_parents(synth, after) or ""
        assert ("a re-encoded copy" in said) is is_copy
        assert ("leaks between them cannot be ruled out" in said) is not is_copy
        assert lineages(synth, after) == [{f"town/{p.group}" if is_copy else p.group for p in parents}]


def test_recordings_count_by_name_where_a_sound_is_not_found() -> None:
    real = real_source()
    gone, other = Clip("city/x.wav", 0, real.clips[0].group, 1, sound="gone"), real.clips[-1]
    # The first as of the embedded generator, which says no sounds.
    for sounds, group in (((), gone.group), (("gone",), gone.group), ((other.sound,), other.group)):
        assert recordings_of([TrainingClips(frozenset({gone.group}), frozenset(sounds))], real) == {group}
    synth = source_of([child("s", gone, other)])
    assert lineages(synth, real) == [{gone.group, other.group}]
    assert "1 of 2 parents of city (city/x.wav) are not clips of city" in (foreign_parents(synth, real) or "")


# --- real entry points


@pytest.fixture
def sessions(tmp_path: Path) -> Path:
    """Clips in a table. A session has several speakers, a speaker has several sessions and one fold."""
    folder = tmp_path / "talk"
    rows = []
    for label, name in enumerate(CLASSES):
        for speaker in range(12):
            for session in range(2):
                file = f"{name}-{speaker}-{session}.wav"
                samples = tone(300 + 900 * label + 20 * speaker + 7 * session, 0.3, RATE_HZ)
                write_wav(folder / file, samples, RATE_HZ)
                rows.append(
                    (file, name, f"s{session}-{speaker // 2}", f"p{label}-{speaker}", 1 + speaker % 3)
                )
    with (folder / "metadata.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file_name", "label", "session", "speaker", "fold"), *rows])
    return folder


def test_a_generator_fitted_by_sessions_leaks_nowhere_among_speakers(
    usk: Command, sessions: Path, tmp_path: Path
) -> None:
    by_session, by_speaker = (open_source(sessions, group_column=name) for name in ("session", "speaker"))
    # Sessions cross the folds: all of them train.
    one_fold = replace(by_session, clips=tuple(replace(c, fold=1) for c in by_session.clips))
    common = ("--real", sessions, "--columns", "group=speaker", "--json")
    for name, source, test_folds in (("all", one_fold, ()), ("fold 1", by_speaker, (2, 3))):
        generator = fit([source], tmp_path / name, TINY, mel=MEL, test_folds=test_folds).folder
        made = tmp_path / f"made by {name}"
        synth = "synth --per-class 3 --steps 2 --device cpu --model"
        usk(synth, generator, *common, "--out", made).done()
        train = "train --mix real,synth --epochs 1 --seeds 1 --no-baseline"
        ran = usk(train, *common, "--synth", made, "--out", tmp_path / f"runs {name}")
        if name == "all":
            assert ran.code == 1 and "its generator was trained on" in ran.err
        else:
            assert ran.code == 0, ran.err
            assert {run["split"] for run in ran.value["runs"]} == {"fold2", "fold3"}


def kept(real: Path, made: Path) -> dict[frozenset[str], list[bool]]:
    """Which clips of `made` leak, by the sounds of the test part, since the numbers of made folds are arbitrary."""
    decoded = decode_source(open_source(real), RATE_HZ).source
    splits = [fold_split(decoded.clips, fold) for fold in decoded.folds]
    tested = [frozenset(decoded.clips[row].sound for row in split.test) for split in splits]
    leaks = [leaking(open_source(made), decoded, split).tolist() for split in splits]
    return dict(zip(tested, leaks, strict=True))


def test_a_moved_and_renamed_folder_is_the_same(usk: Command, tmp_path: Path) -> None:
    """Renamed, copied with other names for classes' recordings and files, and in another lossless format."""
    made, recordings = tmp_path / "made", tmp_path / "mine"
    for label, recording, cut in itertools.product(range(2), range(10), range(2)):
        samples = tone(300 + 900 * label + 31 * recording + 5 * cut, 0.3, RATE_HZ)
        write_wav(recordings / CLASSES[label] / f"r{recording}" / f"{cut}.wav", samples, RATE_HZ)
    synth = ("--strategy", "waveform", "--per-class", 8, "--quiet")
    assert usk("synth", "--real", recordings, *synth, "--out", made).code == 0
    before = kept(recordings, made)
    assert {leak for leaks in before.values() for leak in leaks} == {True, False}
    renamed = tmp_path / "yours"
    shutil.copytree(recordings, renamed)
    for place in sorted(renamed.glob("*/r*")):
        place.rename(place.with_name(f"x{(7 * int(place.name[1:])) % 10}"))
    for file in sorted(renamed.glob("*/*/0.wav")):
        file.rename(file.with_name("zero.wav"))
    assert kept(renamed, made) == before
    shutil.rmtree(recordings)
    few = "--epochs 1 --seeds 1 --no-baseline --json"
    ran = usk(f"train --real {renamed} --mix real,synth --synth {made} {few} --out {tmp_path}/runs").done()
    assert sorted(run["dropped"] for run in ran.value["runs"]) == sorted(map(sum, before.values()))
    assert all(run["leaks"] == [] for run in ran.value["runs"])
    for file in sorted(renamed.glob("*/*/*.wav")):
        soundfile.write(file.with_suffix(".flac"), soundfile.read(file, dtype="int16")[0], RATE_HZ)
        file.unlink()
    decoded = decode_source(open_source(renamed), RATE_HZ).source
    assert {clip.sound for clip in decoded.clips} == set().union(*before)
    assert foreign_parents(open_source(made), decoded) is None


def test_files_whose_content_was_replaced_after_synthesis_leak_nowhere(
    usk: Command, sessions: Path, tmp_path: Path
) -> None:
    """Each file of fold 1 is exchanged with one of fold 2. A parent is tested in the fold of its sound, not of its name."""
    made, common = tmp_path / "made", ("--real", sessions, "--columns", "group=speaker", "--json")
    usk("synth", *common, "--strategy", "waveform", "--per-class", 9, "--out", made).done()
    folds = {clip.clip_id: clip.fold for clip in open_source(made).clips}
    pairs = [(f"{c}-{speaker}-{session}.wav", f"{c}-{speaker + 1}-{session}.wav")
             for c in CLASSES for speaker in (0, 3, 6, 9) for session in (0, 1)]  # fmt: skip
    for one, other in pairs:
        content = (sessions / one).read_bytes()
        (sessions / one).write_bytes((sessions / other).read_bytes())
        (sessions / other).write_bytes(content)
    ran = usk(f"audit {made}", *common, "--embedding", "log-mel").done()
    leaking_there = {part["fold"]: part["leaking"] for part in ran.value["folds"]}
    moved = {1: 2, 2: 1, 3: 3}
    decoded = decode_source(open_source(sessions, group_column="speaker"), RATE_HZ).source
    for fold in (1, 2, 3):
        must = [moved[folds[clip.clip_id]] == fold for clip in open_source(made).clips]
        leaks = leaking(open_source(made), decoded, fold_split(decoded.clips, fold))
        assert (leaks | ~np.array(must)).all(), "each clip whose parents are tested there"
        assert leaking_there[fold] == leaks.sum() < len(leaks)
