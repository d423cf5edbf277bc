"""Write the card of a synthetic dataset, and save an audit of the dataset in it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from usk.cards import escape_markdown, license_metadata, one_line, render_card, size_category
from usk.data.clip import NO_MODEL
from usk.data.leaks import unmatched_sources
from usk.errors import UsageError, disk_errors
from usk.files import atomic_write, read_json
from usk.manifest import Manifest, read_manifest
from usk.synth.alpha import Alpha
from usk.synth.dataset_folder import PLAN_FILE, dataset_features, kept_plan
from usk.synth.plan import Plan
from usk.synth.strategies import strategy_named

AUDIT_FILE = "audit.json"
PARENTS_TEXT = {
    (1,): "one real clip",
    (2,): "two real clips of one class",
    (1, 2): "one real clip or two of one class",
}
SOURCE_DATASETS = {"urbansound8k": "extended|urbansound8k"}  # of sources that are not on the Hub


def dataset_card(manifest: Manifest, plan: Plan, folder: Path) -> str:
    """Return the README.md of a synthetic dataset: configuration, counts, provenance, leaks and limits."""
    from usk import __version__

    counts = plan.counts()
    strategies = [(name, strategy_named(name), settings) for name, settings in manifest.render.items()]
    parents_of = sorted({row.n_parents for _, row, _ in strategies})
    trained_on, source = manifest.trained_on, manifest.source
    unknown_parts = [
        escape_markdown(one_line(part.note or f"of {part.source} no recordings are named"))
        for part in trained_on
        if part.is_incomplete
    ]
    is_generator_known = manifest.model == NO_MODEL or bool(trained_on and not unknown_parts)
    parent_groups = {group for clip in plan.clips for group in clip.parent_groups}
    values = {
        "version": __version__,
        "manifest": manifest,
        "strategies": strategies,
        "rows": [row for _, row, _ in strategies],
        "without": [name for name, row, _ in strategies if row.mix is None],
        "n_clips_of": Counter(clip.strategy for clip in plan.clips),
        "n_parents_text": PARENTS_TEXT[tuple(parents_of)],
        "phase": next((settings["phase"] for *_, settings in strategies if "phase" in settings), None),
        "counts": counts,
        "folds": sorted({fold for by_fold in counts.values() for fold in by_fold}),
        "n_clips": len(plan),
        "n_parents": len({parent for clip in plan.clips for parent in clip.parents}),
        "n_recordings": len(parent_groups),
        "unknown_parts": unknown_parts,
        "alpha_text": Alpha.parse(manifest.alpha).text,
        "generated": manifest.model != NO_MODEL,
        "across_folds": any(clip.fold == 0 for clip in plan.clips),
        "spread": len(manifest.recordings_of_several_folds.keys() & parent_groups),
        "clip_filter": manifest.clip_filter,
        "n_rejected": sum(shard.rows for shard in manifest.rejected.values()),
        "tested": _tested_folds(plan, manifest, is_generator_known),
        "example_group": json.dumps(one_line(plan.clips[0].parent_groups[0]), ensure_ascii=False),
        "audit": _saved_audit(folder),
        "urbansound8k": "urbansound8k" in (source.name, *(part.source for part in trained_on)),
    }
    return render_card("dataset.md", _metadata(manifest, plan, folder), values)


def _metadata(manifest: Manifest, plan: Plan, folder: Path) -> dict[str, Any]:
    """Return the card's YAML: license, tags, and the configurations that `datasets` loads."""
    from datasets import DatasetInfo, SplitDict, SplitInfo

    n_bytes = sum((folder / name).stat().st_size for name in manifest.shards)
    split = SplitInfo(name="train", num_bytes=n_bytes, num_examples=len(plan))
    features = dataset_features(plan.class_names, manifest.sample_rate_hz, manifest.clip_filter is not None)
    info = DatasetInfo(
        features=features, splits=SplitDict({"train": split}), download_size=n_bytes, dataset_size=n_bytes
    )._to_yaml_dict()
    # Rejected clips get a configuration of their own, so that load_dataset(DIR) returns only the others.
    configs = {"default": manifest.shards, **({"rejected": manifest.rejected} if manifest.rejected else {})}
    return {
        "pretty_name": f"Synthetic clips from {one_line(manifest.source.name)}",
        **license_metadata(manifest.license),
        "annotations_creators": ["machine-generated"],
        "source_datasets": [manifest.source.hub_id or SOURCE_DATASETS.get(manifest.source.name, "original")],
        "task_categories": ["audio-classification"],
        "tags": ["audio", "synthetic", "usk", "audio-diffusion"],
        "size_categories": [size_category(len(plan))],
        "configs": [
            {"config_name": name, "data_files": [{"split": "train", "path": list(shards)}]}
            for name, shards in configs.items()
        ],
        "dataset_info": [{"config_name": "default", **info}] if manifest.rejected else info,
    }


