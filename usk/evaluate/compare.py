"""From run folders to what they show: which mix is better, by how much, and how sure that is.

Runs are compared only with runs on the same real data under the same protocol, classifier, augmentation and number of
train_clips, and differences are taken only between runs of the same split and seed, on the very same test clips. Where several
augmentations were trained, each mix is also compared with the one that was best for it on validation clips: what synthetic
clips add to the best that classical augmentation does.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from usk.errors import SourceError, UsageError
from usk.evaluate import metrics
from usk.evaluate.stats import (
    MeanInterval,
    Pair,
    PairedDifference,
    mean_interval,
    paired_bootstrap,
)
from usk.evaluate.verdict import Compared, corrected, interval_of, verdict
from usk.runs import RECIPE, RunRecord, read_runs
from usk.text import pluralize

DEFAULT_BASELINE = "real"
CONFUSIONS_SHOWN = 8  # of each mix, those that changed most
LIKE_NUMBERS = 1.25  # so many times as many clips are still about as many
BEST = "best"  # in place of an augmentation: of each mix, the one that did best on validation clips
OPTIMISTIC = "epoch chosen on the test part: optimistic"


@dataclass(frozen=True)
class MixRow:
    """One mix in a comparison; accuracy and F1 are fractions, counts of clips rounded means over its runs."""

    mix: str
    is_baseline: bool
    n_runs: int
    n_folds: int  # distinct splits
    n_seeds: int
    accuracy: MeanInterval
    macro_f1: MeanInterval
    n_real: int
    n_synthetic: int
    dropped: int
    difference: PairedDifference | None  # to the baseline, over pairs; None without, and for the baseline
    n_unpaired: int  # runs of this mix and of the baseline that have no partner in the other
    p_value: float | None  # the larger of the interval's (`difference.p_value`) and the exact test's
    p_value_holm: float | None  # the same, corrected for all mixes that are compared
    sentence: str
    p_value_exact: float | None = None
    # Where it goes with another augmentation than the baseline: the difference with its own for both, if there are pairs.
    same_augment: PairedDifference | None = None

    @property
    def pairs(self) -> int:
        return self.difference.n_pairs if self.difference else 0

    @property
    def pairs_up(self) -> int:
        return self.difference.n_pairs_up if self.difference else 0


@dataclass(frozen=True)
class ClassRow:
    """One class: its distinct test clips, each mix's recall over all its runs (a fraction; None without
    test clips), and each other mix's recall less the baseline's over the pairs, in points."""

    class_name: str
    support: int
    recall: dict[str, float | None]
    difference_points: dict[str, float | None]


@dataclass(frozen=True)
class ConfusionChange:
    """Clips of `class_name` taken for `taken_for`: how many a run, on average over the pairs, with the baseline and
    with `mix`, of `support` test clips a run."""

    mix: str
    class_name: str
    taken_for: str
    support: float
    baseline_clips: float
    clips: float

    @property
    def difference_points(self) -> float:
        """Of the class's clips."""
        return 100 * (self.clips - self.baseline_clips) / self.support


@dataclass(frozen=True)
class AugmentationChoice:
    """The augmentations that `mix` goes with: in each split the one with the best mean accuracy on the split's validation clips
    (fractions), over the seeds that all of them were trained with there. Another split may test those clips."""

    mix: str
    augment: str  # of all splits; where they differ, each with its number of splits
    by_split: dict[str, str]
    validation_accuracy: dict[str, float]  # by augmentation, the mean over splits

    @property
    def sentence(self) -> str:
        """Such as `real: strong (validation accuracy: none 53.1, basic 55.0, strong 56.2 %)`."""
        scores = ", ".join(f"{name} {100 * score:.1f}" for name, score in self.validation_accuracy.items())
        return f"{self.mix}: {self.augment} (validation accuracy: {scores} %)"


