"""What one `usk train` trains: mixes x augmentations x splits x train_clips x seeds, and which dataset each part of a mix means there."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from usk.data.leaks import recordings_of
from usk.data.mix import Mix, TrainingRows, training_rows
from usk.data.open import open_source
from usk.data.pinned import looks_like_hub_id
from usk.data.source import Source
from usk.data.splits import Split, fold_split, holdout_split, seed_9010_split
from usk.data.train_subset import SUBSET_NAME, subset_name, subset_split
from usk.errors import LeakError, UsageError
from usk.manifest import MANIFEST_FILE

Place = Source | str | os.PathLike[str] | None


@dataclass(frozen=True)
class PlannedRun:
    """One classifier to train. `mix.text` is what the user typed; its parts name the sources of this very run, of which
    `rows` train. The training part of `split` is cut to its train_clips."""

    mix: Mix
    split: Split
    seed: int
    augment: str
    rows: TrainingRows

    @property
    def label(self) -> str:
        train_clips = "" if self.split.train_clips is None else f" · {self.split.train_clips} train_clips"
        return f"{self.mix.text}{train_clips} · {self.augment} · {self.split.name} · seed {self.seed}"


@dataclass(frozen=True)
class Parts:
    """The datasets that mixes name: whole ones by the name in the mix, and those of `usk synth --train-clips` by their folder,
    of which each run takes its own (`name/dataset`, wherever the folder is)."""

    opened: dict[str, Source]
    train_subset: dict[
        str, tuple[str, frozenset[str]]
    ]  # name in the mix -> folder, names of the datasets in it

    @classmethod
    def open(
        cls,
        real: Source,
        mixes: Sequence[Mix],
        synth: Place,
        folds: Sequence[int] = (),
        seeds: Sequence[int] = (0,),
        train_clips: Sequence[int | None] = (None,),
        skip_bad: bool = False,
    ) -> Parts:
        """Open whatever `mixes` name; what is missing is said at once. `real` and `synth` are what those words mean.

        Of few-shot folders only what `folds` (all, if empty), `seeds` and `train_clips` can use is opened.
        """
        wanted = {
            subset_name(n, f"fold{fold}", seed)
            for n in train_clips
            for fold in folds or real.folds
            for seed in seeds
        }
        opened, train_subset = {"real": real}, {}
        for name in dict.fromkeys(part.name for mix in mixes for part in mix.parts if part.name != "real"):
            folder = subset_folder(synth if name == "synth" else name)
            if folder is None:
                opened[name] = _named_source(name, synth, skip_bad)
                continue
            subsets = sorted(wanted.intersection(path.name for path in folder.iterdir()))
            train_subset[name] = (str(folder), frozenset(subsets))
            opened |= {f"{name}/{subset}": open_source(folder / subset) for subset in subsets}
        parts = cls(opened, train_subset)
        for mix in mixes:
            parts.refuse_other_names(mix)
        return parts

    def refuse_other_names(self, mix: Mix) -> None:
        """Raise UsageError where two parts of `mix` are one dataset, or one is the real clips by another name: they would
        count twice, and train_clips and fractions would not hold for them."""
        real = self.opened["real"]
        seen: dict[tuple[str, ...], str] = {}
        for part in mix.parts:
            identity = self._identity(part.name)
            source = self.opened.get(part.name, real)  # of few train_clips there are many, all synthetic
            if source is not real and not source.has_synthetic and source.revision == real.revision:
                raise UsageError(f"--mix {mix.text}: {part.name} is the real clips themselves; write real")
            if identity in seen:
                raise UsageError(
                    f"--mix {mix.text}: {part.name} is the dataset that {seen[identity]} is; name it once"
                )
            seen[identity] = part.name

    def _identity(self, name: str) -> tuple[str, ...]:
        if name in self.train_subset:
            return (str(Path(self.train_subset[name][0]).resolve()),)
        source = self.opened[name]
        return source.name, source.revision

    def mix_of(self, mix: Mix, split: Split, seed: int) -> Mix:
        """`mix` with the names of few-shot folders replaced by the dataset in them for this split and seed.

        Raises LeakError where there is none, for no other one may train there.
        """
        parts = []
        for part in mix.parts:
            if part.name in self.train_subset:
                folder, subsets = self.train_subset[part.name]
                subset = subset_name(split.train_clips, split.name, seed)
                if subset not in subsets:
                    fix = (
                        f"test other folds (--folds), or make them: usk synth {_wanted(split, seed)} --out {folder}"
                        if split.of_fold
                        else "only --protocol folds can have such clips"
                    )
                    raise LeakError(
                        f"--mix {mix.text}, test part {split.name}: {folder} has no clips for {_subsets(split.train_clips, seed)}; {fix}"
                    )
                part = replace(part, name=f"{part.name}/{subset}")
            parts.append(part)
        return replace(mix, parts=tuple(parts))


def _subsets(train_clips: int | None, seed: int) -> str:
    return "the full training part" if train_clips is None else f"{train_clips} train_clips of seed {seed}"


def _wanted(split: Split, seed: int) -> str:
    fold = split.name.removeprefix("fold")
    drawn = f" --seed {seed}" if seed and split.train_clips is not None else ""
    return f"--train-clips {split.train_clips or 'full'} --test-folds {fold}{drawn}"


def subset_folder(place: Place) -> Path | None:
    """The folder, if it is one that `usk synth --train-clips` wrote: datasets named by train_clips, fold and seed."""
    if place is None or isinstance(place, Source):
        return None
    folder = Path(place).expanduser()
    if not folder.is_dir() or (folder / MANIFEST_FILE).exists():
        return None
    made = (path for path in folder.iterdir() if SUBSET_NAME.fullmatch(path.name))
    return folder if any((path / MANIFEST_FILE).is_file() for path in made) else None


def _named_source(name: str, synth: Place, skip_bad: bool) -> Source:
    if name != "synth":
        try:
            return open_source(name, skip_bad=skip_bad, flag="--mix")
        except UsageError:
            raise
        except Exception as error:
            if "/" in name or Path(name).exists():
                raise
            raise UsageError(
                f"--mix names {name!r}, which is neither real, synth nor a source (a folder, a Hub id, demo)"
            ) from error
    if synth is None:
        raise UsageError("--mix names synth; give --synth a synthetic dataset, or make one with `usk synth`")
    if isinstance(synth, Source):
        return synth
    if not Path(synth).expanduser().exists() and not looks_like_hub_id(str(synth)):
        raise UsageError(f"--synth {synth}: no such dataset; make one with `usk synth --per-class 100`")
    return open_source(synth)


def plan_runs(
    parts: Parts,
    mixes: Sequence[Mix],
    protocol: str,
    folds: Sequence[int],
    seeds: Sequence[int],
    train_clips: Sequence[int | None] = (None,),
    augments: Sequence[str] = ("none",),
) -> tuple[list[PlannedRun], list[Split], list[str]]:
    """Every run, refused now and not after hours of other runs; the splits; and why test folds were left out.

    Folds are crossed with seeds; `holdout` and `seed-9010` draw one split a seed. Without `folds`, those that a mix
    cannot be tested on without a leak are left out; those asked for by number must all work.
    """
    real = parts.opened["real"]

    def runs_of(split: Split, seed: int) -> Iterator[PlannedRun]:
        for n in train_clips:
            cut = subset_split(split, real.clips, n, seed)
            for mix in mixes:
                own = parts.mix_of(mix, cut, seed)
                rows = training_rows(own, parts.opened, real, cut)
                for augment in augments:
                    yield PlannedRun(own, cut, seed, augment, rows)

    if protocol != "folds":
        draw = holdout_split if protocol == "holdout" else seed_9010_split
        drawn = [draw(real.clips, seed) for seed in seeds]
        runs = [run for seed, split in zip(seeds, drawn, strict=True) for run in runs_of(split, seed)]
        return runs, drawn, []
    runs, splits, left_out = [], [], []
    refusal: LeakError | None = None
    for fold in folds or real.folds:
        split = fold_split(real.clips, fold)
        try:
            of_fold = list(itertools.chain.from_iterable(runs_of(split, seed) for seed in seeds))
        except LeakError as error:
            if folds:
                raise
            refusal = error
            left_out.append(
                f"fold {fold} is not tested: {str(error).partition(': ')[2].partition('; test')[0]}"
            )
            continue
        runs += of_fold
        splits.append(split)
    if not splits and refusal is not None:
        raise refusal
    return runs, splits, left_out


def trained_beyond_the_subset(runs: Sequence[PlannedRun], sources: dict[str, Source]) -> list[str]:
    """Notes on runs of few real clips (train_clips, or a share of them) whose synthetic clips come from a generator or a clip_filter that has
    heard more than those."""
    notes = []
    real = sources["real"]
    for run in runs:
        of_real = [rows for name, rows in run.rows.parts if sources[name] is real]
        given = of_real[0] if of_real else run.split.train
        if run.split.train_clips is None and len(given) == len(run.split.train):
            continue
        few = "the train_clips" if run.split.train_clips is not None else "the few real clips that train"
        known = {real.clips[row].group for row in given.tolist()}
        for name, rows in run.rows.parts:
            source = sources[name]
            if recordings_of(source.generator_trained_on, real) - known:
                notes.append(_has_heard_more("generator", few))
            clip_filters = {source.clips[row].filter_folds for row in rows.tolist()}
            trained = [part for folds, part in source.filters_trained_on.items() if folds in clip_filters]
            if recordings_of(trained, real) - known:
                notes.append(_has_heard_more("clip_filter", few))
    return list(dict.fromkeys(notes))


def _has_heard_more(who: str, few: str) -> str:
    """Without the name of one: runs of several generators, a fold each, say it in the same words, and `usk eval` once."""
    return f"the {who} has heard more recordings than {few} (none that validates or tests): few-shot is the classifier, not the {who}"
