"""Decide which runs are compared with which.

A group holds runs with the same real data, protocol, classifier, augmentation and number of training clips. Differences are
taken between runs of the same split and seed, which are tested on the same clips. If there are runs with several
augmentations, another group holds each mix with the augmentation that was best for it on validation clips. It shows what
synthetic clips add to the best classical augmentation.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from usk.errors import SourceError, UsageError
from usk.evaluate.stats import Pair
from usk.runs import RECIPE, RunRecord

DEFAULT_BASELINE = "real"
BEST = "best"  # stands for an augmentation: each mix has the one that was best on validation clips

RunPairs = Sequence[tuple[RunRecord, RunRecord]]
"""(baseline run, other run) of the same split and seed."""
RunsByMix = Mapping[str, Sequence[RunRecord]]
"""The compared runs of each mix, the baseline first."""
Scores = Mapping[str, Mapping[tuple[str, int], float]]
"""Validation accuracies by augmentation, and by (split, seed)."""


@dataclass(frozen=True)
class AugmentationChoice:
    """The augmentation of `mix` in each split: the one with the best mean accuracy on the split's validation clips.

    The mean is over the seeds that all augmentations share in that split. Accuracies are fractions. Each split chooses for
    itself, because its validation clips may be test clips of another split.
    """

    mix: str
    augment: str  # of all splits, or a list of augmentations with their numbers of splits
    by_split: dict[str, str]
    validation_accuracy: dict[str, float]  # by augmentation, the mean over splits


@dataclass(frozen=True)
class RunGroup:
    """Runs to compare, oldest first. They differ only in mix, split and seed, and in the augmentation if there are `choices`."""

    runs: list[RunRecord]
    choices: tuple[AugmentationChoice, ...] = ()
    details: str = ""  # how the recipe differs from those of the same title, such as the learning rate
    not_chosen: tuple[RunRecord, ...] = ()  # runs with augmentations that were not chosen
    data_name: str = ""  # the name of the real clips, with their hash if other real clips have the same name


def group_runs(runs: Sequence[RunRecord], baseline: str | None = None) -> list[RunGroup]:
    """Return the groups of runs to compare, in order of their first runs.

    Groups that differ only in the number of training clips are next to each other, from few clips to all. Groups with the
    best augmentation of each mix come last. They exist only if the baseline was trained with several augmentations, and if
    all runs have a validation accuracy of clips that are not test clips.

    Raise UsageError if no run has the mix `baseline`.
    """
    runs = sorted(runs, key=lambda run: (run.created, str(run.folder)))
    mixes = list(dict.fromkeys(run.mix for run in runs))
    if baseline is not None and baseline not in mixes:
        raise UsageError(
            f"no run has this mix; there are {'; '.join(mixes) or 'none'}", field="baseline", value=baseline
        )
    data_names = _data_names(runs)
    n_shared = RECIPE.index("augmentations")  # the settings before it do not depend on the augmentation
    same_augment = _group_by_recipe(runs, [(_title(run, run.augment), run.recipe) for run in runs])
    any_augment = _group_by_recipe(runs, [(_title(run, BEST), run.recipe[:n_shared]) for run in runs])
    groups = [
        RunGroup(members, details=details, data_name=data_names[members[0].data])
        for details, members in same_augment
    ]
    for details, members in any_augment:
        best = _best_augmentation_group(members, baseline, details, data_names)
        if best is not None:
            groups.append(best)
    return groups


def choose_baseline(runs: Sequence[RunRecord], wanted: str | None) -> str:
    """Return `wanted` if a run has this mix, else `real` if a run has it, else the first mix."""
    mixes = list(dict.fromkeys(run.mix for run in runs))
    return next((mix for mix in (wanted, DEFAULT_BASELINE) if mix in mixes), mixes[0])


def newest_runs_by_mix(group: RunGroup, baseline: str) -> dict[str, list[RunRecord]]:
    """Return the newest run of each split and seed by mix, the baseline first. Raise SourceError for different classes."""
    first, *others = group.runs
    for run in others:
        if run.class_names != first.class_names:
            raise SourceError(
                f"{first.folder} and {run.folder} name the same data but different classes",
                hint="Delete the older folder and train it again.",
            )
    by_mix: dict[str, list[RunRecord]] = {mix: [] for mix in [baseline, *(run.mix for run in group.runs)]}
    newest = {(run.mix, *run.key): run for run in group.runs}
    for run in newest.values():
        by_mix[run.mix].append(run)
    return {mix: sorted(members, key=lambda run: run.key) for mix, members in by_mix.items()}


def pair_runs(
    baseline: Iterable[RunRecord], others: Iterable[RunRecord]
) -> list[tuple[RunRecord, RunRecord]]:
    """Return pairs of runs with the same split and seed. Raise SourceError if two were tested on different clips."""
    partners = {run.key: run for run in baseline}
    pairs = [(partners[run.key], run) for run in others if run.key in partners]
    for first, second in pairs:
        one, other = first.predictions, second.predictions
        columns = ((one.clip_ids, other.clip_ids), (one.labels, other.labels), (one.groups, other.groups))
        if not all(np.array_equal(*column) for column in columns):
            raise SourceError(
                f"{first.folder} and {second.folder} have the same split and seed but were tested on different clips or labels",
                hint="Delete the older folder and train it again.",
            )
    return pairs


def to_stats_pairs(pairs: RunPairs) -> list[Pair]:
    """Convert pairs of runs for `usk.evaluate.stats`."""
    return [
        Pair(other.split, other.seed, other.predictions.groups, baseline.correct, other.correct)
        for baseline, other in pairs
    ]


def pairs_with_same_augmentation(
    group: RunGroup, baseline_runs: Sequence[RunRecord], runs: Sequence[RunRecord]
) -> tuple[str, list[tuple[RunRecord, RunRecord]]] | None:
    """Pair the runs of a mix with baseline runs that have the same augmentation.

    Return the augmentation and the pairs, or None if `baseline_runs` have the augmentation of `runs` already.
    """
    baseline_augment = {run.split: run.augment for run in baseline_runs}
    if all(run.augment == baseline_augment.get(run.split, run.augment) for run in runs):
        return None
    candidates = [run for run in (*group.runs, *group.not_chosen) if run.mix == baseline_runs[0].mix]
    partners = {(run.augment, *run.key): run for run in candidates}
    paired = [run for run in runs if (run.augment, *run.key) in partners]
    augments = " and ".join(dict.fromkeys(run.augment for run in runs))
    return augments, pair_runs([partners[run.augment, *run.key] for run in paired], paired)


def _title(run: RunRecord, augment: str) -> tuple[str, ...]:
    return run.protocol, run.classifier, augment, run.data


def _group_by_recipe(
    runs: Sequence[RunRecord], keys: Sequence[tuple[tuple[str, ...], tuple[Any, ...]]]
) -> list[tuple[str, list[RunRecord]]]:
    """Group runs by their (title, recipe) in `keys`, and by the number of training clips.

    Return each group with the settings in which its recipe differs from other recipes of the same title.
    """
    by_key: dict[tuple[tuple[str, ...], tuple[Any, ...]], list[RunRecord]] = defaultdict(list)
    recipes: dict[tuple[str, ...], set[tuple[Any, ...]]] = defaultdict(set)
    for run, (title, recipe) in zip(runs, keys, strict=True):
        by_key[title, recipe].append(run)
        recipes[title].add(recipe)
    groups = []
    for (title, recipe), members in by_key.items():
        differing = [i for i in range(len(recipe)) if len({other[i] for other in recipes[title]}) > 1]
        details = ", ".join(f"{RECIPE[i].replace('_', ' ')} {recipe[i]}" for i in differing)
        sizes = sorted({run.train_clips for run in members}, key=lambda n: math.inf if n is None else n)
        for size in sizes:
            groups.append((details, [run for run in members if run.train_clips == size]))
    return groups


def _data_names(runs: Sequence[RunRecord]) -> dict[str, str]:
    """Return the name of each set of real clips by its hash: its source's name, with the hash if the name is not unique."""
    names = {run.data: run.real.name for run in runs}  # of the newest run
    uses = Counter(names.values())
    return {
        data: data if not name else name if uses[name] == 1 else f"{name} {data}"
        for data, name in names.items()
    }


