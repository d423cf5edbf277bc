"""An opened source of clips: its rows, their classes, and the places of their audio."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from usk.data.audio_file import AudioRef
from usk.data.clip import Clip
from usk.data.fingerprint import clip_digests
from usk.data.splits import make_folds
from usk.errors import SourceError, UsageError
from usk.text import abbreviate_list, pluralize


@dataclass(frozen=True)
class TrainingClips:
    """The clips that a generator or a classifier filter was trained on, as far as they are recorded."""

    groups: frozenset[str] = frozenset()  # names of recordings at that time
    sounds: frozenset[str] = frozenset()  # `Clip.sound`
    complete: bool = True  # whether there are no others


@dataclass(frozen=True)
class Source:
    """Clips, their classes, and the places of their audio."""

    name: str  # clip ids and groups begin with it
    kind: str
    location: str  # what the user typed
    revision: str  # twelve hex digits of the content, or a Hub commit
    cache_key: str
    class_names: tuple[str, ...]
    clips: tuple[Clip, ...] = field(repr=False)
    audio: tuple[AudioRef, ...] = field(repr=False)
    license: str = "unknown"
    notes: tuple[str, ...] = ()  # sentences for the user
    has_groups: bool = True  # whether the recordings are known
    # For a synthetic dataset: one for each source that its generator was trained on.
    generator_trained_on: tuple[TrainingClips, ...] = field(default=(), repr=False)
    # For a synthetic dataset: the training clips of each classifier filter, by `Clip.filter_folds`.
    filters_trained_on: Mapping[tuple[int, ...], TrainingClips] = field(
        default_factory=dict, hash=False, repr=False
    )
    hub_id: str = ""  # user/name on the Hub; `revision` is then the commit

    def __len__(self) -> int:
        return len(self.clips)

    @property
    def is_synthetic(self) -> bool:
        return bool(self.clips) and all(clip.is_synthetic for clip in self.clips)

    @property
    def has_synthetic(self) -> bool:
        """Whether any clip is synthetic: the source then cannot be used as real clips."""
        return any(clip.is_synthetic for clip in self.clips)

    @property
    def folds(self) -> tuple[int, ...]:
        return tuple(sorted({clip.fold for clip in self.clips}))

    def subset(self, keep: Iterable[int]) -> Source:
        """Return the source with only the given rows, in the given order."""
        rows = list(keep)
        return replace(
            self, clips=tuple(self.clips[row] for row in rows), audio=tuple(self.audio[row] for row in rows)
        )

    def select(self, classes: Sequence[str] | None = None, folds: Sequence[int] | None = None) -> Source:
        """Return the rows of some classes and folds. Class numbers stay. Raise UsageError for unknown classes and folds."""
        if classes:
            classes = _rejoin_names(classes, self.class_names)
            unknown = [name for name in classes if name not in self.class_names]
            if unknown:
                known = ", ".join(f"{name!r}" if "," in name else name for name in self.class_names)
                message = f"{self.location} has no such class; it has {known}"
                raise UsageError(message, field="classes", value=",".join(unknown))
        self.require_folds(folds or (), "folds")
        wanted = {self.class_names.index(name) for name in classes} if classes else None
        return self.subset(
            row
            for row, clip in enumerate(self.clips)
            if (wanted is None or clip.label in wanted) and (not folds or clip.fold in folds)
        )

    def require_folds(self, folds: Iterable[int], field: str = "test_folds") -> None:
        """Raise UsageError for folds that the source does not have. `field` is the parameter that named them."""
        if missing := sorted(set(folds) - set(self.folds)):
            message = f"{self.location} has no such fold; it has {', '.join(map(str, self.folds))}"
            raise UsageError(message, field=field, value=",".join(map(str, missing)))

    def require_real(self, why: str) -> None:
        """Raise UsageError if the source has synthetic clips. `why` ends the message."""
        if self.has_synthetic:
            message = f"holds synthetic clips, and {why}"
            hint = "Name the real clips that they were made from."
            raise UsageError(message, field="real", value=self.location, hint=hint)

    def counts(self) -> dict[str, int]:
        """Return the number of clips of each class, in class order."""
        tally = Counter(clip.label for clip in self.clips)
        return {name: tally.get(label, 0) for label, name in enumerate(self.class_names)}


def _rejoin_names(pieces: Sequence[str], names: Collection[str]) -> list[str]:
    """Join pieces of a list that was split at commas, if they form one of `names`, which may contain commas."""
    name_of = {re.sub(r"\s*,\s*", ",", name.strip()): name for name in names}
    found: list[str] = []
    start = 0
    while start < len(pieces):
        ends = range(len(pieces), start, -1)  # the longest name first
        end = next((end for end in ends if ",".join(pieces[start:end]) in name_of), start + 1)
        joined = ",".join(pieces[start:end])
        found.append(name_of.get(joined, joined))
        start = end
    return found


def with_folds(source: Source) -> Source:
    """Make folds if the source has none. They depend on the content of the files, not on their names."""
    if not source.clips or any(clip.fold for clip in source.clips):
        return source
    digests = clip_digests(source.audio, source.cache_key)
    by_content = [replace(clip, sound=digest) for clip, digest in zip(source.clips, digests, strict=True)]
    folds = make_folds(by_content)
    note = f"no folds are given: usk made {max(folds)}, balanced by class, with recordings kept whole"
    clips = tuple(replace(clip, fold=fold) for clip, fold in zip(source.clips, folds, strict=True))
    return replace(source, notes=(*source.notes, note), clips=clips)


def skip_missing_files(
    names: Sequence[str],
    exists: Sequence[bool],
    location: str,
    skip_bad: bool,
    describe_search: Callable[[Sequence[str]], str],
) -> tuple[list[int], list[str]]:
    """Return the rows of a table whose audio file exists, and a note on the others.

    Raise SourceError if no file exists, or if one is missing without `skip_bad`. `describe_search(missing)` ends the message.
    """
    missing = [name for name, is_there in zip(names, exists, strict=True) if not is_there]
    kept = [row for row, is_there in enumerate(exists) if is_there]
    if not missing:
        return kept, []
    if kept and skip_bad:
        n_missing = pluralize(len(missing), "clip")
        return kept, [f"skipped {n_missing} without an audio file ({abbreviate_list(missing)})"]
    which = f"{len(missing)} of {len(names)} clips in its metadata have no audio file"
    if not kept:
        which = f"none of the {len(names)} clips in its metadata has its audio file"
    raise SourceError(
        f"{location}: {which} ({abbreviate_list(missing)}){describe_search(missing)}",
        hint="Complete the download, or leave them out with `skip_bad`."
        if kept
        else "Correct the names, or download it again.",
    )


def no_groups_note(fix: str, problem: str = "no recordings are named") -> str:
    return (
        f"{problem}, so each clip counts as its own: if several were cut from one recording, "
        f"test scores will be too high ({fix})"
    )
