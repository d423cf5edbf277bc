"""usk's training against the published training loop: same network, split, seed, epochs and batches, one machine.

    python -m tests.bench.train --real UrbanSound8K --test-fold 3 --epochs 5 --json FILE
    python -m tests.bench.train --real UrbanSound8K --test-fold 3 --classifier cnn --epochs 3 --clips 300

The loop is how such experiments are published: a DataLoader whose dataset decodes, mixes down, resamples and transforms a
clip each time it is asked for it, epoch after epoch, in fp32, and validates after each. usk decodes once, keeps its features
in memory and takes the device's precision; its time is given with an empty cache (a first run) and with a full one (all
further runs of a sweep), without augmentation as the loop, and as it trains by default: with the classifier's own, which for
the default one cuts halves out of the clips, and so has half the arithmetic in each epoch.
`--match-epochs 10` adds how long usk takes to get as far as the loop: as it trains by default, from an empty cache, but for so
many epochs; compare the accuracies.
`--as-published` first writes the clips as most of UrbanSound8K's files are, at 44.1 kHz in stereo (the sample that these
figures come from is mono at 22.05 kHz), so that both have the work of resampling. Both choose the epoch on the same
validation recordings; the accuracy is the test fold's, so name one that decides nothing.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import platform
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
import torch
import torchaudio
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.utils.data import DataLoader, Dataset

from usk.audio.features import FeatureSettings, FirstSecond, fit_length
from usk.classify.config import TrainConfig
from usk.classify.recipe import ClassifierPreset
from usk.classify.registry import preset
from usk.classify.train import train
from usk.data.open import open_source
from usk.data.source import Source
from usk.data.splits import Split, fold_split
from usk.device import default_precision, resolve_device
from usk.runs import read_run

FIELD_RATE_HZ = 44_100  # of 5,370 of UrbanSound8K's 8,732 clips; nearly all others have more


def as_published(source: Source, folder: Path) -> Source:
    """The same clips in UrbanSound8K's folder layout, 16 bits, stereo, at 44.1 kHz."""
    columns = ("slice_file_name", "fsID", "fold", "classID", "class")
    (folder / "metadata").mkdir(parents=True)
    with (folder / "metadata" / "UrbanSound8K.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(columns)
        for row, (clip, audio) in enumerate(zip(source.clips, source.audio, strict=True)):
            samples, rate_hz, _ = audio.read()
            mono = samples.reshape(len(samples), -1).mean(axis=1)
            resampled = soxr.resample(mono, rate_hz, FIELD_RATE_HZ)
            place = folder / "audio" / f"fold{clip.fold}" / f"{row}.wav"
            place.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(place, np.stack((resampled, resampled), axis=1), FIELD_RATE_HZ, subtype="PCM_16")
            table.writerow((place.name, clip.group, clip.fold, clip.label, source.class_names[clip.label]))
    return open_source(folder)


class PublishedDataset(Dataset[tuple[torch.Tensor, int]]):
    """Clips as the published loop gives them out: everything is done anew for every item."""

    def __init__(self, source: Source, rows: np.ndarray, settings: FeatureSettings) -> None:
        self.source, self.rows, self.settings = source, rows, settings
        mel = settings.mel
        default = isinstance(settings, FirstSecond)  # it goes by torchaudio's own defaults
        self.mel = torchaudio.transforms.MelSpectrogram(
            mel.sample_rate_hz,
            n_fft=mel.n_fft,
            hop_length=mel.hop_samples,
            n_mels=mel.n_mels,
            **({} if default else {"pad_mode": "constant", "norm": "slaney", "mel_scale": "slaney"}),
        )
        self.to_db = torchaudio.transforms.AmplitudeToDB(top_db=None if default else mel.top_db)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        row = int(self.rows[index])
        samples, rate_hz, _ = self.source.audio[row].read()
        mono = torch.from_numpy(samples).reshape(len(samples), -1).mean(dim=1)
        resampled = torchaudio.transforms.Resample(rate_hz, self.settings.sample_rate_hz)(mono)
        fitted = fit_length(resampled.numpy(), self.settings.n_samples, self.settings.repeat_short)
        return self.to_db(self.mel(torch.from_numpy(fitted))[None])[0], self.source.clips[row].label


def published_loop(
    source: Source, split: Split, recipe: ClassifierPreset, epochs: int, seed: int, workers: int, device: str
) -> tuple[float, float]:
    """Train `recipe`'s network as published: the test accuracy of the chosen epoch, and seconds."""
    assert isinstance(recipe.features, FeatureSettings)
    on = resolve_device(device)
    started = time.monotonic()
    torch.manual_seed(seed)
    loaders = {
        name: DataLoader(
            PublishedDataset(source, rows, recipe.features),
            batch_size=recipe.batch,
            shuffle=name == "train",
            num_workers=workers,
        )
        for name, rows in (("train", split.train), ("validation", split.validation), ("test", split.test))
    }
    probe = next(iter(loaders["train"]))[0]
    whole = replace(recipe, augment="none")  # as it is trained, it hears whole clips when it is tested
    model = whole.model(len(source.class_names), probe).to(on)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
    )
    loss_of = nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)
    steps = epochs * len(loaders["train"])
    step = 0
    best, best_weights = -1.0, model.state_dict()
    for _ in range(epochs):
        model.train()
        for images, labels in loaders["train"]:
            if recipe.cosine:
                warm_up = min(1.0, (step + 1) / max(1, round(0.05 * steps)))
                for group in optimizer.param_groups:
                    decay = 0.5 * (1 + math.cos(math.pi * step / steps))
                    group["lr"] = recipe.learning_rate * warm_up * decay
            loss = loss_of(model(images.to(on)), labels.to(on))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
        score = accuracy_of(model, loaders["validation"], on)
        if score >= best:
            best, best_weights = score, {k: v.clone() for k, v in model.state_dict().items()}
    model.load_state_dict(best_weights)
    return accuracy_of(model, loaders["test"], on), time.monotonic() - started


