"""The card of a synthetic dataset, with the sections that `usk audit --save` and `usk eval --save` add to it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from usk.cards import escape_markdown, license_metadata, one_line, render_card, size_category
from usk.data.mix import named_elsewhere
from usk.data.parquet import says_too_little
from usk.errors import UsageError, disk_errors
from usk.files import atomic_write
from usk.synth.plan import Alpha, Plan
from usk.synth.strategies import strategy_named

AUDIT_FILE = "audit.json"
STUDY_FILE = "study.json"
CHART_FILE = "accuracy.png"


def dataset_card(manifest: dict[str, Any], plan: Plan, folder: Path) -> str:
    """The README.md of a synthetic dataset: explicit configuration, counts, provenance, leaks ruled out, limits."""
    from datasets import DatasetInfo, SplitDict, SplitInfo

    from usk import __version__
    from usk.synth.dataset_folder import dataset_features

    n_bytes = sum((folder / name).stat().st_size for name in manifest["shards"])
    split = SplitInfo(name="train", num_bytes=n_bytes, num_examples=len(plan))
    clip_filter = manifest.get("clip_filter")
    features = dataset_features(plan.class_names, manifest["sample_rate_hz"], clip_filter is not None)
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
    source = manifest["source"]
    metadata = {
        "pretty_name": f"Synthetic clips from {one_line(source['name'])}",
        **license_metadata(manifest["license"]),
        "annotations_creators": ["machine-generated"],
        "source_datasets": [source_dataset(source)],
        "task_categories": ["audio-classification"],
        "tags": ["audio", "synthetic", "usk", "audio-diffusion"],
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
    unknown_parts = [
        escape_markdown(one_line(part.get("note", f"of {part['source']} no recordings are named")))
        for part in manifest["trained_on"]
        if says_too_little(part)
    ]
    strategy = strategy_named(manifest["render"]["strategy"])
    parts_known = strategy.mix is None or bool(generator_parts and not unknown_parts)
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
        "strategy": strategy,
        "across_folds": any(clip.fold == 0 for clip in plan.clips),
        "spread": len(
            manifest.get("recordings_of_several_folds", {}).keys()
            & {group for clip in plan.clips for group in clip.parent_groups}
        ),
        "clip_filter": clip_filter,
        "n_rejected": sum(rejected.values()),
        "tested": _tested_folds(plan, manifest, parts_known),
        "example_group": json.dumps(one_line(plan.clips[0].parent_groups[0]), ensure_ascii=False),
        "audit": _kept_beside(folder, AUDIT_FILE, dict),
        "studies": _kept_beside(folder, STUDY_FILE, list),
        "chart": CHART_FILE,
        "urbansound8k": "urbansound8k" in (source["name"], *(part["source"] for part in generator_parts)),
    }
    return render_card("dataset.md", metadata, values)


def source_dataset(source: dict[str, Any]) -> str:
    """The Hub's `source_datasets` entry for what clips come from: a Hub id, else a name, else `original`."""
    if source.get("hub_id"):
        return str(source["hub_id"])
    return "extended|urbansound8k" if source["name"] == "urbansound8k" else "original"


def _tested_folds(plan: Plan, manifest: dict[str, Any], generator_known: bool) -> list[dict[str, Any]]:
    """For each fold of the parents, or that the clips were meant to be tested on: how many clips have no recording in it, as
    parent or by a clip_filter that heard it, and whether the generator has heard it: by the names of recordings, or of the source;
    `unknown` where all that it has heard goes by names that the parents' have not."""
    name, trained_on = manifest["source"]["name"], manifest["trained_on"]
    spread = manifest.get("recordings_of_several_folds", {})

    def reached(folds: Iterable[int], groups: Iterable[str]) -> set[int]:
        """These folds, and those in which their recordings have more clips."""
        return {*folds, *(fold for group in groups for fold in spread.get(group, ()))}

    training_groups = {group for part in trained_on for group in part["groups"]}
    heard = reached(
        (fold for part in trained_on if part["source"] == name for fold in part["folds"]), training_groups
    )
    for clip in plan.clips:
        for parent, fold, group in zip(clip.parents, clip.parent_folds, clip.parent_groups, strict=True):
            if training_groups & {parent, group}:  # fitted when no recordings were named, it has heard clips
                heard.add(fold)
    elsewhere = named_elsewhere(
        training_groups, {group for clip in plan.clips for group in clip.parent_groups}
    )
    known = "no" if generator_known and not elsewhere else "unknown"
    clip_filter = manifest.get("clip_filter") or {}
    meant = {
        *clip_filter.get("test_folds", ()),
        *([train_clips["test_fold"]] if (train_clips := manifest.get("train_clips")) else []),
    }
    of_judge = {
        tuple(part["folds"]): reached(part["folds"], part.get("groups", ()))
        for part in clip_filter.get("heard", ())
    }
    everywhere = (
        set().union(*of_judge.values()) if clip_filter.get("test_folds") else set()
    )  # one clip_filter, of all clips
    of_clip = [
        reached(clip.parent_folds, clip.parent_groups) | of_judge.get((clip.fold,), set()) | everywhere
        for clip in plan.clips
    ]
    return [
        {
            "fold": fold,
            "clean": sum(fold not in folds for folds in of_clip),
            "heard": "yes" if fold in heard else known,
        }
        for fold in sorted({fold for clip in plan.clips for fold in clip.parent_folds} | meant)
    ]


def _kept_beside(folder: Path, name: str, kind: type) -> Any:
    """What `--save` left beside a dataset, if it did."""
    try:
        found = json.loads((folder / name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, kind) else None


def open_own_dataset(folder: Path) -> tuple[dict[str, Any], Plan]:
    """Manifest and plan of a dataset that usk made. Raises UsageError for any other folder."""
    from usk.synth.dataset_folder import kept_of

    try:
        manifest = json.loads((folder / "usk.json").read_text(encoding="utf-8"))
        plan = Plan.from_jsonl((folder / "plan.jsonl").read_text(encoding="utf-8"), manifest["class_names"])
        return manifest, kept_of(plan, manifest, folder)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            "is not a dataset that `usk synth` made, whose card could show this", field="save", value=folder
        ) from error


def save_audit(folder: Path, found: dict[str, Any], real: str) -> None:
    """Keep an audit beside the dataset that it is about, and write the card again with it.

    Args:
        folder: of a dataset that usk made.
        found: `Audit.as_dict()`.
        real: what it was compared with, with its revision.

    Raises UsageError for another folder, or one that cannot be written.
    """
    _save(folder, AUDIT_FILE, {**found, "dataset": folder.resolve().name, "real": real})


def save_study(folder: Path, sections: list[dict[str, Any]], chart: Callable[[Path], None]) -> None:
    """The same for comparisons of runs that trained on it (`usk.evaluate.card`); `chart` draws them as a PNG file."""
    open_own_dataset(folder)  # before anything is written
    with disk_errors(folder, field="save"):
        chart(folder / CHART_FILE)
    _save(folder, STUDY_FILE, sections)


def _save(folder: Path, name: str, kept: Any) -> None:
    manifest, plan = open_own_dataset(folder)
    with disk_errors(folder, field="save"):
        atomic_write(folder / name, (json.dumps(kept, indent=1) + "\n").encode())
        atomic_write(folder / "README.md", dataset_card(manifest, plan, folder).encode())
