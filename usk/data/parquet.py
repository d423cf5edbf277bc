"""Sources that are Hugging Face datasets: Parquet folders, those of usk among them, `save_to_disk`, and the Hub."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from usk.data.audio_file import DatasetRef, ParquetRef, is_audio
from usk.data.columns import Columns, from_columns
from usk.data.fingerprint import fingerprint_files
from usk.data.licenses import license_of_card, one_license
from usk.data.pinned import cache_folder, pin
from usk.data.source import Source, TrainingClips
from usk.errors import SourceError, UsageError
from usk.files import visible_files
from usk.hub import causes, first_line, hub_errors, retried
from usk.manifest import MANIFEST_FILE, Manifest, find_manifest
from usk.text import abbreviate_list

OWN_FILES = (MANIFEST_FILE, "README.md", "data/*.parquet")  # what reading a dataset of ours needs


def _complete_shards(path: Path, typed: str, manifest: Manifest) -> list[Path]:
    """A dataset of ours is usable only whole: every shard there, with the rows that the plan gave it."""
    import pyarrow.parquet as pq

    if not manifest.shards:
        raise SourceError(
            f"{typed} is unfinished: not all of its clips are made yet; run the same `usk synth` again and it goes on where it stopped"
        )
    files = [path / name for name in manifest.shards]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise SourceError(
            f"{typed} is unfinished: {len(missing)} of {len(files)} shards are missing; "
            f"run the same `usk synth` again and it goes on where it stopped"
        )
    for file, shard in zip(files, manifest.shards.values(), strict=True):
        try:
            actual = pq.ParquetFile(file).metadata.num_rows
        except (OSError, ValueError) as error:
            raise SourceError(
                f"{typed}: {file.name} is damaged; delete it and run the same `usk synth` again"
            ) from error
        if actual != shard.rows:
            raise SourceError(
                f"{typed}: {file.name} has {actual} rows where its plan has {shard.rows}; delete it and run `usk synth` again"
            )
    return files


def _compare_hashes(manifest: Manifest, digests: Sequence[str], typed: str) -> None:
    """Raise SourceError where a shard is not what the manifest of the finished dataset says."""
    pairs = zip(manifest.shards.items(), digests, strict=True)
    changed = [name for (name, shard), digest in pairs if shard.sha256 and digest != shard.sha256]
    if changed:
        raise SourceError(
            f"{typed}: {abbreviate_list(changed)}: damaged or changed after it was made, since the hash is not the one in {MANIFEST_FILE}",
            hint="Download it again, or delete it and run the same `usk synth` again.",
        )


def is_parquet_of_names(file: Path) -> bool:
    """Whether a Parquet file is a table without audio in it: it has plain columns alone, and audio files lie with it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        kinds = pq.read_schema(file).types
    except (OSError, ValueError):
        return False
    plain = not any(pa.types.is_struct(kind) or pa.types.is_binary(kind) for kind in kinds)
    return plain and any(map(is_audio, visible_files(file.parent)))


