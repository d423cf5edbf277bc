"""Plan the runs of one `usk train`: mixes x augmentations x splits x train clips x seeds. Open the datasets of the mixes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from usk.classify.config import FOLDS, ClipUse
from usk.data.mix import Mix, TrainingRows, parse_mix, training_rows
from usk.data.open import SourceLike, open_source
from usk.data.pinned import looks_like_hub_id
from usk.data.source import Source
from usk.data.splits import Split, fold_split, seed_9010_split
from usk.data.train_subset import SUBSET_NAME, subset_name, subset_split
from usk.errors import LeakError, UsageError
from usk.files import expanded
from usk.manifest import MANIFEST_FILE


@dataclass(frozen=True)
class PlannedRun:
    """One classifier to train."""

    mix: Mix  # its text is as the user typed it, with the use appended; its parts name datasets
    split: Split  # its training part has only the run's train clips
    seed: int
    augment: str
    rows: TrainingRows  # of the datasets in the mix
    use: ClipUse

    def label(self, with_augment: bool) -> str:
        train_clips = "" if self.split.train_clips is None else f" · {self.split.train_clips} train clips"
        augment = f" · {self.augment}" if with_augment else ""
        return f"{self.mix.text}{train_clips}{augment} · {self.split.name} · seed {self.seed}"


@dataclass(frozen=True)
class Sweep:
    """The planned runs, their splits and seeds, and a note on each test fold that was left out."""

    runs: list[PlannedRun]
    splits: list[Split]
    seeds: tuple[int, ...]
    left_out: list[str]


def parse_mixes(texts: str | Sequence[str], synth: SourceLike | None, baseline: bool) -> list[Mix]:
    """Return the distinct mixes. With `baseline`, the first is the real clips alone."""
    synth_location = synth.location if isinstance(synth, Source) else synth
    mixes = [parse_mix(text, synth_location) for text in ([texts] if isinstance(texts, str) else texts)]
    if not mixes:
        raise UsageError("names nothing to train on", field="mix", hint="Write for example real,synth.")
    baselines = [parse_mix("real")] if baseline else []
    return list(dict.fromkeys([*baselines, *mixes]))


@dataclass(frozen=True)
class MixSources:
    """The datasets that the mixes name.

    A part of a mix can be a folder of `usk study` with a subset for each number of train clips, fold and seed. Each run then
    uses its own subset, which is called `name/subset`.
    """

    opened: dict[str, Source]  # by the name in the mix, or by `name/subset`
    subsets: dict[str, tuple[str, frozenset[str]]]  # name in the mix -> folder, names of its subsets

    @classmethod
    def open(
        cls, real: Source, mixes: Sequence[Mix], synth: SourceLike | None, skip_bad: bool = False
    ) -> MixSources:
        """Open the datasets that `mixes` name. Raises UsageError for one that is missing or named twice."""
        opened, subsets = {"real": real}, {}
        for name in dict.fromkeys(name for mix in mixes for name in mix.parts if name != "real"):
            folder = subset_folder(synth if name == "synth" else name)
            if folder is None:
                opened[name] = _open_named(name, synth, skip_bad)
                continue
            found = sorted(path.name for path in folder.iterdir() if SUBSET_NAME.fullmatch(path.name))
            subsets[name] = (str(folder), frozenset(found))
        sources = cls(opened, subsets)
        for mix in mixes:
            sources.reject_duplicates(mix)
        return sources

    def open_subsets(
        self, folds: Sequence[int], seeds: Sequence[int], train_clips: Sequence[int | None]
    ) -> MixSources:
        """Return these sources with the subsets opened for the given folds (all, if empty), seeds and train clips."""
        wanted = {
            subset_name(n, f"fold{fold}", seed)
            for n in train_clips
            for fold in folds or self.opened["real"].folds
            for seed in seeds
        }
        opened = {
            f"{name}/{subset}": open_source(Path(folder) / subset)
            for name, (folder, subsets) in self.subsets.items()
            for subset in sorted(wanted & subsets)
        }
        return replace(self, opened=self.opened | opened)

    def seeds_with_subsets(
        self, seeds: Sequence[int], splits: Sequence[Split], train_clips: Sequence[int | None]
    ) -> list[int]:
        """Return the first of these seeds, and the others for which every folder of subsets has clips."""

        def has_clips(seed: int) -> bool:
            names = {subset_name(n, split.name, seed) for n in train_clips for split in splits}
            return all(names <= subsets for _, subsets in self.subsets.values())

        return [seed for seed in seeds if seed == seeds[0] or has_clips(seed)]

    def reject_duplicates(self, mix: Mix) -> None:
        """Raise UsageError if a dataset occurs twice in `mix`: its clips would count twice and escape the train-clips limit."""
        real = self.opened["real"]
        seen: dict[tuple[str, ...], str] = {}
        for name in mix.parts:
            identity = self._identity(name)
            source = self.opened.get(name, real)  # subsets are not opened, and are always synthetic
            if source is not real and not source.has_synthetic and source.revision == real.revision:
                why = f"{name} is the real clips themselves"
                raise UsageError(why, field="mix", value=mix.text, hint="Write real.")
            if identity in seen:
                why = f"{name} is the same dataset as {seen[identity]}"
                raise UsageError(why, field="mix", value=mix.text, hint="Name it once.")
            seen[identity] = name

    def _identity(self, name: str) -> tuple[str, ...]:
        if name in self.subsets:
            return (str(Path(self.subsets[name][0]).resolve()),)
        source = self.opened[name]
        return source.name, source.revision

    def resolve(self, mix: Mix, split: Split, seed: int) -> Mix:
        """Return `mix` with each folder of subsets replaced by its subset for this split and seed.

        Raises LeakError if there is none, since the clips of another subset could leak.
        """
        n, subset = split.train_clips, subset_name(split.train_clips, split.name, seed)
        for name in mix.parts:
            if name in self.subsets and subset not in self.subsets[name][1]:
                wanted = f"{n} train clips of seed {seed}" if n else "the full training part"
                raise LeakError(
                    f"{self.subsets[name][0]} has no clips for {wanted} with test part {split.name}",
                    field="mix",
                    value=mix.text,
                    hint="Test other folds, or make the clips with `usk study`."
                    if split.of_fold
                    else "Use the protocol folds, for which such clips can be made.",
                )
        parts = (f"{name}/{subset}" if name in self.subsets else name for name in mix.parts)
        return replace(mix, parts=tuple(parts))


def subset_folder(location: SourceLike | None) -> Path | None:
    """Return the folder if `usk study` filled it with datasets named by train clips, fold and seed, else None."""
    if location is None or isinstance(location, Source):
        return None
    folder = expanded(location)
    if not folder.is_dir() or (folder / MANIFEST_FILE).exists():
        return None
    subsets = (path for path in folder.iterdir() if SUBSET_NAME.fullmatch(path.name))
    return folder if any((path / MANIFEST_FILE).is_file() for path in subsets) else None


def _open_named(name: str, synth: SourceLike | None, skip_bad: bool) -> Source:
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
    if not isinstance(synth, Source) and not expanded(synth).exists() and not looks_like_hub_id(str(synth)):
        raise UsageError("no such dataset", field="synth", value=synth, hint="Make one with `usk synth`.")
    return open_source(synth)


def plan_runs(
    sources: MixSources,
    mixes: Sequence[Mix],
    protocol: str,
    folds: Sequence[int],
    seeds: Sequence[int],
    train_clips: Sequence[int | None] = (None,),
    augments: Sequence[str] = ("none",),
    use: ClipUse = ClipUse(),
) -> Sweep:
    """Return all runs. The protocol `folds` crosses folds with seeds; `seed-9010` draws one split for each seed.

    If `folds` is empty, test folds with a leak are left out. Raises LeakError if that leaves none, or if one of the given
    `folds` has a leak.
    """
    real, rows_cache = sources.opened["real"], dict[Any, np.ndarray]()

    def runs_of(split: Split, seed: int) -> Iterator[PlannedRun]:
        for n in train_clips:
            subset = subset_split(split, real.clips, n, seed)
            for mix in mixes:
                run_mix = sources.resolve(mix, subset, seed)
                rows = training_rows(run_mix, sources.opened, real, subset, rows_cache)
                has_both_kinds = len(set(rows.synthetic(sources.opened).tolist())) == 2
                if has_both_kinds:
                    run_mix = replace(run_mix, text=use.add_to(run_mix.text))
                run_use = use if has_both_kinds else ClipUse()
                for augment in augments:
                    yield PlannedRun(run_mix, subset, seed, augment, rows, run_use)

    if protocol != FOLDS:
        splits = [seed_9010_split(real.clips, seed) for seed in seeds]
        drawn = [run for split, seed in zip(splits, seeds, strict=True) for run in runs_of(split, seed)]
        return Sweep(drawn, splits, tuple(seeds), [])
    runs, splits, leaks = list[PlannedRun](), list[Split](), dict[int, LeakError]()
    for fold in folds or real.folds:
        split = fold_split(real.clips, fold)
        try:
            runs += [run for seed in seeds for run in runs_of(split, seed)]
            splits.append(split)
        except LeakError as error:
            if folds:
                raise
            leaks[fold] = error
    if leaks and not splits:
        raise list(leaks.values())[-1]
    left_out = [f"fold {fold} is not tested: {error.message}" for fold, error in leaks.items()]
    return Sweep(runs, splits, tuple(seeds), left_out)
