"""A trained classifier that says all that it needs: `config.json` and `model.safetensors`, as the Hub keeps models."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import PyTorchModelHubMixin

from usk.classify.features import FeatureSettings, log_mel
from usk.classify.models import CLASSIFIERS, Standardised
from usk.device import autocast
from usk.errors import ModelError
from usk.mel.spectrogram import MelSettings

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
SETTINGS = frozenset({"architecture", "class_names", "mel", "repeat_short", "precision"})

# What a configuration from elsewhere may ask for, so that it cannot take all of the memory.
MAX_CLASSES = 10_000
LARGEST_MEL = {
    "sample_rate_hz": 384_000, "n_fft": 32_768, "hop_samples": 32_768, "n_mels": 1_024, "n_frames": 16_384,
    "top_db": 1_000,
}  # fmt: skip


class AudioClassifier(
    Standardised,
    PyTorchModelHubMixin,
    library_name="usk",
    pipeline_tag="audio-classification",
    tags=["usk", "audio"],
):
    """A classifier with its features and class names. It takes log-mel features in dB [batch, n_mels, n_frames].

    `AudioClassifier.from_pretrained(folder_or_hub_id)` is all that it takes to have a run's classifier again, in
    evaluation mode; `probabilities` gives what the run itself stored of its test clips.
    """

    def __init__(
        self,
        architecture: str,
        class_names: list[str],
        mel: dict[str, Any],
        repeat_short: bool,
        precision: str = "fp32",
    ) -> None:
        """Args:
            architecture: its name in `usk.classify.models.CLASSIFIERS`.
            mel: `MelSettings` as a dictionary.
            repeat_short: whether clips shorter than the mel image are repeated, or followed by silence.
            precision: what the run computed its predictions in, `fp32` or `bf16`.

        Raises: ModelError for settings that are none.
        """
        check_settings(
            {
                "architecture": architecture, "class_names": class_names, "mel": mel, "repeat_short": repeat_short,
                "precision": precision,
            }
        )  # fmt: skip
        settings = FeatureSettings(MelSettings(**mel), repeat_short)
        bands = torch.zeros(settings.mel.n_mels, 1)
        super().__init__(CLASSIFIERS[architecture].build(len(class_names)), bands, bands + 1)
        self.architecture = architecture
        self.class_names = tuple(class_names)
        self.feature_settings = settings
        self.precision = precision

    def standardise_by(self, mean_db: torch.Tensor, deviation_db: torch.Tensor) -> None:
        """Take the mean and deviation of each mel band of the training features, [n_mels, 1] each."""
        self.mean_db.copy_(mean_db)
        self.deviation_db.copy_(deviation_db)

    @torch.no_grad()
    def probabilities(self, audio: torch.Tensor) -> torch.Tensor:
        """Class probabilities [batch, n_classes] of audio [batch, mel.image_samples] at the mel's sample rate.

        Features are rounded as training keeps them, and the network runs in the run's precision.
        """
        features = log_mel(audio, self.feature_settings.mel).half().float()
        device = self.mean_db.device
        with autocast(device, self.precision):
            return self(features.to(device)).float().softmax(dim=1).cpu()

    def _save_pretrained(self, save_directory: Path) -> None:
        """As the mixin does, but a full disk stays the OSError that it is."""
        from safetensors.torch import save

        tensors = {name: tensor.contiguous() for name, tensor in self.state_dict().items()}
        (save_directory / WEIGHTS_FILE).write_bytes(save(tensors, metadata={"format": "pt"}))

    @classmethod
    def _from_pretrained(
        cls,
        *,
        model_id: str,
        revision: str | None,
        cache_dir: str | Path | None,
        force_download: bool,
        local_files_only: bool,
        token: str | bool | None,
        map_location: str = "cpu",
        strict: bool = True,
        **settings: Any,
    ) -> AudioClassifier:
        """The mixin's way, but without its second choice of pickled weights, and with every tensor in its place."""
        missing = sorted(SETTINGS - {"precision"} - settings.keys())
        if missing:
            raise ModelError(
                f"{model_id} is no classifier of usk: its {CONFIG_FILE} lacks {', '.join(missing)}"
            )
        model = cls(**{name: settings[name] for name in SETTINGS & settings.keys()})
        if Path(model_id).is_dir():
            file = Path(model_id) / WEIGHTS_FILE
        else:
            from huggingface_hub import hf_hub_download

            file = Path(
                hf_hub_download(
                    model_id,
                    WEIGHTS_FILE,
                    revision=revision,
                    cache_dir=cache_dir,
                    force_download=force_download,
                    local_files_only=local_files_only,
                    token=token,
                )
            )
        read_weights(model, file)
        return model.to(map_location)


def read_weights(model: torch.nn.Module, file: str | os.PathLike[str]) -> None:
    """Fill `model` from a safetensors file, which holds tensors alone, and set it to evaluation mode.

    Raises ModelError if a tensor is missing, has another shape, is left over, or is not finite.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from usk.hub import first_line

    try:
        tensors = load_file(file)
        model.load_state_dict(tensors, strict=True)
    except FileNotFoundError as error:
        raise ModelError(f"{Path(file).parent} has no {WEIGHTS_FILE}; train the run again") from error
    except (SafetensorError, RuntimeError, OSError) as error:
        raise ModelError(
            f"the weights of {Path(file).parent} cannot be loaded: {first_line(error)}"
        ) from error
    if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values()):
        raise ModelError(f"the weights of {Path(file).parent} are not finite: it can classify nothing")
    model.eval()


def check_settings(settings: Any) -> None:
    """Raise ModelError, in one line, unless these are the settings of a classifier that this usk can build."""
    wrong = _what_is_wrong(settings)
    if wrong:
        raise ModelError(f"{CONFIG_FILE} of the classifier: {wrong}")


def _what_is_wrong(settings: Any) -> str | None:
    if not isinstance(settings, dict) or not settings.keys() >= SETTINGS - {"precision"}:
        return "it is not one that usk wrote"
    if settings["architecture"] not in list(CLASSIFIERS):  # which need not be a name
        return f"this usk knows no architecture {settings['architecture']!r}; update usk"
    if settings.get("precision", "fp32") not in ("fp32", "bf16"):
        return f"the precision {settings['precision']!r} is neither fp32 nor bf16"
    if not isinstance(settings["repeat_short"], bool):
        return "repeat_short is neither true nor false"
    names = settings["class_names"]
    if not _are_class_names(names):
        return f"class_names are not 1 to {MAX_CLASSES} different names"
    mel = settings["mel"]
    known = {setting.name for setting in fields(MelSettings)}
    if not isinstance(mel, dict) or set(mel) != known:
        return f"mel does not have the settings {', '.join(sorted(known))}"
    for name, largest in LARGEST_MEL.items():
        value = mel[name]
        whole = isinstance(value, int) or (name == "top_db" and isinstance(value, float))
        if not whole or isinstance(value, bool) or not math.isfinite(value) or not 0 < value <= largest:
            return f"the mel setting {name} must lie above 0 and up to {largest}, not {value!r}"
    shape = CLASSIFIERS[settings["architecture"]].features.shape
    if mel["n_mels"] != shape[0]:
        return f"the architecture {settings['architecture']} takes {shape[0]} mel bands, not {mel['n_mels']}"
    return None


def _are_class_names(names: Sequence[Any]) -> bool:
    return (
        isinstance(names, (list, tuple))
        and 0 < len(names) <= MAX_CLASSES
        and all(isinstance(name, str) and name for name in names)
        and len(set(names)) == len(names)
    )
