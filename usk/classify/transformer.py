"""Audio classifiers of `transformers`, with a new head for our classes; the one importer of that library.

Nothing of a checkpoint is run as code: weights are safetensors, or `.bin` files that torch reads as weights alone.
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

from usk.classify.augment import AUGMENTATIONS, CROP, MIXUP
from usk.classify.recipe import ClassifierPreset
from usk.data.pinned import download
from usk.diffusion.weights import quiet_log
from usk.errors import ModelError, UsageError, UskError
from usk.files import expanded
from usk.hub import first_line
from usk.typed_json import absurd_size

CLIP_S = 4.0
MAX_PARAMETERS = 2_000_000_000
EXTRACTOR_FILE = "preprocessor_config.json"
OF_LEVELS = ("filter", "gain", "noise")  # need features in dB, which only the extractor knows
OF_BANDS = ("pitch",)


def transformers(subject: str = "a classifier hf:...", instead: str = "") -> Any:
    """The library. Raises UsageError where it is not installed.

    Args:
        subject: what needs it, as the message begins.
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
    """What a model's own feature extractor makes of the first four seconds of a clip, short ones repeated.

    Waveforms are images of one band; spectrograms are turned so that bands come first.
    """

    extractor: Any
    shape: tuple[int, int]
    bands_first: bool  # as the model wants them
    is_waveform: bool
    sounding: int  # frames that hold sound; what follows is padding, as AST makes ten seconds of four
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
        """Find out what the extractor makes by asking it for two clips of noise."""
        unknown = cls(extractor, (1, 1), True, False, 1)
        noise = np.random.default_rng(0).uniform(-0.5, 0.5, (2, unknown.n_samples)).astype(np.float32)
        made = unknown._extract(noise)
        if made[0].ndim == 1:
            return cls(extractor, (1, made.shape[1]), True, True, made.shape[1])
        bands = getattr(extractor, "num_mel_bins", None) or extractor.feature_size
        bands_first = made.shape[1] == bands and made.shape[2] != bands
        made = made if bands_first else made.transpose(1, 2)
        differing = (made[0] != made[1]).any(dim=0).nonzero()
        sounding = int(differing.max()) + 1 if len(differing) else made.shape[2]
        return cls(extractor, (made.shape[1], made.shape[2]), bands_first, False, sounding)

    def _extract(self, audio: np.ndarray) -> torch.Tensor:
        made = self.extractor(list(audio), sampling_rate=self.sample_rate_hz, return_tensors="np")
        return torch.from_numpy(np.asarray(made[self.input_name], dtype=np.float32))

    def of_audio(self, audio: torch.Tensor) -> torch.Tensor:
        """Audio [batch, n_samples] to [batch, bands, frames], in the extractor's own units."""
        made = self._extract(audio.numpy())
        if self.is_waveform:
            return made[:, None]
        return made if self.bands_first else made.transpose(1, 2)


