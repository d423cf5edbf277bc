"""A trained classifier's record, `run.json`, and its predictions: the one definition of both files.

`RunIdentity` is all that decides a run, so that a finished one is found again; `RunRecord` adds what came of it.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from dataclasses import dataclass, fields, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from usk.errors import SourceError
from usk.files import read_json, visible_files
from usk.typed_json import from_json, to_json

RUN_FILE = "run.json"
PREDICTIONS_FILE = "predictions.parquet"
FORMAT = 2
RECIPE = ("learning_rate", "batch", "classifier_revision", "recipe_hash", "augmentations")
"""What compared runs must share beyond what their title says."""
FEW_CLIPS = 10  # that a good classifier may well take for one class


@dataclass(frozen=True, kw_only=True)
class RunSource:
    """One source of a run: the real clips, which test it, or a part of its mix."""

    part: str  # its name in the mix: `real`, `synth`, a folder, a Hub id
    subset: str = ""  # where `part` is a folder of datasets by train clips: the one that trained
    name: str  # what the source itself is called
    kind: str
    revision: str  # of its content; empty where that is not known
    hub_id: str | None
    license: str
    clips: int
    trained: bool  # False: it only tests
    generators: tuple[str, ...] = ()
    strategies: tuple[str, ...] = ()
    urbansound8k: bool = False  # whether clips of it are from UrbanSound8K, which is to be cited

    @property
    def dataset(self) -> str:
        """Its name in the mix, subset included: `few/50-train_clips-fold1-seed0`."""
        return f"{self.part}/{self.subset}" if self.subset else self.part


@dataclass(frozen=True, kw_only=True)
class RunIdentity:
    """All that decides a run."""

    mix: str
    classifier: str
    classifier_revision: str  # of the checkpoint that training began with; empty without
    recipe_hash: str  # of the network and of how it is trained
    protocol: str
    split: str
    fold: int | None  # that tests; None where the split is not by folds
    seed: int
    train_clips: int | None  # real clips in all that training was cut to; None: the whole training part
    optimistic: bool  # the epoch was chosen on the test part
    augment: str
    augmentations: str  # the single ones that `augment` stands for, joined by +
    epochs: int
    steps: int
    batch: int
    learning_rate: float
    precision: str
    real_share: float | None = None  # of each batch; None: real and synthetic clips as they come
    synthetic_weight: float = 1.0  # in the loss
    real_last: float = 0.0  # share of the steps, the last ones, on real clips alone
    data: str  # hash of the real clips, labels, recordings and folds: the same for all splits of a source
    class_names: tuple[str, ...]
    sources: tuple[RunSource, ...]  # `real` first

    @property
    def identity(self) -> dict[str, Any]:
        """All that decides the run, as plain values. A source is its name and content, wherever it was read from."""
        own = {field.name: getattr(self, field.name) for field in fields(RunIdentity)}
        own["sources"] = [
            (source.dataset, source.name, source.revision, source.clips) for source in self.sources
        ]
        return {"format": FORMAT, **own}

    @property
    def folder_name(self) -> str:
        """A name that says mix, classifier, split and seed, and differs wherever anything else does."""
        digest = hashlib.sha256(json.dumps(self.identity, sort_keys=True).encode()).hexdigest()[:8]
        mix = re.sub(r"[^A-Za-z0-9.+-]+", "-", self.mix.replace(",", "+")).strip("-")[-60:]
        mix = mix.lstrip(".-") or "mix"  # folders that begin with a dot are hidden from `usk eval`
        classifier = re.sub(r"[^A-Za-z0-9.+-]+", "-", self.classifier)[-60:]
        return f"{mix}_{classifier}_{self.split}_seed{self.seed}_{digest}"

    @property
    def recipe(self) -> tuple[Any, ...]:
        """The values of `RECIPE`."""
        return tuple(getattr(self, name) for name in RECIPE)

    @property
    def real(self) -> RunSource:
        """The source of the real clips, those that test among them."""
        return next(source for source in self.sources if source.part == "real")

    @property
    def datasets(self) -> frozenset[tuple[str, str]]:
        """Name and revision of each source."""
        return frozenset((source.dataset, source.revision) for source in self.sources if source.revision)

    @property
    def revisions(self) -> frozenset[str]:
        return frozenset(source.revision for source in self.sources if source.revision)


@dataclass(frozen=True)
class Predictions:
    """What a run says of each test clip, in the order of their ids."""

    clip_ids: np.ndarray  # str [clips]
    groups: np.ndarray  # str [clips]: their recordings
    labels: np.ndarray  # int64 [clips]
    predicted: np.ndarray  # int64 [clips]
    probabilities: np.ndarray  # float32 [clips, classes]

    def write(self, folder: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        rows = (self.clip_ids, self.groups, self.labels, self.predicted, self.probabilities)
        columns = zip(_prediction_columns(), (array.tolist() for array in rows), strict=True)
        table = {column.name: pa.array(values, column.type) for column, values in columns}
        pq.write_table(pa.table(table), folder / PREDICTIONS_FILE)


def _prediction_columns() -> Any:
    """The schema of the file, in the order of the fields of `Predictions`."""
    import pyarrow as pa

    kinds = (pa.string(), pa.string(), pa.int64(), pa.int64(), pa.list_(pa.float32()))
    return pa.schema(zip(("clip_id", "group", "label", "predicted", "probabilities"), kinds, strict=True))


@dataclass(frozen=True, kw_only=True)
class RunRecord(RunIdentity):
    """A trained classifier: what it was trained on and how, and its results. Accuracies are fractions."""

    accuracy: float
    macro_f1: float
    best_epoch: int
    validation_accuracy: float | None  # that chose the epoch; None without validation clips
    n_real: int
    n_synthetic: int
    dropped: int  # synthetic clips left out because they would leak
    n_validation: int
    n_test: int
    n_test_recordings: int
    leaks: tuple[str, ...]  # that cannot be ruled out
    caveats: tuple[str, ...]  # what the results must be read with, `leaks` included
    license: str
    device: str
    took_s: float
    created: datetime
    folder: Path = Path()  # not in the file

    @property
    def key(self) -> tuple[str, int]:
        """What two runs must share to be a pair."""
        return self.split, self.seed

    def as_dict(self) -> dict[str, Any]:
        """As run.json has it."""
        values = to_json(self)
        del values["folder"]
        return {"format": FORMAT, **values}

    def write(self, folder: Path) -> None:
        (folder / RUN_FILE).write_text(json.dumps(self.as_dict(), indent=1) + "\n", encoding="utf-8")

    @functools.cached_property
    def predictions(self) -> Predictions:
        """Read when first asked for. Raises SourceError where they are damaged."""
        return read_predictions(self.folder, len(self.class_names))

    @property
    def correct(self) -> np.ndarray:
        """bool [clips]."""
        return self.predictions.labels == self.predictions.predicted

    @property
    def learned_nothing(self) -> bool:
        """Whether it takes all test clips, which are of several classes and not just a few, for one: a training that failed."""
        labels, predicted = self.predictions.labels, self.predictions.predicted
        several = len(set(labels.tolist())) > 1 and len(labels) >= FEW_CLIPS
        return several and len(set(predicted.tolist())) == 1


# --- reading and finding ------------------------------------------------------------------------------------------


def run_folders(root: Path) -> list[Path]:
    """The folders of runs at any depth below `root`, and itself where it is one, but for those in hidden folders."""
    return [file.parent for file in visible_files(root) if file.name == RUN_FILE]


def read_runs(folder: str | Path) -> list[RunRecord]:
    """Every run under `folder` (itself, or at any depth), with its predictions, oldest first; hidden ones are left out.

    Raises SourceError where there is none, and for a run that is damaged or half written.
    """
    found = run_folders(Path(folder))
    if not found:
        raise SourceError(f"no runs under {folder}", hint="Train some with `usk train`.")
    return sorted(map(read_run, found), key=lambda run: (run.created, str(run.folder)))


def read_run(folder: str | Path) -> RunRecord:
    """One run with its predictions; SourceError, in one line with the fix, where either is damaged."""
    record = read_record(folder)
    _ = record.predictions
    return record


def read_record(folder: str | Path) -> RunRecord:
    """What run.json says; SourceError where it is damaged."""
    folder = Path(folder)
    unreadable = _damaged(folder, f"{RUN_FILE} cannot be read")
    values = read_json(folder / RUN_FILE, SourceError, str(unreadable))
    if "format" not in values:
        raise _damaged(folder, f"{RUN_FILE} is not a run's")
    if values["format"] != FORMAT:
        raise SourceError(
            f"{folder} is a run of format {str(values['format'])[:20]}, and this usk reads format {FORMAT}",
            hint="Update usk, or move the run elsewhere.",
        )
    values.pop("folder", None)
    try:
        record = from_json(RunRecord, values)
    except ValueError as error:
        raise _damaged(folder, f"{RUN_FILE}: {error}") from error
    if not any(source.part == "real" for source in record.sources):
        raise _damaged(folder, f"{RUN_FILE} does not name its real clips")
    return replace(record, folder=folder)


def record_or_none(folder: Path) -> RunRecord | None:
    """The record of a folder; None where there is none that can be read."""
    try:
        return read_record(folder)
    except SourceError:
        return None


def find_run(out: Path, identity: RunIdentity) -> RunRecord | None:
    """The finished run with this identity, if `out` has it."""
    return record_or_none(out / identity.folder_name)


def read_predictions(folder: Path, n_classes: int) -> Predictions:
    """The predictions of a run, checked; SourceError where they are damaged."""
    import pyarrow
    import pyarrow.parquet

    path = folder / PREDICTIONS_FILE
    if not path.is_file():
        raise _damaged(folder, f"{PREDICTIONS_FILE} is missing")
    columns = _prediction_columns()
    try:
        table = pyarrow.parquet.read_table(path, partitioning=None)
    except (OSError, pyarrow.ArrowException) as error:
        raise _damaged(folder, f"{PREDICTIONS_FILE} cannot be read") from error
    try:
        rows = table.select(columns.names).cast(columns).sort_by("clip_id")
        clip_ids, groups, labels, predicted = (rows[place].to_numpy() for place in range(4))
        probabilities = np.array(rows["probabilities"].to_pylist(), dtype=np.float32)
    except (KeyError, TypeError, ValueError, pyarrow.ArrowException) as error:
        raise _damaged(
            folder, f"{PREDICTIONS_FILE} lacks columns, or holds values of a wrong kind"
        ) from error
    if table.num_rows == 0 or any(column.null_count for column in rows.columns):
        raise _damaged(folder, f"{PREDICTIONS_FILE} has no rows or empty cells")
    if len(np.unique(clip_ids)) != len(clip_ids):
        raise _damaged(folder, f"{PREDICTIONS_FILE} has a clip twice")
    if min(labels.min(), predicted.min()) < 0 or max(labels.max(), predicted.max()) >= n_classes:
        raise _damaged(folder, f"{PREDICTIONS_FILE} names a class beyond the {n_classes} in {RUN_FILE}")
    if probabilities.shape != (len(clip_ids), n_classes):
        raise _damaged(folder, f"{PREDICTIONS_FILE} does not hold {n_classes} probabilities a clip")
    return Predictions(clip_ids.astype(str), groups.astype(str), labels, predicted, probabilities)


def _damaged(folder: Path, what: str) -> SourceError:
    return SourceError(f"{folder}: damaged or half-written run, {what}", hint="Delete it and train it again.")
