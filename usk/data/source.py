"""A source of clips as it is once opened: its rows, their classes, and where their audio is."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from usk.data.audio_file import AudioRef
from usk.data.clip import Clip
from usk.data.fingerprint import clip_digests
from usk.data.splits import make_folds
from usk.errors import UsageError


@dataclass(frozen=True)
class TrainingClips:
    """The clips that a generator or a classifier filter was trained on: their sounds, where they are on record, and their
    recordings as named then. `complete` is whether that is all."""

    groups: frozenset[str] = frozenset()
    sounds: frozenset[str] = frozenset()
    complete: bool = True


@dataclass(frozen=True)
class Source:
    """Clips, their classes, and where their audio is. `notes` are sentences that the user should read once."""

    name: str  # in front of clip ids and groups
    kind: str
    location: str  # what the user typed
    revision: str  # twelve hex digits of the content, or a Hub commit
    cache_key: str
    class_names: tuple[str, ...]
    clips: tuple[Clip, ...]
    audio: tuple[AudioRef, ...]
    license: str = "unknown"
    notes: tuple[str, ...] = ()
    has_groups: bool = True
    generator_trained_on: tuple[TrainingClips, ...] = ()  # of a synthetic dataset, a part for each source
    # The same of its classifier filters, by the folds that name one (`Clip.filter_folds`).
    filters_trained_on: Mapping[tuple[int, ...], TrainingClips] = field(default_factory=dict, hash=False)
    hub_id: str = ""  # user/name of one on the Hub; its revision is then the commit

    def __len__(self) -> int:
        return len(self.clips)

    @property
    def is_synthetic(self) -> bool:
        return bool(self.clips) and all(clip.is_synthetic for clip in self.clips)

    @property
    def has_synthetic(self) -> bool:
        """Whether any of its clips is: it is then no source of real ones."""
        return any(clip.is_synthetic for clip in self.clips)

    @property
    def folds(self) -> tuple[int, ...]:
        return tuple(sorted({clip.fold for clip in self.clips}))

    def subset(self, keep: Iterable[int]) -> Source:
        """The same source with the given rows only, in the given order."""
        rows = list(keep)
        return replace(
            self, clips=tuple(self.clips[row] for row in rows), audio=tuple(self.audio[row] for row in rows)
        )

    def select(self, classes: Sequence[str] | None = None, folds: Sequence[int] | None = None) -> Source:
        """The rows of some classes and folds; unknown names raise UsageError. Class numbers stay as they are."""
        if classes:
            classes = _with_commas(classes, self.class_names)
            unknown = [name for name in classes if name not in self.class_names]
            if unknown:
                known = ", ".join(f"{name!r}" if "," in name else name for name in self.class_names)
                raise UsageError(
                    f"{self.location} has no such class; it has {known}",
                    field="classes",
                    value=",".join(unknown),
                )
        self.require_folds(folds or (), "folds")
        wanted = {self.class_names.index(name) for name in classes} if classes else None
        return self.subset(
            row
            for row, clip in enumerate(self.clips)
            if (wanted is None or clip.label in wanted) and (not folds or clip.fold in folds)
        )

    def require_folds(self, folds: Iterable[int], field: str = "test_folds") -> None:
        """Raise UsageError for folds that it does not have; `field` named them."""
        if missing := sorted(set(folds) - set(self.folds)):
            raise UsageError(
                f"{self.location} has no such fold; it has {', '.join(map(str, self.folds))}",
                field=field,
                value=",".join(map(str, missing)),
            )

    def require_real(self, why: str) -> None:
        """Raise UsageError for a source of synthetic clips."""
        if self.has_synthetic:
            raise UsageError(
                f"holds synthetic clips, and {why}",
                field="real",
                value=self.location,
                hint="Name the real clips that they were made from.",
            )

    def counts(self) -> dict[str, int]:
        """Clips a class, in class order."""
        tally = Counter(clip.label for clip in self.clips)
        return {name: tally.get(label, 0) for label, name in enumerate(self.class_names)}


def _with_commas(pieces: Sequence[str], names: Collection[str]) -> list[str]:
    """Names that were taken apart at commas, put together again where that makes one of `names`."""
    plain = {re.sub(r"\s*,\s*", ",", name.strip()): name for name in names}
    found: list[str] = []
    at = 0
    while at < len(pieces):
        ends = range(len(pieces), at, -1)
        end = next((end for end in ends if ",".join(pieces[at:end]) in plain), at + 1)
        joined = ",".join(pieces[at:end])
        found.append(plain.get(joined, joined))
        at = end
    return found


def with_folds(source: Source) -> Source:
    """The source with made folds where it has none. They go by what the clips' files hold, not by their names."""
    if not source.clips or any(clip.fold for clip in source.clips):
        return source
    digests = clip_digests(source.audio, source.cache_key)
    folds = make_folds([replace(clip, sound=one) for clip, one in zip(source.clips, digests, strict=True)])
    note = f"no folds are given: usk made {max(folds)}, balanced by class, with recordings kept whole"
    return replace(
        source,
        notes=(*source.notes, note),
        clips=tuple(replace(clip, fold=fold) for clip, fold in zip(source.clips, folds, strict=True)),
    )


def no_groups_note(fix: str, where: str = "") -> str:
    return (
        f"no recordings are named{where}, so each clip counts as its own: if several were cut from one recording, "
        f"test scores will be too high ({fix})"
    )
