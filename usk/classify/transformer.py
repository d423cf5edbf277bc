"""Fine-tune audio classifiers of `transformers` with a new head. Only this module imports that library.

No code of a checkpoint is run: weights are safetensors, or `.bin` files that torch reads with `weights_only`.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch import nn

from usk.classify.augment import AUGMENTATIONS, CROP, MIXUP, NEED_BANDS, NEED_DECIBELS
from usk.classify.recipe import ClassifierPreset
from usk.data.pinned import download
from usk.diffusion.weights import quiet_log
from usk.errors import ModelError, UsageError, UskError
from usk.files import expanded, sha256_of
from usk.hub import first_line
from usk.typed_json import oversized_key

CLIP_S = 4.0
MAX_PARAMETERS = 2_000_000_000
EXTRACTOR_FILE = "preprocessor_config.json"


def transformers(subject: str = "a classifier hf:...", instead: str = "") -> Any:
    """Import and return the library. Raises UsageError if it is not installed.

    Args:
        subject: what needs the library; the message begins with it.
        instead: what the user can do without it, as an imperative.
    """
    try:
        import transformers as library
    except ImportError as error:
        fix = f"pip install 'urban-sound-kit[hf]'{f', or {instead}' if instead else ''}"
        raise UsageError(f"{subject} needs transformers, which is not installed; {fix}") from error
    return library


@dataclass(frozen=True)
class ExtractorFeatures:
    """Features [bands, frames] of a model's own extractor, of the first four seconds of a clip. Short clips are repeated.

    A waveform counts as one band. A spectrogram is transposed so that bands come first.
    """

    extractor: Any
    shape: tuple[int, int]
    bands_first: bool  # whether the model's own layout has bands first
    is_waveform: bool
    sounding: int  # leading frames that hold sound; the rest is padding (AST pads four seconds to ten)
    repeat_short: bool = True

    @property
    def sample_rate_hz(self) -> int:
        return int(self.extractor.sampling_rate)

    @property
    def n_samples(self) -> int:
        return round(CLIP_S * self.sample_rate_hz)

    @property
    def input_name(self) -> str:
        return str(self.extractor.model_input_names[0])

    @classmethod
    def of(cls, extractor: Any) -> ExtractorFeatures:
        """Determine the extractor's output format from two clips of noise."""
        unknown = cls(extractor, (1, 1), True, False, 1)
        noise = np.random.default_rng(0).uniform(-0.5, 0.5, (2, unknown.n_samples)).astype(np.float32)
        features = unknown._extract(noise)
        if features[0].ndim == 1:
            return cls(extractor, (1, features.shape[1]), True, True, features.shape[1])
        bands = getattr(extractor, "num_mel_bins", None) or extractor.feature_size
        bands_first = features.shape[1] == bands and features.shape[2] != bands
        features = features if bands_first else features.transpose(1, 2)
        differing = (features[0] != features[1]).any(dim=0).nonzero()  # padding is the same in both clips
        sounding = int(differing.max()) + 1 if len(differing) else features.shape[2]
        return cls(extractor, (features.shape[1], features.shape[2]), bands_first, False, sounding)

    def _extract(self, audio: np.ndarray) -> torch.Tensor:
        output = self.extractor(list(audio), sampling_rate=self.sample_rate_hz, return_tensors="np")
        return torch.from_numpy(np.asarray(output[self.input_name], dtype=np.float32))

    def of_audio(self, audio: torch.Tensor) -> torch.Tensor:
        """Return features [batch, bands, frames] of audio [batch, n_samples], in the extractor's own unit."""
        features = self._extract(audio.numpy())
        if self.is_waveform:
            return features[:, None]
        return features if self.bands_first else features.transpose(1, 2)


