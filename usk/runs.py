"""Define, read and write the two result files of a run: `run.json` and the predictions for the test clips.

`RunIdentity` holds the settings and data that define a run, so that a finished run is found again. `RunRecord` adds results.
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
"""Fields in which compared runs must agree, besides those in the title of the comparison."""
FEW_CLIPS = 10  # with fewer test clips, a good classifier may well predict a single class


@dataclass(frozen=True, kw_only=True)
class RunSource:
    """One source of a run: the real clips, which it is tested on, or a part of its mix."""

    part: str  # name in the mix: `real`, `synth`, a folder, a Hub id
    subset: str = ""  # the dataset inside `part`, if that is a folder of `usk study`
    name: str  # the source's own name
    kind: str
    revision: str  # of its content; empty if not known
    hub_id: str | None
    license: str
    clips: int
    trained: bool  # False: used for testing only
    generators: tuple[str, ...] = ()
    strategies: tuple[str, ...] = ()
    urbansound8k: bool = False  # whether it has clips of UrbanSound8K, which must be cited

    @property
    def dataset(self) -> str:
        """Return the name in the mix with the subset: `few/50-train_clips-fold1-seed0`."""
        return f"{self.part}/{self.subset}" if self.subset else self.part


@dataclass(frozen=True, kw_only=True)
class RunIdentity:
    """The settings and data that define a run."""

    mix: str
    classifier: str
    classifier_revision: str  # of the pretrained checkpoint, or empty
    recipe_hash: str  # of the network and its training recipe
    protocol: str
    split: str
    fold: int | None  # the test fold; None if the protocol has no folds
    seed: int
    train_clips: int | None  # number of real training clips in all; None: the whole training part
    optimistic: bool  # the epoch was chosen on the test part
    augment: str
    augmentations: str  # the single augmentations in `augment`, joined by +
    epochs: int
    steps: int
    batch: int
    learning_rate: float
    precision: str
    real_share: float | None = None  # these three: see usk.classify.config.ClipUse
    synthetic_weight: float = 1.0
    real_last: float = 0.0
    data: str  # hash of the real clips, labels, recordings and folds; the same for all splits of a source
    class_names: tuple[str, ...]
    sources: tuple[RunSource, ...]  # `real` first

    @property
    def identity(self) -> dict[str, Any]:
        """Return the fields as plain values. Of a source only name and content count, not its location."""
        values = {field.name: getattr(self, field.name) for field in fields(RunIdentity)}
        values["sources"] = [
            (source.dataset, source.name, source.revision, source.clips) for source in self.sources
        ]
        return {"format": FORMAT, **values}

    @property
    def folder_name(self) -> str:
        """Return a unique folder name: mix, classifier, split, seed, and a hash of the identity."""
        digest = hashlib.sha256(json.dumps(self.identity, sort_keys=True).encode()).hexdigest()[:8]
        mix = re.sub(r"[^A-Za-z0-9.+-]+", "-", self.mix.replace(",", "+")).strip("-")[-60:]
        mix = mix.lstrip(".-") or "mix"  # `usk eval` ignores folders whose name begins with a dot
        classifier = re.sub(r"[^A-Za-z0-9.+-]+", "-", self.classifier)[-60:]
        return f"{mix}_{classifier}_{self.split}_seed{self.seed}_{digest}"

    @property
    def recipe(self) -> tuple[Any, ...]:
        """Return the values of the fields in `RECIPE`."""
        return tuple(getattr(self, name) for name in RECIPE)

    @property
    def real(self) -> RunSource:
        """Return the source of the real clips, which include the test clips."""
        return next(source for source in self.sources if source.part == "real")

    @property
    def datasets(self) -> frozenset[tuple[str, str]]:
        """Return the name and revision of each source with a known revision."""
        return frozenset((source.dataset, source.revision) for source in self.sources if source.revision)

    @property
    def revisions(self) -> frozenset[str]:
        return frozenset(source.revision for source in self.sources if source.revision)


@dataclass(frozen=True)
class Predictions:
    """The predictions of a run for each test clip. `read_predictions` sorts them by clip id."""

    clip_ids: np.ndarray  # str [clips]
    groups: np.ndarray  # str [clips]: recordings
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
    """Return the schema of the file. Its columns have the order of the fields of `Predictions`."""
    import pyarrow as pa

    types = (pa.string(), pa.string(), pa.int64(), pa.int64(), pa.list_(pa.float32()))
    return pa.schema(zip(("clip_id", "group", "label", "predicted", "probabilities"), types, strict=True))


@dataclass(frozen=True, kw_only=True)
class RunRecord(RunIdentity):
    """The identity and results of a finished run. Accuracies are fractions."""

    accuracy: float
    macro_f1: float
    best_epoch: int
    validation_accuracy: float | None  # at the chosen epoch; None without validation clips
    n_real: int
    n_synthetic: int
    dropped: int  # number of synthetic clips left out because they would leak
    n_validation: int
    n_test: int
    n_test_recordings: int
    leaks: tuple[str, ...]  # notes on leaks that cannot be ruled out
    caveats: tuple[str, ...]  # notes for readers of the results, including `leaks`
    license: str
    device: str
    took_s: float
    created: datetime
    folder: Path = Path()  # not in the file

    def __repr__(self) -> str:
        return f"<run {self.folder}: accuracy {100 * self.accuracy:.1f} %>"

    @property
    def key(self) -> tuple[str, int]:
        """Return the values in which the two runs of a pair agree."""
        return self.split, self.seed

    def as_dict(self) -> dict[str, Any]:
        """Return the content of run.json."""
        values = to_json(self)
        del values["folder"]
        return {"format": FORMAT, **values}

    def write(self, folder: Path) -> None:
        (folder / RUN_FILE).write_text(json.dumps(self.as_dict(), indent=1) + "\n", encoding="utf-8")

    @functools.cached_property
    def predictions(self) -> Predictions:
        """Read the predictions on first use. Raises SourceError if they are damaged."""
        return read_predictions(self.folder, len(self.class_names))

    @property
    def correct(self) -> np.ndarray:
        """Return which predictions are correct, bool [clips]."""
        return self.predictions.labels == self.predictions.predicted

    @property
    def learned_nothing(self) -> bool:
        """Whether training failed: all test clips, of several classes and not just a few, have the same prediction."""
        labels, predicted = self.predictions.labels, self.predictions.predicted
        is_conclusive = len(set(labels.tolist())) > 1 and len(labels) >= FEW_CLIPS
        return is_conclusive and len(set(predicted.tolist())) == 1


def run_folders(root: Path) -> list[Path]:
    """Return the folders of runs: `root`, and those at any depth below it, except in hidden folders."""
    return [file.parent for file in visible_files(root) if file.name == RUN_FILE]


def read_runs(folder: str | Path) -> list[RunRecord]:
    """Return all runs at or below `folder` with their predictions, oldest first. Hidden folders are left out.

    Raises SourceError if there are none, and for a damaged run.
    """
    folders = run_folders(Path(folder))
    if not folders:
        raise SourceError(f"no runs under {folder}", hint="Train some with `usk train`.")
    return sorted(map(read_run, folders), key=lambda run: (run.created, str(run.folder)))


def read_run(folder: str | Path) -> RunRecord:
    """Return one run with its predictions. Raises SourceError if either is damaged."""
    record = read_record(folder)
    _ = record.predictions
    return record


def read_record(folder: str | Path) -> RunRecord:
    """Return the record in run.json. Raises SourceError if it is damaged."""
    folder = Path(folder)
    unreadable = str(_damaged(folder, f"{RUN_FILE} cannot be read"))
    values = read_json(folder / RUN_FILE, SourceError, unreadable)
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
    """Return the record of a run, or None if there is none or it is damaged."""
    try:
        return read_record(folder)
    except SourceError:
        return None


def find_run(out: Path, identity: RunIdentity) -> RunRecord | None:
    """Return the finished run with this identity in `out`, or None."""
    return record_or_none(out / identity.folder_name)


def read_predictions(folder: Path, n_classes: int) -> Predictions:
    """Read and check the predictions of a run. Raises SourceError if they are damaged."""
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


def _damaged(folder: Path, problem: str) -> SourceError:
    message = f"{folder}: damaged or half-written run, {problem}"
    return SourceError(message, hint="Delete it and train it again.")
