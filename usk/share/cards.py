"""Dataset and model cards from the Jinja templates in `cards/`.

Names of classes and sources come from users: they are escaped for Markdown, and metadata is written by a YAML
library, never by string formatting.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from usk.audio.mel import MelSettings
from usk.data.mix import named_elsewhere
from usk.data.parquet import says_too_little
from usk.errors import UsageError, UskError, disk_errors
from usk.files import atomic_write
from usk.synth.plan import Alpha, Plan
from usk.synth.strategies import strategy_named

# The Hub's names of licenses that clips are commonly under; others become `other` with a name of their own.
HUB_LICENSES = frozenset(
    [
        "cc-by-nc-2.0",
        "cc-by-nc-3.0",
        "cc-by-nc-4.0",
        "cc-by-nc-sa-2.0",
        "cc-by-nc-sa-3.0",
        "cc-by-nc-sa-4.0",
        "cc-by-nc-nd-3.0",
        "cc-by-nc-nd-4.0",
        "cc-by-nd-4.0",
        "cc-by-sa-3.0",
        "cc-by-sa-4.0",
        "cc-by-2.0",
        "cc-by-2.5",
        "cc-by-3.0",
        "cc-by-4.0",
        "cc0-1.0",
        "apache-2.0",
        "mit",
        "gpl-3.0",
        "odbl",
        "pddl",
    ]
)
AUDIT_FILE = "audit.json"
STUDY_FILE = "study.json"
CHART_FILE = "accuracy.png"
PLACE = "path/to/this/folder"
"""Stands for the dataset, generator or run in its card; `usk push` puts its place on the Hub there."""
URBANSOUND8K = (
    "The recordings are from UrbanSound8K (CC BY-NC 3.0, recordings by Freesound users): J. Salamon, C. Jacoby and "
    'J. P. Bello,\n"A Dataset and Taxonomy for Urban Sound Research", ACM Multimedia 2014.'
)


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
    return re.sub(r"([\\`*_{}\[\]<>()#+!|~&$-])", r"\\\1", one_line(value))


def one_line(value: object) -> str:
    """`value` as text without line breaks and control characters."""
    return "".join(character if character.isprintable() else " " for character in str(value))


def code_span(value: object) -> str:
    """`value` between backticks, also inside a table."""
    return (
        "`" + one_line(value).replace("`", "'").replace("|", "\\|").strip() + "`"
        if str(value).strip()
        else ""
    )


def render_card(template: str, metadata: dict[str, Any], values: dict[str, Any]) -> str:
    """A card: YAML metadata and the rendered template of `cards/`."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_templates()),
        undefined=jinja2.StrictUndefined,
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(md=escape_markdown, code=code_span)
    body = environment.get_template(template).render(**values, place=PLACE, citation=URBANSOUND8K)
    return f"---\n{metadata_yaml(metadata)}---\n{body}"


def metadata_yaml(metadata: dict[str, Any]) -> str:
    """Metadata as YAML. Quoted is whatever a reader of YAML 1.2, as the Hub's is, could take for something else."""
    import yaml  # type: ignore[import-untyped,unused-ignore]

    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True

    def text(dumper: Any, value: str) -> Any:
        plain = re.fullmatch(r"[A-Za-z][\w /.<|-]*", value) and value.strip() == value
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=None if plain else '"')

    Dumper.add_representer(str, text)
    return str(
        yaml.dump(
            metadata,
            Dumper=Dumper,
            sort_keys=False,
            allow_unicode=True,
            default_flow_style=False,
            width=10**6,
        )
    )


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
    """The Hub's `license` fields for a license's name."""
    short = re.sub(r"[^a-z0-9.-]+", "-", name.lower())
    if short in HUB_LICENSES:
        return {"license": short}
    return {"license": "other", "license_name": short or "unknown"}


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


def save_audit(folder: Path, found: dict[str, Any], real: str) -> None:
    """Keep what `usk audit` found of a dataset that usk made beside it, and write its card again with the figures.

    Args:
        found: `Audit.as_dict()`.
        real: what it was compared with, with its revision.

    Raises UsageError for a folder that is no such dataset, or cannot be written.
    """
    _save(folder, AUDIT_FILE, {**found, "dataset": folder.resolve().name, "real": real})


def save_study(
    folder: Path,
    comparisons: Sequence[dict[str, Any]],
    trained_here: Sequence[Mapping[str, int]],
    chart: Callable[[Path], None],
) -> None:
    """The same for what `usk eval` says of runs that trained on it; `chart` draws their accuracies as a PNG file.

    Args:
        comparisons: `Comparison.as_dict()` of each.
        trained_here: for each, by mix, how many of its runs were trained on this very dataset: of few train_clips each seed and
            test fold has one of its own.

    Raises UsageError for a folder that is no such dataset, or cannot be written.
    """
    kept = []
    for one, here in zip(comparisons, trained_here, strict=True):
        rows = [
            {
                "mix": _without_paths(row["mix"]),
                "n_here": here.get(row["mix"], 0),
                **{
                    name: row[name]
                    for name in ("n_runs", "accuracy", "macro_f1", "n_real", "n_synthetic", "difference")
                },
                "sentence": row["sentence"].replace(row["mix"], _without_paths(row["mix"])),
            }
            for row in one["rows"]
        ]
        settings = {
            name: one[name]
            for name in ("protocol", "classifier", "augment", "train_clips", "optimistic", "details")
        }
        settings["classifier"] = _without_paths(settings["classifier"])
        places = {place for row in one["rows"] for place in (row["mix"], *row["mix"].split(","))}
        notes = [_without_places(note, places) for note in one["notes"]]
        kept.append({**settings, "baseline": _without_paths(one["baseline"]), "rows": rows, "notes": notes})
    ours_to_save_in(folder)  # before anything is written
    try:
        chart(folder / CHART_FILE)
    except OSError as error:
        raise UsageError(f"--save: {folder} cannot be written ({error.strerror})") from error
    _save(folder, STUDY_FILE, kept)


