"""Runs as they are compared: what `run.json` and `predictions.parquet` of a run folder say, checked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from usk.data.train_subset import SUBSET_NAME
from usk.errors import SourceError
from usk.evaluate import metrics
from usk.files import visible_files

FORMAT = 1
RECIPE = ("learning_rate", "batch", "classifier_revision", "recipe", "augmentations")
_COLUMNS = ("clip_id", "group", "label", "predicted", "probabilities")


FEW_CLIPS = 10  # that may well be of one class to a classifier


@dataclass(frozen=True)
class MadeBy:
    """What made the synthetic clips of one part of a mix; `name` is without the few train_clips that they were made for."""

    name: str
    strategies: tuple[str, ...]
    generators: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class RunRecord:
    """One trained classifier: what it trained on, and what it said of each test clip, sorted by clip id."""

    folder: Path
    mix: str
    classifier: str
    protocol: str
    split: str
    fold: int | None
    seed: int
    augment: str
    optimistic: bool
    class_names: tuple[str, ...]
    n_real: int
    n_synthetic: int
    dropped: int  # synthetic clips left out because they would leak
    epochs: int
    steps: int
    best_epoch: int | None
    data: str  # fingerprint of the real source: the same for all its splits
    data_name: str  # what that source is called; empty in runs that do not say
    created: datetime
    train_clips: int | None  # real clips in all that training was cut to; None: the whole training part
    validation_accuracy: float | None  # that chose the epoch, a fraction; None without, or of an old run
    recipe: tuple[
        Any, ...
    ]  # the entries `RECIPE` of run.json: what runs must share beyond what their title says
    precision: str | None
    caveats: tuple[str, ...]  # what its figures must be read with: leaks that nothing can rule out
    datasets: frozenset[
        tuple[str, str]
    ]  # that it trained on: name and revision; few train_clips have one by split and seed
    made_by: tuple[MadeBy, ...]  # of each part with synthetic clips; empty in runs that do not say
    clip_ids: np.ndarray = field(repr=False)  # str [clips]
    groups: np.ndarray = field(repr=False)  # str [clips]
    labels: np.ndarray = field(repr=False)  # int64 [clips]
    predicted: np.ndarray = field(repr=False)  # int64 [clips]
    probabilities: np.ndarray = field(repr=False)  # float32 [clips, classes]

    @property
    def key(self) -> tuple[str, int]:
        """What two runs must share to be a pair."""
        return self.split, self.seed

    @property
    def revisions(self) -> frozenset[str]:
        """Of its datasets."""
        return frozenset(revision for _, revision in self.datasets)

    @property
    def real_revision(self) -> str | None:
        """Which content its real clips had, those that test among them; None in a run that does not say."""
        return dict(self.datasets).get("real")

    @property
    def correct(self) -> np.ndarray:
        """bool [clips]."""
        return self.labels == self.predicted

    @property
    def learnt_nothing(self) -> bool:
        """Whether it takes all test clips, which are of several classes and not just a few, for one: a training that failed."""
        told_apart = len(set(self.labels.tolist())) > 1 and len(self.labels) >= FEW_CLIPS
        return told_apart and len(set(self.predicted.tolist())) == 1

    @property
    def accuracy(self) -> float:
        return metrics.accuracy(self.labels, self.predicted)

    @property
    def macro_f1(self) -> float:
        return metrics.macro_f1(self.labels, self.predicted, len(self.class_names))


def read_runs(folder: str | Path) -> list[RunRecord]:
    """Every run under `folder` (itself, or at any depth), oldest first; hidden ones are left out.

    Raises SourceError where there is none, and for a run that is damaged or half written.
    """
    found = run_folders(Path(folder))
    if not found:
        raise SourceError(f"no runs under {folder}; train some with `usk train`")
    return sorted(map(read_run, found), key=lambda run: (run.created, str(run.folder)))


def run_folders(root: Path) -> list[Path]:
    """The folders of runs at any depth below `root`, and itself where it is one, but for those in hidden folders."""
    return [file.parent for file in visible_files(root) if file.name == "run.json"]


def read_run(folder: str | Path) -> RunRecord:
    """One run folder; SourceError, in one line with the fix, where it is damaged."""
    folder = Path(folder)
    try:
        config = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _damaged(folder, "run.json cannot be read") from error
    if not isinstance(config, dict) or "format" not in config:
        raise _damaged(folder, "run.json is not a run's")
    if config["format"] != FORMAT:
        raise SourceError(
            f"{folder}: run of format {config['format']!r}, this usk reads format {FORMAT}; "
            "update usk, or move the run elsewhere"
        )
    try:
        settings = _settings(config)
    except KeyError as error:
        raise _damaged(folder, f"run.json lacks {error.args[0]}") from error
    except (AttributeError, TypeError, ValueError) as error:
        raise _damaged(folder, f"run.json holds a wrong value ({error})") from error
    return RunRecord(folder=folder, **settings, **_predictions(folder, len(settings["class_names"])))


def _damaged(folder: Path, what: str) -> SourceError:
    return SourceError(f"{folder}: damaged or half-written run, {what}; delete it and train it again")


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a RunRecord that run.json holds."""
    created = datetime.fromisoformat(config["created"])
    texts = ("mix", "classifier", "protocol", "split", "augment", "data")
    numbers = ("seed", "n_real", "n_synthetic", "dropped", "epochs", "steps")
    optional = ("fold", "best_epoch", "train_clips")
    return {
        **{name: str(config[name]) for name in texts},
        **{name: int(config[name]) for name in numbers},
        **{name: None if config.get(name) is None else int(config[name]) for name in optional},
        "validation_accuracy": _optional_float(config.get("validation_accuracy")),
        "data_name": str(config.get("sources", {}).get("real", {}).get("name", "")),
        "recipe": tuple(config.get(name) for name in RECIPE),
        "precision": config.get("precision"),
        "caveats": tuple(str(sentence) for name in ("leaks", "caveats") for sentence in config.get(name, ())),
        "datasets": frozenset(
            (str(name), str(part["revision"]))
            for name, part in config.get("sources", {}).items()
            if part.get("revision")
        ),
        "made_by": tuple(
            MadeBy(
                _without_subset(str(name)),
                tuple(map(str, part.get("strategies", ()))),
                tuple(map(str, part.get("models", ()))),
            )
            for name, part in sorted(config.get("inputs", {}).items())
            if part.get("trained") and part.get("strategies")
        ),
        "optimistic": bool(config["optimistic"]),
        "class_names": tuple(str(name) for name in config["class_names"]),
        "created": created if created.tzinfo else created.replace(tzinfo=UTC),
    }


