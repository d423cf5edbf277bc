"""From run folders to what they show: which mix is better, by how much, and how sure that is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from usk.evaluate import metrics
from usk.evaluate.caveats import caveats
from usk.evaluate.pairing import (
    BEST,
    AugmentationChoice,
    ByMix,
    Group,
    RunPairs,
    baseline_of,
    groups,
    newest_by_mix,
    pair_runs,
    pairs_with_same_augmentation,
    to_pairs,
)
from usk.evaluate.stats import MeanInterval, PairedDifference, mean_interval, paired_bootstrap
from usk.evaluate.verdict import Compared, SameAugmentation, Verdict, answer, corrected, sentence, verdict
from usk.runs import RunRecord, read_runs

OPTIMISTIC = "epoch chosen on the test part: optimistic"
Known = dict[tuple[tuple[Path, Path], ...], Compared]
"""Pairs of run folders that were compared before."""


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
    p_value_exact: float | None
    p_value: float | None  # the larger of the interval's (`difference.p_value`) and the exact test's
    p_value_holm: float | None  # the same, corrected for all mixes that are compared
    # Where it goes with another augmentation than the baseline: the difference with its own for both, if there are pairs.
    same_augment: PairedDifference | None
    verdict: Verdict
    answer: str  # the verdict without statistics
    sentence: str  # and with them

    @property
    def pairs(self) -> int:
        return self.difference.n_pairs if self.difference else 0

    @property
    def pairs_up(self) -> int:
        return self.difference.n_pairs_up if self.difference else 0


@dataclass(frozen=True)
class ClassRow:
    """One class: its distinct test clips, each mix's recall over all its runs (a fraction; None without
    test clips), and each other mix's difference in recall to the baseline over the pairs, in percentage points."""

    class_name: str
    support: int
    recall: dict[str, float | None]
    difference_points: dict[str, float | None]


