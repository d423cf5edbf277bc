"""`usk.predict`: classify files, folders and sources with a trained classifier."""

from __future__ import annotations

import csv
import io
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from usk.audio.features import Features, fit_length
from usk.classify.classifier import CONFIG_FILE, WEIGHTS_FILE, AudioClassifier, read_classifier
from usk.classify.run_folder import CARD_FILE
from usk.data.audio_cache import dequantize, quantize
from usk.data.audio_file import AUDIO_SUFFIXES, UNREAD_SUFFIXES, AudioRef, BadAudioError, FileRef
from usk.data.decode import decode
from usk.data.open import open_source
from usk.data.pinned import looks_like_hub_id, pin
from usk.errors import ModelError, SourceError, UsageError
from usk.files import atomic_write, expanded, visible_files
from usk.reporter import Reporter
from usk.runs import RUN_FILE, run_folders
from usk.text import abbreviate_list

BATCH_FILES = 16
NAME_AUDIO = "Name audio files, a folder of them, or a source."


@dataclass(frozen=True)
class Prediction:
    """The two most probable classes of one clip, or the `problem` that prevents a prediction."""

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
    """Return the folder of a run. Arguments and errors are those of `load_classifier`."""
    folder = expanded(run)
    if (folder / RUN_FILE).is_file() or (folder / CONFIG_FILE).is_file():
        return folder
    runs = run_folders(folder)
    if len(runs) == 1:
        return runs[0]
    if runs:
        choices = f"Name one of them: {abbreviate_list([str(path) for path in runs])}."
        raise UsageError(f"holds {len(runs)} runs", field="run", value=folder, hint=choices)
    if not folder.exists() and looks_like_hub_id(str(run)):
        return _download_classifier(str(run))
    hint = "Train one with `usk train`, and name its folder under runs, or a Hub id."
    raise UsageError("is not a run", field="run", value=folder, hint=hint)


def _download_classifier(run: str) -> Path:
    instead = "name the folder of a run that usk train made"
    pinned = pin(run, "model", run, instead, ModelError)
    missing = [name for name in (CONFIG_FILE, WEIGHTS_FILE) if name not in pinned.files]
    if missing:
        why = f"is not a classifier of usk: it has no {' and no '.join(missing)}"
        raise ModelError(why, field="run", value=run)
    return pinned.download((CONFIG_FILE, WEIGHTS_FILE, RUN_FILE, CARD_FILE))


def load_classifier(run: str | os.PathLike[str]) -> AudioClassifier:
    """Load the classifier of a run: its folder, a folder with a single run in it, or a Hub id (`user/name[@revision]`).

    Only JSON and safetensors are read; no code is run. Raises UsageError if there is no run or several; ModelError if the
    classifier is damaged or cannot be downloaded.
    """
    return read_classifier(find_classifier(run))


def find_audio(inputs: Sequence[str]) -> list[tuple[str, AudioRef]]:
    """Return the name and audio of each clip in `inputs`: files, folders of audio files, and sources.

    Raises SourceError if all files are missing, or if there are none.
    """
    clips: list[tuple[str, AudioRef]] = []
    for name in inputs:
        path = Path(name)
        if path.is_file() or (_is_audio(path) and not path.exists()):
            clips.append((name, FileRef(path)))
        elif path.is_dir() and (files := [file for file in visible_files(path) if _is_audio(file)]):
            clips += [(str(file), FileRef(file)) for file in files]
        else:
            source = open_source(name, field="", needs_label=False)
            clips += [(clip.clip_id, ref) for clip, ref in zip(source.clips, source.audio, strict=True)]
    missing = [name for name, ref in clips if isinstance(ref, FileRef) and not ref.path.exists()]
    if missing and len(missing) == len(clips):
        verb = "does" if len(missing) == 1 else "do"
        raise SourceError(f"{abbreviate_list(missing)} {verb} not exist", hint=NAME_AUDIO)
    if not clips:
        raise SourceError("there is nothing to predict", hint=NAME_AUDIO)
    return clips


def _is_audio(path: Path) -> bool:
    return path.suffix.lower() in AUDIO_SUFFIXES | UNREAD_SUFFIXES


