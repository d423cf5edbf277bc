"""Draw the plan: the parents, weights and seed of every synthetic clip, before any is made. Pure functions."""

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
from usk.synth.settings import MAX_PER_CLASS
from usk.synth.strategies import DEFAULT_STRATEGIES, STRATEGIES
from usk.text import abbreviate_list, pluralize


@dataclass(frozen=True)
class Plan:
    """All clips to make. Classes take turns, so that an interrupted run has clips of each class."""

    class_names: tuple[str, ...]
    clips: Sequence[PlannedClip]  # `PlannedClips`, as there may be many
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
        """Yield each clip as a dict, with the class's name."""
        return ({**clip.as_dict(), "class": self.class_names[clip.label]} for clip in self.clips)

    def lines(self) -> Iterator[bytes]:
        """Yield each clip as a line of JSON."""
        return (f"{json.dumps(row)}\n".encode() for row in self.rows())

    @classmethod
    def from_lines(cls, lines: Iterable[str | bytes], class_names: Sequence[str]) -> Plan:
        """Parse what `lines` gives. Raises ValueError, KeyError or TypeError for other text."""
        return cls(tuple(class_names), PlannedClips(map(_parse_line, lines)))

    def select(self, clip_ids: Collection[str]) -> Plan:
        """Return the plan of some of the clips."""
        return replace(self, clips=PlannedClips(clip for clip in self.clips if clip.clip_id in clip_ids))

    def counts(self) -> dict[str, dict[int, int]]:
        """Return the number of clips by class name and fold."""
        tally: dict[str, dict[int, int]] = {}
        for clip in self.clips:
            folds = tally.setdefault(self.class_names[clip.label], {})
            folds[clip.fold] = folds.get(clip.fold, 0) + 1
        return {name: dict(sorted(tally[name].items())) for name in self.class_names if name in tally}

    def with_prompts(self, draw: Callable[[str, int], str]) -> Plan:
        """Return the plan with a prompt for each clip, from `draw(class name, seed)`."""
        names = self.class_names
        clips = (
            replace(clip, prompt=draw(names[clip.label], clip.seed))
            if STRATEGIES[clip.strategy].samples
            else clip
            for clip in self.clips
        )
        return replace(self, clips=PlannedClips(clips))


def _parse_line(line: str | bytes) -> PlannedClip:
    row: dict[str, Any] = json.loads(line)
    del row["class"]
    lists = {name: tuple(value) for name, value in row.items() if isinstance(value, list)}
    return PlannedClip(**(row | lists))


