"""Describe a text-to-audio pipeline from its JSON files. Imports no torch and loads no weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from usk.errors import ModelError

LONGCAT_LONGEST_S = 30.0  # of its pipeline


@dataclass(frozen=True)
class TextShape:
    """The sample rate of a model, and the lengths of audio that it takes."""

    sample_rate_hz: int
    longest_samples: int
    hop_samples: int


def _audioldm(folder: Path, read: Any) -> TextShape:
    vocoder, vae = read(folder / "vocoder" / "config.json"), read(folder / "vae" / "config.json")
    unet = read(folder / "unet" / "config.json")
    hop = math.prod(vocoder["upsample_rates"]) * 2 ** (len(vae["block_out_channels"]) - 1)
    return TextShape(int(vocoder["sampling_rate"]), int(unet["sample_size"]) * hop, hop)


def _stable_audio(folder: Path, read: Any) -> TextShape:
    vae = read(folder / "vae" / "config.json")
    hop = math.prod(vae["downsampling_ratios"])
    longest = int(read(folder / "transformer" / "config.json")["sample_size"])
    return TextShape(int(vae["sampling_rate"]), longest * hop, hop)


def _stable_audio_3(folder: Path, read: Any) -> TextShape:
    vae = read(folder / "vae" / "config.json")
    hop = int(vae["patch_size"]) * math.prod(vae["encoder_strides"])
    longest_s = float(read(folder / "duration_embedder" / "config.json")["max_val"])
    rate = int(vae["sampling_rate"])
    return TextShape(rate, int(longest_s * rate) // hop * hop, hop)


def _longcat(folder: Path, read: Any) -> TextShape:
    vae = read(folder / "vae" / "config.json")
    rate, hop = int(vae["sample_rate"]), int(vae["downsampling_ratio"])
    return TextShape(rate, int(LONGCAT_LONGEST_S * rate) // hop * hop, hop)


@dataclass(frozen=True)
class TextFamily:
    """A family of pipelines: its module in diffusers, the component that denoises, and the function that reads its lengths."""

    module: str
    network: str
    shape: Callable[[Path, Any], TextShape]
    trained_on: str  # the training data of the published models in words, for the card


# By the class in diffusers. `usk.diffusion.text_families` has a class for each, with this name without `Pipeline`.
FAMILIES = {
    "AudioLDM2Pipeline": TextFamily("audioldm2", "unet", _audioldm, "AudioSet, AudioCaps, Freesound, BBC sound effects and others"),
    "AudioLDMPipeline": TextFamily("audioldm", "unet", _audioldm, "AudioSet, AudioCaps, Freesound and BBC sound effects"),
    "MusicLDMPipeline": TextFamily("musicldm", "unet", _audioldm, "music with text"),
    "StableAudioPipeline": TextFamily("stable_audio", "transformer", _stable_audio, "Freesound and the Free Music Archive"),
    "StableAudio3Pipeline": TextFamily("stable_audio_3", "transformer", _stable_audio_3, "licensed and Creative Commons audio, perhaps of Freesound"),
    "LongCatAudioDiTPipeline": TextFamily("longcat_audio_dit", "transformer", _longcat, "data that its card does not list"),
}  # fmt: skip


def check_components(index: Mapping[str, Any], family: TextFamily) -> None:
    """Raise ModelError for a component from another library than diffusers or transformers, whose code loading would run."""
    allowed = [["diffusers"], ["transformers"], [family.module]]
    for name, entry in index.items():
        is_component = not name.startswith("_") and isinstance(entry, list) and entry != [None, None]
        if is_component and entry[:1] not in allowed:
            raise ModelError(
                f"its component {name} is of {', '.join(map(repr, entry[:1]))}; only diffusers and transformers are loaded"
            )


def text_shape(kind: str, folder: Path, read: Any) -> TextShape:
    """Return rate and lengths of the pipeline in `folder`. `read` reads an object from a JSON file. Raises ModelError."""
    try:
        return FAMILIES[kind].shape(folder, read)
    except (KeyError, TypeError, ValueError, ZeroDivisionError, OverflowError) as error:
        raise ModelError(f"its configuration is not understood: {error!r}") from error