def _without_places(note: str, places: Iterable[str]) -> str:
    """A note with the names of the folders that it speaks of, in place of their places."""
    for place in sorted(places, key=len, reverse=True):
        note = note.replace(place, _without_paths(place))
    return note


def _without_paths(text: str) -> str:
    """A mix or classifier as others may read it: of a folder's place, its name."""
    parts = []
    for part in text.split(","):
        kind, mark, place = part.rpartition(":") if part.startswith("hf:") else ("", "", part)
        local = place.startswith((".", "/", "~")) or place.count("/") > 1
        parts.append(f"{kind}{mark}{Path(place).name if local else place}")
    return ",".join(parts)


def ours_to_save_in(folder: Path) -> tuple[dict[str, Any], Plan]:
    """Manifest and plan of a dataset that usk made. Raises UsageError for a folder that is none."""
    from usk.synth.dataset_folder import kept_of

    try:
        manifest = json.loads((folder / "usk.json").read_text(encoding="utf-8"))
        plan = Plan.from_jsonl((folder / "plan.jsonl").read_text(encoding="utf-8"), manifest["class_names"])
        return manifest, kept_of(plan, manifest, folder)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"--save writes into the folder of a dataset that usk synth made, which {folder} is not"
        ) from error


def _save(folder: Path, name: str, kept: Any) -> None:
    manifest, plan = ours_to_save_in(folder)
    with disk_errors(folder, flag="--save"):
        atomic_write(folder / name, (json.dumps(kept, indent=1) + "\n").encode())
        atomic_write(folder / "README.md", dataset_card(manifest, plan, folder).encode())


def run_card(
    record: dict[str, Any],
    accuracy: float,
    macro_f1: float,
    recalls: list[tuple[str, int, float]],
    network: str,
    module: str,
) -> str:
    """The README.md of a run: its results with their protocol, what trained it, and what cannot be ruled out.

    Args:
        record: what run.json holds, and `heard`: seconds, sample rate, how short clips are filled, whether a
            feature extractor of `transformers` makes its features, and whether clips are heard in halves.
        accuracy, macro_f1: on the test part, 0 to 1.
        recalls: (class, test clips, recall) in class order.
        network, module: the class of its network and the file that has it.
    """
    from huggingface_hub import EvalResult, ModelCardData

    from usk import __version__

    real = record["inputs"]["real"]
    optimistic = ", optimistic" if record["optimistic"] else ""
    test_part = (
        f"fold {record['fold']}"
        if record["fold"] is not None
        else f"{record['protocol']}, seed {record['seed']}"
    )
    results = [
        EvalResult(
            task_type="audio-classification",
            dataset_type=real["hub_id"] or one_line(real["source"]),
            dataset_name=one_line(real["source"]),
            dataset_split="test",
            dataset_revision=real["revision"],
            dataset_args={"protocol": record["protocol"], "test": record["split"], "seed": record["seed"]},
            metric_type=kind,
            metric_name=f"{label} ({record['protocol']}{optimistic})",
            metric_value=round(value, 4),
        )
        for kind, label, value in (("accuracy", "accuracy", accuracy), ("f1", "macro F1", macro_f1))
    ]
    # A folder is named as its dataset is, not by its path on somebody's disk.
    parts = [
        {"name": name if name in ("real", "synth") or part["hub_id"] else part["source"], **part}
        for name, part in record["inputs"].items()
    ]
    used = [part["hub_id"] for part in parts if part["hub_id"]]
    mix = ", ".join(part["name"] for part in parts if part["trained"])
    license = license_metadata(record["license"])
    data = ModelCardData(
        license=license["license"],
        license_name=license.get("license_name"),
        library_name="usk",
        pipeline_tag="audio-classification",
        tags=["audio", "usk"],
        datasets=used or None,
        model_name=f"{record['classifier']} on {one_line(mix)}",
        eval_results=results,
    )
    values = {
        "version": __version__,
        "record": record,
        "class_names": record["class_names"],
        "mix": mix,
        "parts": parts,
        "leaks": record["leaks"],
        "license": record["license"],
        "test_part": test_part,
        "accuracy": accuracy,
        "macro_f1": macro_f1,
        "recalls": [{"name": name, "support": n, "recall": recall} for name, n, recall in recalls],
        "n_test_recordings": record["n_test_recordings"],
        "network": network,
        "module": module,
        "urbansound8k": any(part["urbansound8k"] for part in parts),
    }
    return render_card("run.md", data.to_dict(), values)


def write_generator_card(folder: Path) -> None:
    """The README.md of a fitted generator, from what its folder holds (and `round_trip.json`, if it was measured)."""
    from usk import __version__

    def read(name: str) -> Any:
        return json.loads((folder / name).read_text(encoding="utf-8"))

    trained_on, training = read("trained_on.json"), read("training.json")
    unet, named = read("unet/config.json"), read("model_index.json").get("id2label", {})
    config, size, log = training["config"], unet["sample_size"], training["log"]
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
        "images_a_step": config["batch"] * config.get("accumulate", 1) * training.get("processes", 1),
        "latent_shape": [unet["in_channels"], *(size if isinstance(size, list) else [size, size])],
        "class_names": list(named.values()),
        "mel": MelSettings.from_audiodiffusion(read("mel/mel_config.json")).as_dict(),
        "round_trip": read("round_trip.json") if (folder / "round_trip.json").is_file() else None,
    }
    with disk_errors(folder):
        atomic_write(folder / "README.md", render_card("generator.md", metadata, values).encode())
