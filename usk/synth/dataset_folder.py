"""The folder of a synthetic dataset: its manifest and plan, shards written whole or not at all, and its card.

DIR/usk.json                        what the clips are made of and with, the shards and their rows, at the end their hashes
DIR/plan.jsonl                      every clip to make
DIR/data/train-00000-of-00016.parquet   clips with audio and provenance
DIR/rejected/                       with a classifier filter: the clips that it rejected, a configuration of their own
DIR/README.md                       the dataset card, written last
DIR/.work/                          parents' latents, classifiers, and clips to be filtered; gone at the end
"""

from __future__ import annotations

import io
import shutil
import typing
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import file_digest
from pathlib import Path
from typing import Any

import numpy as np

from usk.data.clip import Provenance
from usk.errors import UsageError, disk_errors
from usk.files import PARTIAL, atomic_write, exclusive_lock, require_own_folder
from usk.manifest import MANIFEST_FILE, Manifest, Shard, find_manifest, write_manifest
from usk.synth.plan import Plan

PLAN_FILE = "plan.jsonl"
WORK_FOLDER = ".work"


def dataset_features(class_names: Sequence[str], sample_rate_hz: int, filtered: bool = False) -> Any:
    """The columns of a synthetic dataset as `datasets.Features`; those of a filtered one say which classifier scored a clip."""
    from datasets import Audio, ClassLabel, Features, List, Value

    kinds = {str: Value("string"), int: Value("int64"), float: Value("float64")}
    provenance = {}
    for name, hint in typing.get_type_hints(
        Provenance
    ).items():  # a type, a tuple of one, or one that may be missing
        kind = kinds[(typing.get_args(hint) or (hint,))[0]]
        provenance[name] = List(kind) if typing.get_origin(hint) is tuple else kind
    if not filtered:
        del provenance["filter_folds"]
    return Features(
        {
            "clip_id": Value("string"),
            "audio": Audio(sampling_rate=sample_rate_hz),
            "label": ClassLabel(names=list(class_names)),
            "group": Value("string"),
            "fold": Value("int64"),
            **provenance,
        }
    )


def encode_flac(audio: np.ndarray, sample_rate_hz: int) -> bytes:
    """Mono float [n] in [-1, 1] as 16-bit FLAC."""
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, audio, sample_rate_hz, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class ShardSpan:
    """One shard: its file in the folder, and its rows of the plan."""

    name: str
    begin: int
    end: int


def kept_plan(plan: Plan, manifest: Manifest, folder: Path) -> Plan:
    """The clips of a plan that its finished dataset has: all of them, or those that the classifier filter kept."""
    import pyarrow.parquet as pq

    if manifest.clip_filter is None:
        return plan
    kept = {
        clip_id
        for name in manifest.shards
        for clip_id in pq.read_table(folder / name, columns=["clip_id"], partitioning=None)[0].to_pylist()
    }
    return plan.only(kept)