def _without_subset(name: str) -> str:
    """A part's name without the few train_clips that it was made for: `few` of `few/50-train_clips-fold1-seed0`."""
    folder, slash, last = name.rpartition("/")
    return folder if slash and SUBSET_NAME.fullmatch(last) else name


def _optional_float(value: Any) -> float | None:
    return None if value is None else float(value)


def _predictions(folder: Path, n_classes: int) -> dict[str, Any]:
    """The arrays of a RunRecord, checked, in the order of their clip ids."""
    import pyarrow
    import pyarrow.parquet

    path = folder / "predictions.parquet"
    if not path.is_file():
        raise _damaged(folder, "predictions.parquet is missing")
    try:
        table = pyarrow.parquet.read_table(path, columns=list(_COLUMNS), partitioning=None)
    except (OSError, pyarrow.ArrowException) as error:
        raise _damaged(folder, "predictions.parquet cannot be read") from error
    missing = [name for name in _COLUMNS if name not in table.column_names]
    if missing:
        raise _damaged(folder, f"predictions.parquet lacks the column {missing[0]}")
    if table.num_rows == 0 or any(table[name].null_count for name in _COLUMNS):
        raise _damaged(folder, "predictions.parquet has no rows or empty subsets")
    rows = table.sort_by("clip_id")
    clip_ids = np.array(rows["clip_id"].to_pylist(), dtype=str)
    try:
        labels, predicted = (rows[name].cast("int64").to_numpy() for name in ("label", "predicted"))
        probabilities = np.array(rows["probabilities"].to_pylist(), dtype=np.float32)
    except (TypeError, ValueError, pyarrow.ArrowException) as error:
        raise _damaged(folder, "predictions.parquet holds values of a wrong kind") from error
    if len(np.unique(clip_ids)) != len(clip_ids):
        raise _damaged(folder, "predictions.parquet has a clip twice")
    if min(labels.min(), predicted.min()) < 0 or max(labels.max(), predicted.max()) >= n_classes:
        raise _damaged(folder, f"predictions.parquet names a class beyond the {n_classes} in run.json")
    if probabilities.shape != (len(clip_ids), n_classes):
        raise _damaged(folder, f"predictions.parquet does not hold {n_classes} probabilities a clip")
    return {
        "clip_ids": clip_ids,
        "groups": np.array(rows["group"].to_pylist(), dtype=str),
        "labels": labels,
        "predicted": predicted,
        "probabilities": probabilities,
    }
