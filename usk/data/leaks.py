"""Find clips that must not train with a split because they would leak, and leaks that cannot be ruled out. Pure.

The recordings that validate or test are those of the real source, by their names in the current run. A synthetic clip leaks if

- one of its parents is in a recording that validates or tests, or
- its generator, or the classifier filter that chose it, was trained on a clip of such a recording.

Parents and training clips are found in the real source by their sound, so their names do not matter. If a parent's sound is
not there, a clip with the parent's name and length counts as a re-encoded copy of it. If the sound of a training clip is not
there, its recording is found by name: UrbanSound8K's recordings have the same names everywhere. A parent that is not found is
foreign, and warnings say so.
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

DEMO = "demo"  # source name of the demo corpus
SAME_LENGTH_S = 0.1  # lossy encoders pad a few hundredths of a second
ROW_NAME = re.compile(r"row-\d+")  # of clips in a dataset without names


class Origins:
    """The parents of the clips of `source` in the real source. A real clip counts as its own parent.

    `rows[clip][parent]` are the rows of `real` with the parent's sound: several if there are copies, none if the parent is
    foreign. `by_name` are the names of parents that were found by name and length, `foreign` those of foreign ones.
    """

    def __init__(self, source: Source, real: Source) -> None:
        is_decoded = all(clip.sound for clip in real.clips)
        assert is_decoded or not any(clip.parent_names for clip in source.clips), (
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
        stem = _without_suffix(name)
        endings = [stem.split("/", n)[-1] for n in range(stem.count("/") + 1)]  # the longest first
        candidates = next((self._named[ending] for ending in endings if ending in self._named), [])
        rows = tuple(
            row for row in candidates if abs(self.real.clips[row].duration_s - length_s) <= SAME_LENGTH_S
        )
        (self.by_name if rows else self.foreign).add(name)
        return rows

    @cached_property
    def _named(self) -> dict[str, list[int]]:
        """The rows of `real` by name, without the source's name, which is another one for a copy of the folder."""
        named = defaultdict(list)
        for row, clip in enumerate(self.real.clips):
            name = _without_suffix(clip.clip_id.removeprefix(f"{self.real.name}/"))
            if not ROW_NAME.fullmatch(name):
                named[name].append(row)
        return named


def find_parents(synthetic: Source, real: Source) -> Origins:
    """Find the parents of synthetic clips in `real`. Raise SourceError if there is none."""
    origins = Origins(synthetic, real)
    if not any(map(any, origins.rows)):
        message = f"no parent of {synthetic.location} is in {real.location}"
        raise SourceError(message, field="real", hint="Name the source that it was made from.")
    return origins


def _parents(clip: Clip) -> list[tuple[str, str, float]]:
    """Return the identity, name and length in seconds of a clip's parents, or of a real clip itself."""
    if not clip.is_synthetic:
        return [(clip.identity, clip.clip_id, clip.duration_s)]
    names = clip.parent_names or clip.parents
    lengths = clip.parent_seconds or (float("nan"),) * len(clip.parents)
    return list(zip(clip.parents, names, lengths, strict=True))


def _without_suffix(name: str) -> str:
    return name.removesuffix(PurePosixPath(name).suffix)


def lineages(source: Source, real: Source) -> list[frozenset[str]]:
    """Return the recordings that are in each clip of `source`: those of `real`, and the recorded names for foreign parents."""
    found = []
    for clip, parents in zip(source.clips, Origins(source, real).rows, strict=True):
        groups: set[str] = set()
        for rows, group in zip(parents, clip.parent_groups or (clip.group,), strict=True):
            groups.update([real.clips[row].group for row in rows] or [group])
        found.append(frozenset(groups))
    return found


def recordings_of(trained: Iterable[TrainingClips], real: Source) -> frozenset[str]:
    """Return the recordings of `real` with clips that were trained on, found by sound.

    If `real` lacks some of the sounds of a training source, also return the recordings with the names in its record.
    """
    groups_of: dict[str, set[str]] = defaultdict(set)
    named: dict[str, set[str]] = defaultdict(set)
    for clip in real.clips:
        groups_of[clip.identity].add(clip.group)
        named[clip.group].add(clip.group)
        named[clip.clip_id].add(clip.group)  # a record without recordings names clips
    found: set[str] = set()
    for part in trained:
        found.update(*(groups_of[sound] for sound in part.sounds if sound in groups_of))
        if not part.sounds or not part.sounds <= groups_of.keys():
            found.update(*(named[group] for group in part.groups if group in named))
    return frozenset(found)


def evaluated_groups(real: Source, split: Split) -> frozenset[str]:
    """Return the recordings that validate or test."""
    return frozenset(real.clips[row].group for row in np.union1d(split.validation, split.test).tolist())


