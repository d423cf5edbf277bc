"""Open Hugging Face datasets: Parquet folders, among them those of usk, `save_to_disk` folders, and datasets on the Hub."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from usk.data.audio_file import DatasetRef, ParquetRef, is_audio
from usk.data.columns import Columns, from_columns, require_column
from usk.data.fingerprint import fingerprint_files
from usk.data.licenses import license_of_card, one_license
from usk.data.pinned import cache_folder, pin
from usk.data.source import Source, TrainingClips
from usk.errors import SourceError
from usk.files import visible_files
from usk.hub import causes, first_line, hub_errors, retried
from usk.manifest import MANIFEST_FILE, Manifest, find_manifest
from usk.text import abbreviate_list

OWN_FILES = (MANIFEST_FILE, "README.md", "data/*.parquet")  # the files of a dataset of usk that are read


def is_table_of_files(file: Path) -> bool:
    """Whether a Parquet file is a table of audio files beside it, without audio in it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        types = pq.read_schema(file).types
    except (OSError, ValueError):
        return False
    may_hold_audio = any(pa.types.is_struct(kind) or pa.types.is_binary(kind) for kind in types)
    return not may_hold_audio and any(map(is_audio, visible_files(file.parent)))


def open_parquet(path: Path, location: str, skip_bad: bool, columns: Columns) -> Source:
    import pyarrow.parquet as pq
    from datasets import Features

    manifest = find_manifest(path)
    if manifest is not None:
        files = _check_shards(path, location, manifest)
    else:
        found = sorted([*path.glob("*.parquet"), *path.glob("data/*.parquet")])
        files = [file for file in found if not file.name.startswith(".")]  # macOS leaves `._train.parquet`
    if not files:
        raise SourceError(f"{location} has no Parquet files")
    tables, places = [], []
    audio_column = ""
    features: dict[str, Any] = {}
    for file in files:
        try:
            parquet = pq.ParquetFile(file)
        except (OSError, ValueError) as error:
            message = f"{location}: {file.name} is not a complete Parquet file; copy or make it again"
            raise SourceError(message) from error
        try:
            features_here = dict(Features.from_arrow_schema(parquet.schema_arrow))
        except Exception as error:  # `datasets` raises all kinds for metadata of its own
            message = f"{location}: the columns of {file.name} are not described as `datasets` describes them: {first_line(error)}"
            raise SourceError(message) from error
        if features and features_here != features:
            raise SourceError(f"{location}: {file.name} has other columns than the files before it")
        features = features_here
        audio_column = _audio_column(features, location, columns.audio)
        try:
            tables.append(parquet.read(columns=[name for name in features if name != audio_column]))
        except (OSError, ValueError) as error:
            message = f"{location}: {file.name} is damaged ({first_line(error)}); copy or make it again"
            raise SourceError(message) from error
        for group in range(parquet.num_row_groups):
            places += [(file, group, row) for row in range(parquet.metadata.row_group(group).num_rows)]
    data: dict[str, list[Any]] = {
        name: [value for table in tables for value in table.column(name).to_pylist()]
        for name in features
        if name != audio_column
    }
    audio = tuple(ParquetRef(file, group, row, audio_column) for file, group, row in places)
    revision, cache_key, digests = fingerprint_files(files, path)
    splits = [re.match(r"(.+)-\d{5}-of-\d{5}", file.stem) for file in files]  # as the Hub names files
    notes = _split_notes([split[1] for split in splits if split]) if manifest is None else ()
    name = path.resolve().name
    opened = Source(name, "Parquet dataset", location, revision, cache_key, (), (), audio, notes=notes)
    if manifest is not None:
        _compare_hashes(manifest, digests, location)
        return _add_manifest(from_columns(data, features, opened, columns), manifest, license_of_card(path))
    return _set_license(from_columns(data, features, opened, columns), license_of_card(path))


