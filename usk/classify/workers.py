"""How many processes train the runs of a sweep, and what each of them does.

A small network leaves most of a machine idle: on a CPU one thread each for several of them does more than all threads for
one, and a GPU waits for the process that tells it what to do next.
"""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from usk.classify.config import TRANSFORMER
from usk.classify.feature_table import FeatureTable
from usk.classify.loop import TrainTask, fit_classifier, tables_of
from usk.classify.registry import preset
from usk.device import cores_allowed, memory_allowed_bytes, visible_devices
from usk.engine.local import Do, Workers
from usk.errors import UskError

WORTH_CLIPS = 2**15  # a process takes seconds to start: with fewer clips trained on in all, one is enough
WORKER_BYTES = 1_500_000_000  # of memory for each, without the tables that all share; at most half of the machine's in all
MOST_ON_A_GPU = 8
CORES_PER_GPU_PROCESS = 2
GPU_WORKER_BYTES = 4_000_000_000  # of its memory for each: CUDA itself, activations, cuDNN's workspaces
ONE_AT_A_TIME = "train one run at a time (workers 1)"


def share_cores(cores: int, runs: int, memory_bytes: float = math.inf) -> Workers:
    """As many processes as there are cores, runs and memory for; threads for each, so that they fill the cores."""
    most = max(1, int(min(cores, runs, memory_bytes / 2 / WORKER_BYTES)))
    threads = math.ceil(cores / most)
    return Workers(max(1, min(most, cores // threads)), threads)


def workers_for(
    workers: int | None,
    classifier: str,
    runs: int,
    clips_in_all: int,
    device: torch.device,
) -> Workers:
    """The processes for `runs` that train on `clips_in_all` together; `workers` as the user said, None to choose.

    Chosen is one process for a `transformers` classifier, which keeps cores or a GPU busy by itself, and for little work. All
    visible GPUs get as many, unless the device is one of them.
    """
    devices = visible_devices(device)
    if workers is not None:
        processes = max(1, min(workers, runs))
        return Workers(processes, max(1, torch.get_num_threads() // processes), devices)
    transformer = classifier.startswith(TRANSFORMER)
    if (device.type == "cpu" and transformer) or clips_in_all < WORTH_CLIPS:
        return Workers(1, torch.get_num_threads(), devices)
    cores = min(torch.get_num_threads(), cores_allowed())
    memory_bytes = memory_allowed_bytes()
    if device.type == "cpu":
        return share_cores(cores, runs, memory_bytes)
    on_gpu = 1.0 if transformer else min(MOST_ON_A_GPU, torch.cuda.mem_get_info(device)[0] / GPU_WORKER_BYTES)
    in_memory = memory_bytes / 4 / WORKER_BYTES  # CUDA takes as much again
    most = min(cores / CORES_PER_GPU_PROCESS, in_memory, on_gpu * len(devices))
    processes = max(1, int(min(runs, most)))
    return Workers(processes, max(1, cores // processes), devices)


# --- what a worker does -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fitting:
    """Trains the runs of one classifier. A unit is a task and its tables, in memory or in files."""

    classifier: str

    def __call__(self, device: str) -> Do:
        recipe, on = preset(self.classifier), torch.device(device)

        def do(unit: tuple[TrainTask, Mapping[str, Any]], say: Callable[..., None]) -> Any:
            task, kept = unit
            tables = {
                name: one if isinstance(one, FeatureTable) else _table_in(one, on)
                for name, one in kept.items()
            }
            return fit_classifier(task, recipe, tables, on, say)

        return do


def _table_in(kept: tuple[Path, np.ndarray], device: torch.device) -> FeatureTable:
    """A table of a file and labels on the device; on a CPU it is mapped into memory that all processes share."""
    file, labels = kept
    return FeatureTable(torch.from_numpy(np.load(file, mmap_mode="r")).to(device), torch.from_numpy(labels))


class Tables:
    """The tables of features that tasks need, from the first that does to the last: all, one a seed and fold, would not fit."""

    def __init__(self, table_of: Callable[[str], FeatureTable], tasks: Sequence[TrainTask]) -> None:
        """`table_of` computes the one of a source."""
        self.table_of = table_of
        self._kept: dict[str, Any] = {}
        self._waiting = Counter(name for task in tasks for name in tables_of(task))

    def of(self, task: TrainTask) -> dict[str, Any]:
        """What a worker is given for a task, by source."""
        for name in tables_of(task):
            if name not in self._kept:
                self._kept[name] = self._keep(name)
        return {name: self._kept[name] for name in tables_of(task)}

    def used(self, task: TrainTask) -> None:
        """One task less needs its tables."""
        for name in tables_of(task):
            self._waiting[name] -= 1
            if not self._waiting[name] and name in self._kept:
                self._drop(self._kept.pop(name))

    def _keep(self, name: str) -> Any:
        return self.table_of(name)

    def _drop(self, kept: Any) -> None:
        pass


class TableFiles(Tables):
    """The same as files in a folder, with the labels: for other processes."""

    def __init__(
        self, folder: Path, table_of: Callable[[str], FeatureTable], tasks: Sequence[TrainTask]
    ) -> None:
        super().__init__(table_of, tasks)
        self.folder, self.n_written = folder, 0

    def _keep(self, name: str) -> tuple[Path, np.ndarray]:
        table, path = self.table_of(name), self.folder / f"{self.n_written}.npy"
        self.n_written += 1
        try:
            with path.open("wb") as file:
                np.save(file, table.features.cpu().numpy())
        except OSError as error:  # of a short write it has no number, only words
            raise UskError(
                f"the features of the clips cannot be written to {self.folder} ({error})",
                hint=f"Free some space there, set $TMPDIR to a folder that has some, or {ONE_AT_A_TIME}.",
            ) from error
        return path, table.labels.numpy()

    def _drop(self, kept: tuple[Path, np.ndarray]) -> None:
        with contextlib.suppress(OSError):  # Windows keeps what is mapped; the folder goes in the end
            kept[0].unlink()
