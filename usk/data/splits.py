"""Split clips into training, validation and test parts: made folds, held-out recordings, and the two protocols. Pure and deterministic.

`held_out_groups` decides everywhere which recordings validate. It looks at one fold and class at a time, so its choice in a
fold does not depend on the other folds. `usk fit` does not train the generator on these recordings, `usk synth` takes no parents
from them, and `usk train` chooses epochs on them.
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
PUBLISHED = ("urbansound8k", "demo")  # sources whose recordings have the same names everywhere


def stable_order(name: str) -> int:
    """Return a pseudorandom number for `name`, the same on every machine."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")


@cache
def embedded_groups() -> frozenset[str]:
    """Return the recordings that the embedded generator was trained on.

    They never validate: if they did, the clips of that generator would leak in every split with their fold.
    """
    file = Path(__file__).parents[1] / "diffusion" / "embedded" / "trained_on.json"
    sources = json.loads(file.read_text(encoding="utf-8"))["sources"]
    return frozenset(group for source in sources for group in source["groups"])


def held_out_groups(clips: Sequence[Clip], share: float = VALIDATION_SHARE) -> frozenset[str]:
    """Choose recordings for validation: about `share` of the clips of each fold and class, whole recordings only.

    At least two recordings of a class stay in each fold, since a pair of parents needs two. A recording is skipped if it would
    exceed twice the share. Recordings that the embedded generator was trained on are never chosen. The order of the choice is
    pseudorandom: by the clips' sounds (their ids before decoding), or for published datasets by the recordings' names, which a
    copy in another format has too.
    """
    is_published = all(clip.group.partition("/")[0] in PUBLISHED for clip in clips if not clip.is_synthetic)
    sizes: dict[tuple[int, int], dict[str, int]] = defaultdict(lambda: defaultdict(int))
    keys: dict[tuple[int, int, str], str] = {}  # (fold, class, recording) -> its least identity or name
    cells_of: dict[str, set[tuple[int, int]]] = defaultdict(set)  # recording -> its (fold, class) cells
    for clip in clips:
        if not clip.is_synthetic:
            cell = (clip.fold, clip.label)
            sizes[cell][clip.group] += 1
            key = clip.group if is_published else clip.identity
            keys[(*cell, clip.group)] = min(keys.get((*cell, clip.group), key), key)
            cells_of[clip.group].add(cell)
    n_left = {cell: len(groups) for cell, groups in sizes.items()}
    held: set[str] = set()
    # Class numbers depend on names, so cells of unpublished data are sorted by their least key.
    least = {cell: min(keys[(*cell, group)] for group in groups) for cell, groups in sizes.items()}
    for cell in sorted(sizes, key=None if is_published else lambda cell: (cell[0], least[cell])):
        groups = sizes[cell]
        order = {group: stable_order(keys[(*cell, group)]) for group in groups}
        free = groups.keys() - held - embedded_groups()
        wanted = share * sum(groups.values())
        taken = sum(groups[group] for group in groups if group in held)
        for group in sorted(free, key=lambda group: (order[group], group)):
            if taken >= wanted:
                break
            is_small = taken + groups[group] <= max(2 * wanted, 1)
            if is_small and all(n_left[other] > 2 for other in cells_of[group]):
                held.add(group)
                taken += groups[group]
                for other in cells_of[group]:
                    n_left[other] -= 1
    return frozenset(held)


@dataclass(frozen=True)
class Split:
    """Rows of the real clips that train, choose the epoch (validation), and test."""

    name: str
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    optimistic: bool = False  # the test part chooses the epoch (only `seed-9010`)
    by_group: bool = True  # whether each recording is on one side only
    train_clips: int | None = None  # size to which the training part was cut (usk.data.train_subset)

    @property
    def of_fold(self) -> bool:
        """Whether the test part is a fold."""
        return self.name.startswith("fold")


def make_folds(clips: Sequence[Clip], n_folds: int = 5) -> list[int]:
    """Return a fold for each clip, from 1: stratified by class, with whole recordings (scikit-learn's splitter).

    The folds depend on the clips' identities, not on the names of recordings and classes.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    n_groups = len({clip.group for clip in clips})
    largest_class = max(Counter(clip.label for clip in clips).values(), default=0)
    n_splits = min(n_folds, n_groups, largest_class)  # scikit-learn wants a class with a clip for each fold
    if n_splits < 2:
        return [1] * len(clips)
    identities: dict[str, list[str]] = defaultdict(list)
    for clip in clips:
        identities[clip.group].append(clip.identity)
    ordered_groups = sorted(identities, key=lambda group: (sorted(identities[group]), group))
    number = {group: index for index, group in enumerate(ordered_groups)}
    order = sorted(range(len(clips)), key=lambda i: (number[clips[i].group], clips[i].identity))
    labels = np.array([clips[i].label for i in order])
    groups = np.array([number[clips[i].group] for i in order])
    folds = [0] * len(clips)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # about rare classes
        splitter = StratifiedGroupKFold(n_splits=n_splits, shuffle=True, random_state=0)
        for fold, (_, members) in enumerate(splitter.split(labels, labels, groups), start=1):
            for member in members:
                folds[order[member]] = fold
    return folds


def in_several_folds(clips: Sequence[Clip]) -> dict[str, list[int]]:
    """Return the recordings with clips in several folds, and these folds."""
    folds: dict[str, set[int]] = defaultdict(set)
    for clip in clips:
        folds[clip.group].add(clip.fold)
    return {group: sorted(found) for group, found in sorted(folds.items()) if len(found) > 1}


def fold_split(clips: Sequence[Clip], test_fold: int) -> Split:
    """Protocol `folds`: one fold tests. Of the others, held-out recordings validate and the rest trains."""
    folds = {clip.fold for clip in clips}
    if test_fold not in folds:
        known = ", ".join(map(str, sorted(folds)))
        raise UsageError(f"the source has no such fold; it has {known}", field="test_folds", value=test_fold)
    if len(folds) < 2:
        message = "there is one fold only, and testing it leaves nothing to train on"
        raise UsageError(message, hint="Add recordings or folds.")
    held = held_out_groups(clips)
    is_held = np.array([clip.group in held for clip in clips])
    tested = {clip.group for clip in clips if clip.fold == test_fold}
    free = np.array([clip.group not in tested for clip in clips])  # a recording may lie in several folds
    test = np.flatnonzero([clip.fold == test_fold for clip in clips])
    return Split(f"fold{test_fold}", np.flatnonzero(free & ~is_held), np.flatnonzero(free & is_held), test)


def seed_9010_split(clips: Sequence[Clip], seed: int) -> Split:
    """Protocol `seed-9010`: a random 90:10 split of clips, as in the published experiment.

    It is optimistic: clips of one recording are on both sides, and the test part chooses the epoch.
    """
    by_content = np.array(sorted(range(len(clips)), key=lambda row: clips[row].identity), dtype=np.int64)
    order = by_content[np.random.default_rng(seed).permutation(len(clips))]
    n_test = max(1, round(0.1 * len(clips)))
    test = np.sort(order[:n_test])
    return Split(f"seed{seed}-9010", np.sort(order[n_test:]), test, test, optimistic=True, by_group=False)
