"""The folder of a synthetic dataset: its manifest and plan, shards written whole or not at all, and its card.

DIR/usk.json                        what was asked for, the shards and their rows, at the end their hashes
DIR/plan.jsonl                      every clip to make
DIR/data/train-00000-of-00016.parquet   clips with audio and provenance
DIR/rejected/                       with a clip_filter: the clips that it did not keep, a configuration of their own
DIR/README.md                       the dataset card, written last
DIR/.work/                          parents' latents, clip_filters and clips to be judged; gone at the end
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from usk.data.parquet import MANIFEST_FILE
from usk.errors import UsageError, disk_errors
from usk.files import atomic_write, exclusive_lock, require_own_folder
from usk.synth.plan import Plan

PLAN_FILE = "plan.jsonl"
WORK_FOLDER = ".work"
SHARD_HASHES = "shards_sha256"
ASKED = "asked"  # in the manifest: which clips of the source were asked for; the plan says what came of it
# In a manifest beside the settings: the plan, what has been made of it, and what an older usk did not note.
NOT_COMPARED = frozenset(
    {"plan_sha256", "shards", "rejected", SHARD_HASHES, ASKED, "unconditioned", "recordings_of_several_folds"}
)
FORMAT = 1
# What of `usk synth` says what stands in a manifest; what stands in its "render" has its own, or comes from the preset.
OPTION_OF = {
    "source": "--real",
    **dict.fromkeys(("model", "trained_on", "mel", "sample_rate_hz", "unconditioned"), "--model"),
    "plan_seed": "--seed",
    "n_parents": "--parents",
    **dict.fromkeys(("condition_on_class", "crop", "repeat_short", "griffin_lim_iterations"), "--quality"),
}


def dataset_features(class_names: Sequence[str], sample_rate_hz: int, judged: bool = False) -> Any:
    """The columns of a synthetic dataset as `datasets.Features`; those of a judged one say what its clip_filter has heard."""
    from datasets import Audio, ClassLabel, Features, List, Value

    return Features(
        {
            "clip_id": Value("string"),
            "audio": Audio(sampling_rate=sample_rate_hz),
            "label": ClassLabel(names=list(class_names)),
            "group": Value("string"),
            "fold": Value("int64"),
            "parents": List(Value("string")),
            "parent_groups": List(Value("string")),
            "parent_folds": List(Value("int64")),
            "strategy": Value("string"),
            "alpha": Value("float64"),
            "weights": List(Value("float64")),
            "seed": Value("int64"),
            "steps": Value("int64"),
            "model": Value("string"),
            "gain_db": Value("float64"),
            "filter_score": Value("float64"),
            **({"filter_folds": List(Value("int64"))} if judged else {}),
        }
    )


def encode_flac(audio: np.ndarray, sample_rate_hz: int) -> bytes:
    """Mono float [n] in [-1, 1] as 16-bit FLAC."""
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, audio, sample_rate_hz, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class ShardSpan:
    """One shard: its file in the folder, and its rows of the plan."""

    name: str
    begin: int
    end: int


def kept_of(plan: Plan, manifest: dict[str, Any], folder: Path) -> Plan:
    """The clips of a plan that its finished dataset has: all of them, or those that its clip_filter kept."""
    import pyarrow.parquet as pq

    if "clip_filter" not in manifest:
        return plan
    kept = {
        clip_id
        for name in manifest["shards"]
        for clip_id in pq.read_table(folder / name, columns=["clip_id"], partitioning=None)[0].to_pylist()
    }
    return replace(plan, clips=tuple(clip for clip in plan.clips if clip.clip_id in kept))


class DatasetFolder:
    """A dataset folder being filled: claim it, write the shards that are missing, finish it."""

    def __init__(
        self, folder: Path, plan: Plan, settings: dict[str, Any], sample_rate_hz: int, rows_per_shard: int
    ) -> None:
        """Args: `settings` is all that decides the result beside the plan; JSON-safe."""
        self.folder, self.plan, self.sample_rate_hz = folder, plan, sample_rate_hz
        n_shards = max(1, -(-len(plan) // rows_per_shard))
        self.shards = [
            ShardSpan(
                f"data/train-{index:05d}-of-{n_shards:05d}.parquet",
                index * rows_per_shard,
                min((index + 1) * rows_per_shard, len(plan)),
            )
            for index in range(n_shards)
        ]
        self.manifest = {
            "format": FORMAT,
            "kind": "synthetic dataset",
            "plan_sha256": plan.sha256,
            "class_names": list(plan.class_names),
            **json.loads(json.dumps(settings)),
            "shards": {shard.name: shard.end - shard.begin for shard in self.shards},
        }

    @property
    def work(self) -> Path:
        return self.folder / WORK_FOLDER

    def claim(self) -> None:
        """Take the folder for this plan. One that holds another plan, or anything else, is refused untouched."""
        manifest_path = self.folder / MANIFEST_FILE
        require_own_folder(self.folder, MANIFEST_FILE)
        with disk_errors(self.folder):
            if manifest_path.is_file():
                self._compare(manifest_path)
            self.folder.mkdir(parents=True, exist_ok=True)
        with exclusive_lock(self.folder, "usk synth"), disk_errors(self.folder):
            if not manifest_path.is_file():  # first of all: killed from here on, the folder is known as ours
                atomic_write(manifest_path, (json.dumps(self.manifest, indent=1) + "\n").encode())
            (self.folder / "data").mkdir(exist_ok=True)
            self.work.mkdir(exist_ok=True)
            if not (self.folder / PLAN_FILE).is_file():
                atomic_write(self.folder / PLAN_FILE, self.plan.as_jsonl().encode())

    def _compare(self, manifest_path: Path) -> None:
        try:
            there = json.loads(manifest_path.read_text(encoding="utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise UsageError(f"{manifest_path} is damaged; choose a new folder with --out") from error
        if not isinstance(there, dict):
            raise UsageError(f"{manifest_path} is damaged; choose a new folder with --out")
        differing = {
            key for key in {*there, *self.manifest} - NOT_COMPARED if there.get(key) != self.manifest.get(key)
        }
        if there.get("plan_sha256") != self.manifest["plan_sha256"] or differing:
            options = ", ".join(self._options(there, differing))
            raise UsageError(
                f"--out {self.folder} holds clips of another plan (another {options}); choose a new folder, or delete this one"
            )
        self._check_shards(there)

    def _options(self, there: dict[str, Any], differing: set[str]) -> list[str]:
        """The options in which the manifest that is there differs from this one."""
        parts = {key: (there.get(key), self.manifest.get(key)) for key in differing or {ASKED}}
        names: list[str] = []
        for key, (old, new) in parts.items():
            if isinstance(old, dict) and isinstance(new, dict) and key in (ASKED, "render"):
                names += [name for name in {*old, *new} if old.get(name) != new.get(name)]
            elif key != ASKED:  # of which an older usk kept no record
                names.append(key)
        found = {OPTION_OF.get(name, f"--{name.replace('_', '-')}") for name in names}
        return sorted(found) or ["--per-class"]

    def _check_shards(self, there: dict[str, Any]) -> None:
        """Shards that an earlier call left must be whole, and what was made: nothing is built on others."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        hashes = there.get(SHARD_HASHES, {})
        rows = {shard.name: shard.end - shard.begin for shard in self.shards}
        rows |= there.get("shards", {}) | there.get("rejected", {})
        for name, n_rows in rows.items():
            file = self.folder / name
            if not file.is_file():
                continue
            if name in hashes:
                whole = file_sha256(file) == hashes[name]
            else:  # of an unfinished dataset
                try:
                    whole = pq.read_metadata(file).num_rows == n_rows
                except (pa.ArrowException, OSError):
                    whole = False
            if not whole:
                raise UsageError(
                    f"--out {self.folder}: {name} is damaged or was changed after it was made; delete it and run the same "
                    "`usk synth` again"
                )

    def missing(self) -> list[ShardSpan]:
        """Shards that are not there yet."""
        return [shard for shard in self.shards if not (self.folder / shard.name).is_file()]

    def n_done(self) -> int:
        return len(self.plan) - sum(shard.end - shard.begin for shard in self.missing())

    def write_shard(self, shard: ShardSpan, rows: Sequence[dict[str, Any]]) -> None:
        """Write one shard; `rows` are in the plan's order, `audio` as FLAC bytes."""
        import pyarrow as pa

        features = dataset_features(
            self.plan.class_names, self.sample_rate_hz, "clip_filter" in self.manifest
        )
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
            there = json.loads((self.folder / MANIFEST_FILE).read_text(encoding="utf-8"))
            names = [*self.manifest["shards"], *self.manifest.get("rejected", {})]
            manifest = {
                **self.manifest,
                SHARD_HASHES: {name: file_sha256(self.folder / name) for name in names},
            }
            if manifest != there:
                atomic_write(self.folder / MANIFEST_FILE, (json.dumps(manifest, indent=1) + "\n").encode())
            atomic_write(self.folder / "README.md", card.encode())
        shutil.rmtree(self.work, ignore_errors=True)


