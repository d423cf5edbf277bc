"""`usk.predict`: what a trained classifier says of files, folders and sources."""

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
from usk.classify.classifier import CONFIG_FILE, WEIGHTS_FILE, AudioClassifier, classifier_in
from usk.classify.run_folder import CARD_FILE
from usk.data.audio_file import AUDIO_SUFFIXES, UNREAD_SUFFIXES, AudioRef, BadAudioError, FileRef
from usk.data.decode import as_kept, decode, from_kept
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
    """The folder of a run: itself, the only one under a folder of runs, or that of a Hub id (`user/name[@revision]`).

    Raises: UsageError with those to choose from, ModelError where the Hub does not give it.
    """
    folder = expanded(run)
    if (folder / RUN_FILE).is_file() or (folder / CONFIG_FILE).is_file():
        return folder
    runs = run_folders(folder)
    if len(runs) == 1:
        return runs[0]
    if runs:
        named = f"Name one of them: {abbreviate_list([str(path) for path in runs])}."
        raise UsageError(f"holds {len(runs)} runs", field="run", value=folder, hint=named)
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
    """The classifier of a run, ready to use: its folder, a folder that holds one run alone, or a Hub id[@revision].

    It is data that is loaded, never code: JSON and safetensors. Raises as `find_classifier` does, and ModelError for
    a damaged one.
    """
    return classifier_in(find_classifier(run))


def audio_of(what: Sequence[str]) -> list[tuple[str, AudioRef]]:
    """Names and places of all clips that are meant: files, every audio file below folders, or whole sources.

    Raises SourceError if none of them is there; some that are missing are named by their predictions.
    """
    found: list[tuple[str, AudioRef]] = []
    for item in what:
        path = Path(item)
        if path.is_file() or (_is_audio(path) and not path.exists()):
            found.append((item, FileRef(path)))
        elif path.is_dir() and (files := [file for file in visible_files(path) if _is_audio(file)]):
            found += [(str(file), FileRef(file)) for file in files]
        else:
            source = open_source(item, field="", needs_label=False)
            found += [(clip.clip_id, ref) for clip, ref in zip(source.clips, source.audio, strict=True)]
    missing = [name for name, ref in found if isinstance(ref, FileRef) and not ref.path.exists()]
    if missing and len(missing) == len(found):
        are = "is" if len(missing) == 1 else "are"
        raise SourceError(f"{abbreviate_list(missing)} {are} not there", hint=NAME_AUDIO)
    if not found:
        raise SourceError("there is nothing to predict", hint=NAME_AUDIO)
    return found


def _is_audio(path: Path) -> bool:
    return path.suffix.lower() in AUDIO_SUFFIXES | UNREAD_SUFFIXES


def predict(
    what: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    run: str | os.PathLike[str] | AudioClassifier = "runs",
    *,
    reporter: Reporter | None = None,
) -> list[Prediction]:
    """Classify files, folders and sources with the classifier of a run (a folder, a Hub id), or one that is loaded.

    Clips longer than what the classifier looks at are cut into windows of that length, and their probabilities averaged;
    others are repeated or padded as in training. A clip that cannot be read gets a `problem` and the rest goes on.

    Raises: UsageError for a run that is none, SourceError where there is nothing to read.
    """
    names = [os.fspath(what)] if isinstance(what, (str, os.PathLike)) else [os.fspath(w) for w in what]
    if not all(name.strip() for name in names):
        raise UsageError("a name of what to classify is empty", hint=NAME_AUDIO)
    model = run if isinstance(run, AudioClassifier) else load_classifier(run)
    clips = audio_of(names)
    predictions: list[Prediction] = []
    with (reporter or Reporter()).task("classifying", "clips", len(clips)) as task:
        for begin in range(0, len(clips), BATCH_FILES):
            predictions += _batch(clips[begin : begin + BATCH_FILES], model)
            task.update(len(predictions))
    return predictions


CSV_COLUMNS = ("file", "class", "probability", "next_class", "next_probability", "problem")
FORMULA_STARTS = ("=", "+", "-", "@")  # that spreadsheets compute


def write_csv(predictions: Sequence[Prediction], path: str | os.PathLike[str]) -> None:
    """A row a clip, with a column of probabilities for each class at the end. `-` is standard output.

    Raises UsageError where the file cannot be written.
    """
    classes = list(dict.fromkeys(name for one in predictions for name in one.probabilities))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*CSV_COLUMNS, *(_cell(f"p({name})") for name in classes)])
    for one in predictions:
        row = (
            one.file, one.class_name, one.probability, one.next_class, one.next_probability, one.problem,
            *(one.probabilities.get(name) for name in classes),
        )  # fmt: skip
        writer.writerow([_cell(value) for value in row])
    if os.fspath(path) == "-":
        sys.stdout.write(text.getvalue())
        return
    file, content = Path(path), text.getvalue().encode(errors="surrogateescape")
    try:
        if file.exists() and not file.is_file():  # a pipe, or /dev/stdout
            file.write_bytes(content)
        else:  # whole or not at all, and nothing through a link that was put there
            atomic_write(file, content)
    except OSError as error:
        why = f"cannot be written ({error.strerror})"
        raise UsageError(why, field="csv", value=path, hint="Name another file.") from error


def _cell(value: float | str | None) -> float | str:
    """A value as a spreadsheet and a terminal may have it: text is no formula, and holds no control characters."""
    if not isinstance(value, str):
        return "" if value is None else value
    plain = "".join("\ufffd" if ord(one) < 32 or 127 <= ord(one) < 160 else one for one in value)
    return f"'{plain}" if plain.startswith(FORMULA_STARTS) else plain


def _batch(clips: Sequence[tuple[str, AudioRef]], model: AudioClassifier) -> Iterator[Prediction]:
    settings, names = model.feature_settings, model.class_names
    windows: list[np.ndarray] = []
    of_clip: list[list[int] | str] = []  # a clip's windows, or its problem
    for _, ref in clips:
        try:
            samples = from_kept(*as_kept(decode(ref, settings.sample_rate_hz)))
        except BadAudioError as error:
            of_clip.append(str(error))
            continue
        except OSError as error:
            gone = isinstance(error, FileNotFoundError)
            of_clip.append("is not there" if gone else error.strerror or "cannot be read")
            continue
        own = list(_windows(samples, settings))
        of_clip.append(list(range(len(windows), len(windows) + len(own))))
        windows += own
    parts = [
        model.probabilities(torch.from_numpy(np.stack(windows[i : i + 64]))).numpy()
        for i in range(0, len(windows), 64)
    ]
    probabilities = np.concatenate(parts) if parts else np.zeros((0, len(names)), np.float32)
    for (name, _), rows in zip(clips, of_clip, strict=True):
        if isinstance(rows, str):
            yield Prediction(name, None, None, None, None, {}, rows)
            continue
        mean = probabilities[rows].mean(axis=0)
        if not np.isfinite(mean).all():  # of samples far beyond full scale
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
