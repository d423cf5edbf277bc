"""What clips are compared in: statistics of the log-mel spectrogram, a trained classifier, or any `transformers` model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from usk.audio.features import FOUR_SECONDS, Features, fit_length
from usk.classify.classifier import WEIGHTS_FILE
from usk.classify.transformer import download_pretrained, transformers
from usk.data.decode import DecodedSource
from usk.errors import UsageError
from usk.hub import first_line
from usk.runs import record_or_none, run_folders

Embed = Callable[[Sequence[np.ndarray]], np.ndarray]
"""Clips at 22.05 kHz to vectors [n, dimensions]."""

LOG_MEL = "log-mel"
AUTO = "auto"
CHUNK = 64
RATE_HZ = FOUR_SECONDS.mel.sample_rate_hz
SHORTEST_S, LONGEST_S = 0.1, 10.0  # of what a `transformers` model hears


@dataclass(frozen=True)
class Embedding:
    """An embedding, and the name that stands beside every figure in it."""

    name: str
    embed: Embed

    def of(
        self, decoded: DecodedSource, rows: Sequence[int], after: Callable[[int], None] = lambda _: None
    ) -> np.ndarray:
        """Rows of a source at 22.05 kHz: [n, dimensions]. `after` gets the clips done with each chunk."""
        parts = []
        for begin in range(0, len(rows), CHUNK):
            chunk = rows[begin : begin + CHUNK]
            parts.append(self.embed([decoded.audio(row) for row in chunk]))
            after(len(chunk))
        return np.concatenate(parts) if parts else np.zeros((0, 1))


def features_of(audio: Sequence[np.ndarray], settings: Features = FOUR_SECONDS) -> torch.Tensor:
    """Features (log-mel in dB) of clips at 22.05 kHz: [n, bands, frames]."""
    import soxr

    if settings.sample_rate_hz != RATE_HZ:
        audio = [soxr.resample(samples, RATE_HZ, settings.sample_rate_hz, quality="HQ") for samples in audio]
    fitted = [fit_length(samples, settings.n_samples, settings.repeat_short) for samples in audio]
    return torch.cat(
        [
            settings.of_audio(torch.from_numpy(np.stack(fitted[begin : begin + 64])))
            for begin in range(0, len(fitted), 64)
        ]
    )


def log_mel_statistics(audio: Sequence[np.ndarray]) -> np.ndarray:
    """Per-band mean, deviation and mean absolute change over time of log-mel in dB, loudness removed: [n, 192]."""
    parts = [_statistics(features_of(audio[begin : begin + 64])) for begin in range(0, len(audio), 64)]
    return np.concatenate(parts)


def _statistics(features: torch.Tensor) -> np.ndarray:
    features = features.float()
    features = features - features.mean(dim=(1, 2), keepdim=True)
    change = features.diff(dim=2).abs().mean(dim=2)
    return torch.cat((features.mean(dim=2), features.std(dim=2), change), dim=1).numpy()


def classifier_embedding(run: Path) -> Embed:
    """What the classifier of a run sees before its last linear layer: [n, its inputs].

    Of one that looks at several patches of a clip (all clips' first ones, then all their second ones), the mean of them.
    """
    from usk.classify.runs import classifier_in

    model = classifier_in(run)
    settings = model.feature_settings
    last = [module for module in model.modules() if isinstance(module, torch.nn.Linear)][-1]

    def embed(audio: Sequence[np.ndarray]) -> np.ndarray:
        seen: list[torch.Tensor] = []
        handle = last.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
        try:
            with torch.no_grad():
                parts = features_of(audio, settings).split(128)
                for part in parts:
                    model(part.float())
        finally:
            handle.remove()
        each = zip(seen, parts, strict=True)
        return torch.cat([rows.unflatten(0, (-1, len(part))).mean(dim=0) for rows, part in each]).numpy()

    return embed


def transformers_embedding(model_id: str) -> Embedding:
    """What an audio model of the `transformers` library makes of a clip: [n, dimensions].

    `model_id` is a folder or a Hub id with optional `@revision`. A model that joins text and audio (CLAP) gives its audio
    features, others what they pool, or the mean over time of their (encoder's) last layer. Clips are heard one by one,
    their first `LONGEST_S` seconds, at the model's rate.

    Raises: UsageError with one line that names the fix.
    """
    import soxr

    subject, instead = f"--embedding {model_id}", f"name a folder of the model, or use --embedding {LOG_MEL}"
    library = transformers(subject, f"use --embedding {LOG_MEL}")
    folder, name = Path(model_id), model_id
    if not folder.is_dir():
        folder = download_pretrained(model_id, subject, instead, UsageError)
        name = f"{model_id.partition('@')[0]}@{folder.name}"
    try:
        extractor = library.AutoFeatureExtractor.from_pretrained(folder, local_files_only=True)
        model = library.AutoModel.from_pretrained(folder, local_files_only=True).eval()
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(
            f"{subject} is no audio model that transformers can load: {first_line(error)}"
        ) from error
    rate_hz = getattr(extractor, "sampling_rate", None)
    if rate_hz is None:
        raise UsageError(f"{subject} is no audio model: it does not say at which rate it listens; {instead}")
    # CLAP would draw a part of what is longer than it hears.
    longest_s = min(LONGEST_S, getattr(extractor, "max_length_s", None) or LONGEST_S)

    def one(samples: np.ndarray) -> np.ndarray:
        heard = soxr.resample(samples[: int(longest_s * RATE_HZ)], RATE_HZ, rate_hz, quality="HQ")
        heard = heard[: int(longest_s * rate_hz)]
        heard = np.pad(heard, (0, max(0, round(SHORTEST_S * rate_hz) - len(heard))))
        inputs = extractor(heard, sampling_rate=rate_hz, return_tensors="pt")
        with torch.no_grad():
            if hasattr(model, "get_audio_features"):
                made = model.get_audio_features(**inputs)
            else:
                made = (model.get_encoder() if model.config.is_encoder_decoder else model)(**inputs)
        if isinstance(made, torch.Tensor):
            return made[0].numpy()
        pooled = getattr(made, "pooler_output", None)
        return (made.last_hidden_state.mean(dim=1) if pooled is None else pooled)[0].numpy()

    return Embedding(name, lambda audio: np.stack([one(samples) for samples in audio]))


def best_run(runs: Path, class_names: Sequence[str]) -> Path | None:
    """Of the runs under `runs` that trained on real clips alone and know these classes, the newest of most clips, or None."""
    found = [
        (record.n_real, record.created, record.folder)
        for record in map(record_or_none, run_folders(runs))  # None for a damaged one: `usk eval` says so
        if record is not None and record.mix == "real" and record.class_names == tuple(class_names)
    ]
    return max((one for one in found if (one[-1] / WEIGHTS_FILE).is_file()), default=(None,))[-1]


def _name_of(run: Path) -> str:
    record = record_or_none(run)
    trained = f", trained on {record.n_real:,} real clips" if record is not None else ""
    return f"classifier of {run.name}{trained}, before its last layer"


def embedding_named(
    name: str = AUTO, run: Path | None = None, runs: Path = Path("runs"), class_names: Sequence[str] = ()
) -> Embedding:
    """The embedding of `--embedding` and `--run`.

    `auto` is the classifier under `runs` that was trained on most real clips, and on nothing else; else log-mel statistics.

    Raises UsageError for both flags at once, and for a model that cannot be loaded.
    """
    if run is not None and name != AUTO:
        raise UsageError(f"--run and --embedding {name} are two embeddings; give one of them")
    if name == AUTO:
        run = run or best_run(runs, class_names)
    if run is not None:
        return Embedding(_name_of(run), classifier_embedding(run))
    if name in (AUTO, LOG_MEL):
        return Embedding("log-mel statistics", log_mel_statistics)
    return transformers_embedding(name)
