"""Open a source of clips: UrbanSound8K, class folders, Hugging Face datasets on disk or on the Hub, and the demo.

Opening lists rows and checks that their audio is there; nothing is decoded (see `usk.data.decode`).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from usk.data import demo_corpus
from usk.data.audio_file import ProceduralRef
from usk.data.clip import Clip
from usk.data.columns import Columns
from usk.data.folders import open_class_folders, open_listed, open_urbansound8k, tables_of, urbansound8k_root
from usk.data.parquet import open_hub, open_parquet, open_saved_dataset
from usk.data.pinned import looks_like_hub_id
from usk.data.source import A_SOURCE, Source
from usk.errors import SourceError, UsageError
from usk.manifest import MANIFEST_FILE


def open_source(
    location: str | os.PathLike[str],
    *,
    skip_bad: bool = False,
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
        label_column, group_column, fold_column: of a dataset; found by name and type where they are None.
        field: the parameter that names it, for errors.
        needs_label: whether clips must have classes; to classify them is possible without.

    Raises: SourceError, with a one-line message that names the fix.
    """
    typed = os.fspath(location)
    if not typed.strip():
        raise SourceError("no source is named", field=field, hint=A_SOURCE)
    columns = Columns(label_column, group_column, fold_column, needs_label=needs_label)
    if typed == "demo":
        _refuse_columns(columns, typed, "the demo corpus")
        return _open_demo()
    path = Path(typed).expanduser()
    if path.is_dir():
        opener = _opener_for(path, columns)
        if opener is open_class_folders:
            _refuse_columns(columns, typed, "a folder of files without a table that lists them")
        if opener is open_urbansound8k:
            _refuse_columns(columns, typed, "UrbanSound8K, whose columns are known")
        source = opener(path, typed, skip_bad, columns)
    elif path.exists():
        raise SourceError("this is a file", field=field, value=typed, hint=A_SOURCE)
    elif looks_like_hub_id(typed):
        source = open_hub(typed, columns)
    else:
        raise SourceError("no such folder", field=field, value=typed, hint=A_SOURCE)
    if not source.clips:
        raise SourceError(f"{typed} holds no clips")
    return source


def _refuse_columns(columns: Columns, typed: str, what: str) -> None:
    for name, column in columns.given.items():
        raise UsageError(
            f"{typed} is {what} and has no columns to choose", field=name, value=column, hint="Remove it."
        )


def _opener_for(path: Path, columns: Columns) -> Callable[[Path, str, bool, Columns], Source]:
    if urbansound8k_root(path) is not None:
        return open_urbansound8k
    if (path / "dataset_info.json").is_file() and (path / "state.json").is_file():
        return open_saved_dataset
    if (path / "dataset_dict.json").is_file():
        return open_saved_dataset
    if (path / MANIFEST_FILE).is_file() or any(path.glob("*.parquet")) or any(path.glob("data/*.parquet")):
        return open_parquet
    if not any(path.iterdir()):
        raise SourceError(f"{path} is empty", hint=A_SOURCE)
    if tables := tables_of(path, columns):
        return partial(open_listed, tables=tables)
    return open_class_folders


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
