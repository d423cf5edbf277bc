"""Compare runs: which mix is better, by how much, and how certain that is."""

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
    RunGroup,
    RunPairs,
    RunsByMix,
    choose_baseline,
    group_runs,
    newest_runs_by_mix,
    pair_runs,
    pairs_with_same_augmentation,
    to_stats_pairs,
)
from usk.evaluate.stats import MeanInterval, PairedDifference, mean_interval, paired_bootstrap
from usk.evaluate.verdict import (
    MixResult,
    SameAugmentation,
    Verdict,
    correct_p_values,
    decide_verdict,
    write_answer,
    write_sentence,
)
from usk.runs import RunRecord, read_runs

OPTIMISTIC = "epoch chosen on the test part: optimistic"
Cache = dict[tuple[tuple[Path, Path], ...], MixResult]
"""Results by pairs of run folders. If all mixes have the same best augmentation, two comparisons have the same pairs."""


@dataclass(frozen=True)
class MixRow:
    """One mix in a comparison. Accuracy and F1 are fractions. Numbers of clips are rounded means over the mix's runs."""

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
    difference: PairedDifference | None  # from the baseline; None for the baseline itself, and without pairs
    n_unpaired: int  # runs of this mix and of the baseline that are in no pair
    p_value_exact: float | None
    p_value: float | None  # the larger one of the interval's (`difference.p_value`) and the exact test's
    p_value_holm: float | None  # corrected for the number of mixes
    # The difference from baseline runs with this mix's augmentation, if the baseline's is different and there are pairs.
    same_augment: PairedDifference | None
    verdict: Verdict
    answer: str  # the verdict in short
    sentence: str  # the verdict with its numbers

    @property
    def pairs(self) -> int:
        return self.difference.n_pairs if self.difference else 0

    @property
    def pairs_up(self) -> int:
        return self.difference.n_pairs_up if self.difference else 0


@dataclass(frozen=True)
class ClassRow:
    """The recall of one class by mix."""

    class_name: str
    support: int  # distinct test clips
    recall: dict[str, float | None]  # a fraction, over all runs of the mix; None without test clips
    difference_points: dict[str, float | None]  # from the baseline's recall, over the pairs


@dataclass(frozen=True)
class Comparison:
    """All mixes with one protocol, classifier, augmentation, number of train clips and set of real clips. The baseline is first.

    The augmentation is `BEST` if each mix has its own, which `choices` names.
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
    warning: str | None  # set if `optimistic`
    notes: list[str]  # caveats
    choices: list[AugmentationChoice]
    details: str  # how its recipe differs from that of other comparisons with the same title
    data_name: str  # of the real clips, with their hash `data` if other real clips have the same name
    by_mix: dict[str, list[RunRecord]] = field(repr=False)  # the compared runs, baseline first

    @property
    def setting(self) -> str:
        """A title without the number of train clips."""
        augment = "each mix with its best augmentation" if self.choices else f"augment {self.augment}"
        details = f", {self.details}" if self.details else ""
        protocol = "" if self.protocol == "folds" else f", protocol {self.protocol}"
        return f"{self.data_name or self.data}: classifier {self.classifier}{protocol}, {augment}{details}"

    @property
    def augments(self) -> list[str]:
        """The augmentations of the runs, including those that were not chosen."""
        candidates = dict.fromkeys(name for choice in self.choices for name in choice.validation_accuracy)
        return list(candidates) or [self.augment]

    @property
    def title(self) -> str:
        return self.setting if self.train_clips is None else f"{self.setting}, {self.train_clips} train clips"

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, without the runs. NaN and infinity become None."""
        plain = asdict(replace(self, by_mix={}))
        del plain["by_mix"]
        return {"title": self.title, **_json_safe(plain)}


def compare_runs(folder: str | Path = "runs", baseline: str | None = None) -> list[Comparison]:
    """Compare all runs in a folder and its subfolders. This is `usk.compare`; see `compare`."""
    return compare(read_runs(folder), baseline)


def compare(runs: Sequence[RunRecord], baseline: str | None = None) -> list[Comparison]:
    """Return a comparison for each group of `usk.evaluate.pairing.group_runs`.

    The baseline is the mix `baseline` if a run has it, else the mix `real`, else the oldest mix. If several runs have the same
    mix, split and seed, the newest counts. Raise SourceError if paired runs were tested on different clips, and UsageError if
    no run has the mix `baseline`.
    """
    cache: Cache = {}
    comparisons = [_compare_group(group, baseline, cache) for group in group_runs(runs, baseline)]
    with_pairs = [one for one in comparisons if any(row.difference is not None for row in one.rows)]
    if len(with_pairs) < 2:
        return comparisons
    note = (
        f"one of {len(with_pairs)} comparisons; each corrects its p values for its own mixes only, so even if synthetic clips have "
        "no effect, about one comparison in 20 finds that some help or hurt"
    )
    return [replace(comparison, notes=[*comparison.notes, note]) for comparison in comparisons]