def predict(
    what: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    run: str | os.PathLike[str] | AudioClassifier = "runs",
    *,
    reporter: Reporter | None = None,
) -> list[Prediction]:
    """Classify files, folders and sources with a loaded classifier, or that of a run (a folder or a Hub id).

    A clip longer than the classifier's input is cut into windows, and their probabilities are averaged. A shorter clip is
    repeated or padded as in training. A clip that cannot be read gets a `problem`.

    Raises: UsageError if `run` is not a run; SourceError if no input exists.
    """
    names = [os.fspath(what)] if isinstance(what, (str, os.PathLike)) else [os.fspath(item) for item in what]
    if not all(name.strip() for name in names):
        raise UsageError("the name of an input is empty", hint=NAME_AUDIO)
    model = run if isinstance(run, AudioClassifier) else load_classifier(run)
    clips = find_audio(names)
    predictions: list[Prediction] = []
    with (reporter or Reporter()).task("classifying", "clips", len(clips)) as task:
        for start in range(0, len(clips), BATCH_FILES):
            predictions += _predict_batch(clips[start : start + BATCH_FILES], model)
            task.update(len(predictions))
    return predictions


CSV_COLUMNS = ("file", "class", "probability", "next_class", "next_probability", "problem")
FORMULA_STARTS = ("=", "+", "-", "@")  # a spreadsheet evaluates text that begins so


def write_csv(predictions: Sequence[Prediction], path: str | os.PathLike[str]) -> None:
    """Write one row for each clip, ending with the probability of each class. `-` is standard output.

    Raises UsageError if the file cannot be written.
    """
    classes = list(dict.fromkeys(name for prediction in predictions for name in prediction.probabilities))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*CSV_COLUMNS, *(_csv_cell(f"p({name})") for name in classes)])
    for one in predictions:
        row = (
            one.file, one.class_name, one.probability, one.next_class, one.next_probability, one.problem,
            *(one.probabilities.get(name) for name in classes),
        )  # fmt: skip
        writer.writerow([_csv_cell(value) for value in row])
    if os.fspath(path) == "-":
        sys.stdout.write(text.getvalue())
        return
    file, content = Path(path), text.getvalue().encode(errors="surrogateescape")
    try:
        if file.exists() and not file.is_file():  # a pipe, or /dev/stdout
            file.write_bytes(content)
        else:
            atomic_write(file, content)
    except OSError as error:
        why = f"cannot be written ({error.strerror})"
        raise UsageError(why, field="csv", value=path, hint="Name another file.") from error


def _csv_cell(value: float | str | None) -> float | str:
    """Return a value that is safe in a spreadsheet and a terminal: never a formula, and without control characters."""
    if not isinstance(value, str):
        return "" if value is None else value
    plain = "".join("\ufffd" if ord(one) < 32 or 127 <= ord(one) < 160 else one for one in value)
    return f"'{plain}" if plain.startswith(FORMULA_STARTS) else plain


def _predict_batch(clips: Sequence[tuple[str, AudioRef]], model: AudioClassifier) -> Iterator[Prediction]:
    settings, names = model.feature_settings, model.class_names
    windows: list[np.ndarray] = []
    clip_windows: list[list[int] | str] = []  # for each clip the indices of its windows, or its problem
    for _, ref in clips:
        try:
            samples = dequantize(*quantize(decode(ref, settings.sample_rate_hz)))
        except BadAudioError as error:
            clip_windows.append(str(error))
            continue
        except OSError as error:
            is_missing = isinstance(error, FileNotFoundError)
            clip_windows.append("does not exist" if is_missing else error.strerror or "cannot be read")
            continue
        new_windows = list(_windows(samples, settings))
        clip_windows.append(list(range(len(windows), len(windows) + len(new_windows))))
        windows += new_windows
    batches = [
        model.probabilities(torch.from_numpy(np.stack(windows[i : i + 64]))).numpy()
        for i in range(0, len(windows), 64)
    ]
    probabilities = np.concatenate(batches) if batches else np.zeros((0, len(names)), np.float32)
    for (name, _), indices in zip(clips, clip_windows, strict=True):
        if isinstance(indices, str):
            yield Prediction(name, None, None, None, None, {}, indices)
            continue
        mean = probabilities[indices].mean(axis=0)
        if not np.isfinite(mean).all():  # samples far beyond full scale overflow
            yield Prediction(name, None, None, None, None, {}, "samples too large to be sound")
            continue
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
    """Cut audio into consecutive windows of the classifier's input length, without a last one shorter than half of it."""
    n = settings.n_samples
    if not settings.repeat_short:  # such a classifier was trained on the beginnings of clips only
        yield fit_length(samples, n, False)
        return
    yield fit_length(samples, n, True)
    for start in range(n, len(samples), n):
        window = samples[start : start + n]
        if len(window) >= n / 2:
            yield fit_length(window, n, True)
