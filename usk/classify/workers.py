"""Choose the number of worker processes for a sweep, and train runs in them.

A small network leaves most of a machine idle. On a CPU, several runs with one thread each are faster than one run with all
threads; a GPU mostly waits for the process that launches its kernels. The number of threads depends only on the classifier,
because the last bits of results depend on it: a run is the same on every machine.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from usk.classify.config import TRANSFORMER
from usk.classify.feature_table import FeatureTable
from usk.classify.loop import TrainTask, fit_classifier
from usk.classify.registry import preset
from usk.device import cores_allowed, memory_allowed_bytes, visible_devices
from usk.engine.engine import RunUnit, SharedTensor, Workers

THREADS, TRANSFORMER_THREADS = 1, 8
MIN_CLIPS = 2**14  # with fewer training clips in all runs together, starting several processes takes too long
WORKER_BYTES = 1_500_000_000  # memory of a worker without the shared tables; all workers get half of the machine's memory
MAX_PER_GPU = 8
CORES_PER_GPU_PROCESS = 2
GPU_WORKER_BYTES = 4_000_000_000  # GPU memory of a worker: CUDA itself, activations, cuDNN's workspaces

SharedTable = tuple[SharedTensor, torch.Tensor]  # features, labels


def workers_for(
    workers: int | None, classifier: str, runs: int, clips_in_all: int, device: torch.device
) -> Workers:
    """Return the workers for `runs` that train on `clips_in_all` clips together.

    `workers` is the user's number, or None to choose it. A `transformers` classifier, which uses all cores or a GPU, and a small
    job get one process. A device `cuda` without a number stands for all visible GPUs.
    """
    devices = visible_devices(device)
    transformer = classifier.startswith(TRANSFORMER)
    threads = TRANSFORMER_THREADS if transformer else THREADS
    if workers is not None:
        limit: float = workers
    elif (device.type == "cpu" and transformer) or clips_in_all < MIN_CLIPS:
        limit = 1
    else:
        cores = min(torch.get_num_threads(), cores_allowed())
        by_memory = memory_allowed_bytes() / 2 / WORKER_BYTES
        limit = min(cores, by_memory)
        if device.type != "cpu":  # CUDA doubles a worker's memory
            by_gpu_memory = torch.cuda.mem_get_info(device)[0] / GPU_WORKER_BYTES
            per_gpu = 1.0 if transformer else min(MAX_PER_GPU, by_gpu_memory)
            limit = min(cores / CORES_PER_GPU_PROCESS, by_memory / 2, per_gpu * len(devices))
    return Workers(max(1, min(runs, int(limit))), threads, devices)


@dataclass(frozen=True)
class RunTrainer:
    """The setup of workers that train runs of one classifier. A unit is a task with its tables."""

    classifier: str

    def __call__(self, device: str) -> RunUnit:
        recipe, torch_device = preset(self.classifier), torch.device(device)

        def train_run(
            unit: tuple[TrainTask, Mapping[str, SharedTable]], on_progress: Callable[..., None]
        ) -> Any:
            task, shared = unit
            tables = {
                name: FeatureTable(features.to(torch_device), labels)
                for name, (features, labels) in shared.items()
            }
            return fit_classifier(task, recipe, tables, torch_device, on_progress)

        return train_run


class SharedTables:
    """Creates the feature table of a source for the first task that needs it, and deletes it after the last.

    With one table for each seed and fold, all tables together might not fit into memory.
    """

    def __init__(
        self,
        make_table: Callable[[str], FeatureTable],
        share: Callable[[torch.Tensor], SharedTensor],
        tasks: Sequence[TrainTask],
    ) -> None:
        """`make_table` computes the table of a source by name; `share` is the engine's."""
        self.make_table, self.share = make_table, share
        self._tables: dict[str, SharedTable] = {}
        self._n_tasks_left = Counter(name for task in tasks for name in task.table_names)

    def get(self, task: TrainTask) -> dict[str, SharedTable]:
        """Return the tables that a task needs, by source."""
        for name in task.table_names:
            if name not in self._tables:
                table = self.make_table(name)
                self._tables[name] = self.share(table.features), table.labels
        return {name: self._tables[name] for name in task.table_names}

    def release(self, task: TrainTask) -> None:
        """Delete the tables that no task needs after this one."""
        for name in task.table_names:
            self._n_tasks_left[name] -= 1
            if not self._n_tasks_left[name] and name in self._tables:
                self._tables.pop(name)[0].delete()