def open_parquet(path: Path, typed: str, skip_bad: bool, columns: Columns) -> Source:
    import pyarrow.parquet as pq
    from datasets import Features

    manifest = find_manifest(path)
    files = sorted(
        file
        for pattern in ("*.parquet", "data/*.parquet")
        for file in path.glob(pattern)
        if not file.name.startswith(".")  # `._train.parquet`, which macOS leaves on other disks
    )
    if manifest is not None:
        files = _complete_shards(path, typed, manifest)
    if not files:
        raise SourceError(f"{typed} has no Parquet files")
    tables, places = [], []
    audio_column = ""
    features: dict[str, Any] = {}
    for file in files:
        try:
            parquet = pq.ParquetFile(file)
        except (OSError, ValueError) as error:
            raise SourceError(
                f"{typed}: {file.name} is no whole Parquet file; copy or make it again"
            ) from error
        try:
            own = dict(Features.from_arrow_schema(parquet.schema_arrow))
        except Exception as error:  # whatever its metadata makes `datasets` do
            raise SourceError(
                f"{typed}: the columns of {file.name} are not described as `datasets` describes them: {first_line(error)}"
            ) from error
        if features and own != features:
            raise SourceError(f"{typed}: {file.name} has other columns than the files before it")
        features = own
        audio_column = _audio_column(features, typed, columns.audio)
        try:
            tables.append(parquet.read(columns=[name for name in features if name != audio_column]))
        except (OSError, ValueError) as error:
            raise SourceError(
                f"{typed}: {file.name} is damaged ({first_line(error)}); copy or make it again"
            ) from error
        for group in range(parquet.num_row_groups):
            places += [(file, group, row) for row in range(parquet.metadata.row_group(group).num_rows)]
    data: dict[str, list[Any]] = {
        name: [value for table in tables for value in table.column(name).to_pylist()]
        for name in features
        if name != audio_column
    }
    audio = tuple(ParquetRef(file, group, row, audio_column) for file, group, row in places)
    revision, cache_key, digests = fingerprint_files(files, path)
    if manifest is not None:
        _compare_hashes(manifest, digests, typed)
    name = path.resolve().name
    named = [re.match(r"(.+)-\d{5}-of-\d{5}", file.stem) for file in files]  # as the Hub does
    splits = list(dict.fromkeys(split[1] for split in named if split))
    notes = (_read_as_one(splits),) if len(splits) > 1 and manifest is None else ()
    opened = Source(name, "Parquet dataset", typed, revision, cache_key, (), (), audio, notes=notes)
    source = from_columns(data, features, opened, columns)
    stated = license_of_card(path)
    if manifest is not None:
        filters = manifest.clip_filter.trained_on if manifest.clip_filter is not None else ()
        source = replace(
            source,
            kind=manifest.kind,
            license=one_license([manifest.license, *([stated] if stated else [])]),
            generator_trained_on=tuple(
                TrainingClips(frozenset(part.groups), frozenset(part.sounds), complete=not part.is_incomplete)
                for part in manifest.trained_on
            ),
            filters_trained_on={
                part.folds: TrainingClips(frozenset(part.groups), frozenset(part.sounds)) for part in filters
            },
        )
    return source if manifest is not None else _licensed(source, stated)


def _read_as_one(splits: Sequence[str]) -> str:
    return f"its splits {', '.join(splits)} are read as one, and folds say what is tested"


def _licensed(source: Source, *stated: str | None) -> Source:
    """A dataset from elsewhere under the license that its card or its features state, the strictest of several;
    UrbanSound8K's is known without."""
    known = "CC BY-NC 3.0" if source.name == "urbansound8k" else None
    names = [name for name in (known, *stated) if name]
    return replace(source, license=one_license(names)) if names else source


def open_saved_dataset(path: Path, typed: str, skip_bad: bool, columns: Columns) -> Source:
    import datasets

    try:
        loaded = datasets.load_from_disk(str(path))
    except IndexError as error:  # of `datasets`, where there is not one table
        raise SourceError(f"{typed} holds no clips") from error
    except (OSError, ValueError) as error:
        raise SourceError(f"{typed} is no whole `save_to_disk` dataset: {first_line(error)}") from error
    files = sorted(path.rglob("*.arrow"))
    revision, cache_key, _ = fingerprint_files(files, path)
    name = path.resolve().name
    opened = Source(name, "saved Hugging Face dataset", typed, revision, cache_key, (), (), ())
    source = _from_dataset(loaded, opened, columns, path)
    parts = list(loaded.values()) if isinstance(loaded, dict) else [loaded]
    stated = [license_of_card(path), *(str(part.info.license or "") for part in parts)]
    return _licensed(source, *stated)


