"""The configuration of LoRA weights for a text-to-audio model, in peft's format. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from usk.data.pinned import looks_like_hub_id
from usk.errors import ModelError
from usk.files import read_json

ADAPTER_FILE = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"


@dataclass(frozen=True)
class Adapter:
    """LoRA weights (arXiv 2106.09685) for some linear layers of a network."""

    base: str  # a Hub id, or a folder
    revision: str  # of the base: a commit, or the folder's fingerprint
    rank: int
    alpha: int  # the product is scaled by alpha / rank
    target_modules: tuple[str, ...]  # the ends of the layers' names

    @property
    def base_on_hub(self) -> bool:
        return looks_like_hub_id(self.base)

    @property
    def base_name(self) -> str:
        """Return the base's name for `usk.diffusion.load.load_generator`."""
        return f"{self.base}@{self.revision}" if self.base_on_hub else self.base

    def as_dict(self) -> dict[str, Any]:
        """Return the content of peft's adapter_config.json."""
        return {
            "base_model_name_or_path": self.base,
            "bias": "none",
            "lora_alpha": self.alpha,
            "lora_dropout": 0.0,
            "peft_type": "LORA",
            "r": self.rank,
            "revision": self.revision,
            "target_modules": list(self.target_modules),
        }


def find_adapter(folder: Path) -> Adapter | None:
    """Return the adapter in `folder`, or None without one. Raises ModelError for one that usk did not write."""
    if not (folder / ADAPTER_FILE).is_file():
        return None
    config = read_json(folder / ADAPTER_FILE, ModelError, f"{ADAPTER_FILE} cannot be read")
    try:
        if config["peft_type"] != "LORA":
            raise ValueError(f"peft_type is {config['peft_type']!r}")
        adapter = Adapter(
            str(config["base_model_name_or_path"]),
            str(config["revision"]),
            int(config["r"]),
            int(config["lora_alpha"]),
            tuple(map(str, config["target_modules"])),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{ADAPTER_FILE} is not as `usk fit` writes it: {error!r}") from error
    if not 0 < adapter.rank <= 1024:
        raise ModelError(f"{ADAPTER_FILE}: the rank {adapter.rank} is not between 1 and 1024")
    return adapter