class DatasetFolder:
    """A dataset folder being filled: claim it, write the shards that are missing, finish it."""

    def __init__(self, folder: Path, plan: Plan, manifest: Manifest, rows_per_shard: int) -> None:
        """Args: `manifest` may leave its shards out: they follow from the plan."""
        self.folder, self.plan, self.rows_per_shard = folder, plan, rows_per_shard
        n_shards = max(1, -(-len(plan) // rows_per_shard))
        starts = [index * rows_per_shard for index in range(n_shards)]
        self.shards = [
            ShardSpan(self._shard_name(index, n_shards), start, min(start + rows_per_shard, len(plan)))
            for index, start in enumerate(starts)
        ]
        self.manifest = replace(manifest, shards=self._named_at_first())

    def _shard_name(self, index: int, n_shards: int) -> str:
        return f"data/train-{index:05d}-of-{n_shards:05d}.parquet"

    def _named_at_first(self) -> dict[str, Shard]:
        """The shards that the manifest names before any is written."""
        return self._planned_shards()

    def _planned_shards(self) -> dict[str, Shard]:
        return {shard.name: Shard(shard.end - shard.begin) for shard in self.shards}

    @property
    def work(self) -> Path:
        return self.folder / WORK_FOLDER

    @contextmanager
    def claim(self) -> Iterator[None]:
        """Keep the folder for this plan and this process. One that holds another plan, or anything else, is refused
        untouched."""
        require_own_folder(self.folder, MANIFEST_FILE)
        with disk_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        with exclusive_lock(self.folder, "usk synth"):
            with disk_errors(self.folder):
                there = find_manifest(self.folder, UsageError)
                if there is None:  # first of all: killed from here on, the folder is known as ours
                    write_manifest(self.folder, self.manifest)
                else:
                    self._resume(there)
                (self.folder / "data").mkdir(exist_ok=True)
                self.work.mkdir(exist_ok=True)
                for left in self.folder.glob(f"*/{PARTIAL.format('*')}"):  # by a kill
                    left.unlink(missing_ok=True)
                if not (self.folder / PLAN_FILE).is_file():
                    atomic_write(self.folder / PLAN_FILE, self.plan.lines())
            yield

    def _resume(self, there: Manifest) -> None:
        """Go on with what an earlier call left. Raises UsageError where it was of another plan, or is damaged."""
        if differing := self.manifest.differences(there):
            raise UsageError(
                f"holds clips of another plan (another {', '.join(differing).replace('_', ' ')})",
                field="out",
                value=self.folder,
                hint="Choose a new folder, or delete this one.",
            )
        self.manifest = there
        for name, shard in {**self._planned_shards(), **there.all_shards}.items():
            if (file := self.folder / name).is_file() and not _is_whole(file, shard):
                raise UsageError(
                    f"{name} is damaged or was changed after it was made",
                    field="out",
                    value=self.folder,
                    hint="Delete it and run the same `usk synth` again.",
                )

    def missing(self) -> list[ShardSpan]:
        """Shards that are not there yet."""
        return [shard for shard in self.shards if not (self.folder / shard.name).is_file()]

    def n_done(self) -> int:
        return len(self.plan) - sum(shard.end - shard.begin for shard in self.missing())

    def write_shard(self, shard: ShardSpan, rows: Sequence[dict[str, Any]]) -> None:
        """Write one shard; `rows` are in the plan's order, `audio` as FLAC bytes."""
        import pyarrow as pa

        filtered = self.manifest.clip_filter is not None
        features = dataset_features(self.plan.class_names, self.manifest.sample_rate_hz, filtered)
        self.write_table(shard.name, pa.Table.from_pylist(list(rows), schema=features.arrow_schema))

    def write_table(self, name: str, table: Any) -> None:
        import pyarrow.parquet as pq

        buffer = io.BytesIO()
        pq.write_table(table, buffer, compression="zstd")
        with disk_errors(self.folder):
            atomic_write(self.folder / name, buffer.getvalue())

    def finish(self, card: str) -> None:
        """Note the shards' hashes in the manifest, write the card and remove what only the rendering needed."""
        with disk_errors(self.folder):
            hashed = self.manifest.with_hashes(
                {name: _sha256(self.folder / name) for name in self.manifest.all_shards}
            )
            if hashed != self.manifest:
                write_manifest(self.folder, hashed)
            self.manifest = hashed
            atomic_write(self.folder / "README.md", card.encode())
        shutil.rmtree(self.work, ignore_errors=True)


def _is_whole(file: Path, shard: Shard) -> bool:
    """Whether a shard is what was written: by its hash in a finished dataset, else by its rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if shard.sha256:
        return _sha256(file) == shard.sha256
    try:
        return bool(pq.read_metadata(file).num_rows == shard.rows)
    except (pa.ArrowException, OSError):
        return False


class FilteredDatasetFolder(DatasetFolder):
    """The folder of a dataset with a classifier filter: clips are kept in `.work` until all are scored, then divided.

    The manifest names no shards until the clips are divided, which is how readers know that the dataset is not finished, and
    names them only after everything else is written: killed at any moment, the same call ends with the same files.
    """

    def _named_at_first(self) -> dict[str, Shard]:
        return {}

    def _shard_name(self, index: int, n_shards: int) -> str:
        return f"{WORK_FOLDER}/made-{index:05d}-of-{n_shards:05d}.parquet"

    def missing(self) -> list[ShardSpan]:
        return [] if self._is_divided() else super().missing()

    def _is_divided(self) -> bool:
        names = self.manifest.all_shards
        return bool(self.manifest.shards) and all((self.folder / name).is_file() for name in names)

    def scores(self) -> dict[str, float]:
        """The score of every clip that was made, by its id."""
        import pyarrow.parquet as pq

        made = [shard.name for shard in self.shards]
        found: dict[str, float] = {}
        for name in self.manifest.all_shards if self._is_divided() else made:
            table = pq.read_table(self.folder / name, columns=["clip_id", "filter_score"], partitioning=None)
            found |= zip(*(column.to_pylist() for column in table.columns), strict=True)
        return found

    def divide(self, kept: Collection[str]) -> None:
        """Divide the clips into the dataset's (`kept`, by id) and the rejected ones."""
        if self._is_divided():
            return
        ids = {clip.clip_id for clip in self.plan.clips}
        shards = self._write_part("data/train", ids & set(kept))
        rejected = self._write_part("rejected/rejected", ids - set(kept))
        self.manifest = replace(self.manifest, shards=shards, rejected=rejected)
        with disk_errors(self.folder):
            write_manifest(self.folder, self.manifest)

    def _write_part(self, prefix: str, members: set[str]) -> dict[str, Shard]:
        """Write shards `prefix`-00000-of-... with the clips whose ids are `members`, in the plan's order."""
        import pyarrow as pa
        import pyarrow.compute as pc
        import pyarrow.parquet as pq

        n_shards = -(-len(members) // self.rows_per_shard)
        written: dict[str, Shard] = {}
        if not n_shards:
            return written
        with disk_errors(self.folder):
            (self.folder / prefix).parent.mkdir(exist_ok=True)
        ids = pa.array(sorted(members))
        waiting: Any = None
        for shard in self.shards:
            table = pq.read_table(self.folder / shard.name, partitioning=None)
            own = table.filter(pc.is_in(table["clip_id"], value_set=ids))
            waiting = own if waiting is None else pa.concat_tables([waiting, own])
            while len(waiting) >= self.rows_per_shard or (shard is self.shards[-1] and len(waiting)):
                name = f"{prefix}-{len(written):05d}-of-{n_shards:05d}.parquet"
                part = waiting.slice(0, self.rows_per_shard).combine_chunks()
                if not (self.folder / name).is_file():  # by a run that was stopped here
                    self.write_table(name, part)
                written[name] = Shard(len(part))
                waiting = waiting.slice(self.rows_per_shard)
        return written