def _best_augmentation_group(
    runs: Sequence[RunRecord], wanted_baseline: str | None, details: str, data_names: Mapping[str, str]
) -> RunGroup | None:
    """Return the group of each mix's runs with its best augmentation; `runs`, oldest first, may differ in the augmentation.

    Augmentations that the baseline was not trained with do not count: their effect would look like that of synthetic clips.
    """
    if any(run.optimistic or run.validation_accuracy is None for run in runs):
        return None
    scores: dict[str, dict[str, dict[tuple[str, int], float]]] = defaultdict(lambda: defaultdict(dict))
    for run in runs:
        scores[run.mix][run.augment][run.key] = run.validation_accuracy or 0.0
    baseline = choose_baseline(runs, wanted_baseline)
    if len(scores[baseline]) == 1:
        return None
    all_choices = [_choose_augmentation(mix, scores[mix], scores[baseline]) for mix in scores]
    choices = [choice for choice in all_choices if choice is not None]
    if baseline not in {choice.mix for choice in choices}:
        return None
    choices.sort(key=lambda choice: choice.mix != baseline)
    chosen = {(choice.mix, split, name) for choice in choices for split, name in choice.by_split.items()}
    kept = [run for run in runs if (run.mix, run.split, run.augment) in chosen]
    others = [run for run in runs if (run.mix, run.split, run.augment) not in chosen]
    return RunGroup(kept, tuple(choices), details, tuple(others), data_names[runs[0].data])


def _choose_augmentation(mix: str, scores: Scores, baseline_scores: Scores) -> AugmentationChoice | None:
    """Choose the augmentation of a mix. Return None if its augmentations have no seed in common in any split."""
    by_split: dict[str, str] = {}
    all_means: dict[str, list[float]] = defaultdict(list)
    for split in dict.fromkeys(split for by_run in scores.values() for split, _ in by_run):
        candidates: dict[str, dict[int, float]] = {}
        for augment, by_run in scores.items():
            by_seed = {seed: score for (run_split, seed), score in by_run.items() if run_split == split}
            baseline_splits = {run_split for run_split, _ in baseline_scores.get(augment, ())}
            if by_seed and split in baseline_splits:
                candidates[augment] = by_seed
        shared_seeds = set.intersection(*map(set, candidates.values())) if candidates else set()
        if not shared_seeds:
            continue
        means = {
            augment: float(np.mean([by_seed[seed] for seed in shared_seeds]))
            for augment, by_seed in candidates.items()
        }
        by_split[split] = max(means, key=lambda augment: means[augment])
        for augment, mean in means.items():
            all_means[augment].append(mean)
    if not by_split:
        return None
    counts = Counter(by_split.values()).most_common()
    shares = (f"{augment} in {n} of {len(by_split)} splits" for augment, n in counts)
    text = counts[0][0] if len(counts) == 1 else ", ".join(shares)
    averages = {augment: float(np.mean(means)) for augment, means in all_means.items()}
    return AugmentationChoice(mix, text, by_split, averages)
