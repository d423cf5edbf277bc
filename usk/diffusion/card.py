"""The model card of a fitted generator."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from usk.audio.mel import MelSettings
from usk.cards import license_metadata, render_card
from usk.diffusion.adapter import Adapter, find_adapter
from usk.errors import disk_errors
from usk.files import atomic_write


def write_generator_card(folder: Path) -> None:
    """The README.md of a fitted generator or adapter, from what its folder holds."""
    adapter = find_adapter(folder)
    text = _mel_card(folder) if adapter is None else _adapter_card(folder, adapter)
    with disk_errors(folder):
        atomic_write(folder / "README.md", text.encode())


def _adapter_card(folder: Path, adapter: Adapter) -> str:
    from usk import __version__

    trained_on, training = (
        json.loads((folder / name).read_text(encoding="utf-8"))
        for name in ("trained_on.json", "training.json")
    )
    hub_ids = sorted({part["hub_id"] for part in trained_on["sources"] if part.get("hub_id")})
    metadata = {
        **license_metadata(trained_on["license"]),
        "library_name": "peft",
        **({"base_model": adapter.base, "base_model_relation": "adapter"} if adapter.base_on_hub else {}),
        "pipeline_tag": "text-to-audio",
        "tags": ["audio", "usk", "text-to-audio", "lora"],
        **({"datasets": hub_ids} if hub_ids else {}),
    }
    log, kept_step = training["log"], training["kept_step"]
    values = {
        "version": __version__,
        "adapter": adapter,
        "trained_on": trained_on,
        "training": training,
        "kept": next((row for row in reversed(log) if row["step"] == kept_step), None),
    }
    return render_card("adapter.md", metadata, values)


def _mel_card(folder: Path) -> str:
    """With `round_trip.json`, if it was measured."""
    from usk import __version__

    def read(name: str) -> Any:
        return json.loads((folder / name).read_text(encoding="utf-8"))

    trained_on, training = read("trained_on.json"), read("training.json")
    unet, named = read("unet/config.json"), read("model_index.json").get("id2label", {})
    size, log = unet["sample_size"], training["log"]
    kept_step = training.get("kept_step", log[-1]["step"] if log else 0)
    hub_ids = sorted({part["hub_id"] for part in trained_on["sources"] if part.get("hub_id")})
    metadata = {
        **license_metadata(trained_on["license"]),
        "library_name": "diffusers",
        "tags": ["audio", "usk", "audio-diffusion", "mel-spectrogram"],
        **({"datasets": hub_ids} if hub_ids else {}),
    }
    values = {
        "version": __version__,
        "trained_on": trained_on,
        "training": training,
        "kept": next((row for row in reversed(log) if row["step"] == kept_step), None),
        "has_vae": (folder / "vqvae").is_dir(),
        "latent_shape": [unet["in_channels"], *(size if isinstance(size, list) else [size, size])],
        "class_names": list(named.values()),
        "mel": MelSettings.from_audiodiffusion(read("mel/mel_config.json")).as_dict(),
        "round_trip": read("round_trip.json") if (folder / "round_trip.json").is_file() else None,
    }
    return render_card("generator.md", metadata, values)
