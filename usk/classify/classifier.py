"""`AudioClassifier`: a network with its features and class names, saved as `config.json` and `model.safetensors`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import PyTorchModelHubMixin

from usk.audio.features import Features, FeatureSettings, FirstSecond
from usk.audio.mel import MelSettings
from usk.classify.config import TRANSFORMER
from usk.classify.networks import Standardized
from usk.classify.recipe import ClassifierPreset
from usk.classify.registry import CLASSIFIERS
from usk.device import autocast
from usk.errors import ModelError
from usk.files import expanded, read_json

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
SETTINGS = frozenset(
    {"architecture", "class_names", "mel", "repeat_short", "precision", "transformer", "window_frames"}
)
REQUIRED = frozenset({"architecture", "class_names"})
_HUB_OPTIONS = ("revision", "cache_dir", "force_download", "local_files_only", "token")

# Limits on a downloaded configuration, so that it cannot take all of the memory.
MAX_CLASSES = 10_000
MAX_MEL = {
    "sample_rate_hz": 384_000, "n_fft": 32_768, "hop_samples": 32_768, "n_mels": 1_024, "n_frames": 16_384,
    "top_db": 1_000,
}  # fmt: skip


class AudioClassifier(
    Standardized,
    PyTorchModelHubMixin,
    library_name="usk",
    pipeline_tag="audio-classification",
    tags=["usk", "audio"],
):
    """A classifier with its features and class names. It takes features [batch, bands, frames]; log-mel features are in dB.

    `AudioClassifier.from_pretrained(folder_or_hub_id)` loads a run's classifier in evaluation mode. Its `probabilities` of
    the test clips are those that the run stored.
    """

    def __init__(
        self,
        architecture: str,
        class_names: list[str],
        mel: dict[str, Any] | None = None,
        repeat_short: bool | None = None,
        precision: str = "fp32",
        transformer: dict[str, Any] | None = None,
        window_frames: int | None = None,
    ) -> None:
        """Args:
            architecture: a name in `usk.classify.registry.CLASSIFIERS`, or `hf:` and the model that was fine-tuned.
            mel: `MelSettings` as a dictionary; not for transformers.
            repeat_short: True repeats clips shorter than the mel image, False pads them with silence.
            precision: `fp32` or `bf16`, as in the run.
            transformer: `config` and `extractor` of a `transformers` classifier, as in its own JSON files.
            window_frames: the length of a window (see `Standardized`); None for whole clips.

        Raises: ModelError for invalid settings.
        """
        check_settings(
            {
                "architecture": architecture, "class_names": class_names, "mel": mel, "repeat_short": repeat_short,
                "precision": precision, "transformer": transformer, "window_frames": window_frames,
            }
        )  # fmt: skip
        settings: Features
        if transformer is not None:
            from usk.classify.transformer import preset_from_config

            recipe = preset_from_config(transformer, architecture)
            settings = recipe.features
        else:
            recipe = CLASSIFIERS[architecture]
            assert isinstance(recipe.features, FeatureSettings)
            settings = type(recipe.features)(MelSettings(**(mel or {})), bool(repeat_short))
        bands = torch.zeros(settings.shape[0], 1)
        super().__init__(recipe.build(len(class_names)), bands, bands + 1, window_frames)
        self.is_transformer = transformer is not None
        self.architecture = architecture
        self.class_names = tuple(class_names)
        self.feature_settings = settings
        self.precision = precision

    def initialize(self, recipe: ClassifierPreset, probe: torch.Tensor) -> None:
        """Prepare for training: load a transformer's pretrained weights, and standardize by the features `probe`.

        The recipe decides whether the input is standardized.
        """
        if self.is_transformer:
            self.network.load_state_dict(recipe.build(len(self.class_names)).state_dict())
        if recipe.standardize:
            self.standardize(probe)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return logits [batch, n_classes] of features [batch, bands, frames]."""
        return self.network(features) if self.is_transformer else super().forward(features)

    @torch.no_grad()
    def probabilities(self, audio: torch.Tensor) -> torch.Tensor:
        """Return class probabilities [batch, n_classes] of audio [batch, n_samples].

        `feature_settings` has the number of samples and their rate. Features are rounded to half precision, as in training,
        and the network runs in the run's precision.
        """
        features = self.feature_settings.of_audio(audio).half().float()
        device = self.mean_db.device
        with autocast(device, self.precision):
            return self(features.to(device)).float().softmax(dim=1).cpu()

    def _save_pretrained(self, save_directory: Path) -> None:
        """Save the weights as the mixin does, but raise OSError on a full disk."""
        from safetensors.torch import save

        tensors = {name: tensor.contiguous() for name, tensor in self.state_dict().items()}
        (save_directory / WEIGHTS_FILE).write_bytes(save(tensors, metadata={"format": "pt"}))

    @classmethod
    def _from_pretrained(
        cls, *, model_id: str, map_location: str = "cpu", strict: bool = True, **settings: Any
    ) -> AudioClassifier:
        """Load the weights as the mixin does, but never pickled weights, and only if every tensor fits."""
        missing = sorted(REQUIRED - settings.keys())
        if missing:
            raise ModelError(
                f"{model_id} is not a classifier of usk: its {CONFIG_FILE} lacks {', '.join(missing)}"
            )
        model = cls(**{name: settings[name] for name in SETTINGS & settings.keys()})
        if Path(model_id).is_dir():
            file = Path(model_id) / WEIGHTS_FILE
        else:
            from huggingface_hub import hf_hub_download

            options = {name: settings[name] for name in _HUB_OPTIONS}
            file = Path(hf_hub_download(model_id, WEIGHTS_FILE, **options))
        read_weights(model, file)
        return model.to(map_location)


