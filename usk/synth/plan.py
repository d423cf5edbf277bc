"""The plan: which parents, which weight, which seed, for every synthetic clip, drawn before any is made. Pure."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from usk.data.clip import Clip
from usk.data.splits import held_out_groups, stable_order
from usk.errors import SourceError, require_at_least
from usk.synth.alpha import Alpha
from usk.synth.planned import PlannedClip, PlannedClips
from usk.synth.settings import MOST_PER_CLASS
from usk.text import abbreviate_list, pluralize


@dataclass(frozen=True)
class Plan:
    """All clips to make, classes taking turns, so that an interrupted run has some of each."""

    class_names: tuple[str, ...]
    clips: Sequence[PlannedClip]  # `PlannedClips` where there may be many
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.clips)

    @property
    def sha256(self) -> str:
        digest = hashlib.sha256()
        for line in self.lines():
            digest.update(line)
        return digest.hexdigest()

    def rows(self) -> Iterator[dict[str, Any]]:
        """Each clip as a plain record, with the class by name."""
        return ({**clip.as_dict(), "class": self.class_names[clip.label]} for clip in self.clips)

    def lines(self) -> Iterator[bytes]:
        """One JSON object a line."""
        return (f"{json.dumps(row)}\n".encode() for row in self.rows())

    @classmethod
    def from_lines(cls, lines: Iterable[str | bytes], class_names: Sequence[str]) -> Plan:
        """What `lines` gave. Raises ValueError, KeyError or TypeError for text that it did not give."""
        return cls(tuple(class_names), PlannedClips(map(_clip_of, lines)))

    def only(self, clip_ids: Collection[str]) -> Plan:
        """The plan of some of its clips."""
        return replace(self, clips=PlannedClips(clip for clip in self.clips if clip.clip_id in clip_ids))

    def counts(self) -> dict[str, dict[int, int]]:
        """Clips by class name and fold."""
        tally: dict[str, dict[int, int]] = {}
        for clip in self.clips:
            folds = tally.setdefault(self.class_names[clip.label], {})
            folds[clip.fold] = folds.get(clip.fold, 0) + 1
        return {name: dict(sorted(tally[name].items())) for name in self.class_names if name in tally}

    def with_prompts(self, draw: Callable[[str, int], str]) -> Plan:
        """The plan with a prompt for each clip: what `draw` gives for its class's name and its seed."""
        names = self.class_names
        clips = (replace(clip, prompt=draw(names[clip.label], clip.seed)) for clip in self.clips)
        return replace(self, clips=PlannedClips(clips))


def _clip_of(line: str | bytes) -> PlannedClip:
    row: dict[str, Any] = json.loads(line)
    del row["class"]
    return PlannedClip(
        **(row | {name: tuple(value) for name, value in row.items() if isinstance(value, list)})
    )


