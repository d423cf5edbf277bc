"""The folder of a synthetic dataset: its manifest and plan, clips kept in units until all are made, then shards and the card.

Several processes, on several machines, may fill one folder. A unit is a fixed piece of the plan, one file, and the same whoever
makes it. The manifest names no shards until all are written, which is how readers know that a dataset is not finished: killed at
any moment, the same call ends with the same files.

DIR/usk.json                        what the clips are made of and with, the shards and their rows, at the end their hashes
DIR/plan.jsonl                      every clip to make
DIR/data/train-00000-of-00016.parquet   clips with audio and provenance
DIR/rejected/                       with a classifier filter: the clips that it rejected, a configuration of their own
DIR/README.md                       the dataset card, written last
DIR/.work/                          parents' latents, classifiers, units; gone at the end
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
CLAIM_WAIT_S = 60.0  # for another part that claims the folder too


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
    """A dataset folder being filled: claim it, write the units that are missing, assemble the shards, finish it."""

    def __init__(
        self,
        folder: Path,
        plan: Plan,
        manifest: Manifest,
        rows_per_shard: int,
        units: Sequence[Unit],
        threads: int = 1,
    ) -> None:
        """`threads` are those of whoever renders; once it is claimed, those of whoever claimed it first, as results depend on them."""
        self.threads, self.n_parts = threads, 1
        self.folder, self.plan, self.manifest = folder, plan, manifest
        self.rows_per_shard, self.units = rows_per_shard, units

    @property
    def work(self) -> Path:
        return self.folder / WORK_FOLDER

    @contextmanager
    def claim(
        self, part: Part = Part(), reporter: Reporter | None = None, wait_s: float = 0
    ) -> Iterator[None]:
        """Keep the folder for this plan and, meanwhile, this process. One that holds another plan, or anything else, is refused
        untouched. A part waits for others that do the same, `wait_s` seconds if need be."""
        require_own_folder(self.folder, MANIFEST_FILE)
        with disk_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        patience_s = 0 if part.is_whole else wait_s or CLAIM_WAIT_S
        with exclusive_lock(self.folder, "usk synth", patience_s, reporter):
            with disk_errors(self.folder):
                there = find_manifest(self.folder, UsageError)
                if there is None:  # first of all: killed from here on, the folder is known as ours
                    write_manifest(self.folder, self.manifest)
                else:
                    self._resume(there)
                plan = self.folder / PLAN_FILE  # where there is no lock, another's
                if not plan.is_file() or sha256_of(plan) != self.manifest.plan_sha256:
                    atomic_write(plan, self.plan.lines())
                for left in self.folder.glob(f"[!.]*/{PARTIAL.format('*')}"):  # by a kill
                    left.unlink(missing_ok=True)
                if self.missing():
                    self._keep_units(part, reporter)
            yield

    def _keep_units(self, part: Part, reporter: Reporter | None) -> None:
        """Note in how many parts the clips are made, and with which threads and versions. Raises UsageError for other ones."""
        self.work.mkdir(exist_ok=True)
        self.n_parts, here = part.of, job_versions()
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            before = json.loads((self.folder / UNITS_FILE).read_text())
            self.threads, begun = int(before["threads"]), before["parts"]
            if reporter is not None and not part.is_whole and begun not in (1, part.of):
                reporter.warn(f"this is a part of {part.of}, of a job that was begun in {begun} parts")
            for name in (name for name in here if before[name] != here[name]):
                raise UsageError(
                    f"was begun with {name} {before[name]}, and here is {here[name]}", field="out", value=self.folder,
                    hint="Use one version for all of it, or choose a new folder.",
                )  # fmt: skip
        whole = json.dumps({**here, "parts": part.of, "threads": self.threads}).encode()
        file = self.folder / UNITS_FILE
        if not file.is_file() or file.read_bytes() != whole:
            atomic_write(file, whole)

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
        units = {unit.file: Shard(len(unit.rows)) for unit in self.units}
        for name, shard in {**units, **self._planned_shards(), **there.all_shards}.items():
            if (file := self.folder / name).is_file() and not _is_whole(file, shard):
                raise self._damaged(name)

    def _planned_shards(self) -> dict[str, Shard]:
        """The shards as far as they are known before all clips are made: with a classifier filter not at all."""
        if self._is_filtered:
            return {}
        rows = Counter(unit.shard for unit in self.units for _ in unit.rows)
        names = self._shard_names("data/train", len(self.plan))
        return {name: Shard(rows[number]) for number, name in enumerate(names)}

    def is_made(self, unit: Unit) -> bool:
        return (self.folder / unit.file).is_file()

    def missing(self) -> list[Unit]:
        """Units that are not there yet, nor, where no clips are chosen, their shards."""
        if self.is_assembled:
            return []
        files = [self.folder / name for name in self._planned_shards()]
        whole = {number for number, file in enumerate(files) if file.is_file()}
        return [unit for unit in self.units if unit.shard not in whole and not self.is_made(unit)]

    def missing_of_parts(self) -> str:
        """What is missing in words, by part."""
        of, missing = self.n_parts, self.missing()
        parts = sorted({part_number(unit.number, of) for unit in missing})
        whose = f", of part{'s' * (len(parts) > 1)} {', '.join(map(str, parts))} of {of}" if of > 1 else ""
        return f"{len(missing)} of {len(self.units)} units are missing{whose}"

    def n_done(self) -> int:
        return len(self.plan) - sum(len(unit.rows) for unit in self.missing())

    def write_unit(self, unit: Unit, rows: Sequence[dict[str, Any]]) -> None:
        """Write one unit; `rows` are in its order, `audio` as FLAC bytes."""
        import pyarrow as pa

        features = dataset_features(self.plan.class_names, self.manifest.sample_rate_hz, self._is_filtered)
        if self.work.is_dir():  # else others, given the same unit, have finished the dataset
            self.write_table(unit.file, pa.Table.from_pylist(list(rows), schema=features.arrow_schema))

    def write_table(self, name: str, table: Any) -> None:
        import pyarrow.parquet as pq

        buffer = io.BytesIO()
        pq.write_table(table, buffer, compression="zstd")
        content = buffer.getbuffer()
        with disk_errors(self.folder):
            atomic_write(self.folder / name, checked(content) if name.startswith(WORK_FOLDER) else content)

    # --- all units are there -------------------------------------------------------------------------------------

    @property
    def _is_filtered(self) -> bool:
        return self.manifest.clip_filter is not None

    @property
    def is_assembled(self) -> bool:
        """Whether the shards are written and named."""
        return bool(self.manifest.shards) and all(
            (self.folder / name).is_file() for name in self.manifest.all_shards
        )

    def scores(self) -> dict[str, float]:
        """The classifier filter's score of every clip that was made, by its id."""
        made = [unit.file for unit in self.units]
        found: dict[str, float] = {}
        for name in self.manifest.all_shards if self.is_assembled else made:
            table = self._read_whole(name, ["clip_id", "filter_score"])
            found |= zip(*(column.to_pylist() for column in table.columns), strict=True)
        return found

    def assemble(self, kept: Collection[str] | None = None) -> None:
        """Write the dataset's shards, with a classifier filter of the clips `kept` (ids) and of the rejected ones, and name them
        with their hashes in the manifest."""
        if not self.is_assembled:
            rejected: dict[str, Shard] = {}
            if kept is None:
                shards = self._write_shards("data/train", None)
            else:
                ids = {clip.clip_id for clip in self.plan.clips}
                shards = self._write_shards("data/train", ids & set(kept))
                rejected = self._write_shards("rejected/rejected", ids - set(kept))
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

    def _write_shards(self, prefix: str, members: set[str] | None) -> dict[str, Shard]:
        """Write the shards of the clips whose ids are `members` (None: all), in the plan's order."""
        import pyarrow as pa
        import pyarrow.compute as pc

        names = self._shard_names(prefix, len(self.plan) if members is None else len(members))
        written: dict[str, Shard] = {}
        if not names:
            return written
        with disk_errors(self.folder):
            (self.folder / prefix).parent.mkdir(exist_ok=True)
        ids = pa.array(sorted(members or ()))
        waiting: Any = None
        last = self.units[-1].shard
        for group, units in itertools.groupby(self.units, key=lambda unit: unit.shard):
            if members is None and (self.folder / names[group]).is_file():  # by a run that was stopped here
                written[names[group]] = Shard(sum(len(unit.rows) for unit in units))
                continue
            table = self._rows_of(list(units))
            own = table if members is None else table.filter(pc.is_in(table["clip_id"], value_set=ids))
            waiting = own if waiting is None else pa.concat_tables([waiting, own])
            while len(waiting) >= self.rows_per_shard or (group == last and len(waiting)):
                name = names[len(written)]
                shard = waiting.slice(0, self.rows_per_shard).combine_chunks()
                if not (self.folder / name).is_file():
                    self.write_table(name, shard)
                written[name] = Shard(len(shard))
                waiting = waiting.slice(self.rows_per_shard)
        return written

    def _rows_of(self, units: Sequence[Unit]) -> Any:
        """The rows of one shard's units, in the plan's order."""
        import pyarrow as pa

        tables = [self._read_whole(unit.file) for unit in units]
        order = np.argsort([row for unit in units for row in unit.rows])
        return pa.concat_tables(tables).take(order)

    def _read_whole(self, name: str, columns: list[str] | None = None) -> Any:
        """The rows of a unit or shard. Raises UsageError for a unit that is not as it was written."""
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
        """Write the card and remove what only the rendering needed."""
        with disk_errors(self.folder):
            atomic_write(self.folder / "README.md", card.encode())
        shutil.rmtree(self.work, ignore_errors=True)


def _is_whole(file: Path, shard: Shard) -> bool:
    """Whether a file is what was written: by its hash in a finished dataset, else by its rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if shard.sha256:
        return sha256_of(file) == shard.sha256
    try:
        return bool(pq.read_metadata(file).num_rows == shard.rows)
    except (pa.ArrowException, OSError):
        return False