@dataclass(frozen=True)
class Comparison:
    """All mixes of one protocol, classifier, augmentation and number of train_clips on one set of real data; baseline row first.

    Its augmentation is `BEST` where each mix goes with its own, which `choices` names."""

    protocol: str
    classifier: str
    augment: str
    data: str
    train_clips: int | None
    baseline: str
    rows: list[MixRow]
    classes: list[ClassRow]
    confusions: list[ConfusionChange]  # that changed most, by mix; a description, without a test
    optimistic: bool
    warning: str | None  # set where `optimistic` is
    notes: list[str]  # what a reader must know: runs left out, unequal work, many comparisons
    choices: list[AugmentationChoice] = field(default_factory=list)
    details: str = (
        ""  # what tells it from a comparison of the same title: another learning rate, another recipe
    )
    data_name: str = ""  # what its real clips are called, with `data` where others have the same name

    @property
    def setting(self) -> str:
        """What all its runs share, but for the number of train_clips."""
        augment = "each mix with its best augmentation" if self.choices else f"augment {self.augment}"
        details = f", {self.details}" if self.details else ""
        return f"{self.classifier}, protocol {self.protocol}, {augment}, data {self.data_name or self.data}{details}"

    @property
    def augments(self) -> list[str]:
        """Every augmentation that its runs were trained with, or chosen from."""
        tried = dict.fromkeys(name for choice in self.choices for name in choice.validation_accuracy)
        return list(tried) or [self.augment]

    @property
    def title(self) -> str:
        return self.setting if self.train_clips is None else f"{self.setting}, {self.train_clips} train_clips"

    def as_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold: NaN and infinity become None."""
        plain = dataclasses.asdict(self)
        for shown, change in zip(plain["confusions"], self.confusions, strict=True):
            shown["difference_points"] = change.difference_points
        return {"title": self.title, **_json_safe(plain)}


def compare_runs(folder: str | Path = "runs", baseline: str | None = None) -> list[Comparison]:
    """`compare` over every run under `folder`: `usk.compare`."""
    return compare(read_runs(folder), baseline)


def compare(runs: Sequence[RunRecord], baseline: str | None = None) -> list[Comparison]:
    """One comparison for each protocol, classifier, augmentation and real data, in order of their first run; of those that
    differ in train_clips alone, fewest first and the full training part last.

    Where mixes were trained with several augmentations, comparisons of each mix at its best one follow; see `comparable`.

    The baseline is `baseline` where it was trained, else the mix `real`, else the first mix by time. Of
    several runs of one mix, split and seed the newest counts. Raises SourceError where paired runs were
    tested on different clips, UsageError where no run has the mix `baseline`.
    """
    found = [_comparison(alike, baseline) for alike in comparable(runs, baseline)]
    n_compared = sum(any(row.difference is not None for row in one.rows) for one in found)
    if n_compared < 2:
        return found
    many = (
        f"one of {n_compared} comparisons, whose p values are corrected within each alone: where clips do nothing, one in 20 may say that "
        "some help or hurt"
    )
    return [replace(one, notes=[*one.notes, many]) for one in found]


@dataclass(frozen=True)
class Comparable:
    """Runs, oldest first, that differ in mix, split and seed alone; or in the augmentation too, which `choices` chose."""

    runs: list[RunRecord]
    choices: tuple[AugmentationChoice, ...] = ()
    details: str = ""
    not_chosen: tuple[RunRecord, ...] = ()  # of the same mixes and more, with augmentations that were not
    data_name: str = ""  # as in `Comparison`


def comparable(runs: Sequence[RunRecord], baseline: str | None = None) -> list[Comparable]:
    """What `compare` compares, in its order.

    For each protocol, classifier, number of train_clips and real data where the baseline was trained with several augmentations,
    there is one more at the end: each mix with that of them that has the best mean validation accuracy. None under a
    protocol whose validation clips are the test clips, nor where a run does not say its validation accuracy.
    """
    runs = sorted(runs, key=lambda run: (run.created, str(run.folder)))
    mixes = list(dict.fromkeys(run.mix for run in runs))
    if baseline is not None and baseline not in mixes:
        known = "; ".join(mixes) or "none"
        raise UsageError(f"--baseline {baseline}: no run has this mix; there are {known}")
    alike: dict[tuple[str, ...], list[RunRecord]] = defaultdict(list)
    over_augments: dict[tuple[str, ...], list[RunRecord]] = defaultdict(list)
    recipes: dict[tuple[str, ...], set[tuple[Any, ...]]] = defaultdict(set)
    but_augment = RECIPE.index("augmentations")
    for run in runs:
        recipes[_titled(run)].add(run.recipe)
        recipes[_titled(run, BEST)].add(run.recipe[:but_augment])
    for run in runs:
        alike[(*_titled(run), _details(run.recipe, recipes[_titled(run)]))].append(run)
        details = _details(run.recipe[:but_augment], recipes[_titled(run, BEST)])
        over_augments[(*_titled(run, BEST), details)].append(run)
    found = [
        Comparable(members, details=key[-1])
        for key, several in alike.items()
        for members in _by_train_clips(several)
    ]
    best = [
        _with_best_augmentation(members, baseline, details=key[-1])
        for key, several in over_augments.items()
        for members in _by_train_clips(several)
    ]
    names = _data_names(runs)
    return [replace(one, data_name=names[one.runs[0].data]) for one in (*found, *best) if one is not None]


def _data_names(runs: Sequence[RunRecord]) -> dict[str, str]:
    """What each set of real clips is called: as its source, with its fingerprint where that would not tell it from others."""
    called = {run.data: run.data_name for run in runs}  # the newest run's
    shared = Counter(called.values())
    return {
        data: data if not name else name if shared[name] == 1 else f"{name} {data}"
        for data, name in called.items()
    }


def _titled(run: RunRecord, augment: str = "") -> tuple[str, ...]:
    """What the title of its comparison says, or of one over several augmentations."""
    return run.protocol, run.classifier, augment or run.augment, run.data


def _details(recipe: tuple[Any, ...], recipes: set[tuple[Any, ...]]) -> str:
    """In what a recipe differs from the others of its title; empty where it is the only one."""
    differ = [number for number in range(len(recipe)) if len({other[number] for other in recipes}) > 1]
    return ", ".join(f"{RECIPE[number].replace('_', ' ')} {recipe[number]}" for number in differ)


def _by_train_clips(runs: Sequence[RunRecord]) -> list[list[RunRecord]]:
    every = sorted({run.train_clips for run in runs}, key=lambda n: math.inf if n is None else n)
    return [[run for run in runs if run.train_clips == train_clips] for train_clips in every]


def _baseline_of(runs: Sequence[RunRecord], wanted: str | None) -> str:
    mixes = list(dict.fromkeys(run.mix for run in runs))
    return next((mix for mix in (wanted, DEFAULT_BASELINE) if mix in mixes), mixes[0])


def _with_best_augmentation(runs: Sequence[RunRecord], wanted: str | None, details: str) -> Comparable | None:
    """`runs`, oldest first, differ in mix, split, seed and augmentation: of each mix those with its best one.

    Augmentations that the baseline was not trained with do not count: what they do would pass for what the clips do.
    """
    if any(run.optimistic or run.validation_accuracy is None for run in runs):
        return None
    scores: dict[str, dict[str, dict[tuple[str, int], float]]] = defaultdict(lambda: defaultdict(dict))
    for run in runs:
        scores[run.mix][run.augment][run.key] = run.validation_accuracy or 0.0
    baseline = _baseline_of(runs, wanted)
    if len(scores[baseline]) == 1:
        return None
    choices = [
        choice
        for mix, every in scores.items()
        if (choice := _chosen_augmentation(mix, every, scores[baseline])) is not None
    ]
    if baseline not in {choice.mix for choice in choices}:
        return None
    chosen = {(choice.mix, split, name) for choice in choices for split, name in choice.by_split.items()}
    taken = [run for run in runs if (run.mix, run.split, run.augment) in chosen]
    others = [run for run in runs if (run.mix, run.split, run.augment) not in chosen]
    return Comparable(taken, tuple(choices), details, tuple(others))


Scores = Mapping[
    str, Mapping[tuple[str, int], float]
]  # by augmentation: split and seed -> validation accuracy


def _chosen_augmentation(mix: str, scores: Scores, of_baseline: Scores) -> AugmentationChoice | None:
    """None where no split has runs of the same seeds with all augmentations that it was trained with."""
    by_split: dict[str, str] = {}
    means: dict[str, list[float]] = defaultdict(list)
    for split in dict.fromkeys(split for of in scores.values() for split, _ in of):
        of_split = {
            name: {seed: score for (other, seed), score in of.items() if other == split}
            for name, of in scores.items()
            if any(other == split for other, _ in of_baseline.get(name, ()))
        }
        tried = {name: of for name, of in of_split.items() if of}
        common = set.intersection(*map(set, tried.values())) if tried else set()
        if common:
            found = {name: float(np.mean([of[seed] for seed in common])) for name, of in tried.items()}
            by_split[split] = max(found, key=lambda name: found[name])
            for name, score in found.items():
                means[name].append(score)
    if not by_split:
        return None
    counts = Counter(by_split.values()).most_common()
    told = ", ".join(f"{name} in {n} of {len(by_split)} splits" for name, n in counts)
    average = {name: float(np.mean(of)) for name, of in means.items()}
    return AugmentationChoice(mix, counts[0][0] if len(counts) == 1 else told, by_split, average)


def _comparison(alike: Comparable, wanted: str | None) -> Comparison:
    runs = alike.runs
    _check_class_names(runs)
    newest = {(run.mix, *run.key): run for run in runs}
    baseline = _baseline_of(runs, wanted)
    by_mix: dict[str, list[RunRecord]] = {mix: [] for mix in [baseline, *(run.mix for run in runs)]}
    for run in newest.values():
        by_mix[run.mix].append(run)
    pairs = {mix: _pairs(by_mix[baseline], members) for mix, members in by_mix.items() if mix != baseline}
    compared = corrected({mix: _compared(made) for mix, made in pairs.items() if made})
    rows = [
        _mix_row(
            mix,
            members,
            baseline,
            by_mix[baseline],
            compared.get(mix),
            _with_the_same_augmentation(alike, baseline, by_mix[baseline], members),
        )
        for mix, members in by_mix.items()
    ]
    optimistic = any(run.optimistic for run in newest.values())
    first = runs[0]
    choices = sorted(alike.choices, key=lambda choice: list(by_mix).index(choice.mix))
    return Comparison(
        protocol=first.protocol,
        classifier=first.classifier,
        augment=BEST if choices else first.augment,
        data=first.data,
        train_clips=first.train_clips,
        baseline=baseline,
        rows=rows,
        classes=_class_rows(by_mix, pairs),
        confusions=[change for mix, made in pairs.items() if made for change in _confusions(mix, made)],
        optimistic=optimistic,
        warning=OPTIMISTIC if optimistic else None,
        notes=[
            *_choice_notes(choices),
            *_notes(rows, pairs, by_mix, len(runs) - len(newest)),
        ],
        choices=choices,
        details=alike.details,
        data_name=alike.data_name,
    )


def _compared(pairs: Sequence[tuple[RunRecord, RunRecord]]) -> Compared:
    return Compared.of(
        [_pair(*both) for both in pairs],
        n_unequal=sum(first.steps != second.steps for first, second in pairs),
        n_other_content=sum(_differ_in_content(first, second) for first, second in pairs),
    )


def _differ_in_content(first: RunRecord, second: RunRecord) -> bool:
    """Whether the real clips of two runs, of the same names and labels, are other sounds, where both say which they were."""
    both = {first.real_revision, second.real_revision}
    return "" not in both and len(both) > 1


def _with_the_same_augmentation(
    alike: Comparable, baseline: str, baseline_runs: Sequence[RunRecord], runs: Sequence[RunRecord]
) -> tuple[str, PairedDifference | None] | None:
    """The augmentation of a mix's runs and their difference to the baseline with that (None where no run has it with the same
    split and seed), where the baseline was given another one in some split."""
    given = {run.split: run.augment for run in baseline_runs}
    if all(run.augment == given.get(run.split, run.augment) for run in runs):
        return None
    trained = [run for run in (*alike.runs, *alike.not_chosen) if run.mix == baseline]
    partners = {(run.augment, *run.key): run for run in trained}
    alone = [run for run in runs if (run.augment, *run.key) in partners]
    pairs = _pairs([partners[run.augment, *run.key] for run in alone], alone)
    names = " and ".join(dict.fromkeys(run.augment for run in runs))
    return names, paired_bootstrap([_pair(*both) for both in pairs]) if pairs else None


def _check_class_names(runs: Sequence[RunRecord]) -> None:
    for run in runs[1:]:
        if run.class_names != runs[0].class_names:
            raise SourceError(
                f"{runs[0].folder} and {run.folder} name the same data but different classes; "
                "delete the older folder and train it again"
            )


def _pairs(baseline: Iterable[RunRecord], others: Iterable[RunRecord]) -> list[tuple[RunRecord, RunRecord]]:
    """(baseline run, other run) of the same split and seed, checked to be tested on the same clips."""
    partners = {run.key: run for run in baseline}
    pairs = [(partners[run.key], run) for run in others if run.key in partners]
    for first, second in pairs:
        parts = ("clip_ids", "labels", "groups")
        if not all(np.array_equal(getattr(first, part), getattr(second, part)) for part in parts):
            raise SourceError(
                f"{first.folder} and {second.folder} have the same split and seed but were tested on "
                "different clips or labels; delete the older folder and train it again"
            )
    return pairs


def _pair(baseline: RunRecord, other: RunRecord) -> Pair:
    return Pair(other.split, other.seed, other.groups, baseline.correct, other.correct)


def _mix_row(
    mix: str,
    runs: Sequence[RunRecord],
    baseline: str,
    baseline_runs: Sequence[RunRecord],
    compared: Compared | None,
    same: tuple[str, PairedDifference | None] | None,
) -> MixRow:
    is_baseline = mix == baseline
    kind = "fold-seed" if runs[0].protocol == "folds" else "split-seed"
    return MixRow(
        mix=mix,
        is_baseline=is_baseline,
        n_runs=len(runs),
        n_folds=len({run.split for run in runs}),
        n_seeds=len({run.seed for run in runs}),
        accuracy=mean_interval([run.accuracy for run in runs]),
        macro_f1=mean_interval([run.macro_f1 for run in runs]),
        n_real=_rounded_mean(run.n_real for run in runs),
        n_synthetic=_rounded_mean(run.n_synthetic for run in runs),
        dropped=_rounded_mean(run.dropped for run in runs),
        difference=compared.difference if compared else None,
        n_unpaired=0
        if is_baseline
        else len(runs) + len(baseline_runs) - 2 * (compared.difference.n_pairs if compared else 0),
        p_value=compared.p_value if compared else None,
        p_value_holm=compared.p_value_holm if compared else None,
        sentence="the baseline"
        if is_baseline
        else verdict(compared, baseline, kind, _adds_synthetic(runs, baseline_runs), same),
        p_value_exact=compared.p_value_exact if compared else None,
        same_augment=same[1] if same else None,
    )


def _adds_synthetic(runs: Sequence[RunRecord], baseline_runs: Sequence[RunRecord]) -> bool:
    """Whether all that a mix has beyond the baseline is synthetic clips."""
    real = {run.key: run.n_real for run in baseline_runs}
    return (
        all(run.n_synthetic > 0 and run.n_real == real.get(run.key, run.n_real) for run in runs)
        and not any(run.n_synthetic for run in baseline_runs)
        and any(run.n_real for run in runs)
    )


def _class_rows(
    by_mix: Mapping[str, Sequence[RunRecord]], pairs: Mapping[str, Sequence[tuple[RunRecord, RunRecord]]]
) -> list[ClassRow]:
    runs = [run for members in by_mix.values() for run in members]
    tested = {clip_id: label for run in runs for clip_id, label in zip(run.clip_ids, run.labels, strict=True)}
    support = np.bincount(np.array(list(tested.values())), minlength=len(runs[0].class_names))
    recall = {mix: _pooled_recall(members) for mix, members in by_mix.items()}
    difference = {mix: _recall_difference(made) for mix, made in pairs.items() if made}
    return [
        ClassRow(
            class_name=name,
            support=int(support[number]),
            recall={mix: _number(values[number]) for mix, values in recall.items()},
            difference_points={
                mix: _number(difference[mix][number]) if mix in difference else None for mix in pairs
            },
        )
        for number, name in enumerate(runs[0].class_names)
    ]


def _recall_difference(pairs: Sequence[tuple[RunRecord, RunRecord]]) -> np.ndarray:
    """Recall less the baseline's, in points, [classes]; NaN for a class without clips."""
    baseline, other = zip(*pairs, strict=True)
    return 100 * (_pooled_recall(other) - _pooled_recall(baseline))