class FilteredDatasetFolder(DatasetFolder):
    """The same with a clip_filter: all clips are made and scored beside the dataset, then `settle` says which are its own.

    Until then the manifest names no shards, so that nobody takes the folder for a dataset. The clips that wait are gone
    only after everything else is written: killed at any moment, the same call ends with the same files.
    """

    def __init__(
        self, folder: Path, plan: Plan, settings: dict[str, Any], sample_rate_hz: int, rows_per_shard: int
    ) -> None:
        super().__init__(folder, plan, settings, sample_rate_hz, rows_per_shard)
        self.rows_per_shard = rows_per_shard
        self.shards = [
            replace(shard, name=f"{WORK_FOLDER}/made-{index:05d}-of-{len(self.shards):05d}.parquet")
            for index, shard in enumerate(self.shards)
        ]
        self.manifest |= {"shards": {}, "rejected": {}}

    def missing(self) -> list[ShardSpan]:
        return [] if self._settled() else super().missing()

    def _settled(self) -> bool:
        """Whether the clips were divided and all of them are still there; their shards are then in the manifest."""
        there = json.loads((self.folder / MANIFEST_FILE).read_text(encoding="utf-8"))
        names = [*there["shards"], *there["rejected"]]
        if not there["shards"] or not all((self.folder / name).is_file() for name in names):
            return False
        self.manifest |= {"shards": there["shards"], "rejected": there["rejected"]}
        return True

    def scores(self) -> dict[str, float]:
        """The score of every clip that was made, by its id."""
        import pyarrow.parquet as pq

        names = [shard.name for shard in self.shards]
        if self._settled():
            names = [*self.manifest["shards"], *self.manifest["rejected"]]
        found: dict[str, float] = {}
        for name in names:
            table = pq.read_table(self.folder / name, columns=["clip_id", "filter_score"], partitioning=None)
            found |= zip(*(column.to_pylist() for column in table.columns), strict=True)
        return found

    def settle(self, kept: set[str]) -> None:
        """Divide the clips into the dataset's (`kept`, by id) and the rejected ones."""
        if self._settled():
            return
        everything = {clip.clip_id for clip in self.plan.clips}
        shards = self._divide("data/train", kept)
        rejected = self._divide("rejected/rejected", everything - kept)
        self.manifest |= {"shards": shards, "rejected": rejected}
        with disk_errors(self.folder):
            atomic_write(self.folder / MANIFEST_FILE, (json.dumps(self.manifest, indent=1) + "\n").encode())

    def _divide(self, prefix: str, members: set[str]) -> dict[str, int]:
        """Shards `prefix`-00000-of-... with the clips whose ids are `members`, in the plan's order: rows by name."""
        import pyarrow as pa
        import pyarrow.compute as pc
        import pyarrow.parquet as pq

        n_shards = -(-len(members) // self.rows_per_shard)
        written: dict[str, int] = {}
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
                written[name] = len(part)
                waiting = waiting.slice(self.rows_per_shard)
        return written