def draw_plan(
    clips: Sequence[Clip],
    class_names: Sequence[str],
    per_class: int,
    *,
    seed: int = 0,
    name: str = "",
    alpha: Alpha | str = Alpha(),
    strategies: Sequence[str] = DEFAULT_STRATEGIES[:1],
    across_folds: bool = False,
    known_clips: Sequence[Clip] | None = None,
) -> Plan:
    """Draw parents for `per_class` synthetic clips of each class in `clips`.

    The parents of a clip have the same class, different recordings, and the same fold, unless no fold has enough recordings of
    the class. All real clips are used about equally often. A pair is drawn again, with another alpha, only when no other pair is
    left. A class's clips are spread over the folds in proportion to its real clips there. Recordings that are held out for
    validation give no parents.

    Args:
        strategies: each makes an equal share of a class's clips, from the same folds.
        name: plans of the same seed with different names share neither noise nor order.
        across_folds: pair parents of different folds, too.
        known_clips: all clips of the source, if `clips` is a part of it. They decide which recordings are held out.

    Raises UsageError for `per_class` below 1 or a negative `seed`, and SourceError if a class has too few recordings.
    """
    alpha = Alpha.parse(alpha) if isinstance(alpha, str) else alpha
    require_at_least(1, MAX_PER_CLASS, per_class=per_class)
    require_at_least(0, seed=seed)
    held_out = held_out_groups(known_clips if known_clips is not None else clips)
    pools: dict[int, list[Clip]] = defaultdict(list)
    for clip in sorted(clips, key=lambda clip: clip.identity):
        if clip.group not in held_out:
            pools[clip.label].append(clip)
    labels = sorted({clip.label for clip in clips})
    n_parents = max(STRATEGIES[strategy].n_parents for strategy in strategies)
    if short := [label for label in labels if len({clip.group for clip in pools[label]}) < n_parents]:
        groups = {
            class_names[label]: {clip.group for clip in clips if clip.label == label} for label in short
        }
        raise _too_few_recordings(groups, n_parents, held_out)
    planned = PlannedClips()
    drawn: list[_DrawnClass] = []
    orders: list[np.ndarray] = []  # of each class, the places of its clips in `planned`
    shares = dict(zip(strategies, proportional(per_class, [1] * len(strategies)), strict=True))
    for label in labels:
        begin, pool, class_name = len(planned), pools[label], class_names[label]
        folds = {} if across_folds else _pools_by_fold(pool, n_parents)
        skipped = sorted({clip.fold for clip in pool} - set(folds)) if folds else []
        drawn.append(_DrawnClass(class_name, skipped, not folds and not across_folds))
        folds = folds or {0: pool}
        random_of = {fold: _random(seed, name, label, fold) for fold in folds}
        for strategy, share in shares.items():
            n_of_clip = STRATEGIES[strategy].n_parents
            counts = proportional(share, [len(of_fold) for of_fold in folds.values()])
            n_pairs = 0
            for (fold, of_fold), count in zip(folds.items(), counts, strict=True):
                rows = _draw_parents(of_fold, count, n_of_clip, random_of[fold])
                n_pairs += len(np.unique(np.sort(rows, axis=1), axis=0))
                ids = (f"{class_name}-{seed}-{fold}", len(planned) - begin)
                planned.extend(_plan_clips(of_fold, rows, strategy, alpha, random_of[fold], *ids))
            if n_of_clip == 2 and n_pairs < share:
                drawn[-1].repeated = (n_pairs, share)
        orders.append(begin + _random(seed, name, label).permutation(per_class))
    notes = tuple(_notes_on(drawn, n_parents))
    return Plan(tuple(class_names), planned.take(np.stack(orders, axis=1).ravel()), notes)


@dataclass
class _DrawnClass:
    """What is to be said of the parents of a class's clips."""

    name: str
    skipped_folds: list[int]  # with too few recordings
    mixes_folds: bool  # parents lie in different folds, since no fold has enough recordings
    repeated: tuple[int, int] | None = (
        None  # the number of pairs, and of the clips made of them, if these are more
    )


def _notes_on(drawn: Sequence[_DrawnClass], n_parents: int) -> Iterator[str]:
    for one in drawn:
        if one.skipped_folds:
            folds = ", ".join(map(str, one.skipped_folds))
            yield f"{one.name}: no clips come from fold {folds}, with fewer than {_recordings(n_parents)} to draw from"
    if mixed := [one.name for one in drawn if one.mixes_folds]:
        yield (
            f"{abbreviate_list(mixed)}: every fold has fewer than {_recordings(n_parents)} to draw from, so parents lie in different folds; such a clip trains where neither "
            "is tested"
        )
    if repeated := {one.name: one.repeated for one in drawn if one.repeated is not None}:
        n_pairs, n_clips = min(repeated.values())
        yield (
            f"{abbreviate_list(list(repeated))}: {pluralize(n_clips, 'clip')} a class from as few as {pluralize(n_pairs, 'pair')} of parents; a pair "
            "that is used again is mixed in another proportion (alpha)"
        )


def proportional(total: int, sizes: Sequence[int]) -> list[int]:
    """Split `total` in proportion to `sizes`, by largest remainders."""
    exact = [total * size / sum(sizes) for size in sizes]
    counts = [int(value) for value in exact]
    by_remainder = sorted(range(len(sizes)), key=lambda index: (counts[index] - exact[index], index))
    for index in by_remainder[: total - sum(counts)]:
        counts[index] += 1
    return counts


def _random(seed: int, name: str, *place: int) -> np.random.Generator:
    return np.random.default_rng([stable_order(f"plan/{seed}/{name}") if name else seed, *place])