def open_hub(typed: str, columns: Columns, field: str = "real") -> Source:
    """A dataset on the Hub at its commit: one that usk made as its folder, others as `datasets` loads them."""
    import datasets

    hub_id, _, revision = typed.partition("@")
    subject = f"the Hub dataset {hub_id}"
    instead = (
        "name a local folder (or set $USK_REAL), or try `usk demo`"
        if field == "real"
        else "name a local folder"
    )
    pinned = pin(typed, "dataset", subject, instead, SourceError)
    if MANIFEST_FILE in pinned.files:
        folder = pinned.download(OWN_FILES)
        source = open_parquet(folder, typed, False, columns)
        source = replace(source, name=hub_id, revision=pinned.commit, cache_key=f"hub-{pinned.commit}")
    else:
        try:
            with hub_errors(subject, instead, SourceError, revision), audio_left_encoded():
                loaded = retried(lambda: datasets.load_dataset(hub_id, revision=pinned.commit))
        except (datasets.exceptions.DatasetsError, RuntimeError, ValueError) as error:
            # A loading script, files of no known format, shards that do not fit together: no source for usk.
            innermost = list(causes(error))[-1]  # `datasets` says of most no more than that they happened
            raise SourceError(f"{subject} cannot be loaded as a data set: {first_line(innermost)}") from error
        name = "urbansound8k" if hub_id.lower().endswith("/urbansound8k") else hub_id
        folder, key = cache_folder(hub_id, "dataset"), f"hub-{pinned.commit}"
        opened = Source(name, "Hub dataset", typed, pinned.commit, key, (), (), ())
        source = _from_dataset(loaded, opened, columns, folder)
        has_card = "README.md" in pinned.files
        source = _licensed(source, license_of_card(pinned.download(["README.md"])) if has_card else None)
    return replace(source, hub_id=hub_id)


@contextmanager
def audio_left_encoded() -> Iterator[None]:
    """`datasets` builds datasets of audio files without torchcodec, which it needs for samples alone but asks for in any case."""
    import datasets

    of_samples = datasets.Audio.encode_example

    def encode_example(self: Any, value: Any) -> Any:
        if isinstance(value, (str, Path)):
            return {"bytes": None, "path": str(value)}
        if isinstance(value, (bytes, bytearray)):
            return {"bytes": bytes(value), "path": None}
        if isinstance(value, dict) and "array" not in value and value.keys() & {"bytes", "path"}:
            return {"bytes": value.get("bytes"), "path": value.get("path")}
        return of_samples(self, value)

    datasets.Audio.encode_example = encode_example
    try:
        yield
    finally:
        datasets.Audio.encode_example = of_samples


def _from_dataset(loaded: Any, opened: Source, columns: Columns, folder: Path) -> Source:
    """`opened`, so far without audio, with the rows of a dataset that lies in `folder`."""
    import datasets

    typed, notes = opened.location, opened.notes
    parts: list[str] = []
    if isinstance(loaded, dict):
        parts = [str(name) for name, part in loaded.items() for _ in range(len(part))]
        if len(loaded) > 1:
            notes = (_read_as_one([str(name) for name in loaded]),)
        try:
            loaded = datasets.concatenate_datasets(list(loaded.values()))
        except (ValueError, TypeError) as error:
            raise SourceError(
                f"{typed}: its splits {', '.join(map(str, loaded))} have different columns and cannot be read as one "
                f"({first_line(error)}); save the one that you want by itself (save_to_disk) and name that folder"
            ) from error
    if not len(loaded):
        raise SourceError(f"{typed} holds no clips")
    loaded = loaded.with_format(None)  # one that was saved with the data set may leave columns out
    features = dict(loaded.features)
    audio_column = _audio_column(features, typed, columns.audio)
    if isinstance(features[audio_column], datasets.Audio):
        loaded = loaded.cast_column(audio_column, datasets.Audio(decode=False))
    rest = loaded.remove_columns([audio_column]).to_dict()
    if len(set(parts)) > 1:
        rest.setdefault("split", parts)  # to be named as the column of folds
    only_audio = loaded.select_columns([audio_column])
    audio = tuple(DatasetRef(only_audio, row, audio_column, folder) for row in range(len(loaded)))
    return from_columns(rest, features, replace(opened, audio=audio, notes=notes), columns)


def _audio_column(features: dict[str, Any], typed: str, given: str | None) -> str:
    from datasets import Audio

    if given is not None:
        if given not in features:
            raise UsageError(
                f"{typed} has no such column; it has {', '.join(features)}", field="audio_column", value=given
            )
        return given
    typed_audio = [name for name, feature in features.items() if isinstance(feature, Audio)]
    structs = [
        name
        for name, feature in features.items()
        if isinstance(feature, dict) and ("bytes" in feature or "array" in feature)
    ]
    for name in (*typed_audio, *structs):
        return name
    raise SourceError(f"{typed} has no audio column; its columns are {', '.join(features)}")
