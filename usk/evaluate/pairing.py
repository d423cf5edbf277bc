"""Which runs are compared with which.

Runs are compared with runs on the same real data under the same protocol, classifier, augmentation and number of training
clips alone, and differences are taken between runs of the same split and seed, on the very same test clips. Where several
augmentations were trained, each mix is also compared with the one that was best for it on validation clips: what
synthetic clips add to the best that classical augmentation does.
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
BEST = "best"  # in place of an augmentation: of each mix, the one that did best on validation clips

RunPairs = Sequence[tuple[RunRecord, RunRecord]]
"""(baseline run, other run) of the same split and seed."""
ByMix = Mapping[str, Sequence[RunRecord]]
"""The runs that count, by mix, the baseline's first."""
Scores = Mapping[str, Mapping[tuple[str, int], float]]
"""By augmentation: split and seed -> validation accuracy."""


@dataclass(frozen=True)
class AugmentationChoice:
    """The augmentations that `mix` goes with: in each split the one with the best mean accuracy on the split's validation clips
    (fractions), over the seeds that all of them were trained with there. Another split may test those clips."""

    mix: str
    augment: str  # of all splits; where they differ, each with its number of splits
    by_split: dict[str, str]
    validation_accuracy: dict[str, float]  # by augmentation, the mean over splits


@dataclass(frozen=True)
class Group:
    """Runs, oldest first, that differ in mix, split and seed alone; or in the augmentation too, which `choices` chose."""

    runs: list[RunRecord]
    choices: tuple[AugmentationChoice, ...] = ()
    details: str = ""  # what tells it from a group of the same title: another learning rate, another recipe
    not_chosen: tuple[RunRecord, ...] = ()  # of the same mixes and more, with augmentations that were not
    data_name: str = ""  # what its real clips are called, with their hash where others have the same name


def groups(runs: Sequence[RunRecord], baseline: str | None = None) -> list[Group]:
    """What is compared, in order of first runs; of groups that differ in train clips alone, fewest first and all of them last.

    For each protocol, classifier, number of train clips and real data where the baseline was trained with several augmentations,
    there is one more at the end: each mix with that of them that has the best mean validation accuracy. None under a
    protocol whose validation clips are the test clips, nor where a run does not say its validation accuracy.

    Raises UsageError where no run has the mix `baseline`.
    """
    runs = sorted(runs, key=lambda run: (run.created, str(run.folder)))
    mixes = list(dict.fromkeys(run.mix for run in runs))
    if baseline is not None and baseline not in mixes:
        raise UsageError(
            f"no run has this mix; there are {'; '.join(mixes) or 'none'}", field="baseline", value=baseline
        )
    but_augment = RECIPE.index("augmentations")
    alike = _alike(runs, [(_titled(run, run.augment), run.recipe) for run in runs])
    over_augments = _alike(runs, [(_titled(run, BEST), run.recipe[:but_augment]) for run in runs])
    names = _data_names(runs)
    found = [Group(members, details=details, data_name=names[members[0].data]) for details, members in alike]
    best = [_with_best_augmentation(of, baseline, details, names) for details, of in over_augments]
    return [*found, *(group for group in best if group is not None)]


def baseline_of(runs: Sequence[RunRecord], wanted: str | None) -> str:
    """`wanted` where it was trained, else `real`, else the first mix."""
    mixes = list(dict.fromkeys(run.mix for run in runs))
    return next((mix for mix in (wanted, DEFAULT_BASELINE) if mix in mixes), mixes[0])


def newest_by_mix(group: Group, baseline: str) -> dict[str, list[RunRecord]]:
    """By mix, baseline first: of several runs of one mix, split and seed the newest. Raises SourceError for unlike classes."""
    first, *others = group.runs
    for run in others:
        if run.class_names != first.class_names:
            raise SourceError(
                f"{first.folder} and {run.folder} name the same data but different classes",
                hint="Delete the older folder and train it again.",
            )
    by_mix: dict[str, list[RunRecord]] = {mix: [] for mix in [baseline, *(run.mix for run in group.runs)]}
    for run in {(run.mix, *run.key): run for run in group.runs}.values():
        by_mix[run.mix].append(run)
    return {mix: sorted(found, key=lambda run: run.key) for mix, found in by_mix.items()}


def pair_runs(
    baseline: Iterable[RunRecord], others: Iterable[RunRecord]
) -> list[tuple[RunRecord, RunRecord]]:
    """Pairs of the same split and seed. Raises SourceError where one was tested on different clips."""
    partners = {run.key: run for run in baseline}
    pairs = [(partners[run.key], run) for run in others if run.key in partners]
    for first, second in pairs:
        one, other = first.predictions, second.predictions
        parts = ((one.clip_ids, other.clip_ids), (one.labels, other.labels), (one.groups, other.groups))
        if not all(np.array_equal(*part) for part in parts):
            raise SourceError(
                f"{first.folder} and {second.folder} have the same split and seed but were tested on different clips or labels",
                hint="Delete the older folder and train it again.",
            )
    return pairs


def to_pairs(pairs: RunPairs) -> list[Pair]:
    """As `usk.evaluate.stats` takes them."""
    return [
        Pair(other.split, other.seed, other.predictions.groups, baseline.correct, other.correct)
        for baseline, other in pairs
    ]