def leaking(source: Source, real: Source, split: Split) -> np.ndarray:
    """Return which clips of `source` must not train in `split`: bool [len(source)]. See the rules at the top of this module.

    For a protocol that divides recordings (`seed-9010`), clips are compared instead of recordings.
    """
    if not split.by_group:
        evaluated_rows = set(np.union1d(split.validation, split.test).tolist())
        parents_of = Origins(source, real).rows
        leaks = [any(evaluated_rows.intersection(rows) for rows in parents) for parents in parents_of]
        return np.array(leaks, dtype=bool)
    evaluated = evaluated_groups(real, split)
    by_generator = bool(recordings_of(source.generator_trained_on, real) & evaluated)
    filters = filters_trained_on(source, real, split)
    leaks = [
        bool(groups & evaluated) or (clip.is_synthetic and (by_generator or clip.filter_folds in filters))
        for clip, groups in zip(source.clips, lineages(source, real), strict=True)
    ]
    return np.array(leaks, dtype=bool)


def filters_trained_on(source: Source, real: Source, split: Split) -> frozenset[tuple[int, ...]]:
    """Return the classifier filters of a source (as `Clip.filter_folds`) that were trained on recordings which validate or test.

    A filter without a record of its training clips (a copy without the manifest) counts if a fold that it was trained on tests.
    """
    evaluated = evaluated_groups(real, split)
    tested = {real.clips[row].fold for row in split.test.tolist()}
    found = set()
    for folds in {clip.filter_folds for clip in source.clips if clip.filter_folds}:
        record = source.filters_trained_on.get(folds)
        if tested & set(folds) if record is None else recordings_of((record,), real) & evaluated:
            found.add(folds)
    return frozenset(found)


def has_outside_parent(source: Source, real: Source, rows: np.ndarray) -> np.ndarray:
    """Return which synthetic clips of `source` have a parent outside the clips `rows` of `real`: bool [len(source)]."""
    inside = set(rows.tolist())
    outside = [
        clip.is_synthetic and not all(inside.intersection(parent) for parent in parents)
        for clip, parents in zip(source.clips, Origins(source, real).rows, strict=True)
    ]
    return np.array(outside, dtype=bool)


def explain_all_leak(source: Source, real: Source, split: Split) -> str:
    """Return the end of a message for a source whose clips all leak: why, and what to do."""
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
    """Return a warning if the training clips of the source's generator are not known in full, else None."""
    models = _models_of(source)
    named = any(part.groups for part in source.generator_trained_on)
    if not models or (named and all(part.complete for part in source.generator_trained_on)):
        return None
    what = "a part of what" if named else "what"
    return (
        f"{what} {', '.join(models)} was trained on is not known: whether recordings that validate or test are among it "
        "cannot be checked"
    )


def unmatched_sources(trained: Collection[str], recordings: Collection[str]) -> list[str]:
    """Return the sources of training recordings if `recordings` share none of these sources, else [].

    `recordings` may then hold training recordings under other names. The demo corpus does not count: no other source has it.
    """
    trained_sources, sources = (
        {name.rpartition("/")[0] for name in names} for names in (trained, recordings)
    )
    return [] if trained_sources & sources or sources == {DEMO} else sorted(trained_sources - {DEMO})


def foreign_generator(source: Source, real: Source) -> str | None:
    """Return a warning if `real` may hold training clips of the source's generator that are not found by sound or name, else None."""
    trained = source.generator_trained_on
    if unknown_generator(source) or recordings_of(trained, real):
        return None
    groups = {group for part in trained for group in part.groups}
    elsewhere = unmatched_sources(groups, {clip.group for clip in real.clips})
    if not elsewhere:
        return None
    return (
        f"{', '.join(_models_of(source))} was trained on {abbreviate_list(elsewhere)}: if {real.location} holds recordings of "
        "that under other names, leaks cannot be ruled out"
    )


def foreign_parents(source: Source, real: Source) -> str | None:
    """Return a warning if the clips' sounds cannot rule out leaks between `source` and `real`, else None."""
    if source is real:
        return None
    origins = Origins(source, real)
    if not source.is_synthetic:
        names, real_names = ({clip.group.partition("/")[0] for clip in each.clips} for each in (source, real))
        if names & real_names or len(origins.foreign) < origins.n_parents:
            return f"{source.location} is another real source: leaks into {real.location} are ruled out by sounds and recording names alone"
        return (
            f"{source.location} names no parents (no provenance) and counts as another real source: if its clips were made "
            f"from those of {real.location}, leaks cannot be ruled out"
        )
    warnings = []
    if origins.by_name:
        warnings.append(
            f"{pluralize(len(origins.by_name), 'parent')} of {source.location} ({abbreviate_list(sorted(origins.by_name), 2)}) sound otherwise in "
            f"{real.location}, and are taken for its clips of the same name and length (a re-encoded copy)"
        )
    if origins.foreign:
        which = f"{len(origins.foreign)} of {origins.n_parents}" if origins.n_parents > 1 else "the"
        warnings.append(
            f"{which} parents of {source.location} ({abbreviate_list(sorted(origins.foreign), 2)}) are not clips of {real.location}: "
            "leaks between them cannot be ruled out"
        )
    elif generator_warning := foreign_generator(source, real):
        warnings.append(generator_warning)
    return "; ".join(warnings) or None
