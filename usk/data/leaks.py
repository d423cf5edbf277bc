"""Which clips must not train beside which test part, and what cannot be ruled out. Pure.

A clip is its content, and the real source that a run tests on says which recordings clips belong to *now*:

- A synthetic clip must not train where a recording validates or tests that holds one of its parents.
- Nor where a recording does that holds a clip which its generator, or the classifier filter that chose it, was trained on.

Parents and training clips are found in the real source by their sound, whatever they are called there. A parent whose sound
is not there is taken for a re-encoded copy if a clip of its name is as long. Where a sound is not found, recordings count by
their name too: those of UrbanSound8K are called the same everywhere. What is not found at all is foreign, and said to be.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable
from functools import cached_property
from pathlib import PurePosixPath

import numpy as np

from usk.data.clip import NO_MODEL, Clip
from usk.data.source import Source, TrainingClips
from usk.data.splits import Split
from usk.errors import SourceError
from usk.text import abbreviate_list, pluralize

DEMO = "demo"  # in front of the recordings of the demo corpus
SAME_LENGTH_S = 0.1  # lossy encoders pad a few hundredths of a second
ROW_NAME = re.compile(r"row-\d+")  # of a dataset without names: says nothing outside it


class Origins:
    """Where the clips of `source`, or the parents of its synthetic ones, are in the real source.

    `rows[clip][parent]` are the rows of `real` that hold the sound of a parent (of a real clip: of itself); more than one
    where copies have the same sound, none where it is foreign. `by_name` are the parents that only name and length tell.
    """

    def __init__(self, source: Source, real: Source) -> None:
        undecoded = any(not clip.sound for clip in real.clips)
        assert not (undecoded and any(clip.parent_names for clip in source.clips)), (
            "decode the real clips first"
        )
        self.real = real
        self.by_sound: dict[str, list[int]] = defaultdict(list)
        for row, clip in enumerate(real.clips):
            self.by_sound[clip.identity].append(row)
        self.by_name: set[str] = set()
        self.foreign: set[str] = set()
        found: dict[str, tuple[int, ...]] = {}
        self.rows: list[list[tuple[int, ...]]] = []
        for clip in source.clips:
            for sound, name, length_s in _parents(clip):
                if sound not in found:
                    found[sound] = self._find(sound, name, length_s)
            self.rows.append([found[sound] for sound, _, _ in _parents(clip)])
        self.n_parents = len(found)

    def _find(self, sound: str, name: str, length_s: float) -> tuple[int, ...]:
        if sound in self.by_sound:
            return tuple(self.by_sound[sound])
        label = _without_suffix(name)
        tails = [label] + [label.split("/", n)[-1] for n in range(1, label.count("/") + 1)]
        candidates = next((self._named[tail] for tail in tails if tail in self._named), [])
        rows = tuple(
            row for row in candidates if abs(self.real.clips[row].duration_s - length_s) <= SAME_LENGTH_S
        )
        (self.by_name if rows else self.foreign).add(name)
        return rows

    @cached_property
    def _named(self) -> dict[str, list[int]]:
        """Rows of `real` by their names without the source's, which another folder may not share."""
        named = defaultdict(list)
        for row, clip in enumerate(self.real.clips):
            name = _without_suffix(clip.clip_id.removeprefix(f"{self.real.name}/"))
            if not ROW_NAME.fullmatch(name):
                named[name].append(row)
        return named

    def groups(self, rows: Iterable[int]) -> frozenset[str]:
        return frozenset(self.real.clips[row].group for row in rows)


def parents_in(synthetic: Source, real: Source) -> Origins:
    """Where the parents of synthetic clips are in `real`. Raises SourceError where none is there."""
    origins = Origins(synthetic, real)
    if not any(map(any, origins.rows)):
        raise SourceError(
            f"no parent of {synthetic.location} is in {real.location}",
            field="real",
            hint="Name the source that it was made from.",
        )
    return origins


