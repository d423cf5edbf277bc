"""`usk info`: describe a source, a generator, a run, or the installation."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from usk import tables
from usk.cli.options import ColumnsOption, ReadOptions, display_for
from usk.errors import UsageError
from usk.text import abbreviate_list, pluralize

if TYPE_CHECKING:
    from usk.data.source import Source

GENERATOR_FILES = {"model_index.json", "adapter_config.json"}


def command(
    ctx: typer.Context,
    what: Annotated[
        str | None,
        typer.Argument(
            metavar="SRC", help="A source, a generator, a run. Without it: versions and the cache."
        ),
    ] = None,
    columns: ColumnsOption = None,
) -> None:
    """Describe SRC: classes, counts, license, notes. Without SRC, describe the installation and its cache."""
    display, reading = display_for(ctx), ReadOptions.parse(columns)
    from usk.cli.display import facts_table

    kind, folder = ("installation", None) if what is None else _kind_of(what)
    if what is not None and kind == "source":
        facts, classes = _describe_source(what, reading)
        display.result({**facts, "classes": classes}, facts_table(what, facts), _counts_table(classes))
        return
    if what is None:
        facts = _describe_installation()
    else:
        facts = _describe_generator(what) if folder is None else _describe_run(folder)
    display.result(facts, facts_table(what or "usk", facts))


def _kind_of(what: str) -> tuple[str, Path | None]:
    """Return `generator`, `run` with its folder, or `source`. If a Hub id is both a dataset and a model, take the dataset."""
    from usk.data.pinned import looks_like_hub_id
    from usk.files import expanded
    from usk.runs import RUN_FILE

    path = expanded(what)
    if what == "embedded" or any((path / name).is_file() for name in GENERATOR_FILES):
        return "generator", None
    if any((path / name).is_file() for name in (RUN_FILE, "model.safetensors")):
        return "run", path
    if runs := sorted(child.name for child in path.glob("*") if (child / RUN_FILE).is_file()):
        hint = f"Compare them with `usk eval {what}`, or name one of them: {abbreviate_list(runs)}."
        raise UsageError(f"{what} holds {pluralize(len(runs), 'run')}", hint=hint)
    return _kind_on_hub(what) if not path.exists() and looks_like_hub_id(what) else ("source", None)


def _kind_on_hub(hub_id: str) -> tuple[str, Path | None]:
    from huggingface_hub.errors import RepositoryNotFoundError

    from usk.data.pinned import pin
    from usk.errors import SourceError
    from usk.hub import causes
    from usk.runs import RUN_FILE

    subject, instead = f"{hub_id}, which is not a folder here,", "name a folder"
    try:
        pin(hub_id, "dataset", subject, instead, SourceError)
        return "source", None
    except SourceError as error:
        if not any(isinstance(cause, RepositoryNotFoundError) for cause in causes(error)):
            raise
    pinned = pin(hub_id, "model", subject, instead, SourceError)
    if not GENERATOR_FILES.isdisjoint(pinned.files):
        return "generator", None
    if {"config.json", "model.safetensors"} <= set(pinned.files):
        return "run", pinned.download(("config.json", RUN_FILE))
    raise SourceError(
        f"{hub_id} is a model on the Hub, but neither a generator nor a classifier that usk knows"
    )


def _describe_run(folder: Path) -> dict[str, Any]:
    from usk.runs import RUN_FILE, read_record

    if not os.path.lexists(folder / RUN_FILE):
        from usk.classify.classifier import read_settings  # imports torch

        settings = read_settings(folder)
        return {
            "kind": "classifier",
            "classes": settings["class_names"],
            "classifier": settings["architecture"],
        }
    run = read_record(folder)
    return {
        "kind": "classifier",
        "classes": list(run.class_names),
        "mix": run.mix,
        "classifier": run.classifier,
        "split": run.split,
        "seed": run.seed,
        "accuracy": round(run.accuracy, 4),
        "macro F1": round(run.macro_f1, 4),
        **({"note": "protocol seed-9010: optimistic"} if run.optimistic else {}),
        "real clips": run.n_real,
        "synthetic clips": run.n_synthetic,
        "best epoch": run.best_epoch,
    }


def _describe_installation() -> dict[str, Any]:
    import torch

    from usk import __version__
    from usk.data.cache import cache_root, cache_size_bytes
    from usk.device import default_precision, resolve_device

    device = resolve_device("auto")
    return {
        "usk": __version__,
        "torch": torch.__version__,
        "device": str(device),
        "precision": default_precision(device),
        "cache": str(cache_root()),
        "cache MB": round(cache_size_bytes() / 1e6, 1),
        "cache note": "safe to delete at any time; $USK_CACHE moves it",
    }


def _describe_generator(model: str) -> dict[str, Any]:
    from usk.diffusion.pipeline import describe_generator

    generator = describe_generator(model)
    memory: dict[str, Any] = {}
    if generator.takes_prompts and find_spec("transformers"):
        from usk.diffusion.text_memory import memory_of

        memory = memory_of(model)
    mel = generator.mel
    return {
        "kind": "generator",
        "family": generator.family,
        "sample rate Hz": generator.sample_rate_hz,
        "longest clip s": round(generator.longest_s, 2),
        **({"mel bands": mel.n_mels} if mel is not None else {}),
        "conditioned on": "prompts" if generator.takes_prompts else list(generator.class_names) or "nothing",
        "trained on": [
            part.get("note")
            or f"{part['source']} folds {', '.join(map(str, part['folds']))} ({pluralize(len(part['groups']), 'recording')})"
            for part in generator.trained_on
        ],
        "license": generator.license,
        **memory,
    }


def _provenance(source: Source, lengths_s: list[float]) -> dict[str, Any]:
    """Describe how a source's synthetic clips were made; empty without any."""
    synthetic = [clip for clip in source.clips if clip.is_synthetic]
    if not synthetic:
        return {}
    from usk.data.leaks import unknown_generator

    trained: int | str = len({group for part in source.generator_trained_on for group in part.groups})
    if unknown_generator(source) is not None:
        trained = f"{f'{trained} and ' if trained else ''}unknown: leaks from it cannot be ruled out"
    scores = [clip.filter_score for clip in synthetic if clip.filter_score is not None]
    return {
        "synthetic clips": len(synthetic),
        "strategies": sorted({clip.strategy for clip in synthetic}),
        "made by": sorted({clip.model for clip in synthetic}),
        "recordings of parents": len({group for clip in synthetic for group in clip.parent_groups}),
        "recordings the generator was trained on": trained,
        **({"seconds": round(sum(lengths_s), 1)} if source.is_synthetic else {}),
        **({"mean filter score": round(sum(scores) / len(scores), 3)} if scores else {}),
    }


