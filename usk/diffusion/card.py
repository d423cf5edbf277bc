"""Write the model card of a fitted generator."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from usk.audio.mel import MelSettings
from usk.cards import license_metadata, render_card
from usk.diffusion.adapter import Adapter, find_adapter
from usk.errors import disk_errors
from usk.files import atomic_write


def write_generator_card(folder: Path) -> None:
    """Write the README.md of a fitted generator or adapter, from the files in its folder."""
    from usk import __version__

    def read(name: str) -> Any:
        return json.loads((folder / name).read_text(encoding="utf-8"))

    adapter, trained_on, training = find_adapter(folder), read("trained_on.json"), read("training.json")
    own_metadata, values = _of_mel(folder, read) if adapter is None else _of_adapter(adapter)
    log = training["log"]
    kept_step = training.get("kept_step", log[-1]["step"] if log else 0)
    values |= {
        "version": __version__,
        "trained_on": trained_on,
        "training": training,
        "kept": next((row for row in reversed(log) if row["step"] == kept_step), None),
    }
    hub_ids = sorted({part["hub_id"] for part in trained_on["sources"] if part.get("hub_id")})
    metadata = {
        **license_metadata(trained_on["license"]),
        **own_metadata,
        **({"datasets": hub_ids} if hub_ids else {}),
    }
    text = render_card("generator.md" if adapter is None else "adapter.md", metadata, values)
    with disk_errors(folder):
        atomic_write(folder / "README.md", text.encode())


def _of_adapter(adapter: Adapter) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the metadata and template values of an adapter."""
    metadata = {
        "library_name": "peft",
        **({"base_model": adapter.base, "base_model_relation": "adapter"} if adapter.base_on_hub else {}),
        "pipeline_tag": "text-to-audio",
        "tags": ["audio", "usk", "text-to-audio", "lora"],
    }
    return metadata, {"adapter": adapter}


def _of_mel(folder: Path, read: Callable[[str], Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the metadata and template values of a generator of mel images, with `round_trip.json` if it was measured."""
    unet, class_names = read("unet/config.json"), read("model_index.json").get("id2label", {})
    size = unet["sample_size"]
    metadata = {"library_name": "diffusers", "tags": ["audio", "usk", "audio-diffusion", "mel-spectrogram"]}
    values = {
        "has_vae": (folder / "vqvae").is_dir(),
        "latent_shape": [unet["in_channels"], *(size if isinstance(size, list) else [size, size])],
        "class_names": list(class_names.values()),
        "mel": MelSettings.from_audiodiffusion(read("mel/mel_config.json")).as_dict(),
        "round_trip": read("round_trip.json") if (folder / "round_trip.json").is_file() else None,
    }
    return metadata, values
