"""Clips without audio for tests: real ones, and synthetic ones made from them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from usk.data.clip import Clip
from usk.data.source import Source

CLASSES = ("bark", "horn")


def source_of(
    clips: list[Clip], name: str = "city", class_names: tuple[str, ...] = CLASSES, **options: Any
) -> Source:
    empty = Source(name, "test", name, "1", name, class_names, (), ())
    return replace(empty, clips=tuple(clips), audio=(None,) * len(clips), **options)  # type: ignore[arg-type]


def real_source() -> Source:
    """Two classes, three folds, and in each five recordings of two clips, so that some validate. A clip's sound is a number."""
    return source_of(
        [
            Clip(f"city/{label}/{fold}-{group}/{cut}.wav", label, f"city/{label}-{fold}-{group}", fold, 1.0 + cut,
                 sound=f"{label}{fold}{group}{cut}")
            for label in range(2) for fold in (1, 2, 3) for group in range(5) for cut in range(2)
        ]
    )  # fmt: skip


def child(name: str, *parents: Clip, **options: Any) -> Clip:
    """A synthetic clip. It has its parents' names if they have sounds."""
    named = parents if all(parent.sound for parent in parents) else ()
    made = Clip(
        name, parents[0].label, name, parents[0].fold, parents=tuple(p.identity for p in parents),
        parent_names=tuple(p.clip_id for p in named), parent_seconds=tuple(p.duration_s for p in named),
        parent_groups=tuple(p.group for p in parents), parent_folds=tuple(p.fold for p in parents),
    )  # fmt: skip
    return replace(made, **options)