def _describe_source(location: str, reading: ReadOptions) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Describe a source, and each of its classes."""
    from usk.data.audio_file import ParquetRef

    source = reading.open(location, field="")
    lengths_s = [
        clip.duration_s or (ref.duration_s() if source.is_synthetic and isinstance(ref, ParquetRef) else 0.0)
        for clip, ref in zip(source.clips, source.audio, strict=True)
    ]
    facts = {
        "kind": source.kind,
        "name": source.name,
        "revision": source.revision,
        "clips": len(source),
        "classes": len(source.class_names),
        "recordings": len({group for clip in source.clips for group in clip.lineage}),
        "folds": list(source.folds),
        "license": source.license,
        **_provenance(source, lengths_s),
        "notes": list(source.notes),
    }
    classes = []
    for label, name in enumerate(source.class_names):
        own_s = [s for clip, s in zip(source.clips, lengths_s, strict=True) if clip.label == label]
        seconds = sum(own_s) if own_s and all(own_s) else None  # 0: not known before decoding
        lineage = {group for clip in source.clips if clip.label == label for group in clip.lineage}
        classes.append(
            {
                "class": name,
                "clips": len(own_s),
                "recordings": len(lineage),
                "seconds": None if seconds is None else round(seconds, 2),
                "mean_s": None if seconds is None else seconds / len(own_s),
            }
        )
    return facts, classes


def _counts_table(rows: Sequence[Mapping[str, Any]]) -> tables.Table:
    """Return a table of clips, recordings and, if known, mean length by class."""
    has_lengths = any(row["mean_s"] is not None for row in rows)
    numbers = ["clips", "recordings", *["mean s"] * has_lengths]
    table = tables.Table("classes", tables.columns("class", numbers=numbers))
    for row in rows:
        mean_s = "" if row["mean_s"] is None else f"{row['mean_s']:.2f}"
        table.add(row["class"], row["clips"], row["recordings"], *[mean_s] * has_lengths)
    return table
