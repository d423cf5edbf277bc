"""The plan: which parents, which weight, which seed, for every synthetic clip, drawn before any is made. Pure."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from usk.data.clip import Clip
from usk.data.splits import held_out_groups, stable_order
from usk.errors import SourceError, UsageError
from usk.text import abbreviate_list


@dataclass(frozen=True, slots=True)
class PlannedClip:
    """One synthetic clip to make. Its fold is its parents' fold, 0 if they do not share one."""

    clip_id: str
    label: int
    fold: int
    parents: tuple[str, ...]
    parent_groups: tuple[str, ...]
    parent_folds: tuple[int, ...]
    weights: tuple[float, ...]  # the parents' shares, which sum to 1
    seed: int
    parent_names: tuple[str, ...] = ()
    parent_seconds: tuple[float, ...] = ()

    @property
    def alpha(self) -> float:
        """The share of what is not the first parent: of two, the second's."""
        return round(1 - self.weights[0], 6)


@dataclass(frozen=True)
class Plan:
    """All clips to make, classes taking turns, so that an interrupted run has some of each."""

    class_names: tuple[str, ...]
    clips: tuple[PlannedClip, ...]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.clips)

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.as_jsonl().encode()).hexdigest()

    def as_jsonl(self) -> str:
        """One JSON object a line, with the class by name."""
        return "".join(
            json.dumps({**asdict(clip), "class": self.class_names[clip.label]}) + "\n" for clip in self.clips
        )

    @classmethod
    def from_jsonl(cls, text: str, class_names: Sequence[str]) -> Plan:
        """What `as_jsonl` wrote. Raises ValueError, KeyError or TypeError for text that it did not write."""
        clips = []
        for line in text.splitlines():
            row: dict[str, Any] = json.loads(line)
            del row["class"]
            lists = {name: tuple(value) for name, value in row.items() if isinstance(value, list)}
            clips.append(PlannedClip(**(row | lists)))
        return cls(tuple(class_names), tuple(clips))

    def counts(self) -> dict[str, dict[int, int]]:
        """Clips by class name and fold."""
        tally: dict[str, dict[int, int]] = {}
        for clip in self.clips:
            folds = tally.setdefault(self.class_names[clip.label], {})
            folds[clip.fold] = folds.get(clip.fold, 0) + 1
        return {name: dict(sorted(tally[name].items())) for name in self.class_names if name in tally}


