"""Fill the folder of a synthetic dataset: claim it, write units until all clips are made, then assemble shards and card.

Several processes on several machines may fill one folder. A unit is a fixed part of the plan, one file, and does not depend on
the process that renders it. The manifest names no shards before all are written; readers see by this that a dataset is not
finished. A process can be killed at any moment: the same call continues the work and ends with the same files.

DIR/usk.json                        the manifest: source, generator, settings, and in the end the shards and their hashes
DIR/plan.jsonl                      all clips to make
DIR/data/train-00000-of-00016.parquet   clips with audio and provenance
DIR/rejected/                       with a classifier filter: the clips that it rejected, as a configuration of their own
DIR/README.md                       the dataset card, written last
DIR/.work/                          parents' latents, classifiers and units, deleted at the end
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import shutil
import typing
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from usk.data.cache import checked, read_checked
from usk.data.clip import Provenance
from usk.engine.part import Part, job_versions, part_number
from usk.errors import UsageError, disk_errors
from usk.files import PARTIAL, atomic_write, exclusive_lock, require_own_folder, sha256_of
from usk.manifest import MANIFEST_FILE, Manifest, Shard, find_manifest, write_manifest
from usk.reporter import Reporter
from usk.synth.plan import Plan
from usk.synth.units import WORK_FOLDER, Unit

PLAN_FILE = "plan.jsonl"
UNITS_FILE = f"{WORK_FOLDER}/units.json"
CLAIM_WAIT_S = 60.0  # how long a part waits while another part claims the folder


def dataset_features(class_names: Sequence[str], sample_rate_hz: int, filtered: bool = False) -> Any:
    """Return the columns of a synthetic dataset as `datasets.Features`. Those of a filtered one include `filter_folds`."""
    from datasets import Audio, ClassLabel, Features, List, Value

    values = {str: Value("string"), int: Value("int64"), float: Value("float64")}
    provenance = {}
    for name, hint in typing.get_type_hints(Provenance).items():
        inner, *_ = typing.get_args(hint) or (hint,)  # of `tuple[T, ...]` or `T | None`
        provenance[name] = List(values[inner]) if typing.get_origin(hint) is tuple else values[inner]
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
    """Encode mono audio, float [n] in [-1, 1], as 16-bit FLAC."""
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, audio, sample_rate_hz, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()


def kept_plan(plan: Plan, manifest: Manifest, folder: Path) -> Plan:
    """Return the plan of the clips in a finished dataset, without those that the classifier filter rejected."""
    import pyarrow.parquet as pq

    if manifest.clip_filter is None:
        return plan
    kept: set[str] = set()
    for name in manifest.shards:
        kept |= set(pq.read_table(folder / name, columns=["clip_id"], partitioning=None)[0].to_pylist())
    return plan.select(kept)


class DatasetFolder:
    """The folder of a dataset that is being made."""

    def __init__(
        self,
        folder: Path,
        plan: Plan,
        manifest: Manifest,
        rows_per_shard: int,
        units: Sequence[Unit],
        threads: int = 1,
    ) -> None:
        """`threads` is the number of torch threads of each worker. `claim` sets it to that of the first process, since the
        results depend on it."""
        self.threads, self.n_parts = threads, 1
        self.folder, self.plan, self.manifest = folder, plan, manifest
        self.rows_per_shard, self.units = rows_per_shard, units

    @property
    def work(self) -> Path:
        return self.folder / WORK_FOLDER

    # --- claim ---------------------------------------------------------------------------------------------------

    @contextmanager
    def claim(
        self, part: Part = Part(), reporter: Reporter | None = None, wait_s: float = 0
    ) -> Iterator[None]:
        """Lock the folder, and write the manifest and the plan if they are missing.

        A part waits up to `wait_s` seconds (0: `CLAIM_WAIT_S`) for other parts. Raises UsageError, and changes nothing, if the
        folder holds another plan or other files.
        """
        require_own_folder(self.folder, MANIFEST_FILE)
        with disk_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        lock_wait_s = 0 if part.is_whole else wait_s or CLAIM_WAIT_S
        with exclusive_lock(self.folder, "usk synth", lock_wait_s, reporter):
            with disk_errors(self.folder):
                existing = find_manifest(self.folder, UsageError)
                if existing is None:  # written first: it marks the folder as ours, even after a kill
                    write_manifest(self.folder, self.manifest)
                else:
                    self._resume(existing)
                plan_file = self.folder / PLAN_FILE  # where there are no locks, it may be another process's
                if not plan_file.is_file() or sha256_of(plan_file) != self.manifest.plan_sha256:
                    atomic_write(plan_file, self.plan.lines())
                for partial in self.folder.glob(f"[!.]*/{PARTIAL.format('*')}"):  # left by a kill
                    partial.unlink(missing_ok=True)
                if self.missing():
                    self._record_job(part, reporter)
            yield

    def _resume(self, existing: Manifest) -> None:
        """Check the files that an earlier call left. Raises UsageError for another plan, and for damaged files."""
        if differing := self.manifest.differences(existing):
            raise UsageError(
                f"holds clips of another plan (another {', '.join(differing).replace('_', ' ')})",
                field="out",
                value=self.folder,
                hint="Choose a new folder, or delete this one.",
            )
        self.manifest = existing
        units = {unit.file: Shard(len(unit.rows)) for unit in self.units}
        for name, shard in {**units, **self._planned_shards(), **existing.all_shards}.items():
            if (file := self.folder / name).is_file() and not _is_intact(file, shard):
                raise self._damaged(name)

    def _record_job(self, part: Part, reporter: Reporter | None) -> None:
        """Record the number of parts, the threads and the versions of the job. Raises UsageError for other versions."""
        file = self.folder / UNITS_FILE
        self.work.mkdir(exist_ok=True)
        self.n_parts, versions = part.of, job_versions()
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            earlier = json.loads(file.read_text())
            self.threads, earlier_parts = int(earlier["threads"]), earlier["parts"]
            if reporter is not None and not part.is_whole and earlier_parts not in (1, part.of):
                reporter.warn(
                    f"this is a part of {part.of}, of a job that was begun in {earlier_parts} parts"
                )
            for name, version in versions.items():
                if earlier[name] != version:
                    raise UsageError(
                        f"was begun with {name} {earlier[name]}, and here is {version}",
                        field="out",
                        value=self.folder,
                        hint="Use one version for all of it, or choose a new folder.",
                    )
        record = json.dumps({**versions, "parts": part.of, "threads": self.threads}).encode()
        if not file.is_file() or file.read_bytes() != record:
            atomic_write(file, record)

    # --- write units ---------------------------------------------------------------------------------------------

    def is_made(self, unit: Unit) -> bool:
        return (self.folder / unit.file).is_file()

    def missing(self) -> list[Unit]:
        """Return the units that are not made. Without a classifier filter, those in finished shards are not missing."""
        if self.is_assembled:
            return []
        files = [self.folder / name for name in self._planned_shards()]
        finished = {number for number, file in enumerate(files) if file.is_file()}
        return [unit for unit in self.units if unit.shard not in finished and not self.is_made(unit)]

    def describe_missing(self) -> str:
        """Return a phrase about the missing units and their parts."""
        of, missing = self.n_parts, self.missing()
        parts = sorted({part_number(unit.number, of) for unit in missing})
        whose = f", of part{'s' * (len(parts) > 1)} {', '.join(map(str, parts))} of {of}" if of > 1 else ""
        return f"{len(missing)} of {len(self.units)} units are missing{whose}"

    def n_done(self) -> int:
        return len(self.plan) - sum(len(unit.rows) for unit in self.missing())

    def write_unit(self, unit: Unit, rows: Sequence[dict[str, Any]]) -> None:
        """Write a unit. `rows` are in its order, with `audio` as FLAC bytes."""
        import pyarrow as pa

        features = dataset_features(self.plan.class_names, self.manifest.sample_rate_hz, self._is_filtered)
        if self.work.is_dir():  # otherwise another process made the unit, too, and the dataset is finished
            self._write_table(unit.file, pa.Table.from_pylist(list(rows), schema=features.arrow_schema))

    def _write_table(self, name: str, table: Any) -> None:
        import pyarrow.parquet as pq

        buffer = io.BytesIO()
        pq.write_table(table, buffer, compression="zstd")
        content = buffer.getbuffer()
        with disk_errors(self.folder):
            atomic_write(self.folder / name, checked(content) if name.startswith(WORK_FOLDER) else content)

    # --- assemble shards -----------------------------------------------------------------------------------------

    @property
    def _is_filtered(self) -> bool:
        return self.manifest.clip_filter is not None

    @property
    def is_assembled(self) -> bool:
        """Whether the manifest names shards and all of them are there."""
        return bool(self.manifest.shards) and all(
            (self.folder / name).is_file() for name in self.manifest.all_shards
        )

    def scores(self) -> dict[str, float]:
        """Return the classifier filter's score of every clip by its id."""
        files = list(self.manifest.all_shards) if self.is_assembled else [unit.file for unit in self.units]
        scores: dict[str, float] = {}
        for name in files:
            ids, values = self._read_table(name, ["clip_id", "filter_score"]).columns
            scores |= zip(ids.to_pylist(), values.to_pylist(), strict=True)
        return scores

    def assemble(self, kept_ids: Collection[str] | None = None) -> None:
        """Write the shards, and their names and hashes into the manifest.

        With a classifier filter, `kept_ids` are the ids of the clips to keep, and the other clips get shards of their own.
        """
        if not self.is_assembled:
            rejected: dict[str, Shard] = {}
            if kept_ids is None:
                shards = self._write_planned_shards()
            else:
                ids = {clip.clip_id for clip in self.plan.clips}
                shards = self._write_filtered_shards("data/train", ids & set(kept_ids))
                rejected = self._write_filtered_shards("rejected/rejected", ids - set(kept_ids))
            self.manifest = replace(self.manifest, shards=shards, rejected=rejected)
        with disk_errors(self.folder):
            hashes = {name: sha256_of(self.folder / name) for name in self.manifest.all_shards}
            hashed = self.manifest.with_hashes(hashes)
            if hashed != find_manifest(self.folder, UsageError):
                write_manifest(self.folder, hashed)
        self.manifest = hashed

    def _shard_names(self, prefix: str, n_clips: int) -> list[str]:
        n_shards = -(-n_clips // self.rows_per_shard)
        return [f"{prefix}-{index:05d}-of-{n_shards:05d}.parquet" for index in range(n_shards)]

    def _planned_shards(self) -> dict[str, Shard]:
        """Return the shards that are known before all clips are made: none with a classifier filter."""
        if self._is_filtered:
            return {}
        n_rows = Counter(unit.shard for unit in self.units for _ in unit.rows)
        names = self._shard_names("data/train", len(self.plan))
        return {name: Shard(n_rows[number]) for number, name in enumerate(names)}

    def _write_planned_shards(self) -> dict[str, Shard]:
        """Write the shards of all clips, except those that an interrupted run wrote."""
        shards = self._planned_shards()
        by_shard = itertools.groupby(self.units, key=lambda unit: unit.shard)
        for name, (_, units) in zip(shards, by_shard, strict=True):
            if not (self.folder / name).is_file():
                self._write_shard(name, self._rows_of(list(units)))
        return shards

    def _write_filtered_shards(self, prefix: str, members: set[str]) -> dict[str, Shard]:
        """Write the shards of the clips whose ids are `members`, in the plan's order."""
        import pyarrow as pa
        import pyarrow.compute as pc

        ids, names = pa.array(sorted(members), pa.string()), self._shard_names(prefix, len(members))
        written: dict[str, Shard] = {}
        pending: Any = None  # rows that do not fill a shard yet
        for number, units in itertools.groupby(self.units, key=lambda unit: unit.shard):
            table = self._rows_of(list(units))
            chosen = table.filter(pc.is_in(table["clip_id"], value_set=ids))
            pending = chosen if pending is None else pa.concat_tables([pending, chosen])
            is_last = number == self.units[-1].shard
            while len(pending) >= self.rows_per_shard or (is_last and len(pending)):
                name = names[len(written)]
                shard = pending.slice(0, self.rows_per_shard)
                if not (self.folder / name).is_file():
                    self._write_shard(name, shard)
                written[name] = Shard(len(shard))
                pending = pending.slice(self.rows_per_shard)
        return written

    def _write_shard(self, name: str, table: Any) -> None:
        with disk_errors(self.folder):
            (self.folder / name).parent.mkdir(exist_ok=True)
        self._write_table(name, table.combine_chunks())

    def _rows_of(self, units: Sequence[Unit]) -> Any:
        """Return the rows of units in the plan's order."""
        import pyarrow as pa

        tables = [self._read_table(unit.file) for unit in units]
        order = np.argsort([row for unit in units for row in unit.rows])
        return pa.concat_tables(tables).take(order)

    def _read_table(self, name: str, columns: list[str] | None = None) -> Any:
        """Return the rows of a unit or shard. Raises UsageError for a damaged unit."""
        import pyarrow.parquet as pq

        file = self.folder / name
        content = read_checked(file) if name.startswith(WORK_FOLDER) else file.read_bytes()
        if content is None:
            raise self._damaged(name)
        return pq.read_table(io.BytesIO(content), columns=columns)

    def _damaged(self, name: str) -> UsageError:
        return UsageError(
            f"{name} is damaged or was changed after it was made",
            field="out",
            value=self.folder,
            hint="Delete it and run the same `usk synth` again.",
        )

    def finish(self, card: str) -> None:
        """Write the card and delete the work folder."""
        with disk_errors(self.folder):
            atomic_write(self.folder / "README.md", card.encode())
        shutil.rmtree(self.work, ignore_errors=True)


def _is_intact(file: Path, shard: Shard) -> bool:
    """Whether a file has the hash of its shard, or before the dataset is finished, its number of rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if shard.sha256:
        return sha256_of(file) == shard.sha256
    try:
        return bool(pq.read_metadata(file).num_rows == shard.rows)
    except (pa.ArrowException, OSError):
        return False