def _compare_group(group: RunGroup, wanted_baseline: str | None, cache: Cache) -> Comparison:
    baseline = choose_baseline(group.runs, wanted_baseline)
    by_mix = newest_runs_by_mix(group, baseline)
    pairs = {mix: pair_runs(by_mix[baseline], runs) for mix, runs in by_mix.items() if mix != baseline}
    results = {
        mix: _compare_mix(group, by_mix, mix, mix_pairs, cache)
        for mix, mix_pairs in pairs.items()
        if mix_pairs
    }
    results = correct_p_values(results)
    rows = [_mix_row(by_mix, mix, results.get(mix)) for mix in by_mix]
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


def _compare_mix(group: RunGroup, by_mix: RunsByMix, mix: str, pairs: RunPairs, cache: Cache) -> MixResult:
    runs, baseline_runs = by_mix[mix], next(iter(by_mix.values()))
    key = tuple((first.folder, second.folder) for first, second in pairs)
    if key not in cache:
        cache[key] = MixResult.from_pairs(to_stats_pairs(pairs))
    same_augment = None
    if same := pairs_with_same_augmentation(group, baseline_runs, runs):
        augment, same_pairs = same
        difference = paired_bootstrap(to_stats_pairs(same_pairs)) if same_pairs else None
        same_augment = SameAugmentation(augment, difference)
    return replace(
        cache[key],
        n_unequal_steps=sum(first.steps != second.steps for first, second in pairs),
        n_changed_clips=sum(_have_different_content(first, second) for first, second in pairs),
        by_folds=runs[0].protocol == "folds",
        adds_synthetic=_only_adds_synthetic(runs, baseline_runs),
        same_augment=same_augment,
    )


def _have_different_content(first: RunRecord, second: RunRecord) -> bool:
    """Return whether the real clips of two runs have different content, as far as both records name their revision."""
    revisions = {first.real.revision, second.real.revision}
    return all(revisions) and len(revisions) > 1


def _only_adds_synthetic(runs: Sequence[RunRecord], baseline_runs: Sequence[RunRecord]) -> bool:
    """Return whether a mix consists of the baseline's real clips and synthetic clips."""
    n_real = {run.key: run.n_real for run in baseline_runs}
    return (
        all(run.n_synthetic > 0 and run.n_real == n_real.get(run.key, run.n_real) for run in runs)
        and not any(run.n_synthetic for run in baseline_runs)
        and any(run.n_real for run in runs)
    )


def _mix_row(by_mix: RunsByMix, mix: str, result: MixResult | None) -> MixRow:
    runs, (baseline, baseline_runs) = by_mix[mix], next(iter(by_mix.items()))
    is_baseline = mix == baseline
    n_pairs = result.difference.n_pairs if result else 0
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
        difference=result.difference if result else None,
        n_unpaired=0 if is_baseline else len(runs) + len(baseline_runs) - 2 * n_pairs,
        p_value_exact=result.p_value_exact if result else None,
        p_value=result.p_value if result else None,
        p_value_holm=result.p_value_holm if result else None,
        same_augment=result.same_augment.difference if result and result.same_augment else None,
        verdict=Verdict.BASELINE if is_baseline else decide_verdict(result),
        answer="" if is_baseline else write_answer(result),
        sentence="the baseline" if is_baseline else write_sentence(result, baseline),
    )


def _class_rows(by_mix: RunsByMix, pairs: Mapping[str, RunPairs]) -> list[ClassRow]:
    runs = [run for members in by_mix.values() for run in members]
    label_of_clip: dict[Any, int] = {}
    for run in runs:
        label_of_clip.update(zip(run.predictions.clip_ids, run.predictions.labels, strict=True))
    class_names = runs[0].class_names
    support = np.bincount(np.array(list(label_of_clip.values())), minlength=len(class_names))
    recall = {mix: _pooled_recall(members) for mix, members in by_mix.items()}
    without_pairs = np.full(len(class_names), np.nan)
    difference = {
        mix: _recall_difference(mix_pairs) if mix_pairs else without_pairs for mix, mix_pairs in pairs.items()
    }
    return [
        ClassRow(
            class_name=name,
            support=int(support[number]),
            recall={mix: _finite_or_none(values[number]) for mix, values in recall.items()},
            difference_points={mix: _finite_or_none(values[number]) for mix, values in difference.items()},
        )
        for number, name in enumerate(class_names)
    ]


def _recall_difference(pairs: RunPairs) -> np.ndarray:
    """Return the difference in recall from the baseline, in percentage points, [classes]; NaN for a class without clips."""
    baseline, other = zip(*pairs, strict=True)
    return 100 * (_pooled_recall(other) - _pooled_recall(baseline))


def _pooled_recall(runs: Sequence[RunRecord]) -> np.ndarray:
    """Return the recall over the test clips of all `runs`, [classes]; NaN for a class without clips."""
    return metrics.class_recall(pooled_confusion_matrix(runs))[0]


def pooled_confusion_matrix(runs: Sequence[RunRecord]) -> np.ndarray:
    """Return the sum of the confusion matrices of all `runs`: numbers of clips [true class, predicted class]."""
    n, predictions = len(runs[0].class_names), [run.predictions for run in runs]
    return np.sum([metrics.confusion_matrix(one.labels, one.predicted, n) for one in predictions], axis=0)


def _rounded_mean(counts: Iterable[int]) -> int:
    return round(float(np.mean(list(counts))))


def _finite_or_none(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _json_safe(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _json_safe(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_json_safe(item) for item in value]
    if isinstance(value, (float, np.floating)):
        return _finite_or_none(float(value))
    return value
