"""Read and check the TOML file of a study: its sources, generators, recipes for clips, mixes, folds and seeds."""

from __future__ import annotations

import itertools
import tomllib
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from usk.classify.config import DEFAULT_USE, use_named
from usk.data.mix import parse_mix
from usk.errors import UsageError, require_at_least
from usk.text import abbreviate_list
from usk.typed_json import from_json

FULL = "full"
BY_TRAIN_CLIPS = ("test_folds", "augments", "mixes", "seeds", "per_class")
"""Keys that hold either one value, or a table with a value for each number of real clips."""
DEFAULTS: dict[str, Any] = {"augments": ["auto"], "per_class": 10}


@dataclass(frozen=True)
class StudyConfig:
    """A study. Numbers of real clips (`size` in code) are strings, `50` or `full`, because they are keys of TOML tables.

    real: the source of the real clips, by default that of `usk train`. Relative paths start at the TOML file.
    train_clips: numbers of real clips to train on. The study works on them in this order.
    test_folds, seeds, epochs: by number of real clips. Seeds begin with `first_seed`. Without `epochs`, the classifier has its own.
    mixes: the mixes to train in addition to `real`, by number of real clips. They name entries of `clips`, or any source.
    augments, mix_augments: the augmentations of real clips alone, and of the mixes.
    uses: how the mixes use synthetic clips: names in `usk.classify.config.USES`. Every use but as-is gets mixes of its own,
        such as `real,synth (balanced)`.
    clips: recipes for synthetic clips by name. Each is a table of `usk synth`'s settings. It may also set `per_class`, and
        `filter`, the share of clips to keep or a CLAP model.
    generators: generators to fit, by name. Each is a table of `usk fit`'s settings and the `test_folds` to leave out.
    model: the generator of all clips, or one for each test fold: a name in `generators`, `embedded`, a folder or a Hub id.
    control: the mix that mixes the same parents without a generator. Other mixes are compared with it.
    """

    train_clips: tuple[str, ...]
    test_folds: dict[str, tuple[int, ...]]
    mixes: dict[str, tuple[str, ...]]
    seeds: dict[str, int]
    real: str | None = None
    classifiers: tuple[str, ...] = ("small",)
    augments: dict[str, tuple[str, ...]] = field(default_factory=dict)
    mix_augments: tuple[str, ...] = ("auto",)
    uses: tuple[str, ...] = (DEFAULT_USE,)
    per_class: dict[str, int] = field(default_factory=dict)
    clips: dict[str, dict[str, Any]] = field(default_factory=dict)
    generators: dict[str, dict[str, Any]] = field(default_factory=dict)
    model: str | dict[str, str] = "embedded"
    control: str | None = None
    first_seed: int = 0
    epochs: dict[str, int] = field(default_factory=dict)

    def seeds_of(self, size: str) -> range:
        return range(self.first_seed, self.first_seed + self.seeds[size])

    def clips_of(self, size: str) -> list[str]:
        """Return the names in `clips` that the mixes with `size` real clips use."""
        named = [name for mix in self.mixes[size] for name in parse_mix(mix).parts]
        return [name for name in self.clips if name in named]

    @property
    def all_folds(self) -> list[int]:
        return sorted(set().union(*self.test_folds.values()))


def read_study(file: Path) -> StudyConfig:
    """Read a study from a TOML file. Raise UsageError if the file is wrong."""
    try:
        raw = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{file} cannot be read ({error.strerror or error})") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{file} is not a TOML file: {error}") from error
    try:
        return _parse(raw)
    except UsageError as error:
        raise UsageError(f"{file}: {error}") from error


def _parse(raw: dict[str, Any]) -> StudyConfig:
    known = {entry.name for entry in fields(StudyConfig)}
    if unknown := sorted(set(raw) - known):
        raise UsageError(f"{unknown[0]} is not a key", hint=f"Keys are {', '.join(sorted(known))}.")
    if not isinstance(raw.get("train_clips"), list) or not raw["train_clips"]:
        raise UsageError("train_clips is not a list of numbers of clips")
    sizes = [str(size) for size in raw["train_clips"]]
    if wrong := [size for size in sizes if size != FULL and not (size.isdigit() and int(size))]:
        raise UsageError(f"train_clips {wrong[0]} is not a number of clips", hint=f"Write {FULL} for all.")
    values = {**raw, "train_clips": sizes}
    for name in (*BY_TRAIN_CLIPS, "epochs"):
        value = raw.get(name, DEFAULTS.get(name))
        if value is not None:
            values[name] = value if isinstance(value, dict) else dict.fromkeys(sizes, value)
    try:
        study = from_json(StudyConfig, values)
    except ValueError as error:
        raise UsageError(str(error)) from error
    _check(study)
    return study


def _check(study: StudyConfig) -> None:
    """Raise UsageError for a value that has the right type but makes no sense."""
    for name in BY_TRAIN_CLIPS:
        if missing := [size for size in study.train_clips if getattr(study, name).get(size) in (None, ())]:
            raise UsageError(f"{name} has no value for {missing[0]} real clips")
    require_at_least(1, seeds=min(study.seeds.values()), per_class=min(study.per_class.values()))
    for name in study.uses:
        use_named(name)
    if isinstance(study.model, dict):
        missing = [str(fold) for fold in study.all_folds if str(fold) not in study.model]
        if missing:
            raise UsageError(f"model has no entry for test fold {abbreviate_list(missing)}")
    for mix in itertools.chain.from_iterable(study.mixes.values()):
        parse_mix(mix)
