"""Write the folder of a run. It has the layout of a model on the Hub and is written atomically.

RUN/config.json, model.safetensors   the classifier with its features and class names, as `from_pretrained` reads it
RUN/run.json, predictions.parquet    the training data and settings, and the predictions for each test clip (`usk.runs`)
RUN/history.json                     loss and validation of each epoch
RUN/README.md                        the model card
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from usk.classify.classifier import AudioClassifier
from usk.data.clip import NO_MODEL
from usk.data.source import Source
from usk.data.train_subset import SUBSET_NAME
from usk.errors import disk_errors
from usk.files import is_alive
from usk.runs import Predictions, RunRecord, RunSource

CARD_FILE = "README.md"


def save_run(
    out: Path,
    record: RunRecord,
    predictions: Predictions,
    classifier: AudioClassifier,
    history: list[dict[str, Any]],
    card: str,
) -> RunRecord:
    """Write a run to a temporary folder in `out`, then rename it. `card` is the text of its README.md."""
    folder = out / record.folder_name
    process = f"{platform.node()}-{os.getpid()}"
    partial = out / f".{folder.name}.part-{process}"
    old = out / f".{folder.name}.old-{process}"
    with disk_errors(out):
        try:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            predictions.write(partial)
            (partial / CARD_FILE).write_text(card, encoding="utf-8")  # else save_pretrained writes its own
            classifier.save_pretrained(partial)
            (partial / "history.json").write_text(json.dumps(history, indent=1) + "\n", encoding="utf-8")
            record.write(partial)
            if folder.exists():  # it is damaged, or another process finished it in the meantime
                folder.rename(old)
            partial.rename(folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
            shutil.rmtree(old, ignore_errors=True)
    return replace(record, folder=folder)


def remove_leftovers(out: Path) -> None:
    """Delete the temporary folders of killed processes of this machine."""
    for leftover in out.glob(f".*-{platform.node()}-*"):
        process = re.fullmatch(r"\..+\.(?:part|old)-.+-(\d+)", leftover.name)
        if process and not is_alive(int(process[1])):
            shutil.rmtree(leftover, ignore_errors=True)


def run_source(name: str, source: Source) -> RunSource:
    """Return what a run's record says about the source that the mix calls `name`."""
    folder, _, last = name.rpartition("/")
    part, subset = (folder, last) if folder and SUBSET_NAME.fullmatch(last) else (name, "")
    made = [clip for clip in source.clips if clip.is_synthetic]
    return RunSource(
        part=part,
        subset=subset,
        name=source.name,
        kind=source.kind,
        revision=source.revision,
        hub_id=source.hub_id,
        license=source.license,
        clips=len(source),
        trained=True,
        generators=tuple(sorted({clip.model for clip in made} - {NO_MODEL})),
        strategies=tuple(sorted({clip.strategy for clip in made})),
        urbansound8k=any(
            group.startswith("urbansound8k/") for clip in source.clips for group in clip.lineage
        ),
    )


def data_hash(real: Source) -> str:
    """Return a hash of the real clips: their ids, labels, recordings and folds."""
    rows = sorted(f"{c.clip_id}\t{real.class_names[c.label]}\t{c.group}\t{c.fold}" for c in real.clips)
    return hashlib.sha256("\n".join([real.name, *rows]).encode()).hexdigest()[:12]
