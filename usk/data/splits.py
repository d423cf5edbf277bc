"""Who is on which side: held-out recordings, made folds, and the two protocols. Pure and deterministic.

One rule decides everywhere which recordings validate, `held_out_groups`: by one fold and one class at a time, so that what else is
trained on makes no difference, and by the clips' sounds. `usk fit` keeps those recordings from the generator, `usk synth` takes
no parents from them, and `usk train` chooses epochs on them.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from usk.data.clip import Clip
from usk.errors import UsageError

VALIDATION_SHARE = 0.15
# Their recordings have the same names everywhere, which generators are known by
PUBLISHED = ("urbansound8k", "demo")


def stable_order(name: str) -> int:
    """A number for `name` that is the same on every machine and looks random."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")


@cache
def embedded_groups() -> frozenset[str]:
    """The recordings that the generator shipped with usk was trained on. They never validate: where a fold has more recordings
    than that generator was shown, its clips could train nowhere."""
    file = Path(__file__).parents[1] / "diffusion" / "embedded" / "trained_on.json"
    sources = json.loads(file.read_text(encoding="utf-8"))["sources"]
    return frozenset(group for source in sources for group in source["groups"])


def held_out_groups(clips: Sequence[Clip], share: float = VALIDATION_SHARE) -> frozenset[str]:
    """Recordings kept for validation: about `share` of each fold's clips of each class, whole recordings only.

    At least two recordings of a class stay in each fold (a pair needs two). Smaller recordings are preferred where one would
    overshoot twofold. The sounds of decoded clips decide, or their names before; of published data sets always the recordings'
    names, which a copy in another format has too. Recordings that the shipped generator was trained on stay out.
    """
    published = all(clip.group.partition("/")[0] in PUBLISHED for clip in clips if not clip.is_synthetic)
    sizes: dict[tuple[int, int], dict[str, int]] = defaultdict(lambda: defaultdict(int))
    # The least identity of a recording's clips in a fold and class
    least: dict[tuple[int, int, str], str] = {}
    # Of a recording: more than one if it has many classes
    subsets: dict[str, set[tuple[int, int]]] = defaultdict(set)
    for clip in clips:
        if not clip.is_synthetic:
            sizes[clip.fold, clip.label][clip.group] += 1
            place = (clip.fold, clip.label, clip.group)
            name = clip.group if published else clip.identity
            least[place] = min(least.get(place, name), name)
            subsets[clip.group].add((clip.fold, clip.label))
    left = {subset: len(groups) for subset, groups in sizes.items()}
    held: set[str] = set()
    first = {
        (fold, label): min(least[fold, label, group] for group in groups)
        for (fold, label), groups in sizes.items()
    }
    for fold, label in sorted(sizes, key=None if published else lambda subset: (subset[0], first[subset])):
        groups = sizes[fold, label]
        order = {group: stable_order(least[fold, label, group]) for group in groups}
        wanted = share * sum(groups.values())
        taken = sum(groups[group] for group in groups if group in held)
        for group in sorted(
            groups.keys() - held - embedded_groups(), key=lambda group: (order[group], group)
        ):
            if taken >= wanted:
                break
            if taken + groups[group] <= max(2 * wanted, 1) and all(
                left[subset] > 2 for subset in subsets[group]
            ):
                held.add(group)
                taken += groups[group]
                for subset in subsets[group]:
                    left[subset] -= 1
    return frozenset(held)


@dataclass(frozen=True)
class Split:
    """Row numbers of real clips: what trains, what chooses the epoch, what tests."""

    name: str
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    optimistic: bool = False  # the epoch is chosen on the test part (`seed-9010` alone)
    by_group: bool = True  # whether recordings are kept whole on one side
    train_clips: int | None = None  # how many clips the training part was cut to (usk.data.train_subset)

    @property
    def of_fold(self) -> bool:
        """Whether a fold tests, and not a draw that ignores folds."""
        return self.name.startswith("fold")


def make_folds(clips: Sequence[Clip], n_folds: int = 5) -> list[int]:
    """Stratified folds 1..n that keep recordings whole (scikit-learn's splitter).

    They go by the clips' identities, whatever recordings and classes are called.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    n_groups = len({clip.group for clip in clips})
    largest_class = max(Counter(clip.label for clip in clips).values(), default=0)
    n_splits = min(n_folds, n_groups, largest_class)  # scikit-learn wants a class with a clip for each fold
    if n_splits < 2:
        return [1] * len(clips)
    of_group: dict[str, list[str]] = defaultdict(list)
    for clip in clips:
        of_group[clip.group].append(clip.identity)
    by_content = sorted(of_group, key=lambda group: (sorted(of_group[group]), group))
    number = {group: index for index, group in enumerate(by_content)}
    order = sorted(range(len(clips)), key=lambda i: (number[clips[i].group], clips[i].identity))
    labels = np.array([clips[i].label for i in order])
    groups = np.array([number[clips[i].group] for i in order])
    folds = [0] * len(clips)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # rare classes: sklearn warns, and does what can be done
        splitter = StratifiedGroupKFold(n_splits=n_splits, shuffle=True, random_state=0)
        for fold, (_, members) in enumerate(splitter.split(labels, labels, groups), start=1):
            for member in members:
                folds[order[member]] = fold
    return folds


def in_several_folds(clips: Sequence[Clip]) -> dict[str, list[int]]:
    """The recordings with clips in more folds than one, and these."""
    folds: dict[str, set[int]] = defaultdict(set)
    for clip in clips:
        folds[clip.group].add(clip.fold)
    return {group: sorted(found) for group, found in sorted(folds.items()) if len(found) > 1}


def fold_split(clips: Sequence[Clip], test_fold: int) -> Split:
    """Protocol `folds`: one fold tests; of the others, the held-out recordings choose the epoch, the rest trains."""
    folds = np.array([clip.fold for clip in clips])
    if test_fold not in set(folds.tolist()):
        known = ", ".join(map(str, sorted(set(folds.tolist()))))
        raise UsageError(f"the source has no such fold; it has {known}", field="test_folds", value=test_fold)
    if len(set(folds.tolist())) < 2:
        raise UsageError(
            "there is one fold only, and testing it leaves nothing to train on",
            hint="Add recordings or folds.",
        )
    held = held_out_groups(clips)
    is_held = np.array([clip.group in held for clip in clips])
    test = folds == test_fold
    tested = {clip.group for clip, is_tested in zip(clips, test, strict=True) if is_tested}
    # A recording in several folds is on one side only
    free = np.array([clip.group not in tested for clip in clips])
    return Split(
        f"fold{test_fold}",
        np.flatnonzero(free & ~is_held),
        np.flatnonzero(free & is_held),
        np.flatnonzero(test),
    )


def seed_9010_split(clips: Sequence[Clip], seed: int) -> Split:
    """Protocol `seed-9010`: a random 90:10 split of clips, epoch chosen on the test part, as published. Optimistic:
    clips of one recording stand on both sides, and the test part chooses."""
    by_content = np.array(sorted(range(len(clips)), key=lambda row: clips[row].identity), dtype=np.int64)
    order = by_content[np.random.default_rng(seed).permutation(len(clips))]
    n_test = max(1, round(0.1 * len(clips)))
    test = np.sort(order[:n_test])
    return Split(f"seed{seed}-9010", np.sort(order[n_test:]), test, test, optimistic=True, by_group=False)