class TransformerClassifier(nn.Module):
    """A model of `transformers` behind features [batch, bands, frames]."""

    def __init__(self, model: nn.Module, features: ExtractorFeatures) -> None:
        super().__init__()
        self.model = model
        self.input_name = features.input_name
        self.is_waveform, self.bands_first = features.is_waveform, features.bands_first

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Logits [batch, n_classes]."""
        wanted = features
        if self.is_waveform:
            wanted = features[:, 0]
        elif not self.bands_first:
            wanted = features.transpose(1, 2)
        return self.model(**{self.input_name: wanted}).logits


def transformer_preset(place: str) -> ClassifierPreset:
    """The recipe for fine-tuning the audio classifier in a folder, or of a Hub id with optional `@revision`.

    Every part of it is trained, at 5e-5 with warm-up and cosine decay.

    Raises ModelError where there is none, UsageError where `transformers` is not installed.
    """
    library = transformers()
    at: dict[str, Any] = {"field": "classifier", "value": f"hf:{place}"}
    folder = located(place, at)
    config, extractor = _described(folder, at)
    if type(config) not in library.MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING:
        raise ModelError(
            f"is a {config.model_type} model, which is not an audio classifier of transformers",
            **at,
            hint="Take one such as MIT/ast-finetuned-audioset-10-10-0.4593.",
        )
    try:
        features = ExtractorFeatures.of(extractor)
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        raise ModelError(f"its feature extractor takes no mono audio ({first_line(error)})", **at) from error

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
                raise ModelError(f"cannot be loaded: {first_line(error)}", **at) from error
        body = [name for name in model.state_dict() if name.startswith(f"{model.base_model_prefix}.")]
        absent = set(body) & {*loaded["missing_keys"], *(name for name, *_ in loaded["mismatched_keys"])}
        if 10 * len(absent) > len(body):
            missing = f"{len(absent)} of {len(body)} tensors are missing"
            raise ModelError(f"holds other weights than its config.json says: {missing}", **at)
        head = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
        head.reset_parameters()  # new even where the checkpoint has as many classes of its own
        return TransformerClassifier(model.float(), features)

    build(2)  # what cannot be loaded is said now, not after decoding
    return _preset(build, features, config, extractor, _fingerprint(folder))


def transformer_described(described: Mapping[str, Any], name: str) -> ClassifierPreset:
    """The same from its `config` and `extractor`: the network's shape, without the checkpoint's weights.

    Raises ModelError for ones that are not understood, or for a network too large to be one.
    """
    library = transformers()
    at: dict[str, Any] = {"value": name}
    with tempfile.TemporaryDirectory() as folder:  # where the library's own, careful readers find them
        for file, part in (("config.json", "config"), (EXTRACTOR_FILE, "extractor")):
            (Path(folder) / file).write_text(json.dumps(described[part]), encoding="utf-8")
        config, extractor = _described(Path(folder), at)
    try:
        features = ExtractorFeatures.of(extractor)
        with torch.device("meta"):
            size = sum(
                p.numel() for p in library.AutoModelForAudioClassification.from_config(config).parameters()
            )
    except (TypeError, ValueError, AttributeError, KeyError, RuntimeError) as error:
        raise ModelError(f"cannot be built: {first_line(error)}", **at) from error
    if size > MAX_PARAMETERS:
        raise ModelError(f"has {size:,} parameters, and usk builds up to {MAX_PARAMETERS:,}", **at)

    def build(n_classes: int) -> nn.Module:
        config.num_labels = n_classes
        with quiet_log("transformers"):
            model = library.AutoModelForAudioClassification.from_config(config)
        return TransformerClassifier(model.float(), features)

    return _preset(build, features, config, extractor, "")


def _preset(
    build: Any, features: ExtractorFeatures, config: Any, extractor: Any, revision: str
) -> ClassifierPreset:
    barred = (CROP, *OF_LEVELS, *(OF_BANDS if features.is_waveform else ()))
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
        standardize=False,
        augmentable=tuple(name for name in (*AUGMENTATIONS, MIXUP) if name not in barred),
        transformer=partial(_described_by, config, extractor),
        revision=revision,
    )


def _described_by(config: Any, extractor: Any, class_names: Sequence[str]) -> dict[str, Any]:
    config.id2label = dict(enumerate(class_names))
    config.label2id = {name: label for label, name in enumerate(class_names)}
    return {
        "config": json.loads(config.to_json_string(use_diff=False)),
        "extractor": json.loads(extractor.to_json_string()),
    }


def located(place: str, at: dict[str, Any]) -> Path:
    """The folder of a model, downloaded if it is a Hub id."""
    folder = expanded(place)
    if place and folder.is_dir():
        return folder
    hub_id = place.partition("@")[0]
    if not place or folder.exists() or hub_id.count("/") > 1 or place.startswith((".", "/", "~")):
        raise ModelError("no such folder", **at, hint="Name a model's folder, or a Hub id (user/name).")
    return download_pretrained(place, f"hf:{place}", "name a model's folder", ModelError)


def download_pretrained(hub_id: str, subject: str, instead: str, error: type[UskError]) -> Path:
    """The folder with a model of the Hub (`user/name[@revision]`): its JSON files and its weights.

    Weights are safetensors; pickled ones are downloaded where there are no others. Raises `error` in one line (see
    `usk.hub.hub_errors`).
    """
    for weights in ("*.safetensors", "pytorch_model*.bin"):
        folder = download(hub_id, ("*.json", weights), subject, instead, error)
        if any(folder.glob(weights)):
            break
    return folder


def _fingerprint(folder: Path) -> str:
    """Twelve hex digits of SHA-256 over a model folder's weights and configurations."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix in (".json", ".safetensors", ".bin") and path.is_file():
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:12]


def _described(folder: Path, at: dict[str, Any]) -> tuple[Any, Any]:
    """The model's configuration and feature extractor; ModelError where a file of theirs is missing or not understood."""
    library = transformers()
    for name in ("config.json", EXTRACTOR_FILE):
        if not (folder / name).is_file():
            raise ModelError(f"is not an audio classifier: it has no {name}", **at)
    try:
        for name in ("config.json", EXTRACTOR_FILE):
            if large := absurd_size(json.loads((folder / name).read_text(encoding="utf-8"))):
                raise ValueError(f"{large} in its {name} is too large")
        with quiet_log("transformers"):
            config = library.AutoConfig.from_pretrained(folder, trust_remote_code=False)
            extractor = library.AutoFeatureExtractor.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ModelError(f"cannot be loaded: {first_line(error)}", **at) from error
    if hasattr(config, "apply_spec_augment"):
        config.apply_spec_augment = False  # the recipe's augmentation decides, drawn from the run's seed
    return config, extractor
