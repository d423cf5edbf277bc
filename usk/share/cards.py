"""Dataset and model cards from the Jinja templates in `cards/`.

Names of classes and sources come from users: they are escaped for Markdown, and metadata is written by a YAML
library, never by string formatting.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from usk.errors import UskError
from usk.mel.spectrogram import MelSettings
from usk.synth.plan import Alpha, Plan
from usk.synth.strategies import strategy_named

HUB_LICENSES = {"CC BY-NC 3.0": "cc-by-nc-3.0", "CC0-1.0": "cc0-1.0"}


def _templates() -> Path:
    """`cards/` at the top of a checkout, or the copy inside an installed package."""
    installed = Path(__file__).parent / "templates"
    checkout = Path(__file__).parents[2] / "cards"
    for folder in (installed, checkout):
        if (folder / "dataset.md").is_file():
            return folder
    raise UskError("the card templates are missing from this installation; install usk again")


def escape_markdown(value: object) -> str:
    """`value` as plain text inside Markdown: control and line-break characters dropped, specials escaped."""
    text = "".join(character if character.isprintable() else " " for character in str(value))
    return re.sub(r"([\\`*_{}\[\]<>()#+!|~&-])", r"\\\1", text)


def render_card(template: str, metadata: dict[str, Any], values: dict[str, Any]) -> str:
    """A card: YAML metadata and the rendered template of `cards/`."""
    import jinja2
    import yaml  # type: ignore[import-untyped,unused-ignore]

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_templates()),
        undefined=jinja2.StrictUndefined,
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["md"] = escape_markdown
    body = environment.get_template(template).render(**values)
    head = yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True, default_flow_style=False)
    return f"---\n{head}---\n{body}"


def size_category(n_rows: int) -> str:
    for limit, name in (
        (1_000, "n<1K"),
        (10_000, "1K<n<10K"),
        (100_000, "10K<n<100K"),
        (1_000_000, "100K<n<1M"),
    ):
        if n_rows < limit:
            return name
    return "n>1M"


def license_metadata(name: str) -> dict[str, str]:
    """The Hub's `license` fields for one of our licence names."""
    if name in HUB_LICENSES:
        return {"license": HUB_LICENSES[name]}
    return {"license": "other", "license_name": re.sub(r"[^a-z0-9.-]+", "-", name.lower()) or "unknown"}


def dataset_card(manifest: dict[str, Any], plan: Plan, folder: Path) -> str:
    """The README.md of a synthetic dataset: explicit configuration, counts, provenance, leaks ruled out, limits."""
    from datasets import DatasetInfo, SplitDict, SplitInfo

    from usk import __version__
    from usk.synth.store import dataset_features

    n_bytes = sum((folder / name).stat().st_size for name in manifest["shards"])
    split = SplitInfo(name="train", num_bytes=n_bytes, num_examples=len(plan))
    judge = manifest.get("judge")
    features = dataset_features(plan.class_names, manifest["sample_rate_hz"], judge is not None)
    info = DatasetInfo(
        features=features, splits=SplitDict({"train": split}), download_size=n_bytes, dataset_size=n_bytes
    )
    rejected = manifest.get("rejected", {})
    configs = [
        {"config_name": "default", "data_files": [{"split": "train", "path": list(manifest["shards"])}]}
    ]
    if rejected:  # what load_dataset(DIR) returns stays the default configuration alone
        configs.append(
            {"config_name": "rejected", "data_files": [{"split": "train", "path": list(rejected)}]}
        )
    described = info._to_yaml_dict()
    metadata = {
        **license_metadata(manifest["license"]),
        "task_categories": ["audio-classification"],
        "tags": ["synthetic", "usk", "audio-diffusion"],
        "size_categories": [size_category(len(plan))],
        "configs": configs,
        "dataset_info": [{"config_name": "default", **described}] if rejected else described,
    }
    counts = plan.counts()
    folds = sorted({fold for by_fold in counts.values() for fold in by_fold})
    generator_parts = [
        {"source": part["source"], "folds": part["folds"], "n_groups": len(part["groups"])}
        for part in manifest["trained_on"]
    ]
    unknown_parts = [part["note"] for part in manifest["trained_on"] if "note" in part]
    values = {
        "version": __version__,
        "manifest": manifest,
        "render": manifest["render"],
        "counts": counts,
        "folds": folds,
        "n_clips": len(plan),
        "n_parents": len({parent for clip in plan.clips for parent in clip.parents}),
        "n_recordings": len({group for clip in plan.clips for group in clip.parent_groups}),
        "generator_parts": generator_parts,
        "unknown_parts": unknown_parts,
        "alpha_text": Alpha.parse(manifest["alpha"]).text,
        "strategy": strategy_named(manifest["render"]["strategy"]),
        "across_folds": any(clip.fold == 0 for clip in plan.clips),
        "judge": judge,
        "n_rejected": sum(rejected.values()),
    }
    return render_card("dataset.md", metadata, values)


def write_generator_card(folder: Path) -> None:
    """The README.md of a fitted generator, from what its folder holds (and `round_trip.json`, if it was measured)."""
    from usk import __version__

    def read(name: str) -> Any:
        return json.loads((folder / name).read_text(encoding="utf-8"))

    trained_on, training = read("trained_on.json"), read("training.json")
    unet, named = read("unet/config.json"), read("model_index.json").get("id2label", {})
    config, size = training["config"], unet["sample_size"]
    metadata = {
        **license_metadata(trained_on["license"]),
        "library_name": "diffusers",
        "tags": ["usk", "audio-diffusion", "mel-spectrogram"],
    }
    values = {
        "version": __version__,
        "trained_on": trained_on,
        "training": training,
        "images_a_step": config["batch"] * config.get("accumulate", 1) * training.get("processes", 1),
        "latent_shape": [unet["in_channels"], *(size if isinstance(size, list) else [size, size])],
        "class_names": list(named.values()),
        "mel": MelSettings.from_audiodiffusion(read("mel/mel_config.json")).as_dict(),
        "round_trip": read("round_trip.json") if (folder / "round_trip.json").is_file() else None,
    }
    (folder / "README.md").write_text(render_card("generator.md", metadata, values), encoding="utf-8")