def draw_plan(
    clips: Sequence[Clip],
    class_names: Sequence[str],
    per_class: int,
    *,
    seed: int = 0,
    name: str = "",
    alpha: Alpha | str = Alpha(),
    n_parents: int = 2,
    across_folds: bool = False,
    known_clips: Sequence[Clip] | None = None,
) -> Plan:
    """Draw parents for `per_class` synthetic clips of each class in `clips`.

    A clip's parents have one class, different recordings, and one fold unless no fold has enough of the class (or `across_folds`).
    Every clip is used about equally often, and no pair is drawn again while another is left; then it returns with another alpha.
    A class's clips are spread over the folds in proportion to its real clips there. Recordings held out for validation give no
    parents. `known_clips` are all clips of the source, where `clips` is only a part of it; they decide what is held out. Plans of
    the same seed and another `name` share neither noise nor order.

    Raises: UsageError for `per_class` below 1 or a negative `seed`; SourceError if a class has too few recordings.
    """
    alpha = Alpha.parse(alpha) if isinstance(alpha, str) else alpha
    require_at_least(1, MOST_PER_CLASS, per_class=per_class)
    require_at_least(0, seed=seed)
    held = held_out_groups(known_clips if known_clips is not None else clips)
    pools: dict[int, list[Clip]] = defaultdict(list)
    for clip in sorted(clips, key=lambda clip: clip.identity):
        if clip.group not in held:
            pools[clip.label].append(clip)
    planned = PlannedClips()
    orders: list[np.ndarray] = []  # of each class, the places of its clips in `planned`
    notes: list[str] = []
    repeated: dict[str, int] = {}  # classes with fewer pairs than clips, and how many
    apart: list[str] = []  # classes without enough recordings in any fold
    lacking: dict[str, set[str]] = {}  # classes without enough recordings anywhere, and those they have
    for label in sorted({clip.label for clip in clips}):
        if len({clip.group for clip in pools[label]}) < n_parents:
            lacking[class_names[label]] = {clip.group for clip in clips if clip.label == label}
            continue
        folds = {} if across_folds else _by_fold(pools[label], n_parents)
        if not folds:
            folds = {0: pools[label]}
            apart += [] if across_folds else [class_names[label]]
        elif skipped := sorted({clip.fold for clip in pools[label]} - set(folds)):
            notes.append(
                f"{class_names[label]}: fold {', '.join(map(str, skipped))} has fewer than {_recordings(n_parents)} to draw from and gives no clips"
            )
        shares = proportional(per_class, [len(pool) for pool in folds.values()])
        begin = len(planned)
        n_pairs = 0
        for (fold, pool), count in zip(folds.items(), shares, strict=True):
            rng = _generator(seed, name, label, fold)
            rows = _draw_parents(pool, count, n_parents, rng)
            n_pairs += len(np.unique(np.sort(rows, axis=1), axis=0))
            first = f"{class_names[label]}-{seed}-{fold}", len(planned) - begin
            planned.extend(_planned(pool, rows, alpha, rng, *first))
        if n_parents == 2 and n_pairs < per_class:
            repeated[class_names[label]] = n_pairs
        orders.append(begin + _generator(seed, name, label).permutation(per_class))
    if lacking:
        raise _too_few_recordings(lacking, n_parents, held)
    if apart:
        notes.append(
            f"{abbreviate_list(apart)}: every fold has fewer than {_recordings(n_parents)} to draw from, so parents lie in different folds; such a clip trains where neither "
            "is tested"
        )
    if repeated:
        fewest = pluralize(min(repeated.values()), "pair")
        notes.append(
            f"{abbreviate_list(list(repeated))}: {pluralize(per_class, 'clip')} a class from as few as {fewest} of parents; a pair "
            "that is used again is mixed in another proportion (alpha)"
        )
    return Plan(tuple(class_names), planned.take(np.stack(orders, axis=1).ravel()), tuple(notes))


def _by_fold(clips: Sequence[Clip], n_parents: int) -> dict[int, list[Clip]]:
    """Clips by fold, of the folds that have so many recordings."""
    folds: dict[int, list[Clip]] = defaultdict(list)
    for clip in clips:
        folds[clip.fold].append(clip)
    return {
        fold: pool for fold, pool in sorted(folds.items()) if len({clip.group for clip in pool}) >= n_parents
    }


def _planned(
    pool: Sequence[Clip], drawn: np.ndarray, alpha: Alpha, rng: np.random.Generator, prefix: str, number: int
) -> Iterator[PlannedClip]:
    """Clips of the parents `drawn` (rows of `pool` [clips, parents]), numbered from `number`."""
    seen: set[tuple[int, ...]] = set()
    for place, rows in enumerate(drawn.tolist(), start=number):
        pair = tuple(sorted(rows))
        weights = (alpha.spread if pair in seen else alpha).draw(len(rows), rng)
        seen.add(pair)
        parents = [pool[row] for row in rows]
        folds = tuple(clip.fold for clip in parents)
        yield PlannedClip(
            clip_id=f"{prefix}-{place:05d}",
            label=parents[0].label,
            fold=folds[0] if len(set(folds)) == 1 else 0,
            parents=tuple(clip.identity for clip in parents),
            parent_names=tuple(clip.clip_id for clip in parents),
            parent_seconds=tuple(round(clip.duration_s, 4) for clip in parents),
            parent_groups=tuple(clip.group for clip in parents),
            parent_folds=folds,
            weights=weights,
            seed=int(rng.integers(2**62)),
        )