def accuracy_of(model: nn.Module, loader: DataLoader[Any], device: torch.device) -> float:
    model.eval()
    right = total = 0
    with torch.no_grad():
        for images, labels in loader:
            right += int((model(images.to(device)).argmax(dim=1).cpu() == labels).sum())
            total += len(labels)
    return right / max(total, 1)  # no validation recordings: every epoch is as good, and the last one counts


def usk_train(source: Source, out: Path, config: TrainConfig, *, cache: Path) -> tuple[list[float], float]:
    """The test accuracies of each seed, and seconds in all."""
    os.environ["USK_CACHE"] = str(cache)
    started = time.monotonic()
    result = train(source, out=out, config=config)
    return [read_run(run.folder).accuracy for run in result.runs], time.monotonic() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--real", default="demo")
    parser.add_argument("--classifier", default="small", help="one that takes log-mel images")
    parser.add_argument("--test-fold", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument(
        "--match-epochs", type=int, help="enough for usk's defaults to reach the loop's accuracy"
    )
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--clips", type=int, help="only about this many clips, of all classes and folds")
    parser.add_argument("--workers", type=int, default=min(2, os.cpu_count() or 1), help="of the DataLoader")
    parser.add_argument("--as-published", action="store_true", help="clips at 44.1 kHz in stereo")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    source = open_source(options.real)
    if options.clips:
        step = max(1, len(source) // options.clips)
        source = replace(
            source.subset(range(0, len(source), step)), cache_key=f"{source.cache_key}-bench{step}"
        )
    recipe = preset(options.classifier)
    plain = TrainConfig(
        options.classifier,
        test_folds=(options.test_fold,),
        seeds=options.seeds,
        epochs=options.epochs,
        augment="none",
        device=options.device,
    )
    default = replace(plain, augment=recipe.augment)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        if options.as_published:
            source = as_published(source, work / "UrbanSound8K")
        split = fold_split(source.clips, options.test_fold)
        ours = [
            ("usk, nothing cached", *usk_train(source, work / "cold", plain, cache=work / "cache")),
            ("usk, clips decoded", *usk_train(source, work / "warm", plain, cache=work / "cache")),
        ]
        assert ours[0][1] == ours[1][1]
        if default != plain:
            said = f"usk, clips decoded, `{recipe.augment}`"
            ours.append((said, *usk_train(source, work / "default", default, cache=work / "cache")))
        if options.match_epochs:
            said = f"usk, nothing cached, `{recipe.augment}`, {options.match_epochs} epochs"
            fewer = replace(default, epochs=options.match_epochs)
            ours.append((said, *usk_train(source, work / "matched", fewer, cache=work / "cache2")))
        theirs, loop_s = [], 0.0
        for seed in range(options.seeds):
            accuracy, took_s = published_loop(
                source, split, recipe, options.epochs, seed, options.workers, options.device
            )
            theirs.append(accuracy)
            loop_s += took_s
    rows: list[dict[str, Any]] = [
        {
            "what": what,
            "seconds": round(seconds, 2),
            "times": round(loop_s / seconds, 2),
            "accuracies": [round(value, 4) for value in accuracies],
        }
        for what, accuracies, seconds in [("published loop", theirs, loop_s), *ours]
    ]
    device = resolve_device(options.device)
    result = {
        "classifier": options.classifier,
        "real": source.name,
        "clips": {part: len(getattr(split, part)) for part in ("train", "validation", "test")},
        "test_fold": options.test_fold,
        "as_published": options.as_published,
        "epochs": options.epochs,
        "seeds": options.seeds,
        "workers": options.workers,
        "device": torch.cuda.get_device_name() if device.type == "cuda" else platform.machine(),
        "threads": torch.get_num_threads(),
        "precision": default_precision(device),
        "rows": rows,
    }
    table = Table(
        title=f"{options.classifier}, {len(split.train)} clips, {options.epochs} epochs, {options.seeds} seeds"
    )
    for name in ("", "seconds", "times as fast", "test accuracy %"):
        table.add_column(name, justify="right" if name else "left")
    for row in rows:
        accuracies = "  ".join(f"{100 * value:.1f}" for value in row["accuracies"])
        table.add_row(row["what"], f"{row['seconds']:.1f}", f"{row['times']:.1f}", accuracies)
    Console().print(table)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