def _confusions(mix: str, pairs: Sequence[tuple[RunRecord, RunRecord]]) -> list[ConfusionChange]:
    """The mistakes of `mix` that changed most against the baseline, over all pairs."""
    names = pairs[0][0].class_names
    before, after = (
        sum(metrics.confusion_matrix(pair[side].labels, pair[side].predicted, len(names)) for pair in pairs)
        for side in (0, 1)
    )
    before, after = np.asarray(before), np.asarray(after)
    return [
        ConfusionChange(
            mix,
            names[true],
            names[predicted],
            float(before[true].sum()) / len(pairs),
            float(before[true, predicted]) / len(pairs),
            float(after[true, predicted]) / len(pairs),
        )
        for true, predicted in metrics.changed_confusions(before, after)[:CONFUSIONS_SHOWN]
    ]


def _pooled_recall(runs: Sequence[RunRecord]) -> np.ndarray:
    """Recall over the test clips of all `runs` together, [classes]; NaN for a class without clips."""
    labels = np.concatenate([run.labels for run in runs])
    predicted = np.concatenate([run.predicted for run in runs])
    return metrics.class_recall(labels, predicted, len(runs[0].class_names))[0]


def _choice_notes(choices: Sequence[AugmentationChoice]) -> list[str]:
    if not choices:
        return []
    return ["augmentations chosen on validation clips: " + "; ".join(choice.sentence for choice in choices)]