def _too_few_recordings(lacking: Mapping[str, set[str]], n_parents: int, held: frozenset[str]) -> SourceError:
    """For classes (with their recordings) of which no clip can be made: all of them, and what would do."""
    one = "the class" if len(lacking) == 1 else abbreviate_list(list(lacking), 12)
    other = ", take a strategy of one parent (variation)" if n_parents > 1 else ""
    what = "class" if len(lacking) == 1 else "classes"
    have = ", ".join(str(len(groups)) for groups in lacking.values())
    some = ", some held out for validation" if any(groups & held for groups in lacking.values()) else ""
    return SourceError(
        f"{what} {', '.join(lacking)} cannot be interpolated: a clip needs {_recordings(n_parents)} ({'it has' if len(lacking) == 1 else 'they have'} {have} in all{some})",
        hint=f"Leave {one} out{other}, or add recordings.",
    )


def _generator(seed: int, name: str, *place: int) -> np.random.Generator:
    return np.random.default_rng([stable_order(f"plan/{seed}/{name}") if name else seed, *place])


def proportional(total: int, sizes: Sequence[int]) -> list[int]:
    """`total` split in proportion to `sizes`, by largest remainders."""
    exact = [total * size / sum(sizes) for size in sizes]
    counts = [int(value) for value in exact]
    by_remainder = sorted(range(len(sizes)), key=lambda index: (counts[index] - exact[index], index))
    for index in by_remainder[: total - sum(counts)]:
        counts[index] += 1
    return counts


def _recordings(n: int) -> str:
    return "a recording" if n == 1 else f"{n} recordings"


def _draw_parents(pool: Sequence[Clip], count: int, n_parents: int, rng: np.random.Generator) -> np.ndarray:
    """Rows of `count` parents, or pairs of different recordings, clips used evenly and no pair again while another is left:
    [count, n_parents]."""
    if n_parents == 2:
        return _draw_pairs(pool, count, rng)
    rounds = [rng.permutation(len(pool)) for _ in range(-(-count // len(pool)))]
    return np.concatenate(rounds or [np.empty(0, np.int64)])[:count, None]


def _draw_pairs(pool: Sequence[Clip], count: int, rng: np.random.Generator) -> np.ndarray:
    groups = np.unique([clip.group for clip in pool], return_inverse=True)[1]
    uses = np.zeros(len(pool), dtype=np.int64)
    partners = np.array([(groups != group).sum() for group in groups])
    taken: dict[int, list[int]] = defaultdict(list)  # partners that a clip has had since pairs last ran out
    n_taken = np.zeros(len(pool), dtype=np.int64)
    pairs = np.empty((count, 2), dtype=np.int32)
    for place in range(count):
        if (n_taken == partners).all():
            taken.clear()
            n_taken[:] = 0
        free = np.flatnonzero(n_taken < partners)
        first = _least_used(free, uses, rng.random(len(pool))[free])
        fresh = groups != groups[first]
        fresh[taken[first]] = False
        left = np.flatnonzero(fresh)
        second = _least_used(left, uses, rng.random(len(left)))
        taken[first].append(second)
        taken[second].append(first)
        n_taken[[first, second]] += 1
        uses[[first, second]] += 1
        pairs[place] = (first, second) if rng.random() < 0.5 else (second, first)
    return pairs


def _least_used(rows: np.ndarray, uses: np.ndarray, ties: np.ndarray) -> int:
    """The one of `rows` with the fewest uses, and of several the one with the lowest of `ties`."""
    fewest = np.flatnonzero(uses[rows] == uses[rows].min())
    return int(rows[fewest[ties[fewest].argmin()]])