@dataclass(frozen=True)
class Alpha:
    """How the parents' weights are drawn: evenly from `low` to `high` for the second of two, or Beta(`beta`, `beta`)."""

    low: float = 0.5
    high: float = 0.5
    beta: float | None = None

    @classmethod
    def parse(cls, text: str) -> Alpha:
        """`0.5` (that weight for every clip), `0.3:0.7` (drawn evenly for each) or `beta:0.4` (as mixup draws it)."""
        head, colon, tail = text.partition(":")
        try:
            if head.strip() == "beta":
                concentration = float(tail)
                if not 0 < concentration < float("inf"):
                    raise ValueError
                return cls(0.0, 1.0, concentration)
            low = float(head)
            high = float(tail) if colon else low
        except ValueError:
            raise UsageError(
                f"--alpha {text} is no weight; give a number from 0 to 1, a range such as 0.3:0.7, or beta:0.4"
            ) from None
        if not 0 <= low <= high <= 1:
            raise UsageError(f"--alpha {text} must lie between 0 and 1 (a range: low:high)")
        return cls(low, high)

    @property
    def text(self) -> str:
        """In words, for cards."""
        if self.beta is not None:
            return f"drawn from Beta({self.beta:g}, {self.beta:g}) (Dirichlet for more than two parents)"
        return (
            f"{self.low:g}" if self.low == self.high else f"drawn evenly from {self.low:g} to {self.high:g}"
        )

    def draw(self, n_parents: int, rng: np.random.Generator) -> tuple[float, ...]:
        """Weights of `n_parents` parents, which sum to 1; a fixed 0.5 means equal shares for any number.

        Raises UsageError for another weight or range with more than two parents.
        """
        if n_parents == 1:
            return (1.0,)
        if n_parents == 2:
            if self.beta is not None:
                share = float(rng.beta(self.beta, self.beta))
            else:
                share = float(self.low + (self.high - self.low) * rng.random())
            share = round(share, 6)
            return (1 - share, share)
        if self.beta is not None:
            return tuple(rng.dirichlet([self.beta] * n_parents).tolist())
        if (self.low, self.high) == (0.5, 0.5):
            return (1 / n_parents,) * n_parents
        raise UsageError(
            "--alpha weighs two parents; with more, leave it out for equal shares or draw them with beta:1"
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

    A clip's parents have one class, one fold (unless `across_folds`) and different recordings. Every clip is used about
    equally often, and no pair is drawn twice while another is left. A class's clips are spread over the folds in
    proportion to its real clips there. Recordings held out for validation give no parents: a clip made from them
    could not be trained on. `known_clips` are all clips of the source, where `clips` is only a part of it; they
    decide what is held out. Plans of the same seed and another `name` share neither noise nor order: it tells the datasets
    of several few-shot draws apart, whose spread is to show their luck.

    Raises: UsageError for `per_class` or `n_parents` below 1, or a negative `seed`; SourceError if a class has too few
    recordings.
    """
    alpha = Alpha.parse(alpha) if isinstance(alpha, str) else alpha
    if n_parents < 1:
        raise UsageError(f"--parents must be at least 1, not {n_parents}")
    if per_class < 1:
        raise UsageError(f"--per-class must be at least 1, not {per_class}")
    if seed < 0:
        raise UsageError(f"--seed must be 0 or more, not {seed}")
    held = held_out_groups(known_clips if known_clips is not None else clips)
    pools: dict[int, dict[int, list[Clip]]] = defaultdict(lambda: defaultdict(list))
    for clip in sorted(clips, key=lambda clip: clip.identity):
        if clip.group not in held:
            pools[clip.label][0 if across_folds else clip.fold].append(clip)
    drawn: list[list[PlannedClip]] = []
    notes: list[str] = []
    lacking: dict[str, set[str]] = {}  # classes without enough recordings anywhere, and those they have
    for label in sorted({clip.label for clip in clips}):
        folds = {
            fold: pool
            for fold, pool in sorted(pools[label].items())
            if len({c.group for c in pool}) >= n_parents
        }
        if not folds:
            lacking[class_names[label]] = {clip.group for clip in clips if clip.label == label}
            continue
        skipped = sorted(set(pools[label]) - set(folds))
        if skipped:
            notes.append(
                f"{class_names[label]}: fold {', '.join(map(str, skipped))} has fewer than {_recordings(n_parents)} to draw from and gives no clips"
            )
        shares = proportional(per_class, [len(pool) for pool in folds.values()])
        of_class: list[PlannedClip] = []
        for (fold, pool), count in zip(folds.items(), shares, strict=True):
            rng = _generator(seed, name, label, fold)
            for parents in _draw_parents(pool, count, n_parents, rng):
                parent_folds = tuple(clip.fold for clip in parents)
                of_class.append(
                    PlannedClip(
                        clip_id=f"{class_names[label]}-{seed}-{fold}-{len(of_class):05d}",
                        label=label,
                        fold=parent_folds[0] if len(set(parent_folds)) == 1 else 0,
                        parents=tuple(clip.identity for clip in parents),
                        parent_names=tuple(clip.clip_id for clip in parents),
                        parent_seconds=tuple(round(clip.duration_s, 4) for clip in parents),
                        parent_groups=tuple(clip.group for clip in parents),
                        parent_folds=parent_folds,
                        weights=alpha.draw(n_parents, rng),
                        seed=int(rng.integers(2**62)),
                    )
                )
        order = _generator(seed, name, label).permutation(len(of_class))
        drawn.append([of_class[index] for index in order])
    if lacking:
        raise _too_few_recordings(lacking, n_parents, across_folds, held)
    turns = [clips_of[turn] for turn in range(per_class) for clips_of in drawn]
    return Plan(tuple(class_names), tuple(turns), tuple(notes))


def _too_few_recordings(
    lacking: Mapping[str, set[str]], n_parents: int, across_folds: bool, held: frozenset[str]
) -> SourceError:
    """For classes (with their recordings) of which no clip can be made: all of them, and what would do."""
    hopeless = [name for name, groups in lacking.items() if len(groups) < n_parents or across_folds]
    one = "the class" if len(lacking) == 1 else abbreviate_list(hopeless, 12)
    fixes = [f"leave {one} out with --classes"] if hopeless else []
    fixes += ["pair over folds with --across-folds"] if len(hopeless) < len(lacking) else []
    other = ", take a strategy of one parent (--strategy variation)" if n_parents > 1 else ""
    what = "class" if len(lacking) == 1 else "classes"
    have = ", ".join(str(len(groups)) for groups in lacking.values())
    some = ", some held out for validation" if any(groups & held for groups in lacking.values()) else ""
    return SourceError(
        f"{what} {', '.join(lacking)} cannot be interpolated: a clip needs {_recordings(n_parents)}"
        f"{'' if across_folds else ' in any one fold'} ({'it has' if len(lacking) == 1 else 'they have'} {have} in all{some}); "
        f"{' and '.join(fixes)}{other}, or add recordings"
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


def _draw_parents(
    pool: Sequence[Clip], count: int, n_parents: int, rng: np.random.Generator
) -> list[tuple[Clip, ...]]:
    """`count` sets of parents from different recordings, clips used evenly.

    No pair is drawn twice while another is left; larger sets avoid each other as far as a few tries can.
    """
    if n_parents == 2:
        return _draw_pairs(pool, count, rng)
    groups = np.unique([clip.group for clip in pool], return_inverse=True)[1]
    uses = np.zeros(len(pool))
    taken: set[frozenset[int]] = set()
    drawn = []
    for _ in range(count):
        for _try in range(20):
            chosen: list[int] = []
            for row in np.lexsort((rng.random(len(pool)), uses)):
                if all(groups[row] != groups[other] for other in chosen):
                    chosen.append(int(row))
                    if len(chosen) == n_parents:
                        break
            if frozenset(chosen) not in taken:
                break
        taken.add(frozenset(chosen))
        uses[chosen] += 1
        drawn.append(tuple(pool[row] for row in rng.permutation(chosen)))
    return drawn


def _draw_pairs(pool: Sequence[Clip], count: int, rng: np.random.Generator) -> list[tuple[Clip, ...]]:
    """`count` pairs of different recordings, parents used evenly, no pair twice while another is left."""
    groups = np.unique([clip.group for clip in pool], return_inverse=True)[1]
    uses = np.zeros(len(pool))
    taken: dict[int, set[int]] = defaultdict(set)
    partners = np.array([(groups != group).sum() for group in groups])
    n_pairs, used_pairs = int(partners.sum()) // 2, 0
    pairs: list[tuple[Clip, ...]] = []
    for _ in range(count):
        if used_pairs == n_pairs:
            taken.clear()
            used_pairs = 0
        jitter = rng.random(len(pool))
        for first in np.lexsort((jitter, uses)):
            left = groups != groups[first]
            left[list(taken[int(first)])] = False
            if left.any():
                candidates = np.flatnonzero(left)
                second = int(candidates[np.lexsort((rng.random(len(candidates)), uses[candidates]))[0]])
                break
        first = int(first)
        taken[first].add(second)
        taken[second].add(first)
        used_pairs += 1
        uses[[first, second]] += 1
        pairs.append((pool[first], pool[second]) if rng.random() < 0.5 else (pool[second], pool[first]))
    return pairs