class TransformerClassifier(nn.Module):
    """A `transformers` model that takes features [batch, bands, frames]."""

    def __init__(self, model: nn.Module, features: ExtractorFeatures) -> None:
        super().__init__()
        self.model = model
        self.input_name = features.input_name
        self.is_waveform, self.bands_first = features.is_waveform, features.bands_first

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return logits [batch, n_classes]."""
        if self.is_waveform:
            features = features[:, 0]
        elif not self.bands_first:
            features = features.transpose(1, 2)
        return self.model(**{self.input_name: features}).logits


def transformer_preset(location: str) -> ClassifierPreset:
    """Return the preset that fine-tunes an audio classifier, given its folder or Hub id with optional `@revision`.

    All weights are trained, at a learning rate of 5e-5 with warm-up and cosine decay.

    Raises ModelError if there is no such classifier; UsageError if `transformers` is not installed.
    """
    library = transformers()
    subject: dict[str, Any] = {"field": "classifier", "value": f"hf:{location}"}  # of error messages
    folder = model_folder(location, subject)
    config, extractor = _load_config(folder, subject)
    if type(config) not in library.MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING:
        raise ModelError(
            f"is a {config.model_type} model, which is not an audio classifier of transformers",
            **subject,
            hint="Choose one such as MIT/ast-finetuned-audioset-10-10-0.4593.",
        )
    try:
        features = ExtractorFeatures.of(extractor)
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        raise ModelError(
            f"its feature extractor does not take mono audio ({first_line(error)})", **subject
        ) from error

    def build(n_classes: int) -> nn.Module:
        config.num_labels = n_classes
        with quiet_log("transformers"):
            try:
                model, loaded = library.AutoModelForAudioClassification.from_pretrained(
                    folder,
                    config=config,
                    ignore_mismatched_sizes=True,
                    trust_remote_code=False,
                    output_loading_info=True,
                )
            except (OSError, ValueError, RuntimeError, SafetensorError, UnpicklingError) as error:
                raise ModelError(f"cannot be loaded: {first_line(error)}", **subject) from error
        body = [name for name in model.state_dict() if name.startswith(f"{model.base_model_prefix}.")]
        not_loaded = {*loaded["missing_keys"], *(name for name, *_ in loaded["mismatched_keys"])}
        absent = not_loaded.intersection(body)
        if 10 * len(absent) > len(body):
            missing = f"{len(absent)} of {len(body)} tensors are missing"
            raise ModelError(f"holds other weights than its config.json says: {missing}", **subject)
        head = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
        head.reset_parameters()  # also if the checkpoint's head has the same number of classes
        return TransformerClassifier(model.float(), features)

    build(2)  # fail before any audio is decoded
    return _preset(build, features, config, extractor, _fingerprint(folder))


def preset_from_config(settings: Mapping[str, Any], name: str) -> ClassifierPreset:
    """Return a transformer's preset from its `config` and `extractor`, without pretrained weights.

    Raises ModelError if they are invalid, or if the network has more than `MAX_PARAMETERS`.
    """
    library = transformers()
    subject: dict[str, Any] = {"value": name}
    with tempfile.TemporaryDirectory() as folder:  # the library's safe readers need files
        for file, part in (("config.json", "config"), (EXTRACTOR_FILE, "extractor")):
            (Path(folder) / file).write_text(json.dumps(settings[part]), encoding="utf-8")
        config, extractor = _load_config(Path(folder), subject)
    try:
        features = ExtractorFeatures.of(extractor)
        with torch.device("meta"):  # allocates no memory
            network = library.AutoModelForAudioClassification.from_config(config)
        size = sum(parameter.numel() for parameter in network.parameters())
    except (TypeError, ValueError, AttributeError, KeyError, RuntimeError) as error:
        raise ModelError(f"cannot be built: {first_line(error)}", **subject) from error
    if size > MAX_PARAMETERS:
        raise ModelError(f"has {size:,} parameters, and usk builds up to {MAX_PARAMETERS:,}", **subject)

    def build(n_classes: int) -> nn.Module:
        config.num_labels = n_classes
        with quiet_log("transformers"):
            model = library.AutoModelForAudioClassification.from_config(config)
        return TransformerClassifier(model.float(), features)

    return _preset(build, features, config, extractor, "")


def _preset(
    build: Any, features: ExtractorFeatures, config: Any, extractor: Any, revision: str
) -> ClassifierPreset:
    unsupported = (CROP, *NEED_DECIBELS, *(NEED_BANDS if features.is_waveform else ()))
    return ClassifierPreset(
        build,
        features,
        epochs=10,
        batch=16,
        learning_rate=5e-5,
        weight_decay=0.01,
        cosine=True,
        label_smoothing=0.0,
        augment="basic",
        min_steps=640,
        standardize=False,
        supported_augmentations=tuple(name for name in (*AUGMENTATIONS, MIXUP) if name not in unsupported),
        transformer=partial(_saved_config, config, extractor),
        revision=revision,
    )


def _saved_config(config: Any, extractor: Any, class_names: Sequence[str]) -> dict[str, Any]:
    """Return the `config` and `extractor` that `preset_from_config` reads, with the class names filled in."""
    config.id2label = dict(enumerate(class_names))
    config.label2id = {name: label for label, name in enumerate(class_names)}
    return {
        "config": json.loads(config.to_json_string(use_diff=False)),
        "extractor": json.loads(extractor.to_json_string()),
    }


def model_folder(location: str, subject: dict[str, Any]) -> Path:
    """Return a model's folder, and download a Hub id to one. `subject` are arguments of a ModelError."""
    folder = expanded(location)
    if location and folder.is_dir():
        return folder
    hub_id = location.partition("@")[0]
    if not location or folder.exists() or hub_id.count("/") > 1 or location.startswith((".", "/", "~")):
        raise ModelError("no such folder", **subject, hint="Name a model's folder, or a Hub id (user/name).")
    return download_pretrained(location, f"hf:{location}", "name a model's folder", ModelError)


def download_pretrained(hub_id: str, subject: str, instead: str, error: type[UskError]) -> Path:
    """Download the JSON files and weights of a Hub model (`user/name[@revision]`) and return their folder.

    Pickled weights are downloaded only if there are no safetensors. Raises `error` with one line (see `usk.hub.hub_errors`).
    """
    for weights in ("*.safetensors", "pytorch_model*.bin"):
        folder = download(hub_id, ("*.json", weights), subject, instead, error)
        if any(folder.glob(weights)):
            break
    return folder


def _fingerprint(folder: Path) -> str:
    """Return a SHA-256 hash (12 hex digits) of the weights and JSON files in a model's folder."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix in (".json", ".safetensors", ".bin") and path.is_file():
            digest.update(bytes.fromhex(sha256_of(path)))
    return digest.hexdigest()[:12]


def _load_config(folder: Path, subject: dict[str, Any]) -> tuple[Any, Any]:
    """Return a model's configuration and feature extractor. Raises ModelError if one is missing or invalid."""
    library = transformers()
    for name in ("config.json", EXTRACTOR_FILE):
        if not (folder / name).is_file():
            raise ModelError(f"is not an audio classifier: it has no {name}", **subject)
    try:
        for name in ("config.json", EXTRACTOR_FILE):
            if large := oversized_key(json.loads((folder / name).read_text(encoding="utf-8"))):
                raise ValueError(f"{large} in its {name} is too large")
        with quiet_log("transformers"):
            config = library.AutoConfig.from_pretrained(folder, trust_remote_code=False)
            extractor = library.AutoFeatureExtractor.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ModelError(f"cannot be loaded: {first_line(error)}", **subject) from error
    if hasattr(config, "apply_spec_augment"):
        config.apply_spec_augment = False  # augmentation comes from the recipe and the run's seed only
    return config, extractor
