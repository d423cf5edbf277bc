"""Define, read and write `usk.json`, the manifest of a synthetic dataset: its source, generator, settings and shards."""

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
FORMAT = 3
SHARD_NAME = re.compile(r"(data/train|rejected/rejected)-\d{5}-of-\d{5}\.parquet")
# Manifest field -> the parameter that determines it, where the names differ.
PARAMETER_OF = {
    **dict.fromkeys(("source", "class_names", "has_groups", "license", "plan_sha256"), "real"),
    **dict.fromkeys(("trained_on", "mel", "sample_rate_hz"), "model"),
    **dict.fromkeys(("solver", "eta", "condition_on_class", "crop", "repeat_short"), "quality"),
    "griffin_lim_iterations": "quality",
    "precision": "device",
    "clip_filter": "filter",
    "prompts": "prompt",
}
# Fields that do not determine the content of the clips.
INFORMATIONAL = {"shards", "rejected", "arguments", "unconditioned", "recordings_of_several_folds"}


@dataclass(frozen=True)
class SourceRecord:
    """The source of the parents."""

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
    clips: int | None = None  # number of clips; None: not known
    groups: tuple[str, ...] = field(default=(), repr=False)  # recordings
    sounds: tuple[str, ...] = field(
        default=(), repr=False
    )  # content hashes of the clips (usk.data.clip.Clip.sound)
    held_out_groups: tuple[str, ...] = field(default=(), repr=False)  # recordings used for validation only
    hub_id: str = ""
    has_groups: bool = True  # whether the source names its recordings
    note: str = ""  # what is not known about the training data

    @classmethod
    def parse_list(cls, value: Any) -> tuple[TrainedOn, ...]:
        """Parse the sources in a generator's `trained_on.json`. Raises ValueError with a clause for a message."""
        if not isinstance(value, list):
            raise ValueError("it is not a list of sources")
        return tuple(from_json(cls, part) for part in value)

    @property
    def is_incomplete(self) -> bool:
        """Whether the generator may have been trained on recordings that `groups` does not name."""
        return bool(self.note) or not (self.groups or self.clips == 0)


@dataclass(frozen=True)
class TrainSubsetRecord:
    """The `train_clips` real clips that train when `test_fold` is tested, drawn with `seed` (`usk.data.train_subset`)."""

    train_clips: int | None  # None: the whole training part
    test_fold: int
    seed: int = 0