def _pools_by_fold(clips: Sequence[Clip], n_parents: int) -> dict[int, list[Clip]]:
    """Return the clips by fold, for the folds with at least `n_parents` recordings."""
    folds: dict[int, list[Clip]] = defaultdict(list)
    for clip in clips:
        folds[clip.fold].append(clip)
    return {
        fold: pool for fold, pool in sorted(folds.items()) if len({clip.group for clip in pool}) >= n_parents
    }


def _draw_parents(pool: Sequence[Clip], count: int, n_parents: int, rng: np.random.Generator) -> np.ndarray:
    """Draw the parents of `count` clips, as rows of `pool` [count, n_parents]. All clips are used about equally often."""
    if n_parents == 2:
        return _draw_pairs(pool, count, rng)
    rounds = [rng.permutation(len(pool)) for _ in range(-(-count // len(pool)))]
    return np.concatenate(rounds or [np.empty(0, np.int64)])[:count, None]


def _draw_pairs(pool: Sequence[Clip], count: int, rng: np.random.Generator) -> np.ndarray:
    """Draw pairs of different recordings [count, 2]. No pair comes again before all pairs were drawn."""
    groups = np.unique([clip.group for clip in pool], return_inverse=True)[1]
    uses = np.zeros(len(pool), dtype=np.int64)
    n_partners = np.array([(groups != group).sum() for group in groups])
    # Partners that a clip has had since all pairs were last drawn
    taken: dict[int, list[int]] = defaultdict(list)
    n_taken = np.zeros(len(pool), dtype=np.int64)
    pairs = np.empty((count, 2), dtype=np.int32)
    for place in range(count):
        if (n_taken == n_partners).all():
            taken.clear()
            n_taken[:] = 0
        free = np.flatnonzero(n_taken < n_partners)
        first = _least_used(free, uses, rng.random(len(pool))[free])
        is_free = groups != groups[first]
        is_free[taken[first]] = False
        partners = np.flatnonzero(is_free)
        second = _least_used(partners, uses, rng.random(len(partners)))
        taken[first].append(second)
        taken[second].append(first)
        n_taken[[first, second]] += 1
        uses[[first, second]] += 1
        pairs[place] = (first, second) if rng.random() < 0.5 else (second, first)
    return pairs


def _least_used(rows: np.ndarray, uses: np.ndarray, tie_breakers: np.ndarray) -> int:
    """Return the row with the fewest uses. Among equals the lowest tie breaker decides."""
    fewest = np.flatnonzero(uses[rows] == uses[rows].min())
    return int(rows[fewest[tie_breakers[fewest].argmin()]])


def _plan_clips(
    pool: Sequence[Clip],
    drawn: np.ndarray,
    strategy: str,
    alpha: Alpha,
    rng: np.random.Generator,
    prefix: str,
    number: int,
) -> Iterator[PlannedClip]:
    """Yield the clips whose parents are `drawn` (rows of `pool` [clips, parents]), numbered from `number`."""
    seen: set[tuple[int, ...]] = set()
    for place, rows in enumerate(drawn.tolist(), start=number):
        pair = tuple(sorted(rows))
        weights = (alpha.for_repeats if pair in seen else alpha).draw(len(rows), rng)
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
            strategy=strategy,
        )


def _too_few_recordings(
    groups: Mapping[str, set[str]], n_parents: int, held_out: frozenset[str]
) -> SourceError:
    """Return the error for classes with too few recordings, given the recordings of each."""
    counts = ", ".join(str(len(of_class)) for of_class in groups.values())
    held = (
        ", some held out for validation" if any(of_class & held_out for of_class in groups.values()) else ""
    )
    is_single = len(groups) == 1
    noun, have = ("class", "it has") if is_single else ("classes", "they have")
    which = "the class" if is_single else abbreviate_list(list(groups), 12)
    other = ", take a strategy of one parent (variation)" if n_parents > 1 else ""
    return SourceError(
        f"{noun} {', '.join(groups)} cannot be interpolated: a clip needs {_recordings(n_parents)} ({have} {counts} in all{held})",
        hint=f"Leave {which} out{other}, or add recordings.",
    )


def _recordings(n: int) -> str:
    return "a recording" if n == 1 else f"{n} recordings"
