"""`usk.json`, the record of a synthetic dataset: what its clips were made of and with, and which shards hold them.

This is its one definition. Others build a `Manifest`, read one with `read_manifest` or `find_manifest`, and use its fields.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from usk.errors import SourceError, UskError
from usk.files import atomic_write, read_json
from usk.typed_json import from_json

MANIFEST_FILE = "usk.json"
KIND = "synthetic dataset"
FORMAT = 2
SHARD_NAME = re.compile(r"(data/train|rejected/rejected)-\d{5}-of-\d{5}\.parquet")
# What decides a field that no parameter is named after.
PARAMETER_OF = {
    **dict.fromkeys(("source", "class_names", "has_groups", "license", "plan_sha256"), "real"),
    **dict.fromkeys(("trained_on", "mel", "sample_rate_hz"), "model"),
    **dict.fromkeys(("solver", "eta", "condition_on_class", "crop", "repeat_short"), "quality"),
    "griffin_lim_iterations": "quality",
    "precision": "device",
    "clip_filter": "filter",
    "prompts": "prompt",
}


NOT_DECISIVE = {"shards", "rejected", "arguments", "unconditioned", "recordings_of_several_folds"}


@dataclass(frozen=True)
class SourceRecord:
    """What the parents are clips of."""

    name: str
    kind: str
    revision: str  # of the content, or a Hub commit
    license: str
    hub_id: str = ""


@dataclass(frozen=True)
class TrainedOn:
    """One source that a generator was trained on."""

    source: str
    revision: str = ""
    license: str = "unknown"
    folds: tuple[int, ...] = ()
    clips: int | None = None  # how many; None: not known
    groups: tuple[str, ...] = ()  # recordings
    sounds: tuple[str, ...] = ()  # the same by clip (usk.data.clip.Clip.sound)
    held_out_groups: tuple[str, ...] = ()  # recordings that only validated
    hub_id: str = ""
    has_groups: bool = True  # whether the source names its recordings
    note: str = ""  # what is not known of it

    @classmethod
    def parts_of(cls, value: Any) -> tuple[TrainedOn, ...]:
        """The sources that `trained_on.json` of a generator lists, parsed. Raises ValueError with half a sentence."""
        if not isinstance(value, list):
            raise ValueError("it is not a list of sources")
        return tuple(from_json(cls, part) for part in value)

    @property
    def is_incomplete(self) -> bool:
        """Whether more was trained on than its recordings say."""
        return bool(self.note) or not (self.groups or self.clips == 0)


@dataclass(frozen=True)
class TrainSubsetRecord:
    """The real clips that train where `test_fold` tests: `train_clips` clips, drawn by `seed` (`usk.data.train_subset`)."""

    train_clips: int | None  # None: the whole training part
    test_fold: int
    seed: int = 0


@dataclass(frozen=True)
class FilterTrainedOn:
    """What one classifier of the classifier filter was trained on: recordings of these folds."""

    folds: tuple[int, ...]
    clips: int
    groups: tuple[str, ...]
    sounds: tuple[str, ...] = ()


@dataclass(frozen=True)
class FilterRecord:
    """How the classifier filter chose the clips."""

    classifier: str
    share_kept: float
    test_folds: tuple[int, ...]  # none of them trained the one classifier; empty: a classifier for each fold
    trained_on: tuple[FilterTrainedOn, ...]
    # Of an outside model: of the real clips' median similarity to the class's prompt
    least_score: float | None = None


@dataclass(frozen=True)
class Asked:
    """Which clips were asked for; the plan says what came of it."""

    per_class: int
    classes: tuple[str, ...] = ()  # empty: all
    test_folds: tuple[int, ...] = ()  # give no parents
    skip_bad: bool = False


@dataclass(frozen=True)
class Shard:
    """One Parquet file of clips."""

    rows: int
    sha256: str = ""  # known once the dataset is finished


@dataclass(frozen=True)
class Manifest:
    """All that decides the clips of a dataset beside its plan, and the shards that hold them."""

    source: SourceRecord
    class_names: tuple[str, ...]
    model: str  # with its revision; usk.data.clip.NO_MODEL where none was used
    trained_on: tuple[TrainedOn, ...]
    mel: dict[str, int | float] | None  # the fields of usk.audio.mel.MelSettings; None without a generator
    sample_rate_hz: int
    render: dict[str, str | int | float | bool | None]  # as usk.synth.settings.RenderConfig.as_dict has it
    alpha: str
    seed: int
    asked: Asked
    has_groups: bool  # whether the source names its recordings
    license: str
    plan_sha256: str
    shards: dict[str, Shard]  # empty until the classifier filter, where there is one, has chosen
    rejected: dict[str, Shard] = field(default_factory=dict)
    # By class; parents are inverted with the first
    prompts: dict[str, tuple[str, ...]] = field(default_factory=dict)
    precision: str | None = None
    unconditioned: tuple[str, ...] = ()  # classes that the generator does not know
    train_clips: TrainSubsetRecord | None = None
    clip_filter: FilterRecord | None = None
    recordings_of_several_folds: dict[str, tuple[int, ...]] = field(default_factory=dict)
    arguments: tuple[str, ...] = ()  # of the command line that made it
    kind: str = KIND
    format: int = FORMAT

    def __post_init__(self) -> None:
        """Raises ValueError with half a sentence where the fields cannot be those of a dataset."""
        if self.kind != KIND:
            raise ValueError(f"its kind is {self.kind}, not {KIND}")
        if self.format != FORMAT:
            raise ValueError(f"its format is {self.format}, where this version of usk reads format {FORMAT}")
        if not isinstance(self.render.get("strategy"), str):
            raise ValueError("render does not name the strategy")
        needed = {"sample_rate_hz", "n_mels", "hop_samples"}
        if self.mel is not None and not all(self.mel.get(name, 0) > 0 for name in needed):
            raise ValueError("mel lacks the sample rate, the bands or the hop")
        if self.sample_rate_hz < 1:
            raise ValueError("sample_rate_hz is not above 0")
        for name, shard in {**self.shards, **self.rejected}.items():
            if not SHARD_NAME.fullmatch(name):
                raise ValueError(f"{name!r} is not the name of a shard")
            if shard.rows < 0:
                raise ValueError(f"the shard {name} has {shard.rows} rows")

    @classmethod
    def from_dict(cls, value: Any) -> Manifest:
        """Parsed JSON as a manifest. Raises ValueError with half a sentence that says what is wrong."""
        if isinstance(value, dict) and value.get("kind") == KIND and value.get("format") != FORMAT:
            raise ValueError(
                f"its format is {value.get('format')}, where this version of usk reads format {FORMAT}"
            )
        return from_json(cls, value)

    def as_json(self) -> str:
        return json.dumps(asdict(self), indent=1) + "\n"

    @property
    def key(self) -> str:
        """Twelve hex digits of all that decides the clips: the same for whoever makes a part of them."""
        decisive = {name: value for name, value in asdict(self).items() if name not in NOT_DECISIVE}
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def all_shards(self) -> dict[str, Shard]:
        """Those of the dataset and those of the clips that the classifier filter rejected."""
        return {**self.shards, **self.rejected}

    def with_hashes(self, hashes: dict[str, str]) -> Manifest:
        """The manifest of the finished dataset. `hashes`: of every shard, by name."""

        def hashed(shards: dict[str, Shard]) -> dict[str, Shard]:
            return {name: replace(shard, sha256=hashes[name]) for name, shard in shards.items()}

        return replace(self, shards=hashed(self.shards), rejected=hashed(self.rejected))

    def differences(self, other: Manifest) -> tuple[str, ...]:
        """The parameters, such as `model` or `steps`, in which two datasets differ; empty where they are the same.

        Which shards are written, and how the command was typed, makes no difference.
        """
        mine, others = asdict(self), asdict(other)
        names = {name for name in mine if mine[name] != others[name]}
        names -= NOT_DECISIVE
        for nested in ("asked", "render"):
            if nested in names:
                old, new = mine[nested], others[nested]
                names |= {name for name in {*old, *new} if old.get(name) != new.get(name)}
        names -= {"asked", "render"}
        if len(names) > 1:
            names.discard("plan_sha256")  # it follows from the others
        return tuple(sorted({PARAMETER_OF.get(name, name) for name in names}))


def write_manifest(folder: Path, manifest: Manifest) -> None:
    atomic_write(folder / MANIFEST_FILE, manifest.as_json().encode())


def read_manifest(folder: Path, error: type[UskError] = SourceError) -> Manifest:
    """The manifest in `folder`. Raises `error` where there is none, or one that this version of usk did not write."""
    file, hint = folder / MANIFEST_FILE, "Make the dataset again into a new folder."
    value = read_json(file, error, f"{file} is damaged: it is not a JSON object. {hint}")
    try:
        return Manifest.from_dict(value)
    except ValueError as wrong:
        raise error(f"{file} is not the record of a synthetic dataset: {wrong}", hint=hint) from wrong


def find_manifest(folder: Path, error: type[UskError] = SourceError) -> Manifest | None:
    """The manifest in `folder`, None where there is none. Raises what `read_manifest` raises."""
    return read_manifest(folder, error) if os.path.lexists(folder / MANIFEST_FILE) else None