def _parents(clip: Clip) -> list[tuple[str, str, float]]:
    """Identity, name and length of a clip's parents; of a real clip, its own."""
    if not clip.is_synthetic:
        return [(clip.identity, clip.clip_id, clip.duration_s)]
    names = clip.parent_names or clip.parents
    lengths = clip.parent_seconds or (float("nan"),) * len(clip.parents)
    return list(zip(clip.parents, names, lengths, strict=True))


def _without_suffix(name: str) -> str:
    return name.removesuffix(PurePosixPath(name).suffix)


def lineages(source: Source, real: Source) -> list[frozenset[str]]:
    """The recordings of `real` whose sound is in each clip of `source`, and for parents that are not there those that the row names."""
    origins = Origins(source, real)
    return [
        origins.groups(row for rows in found for row in rows)
        | {group for rows, group in zip(found, clip.parent_groups or (clip.group,), strict=True) if not rows}
        for clip, found in zip(source.clips, origins.rows, strict=True)
    ]


def recordings_of(trained: Iterable[TrainingClips], real: Source) -> frozenset[str]:
    """The recordings of `real` that hold clips of these training records, or, where not all of a record's sounds are there, go by
    a name in it."""
    groups_of: dict[str, set[str]] = defaultdict(set)
    named: dict[str, set[str]] = defaultdict(set)
    for clip in real.clips:
        groups_of[clip.identity].add(clip.group)
        named[clip.group].add(clip.group)
        named[clip.clip_id].add(clip.group)  # trained when no recordings were named, a record lists clips
    found: set[str] = set()
    for part in trained:
        found.update(*(groups_of[sound] for sound in part.sounds if sound in groups_of))
        if not part.sounds or not part.sounds <= groups_of.keys():
            found.update(*(named[group] for group in part.groups if group in named))
    return frozenset(found)


def evaluated_groups(real: Source, split: Split) -> frozenset[str]:
    """The recordings that validate or test."""
    return frozenset(real.clips[row].group for row in np.union1d(split.validation, split.test).tolist())


def leaking(source: Source, real: Source, split: Split) -> np.ndarray:
    """Which clips of `source` must not train in `split`: bool [len(source)], by the rules on top of this module.

    Where the protocol itself cuts recordings apart (`seed-9010`), clips are compared in place of recordings.
    """
    if not split.by_group:
        evaluated_rows = set(np.union1d(split.validation, split.test).tolist())
        return np.array(
            [
                any(evaluated_rows.intersection(rows) for rows in found)
                for found in Origins(source, real).rows
            ],
            dtype=bool,
        )
    evaluated = evaluated_groups(real, split)
    by_generator = bool(recordings_of(source.generator_trained_on, real) & evaluated)
    filters = filters_trained_on(source, real, split)
    return np.array(
        [
            bool(lineage & evaluated)
            or (clip.is_synthetic and (by_generator or clip.filter_folds in filters))
            for clip, lineage in zip(source.clips, lineages(source, real), strict=True)
        ],
        dtype=bool,
    )


def filters_trained_on(source: Source, real: Source, split: Split) -> frozenset[tuple[int, ...]]:
    """The classifier filters of a synthetic source, by their folds, that were trained on recordings which validate or test in `split`.

    A filter without a record (a copy without the manifest) is held to its folds: none that it was trained on may be tested.
    """
    evaluated = evaluated_groups(real, split)
    tested = {real.clips[row].fold for row in split.test.tolist()}
    return frozenset(
        folds
        for folds in {clip.filter_folds for clip in source.clips if clip.filter_folds}
        if (
            recordings_of((source.filters_trained_on[folds],), real) & evaluated
            if folds in source.filters_trained_on
            else tested & set(folds)
        )
    )


def made_elsewhere(source: Source, real: Source, rows: np.ndarray) -> np.ndarray:
    """Which synthetic clips of `source` have a parent that is none of the clips `rows` of `real`: bool [len(source)]."""
    given = set(rows.tolist())
    return np.array(
        [
            clip.is_synthetic and not all(given.intersection(parent) for parent in found)
            for clip, found in zip(source.clips, Origins(source, real).rows, strict=True)
        ],
        dtype=bool,
    )