def _notes(
    rows: Sequence[MixRow],
    pairs: Mapping[str, Sequence[tuple[RunRecord, RunRecord]]],
    by_mix: Mapping[str, Sequence[RunRecord]],
    n_superseded: int,
) -> list[str]:
    notes = []
    runs = [run for members in by_mix.values() for run in members]
    lengths: dict[str, set[int]] = {}
    for run in runs:
        lengths.setdefault(run.split, set()).add(run.epochs)  # by default they follow the clips of the split
    unequal_epochs = sorted(set().union(*(found for found in lengths.values() if len(found) > 1)))
    precisions = sorted({run.precision for run in runs if run.precision})
    of_mix = {mix: {text for run in members for text in run.caveats} for mix, members in by_mix.items()}
    for text in sorted(set().union(*of_mix.values())):
        mixes = [mix for mix, caveats in of_mix.items() if text in caveats]
        notes.append(text if len(mixes) == len(by_mix) else f"{'; '.join(mixes)}: {text}")
    if n_superseded:
        notes.append(f"{n_superseded} older runs of the same mix, split and seed are left out")
    if unequal_epochs:
        notes.append(
            f"runs of {', '.join(map(str, unequal_epochs))} epochs stand side by side: train all for as many"
        )
    if len(precisions) > 1:
        notes.append(f"runs in {' and '.join(precisions)} stand side by side")
    for mix, members in by_mix.items():
        named = Counter(name for name, _ in frozenset().union(*(run.datasets for run in members)))
        if (most := max(named.values(), default=1)) > 1:
            notes.append(f"{mix}: its runs were trained on {most} different datasets of that name")
        notes += _differently_made(mix, members)
    shared = {mix: _with_the_same_clips(members) for mix, members in by_mix.items()}
    for which in dict.fromkeys(filter(None, shared.values())):
        fixed = [mix for mix, runs_of in shared.items() if runs_of == which]
        notes.append(
            f"{'; '.join(fixed)}: {which} trained on the same synthetic clips, so the luck of making them is in no interval"
        )
    for mix, made in pairs.items():
        if (uneven := _seeds_by_split(made)) is not None:
            notes.append(
                f"{mix}: pairs of other seeds in one split than in another ({uneven}), each split counts as much; train all with the "
                "same --seeds"
            )
    for row in rows:
        if row.n_unpaired:
            notes.append(
                f"{row.mix}: no partner with the same split and seed for {pluralize(row.n_unpaired, 'run')} (its own and the "
                "baseline's), which are in the means and recalls and not in the differences"
            )
    notes += _failed(pairs, by_mix)
    if len(rows) == 1:
        notes.append(
            f"one mix alone, {rows[0].mix}: train another beside it to compare it with, such as usk train --mix real"
        )
    if len(pairs) > 1:
        notes.append(
            f"{len(pairs)} mixes are compared with the baseline: each interval stands for itself, "
            "the p values are corrected for all together (Holm)"
        )
    return notes