def read_weights(model: torch.nn.Module, file: str | os.PathLike[str]) -> None:
    """Load a safetensors file into `model` and set it to evaluation mode.

    Raises ModelError if a tensor is missing, unexpected, of another shape, or not finite.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from usk.hub import first_line

    try:
        tensors = load_file(file)
        model.load_state_dict(tensors, strict=True)
    except FileNotFoundError as error:
        raise ModelError(f"{Path(file).parent} has no {WEIGHTS_FILE}", hint="Train the run again.") from error
    except (SafetensorError, RuntimeError, OSError) as error:
        raise ModelError(
            f"the weights of {Path(file).parent} cannot be loaded: {first_line(error)}"
        ) from error
    if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values()):
        raise ModelError(f"the weights of {Path(file).parent} are not finite", hint="Train the run again.")
    model.eval()


def check_settings(settings: Any) -> None:
    """Raise ModelError with one line unless this version of usk can build a classifier from `settings`."""
    problem = _settings_problem(settings)
    if problem:
        raise ModelError(f"{CONFIG_FILE} of the classifier: {problem}")


def _settings_problem(settings: Any) -> str | None:
    if not isinstance(settings, dict) or not settings.keys() >= REQUIRED:
        return "usk did not write it"
    architecture, transformer = settings["architecture"], settings.get("transformer")
    is_transformer = isinstance(architecture, str) and architecture.startswith(TRANSFORMER)
    if not is_transformer and architecture not in list(CLASSIFIERS):  # a list: the value may not be hashable
        return f"this usk does not know the architecture {architecture!r}; update usk"
    if settings.get("precision", "fp32") not in ("fp32", "bf16"):
        return f"the precision {settings['precision']!r} is neither fp32 nor bf16"
    if not _are_class_names(settings["class_names"]):
        return f"class_names are not 1 to {MAX_CLASSES} different names"
    if is_transformer:
        is_complete = isinstance(transformer, dict) and all(
            isinstance(transformer.get(part), dict) for part in ("config", "extractor")
        )
        return None if is_complete else "it does not have the transformer's config and extractor"
    if transformer is not None:
        return f"the architecture {architecture} is not a transformer"
    return _feature_problem(settings, CLASSIFIERS[architecture].features)


def _feature_problem(settings: dict[str, Any], features: Features) -> str | None:
    """Return what is wrong with the log-mel settings of a network that takes `features`."""
    if not isinstance(settings.get("repeat_short"), bool):
        return "repeat_short is neither true nor false"
    mel, architecture = settings.get("mel"), settings["architecture"]
    known = {setting.name for setting in fields(MelSettings)}
    if not isinstance(mel, dict) or set(mel) != known:
        return f"mel does not have the settings {', '.join(sorted(known))}"
    for name, largest in MAX_MEL.items():
        kinds = (int, float) if name == "top_db" else (int,)
        if type(mel[name]) not in kinds or not 0 < mel[name] <= largest:
            return f"the mel setting {name} must lie above 0 and up to {largest}, not {mel[name]!r}"
    try:
        MelSettings(**mel)
    except ValueError as error:
        return str(error)
    window, n_frames = settings.get("window_frames"), mel["n_frames"]
    if window is not None and not (type(window) is int and n_frames // 4 <= window <= n_frames):
        return f"window_frames must lie between {n_frames // 4} and {n_frames}, not {window!r}"
    if mel["n_mels"] != features.shape[0]:
        return f"the architecture {architecture} takes {features.shape[0]} mel bands, not {mel['n_mels']}"
    if isinstance(features, FirstSecond) and MelSettings(**mel) != features.mel:
        return f"the architecture {architecture} takes only the published mel settings"
    return None


def _are_class_names(names: Sequence[Any]) -> bool:
    return (
        isinstance(names, (list, tuple))
        and 0 < len(names) <= MAX_CLASSES
        and all(isinstance(name, str) and name for name in names)
        and len(set(names)) == len(names)
    )


def read_classifier(folder: Path) -> AudioClassifier:
    """Return the classifier in a folder with `config.json` and `model.safetensors`, in evaluation mode, on the CPU.

    Raises ModelError if it is damaged or usk did not write it.
    """
    model = AudioClassifier(**read_settings(folder))
    read_weights(model, folder / WEIGHTS_FILE)
    return model


def read_settings(folder: Path) -> dict[str, Any]:
    """Return the `AudioClassifier` arguments in a folder's `config.json`. Raises ModelError as `read_classifier` does."""
    damaged = f"{folder} is a damaged run: {CONFIG_FILE} cannot be read"
    settings = read_json(folder / CONFIG_FILE, ModelError, damaged)
    check_settings(settings)
    return {name: settings[name] for name in SETTINGS & settings.keys()}


def classifier_settings(
    architecture: str,
    recipe: ClassifierPreset,
    class_names: Sequence[str],
    precision: str,
    augment: str = "none",
) -> dict[str, Any]:
    """Return the arguments of a new `AudioClassifier`. A transformer's folder is replaced by its name, without its path."""
    location = architecture.removeprefix(TRANSFORMER)
    if location != architecture and expanded(location).is_dir():
        architecture = TRANSFORMER + expanded(location).resolve().name
    return {
        "architecture": architecture,
        "class_names": list(class_names),
        "precision": precision,
        "window_frames": recipe.window_frames(augment),
        **recipe.feature_config(class_names),
    }