@dataclass(frozen=True)
class Comparison:
    """All mixes of one protocol, classifier, augmentation and number of train clips on one set of real data; baseline row first.

    Its augmentation is `BEST` where each mix goes with its own, which `choices` names.
    """

    protocol: str
    classifier: str
    augment: str
    data: str
    train_clips: int | None
    baseline: str
    rows: list[MixRow]
    classes: list[ClassRow]
    optimistic: bool
    warning: str | None  # set where `optimistic` is
    notes: list[str]  # what a reader must know: runs left out, unequal work, many comparisons
    choices: list[AugmentationChoice]
    details: str  # what tells it from a comparison of the same title: another learning rate, another recipe
    data_name: str  # what its real clips are called, with `data` where others have the same name
    by_mix: dict[str, list[RunRecord]] = field(repr=False)  # the runs that count, baseline first

    @property
    def setting(self) -> str:
        """What all its runs share, but for the number of train clips."""
        augment = "each mix with its best augmentation" if self.choices else f"augment {self.augment}"
        details = f", {self.details}" if self.details else ""
        protocol = "" if self.protocol == "folds" else f", protocol {self.protocol}"
        return f"{self.data_name or self.data}: classifier {self.classifier}{protocol}, {augment}{details}"

    @property
    def augments(self) -> list[str]:
        """Every augmentation that its runs were trained with, or chosen from."""
        tried = dict.fromkeys(name for choice in self.choices for name in choice.validation_accuracy)
        return list(tried) or [self.augment]

    @property
    def title(self) -> str:
        return self.setting if self.train_clips is None else f"{self.setting}, {self.train_clips} train clips"

    def as_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold, without the runs: NaN and infinity become None."""
        plain = asdict(replace(self, by_mix={}))
        del plain["by_mix"]
        return {"title": self.title, **_json_safe(plain)}


def compare_runs(folder: str | Path = "runs", baseline: str | None = None) -> list[Comparison]:
    """`compare` over every run under `folder`: `usk.compare`."""
    return compare(read_runs(folder), baseline)


def compare(runs: Sequence[RunRecord], baseline: str | None = None) -> list[Comparison]:
    """One comparison for each group of `usk.evaluate.pairing.groups`, in its order.

    The baseline is `baseline` where it was trained, else the mix `real`, else the first mix by time. Of
    several runs of one mix, split and seed the newest counts. Raises SourceError where paired runs were
    tested on different clips, UsageError where no run has the mix `baseline`.
    """
    known: Known = {}
    found = [_comparison(group, baseline, known) for group in groups(runs, baseline)]
    n_compared = sum(any(row.difference is not None for row in one.rows) for one in found)
    if n_compared < 2:
        return found
    many = (
        f"one of {n_compared} comparisons, whose p values are corrected within each alone: where clips do nothing, one in 20 may "
        "find that some help or hurt"
    )
    return [replace(one, notes=[*one.notes, many]) for one in found]


def _comparison(group: Group, wanted: str | None, known: Known) -> Comparison:
    baseline = baseline_of(group.runs, wanted)
    by_mix = newest_by_mix(group, baseline)
    pairs = {mix: pair_runs(by_mix[baseline], of) for mix, of in by_mix.items() if mix != baseline}
    compared = corrected(
        {mix: _compared(group, by_mix, mix, made, known) for mix, made in pairs.items() if made}
    )
    rows = [_mix_row(by_mix, mix, compared.get(mix)) for mix in by_mix]
    first = group.runs[0]
    optimistic = any(run.optimistic for run in group.runs)
    n_superseded = len(group.runs) - sum(map(len, by_mix.values()))
    return Comparison(
        protocol=first.protocol,
        classifier=first.classifier,
        augment=BEST if group.choices else first.augment,
        data=first.data,
        train_clips=first.train_clips,
        baseline=baseline,
        rows=rows,
        classes=_class_rows(by_mix, pairs),
        optimistic=optimistic,
        warning=OPTIMISTIC if optimistic else None,
        notes=caveats(by_mix, pairs, n_superseded),
        choices=list(group.choices),
        details=group.details,
        data_name=group.data_name,
        by_mix=by_mix,
    )


def _compared(group: Group, by_mix: ByMix, mix: str, pairs: RunPairs, known: Known) -> Compared:
    """The same pairs stand in two comparisons where all mixes chose one augmentation: they are resampled once."""
    runs, baseline_runs = by_mix[mix], next(iter(by_mix.values()))
    same = pairs_with_same_augmentation(group, baseline_runs, runs)
    key = tuple((first.folder, second.folder) for first, second in pairs)
    if key not in known:
        known[key] = Compared.of(to_pairs(pairs))
    return replace(
        known[key],
        n_unequal=sum(first.steps != second.steps for first, second in pairs),
        n_other_content=sum(_differ_in_content(first, second) for first, second in pairs),
        by_folds=runs[0].protocol == "folds",
        adds_synthetic=_adds_synthetic(runs, baseline_runs),
        same=same and SameAugmentation(same[0], paired_bootstrap(to_pairs(same[1])) if same[1] else None),
    )


def _differ_in_content(first: RunRecord, second: RunRecord) -> bool:
    """Whether the real clips of two runs, of the same names and labels, are other sounds, where both say which they were."""
    both = {first.real.revision, second.real.revision}
    return all(both) and len(both) > 1


def _adds_synthetic(runs: Sequence[RunRecord], baseline_runs: Sequence[RunRecord]) -> bool:
    """Whether all that a mix has beyond the baseline is synthetic clips."""
    real = {run.key: run.n_real for run in baseline_runs}
    return (
        all(run.n_synthetic > 0 and run.n_real == real.get(run.key, run.n_real) for run in runs)
        and not any(run.n_synthetic for run in baseline_runs)
        and any(run.n_real for run in runs)
    )


def _mix_row(by_mix: ByMix, mix: str, compared: Compared | None) -> MixRow:
    runs, (baseline, baseline_runs) = by_mix[mix], next(iter(by_mix.items()))
    is_baseline = mix == baseline
    n_pairs = compared.difference.n_pairs if compared else 0
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
        n_unpaired=0 if is_baseline else len(runs) + len(baseline_runs) - 2 * n_pairs,
        p_value_exact=compared.p_value_exact if compared else None,
        p_value=compared.p_value if compared else None,
        p_value_holm=compared.p_value_holm if compared else None,
        same_augment=compared.same.difference if compared and compared.same else None,
        verdict=Verdict.BASELINE if is_baseline else verdict(compared),
        answer="" if is_baseline else answer(compared),
        sentence="the baseline" if is_baseline else sentence(compared, baseline),
    )


def _class_rows(by_mix: ByMix, pairs: Mapping[str, RunPairs]) -> list[ClassRow]:
    runs = [run for members in by_mix.values() for run in members]
    every = (run.predictions for run in runs)
    tested = {clip_id: label for of in every for clip_id, label in zip(of.clip_ids, of.labels, strict=True)}
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


def _recall_difference(pairs: RunPairs) -> np.ndarray:
    """Difference in recall to the baseline, in percentage points, [classes]; NaN for a class without clips."""
    baseline, other = zip(*pairs, strict=True)
    return 100 * (_pooled_recall(other) - _pooled_recall(baseline))


def _pooled_recall(runs: Sequence[RunRecord]) -> np.ndarray:
    """Recall over the test clips of all `runs` together, [classes]; NaN for a class without clips."""
    return metrics.class_recall(pooled_confusions(runs))[0]


def pooled_confusions(runs: Sequence[RunRecord]) -> np.ndarray:
    """The confusion matrix of all `runs` together: clips [true class, predicted class]."""
    n, of_runs = len(runs[0].class_names), (run.predictions for run in runs)
    return np.sum([metrics.confusion_matrix(of.labels, of.predicted, n) for of in of_runs], axis=0)


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
