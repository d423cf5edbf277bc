"""What a classifier trains on: `name[:fraction]` parts joined by commas, and the rows that may take part in a split."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

import numpy as np

from usk.data.clip import NO_MODEL, Clip
from usk.data.renaming import renaming
from usk.data.source import Source
from usk.data.splits import Split, stable_order
from usk.data.train_subset import made_elsewhere
from usk.errors import LeakError, SourceError, UsageError, UskError
from usk.text import abbreviate_list, pluralize

DEMO = "demo"  # in front of the recordings of the demo corpus


@dataclass(frozen=True)
class MixPart:
    """One part of a mix: `real`, `synth` or any source, and the share of its clips that is used."""

    name: str
    fraction: float = 1.0

    def __str__(self) -> str:
        return self.name if self.fraction == 1 else f"{self.name}:{self.fraction!r}"


@dataclass(frozen=True)
class Mix:
    """A parsed `--mix`; `text` says it in one way of the several, `real` in front, then `synth`: its name in every table."""

    text: str
    parts: tuple[MixPart, ...]


def parse_mix(text: str, synth: str | os.PathLike[str] | None = None) -> Mix:
    """`real,synth`, `real:0.1,synth` or `synth`; any source's location may stand in place of a name.

    `synth` is where that is: a part that names the same place is called so too.
    """
    parts = []
    for piece in text.split(","):
        name, colon, share = piece.strip().rpartition(":")
        fraction = 1.0
        if colon:
            try:
                fraction = float(share)
            except ValueError:
                name = piece.strip()
        else:
            name = share
        if not name:
            raise UsageError(f"--mix {text!r} has an empty part; write for example real,synth or real:0.1")
        if not 0 < fraction <= 1:
            raise UsageError(f"--mix {text!r}: the fraction of {name} must lie above 0 and up to 1")
        if synth is not None and name != "real" and _same_place(name, os.fspath(synth)):
            name = "synth"
        parts.append(MixPart(name, fraction))
    names = [part.name for part in parts]
    if len(set(names)) < len(names):
        raise UsageError(f"--mix {text!r} names a part twice")
    parts.sort(key=lambda part: (part.name != "real", part.name != "synth"))
    return Mix(",".join(map(str, parts)), tuple(parts))


def _same_place(one: str, other: str) -> bool:
    here, there = Path(one).expanduser(), Path(other).expanduser()
    return one == other or (here.is_dir() and there.is_dir() and here.samefile(there))


@dataclass(frozen=True)
class TrainingRows:
    """The rows of each part of a mix that train in one split, and how many were dropped: leaks, and synthetic clips that
    were made from more than the real clips which train there."""

    parts: tuple[tuple[str, np.ndarray], ...]  # part name, rows of its source
    dropped: int

    def count(self, sources: Mapping[str, Source], synthetic: bool) -> int:
        return sum(
            int(sources[name].clips[row].is_synthetic == synthetic)
            for name, rows in self.parts
            for row in rows
        )


def share_of(clips: Sequence[Clip], rows: np.ndarray, fraction: float) -> np.ndarray:
    """About `fraction` of `rows`, the same share of every class, at least one each; smaller shares nest in larger."""
    if fraction >= 1:
        return rows
    by_class: dict[int, list[int]] = defaultdict(list)
    for row in rows.tolist():
        by_class[clips[row].label].append(row)
    kept = []
    for members in by_class.values():
        members.sort(key=lambda row: stable_order(clips[row].clip_id))
        kept += members[: max(1, round(fraction * len(members)))]
    return np.array(sorted(kept), dtype=np.int64)


def lineages(source: Source, real: Source) -> list[frozenset[str]]:
    """The recordings whose sound is in each clip of `source`: those that its row names, and those that its parents (of a
    real clip: itself) are pluralize to in `real`."""
    group_of = {clip.clip_id: clip.group for clip in real.clips}
    return [
        clip.lineage | {group_of[name] for name in clip.parents or (clip.clip_id,) if name in group_of}
        for clip in source.clips
    ]


def renamed_parents(source: Source, real: Source) -> list[str]:
    """The parents that are in `real`, but pluralize to other recordings there than `source` says; with both."""
    group_of = {clip.clip_id: clip.group for clip in real.clips}
    named = {
        (parent, group)
        for clip in source.clips
        for parent, group in zip(clip.parents, clip.parent_groups, strict=True)
    }
    return [
        f"{parent}: of {group}, there of {group_of[parent]}"
        for parent, group in sorted(named)
        if group_of.get(parent, group) != group
    ]


def made_of_other_rows(source: Source, real: Source) -> str | None:
    """A sentence if the parents of `source` are rows of another revision of `real`, whose rows have no names but their
    place: they cannot be found there, and which of them validate or test is not known."""
    name, revision = source.made_of or (real.name, real.revision)
    if not real.ids_by_row or name != real.name or revision == real.revision:
        return None
    at = f"{real.hub_id}@{revision}" if real.hub_id else f"revision {revision}"
    return (
        f"{source.location} was made of {at}, and {real.location} is another by now ({real.revision}), whose rows have no names "
        "but their place, so that parents cannot be told; name that one with --real, or make the clips again with `usk synth` (a column "
        "clip_id or file_name would name the rows for good)"
    )


def generator_training_groups(source: Source, real: Source) -> frozenset[str]:
    """The recordings that the generator of `source` was fitted on, under the names in `real` too: where none were named
    when it was fitted, it lists clips."""
    return source.model_groups | {clip.group for clip in real.clips if clip.clip_id in source.model_groups}


def leaking(source: Source, real: Source, split: Split) -> np.ndarray:
    """Which clips of `source` must not train in `split`: bool [len(source)].

    A clip leaks if a recording that it (or a parent of it) was cut from is in the validation or test part, or if
    the generator that made it, or the clip_filter that chose it, was fitted on such a recording. Where the protocol itself cuts recordings apart
    (`seed-9010`), the same clips are compared in place of the same recordings. One with a parent that is gone (`orphaned`)
    leaks in every split: what it was cut from may be tested under another name.
    """
    judged = np.union1d(split.validation, split.test).tolist()
    gone = orphaned(source, real)
    if not split.by_group:
        judged_ids = {real.clips[row].clip_id for row in judged}
        return gone | np.array(
            [
                bool(judged_ids.intersection(clip.parents if clip.is_synthetic else (clip.clip_id,)))
                for clip in source.clips
            ],
            dtype=bool,
        )
    filtered_groups = {real.clips[row].group for row in judged}
    heard = bool(generator_training_groups(source, real) & filtered_groups)
    clip_filters = filters_trained_on(source, real, split)
    return gone | np.array(
        [
            bool(lineage & filtered_groups)
            or (clip.is_synthetic and (heard or clip.filter_folds in clip_filters))
            for clip, lineage in zip(source.clips, lineages(source, real), strict=True)
        ],
        dtype=bool,
    )


def orphaned(source: Source, real: Source) -> np.ndarray:
    """Which clips of `source` have a parent that was in the folder `real` and is not now: moved, renamed or removed since,
    bool [len(source)]. Where clips have names of their own, as in UrbanSound8K, none is."""
    if not real.by_path:
        return np.zeros(len(source), dtype=bool)
    there, folder = {clip.clip_id for clip in real.clips}, f"{real.name}/"
    return np.array(
        [
            any(parent.startswith(folder) and parent not in there for parent in clip.parents)
            for clip in source.clips
        ],
        dtype=bool,
    )


def filters_trained_on(source: Source, real: Source, split: Split) -> frozenset[tuple[int, ...]]:
    """The clip_filters of a synthetic source, by their folds, that were fitted on recordings which validate or test in `split`.

    A clip_filter whose recordings are not on record (a copy without the manifest) is held to its folds: it must have heard none
    that is tested.
    """
    judged = {real.clips[row].group for row in np.union1d(split.validation, split.test).tolist()}
    tested = {real.clips[row].fold for row in split.test.tolist()}
    return frozenset(
        folds
        for folds in {clip.filter_folds for clip in source.clips if clip.filter_folds}
        if (source.filter_groups[folds] & judged if folds in source.filter_groups else tested & set(folds))
    )


def why_emptied(source: Source, real: Source, split: Split) -> str:
    """Of a part whose every clip leaks, half a sentence: why, and what to do."""
    if orphaned(source, real).all():  # whatever is tested
        return (
            f"parents of each are in {real.location} no more under the names that they had (moved, renamed or removed since), and "
            "may be tested under others; make them again (usk synth)"
        )
    other = "test another fold (--folds)" if split.of_fold else "test single folds (--protocol folds)"
    judged = {real.clips[row].group for row in np.union1d(split.validation, split.test).tolist()}
    heard = len(generator_training_groups(source, real) & judged)
    if heard and split.by_group and source.renamed_from:
        return (
            f"its generator was trained on {heard} of the recordings that validate or test; which validate goes by their names: call the "
            f"folder {source.renamed_from} again, or use clips of a generator that has not heard them (usk fit)"
        )
    if heard and split.by_group:
        if real.made_folds and source.made_of is not None and source.made_of[1] != real.revision:
            other = (
                f"{real.location} has changed since these clips were made, and with it the folds that usk makes and what validates: fit a "
                f"generator again, or list the files in a table with their folds; else {other}"
            )
        return (
            f"its generator was trained on {heard} of the recordings that validate or test; {other}, or use clips of a generator "
            "that has not heard them (usk fit)"
        )
    others = "make clips of recordings that train there (usk synth" + (" --folds)" if split.of_fold else ")")
    if split.by_group and filters_trained_on(source, real, split):
        return (
            "their parents' recordings, or recordings that their clip_filter was fitted on, validate or test; "
            f"{other}, or {others}, with a clip_filter that has heard no others (--filter --test-folds)"
        )
    return f"their parents' recordings validate or test; {other}, or {others}"


def training_rows(mix: Mix, sources: Mapping[str, Source], real: Source, split: Split) -> TrainingRows:
    """Which rows of each part train in `split`.

    With train_clips, or a fraction of the real clips (`real:0.1`), a synthetic clip trains only if all its parents are among
    those: what it brings of other real clips would be credited to synthesis.

    Raises LeakError if a part would be left empty by leaks, UsageError for a part that trains nothing, and SourceError for
    one that was made when the recordings of `real` were named otherwise: what its generator and its clip_filters have heard is
    listed under those names, and could not be found.
    """
    chosen = []
    dropped = 0
    share = min((part.fraction for part in mix.parts if sources[part.name] is real), default=1.0)
    given = share_of(real.clips, split.train, share)
    few = share < 1 or split.train_clips is not None
    for part in mix.parts:
        source = sources[part.name]
        if source is real:
            rows = given
        else:
            if moved := made_of_other_rows(source, real):
                raise SourceError(f"--mix {mix.text}: {moved}")
            renamed = renamed_parents(source, real)
            if renamed:
                raise SourceError(
                    f"--mix {mix.text}: {part.name} was made when the recordings of {real.location} were named otherwise "
                    f"({abbreviate_list(renamed, 1)}); name them as then (--group-column), or make it again with `usk synth`"
                )
            leaks = leaking(source, real, split)
            dropped += int(leaks.sum())
            if leaks.all():
                raise LeakError(
                    f"--mix {mix.text}, test part {split.name}: all {len(source)} clips of {part.name} would leak: "
                    f"{why_emptied(source, real, split)}"
                )
            elsewhere = made_elsewhere(source, real, given) & ~leaks if few else np.zeros_like(leaks)
            dropped += int(elsewhere.sum())
            if (leaks | elsewhere).all():
                raise UsageError(
                    f"--mix {mix.text}: none of the {len(source)} clips of {part.name} was made from the "
                    f"{_few_of(split, share, len(given))} alone; {_fix_for_few(split, share, len(given))}"
                )
            rows = share_of(source.clips, np.flatnonzero(~leaks & ~elsewhere), part.fraction)
        if not len(rows):
            raise UsageError(
                f"--mix {mix.text}: {part.name} has no clip to train on in {split.name}: its recordings test or validate there, all of "
                "them; test another fold (--folds), or name other folds or recordings (--fold-column, --group-column)"
            )
        chosen.append((part.name, rows))
    return TrainingRows(tuple(chosen), dropped)


def _few_of(split: Split, share: float, n_real: int) -> str:
    if share < 1:
        return f"{n_real} real clips that train beside them in {split.name}"
    return f"{split.train_clips} train_clips of {split.name}"


def _fix_for_few(split: Split, share: float, n_real: int) -> str:
    if not split.of_fold:
        return "only --protocol folds can have such clips"
    if share < 1:
        return f"for few real clips use --train-clips {n_real}, with usk train and usk synth alike, in place of real:{share:g}"
    return f"usk synth --train-clips {split.train_clips} --test-folds {split.name.removeprefix('fold')} makes such clips"


def label_map(source: Source, real: Source) -> np.ndarray:
    """Class numbers of `source` in terms of `real`'s: int64 [n classes of source]. Unknown classes raise UskError."""
    unknown = [name for name in source.class_names if name not in real.class_names and source.counts()[name]]
    if unknown:
        known = ",".join(name for name in source.class_names if name in real.class_names)
        fix = (
            f"make it again with `usk synth{f' --classes {quote(known)}' if known else ''}`"
            if source.has_synthetic
            else "leave them out or rename them"
        )
        raise UskError(
            f"{source.location} has classes that {real.location} has not: {', '.join(unknown)}; "
            f"the real classes are {', '.join(real.class_names)}: {fix}"
        )
    return np.array(
        [real.class_names.index(name) if name in real.class_names else -1 for name in source.class_names],
        dtype=np.int64,
    )