def pairs_with_same_augmentation(
    group: Group, baseline_runs: Sequence[RunRecord], runs: Sequence[RunRecord]
) -> tuple[str, list[tuple[RunRecord, RunRecord]]] | None:
    """The augmentation of a mix's runs and their pairs with the baseline's of that augmentation; None where the baseline has
    none other in any split."""
    given = {run.split: run.augment for run in baseline_runs}
    if all(run.augment == given.get(run.split, run.augment) for run in runs):
        return None
    trained = [run for run in (*group.runs, *group.not_chosen) if run.mix == baseline_runs[0].mix]
    partners = {(run.augment, *run.key): run for run in trained}
    alone = [run for run in runs if (run.augment, *run.key) in partners]
    names = " and ".join(dict.fromkeys(run.augment for run in runs))
    return names, pair_runs([partners[run.augment, *run.key] for run in alone], alone)


def _titled(run: RunRecord, augment: str) -> tuple[str, ...]:
    return run.protocol, run.classifier, augment, run.data


def _alike(
    runs: Sequence[RunRecord], keys: Sequence[tuple[tuple[str, ...], tuple[Any, ...]]]
) -> list[tuple[str, list[RunRecord]]]:
    """Runs of one title and recipe (`keys`, one a run) and number of train clips, with what tells the recipe from others of
    its title."""
    found: dict[tuple[tuple[str, ...], tuple[Any, ...]], list[RunRecord]] = defaultdict(list)
    recipes: dict[tuple[str, ...], set[tuple[Any, ...]]] = defaultdict(set)
    for run, (title, recipe) in zip(runs, keys, strict=True):
        found[title, recipe].append(run)
        recipes[title].add(recipe)
    alike = []
    for (title, recipe), several in found.items():
        differ = [
            place for place in range(len(recipe)) if len({other[place] for other in recipes[title]}) > 1
        ]
        details = ", ".join(f"{RECIPE[place].replace('_', ' ')} {recipe[place]}" for place in differ)
        numbers = sorted({run.train_clips for run in several}, key=lambda n: math.inf if n is None else n)
        alike += [(details, [run for run in several if run.train_clips == n]) for n in numbers]
    return alike


def _data_names(runs: Sequence[RunRecord]) -> dict[str, str]:
    """What each set of real clips is called: as its source, with its hash where that would not tell it from others."""
    called = {run.data: run.real.name for run in runs}  # the newest run's
    shared = Counter(called.values())
    return {
        data: data if not name else name if shared[name] == 1 else f"{name} {data}"
        for data, name in called.items()
    }


def _with_best_augmentation(
    runs: Sequence[RunRecord], wanted: str | None, details: str, names: Mapping[str, str]
) -> Group | None:
    """`runs`, oldest first, differ in mix, split, seed and augmentation: of each mix those with its best one.

    Augmentations that the baseline was not trained with do not count: what they do would pass for what the clips do.
    """
    if any(run.optimistic or run.validation_accuracy is None for run in runs):
        return None
    scores: dict[str, dict[str, dict[tuple[str, int], float]]] = defaultdict(lambda: defaultdict(dict))
    for run in runs:
        scores[run.mix][run.augment][run.key] = run.validation_accuracy or 0.0
    baseline = baseline_of(runs, wanted)
    if len(scores[baseline]) == 1:
        return None
    found = [_chosen_augmentation(mix, every, scores[baseline]) for mix, every in scores.items()]
    choices = [choice for choice in found if choice is not None]
    if baseline not in {choice.mix for choice in choices}:
        return None
    choices.sort(key=lambda choice: choice.mix != baseline)
    chosen = {(choice.mix, split, name) for choice in choices for split, name in choice.by_split.items()}
    taken = [run for run in runs if (run.mix, run.split, run.augment) in chosen]
    others = [run for run in runs if (run.mix, run.split, run.augment) not in chosen]
    return Group(taken, tuple(choices), details, tuple(others), names[runs[0].data])


def _chosen_augmentation(mix: str, scores: Scores, of_baseline: Scores) -> AugmentationChoice | None:
    """None where no split has runs of the same seeds with all augmentations that it was trained with."""
    by_split: dict[str, str] = {}
    means: dict[str, list[float]] = defaultdict(list)
    for split in dict.fromkeys(split for of in scores.values() for split, _ in of):
        tried = {
            name: here
            for name, of in scores.items()
            if any(other == split for other, _ in of_baseline.get(name, ()))
            and (here := {seed: score for (other, seed), score in of.items() if other == split})
        }
        common = set.intersection(*map(set, tried.values())) if tried else set()
        if common:
            found = {name: float(np.mean([of[seed] for seed in common])) for name, of in tried.items()}
            by_split[split] = max(found, key=lambda name: found[name])
            for name, score in found.items():
                means[name].append(score)
    if not by_split:
        return None
    counts = Counter(by_split.values()).most_common()
    said = ", ".join(f"{name} in {n} of {len(by_split)} splits" for name, n in counts)
    average = {name: float(np.mean(of)) for name, of in means.items()}
    return AugmentationChoice(mix, counts[0][0] if len(counts) == 1 else said, by_split, average)
