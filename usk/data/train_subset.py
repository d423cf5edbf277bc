"""Choose the n real clips of a small training part, for `usk synth` and `usk train` alike. Pure."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from usk.data.clip import Clip
from usk.data.splits import Split, fold_split, stable_order
from usk.errors import UsageError
from usk.manifest import TrainSubsetRecord

FULL = "full"
SUBSET_NAME = re.compile(r"(\d+-train_clips|full)-.+")


def parse_train_clips(text: str) -> tuple[int | None, ...]:
    """Parse numbers of real clips in all, such as `50,100,full`. `full` becomes None: the whole training part."""
    train_clips: list[int | None] = []
    for piece in (part.strip() for part in text.split(",")):
        if piece == FULL:
            train_clips.append(None)
        elif piece.isascii() and piece.isdigit() and int(piece):
            train_clips.append(int(piece))
        else:
            message = "not numbers of real clips"
            hint = "Join numbers by commas, or write full: 50,100,full."
            raise UsageError(message, field="train_clips", value=text, hint=hint)
    return tuple(dict.fromkeys(train_clips))


def draw_train_clips(clips: Sequence[Clip], rows: np.ndarray, n: int, seed: int) -> np.ndarray:
    """Draw `n` of `rows`, balanced over classes, and over recordings within a class. Return them sorted, or all if there are fewer.

    Classes take turns, and within a class its recordings do, in an order that `seed` draws from the clips' sounds. So a smaller
    draw is part of a larger one, and a clip's place does not depend on other recordings.
    """

    def place(kind: str, rows: Iterable[int]) -> int:
        return stable_order(f"train_clips/{seed}/{kind}/{min(clips[row].identity for row in rows)}")

    recordings: dict[int, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for row in rows.tolist():
        recordings[clips[row].label][clips[row].group].append(row)
    order: list[tuple[int, int, int]] = []  # turn of the class, place of the class in a turn, row
    for groups in recordings.values():
        turns: list[tuple[int, int, int]] = []  # turn of the recording, place of the recording, row
        for members in groups.values():
            group_place = place("recording", members)
            members.sort(key=lambda row: place("clip", (row,)))
            turns += [(turn, group_place, row) for turn, row in enumerate(members)]
        class_place = place("class", (row for members in groups.values() for row in members))
        order += [(turn, class_place, row) for turn, (_, _, row) in enumerate(sorted(turns))]
    return np.array(sorted(row for _, _, row in sorted(order)[:n]), dtype=np.int64)


def subset_split(split: Split, clips: Sequence[Clip], train_clips: int | None, seed: int) -> Split:
    """Return `split` with its training part cut to `train_clips` clips, or unchanged for None.

    Raise UsageError if the training part has fewer.
    """
    if train_clips is None:
        return split
    if train_clips > len(split.train):
        message = f"the training part of {split.name} has {len(split.train)} clips"
        hint = "Give fewer, or full for all of them."
        raise UsageError(message, field="train_clips", value=train_clips, hint=hint)
    train = draw_train_clips(clips, split.train, train_clips, seed)
    return replace(split, train=train, train_clips=train_clips)


class TrainSubset(TrainSubsetRecord):
    """The manifest's record of a small training part, with its name and its split."""

    @property
    def name(self) -> str:
        """The name of the folder for clips made from it."""
        return subset_name(self.train_clips, f"fold{self.test_fold}", self.seed)

    def split(self, clips: Sequence[Clip]) -> Split:
        return subset_split(fold_split(clips, self.test_fold), clips, self.train_clips, self.seed)


def subset_name(train_clips: int | None, split_name: str, seed: int) -> str:
    """Return `100-train_clips-fold2-seed0`, or `full-fold2`, which does not depend on the seed."""
    if train_clips is None:
        return f"{FULL}-{split_name}"
    return f"{train_clips}-train_clips-{split_name}-seed{seed}"
