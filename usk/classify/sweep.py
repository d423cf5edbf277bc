"""What one `usk train` trains: mixes x augmentations x splits x train clips x seeds, and which dataset each part of a mix means."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from usk.classify.config import FOLDS, ClipUse
from usk.data.mix import Mix, TrainingRows, parse_mix, training_rows
from usk.data.open import open_source
from usk.data.pinned import looks_like_hub_id
from usk.data.source import Source
from usk.data.splits import Split, fold_split, seed_9010_split
from usk.data.train_subset import SUBSET_NAME, subset_name, subset_split
from usk.errors import LeakError, UsageError
from usk.files import expanded
from usk.manifest import MANIFEST_FILE

Place = Source | str | os.PathLike[str] | None


@dataclass(frozen=True)
class PlannedRun:
    """One classifier to train. `mix.text` is what the user typed, and `use` if it is not the default; its parts name the sources
    of this very run, of which `rows` train. The training part of `split` is cut to its train clips."""

    mix: Mix
    split: Split
    seed: int
    augment: str
    rows: TrainingRows
    use: ClipUse

    @property
    def label(self) -> str:
        train_clips = "" if self.split.train_clips is None else f" · {self.split.train_clips} train clips"
        return f"{self.mix.text}{train_clips} · {self.augment} · {self.split.name} · seed {self.seed}"


@dataclass(frozen=True)
class Sweep:
    """Every run, the splits that test, the seeds, and why test folds were left out."""

    runs: list[PlannedRun]
    splits: list[Split]
    seeds: tuple[int, ...]
    left_out: list[str]


def parse_mixes(texts: str | Sequence[str], synth: Place, baseline: bool) -> list[Mix]:
    """The mixes, each once. With `baseline`, in front of them the real clips alone."""
    place = synth.location if isinstance(synth, Source) else synth
    mixes = [parse_mix(text, place) for text in ([texts] if isinstance(texts, str) else texts)]
    if not mixes:
        raise UsageError("names nothing to train on", field="mix", hint="Write for example real,synth.")
    baselines = [parse_mix("real")] if baseline else []
    return list(dict.fromkeys([*baselines, *mixes]))


@dataclass(frozen=True)
class Parts:
    """The datasets that mixes name: whole ones by the name in the mix, and those of `usk study` by train clips by their folder,
    of which each run takes its own (`name/subset`, wherever the folder is)."""

    opened: dict[str, Source]
    train_subset: dict[str, tuple[str, frozenset[str]]]  # name in the mix -> folder, names of its subsets

    @classmethod
    def open(cls, real: Source, mixes: Sequence[Mix], synth: Place, skip_bad: bool = False) -> Parts:
        """Open whatever `mixes` name; what is missing is said at once. `real` and `synth` are what those words mean."""
        opened, train_subset = {"real": real}, {}
        for name in dict.fromkeys(name for mix in mixes for name in mix.parts if name != "real"):
            folder = subset_folder(synth if name == "synth" else name)
            if folder is None:
                opened[name] = _named_source(name, synth, skip_bad)
                continue
            subsets = sorted(path.name for path in folder.iterdir() if SUBSET_NAME.fullmatch(path.name))
            train_subset[name] = (str(folder), frozenset(subsets))
        parts = cls(opened, train_subset)
        for mix in mixes:
            parts.refuse_other_names(mix)
        return parts

    def open_subsets(
        self, folds: Sequence[int], seeds: Sequence[int], train_clips: Sequence[int | None]
    ) -> Parts:
        """The same with the subsets opened that these folds (all, if empty), seeds and train clips can use."""
        wanted = {
            subset_name(n, f"fold{fold}", seed)
            for n in train_clips
            for fold in folds or self.opened["real"].folds
            for seed in seeds
        }
        opened = {
            f"{name}/{subset}": open_source(Path(folder) / subset)
            for name, (folder, subsets) in self.train_subset.items()
            for subset in sorted(wanted & subsets)
        }
        return replace(self, opened=self.opened | opened)

    def with_subsets(
        self, seeds: Sequence[int], splits: Sequence[Split], train_clips: Sequence[int | None]
    ) -> list[int]:
        """The first of these seeds, and those that every folder by train clips has clips for."""

        def made(seed: int) -> bool:
            names = {subset_name(n, split.name, seed) for n in train_clips for split in splits}
            return all(names <= subsets for _, subsets in self.train_subset.values())

        return [seed for seed in seeds if seed == seeds[0] or made(seed)]

    def refuse_other_names(self, mix: Mix) -> None:
        """Raise UsageError where two parts of `mix` are one dataset, or one is the real clips by another name: they would
        count twice, and train clips would not hold for them."""
        real = self.opened["real"]
        seen: dict[tuple[str, ...], str] = {}
        for name in mix.parts:
            identity = self._identity(name)
            source = self.opened.get(name, real)  # subsets are many, all synthetic
            if source is not real and not source.has_synthetic and source.revision == real.revision:
                why = f"{name} is the real clips themselves"
                raise UsageError(why, field="mix", value=mix.text, hint="Write real.")
            if identity in seen:
                why = f"{name} is the same dataset as {seen[identity]}"
                raise UsageError(why, field="mix", value=mix.text, hint="Name it once.")
            seen[identity] = name

    def _identity(self, name: str) -> tuple[str, ...]:
        if name in self.train_subset:
            return (str(Path(self.train_subset[name][0]).resolve()),)
        source = self.opened[name]
        return source.name, source.revision

    def mix_of(self, mix: Mix, split: Split, seed: int) -> Mix:
        """`mix` with the names of folders by train clips replaced by the dataset in them for this split and seed.

        Raises LeakError where there is none, for no other one may train there.
        """
        parts = []
        for name in mix.parts:
            if name in self.train_subset:
                folder, subsets = self.train_subset[name]
                n, subset = split.train_clips, subset_name(split.train_clips, split.name, seed)
                if subset not in subsets:
                    what = f"{n} train clips of seed {seed}" if n else "the full training part"
                    raise LeakError(
                        f"{folder} has no clips for {what} where {split.name} tests",
                        field="mix",
                        value=mix.text,
                        hint="Test other folds, or make them with `usk study`."
                        if split.of_fold
                        else "Only the protocol folds can have such clips.",
                    )
                name = f"{name}/{subset}"
            parts.append(name)
        return replace(mix, parts=tuple(parts))


def subset_folder(place: Place) -> Path | None:
    """The folder, if it is one that `usk study` wrote by train clips: datasets named by train clips, fold and seed."""
    if place is None or isinstance(place, Source):
        return None
    folder = expanded(place)
    if not folder.is_dir() or (folder / MANIFEST_FILE).exists():
        return None
    made = (path for path in folder.iterdir() if SUBSET_NAME.fullmatch(path.name))
    return folder if any((path / MANIFEST_FILE).is_file() for path in made) else None


def _named_source(name: str, synth: Place, skip_bad: bool) -> Source:
    if name != "synth":
        try:
            return open_source(name, skip_bad=skip_bad, field="mix")
        except UsageError:
            raise
        except Exception as error:
            if "/" in name or Path(name).exists():
                raise
            raise UsageError(
                "is neither real, synth nor a source (a folder, a Hub id, demo)", field="mix", value=name
            ) from error
    if synth is None:
        raise UsageError(
            "synth is not given", field="mix", hint="Name a synthetic dataset, or make one with `usk synth`."
        )
    if isinstance(synth, Source):
        return synth
    if not expanded(synth).exists() and not looks_like_hub_id(str(synth)):
        raise UsageError("no such dataset", field="synth", value=synth, hint="Make one with `usk synth`.")
    return open_source(synth)


def plan_runs(
    parts: Parts,
    mixes: Sequence[Mix],
    protocol: str,
    folds: Sequence[int],
    seeds: Sequence[int],
    train_clips: Sequence[int | None] = (None,),
    augments: Sequence[str] = ("none",),
    use: ClipUse = ClipUse(),
) -> Sweep:
    """Every run, refused now and not after hours of other runs.

    Folds are crossed with seeds; `seed-9010` draws one split a seed. Without `folds`, those that a mix cannot be tested on
    without a leak are left out; those asked for by number must all work.
    """
    real, known = parts.opened["real"], dict[Any, np.ndarray]()

    def runs_of(split: Split, seed: int) -> Iterator[PlannedRun]:
        for n in train_clips:
            cut = subset_split(split, real.clips, n, seed)
            for mix in mixes:
                own = parts.mix_of(mix, cut, seed)
                rows = training_rows(own, parts.opened, real, cut, known)
                both = len(set(rows.synthetic(parts.opened).tolist())) == 2
                if both:
                    own = replace(own, text=use.called(own.text))
                for augment in augments:
                    yield PlannedRun(own, cut, seed, augment, rows, use if both else ClipUse())

    if protocol != FOLDS:
        drawn = [seed_9010_split(real.clips, seed) for seed in seeds]
        runs = [run for seed, split in zip(seeds, drawn, strict=True) for run in runs_of(split, seed)]
        return Sweep(runs, drawn, tuple(seeds), [])
    runs, splits, left_out = [], [], []
    refusal: LeakError | None = None
    for fold in folds or real.folds:
        split = fold_split(real.clips, fold)
        try:
            runs += itertools.chain.from_iterable([list(runs_of(split, seed)) for seed in seeds])
        except LeakError as error:
            if folds:
                raise
            refusal = error
            left_out.append(f"fold {fold} is not tested: {error.message}")
            continue
        splits.append(split)
    if not splits and refusal is not None:
        raise refusal
    return Sweep(runs, splits, tuple(seeds), left_out)
