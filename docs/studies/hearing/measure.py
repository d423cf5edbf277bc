"""How trained classifiers should hear the clips they are tested on: what their batch normalization goes by, and in which parts.

    python docs/studies/hearing/measure.py RUNS --real UrbanSound8K --train-clips 100 --seeds 4 --json FILE

Takes every run under RUNS that was trained on real clips alone with halves of clips (`basic`, `strong`) and `--protocol folds`. Of its
weights it estimates the statistics of batch normalization anew, on the clips that it was trained on, either augmented as in
training (what a network keeps by itself) or plain; and it hears clips whole, in two halves, or in three halves that overlap. Accuracy on validation
and test clips, on average over the runs of a number of train_clips and an augmentation. The epoch was chosen with plain statistics and two halves.
"""

from __future__ import annotations

import argparse
import copy
import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch.optim.swa_utils import update_bn

from usk.audio.features import features_of
from usk.classify.augment import CROP, augment_batch, cropped_frames
from usk.classify.classifier import AudioClassifier
from usk.classify.networks import patches
from usk.classify.predict import load_classifier
from usk.classify.registry import preset
from usk.data.decode import decode_source
from usk.data.open import open_source
from usk.data.splits import fold_split
from usk.data.train_subset import subset_split
from usk.runs import RunRecord, read_runs

HEARD = {"whole": 1, "two halves": 2, "three halves that overlap": 3}
KEYS = ("train_clips", "augment", "statistics of clips", "heard")
AUGMENTED_CLIPS = 512


def with_statistics_of(model: AudioClassifier, features: torch.Tensor) -> AudioClassifier:
    """A copy whose batch normalization goes by `features` [n, bands, frames]."""
    model = copy.deepcopy(model)
    update_bn(features.split(128), model)
    return model.eval()


def augmented(features: torch.Tensor, run: RunRecord) -> torch.Tensor:
    """`AUGMENTED_CLIPS` of `features` as the run was trained on them."""
    draw = torch.Generator().manual_seed(run.seed)
    rows = torch.arange(AUGMENTED_CLIPS) % len(features)
    return augment_batch(features[rows], augmentations_of(run), draw).batch


def augmentations_of(run: RunRecord) -> tuple[str, ...]:
    """What the run was augmented by."""
    return preset(run.classifier).augmentations(run.augment)


def parts_of(features: torch.Tensor, count: int) -> list[torch.Tensor]:
    """Features [n, bands, frames] whole, or in `count` halves."""
    n_frames = features.shape[2]
    return patches(features, n_frames if count == 1 else cropped_frames(n_frames), count)


def accuracy(model: AudioClassifier, features: torch.Tensor, labels: torch.Tensor, count: int) -> float:
    """Of features [n, bands, frames], heard whole or in `count` halves; %."""
    right = 0
    with torch.no_grad():
        for batch, truth in zip(features.split(128), labels.split(128), strict=True):
            logits = model(torch.cat(parts_of(batch, count))).float()
            mean = logits.softmax(dim=1).unflatten(0, (-1, len(batch))).mean(dim=0)
            right += int((mean.argmax(dim=1) == truth).sum())
    return 100 * right / len(labels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path)
    parser.add_argument("--real", required=True)
    parser.add_argument("--train-clips", type=int, help="only runs of so many real clips")
    parser.add_argument("--seeds", type=int, help="only the first so many")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    runs = [run for run in read_runs(options.runs) if run.mix == "real" and run.fold is not None]
    runs = [run for run in runs if CROP in augmentations_of(run)]
    runs = [run for run in runs if options.train_clips in (None, run.train_clips)]
    runs = [run for run in runs if options.seeds is None or run.seed < options.seeds]
    if not runs:
        parser.error(f"{options.runs} has no such run of real clips alone")
    decoded, features = None, {}
    found: dict[tuple[str, str, str, str], list[list[float]]] = defaultdict(list)
    for run in runs:
        model = load_classifier(run.folder)
        model.window_frames = None  # the parts are cut here
        if decoded is None:
            decoded = decode_source(open_source(options.real), model.feature_settings.sample_rate_hz)
        if run.classifier not in features:
            features[run.classifier] = features_of(decoded, model.feature_settings)
        clips, heard = decoded.source.clips, features[run.classifier]
        labels = torch.tensor([clip.label for clip in clips])
        split = subset_split(fold_split(clips, run.fold or 0), clips, run.train_clips, run.seed)
        trained = heard[split.train.tolist()].float()
        train_clips = "all" if run.train_clips is None else str(run.train_clips)
        remembered = with_statistics_of(model, augmented(trained, run))
        for name, count in HEARD.items():
            resolved = with_statistics_of(model, torch.cat(parts_of(trained, count)))
            for clips_heard, one in (("augmented", remembered), ("plain", resolved)):
                scores = [
                    accuracy(one, heard[rows.tolist()].float(), labels[rows.tolist()], count)
                    for rows in (split.validation, split.test)
                ]
                found[train_clips, run.augment, clips_heard, name].append(scores)
    table = Table(title=f"accuracy on validation and test clips, %, {len(runs)} runs")
    for column in (*KEYS, "runs", "validation", "test"):
        table.add_column(column)
    rows = []
    for key, scores in sorted(found.items()):
        validation, test = (round(float(value), 2) for value in np.mean(scores, axis=0))
        row = dict(zip(KEYS, key, strict=True))
        rows.append({**row, "runs": len(scores), "validation": validation, "test": test})
        table.add_row(*key, str(len(scores)), f"{validation:.1f}", f"{test:.1f}")
    Console().print(table)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
