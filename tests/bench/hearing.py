"""How trained classifiers should hear the clips they are tested on: what their batch normalisation goes by, and in which parts.

    python -m tests.bench.hearing RUNS --real UrbanSound8K --json FILE

Takes every run under RUNS that was trained on real clips alone with halves of clips (`basic`, `strong`) and `--protocol folds`. Of its
weights it estimates the statistics of batch normalisation anew, on the clips that it was trained on, either augmented as in
training (what a network keeps by itself) or plain; and it hears clips whole, in two halves, or in three halves that overlap. Accuracy on validation
and test clips, on average over the runs of an augmentation. The epoch was chosen with plain statistics and two halves.
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

from usk.classify.augment import CROP, augment_batch, cropped_frames
from usk.classify.classifier import AudioClassifier
from usk.classify.features import features_of
from usk.classify.networks import mean_over, patches
from usk.classify.predict import load_classifier
from usk.data.decode import decode_source
from usk.data.shots import few_shot_split
from usk.data.sources import open_source
from usk.data.splits import fold_split
from usk.evaluate.compare import RunRecord, read_runs

HEARD = {"whole": 1, "two halves": 2, "three halves that overlap": 3}
AUGMENTED_CLIPS = 512


def settled(model: AudioClassifier, features: torch.Tensor, run: RunRecord, plain: bool) -> AudioClassifier:
    """A copy whose statistics are those of `features` [n, bands, frames]: plain ones, or `AUGMENTED_CLIPS` as in training."""
    model = copy.deepcopy(model)
    if not plain:
        names = model_augmentations(run)
        draw = torch.Generator().manual_seed(run.seed)
        rows = torch.arange(AUGMENTED_CLIPS) % len(features)
        features = augment_batch(features[rows], names, draw).batch
    update_bn(features.split(128), model)
    return model.eval()


def model_augmentations(run: RunRecord) -> tuple[str, ...]:
    """What the run was augmented by."""
    from usk.classify.models import preset

    return preset(run.classifier).augmentations(run.augment)


def accuracy(model: AudioClassifier, features: torch.Tensor, labels: torch.Tensor, count: int) -> float:
    """Of features [n, bands, frames], heard whole or in `count` halves; %."""
    length = features.shape[2] if count == 1 else cropped_frames(features.shape[2])
    right = 0
    with torch.no_grad():
        for batch, truth in zip(features.split(128), labels.split(128), strict=True):
            logits = mean_over(patches(batch, length, count), model)
            right += int((logits.argmax(dim=1) == truth).sum())
    return 100 * right / len(labels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path)
    parser.add_argument("--real", required=True)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    runs = [run for run in read_runs(options.runs) if run.mix == "real" and run.fold is not None]
    runs = [run for run in runs if CROP in model_augmentations(run)]
    decoded, features = None, {}
    found: dict[tuple[str, str], list[list[float]]] = defaultdict(list)
    for run in runs:
        model = load_classifier(run.folder)
        model.window_frames = None  # the parts are cut here
        if decoded is None:
            decoded = decode_source(open_source(options.real), model.feature_settings.sample_rate_hz)
        if run.classifier not in features:
            features[run.classifier] = features_of(decoded, model.feature_settings)
        clips, heard = decoded.source.clips, features[run.classifier]
        labels = torch.tensor([clip.label for clip in clips])
        split = few_shot_split(fold_split(clips, run.fold or 0), clips, run.shots, run.seed)
        trained = heard[split.train.tolist()].float()
        for plain in (False, True):
            for name, count in HEARD.items():
                length = trained.shape[2] if count == 1 else cropped_frames(trained.shape[2])
                parts = torch.cat(patches(trained, length, count))
                # As in training the parts are halves already, cut anew.
                one = settled(model, parts if plain else trained, run, plain)
                scores = [
                    accuracy(one, heard[rows.tolist()].float(), labels[rows.tolist()], count)
                    for rows in (split.validation, split.test)
                ]
                found[f"{run.augment}, {'plain' if plain else 'augmented'} clips", name].append(scores)
    table = Table(title=f"accuracy on validation and test clips, %, {len(runs)} runs")
    for column in ("statistics of", "heard", "runs", "validation", "test"):
        table.add_column(column)
    rows = []
    for (statistics, name), scores in found.items():
        validation, test = (round(float(value), 2) for value in np.mean(scores, axis=0))
        rows.append(
            {
                "statistics": statistics,
                "heard": name,
                "runs": len(scores),
                "validation": validation,
                "test": test,
            }
        )
        table.add_row(statistics, name, str(len(scores)), f"{validation:.1f}", f"{test:.1f}")
    Console().print(table)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