def _check_shards(path: Path, location: str, manifest: Manifest) -> list[Path]:
    """Return the shards of a dataset of usk. Raise SourceError if one is missing or has another number of rows than its plan."""
    import pyarrow.parquet as pq

    files = [path / name for name in manifest.shards]
    n_missing = sum(not file.is_file() for file in files)
    if n_missing or not files:
        what = (
            f"{n_missing} of {len(files)} shards are missing"
            if files
            else "not all of its clips are made yet"
        )
        message = f"{location} is unfinished: {what}; run the same `usk synth` again and it goes on where it stopped"
        raise SourceError(message)
    for file, shard in zip(files, manifest.shards.values(), strict=True):
        try:
            n_rows = pq.ParquetFile(file).metadata.num_rows
        except (OSError, ValueError) as error:
            message = f"{location}: {file.name} is damaged; delete it and run the same `usk synth` again"
            raise SourceError(message) from error
        if n_rows != shard.rows:
            message = f"{location}: {file.name} has {n_rows} rows where its plan has {shard.rows}; delete it and run `usk synth` again"
            raise SourceError(message)
    return files


def _compare_hashes(manifest: Manifest, digests: Sequence[str], location: str) -> None:
    """Raise SourceError if a shard's hash is not the one in the manifest."""
    pairs = zip(manifest.shards.items(), digests, strict=True)
    changed = [name for (name, shard), digest in pairs if shard.sha256 and digest != shard.sha256]
    if changed:
        message = f"{location}: {abbreviate_list(changed)}: damaged or changed after it was made, since the hash is not the one in {MANIFEST_FILE}"
        raise SourceError(message, hint="Download it again, or delete it and run the same `usk synth` again.")


def _add_manifest(source: Source, manifest: Manifest, card_license: str | None) -> Source:
    """Add what the manifest of a dataset of usk records: license, and the training clips of its generator and filters."""
    filters = manifest.clip_filter.trained_on if manifest.clip_filter is not None else ()
    return replace(
        source,
        kind=manifest.kind,
        license=one_license([manifest.license, *([card_license] if card_license else [])]),
        generator_trained_on=tuple(
            TrainingClips(frozenset(part.groups), frozenset(part.sounds), complete=not part.is_incomplete)
            for part in manifest.trained_on
        ),
        filters_trained_on={
            part.folds: TrainingClips(frozenset(part.groups), frozenset(part.sounds)) for part in filters
        },
    )


def _split_notes(names: Sequence[str]) -> tuple[str, ...]:
    splits = dict.fromkeys(names)
    note = f"its splits {', '.join(splits)} are read as one, and folds say what is tested"
    return (note,) if len(splits) > 1 else ()


def _set_license(source: Source, *stated: str | None) -> Source:
    """Set the license of a dataset from elsewhere: the strictest that its card and features state. UrbanSound8K's is known."""
    known = "CC BY-NC 3.0" if source.name == "urbansound8k" else None
    names = [name for name in (known, *stated) if name]
    return replace(source, license=one_license(names)) if names else source


def open_saved_dataset(path: Path, location: str, skip_bad: bool, columns: Columns) -> Source:
    """Open a folder that `datasets` wrote with `save_to_disk`."""
    import datasets

    try:
        loaded = datasets.load_from_disk(str(path))
    except IndexError as error:  # `datasets` raises it if there are no tables
        raise SourceError(f"{location} holds no clips") from error
    except (OSError, ValueError) as error:
        message = f"{location} is not a complete `save_to_disk` dataset: {first_line(error)}"
        raise SourceError(message) from error
    revision, cache_key, _ = fingerprint_files(sorted(path.rglob("*.arrow")), path)
    name = path.resolve().name
    opened = Source(name, "saved Hugging Face dataset", location, revision, cache_key, (), (), ())
    source = _from_dataset(loaded, opened, columns, path)
    parts = list(loaded.values()) if isinstance(loaded, dict) else [loaded]
    return _set_license(source, license_of_card(path), *(str(part.info.license or "") for part in parts))


