"""Small training parts: which n real clips train. `usk synth` and `usk train` ask the same function. Pure."""

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
    """`50,100,full` as numbers of real clips in all, None for the whole training part; each once, in the given order."""
    train_clips: list[int | None] = []
    for piece in (part.strip() for part in text.split(",")):
        if piece == FULL:
            train_clips.append(None)
        elif piece.isascii() and piece.isdigit() and int(piece):
            train_clips.append(int(piece))
        else:
            raise UsageError(
                "not numbers of real clips",
                field="train_clips",
                value=text,
                hint="Join numbers by commas, or write full: 50,100,full.",
            )
    return tuple(dict.fromkeys(train_clips))


def draw_train_clips(clips: Sequence[Clip], rows: np.ndarray, n: int, seed: int) -> np.ndarray:
    """`n` of `rows`, sorted: as many of each class as there are, and of as many recordings of a class as there are.

    Classes take turns, and within a class its recordings do, in an order that is drawn by `seed` from the clips' sounds; so
    fewer train_clips nest in more, and a clip's place depends on no other recording's. `rows` may hold any clips; all of them are
    returned if there are no more than `n`.
    """

    def place(what: str, rows: Iterable[int]) -> int:
        return stable_order(f"train_clips/{seed}/{what}/{min(clips[row].identity for row in rows)}")

    recordings: dict[int, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for row in rows.tolist():
        recordings[clips[row].label][clips[row].group].append(row)
    order: list[tuple[int, int, int]] = []  # turn of the class, place of the class in a turn, row
    for groups in recordings.values():
        turns: list[tuple[int, int, int]] = []  # turn of the recording, place of the recording, row
        for members in groups.values():
            of_group = place("recording", members)
            members.sort(key=lambda row: place("clip", (row,)))
            turns += [(turn, of_group, row) for turn, row in enumerate(members)]
        class_place = place("class", (row for members in groups.values() for row in members))
        order += [(turn, class_place, row) for turn, (_, _, row) in enumerate(sorted(turns))]
    return np.array(sorted(row for _, _, row in sorted(order)[:n]), dtype=np.int64)


def subset_split(split: Split, clips: Sequence[Clip], train_clips: int | None, seed: int) -> Split:
    """`split` with its training part cut to `train_clips` clips; validation and test stay whole. None changes nothing.

    Raises UsageError if the training part has fewer.
    """
    if train_clips is None:
        return split
    if train_clips > len(split.train):
        raise UsageError(
            f"the training part of {split.name} has {len(split.train)} clips",
            field="train_clips",
            value=train_clips,
            hint="Give fewer, or full for all of them.",
        )
    return replace(
        split, train=draw_train_clips(clips, split.train, train_clips, seed), train_clips=train_clips
    )


class TrainSubset(TrainSubsetRecord):
    """What a manifest says of the real clips that train, and what follows from it."""

    @property
    def name(self) -> str:
        """The folder of the clips made from them."""
        return subset_name(self.train_clips, f"fold{self.test_fold}", self.seed)

    def split(self, clips: Sequence[Clip]) -> Split:
        return subset_split(fold_split(clips, self.test_fold), clips, self.train_clips, self.seed)


def subset_name(train_clips: int | None, split_name: str, seed: int) -> str:
    """`100-train_clips-fold2-seed0`, or `full-fold2`, which is the same for every seed."""
    return (
        f"{FULL}-{split_name}"
        if train_clips is None
        else f"{train_clips}-train_clips-{split_name}-seed{seed}"
    )
