"""Embed clips: by log-mel statistics, a trained classifier, or an audio model of `transformers`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from usk.audio.features import FOUR_SECONDS, Features, features_at
from usk.classify.classifier import WEIGHTS_FILE, read_classifier
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
"""Embeds n clips at 22.05 kHz as vectors [n, dimensions]."""

LOG_MEL = "log-mel"
AUTO = "auto"
CHUNK = 64
RATE_HZ = FOUR_SECONDS.mel.sample_rate_hz
MIN_LENGTH_S, MAX_LENGTH_S = 0.1, 10.0  # of a clip for a `transformers` model


@dataclass(frozen=True)
class Embedding:
    """An embedding and its name, which every result contains."""

    name: str
    embed: Embed

    def embed_rows(
        self, decoded: DecodedSource, rows: Sequence[int], task: Task | None = None, done: int = 0
    ) -> np.ndarray:
        """Embed rows of a source at 22.05 kHz: [n, dimensions]. `done` clips of the task are done already."""
        parts = []
        for begin in range(0, len(rows), CHUNK):
            chunk = rows[begin : begin + CHUNK]
            parts.append(self.embed([decoded.audio(row) for row in chunk]))
            if task is not None:
                task.update(done + begin + len(chunk))
        return np.concatenate(parts) if parts else np.zeros((0, 1))


def features_of(audio: Sequence[np.ndarray], settings: Features = FOUR_SECONDS) -> torch.Tensor:
    """Return features (log-mel in dB) of clips at 22.05 kHz: float32 [n, bands, frames]."""
    return features_at(audio, len(audio), RATE_HZ, settings, torch.float32)


def log_mel_statistics(audio: Sequence[np.ndarray]) -> np.ndarray:
    """Return the mean, deviation and mean absolute change over time of each log-mel band (dB), without loudness: [n, 192]."""
    features = features_of(audio)
    features = features - features.mean(dim=(1, 2), keepdim=True)
    change = features.diff(dim=2).abs().mean(dim=2)
    return torch.cat((features.mean(dim=2), features.std(dim=2), change), dim=1).numpy()


def classifier_embedding(run: Path, device: torch.device | str = "cpu") -> Embed:
    """Return an embedding by the input of the last linear layer of a run's classifier: [n, inputs].

    If the classifier splits clips into patches, the embedding is the mean over patches.
    """
    model = read_classifier(run).to(device)
    settings = model.feature_settings
    last = [module for module in model.modules() if isinstance(module, torch.nn.Linear)][-1]

    def embed(audio: Sequence[np.ndarray]) -> np.ndarray:
        captured: list[torch.Tensor] = []
        handle = last.register_forward_pre_hook(lambda _, inputs: captured.append(inputs[0].detach()))
        try:
            with torch.no_grad():
                parts = features_of(audio, settings).split(128)
                for part in parts:
                    model(part.float().to(device))
        finally:
            handle.remove()
        # Rows are ordered by patch: first patches of all clips, then second ones.
        vectors = [
            rows.unflatten(0, (-1, len(part))).mean(dim=0) for rows, part in zip(captured, parts, strict=True)
        ]
        return torch.cat(vectors).float().cpu().numpy()

    return embed


def transformers_embedding(model_id: str, device: torch.device | str = "cpu") -> Embedding:
    """Load an audio model of the `transformers` library as an embedding: [n, dimensions].

    `model_id` is a folder, or a Hub id with optional `@revision`. A model of text and audio (CLAP) embeds by its audio
    features. Other models embed by their pooled output, or by the mean over time of their (encoder's) last layer. Clips are
    embedded one by one, at the model's sampling rate, and only their first `MAX_LENGTH_S` seconds.

    Raise UsageError if the model cannot be loaded.
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
    """Resample and trim one clip, and return the inputs of the model."""
    rate_hz = extractor.sampling_rate
    # Trim to the model's window, because CLAP draws a random part of a longer clip.
    longest_s = min(MAX_LENGTH_S, getattr(extractor, "max_length_s", None) or MAX_LENGTH_S)
    cut = resampled(samples[: int(longest_s * given_hz)], given_hz, rate_hz)
    cut = cut[: int(longest_s * rate_hz)]
    cut = np.pad(cut, (0, max(0, round(MIN_LENGTH_S * rate_hz) - len(cut))))
    return extractor(cut, sampling_rate=rate_hz, return_tensors="pt")


def _vector(model: Any, inputs: Any) -> torch.Tensor:
    """Embed one clip: [dimensions]."""
    if hasattr(model, "get_audio_features"):
        return pooled_vector(model.get_audio_features(**inputs))
    encoder = model.get_encoder() if model.config.is_encoder_decoder else model
    return pooled_vector(encoder(**inputs))


def pooled_vector(output: Any) -> torch.Tensor:
    """Pool a model's output for one clip or text: [dimensions]."""
    if isinstance(output, torch.Tensor):
        return output[0]
    pooled = getattr(output, "pooler_output", None)
    vector: torch.Tensor = (output.last_hidden_state.mean(dim=1) if pooled is None else pooled)[0]
    return vector


def best_run(runs: Path, class_names: Sequence[str]) -> Path | None:
    """Return the run of these classes that was trained on the most real clips and no synthetic ones, the newest of several.

    Return None without such a run. Damaged runs are skipped; `usk eval` reports them.
    """
    records = [record_or_none(folder) for folder in run_folders(runs)]
    candidates = [
        record
        for record in records
        if record is not None
        and record.mix == "real"
        and record.class_names == tuple(class_names)
        and (record.folder / WEIGHTS_FILE).is_file()
    ]
    best = max(candidates, key=lambda run: (run.n_real, run.created, run.folder), default=None)
    return None if best is None else best.folder


def load_embedding(
    name: str = AUTO,
    runs: Path = Path("runs"),
    class_names: Sequence[str] = (),
    device: torch.device | str = "cpu",
) -> Embedding:
    """Load an embedding: `log-mel`, or a run or a model of `transformers`, in a folder or on the Hub.

    `auto` is the classifier of `best_run`, or `log-mel` without such a run. Raise UsageError if the model cannot be loaded.
    """
    run = best_run(runs, class_names) if name == AUTO else _find_run(name)
    if run is not None:
        record = record_or_none(run)
        trained = f", trained on {record.n_real:,} real clips" if record is not None else ""
        name = f"classifier of {run.name}{trained}, before its last layer"
        return Embedding(name, classifier_embedding(run, device))
    if name in (AUTO, LOG_MEL):
        return Embedding("log-mel statistics", log_mel_statistics)
    return transformers_embedding(name, device)


def _find_run(name: str) -> Path | None:
    """Return the folder of a run, downloaded if it is on the Hub. Return None if the name is not that of a run."""
    folder = expanded(name)
    if (folder / RUN_FILE).is_file():
        return folder
    if folder.exists() or not looks_like_hub_id(name):
        return None
    pinned = pin(name, "model", f"the embedding {name}", f"name a folder, or {LOG_MEL}", UsageError)
    return find_classifier(name) if RUN_FILE in pinned.files else None
