"""Open a source of clips: UrbanSound8K, class folders, tables, Hugging Face datasets on disk or on the Hub, and the demo.

Opening lists the clips and checks that their audio exists. It decodes nothing (see `usk.data.decode`).
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
from usk.data.class_folders import open_class_folders
from usk.data.clip_tables import choose_tables, open_listed
from usk.data.columns import Columns
from usk.data.find import AudioFolder, list_audio_folder
from usk.data.location import A_SOURCE
from usk.data.opened import folder_key, load_opened, store_opened
from usk.data.parquet import is_table_of_files, open_hub, open_parquet, open_saved_dataset
from usk.data.pinned import looks_like_hub_id
from usk.data.source import Source
from usk.data.urbansound8k import open_urbansound8k, urbansound8k_places
from usk.errors import SourceError, UsageError
from usk.files import expanded, is_text
from usk.manifest import MANIFEST_FILE
from usk.text import abbreviate_list, pluralize

SourceLike = Source | str | os.PathLike[str]
"""A source, or its location."""


def open_source(
    location: SourceLike,
    *,
    skip_bad: bool = False,
    audio_column: str | None = None,
    label_column: str | None = None,
    group_column: str | None = None,
    fold_column: str | None = None,
    field: str = "real",
    needs_label: bool = True,
) -> Source:
    """Open a source of clips. A source that is open is returned as it is.

    Args:
        location: an UrbanSound8K folder as published, a folder with one sub-folder of audio files per class or with a table of
            audio files, a local Hugging Face dataset (Parquet folder or `save_to_disk`), a Hub id with optional `@revision`, or
            `demo`.
        skip_bad: leave out metadata rows whose audio file is missing, instead of raising.
        audio_column, label_column, group_column, fold_column: columns of a table or dataset. None: find them by name and type.
        field: the parameter that names the location, for errors.
        needs_label: whether clips must have classes. Clips to classify need none.

    Raise SourceError with a one-line message that names the fix.
    """
    if isinstance(location, Source):
        return location
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
        key = folder_key(path, (typed, skip_bad, columns)) if opener is _open_folder else None
        if (source := load_opened(key, path)) is None:
            source = opener(path, typed, skip_bad, columns)
            store_opened(key, source, path)
    elif path.exists():
        raise SourceError("this is a file", field=field, value=typed, hint="Name the folder that holds it.")
    elif looks_like_hub_id(typed):
        source = open_hub(typed, columns, field)
    else:
        hint = "Make it with `usk synth`, or name another." if field in ("dataset", "synth") else A_SOURCE
        raise SourceError("no such folder", field=field, value=typed, hint=hint)
    if not source.clips:
        raise SourceError(f"{typed} holds no clips")
    if similar := _similar_names(source.class_names):
        note = f"classes whose names differ by letter case or blanks alone are different classes: {abbreviate_list(similar)}"
        source = replace(source, notes=(*source.notes, note))
    return source


def _similar_names(class_names: Sequence[str]) -> list[str]:
    """Return `'Dog' and 'dog'` for classes whose names differ only by letter case, blanks or Unicode form."""
    names_by_key: dict[str, list[str]] = defaultdict(list)
    for name in class_names:
        key = "".join(unicodedata.normalize("NFC", name).casefold().split())
        names_by_key[key].append(repr(name))
    return [" and ".join(names) for names in names_by_key.values() if len(names) > 1]


def _refuse_columns(columns: Columns, location: str, kind: str) -> None:
    """Raise UsageError if the user named columns of a source that has none."""
    for name, column in columns.given.items():
        message = f"{location} is {kind} and has no columns to choose"
        raise UsageError(message, field=name, value=column, hint="Remove it.")


def _opener_for(path: Path, location: str, columns: Columns) -> Callable[[Path, str, bool, Columns], Source]:
    """Return the function that opens such a folder. Each kind has a function in a module of its own, and a line here."""
    if urbansound8k_places(path) is not None:
        _refuse_columns(columns, location, "UrbanSound8K, whose columns are known")
        return open_urbansound8k
    if (path / "dataset_info.json").is_file() and (path / "state.json").is_file():
        return open_saved_dataset
    if (path / "dataset_dict.json").is_file():
        return open_saved_dataset
    shards = [*path.glob("*.parquet"), *path.glob("data/*.parquet")]
    if os.path.lexists(path / MANIFEST_FILE) or (shards and not all(map(is_table_of_files, shards))):
        return open_parquet
    if not any(path.iterdir()):
        raise SourceError(f"{path} is empty", hint=A_SOURCE)
    return _open_folder


def _open_folder(path: Path, location: str, skip_bad: bool, columns: Columns) -> Source:
    """Open a folder of audio files: those that a table lists, or all in class folders."""
    folder = list_audio_folder(path)
    notes = _unusable_notes(folder, location, skip_bad)
    if folder.skipped_links:
        notes.append(
            f"left out {pluralize(len(folder.skipped_links), 'link')} to folders that are read anyway or lie above ({abbreviate_list(list(folder.skipped_links))})"
        )
    if inner := folder.inner_folder(with_tables=True):
        return _open_inner(path, inner, location, skip_bad, columns)
    chosen = choose_tables(folder, columns)
    chosen = replace(chosen, notes=(*notes, *chosen.notes))
    if chosen.listings:
        return open_listed(folder, location, skip_bad, columns, chosen)
    if inner := folder.inner_folder(with_tables=False):
        return _open_inner(path, inner, location, skip_bad, columns)
    split_is_fold = columns.fold == "split"
    other_columns = replace(columns, fold=None) if split_is_fold else columns
    _refuse_columns(other_columns, location, "a folder of files without a table that lists them")
    return open_class_folders(folder, location, split_is_fold, chosen.notes, chosen.others)


def _unusable_notes(folder: AudioFolder, location: str, skip_bad: bool) -> list[str]:
    """Return notes on audio files that cannot be clips. Raise SourceError for them unless `skip_bad`."""
    if not is_text(folder.root.resolve().name):
        message = f"the name of the folder {location!a} is not UTF-8, which rows cannot store; rename it"
        raise SourceError(message)
    found = [
        f"{pluralize(len(names), 'file')} {reason}: {abbreviate_list(names)}"
        for reason, names in folder.unusable.items()
    ]
    if found and not skip_bad:
        message = f"{location}: {'; '.join(found)}"
        raise SourceError(message, hint="Rename or restore them, or leave them out with `skip_bad`.")
    return [f"skipped {files}" for files in found]


def _open_inner(path: Path, inner: str, location: str, skip_bad: bool, columns: Columns) -> Source:
    """Open the folder `inner` of `path`, which holds nothing else."""
    inner_location = str(Path(location) / inner)
    opener = _opener_for(path / inner, inner_location, columns)
    source = opener(path / inner, inner_location, skip_bad, columns)
    note = f"all that {location} has lies in {inner}, which is read in its place; if {inner} is one class, list its files in a table"
    return replace(source, location=location, notes=(note, *source.notes))


def _open_demo() -> Source:
    clips = tuple(demo_corpus.corpus())
    return Source(
        name="demo",
        kind="demo corpus (procedural sound, not field recordings)",
        location="demo",
        revision=f"v{demo_corpus.DEMO_VERSION}",
        cache_key=f"demo-v{demo_corpus.DEMO_VERSION}",
        class_names=tuple(demo_corpus.CLASSES),
        clips=clips,
        audio=tuple(map(ProceduralRef, clips)),
        license="CC0-1.0",
        notes=("the demo corpus is procedural sound, not field recordings",),
    )