def why_emptied(source: Source, real: Source, split: Split) -> str:
    """Of a part whose every clip leaks, half a sentence: why, and what to do."""
    other = "test another fold" if split.of_fold else "test single folds (the protocol folds)"
    trained = len(recordings_of(source.generator_trained_on, real) & evaluated_groups(real, split))
    if trained and split.by_group:
        return (
            f"its generator was trained on {trained} of the recordings that validate or test; {other}, or use clips of a generator "
            "that was not (usk fit)"
        )
    others = "make clips of recordings that train there (usk synth)"
    if split.by_group and filters_trained_on(source, real, split):
        return (
            "their parents' recordings, or recordings that their classifier filter was trained on, validate or test; "
            f"{other}, or {others}, with a filter that was not trained on them"
        )
    return f"their parents' recordings validate or test; {other}, or {others}"


def _models_of(source: Source) -> list[str]:
    return sorted({clip.model for clip in source.clips if clip.is_synthetic} - {NO_MODEL})


def unknown_generator(source: Source) -> str | None:
    """A warning if what a synthetic source's generator was trained on is not known, or a part of it, else None."""
    models = _models_of(source)
    named = any(part.groups for part in source.generator_trained_on)
    if not models or (named and all(part.complete for part in source.generator_trained_on)):
        return None
    what = "a part of what" if named else "what"
    return (
        f"{what} {', '.join(models)} was trained on is not known: whether recordings that validate or test are among it "
        "cannot be checked"
    )


def named_elsewhere(trained: Collection[str], recordings: Collection[str]) -> list[str]:
    """The corpora that training recordings are of, if none of `recordings` goes by a name of theirs: those may be the same under
    other names. Empty else, and for the demo corpus, which is nobody else's."""
    theirs, ours = ({name.rpartition("/")[0] for name in names} for names in (trained, recordings))
    return [] if theirs & ours or ours == {DEMO} else sorted(theirs - {DEMO})


def foreign_generator(source: Source, real: Source) -> str | None:
    """A warning if what the generator of `source` was trained on may be in `real` unrecognized, else None: nothing of it is found
    there, by sound or by name."""
    trained = source.generator_trained_on
    if unknown_generator(source) or recordings_of(trained, real):
        return None
    groups = {group for part in trained for group in part.groups}
    elsewhere = named_elsewhere(groups, {clip.group for clip in real.clips})
    if not elsewhere:
        return None
    return (
        f"{', '.join(_models_of(source))} was trained on {abbreviate_list(elsewhere)}: if {real.location} holds recordings of "
        "that under other names, leaks cannot be ruled out"
    )


def foreign_parents(source: Source, real: Source) -> str | None:
    """A warning if leaks between `source` and `real` cannot be ruled out by the clips' sounds, else None."""
    if source is real:
        return None
    origins = Origins(source, real)
    if not source.is_synthetic:
        ours = {clip.group.partition("/")[0] for clip in real.clips}
        known = {clip.group.partition("/")[0] for clip in source.clips} & ours
        if known or len(origins.foreign) < origins.n_parents:
            return f"{source.location} is another real source: leaks into {real.location} are ruled out by sounds and recording names alone"
        return (
            f"{source.location} names no parents (no provenance) and counts as another real source: if its clips were made "
            f"from those of {real.location}, leaks cannot be ruled out"
        )
    said = []
    if origins.by_name:
        said.append(
            f"{pluralize(len(origins.by_name), 'parent')} of {source.location} ({abbreviate_list(sorted(origins.by_name), 2)}) sound otherwise in "
            f"{real.location}, and are taken for its clips of the same name and length (a re-encoded copy)"
        )
    if origins.foreign:
        of_all = f"{len(origins.foreign)} of {origins.n_parents}" if origins.n_parents > 1 else "the"
        said.append(
            f"{of_all} parents of {source.location} ({abbreviate_list(sorted(origins.foreign), 2)}) are not clips of {real.location}: "
            "leaks between them cannot be ruled out"
        )
    elif other := foreign_generator(source, real):
        said.append(other)
    return "; ".join(said) or None