def unknown_generator(source: Source) -> str | None:
    """A warning if what a synthetic source's generator was trained on is not known, or a part of it, else None."""
    models = sorted({clip.model for clip in source.clips if clip.is_synthetic} - {NO_MODEL})
    if not models or (source.model_groups and not source.model_unknown):
        return None
    what = "a part of what" if source.model_groups else "what"
    return (
        f"{what} {', '.join(models)} was trained on is not known: whether it has heard recordings that validate or test "
        "cannot be checked"
    )


def named_elsewhere(heard: Collection[str], recordings: Collection[str]) -> list[str]:
    """The corpora that a generator has heard, if none of `recordings` goes by a name of theirs: those may be the same under
    other names. Empty else, and for the demo corpus, which is nobody else's."""
    theirs, ours = ({name.rpartition("/")[0] for name in names} for names in (heard, recordings))
    return [] if theirs & ours or ours == {DEMO} else sorted(theirs - {DEMO})


def foreign_generator(source: Source, real: Source) -> str | None:
    """A warning if what the generator (or a clip_filter) of `source` has heard may be in `real` under other names, else None: all
    of it is named as nothing there is (the demo corpus is nobody else's), or some was in that very folder and is not now."""
    recordings = {clip.group for clip in real.clips}
    heard = generator_training_groups(source, real)
    if real.by_path and not unknown_generator(source):
        listed = heard.union(*source.filter_groups.values())
        gone = sorted(name for name in listed - recordings if name.startswith(f"{real.name}/"))
        if gone := [name for name in gone if name not in {clip.clip_id for clip in real.clips}]:
            return (
                f"what made {source.location} has heard recordings that are in {real.location} no more under the names that they had "
                f"({abbreviate_list(gone, 2)}): if they were moved or renamed, leaks cannot be ruled out"
            )
    elsewhere = named_elsewhere(heard, recordings)
    if not elsewhere or unknown_generator(source):
        return None
    return (
        f"the generator of {source.location} has heard {abbreviate_list(elsewhere)}: if {real.location} holds recordings of that "
        "under other names, leaks cannot be ruled out"
    )


