"""Open a source of clips: UrbanSound8K, class folders, Hugging Face datasets on disk or on the Hub, and the demo.

Opening lists rows and checks that their audio is there; nothing is decoded (see `usk.data.decode`).
"""

from __future__ import annotations

import os
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from usk.data import demo_corpus
from usk.data.audio_file import ProceduralRef
from usk.data.class_folders import open_class_folders, refuse_lost_files
from usk.data.clip import Clip
from usk.data.clip_tables import choose_tables, open_listed
from usk.data.columns import Columns
from usk.data.find import audio_folder
from usk.data.location import A_SOURCE
from usk.data.opened import keep, recall, signature
from usk.data.parquet import is_parquet_of_names, open_hub, open_parquet, open_saved_dataset
from usk.data.pinned import looks_like_hub_id
from usk.data.source import Source
from usk.data.urbansound8k import open_urbansound8k, urbansound8k_places
from usk.errors import SourceError, UsageError
from usk.files import expanded
from usk.manifest import MANIFEST_FILE
from usk.text import abbreviate_list, pluralize


def open_source(
    location: str | os.PathLike[str],
    *,
    skip_bad: bool = False,
    audio_column: str | None = None,
    label_column: str | None = None,
    group_column: str | None = None,
    fold_column: str | None = None,
    field: str = "real",
    needs_label: bool = True,
) -> Source:
    """Open a source of clips.

    Args:
        location: an UrbanSound8K folder as published, a folder with one sub-folder of audio files per class, a local
            Hugging Face dataset (Parquet folder or `save_to_disk`), a Hub id with optional `@revision`, or `demo`.
        skip_bad: leave out metadata rows whose audio file is missing, instead of raising.
        audio_column, label_column, group_column, fold_column: of a table or dataset; found by name and type where they are None.
        field: the parameter that names it, for errors.
        needs_label: whether clips must have classes; to classify them is possible without.

    Raises: SourceError, with a one-line message that names the fix.
    """
    typed = os.fspath(location)
    if not typed.strip():
        raise SourceError("no source is named", field=field, hint=A_SOURCE)
    columns = Columns(audio_column, label_column, group_column, fold_column, needs_label=needs_label)
    if typed == "demo":
        _refuse_columns(columns, typed, "the demo corpus")
        return _open_demo()
    path = expanded(typed)
    if path.is_dir():
        opener = _opener_for(path, typed, columns)
        key = signature(path, (typed, skip_bad, columns)) if opener is _open_folder else None
        if (source := recall(key, path)) is None:
            source = opener(path, typed, skip_bad, columns)
            keep(key, source, path)
    elif path.exists():
        raise SourceError("this is a file", field=field, value=typed, hint=A_SOURCE)
    elif looks_like_hub_id(typed):
        source = open_hub(typed, columns, field)
    else:
        raise SourceError("no such folder", field=field, value=typed, hint=A_SOURCE)
    if not source.clips:
        raise SourceError(f"{typed} holds no clips")
    if alike := _alike(source.class_names):
        note = f"classes whose names differ by letter case or blanks alone are different classes: {abbreviate_list(alike)}"
        source = replace(source, notes=(*source.notes, note))
    return source


def _alike(class_names: Sequence[str]) -> list[str]:
    """`'Dog' and 'dog'` for classes whose names are the same but for letter case, blanks and Unicode form."""
    same: dict[str, list[str]] = defaultdict(list)
    for name in class_names:
        same["".join(unicodedata.normalize("NFC", name).casefold().split())].append(repr(name))
    return [" and ".join(names) for names in same.values() if len(names) > 1]


def _refuse_columns(columns: Columns, typed: str, what: str) -> None:
    for name, column in columns.given.items():
        raise UsageError(
            f"{typed} is {what} and has no columns to choose", field=name, value=column, hint="Remove it."
        )


def _opener_for(path: Path, typed: str, columns: Columns) -> Callable[[Path, str, bool, Columns], Source]:
    if urbansound8k_places(path) is not None:
        _refuse_columns(columns, typed, "UrbanSound8K, whose columns are known")
        return open_urbansound8k
    if (path / "dataset_info.json").is_file() and (path / "state.json").is_file():
        return open_saved_dataset
    if (path / "dataset_dict.json").is_file():
        return open_saved_dataset
    shards = [*path.glob("*.parquet"), *path.glob("data/*.parquet")]
    if os.path.lexists(path / MANIFEST_FILE) or (shards and not all(map(is_parquet_of_names, shards))):
        return open_parquet
    if not any(path.iterdir()):
        raise SourceError(f"{path} is empty", hint=A_SOURCE)
    return _open_folder


def _open_folder(path: Path, typed: str, skip_bad: bool, columns: Columns) -> Source:
    """A folder of audio files: those that a table lists, else one folder a class."""
    folder = audio_folder(path)
    notes = refuse_lost_files(folder, typed, skip_bad)
    if folder.links:
        notes.append(
            f"left out {pluralize(len(folder.links), 'link')} to folders that are read anyway or lie above ({abbreviate_list(list(folder.links))})"
        )
    if inner := folder.wrapper(with_tables=True):
        return _open_inner(path, inner, typed, skip_bad, columns)
    chosen = choose_tables(folder, columns)
    chosen = replace(chosen, notes=(*notes, *chosen.notes))
    if chosen.listings:
        return open_listed(folder, typed, skip_bad, columns, chosen)
    if inner := folder.wrapper(with_tables=False):
        return _open_inner(path, inner, typed, skip_bad, columns)
    split_is_fold = columns.fold == "split"
    _refuse_columns(
        replace(columns, fold=None) if split_is_fold else columns,
        typed,
        "a folder of files without a table that lists them",
    )
    return open_class_folders(folder, typed, split_is_fold, chosen.notes, chosen.others)


def _open_inner(path: Path, inner: str, typed: str, skip_bad: bool, columns: Columns) -> Source:
    """The source in the folder `inner` of `path`, which holds nothing else."""
    named = str(Path(typed) / inner)
    source = _opener_for(path / inner, named, columns)(path / inner, named, skip_bad, columns)
    note = f"all that {typed} has lies in {inner}, which is read in its place; if {inner} is one class, list its files in a table"
    return replace(source, location=typed, notes=(note, *source.notes))


def _open_demo() -> Source:
    corpus = demo_corpus.corpus()
    clips = tuple(
        Clip(f"demo/{clip.clip_id}", clip.label, f"demo/{clip.group}", clip.fold, clip.duration_s)
        for clip in corpus
    )
    return Source(
        name="demo",
        kind="demo corpus (procedural sound, not field recordings)",
        location="demo",
        revision=f"v{demo_corpus.DEMO_VERSION}",
        cache_key=f"demo-v{demo_corpus.DEMO_VERSION}",
        class_names=tuple(demo_corpus.CLASSES),
        clips=clips,
        audio=tuple(ProceduralRef(clip) for clip in corpus),
        license="CC0-1.0",
        notes=("the demo corpus is procedural sound, not field recordings",),
    )
