"""A run on disk, written whole or not at all, in the shape of a model on the Hub:

RUN/config.json, model.safetensors   the classifier, features and class names included: all that `from_pretrained` needs
RUN/run.json, predictions.parquet    what it was trained on and how, and what it says of each test clip (`usk.runs`)
RUN/history.json                     its epochs
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
    """Write a run to a temporary folder in `out`, then move it to its place in one step. `card` is its README.md."""
    folder = out / record.folder_name
    own = f"{platform.node()}-{os.getpid()}"
    partial, old = (out / f".{folder.name}.{kind}-{own}" for kind in ("part", "old"))
    with disk_errors(out):
        try:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            predictions.write(partial)
            (partial / CARD_FILE).write_text(card, encoding="utf-8")  # before the mixin would write its own
            classifier.save_pretrained(partial)
            (partial / "history.json").write_text(json.dumps(history, indent=1) + "\n", encoding="utf-8")
            record.write(partial)
            if folder.exists():  # damaged, or finished by another process meanwhile: at no time half there
                folder.rename(old)
            partial.rename(folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
            shutil.rmtree(old, ignore_errors=True)
    return replace(record, folder=folder)


def remove_leftovers(out: Path) -> None:
    """Delete what processes of this machine that were killed left half written in the folder of runs."""
    for left in out.glob(f".*-{platform.node()}-*"):
        number = re.fullmatch(r"\..+\.(?:part|old)-.+-(\d+)", left.name)
        if number and not is_alive(int(number[1])):
            shutil.rmtree(left, ignore_errors=True)


def source_of(name: str, source: Source) -> RunSource:
    """What a run's record says of one source."""
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
    """Of all that decides what a run is tested on: clips, labels, recordings and folds."""
    rows = sorted(f"{c.clip_id}\t{real.class_names[c.label]}\t{c.group}\t{c.fold}" for c in real.clips)
    return hashlib.sha256("\n".join([real.name, *rows]).encode()).hexdigest()[:12]
