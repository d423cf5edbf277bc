"""A folder of recordings that is called otherwise than when clips were made of it, or a generator was fitted on it.

In a folder of one's own, clips and recordings go by names that begin with the folder's. The same recordings in a folder of another
name (renamed, or copied to another machine) would pass for others, and could be tested where clips made of them train.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace

from usk.data.source import Source

SHARED = 0.5  # of the paths below a folder of another name: from there on it is taken for the same


def as_named_now(source: Source, real: Source) -> Source:
    """The synthetic `source` with what it names by the name of another folder named as `real` names it.

    The folder is the same for sure where its content is (`Source.made_of`). Where `real` knows its clips by their paths, it is
    taken for the same if half of the paths are, of those that `source` names as parents, as their recordings, or as heard by its
    generator or a clip_filter, or of those that `real` has. Two folders whose files merely have the same names are taken for one by
    that: `renamed_by_paths` says so, and such clips leak where those paths are tested, and count as made of no few train_clips.
    """
    if source is real or not source.has_synthetic:
        return source
    by_content = {name for name, revision in filter(None, [source.made_of]) if revision == real.revision}
    by_paths = _of_the_same_paths(source, real) if real.by_path else set()
    olds = (by_content | by_paths) - {real.name}
    if not olds:
        return source

    def now(name: str) -> str:
        return next(
            (f"{real.name}/{name[len(old) + 1 :]}" for old in olds if name.startswith(f"{old}/")), name
        )

    def all_now(names: Iterable[str]) -> frozenset[str]:
        return frozenset(map(now, names))

    return replace(
        source,
        clips=tuple(
            replace(
                clip,
                # A row without parents beside synthetic ones is a real clip.
                clip_id=clip.clip_id if clip.is_synthetic else now(clip.clip_id),
                group=clip.group if clip.is_synthetic else now(clip.group),
                parents=tuple(map(now, clip.parents)),
                parent_groups=tuple(map(now, clip.parent_groups)),
            )
            for clip in source.clips
        ),
        model_groups=all_now(source.model_groups),
        filter_groups={folds: all_now(heard) for folds, heard in source.filter_groups.items()},
        renamed_from=", ".join(sorted(olds)),
        renamed_by_paths=not by_content,
    )


def _of_the_same_paths(source: Source, real: Source) -> set[str]:
    """The folders that `source` names things of, and whose paths `real` has."""
    ids, groups = {_below(clip.clip_id) for clip in real.clips}, {_below(clip.group) for clip in real.clips}
    found = set()
    for names, here in (
        ({name for clip in source.clips for name in clip.parents}, ids),
        ({name for clip in source.clips for name in clip.parent_groups}, groups),
        *((heard, groups | ids) for heard in (source.model_groups, *source.filter_groups.values())),
    ):
        paths: dict[str, set[str]] = defaultdict(set)
        for name in names:
            paths[name.partition("/")[0]].add(_below(name))
        for old, there in paths.items():
            shared = (there & here) - {""}
            if shared and len(shared) >= SHARED * min(len(there), len(here)):
                found.add(old)
    return found


def _below(name: str) -> str:
    return name.partition("/")[2]


def renaming(source: Source, real: Source) -> str | None:
    """What to tell of it, else None."""
    if not source.renamed_from:
        return None
    why = "the same paths" if source.renamed_by_paths else "the same content"
    return (
        f"{source.location} was made of a folder called {source.renamed_from}; {real.location} has {why}, so they count as the same "
        "recordings (which validate goes by the folder's name: called so again, fewer clips are left out)"
    )
