"""What clips are compared in: statistics of the log-mel spectrogram, a trained classifier, or any `transformers` model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from usk.audio.features import FOUR_SECONDS, Features, features_at
from usk.classify.classifier import WEIGHTS_FILE
from usk.classify.predict import find_classifier
from usk.classify.transformer import download_pretrained, transformers
from usk.data.decode import DecodedSource, resampled
from usk.data.pinned import looks_like_hub_id, pin
from usk.errors import UsageError
from usk.files import expanded
from usk.hub import first_line
from usk.reporter import Task
from usk.runs import RUN_FILE, record_or_none, run_folders

Embed = Callable[[Sequence[np.ndarray]], np.ndarray]
"""Clips at 22.05 kHz to vectors [n, dimensions]."""

LOG_MEL = "log-mel"
AUTO = "auto"
CHUNK = 64
RATE_HZ = FOUR_SECONDS.mel.sample_rate_hz
SHORTEST_S, LONGEST_S = 0.1, 10.0  # of a clip, for a `transformers` model


@dataclass(frozen=True)
class Embedding:
    """An embedding, and its name, which is given with every result in it."""

    name: str
    embed: Embed

    def of(
        self, decoded: DecodedSource, rows: Sequence[int], task: Task | None = None, done: int = 0
    ) -> np.ndarray:
        """Rows of a source at 22.05 kHz: [n, dimensions]. `done` clips of the task were embedded before."""
        parts = []
        for begin in range(0, len(rows), CHUNK):
            chunk = rows[begin : begin + CHUNK]
            parts.append(self.embed([decoded.audio(row) for row in chunk]))
            if task is not None:
                task.update(done + begin + len(chunk))
        return np.concatenate(parts) if parts else np.zeros((0, 1))


def features_of(audio: Sequence[np.ndarray], settings: Features = FOUR_SECONDS) -> torch.Tensor:
    """Features (log-mel in dB) of clips at 22.05 kHz: float32 [n, bands, frames]."""
    return features_at(audio, len(audio), RATE_HZ, settings, torch.float32)


def log_mel_statistics(audio: Sequence[np.ndarray]) -> np.ndarray:
    """Per-band mean, deviation and mean absolute change over time of log-mel in dB, loudness removed: [n, 192]."""
    features = features_of(audio)
    features = features - features.mean(dim=(1, 2), keepdim=True)
    change = features.diff(dim=2).abs().mean(dim=2)
    return torch.cat((features.mean(dim=2), features.std(dim=2), change), dim=1).numpy()


def classifier_embedding(run: Path, device: torch.device | str = "cpu") -> Embed:
    """The input of a run's classifier's last linear layer: [n, its inputs].

    Of one that looks at several patches of a clip (all clips' first ones, then all their second ones), the mean of them.
    """
    from usk.classify.classifier import classifier_in

    model = classifier_in(run).to(device)
    settings = model.feature_settings
    last = [module for module in model.modules() if isinstance(module, torch.nn.Linear)][-1]

    def embed(audio: Sequence[np.ndarray]) -> np.ndarray:
        seen: list[torch.Tensor] = []
        handle = last.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
        try:
            with torch.no_grad():
                parts = features_of(audio, settings).split(128)
                for part in parts:
                    model(part.float().to(device))
        finally:
            handle.remove()
        each = zip(seen, parts, strict=True)
        found = [rows.unflatten(0, (-1, len(part))).mean(dim=0) for rows, part in each]
        return torch.cat(found).float().cpu().numpy()

    return embed


def transformers_embedding(model_id: str, device: torch.device | str = "cpu") -> Embedding:
    """What an audio model of the `transformers` library makes of a clip: [n, dimensions].

    `model_id` is a folder or a Hub id with optional `@revision`. A model that joins text and audio (CLAP) gives its audio
    features, others what they pool, or the mean over time of their (encoder's) last layer. Clips go in one by one, their
    first `LONGEST_S` seconds, at the model's rate.

    Raises: UsageError with one line that names the fix.
    """
    subject, instead = f"the embedding {model_id}", f"name a folder of the model, or {LOG_MEL}"
    library = transformers(subject, f"name {LOG_MEL}")
    folder, name = Path(model_id), model_id
    if not folder.is_dir():
        folder = download_pretrained(model_id, subject, instead, UsageError)
        name = f"{model_id.partition('@')[0]}@{folder.name}"
    try:
        extractor = library.AutoFeatureExtractor.from_pretrained(folder, local_files_only=True)
        model = library.AutoModel.from_pretrained(folder, local_files_only=True).eval().to(device)
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(
            f"not an audio model that transformers can load ({first_line(error)})",
            field="embedding",
            value=model_id,
        ) from error
    if getattr(extractor, "sampling_rate", None) is None:
        raise UsageError(
            "not an audio model: it names no sampling rate",
            field="embedding",
            value=model_id,
            hint=f"Name another model, or {LOG_MEL}.",
        )

    def embed(audio: Sequence[np.ndarray]) -> np.ndarray:
        with torch.no_grad():
            inputs = (audio_inputs(extractor, samples, RATE_HZ).to(device) for samples in audio)
            return np.stack([_vector(model, one).cpu().numpy() for one in inputs])

    return Embedding(name, embed)


def audio_inputs(extractor: Any, samples: np.ndarray, given_hz: int) -> Any:
    """One clip as the model takes it."""
    rate_hz = extractor.sampling_rate
    # CLAP would draw a part at random of what is longer than its window.
    longest_s = min(LONGEST_S, getattr(extractor, "max_length_s", None) or LONGEST_S)
    cut = resampled(samples[: int(longest_s * given_hz)], given_hz, rate_hz)
    cut = cut[: int(longest_s * rate_hz)]
    cut = np.pad(cut, (0, max(0, round(SHORTEST_S * rate_hz) - len(cut))))
    return extractor(cut, sampling_rate=rate_hz, return_tensors="pt")


def _vector(model: Any, inputs: Any) -> torch.Tensor:
    """What the model makes of one clip: [dimensions]."""
    if hasattr(model, "get_audio_features"):
        made = model.get_audio_features(**inputs)
    else:
        made = (model.get_encoder() if model.config.is_encoder_decoder else model)(**inputs)
    return vector_of(made)


def vector_of(made: Any) -> torch.Tensor:
    """What a model returns for one clip or text, pooled: [dimensions]."""
    if isinstance(made, torch.Tensor):
        return made[0]
    pooled = getattr(made, "pooler_output", None)
    vector: torch.Tensor = (made.last_hidden_state.mean(dim=1) if pooled is None else pooled)[0]
    return vector


def best_run(runs: Path, class_names: Sequence[str]) -> Path | None:
    """Of the runs under `runs` that trained on real clips alone and know these classes, the newest of most clips, or None."""
    found = [
        (record.n_real, record.created, record.folder)
        for record in map(record_or_none, run_folders(runs))  # None for a damaged one: `usk eval` says so
        if record is not None and record.mix == "real" and record.class_names == tuple(class_names)
    ]
    return max((one for one in found if (one[-1] / WEIGHTS_FILE).is_file()), default=(None,))[-1]


def embedding_named(
    name: str = AUTO,
    runs: Path = Path("runs"),
    class_names: Sequence[str] = (),
    device: torch.device | str = "cpu",
) -> Embedding:
    """The embedding that `usk audit` is asked for: `log-mel`, a run or a model of `transformers`, in a folder or on the Hub.

    `auto` is the classifier of the run under `runs` that was trained on most real clips and on nothing else; without any,
    log-mel statistics. Raises UsageError for a model that cannot be loaded.
    """
    run = best_run(runs, class_names) if name == AUTO else _run_named(name)
    if run is not None:
        record = record_or_none(run)
        trained = f", trained on {record.n_real:,} real clips" if record is not None else ""
        name = f"classifier of {run.name}{trained}, before its last layer"
        return Embedding(name, classifier_embedding(run, device))
    if name in (AUTO, LOG_MEL):
        return Embedding("log-mel statistics", log_mel_statistics)
    return transformers_embedding(name, device)


def _run_named(name: str) -> Path | None:
    """The folder of the run that is named so, here or on the Hub; None for other models."""
    folder = expanded(name)
    if (folder / RUN_FILE).is_file():
        return folder
    if folder.exists() or not looks_like_hub_id(name):
        return None
    pinned = pin(name, "model", f"the embedding {name}", f"name a folder, or {LOG_MEL}", UsageError)
    return find_classifier(name) if RUN_FILE in pinned.files else None