def _tested_folds(plan: Plan, manifest: Manifest, is_generator_known: bool) -> list[dict[str, Any]]:
    """Return a row of the card's table for each fold that may be tested.

    These are the parents' folds, and the test folds that the clips were made for. `clean` is the number of clips that may train if
    the fold is tested: no recording of the fold is among their parents or in the training data of their classifier filter.
    `trained_on` says whether the generator was trained on the fold: yes, no or unknown.
    """
    other_folds = manifest.recordings_of_several_folds

    def with_other_folds(folds: Iterable[int], groups: Iterable[str]) -> set[int]:
        return {*folds, *(fold for group in groups for fold in other_folds.get(group, ()))}

    test_folds = {manifest.train_clips.test_fold} if manifest.train_clips is not None else set()
    folds_of_filter: dict[tuple[int, ...], set[int]] = {}
    folds_of_single_filter: set[int] = set()  # of the one classifier that scored all clips
    if (clip_filter := manifest.clip_filter) is not None:
        test_folds |= set(clip_filter.test_folds)
        folds_of_filter = {
            part.folds: with_other_folds(part.folds, part.groups) for part in clip_filter.trained_on
        }
        if clip_filter.test_folds:
            folds_of_single_filter = set().union(*folds_of_filter.values())
    folds_of_clips = [
        with_other_folds(clip.parent_folds, clip.parent_groups)
        | folds_of_filter.get((clip.fold,), set())
        | folds_of_single_filter
        for clip in plan.clips
    ]

    training_groups = {group for part in manifest.trained_on for group in part.groups}
    training_sounds = {sound for part in manifest.trained_on for sound in part.sounds}
    same_source = [part for part in manifest.trained_on if part.source == manifest.source.name]
    trained = with_other_folds((fold for part in same_source for fold in part.folds), training_groups)
    for clip in plan.clips:
        for parent, fold, group in zip(clip.parents, clip.parent_folds, clip.parent_groups, strict=True):
            if parent in training_sounds or group in training_groups:
                trained.add(fold)
    parent_groups = {group for clip in plan.clips for group in clip.parent_groups}
    is_known = is_generator_known and not unmatched_sources(training_groups, parent_groups)
    return [
        {
            "fold": fold,
            "clean": sum(fold not in folds for folds in folds_of_clips),
            "trained_on": "yes" if fold in trained else "no" if is_known else "unknown",
        }
        for fold in sorted({fold for clip in plan.clips for fold in clip.parent_folds} | test_folds)
    ]


def _saved_audit(folder: Path) -> dict[str, Any] | None:
    """Return the saved audit of a dataset, or None without one."""
    try:
        return read_json(folder / AUDIT_FILE, UsageError, "")
    except UsageError:
        return None


def open_own_dataset(folder: Path) -> tuple[Manifest, Plan]:
    """Return the manifest and the plan of a dataset that usk made. Raises UsageError for any other folder."""
    try:
        manifest = read_manifest(folder, UsageError)
        with (folder / PLAN_FILE).open("rb") as lines:
            plan = Plan.from_lines(lines, manifest.class_names)
        if plan.sha256 != manifest.plan_sha256:
            raise ValueError("another plan")
        return manifest, kept_plan(plan, manifest, folder)
    except (OSError, ValueError, LookupError, TypeError, RecursionError, UsageError) as error:
        raise UsageError(
            "is not a dataset that `usk synth` made, whose card could show this", field="save", value=folder
        ) from error


def save_audit(folder: Path, found: dict[str, Any], real: str) -> None:
    """Save an audit in the folder of its dataset, and write the card again with it.

    Args:
        folder: of a dataset that usk made.
        found: `Audit.as_dict()`.
        real: the real clips that the dataset was compared with, and their revision.

    Raises UsageError for any other folder, and if the files cannot be written.
    """
    audit = {**found, "dataset": folder.resolve().name, "real": real}
    manifest, plan = open_own_dataset(folder)
    with disk_errors(folder, field="save"):
        atomic_write(folder / AUDIT_FILE, (json.dumps(audit, indent=1) + "\n").encode())
        atomic_write(folder / "README.md", dataset_card(manifest, plan, folder).encode())