def _failed(
    pairs: Mapping[str, Sequence[tuple[RunRecord, RunRecord]]], by_mix: Mapping[str, Sequence[RunRecord]]
) -> list[str]:
    """Trainings that came to nothing, of which few can make most of a mean, and the differences without them."""
    counts = {mix: sum(run.learnt_nothing for run in members) for mix, members in by_mix.items()}
    failed = [f"{n} of {pluralize(len(by_mix[mix]), 'run')} of {mix}" for mix, n in counts.items() if n]
    if not failed:
        return []
    told = [f"{', '.join(failed)} learnt nothing and took all test clips for one class"]
    for mix, made in pairs.items():
        rest = [_pair(*both) for both in made if not any(run.learnt_nothing for run in both)]
        if rest and len(rest) < len(made):
            left = paired_bootstrap(rest)
            interval = "" if left.low_points is None else f" ({interval_of(left)})"
            told.append(
                f"{mix} is {left.difference_points:+z.1f} points{interval} where none did, in {pluralize(len(rest), 'pair')}"
            )
    return ["; ".join(told)]


def _with_the_same_clips(runs: Sequence[RunRecord]) -> str | None:
    """Whether `all seeds` had synthetic clips that other seeds had too, or `several seeds`; with one seed alone the same of splits.
    None if each had its own."""
    made: dict[frozenset[str], list[RunRecord]] = defaultdict(list)
    for run in runs:
        if run.n_synthetic and run.revisions:
            made[run.revisions].append(run)
    what = "seed" if len({run.seed for run in runs}) > 1 else "split"
    everyone = {getattr(run, what) for run in runs}
    sharing = [{getattr(run, what) for run in members} for members in made.values()]
    if all(len(found) < 2 for found in sharing):
        return None
    return f"{'all' if all(found == everyone for found in sharing) else 'several'} {what}s"