@dataclass(frozen=True)
class FilterTrainedOn:
    """The training data of one classifier of the classifier filter."""

    folds: tuple[int, ...]
    clips: int
    groups: tuple[str, ...] = field(repr=False)
    sounds: tuple[str, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class FilterRecord:
    """The settings and training data of the classifier filter."""

    classifier: str
    share_kept: float
    # Folds that the single classifier was not trained on. Empty: there is one classifier for each fold.
    test_folds: tuple[int, ...]
    trained_on: tuple[FilterTrainedOn, ...]
    # Of an outside model: the lowest similarity to the class's prompt, as a share of the real clips' median.
    least_score: float | None = None


@dataclass(frozen=True)
class ClipRequest:
    """The clips that the user asked for. The plan has the clips that are made."""

    per_class: int
    classes: tuple[str, ...] = ()  # empty: all
    test_folds: tuple[int, ...] = ()  # folds whose clips are not used as parents
    skip_bad: bool = False


@dataclass(frozen=True)
class Shard:
    """One Parquet file of clips."""

    rows: int
    sha256: str = ""  # empty until the dataset is finished


@dataclass(frozen=True)
class Manifest:
    """The settings that, with the plan, determine the clips of a dataset, and the shards that hold them."""

    source: SourceRecord
    class_names: tuple[str, ...]
    model: str  # with its revision; usk.data.clip.NO_MODEL without a generator
    trained_on: tuple[TrainedOn, ...]
    mel: dict[str, int | float] | None  # the fields of usk.audio.mel.MelSettings; None without a generator
    sample_rate_hz: int
    # By strategy: usk.synth.settings.RenderConfig.as_dict
    render: dict[str, dict[str, str | int | float | bool | None]]
    alpha: str
    seed: int
    asked: ClipRequest
    has_groups: bool  # whether the source names its recordings
    license: str
    plan_sha256: str
    shards: dict[str, Shard]  # with a classifier filter, empty until it has chosen the clips
    rejected: dict[str, Shard] = field(default_factory=dict)
    # Class -> prompts. The first prompt is used to invert the parents.
    prompts: dict[str, tuple[str, ...]] = field(default_factory=dict)
    precision: str | None = None
    unconditioned: tuple[str, ...] = ()  # classes that the generator does not know
    train_clips: TrainSubsetRecord | None = None
    clip_filter: FilterRecord | None = None
    recordings_of_several_folds: dict[str, tuple[int, ...]] = field(default_factory=dict)
    arguments: tuple[str, ...] = ()  # of the command line
    kind: str = KIND
    format: int = FORMAT

    def __post_init__(self) -> None:
        """Raise ValueError, with a clause for a message, if a field is invalid."""
        if self.kind != KIND:
            raise ValueError(f"its kind is {self.kind}, not {KIND}")
        if self.format != FORMAT:
            raise ValueError(f"its format is {self.format}, but this version of usk reads format {FORMAT}")
        if not self.render:
            raise ValueError("render names no strategy")
        required = {"sample_rate_hz", "n_mels", "hop_samples"}
        if self.mel is not None and not all(self.mel.get(name, 0) > 0 for name in required):
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
        """Build a manifest from parsed JSON. Raises ValueError with a clause for a message."""
        if isinstance(value, dict) and value.get("kind") == KIND and value.get("format") != FORMAT:
            raise ValueError(
                f"its format is {value.get('format')}, but this version of usk reads format {FORMAT}"
            )
        return from_json(cls, value)

    def as_json(self) -> str:
        return json.dumps(asdict(self), indent=1) + "\n"

    @property
    def key(self) -> str:
        """Return a hash (12 hex digits) of the fields that determine the clips. All parts of a dataset have the same key."""
        values = {name: value for name, value in asdict(self).items() if name not in INFORMATIONAL}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def all_shards(self) -> dict[str, Shard]:
        """Return the shards of the dataset and of the clips that the classifier filter rejected."""
        return {**self.shards, **self.rejected}

    def with_hashes(self, hashes: dict[str, str]) -> Manifest:
        """Return the manifest of the finished dataset, given the SHA-256 of every shard by name."""

        def hashed(shards: dict[str, Shard]) -> dict[str, Shard]:
            return {name: replace(shard, sha256=hashes[name]) for name, shard in shards.items()}

        return replace(self, shards=hashed(self.shards), rejected=hashed(self.rejected))

    def differences(self, other: Manifest) -> tuple[str, ...]:
        """Return the parameters in which two datasets differ, such as `model` or `steps`.

        Shards and command lines are not compared.
        """
        own, others = asdict(self), asdict(other)
        names = {name for name in own if own[name] != others[name]}
        names -= INFORMATIONAL
        if list(self.render) != list(other.render):
            names.add("strategy")
        pairs = [(own["asked"], others["asked"])]
        pairs += [(own["render"][one], others["render"][one]) for one in {*self.render} & {*other.render}]
        for old, new in pairs:
            names |= {name for name in {*old, *new} if old.get(name) != new.get(name)}
        names -= {"asked", "render"}
        if len(names) > 1:
            names.discard("plan_sha256")  # it follows from the others
        return tuple(sorted({PARAMETER_OF.get(name, name) for name in names}))


def write_manifest(folder: Path, manifest: Manifest) -> None:
    atomic_write(folder / MANIFEST_FILE, manifest.as_json().encode())


def read_manifest(folder: Path, error: type[UskError] = SourceError) -> Manifest:
    """Read the manifest in `folder`. Raises `error` if it is missing, damaged or of another version."""
    file, hint = folder / MANIFEST_FILE, "Make the dataset again into a new folder."
    value = read_json(file, error, f"{file} is damaged: it is not a JSON object. {hint}")
    try:
        return Manifest.from_dict(value)
    except ValueError as wrong:
        raise error(f"{file} is not the record of a synthetic dataset: {wrong}", hint=hint) from wrong


def find_manifest(folder: Path, error: type[UskError] = SourceError) -> Manifest | None:
    """Return the manifest in `folder`, or None without one. Raises what `read_manifest` raises."""
    return read_manifest(folder, error) if os.path.lexists(folder / MANIFEST_FILE) else None
