"""How many processes train the runs of a sweep, and what each of them does.

A small network leaves most of a machine idle: several with one thread each do more than all threads for one. The last bits of a
run depend on the number of torch's threads, so the classifier alone decides it: a run is the same on every machine.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from usk.classify.config import TRANSFORMER
from usk.classify.feature_table import FeatureTable
from usk.classify.loop import TrainTask, fit_classifier, tables_of
from usk.classify.registry import preset
from usk.device import cores_allowed, memory_allowed_bytes, visible_devices
from usk.engine.engine import RunUnit, SharedTensor, Workers

THREADS, TRANSFORMER_THREADS = 1, 8
WORTH_CLIPS = 2**14  # a process takes seconds to start: with fewer clips trained on in all, one is enough
WORKER_BYTES = 1_500_000_000  # of memory for each, without the tables that all share; at most half of the machine's in all
MOST_ON_A_GPU = 8
CORES_PER_GPU_PROCESS = 2
GPU_WORKER_BYTES = 4_000_000_000  # of its memory for each: CUDA itself, activations, cuDNN's workspaces


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
    transformer = classifier.startswith(TRANSFORMER)
    threads = TRANSFORMER_THREADS if transformer else THREADS
    if workers is not None:
        most: float = workers
    elif (device.type == "cpu" and transformer) or clips_in_all < WORTH_CLIPS:
        most = 1
    else:
        cores = min(torch.get_num_threads(), cores_allowed())
        in_memory = memory_allowed_bytes() / 2 / WORKER_BYTES
        most = min(cores, in_memory)
        if device.type != "cpu":  # CUDA takes as much memory again
            free = torch.cuda.mem_get_info(device)[0] / GPU_WORKER_BYTES
            on_gpu = 1.0 if transformer else min(MOST_ON_A_GPU, free)
            most = min(cores / CORES_PER_GPU_PROCESS, in_memory / 2, on_gpu * len(devices))
    return Workers(max(1, min(runs, int(most))), threads, devices)


# --- what a worker does -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fitting:
    """Trains the runs of one classifier. A unit is a task and its tables."""

    classifier: str

    def __call__(self, device: str) -> RunUnit:
        recipe, on = preset(self.classifier), torch.device(device)

        def do(
            unit: tuple[TrainTask, Mapping[str, tuple[SharedTensor, torch.Tensor]]], say: Callable[..., None]
        ) -> Any:
            task, kept = unit
            tables = {name: FeatureTable(shared.to(on), labels) for name, (shared, labels) in kept.items()}
            return fit_classifier(task, recipe, tables, on, say)

        return do


class Tables:
    """The tables of features that tasks need, from the first that does to the last: all, one a seed and fold, would not fit."""

    def __init__(
        self,
        table_of: Callable[[str], FeatureTable],
        share: Callable[[torch.Tensor], SharedTensor],
        tasks: Sequence[TrainTask],
    ) -> None:
        """`table_of` computes the one of a source; `share` keeps it for those who train."""
        self.table_of, self.share = table_of, share
        self._kept: dict[str, tuple[SharedTensor, torch.Tensor]] = {}
        self._waiting = Counter(name for task in tasks for name in tables_of(task))

    def of(self, task: TrainTask) -> dict[str, tuple[SharedTensor, torch.Tensor]]:
        """What a worker is given for a task, by source: features and labels."""
        for name in tables_of(task):
            if name not in self._kept:
                table = self.table_of(name)
                self._kept[name] = self.share(table.features), table.labels
        return {name: self._kept[name] for name in tables_of(task)}

    def used(self, task: TrainTask) -> None:
        """One task less needs its tables."""
        for name in tables_of(task):
            self._waiting[name] -= 1
            if not self._waiting[name] and name in self._kept:
                self._kept.pop(name)[0].delete()