def _differently_made(mix: str, runs: Sequence[RunRecord]) -> list[str]:
    """Sentences on runs of one mix whose synthetic clips were not made alike: by other strategies; for one split by other generators
    or in other numbers."""
    notes = []
    strategies: dict[str, set[str]] = defaultdict(set)
    generators: dict[tuple[str, str], set[str]] = defaultdict(set)
    numbers: dict[str, list[int]] = defaultdict(list)
    for run in runs:
        for part in run.made_by:
            strategies[part.name].add(", ".join(part.strategies))
            generators[part.name, run.split].add(", ".join(part.generators))
        numbers[run.split].append(run.n_synthetic)
    for name, found in sorted(strategies.items()):
        if len(found) > 1:
            notes.append(
                f"{mix}: the clips of {name} are of one strategy in some runs and of another in others ({'; '.join(sorted(found))})"
            )
    for name in sorted({name for (name, _), found in generators.items() if len(found) > 1}):
        notes.append(f"{mix}: the clips of {name} for one split are of several generators")
    uneven = [found for found in numbers.values() if max(found) > LIKE_NUMBERS * min(found)]
    if uneven:
        few, many = min(map(min, uneven)), max(map(max, uneven))
        notes.append(f"{mix}: runs of one split have from {few:,} to {many:,} synthetic clips")
    return notes


def _seeds_by_split(pairs: Sequence[tuple[RunRecord, RunRecord]]) -> str | None:
    """Such as `fold1: 0, 1; fold2: 0 to 7`, where the folds that test have not the same seeds; None where they have, and where each
    split is drawn by a seed of its own."""
    if not pairs or pairs[0][1].protocol != "folds":
        return None
    seeds: dict[str, set[int]] = defaultdict(set)
    for _, run in pairs:
        seeds[run.split].add(run.seed)
    if len(set(map(frozenset, seeds.values()))) < 2:
        return None
    return "; ".join(f"{split}: {_as_ranges(found)}" for split, found in sorted(seeds.items()))


def _as_ranges(numbers: Iterable[int]) -> str:
    """`0 to 3, 5` of 0, 1, 2, 3, 5."""
    ranges: list[list[int]] = []
    for number in sorted(numbers):
        if ranges and number == ranges[-1][-1] + 1:
            ranges[-1].append(number)
        else:
            ranges.append([number])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in ranges)


def _rounded_mean(counts: Iterable[int]) -> int:
    return round(float(np.mean(list(counts))))


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _json_safe(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _json_safe(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_json_safe(item) for item in value]
    if isinstance(value, (float, np.floating)):
        return _number(float(value))
    return value