def foreign_parents(source: Source, real: Source) -> str | None:
    """A warning if leaks between `source` and `real` cannot be ruled out by names, or by names that were others, else None."""
    return "; ".join(filter(None, (renaming(source, real), _foreign_parents(source, real)))) or None


def _foreign_parents(source: Source, real: Source) -> str | None:
    if source is real:
        return None
    ours = {clip.group.partition("/")[0] for clip in real.clips}
    if not source.is_synthetic:
        if {clip.group.partition("/")[0] for clip in source.clips} & ours:
            return f"{source.location} is another real source: leaks into {real.location} are ruled out by recording names alone"
        return (
            f"{source.location} names no parents (no provenance) and counts as another real source: if its clips were made "
            f"from those of {real.location}, leaks cannot be ruled out"
        )
    theirs = {parent.partition("/")[0] for clip in source.clips for parent in clip.parent_groups}
    if gone := int(orphaned(source, real).sum()):
        left_out = (
            f"left out {pluralize(gone, 'clip')} of {source.location} with parents that are in {real.location} no more under the names "
            "that they had (moved, renamed or removed since): under others they may be tested"
        )
        return "; ".join(filter(None, (left_out, foreign_generator(source, real))))
    if not theirs & ours:
        return (
            f"the parents of {source.location} ({', '.join(sorted(theirs))}) are not clips of {real.location}: "
            "leaks between them cannot be ruled out by name"
        )
    ids = {clip.clip_id for clip in real.clips}
    if not any(ids.intersection(clip.parents) for clip in source.clips):
        return (
            f"no parent of {source.location} is a clip of {real.location}: leaks are ruled out by recording names alone, "
            "and not at all if its files were renamed or moved since"
        )
    return foreign_generator(source, real)
