"""`usk.predict`: what a trained classifier says of files, folders and sources."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from usk.classify.features import Features, fit_length
from usk.classify.models import preset
from usk.classify.runs import RUN_FILE, load_classifier
from usk.data.decode import decode
from usk.data.sources import AUDIO_SUFFIXES, AudioRef, BadAudioError, FileRef, open_source
from usk.errors import SourceError, UsageError, sample_of

BATCH_FILES = 16


@dataclass(frozen=True)
class Prediction:
    """What the classifier says of one clip; `problem` says why where it cannot."""

    file: str
    class_name: str | None
    probability: float | None
    next_class: str | None
    next_probability: float | None
    probabilities: dict[str, float]
    problem: str | None = None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def find_classifier(run: str | os.PathLike[str]) -> Path:
    """The folder of a run: itself, or the only one under a folder of runs. Raises UsageError with those to choose from."""
    folder = Path(run)
    if (folder / RUN_FILE).is_file():
        return folder
    runs = sorted(path.parent for path in folder.glob(f"*/{RUN_FILE}")) if folder.is_dir() else []
    if len(runs) == 1:
        return runs[0]
    if runs:
        raise UsageError(
            f"--run {folder} holds {len(runs)} runs; name one of them: {sample_of([str(path) for path in runs])}"
        )
    raise UsageError(f"--run {folder} is no run; train one with usk train, and name its folder under ./runs")


def audio_of(what: Sequence[str]) -> list[tuple[str, AudioRef]]:
    """Names and places of all clips that are meant: files, every audio file below folders, or whole sources."""
    found: list[tuple[str, AudioRef]] = []
    for item in what:
        path = Path(item)
        if path.is_file():
            found.append((item, FileRef(path)))
        elif path.is_dir() and (files := _files_below(path)):
            found += [(str(file), FileRef(file)) for file in files]
        elif path.suffix.lower() in AUDIO_SUFFIXES:
            raise SourceError(f"{item} is not there; name an audio file, a folder of them, or a source")
        else:
            source = open_source(item)
            found += [(clip.clip_id, ref) for clip, ref in zip(source.clips, source.audio, strict=True)]
    if not found:
        raise SourceError("there is nothing to predict; name audio files, a folder of them, or a source")
    return found


def _files_below(folder: Path) -> list[Path]:
    return sorted(
        file for file in folder.rglob("*") if file.suffix.lower() in AUDIO_SUFFIXES and file.is_file()
    )


def predict(
    what: str | Sequence[str],
    run: str | os.PathLike[str] = "runs",
    *,
    progress: Callable[[int, int], None] | None = None,
) -> list[Prediction]:
    """Classify files, folders and sources with the classifier of a run.

    Clips longer than what the classifier looks at are cut into windows of that length, and their probabilities averaged;
    others are repeated or padded as in training. A clip that cannot be read gets a `problem` and the rest goes on.

    Raises: UsageError for a run that is none, SourceError where there is nothing to read.
    """
    folder = find_classifier(run)
    model, record = load_classifier(folder)
    settings, names = preset(record["classifier"], folder).features, record["class_names"]
    clips = audio_of([what] if isinstance(what, str) else what)
    predictions = []
    for begin in range(0, len(clips), BATCH_FILES):
        predictions += list(_batch(clips[begin : begin + BATCH_FILES], model, settings, names))
        if progress is not None:
            progress(len(predictions), len(clips))
    return predictions


def _batch(
    clips: Sequence[tuple[str, AudioRef]],
    model: torch.nn.Module,
    settings: Features,
    names: Sequence[str],
) -> Iterator[Prediction]:
    windows: list[np.ndarray] = []
    of_clip: list[list[int] | str] = []  # a clip's windows, or its problem
    for _, ref in clips:
        try:
            samples = decode(ref, settings.sample_rate_hz)
        except BadAudioError as error:
            of_clip.append(str(error))
            continue
        except OSError as error:
            of_clip.append(error.strerror or "cannot be read")
            continue
        own = list(_windows(samples, settings))
        of_clip.append(list(range(len(windows), len(windows) + len(own))))
        windows += own
    probabilities = np.zeros((0, len(names)), np.float32)
    if windows:
        with torch.no_grad():
            parts = [
                model(settings.of_audio(torch.from_numpy(np.stack(windows[i : i + 64])))).softmax(dim=1)
                for i in range(0, len(windows), 64)
            ]
        probabilities = torch.cat(parts).numpy()
    for (name, _), rows in zip(clips, of_clip, strict=True):
        if isinstance(rows, str):
            yield Prediction(name, None, None, None, None, {}, rows)
            continue
        mean = probabilities[rows].mean(axis=0)
        order = np.argsort(-mean, kind="stable")
        second = int(order[1]) if len(order) > 1 else None
        yield Prediction(
            name,
            names[order[0]],
            round(float(mean[order[0]]), 4),
            None if second is None else names[second],
            None if second is None else round(float(mean[second]), 4),
            {names[label]: round(float(mean[label]), 4) for label in range(len(names))},
        )


def _windows(samples: np.ndarray, settings: Features) -> Iterator[np.ndarray]:
    """Consecutive windows of what the classifier looks at; a rest shorter than half a window is left out."""
    n = settings.n_samples
    if not settings.repeat_short:  # trained on beginnings alone
        yield fit_length(samples, n, False)
        return
    yield fit_length(samples, n, True)
    for begin in range(n, len(samples), n):
        rest = samples[begin : begin + n]
        if len(rest) >= n / 2:
            yield fit_length(rest, n, True)
