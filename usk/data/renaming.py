"""A folder of recordings that is called otherwise than when clips were made of it, or a generator was fitted on it.

In a folder of one's own a clip is known by its path, which begins with the folder's name. The same recordings in a folder of
another name (renamed, or copied to another machine) would pass for others, and could be tested where clips made of them train.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace

from usk.data.sources import Source

SHARED = 0.5  # of the paths below a folder of another name: from there on it is taken for the same


def as_named_now(source: Source, real: Source) -> Source:
    """The synthetic `source` with what it names by the path in a folder of another name named as `real` names it.

    Only where `real` knows its clips by their paths and has at least half of those that `source` names below a folder. Two
    folders whose files merely have the same names are taken for one by this: then fewer clips train than may.
    """
    if not real.by_path or source is real or not source.is_synthetic:
        return source
    here = {_below(name) for clip in real.clips for name in (clip.clip_id, clip.group)}
    named: dict[str, set[str]] = defaultdict(set)
    for name in _names(source):
        named[name.partition("/")[0]].add(_below(name))
    olds = sorted(
        old
        for old, paths in named.items()
        if old != real.name and len(paths & here) >= SHARED * len(paths) and paths & here
    )
    if not olds:
        return source

    def now(name: str) -> str:
        return f"{real.name}/{_below(name)}" if name.partition("/")[0] in olds else name

    clips = tuple(
        replace(
            clip,
            parents=tuple(map(now, clip.parents)),
            parent_groups=tuple(map(now, clip.parent_groups)),
        )
        for clip in source.clips
    )
    return replace(
        source,
        clips=clips,
        model_groups=frozenset(map(now, source.model_groups)),
        judge_groups={folds: frozenset(map(now, heard)) for folds, heard in source.judge_groups.items()},
        renamed_from=", ".join(olds),
    )


def _below(name: str) -> str:
    return name.partition("/")[2]


def _names(source: Source) -> Iterable[str]:
    """Every clip and recording that a synthetic source names as heard."""
    for clip in source.clips:
        yield from clip.parents
        yield from clip.parent_groups
    yield from source.model_groups
    for heard in source.judge_groups.values():
        yield from heard