def open_hub(location: str, columns: Columns, field: str = "real") -> Source:
    """Open a dataset on the Hub at its current commit, or at `user/name@revision`."""
    import datasets

    hub_id, _, revision = location.partition("@")
    subject = f"the Hub dataset {hub_id}"
    instead = "name a local folder"
    if field == "real":
        instead += " (or set $USK_REAL), or try `usk demo`"
    pinned = pin(location, "dataset", subject, instead, SourceError)
    cache_key = f"hub-{pinned.commit}"
    if MANIFEST_FILE in pinned.files:  # made by usk
        source = open_parquet(pinned.download(OWN_FILES), location, False, columns)
        return replace(source, name=hub_id, revision=pinned.commit, cache_key=cache_key, hub_id=hub_id)
    try:
        with hub_errors(subject, instead, SourceError, revision), audio_left_encoded():
            loaded = retried(lambda: datasets.load_dataset(hub_id, revision=pinned.commit))
    except (datasets.exceptions.DatasetsError, RuntimeError, ValueError) as error:
        # It has a loading script, files of no known format, or shards that do not fit together.
        innermost = list(causes(error))[-1]  # the outer errors of `datasets` say nothing
        raise SourceError(f"{subject} cannot be loaded as a data set: {first_line(innermost)}") from error
    name = "urbansound8k" if hub_id.lower().endswith("/urbansound8k") else hub_id
    opened = Source(name, "Hub dataset", location, pinned.commit, cache_key, (), (), (), hub_id=hub_id)
    source = _from_dataset(loaded, opened, columns, cache_folder(hub_id, "dataset"))
    has_card = "README.md" in pinned.files
    return _set_license(source, license_of_card(pinned.download(["README.md"])) if has_card else None)


@contextmanager
def audio_left_encoded() -> Iterator[None]:
    """Let `datasets` build datasets of encoded audio without torchcodec, which it requires although it decodes nothing here."""
    import datasets

    encode_samples = datasets.Audio.encode_example

    def encode_example(self: Any, value: Any) -> Any:
        if isinstance(value, (str, Path)):
            return {"bytes": None, "path": str(value)}
        if isinstance(value, (bytes, bytearray)):
            return {"bytes": bytes(value), "path": None}
        if isinstance(value, dict) and "array" not in value and value.keys() & {"bytes", "path"}:
            return {"bytes": value.get("bytes"), "path": value.get("path")}
        return encode_samples(self, value)

    datasets.Audio.encode_example = encode_example
    try:
        yield
    finally:
        datasets.Audio.encode_example = encode_samples


def _from_dataset(loaded: Any, opened: Source, columns: Columns, folder: Path) -> Source:
    """Add the rows of a dataset, or of all splits of one, in `folder` to the source `opened`, which has no audio yet."""
    import datasets

    location, notes = opened.location, opened.notes
    splits: list[str] = []
    if isinstance(loaded, dict):
        splits = [str(name) for name, part in loaded.items() for _ in range(len(part))]
        notes = _split_notes(list(map(str, loaded)))
        try:
            loaded = datasets.concatenate_datasets(list(loaded.values()))
        except (ValueError, TypeError) as error:
            raise SourceError(
                f"{location}: its splits {', '.join(map(str, loaded))} have different columns and cannot be read as one "
                f"({first_line(error)}); save the one that you want by itself (save_to_disk) and name that folder"
            ) from error
    if not len(loaded):
        raise SourceError(f"{location} holds no clips")
    loaded = loaded.with_format(None)  # a saved format may hide columns
    features = dict(loaded.features)
    audio_column = _audio_column(features, location, columns.audio)
    if isinstance(features[audio_column], datasets.Audio):
        loaded = loaded.cast_column(audio_column, datasets.Audio(decode=False))
    data = loaded.remove_columns([audio_column]).to_dict()
    if len(set(splits)) > 1:
        data.setdefault("split", splits)  # the user can name it as the column of folds
    only_audio = loaded.select_columns([audio_column])
    audio = tuple(DatasetRef(only_audio, row, audio_column, folder) for row in range(len(loaded)))
    return from_columns(data, features, replace(opened, audio=audio, notes=notes), columns)


def _audio_column(features: dict[str, Any], location: str, given: str | None) -> str:
    """Return the column that the user named, or the first one of type Audio, or of encoded or decoded audio."""
    from datasets import Audio

    if given is not None:
        return require_column(given, features, location, "audio_column")
    audio = [name for name, feature in features.items() if isinstance(feature, Audio)]
    structs = [
        name
        for name, feature in features.items()
        if isinstance(feature, dict) and feature.keys() & {"bytes", "array"}
    ]
    for name in (*audio, *structs):
        return name
    raise SourceError(f"{location} has no audio column; its columns are {', '.join(features)}")
