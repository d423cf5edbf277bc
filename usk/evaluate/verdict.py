"""Turn a difference into a `Verdict`, and into a sentence with its numbers and what to do next. This module does no I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum, auto

from usk.evaluate.stats import (
    SIGNIFICANCE,
    Pair,
    PairedDifference,
    exact_test,
    holm,
    min_pairs,
    paired_bootstrap,
)
from usk.text import pluralize

MORE = "more seeds or test folds"


class Verdict(StrEnum):
    """How a mix compares with the baseline."""

    BASELINE = auto()
    HELPS = auto()  # the mix only adds synthetic clips to the baseline, and is better
    HURTS = auto()
    BETTER = auto()  # the mix differs from the baseline in more than synthetic clips
    WORSE = auto()
    NOT_DISTINGUISHABLE = auto()
    TOO_FEW_PAIRS = auto()  # the exact test cannot reach significance
    NOT_COMPARABLE = auto()  # different numbers of optimizer steps, or different content of the real clips
    NOT_PAIRED = auto()  # no run has the split and seed of a baseline run

    @property
    def direction(self) -> int:
        """1 if the mix is better than the baseline, -1 if it is worse, else 0."""
        return {Verdict.HELPS: 1, Verdict.BETTER: 1, Verdict.HURTS: -1, Verdict.WORSE: -1}.get(self, 0)


@dataclass(frozen=True)
class SameAugmentation:
    """The augmentation of a mix, and the difference from baseline runs with the same one, or None if there are no such pairs."""

    name: str
    difference: PairedDifference | None


@dataclass(frozen=True)
class MixResult:
    """The comparison of one mix with the baseline.

    `p_value` is the larger one of the exact test's and the interval's. `p_value_holm` is corrected for `n_compared` mixes.
    In `n_unequal_steps` pairs the runs took different numbers of optimizer steps. In `n_changed_clips` pairs the real clips
    have the same names but different content. `same_augment` is set if the baseline's augmentation is different.
    """

    difference: PairedDifference
    p_value_exact: float
    p_value: float
    p_value_holm: float
    n_compared: int = 1
    n_unequal_steps: int = 0
    n_changed_clips: int = 0
    by_folds: bool = True  # the splits are the source's folds
    adds_synthetic: bool = False  # the mix only adds synthetic clips to the baseline
    same_augment: SameAugmentation | None = None

    @classmethod
    def from_pairs(cls, pairs: Sequence[Pair]) -> MixResult:
        """Compare one mix. Its p value is not corrected for other mixes."""
        difference, p_exact = paired_bootstrap(pairs), exact_test(pairs)
        # Without an interval nothing is known about other recordings, so no difference can be significant.
        p_value = max(p_exact, 1.0 if difference.p_value is None else difference.p_value)
        return cls(difference, p_exact, p_value, p_value)


def correct_p_values(results: Mapping[str, MixResult]) -> dict[str, MixResult]:
    """Return the results of all mixes with p values corrected for their number (Holm)."""
    p_values = holm([result.p_value for result in results.values()])
    return {
        mix: replace(result, p_value_holm=p_value, n_compared=len(results))
        for (mix, result), p_value in zip(results.items(), p_values, strict=True)
    }


def decide_verdict(result: MixResult | None) -> Verdict:
    """Return the verdict on a mix, or `NOT_PAIRED` for None.

    A difference is significant if both the interval (which covers other test data and seeds) and the exact test (which covers
    other trainings on the same data) find it after correction for the number of mixes. If the baseline has another
    augmentation, the difference must also be clear with the same augmentation. Otherwise the augmentation may be its cause.
    """
    if result is None:
        return Verdict.NOT_PAIRED
    if result.n_unequal_steps or result.n_changed_clips:
        return Verdict.NOT_COMPARABLE
    is_significant = result.p_value_holm <= SIGNIFICANCE
    if result.difference.n_pairs < min_pairs(result.n_compared) and not is_significant:
        return Verdict.TOO_FEW_PAIRS
    up = result.difference.difference_points > 0
    same = result.same_augment
    if not is_significant or (same is not None and not _excludes_zero(same.difference, up)):
        return Verdict.NOT_DISTINGUISHABLE
    if result.adds_synthetic:
        return Verdict.HELPS if up else Verdict.HURTS
    return Verdict.BETTER if up else Verdict.WORSE


ANSWERS = {
    Verdict.HELPS: "Synthetic clips help",
    Verdict.HURTS: "Synthetic clips hurt",
    Verdict.BETTER: "Better",
    Verdict.WORSE: "Worse",
    Verdict.NOT_DISTINGUISHABLE: "Not shown yet",
    Verdict.TOO_FEW_PAIRS: "Too few pairs to tell",
    Verdict.NOT_COMPARABLE: "Not comparable",
    Verdict.NOT_PAIRED: "Not comparable",
}


def write_answer(result: MixResult | None) -> str:
    """Return the verdict in short: `Not shown yet: +6.4 percentage points, anything from -0.4 to +13.1 fits`."""
    text = ANSWERS[decide_verdict(result)]
    if result is None:
        return text
    difference = result.difference
    text += f": {difference.difference_points:+z.1f} percentage points"
    if difference.low_points == difference.high_points:  # no interval, or all pairs are alike
        return text
    return f"{text}, anything from {format_interval(difference)} fits"


def write_sentence(result: MixResult | None, baseline: str) -> str:
    """Return the verdict with its numbers, and what to do next."""
    if result is None:
        return (
            f"no run shares a split and seed with {baseline}: train both with the same test folds and seeds"
        )
    return f"{_numbers(result)}: {_meaning(result, baseline)}"


def _meaning(result: MixResult, baseline: str) -> str:
    verdict = decide_verdict(result)
    if verdict is Verdict.NOT_COMPARABLE:
        return _not_comparable(result)
    more = {
        Verdict.NOT_DISTINGUISHABLE: f"{_why_not(result, baseline)}; a study of {MORE} sees smaller differences",
        **dict.fromkeys((Verdict.BETTER, Verdict.WORSE), f" than {baseline}"),
        Verdict.TOO_FEW_PAIRS: f" it from {baseline} (the exact test needs {min_pairs(result.n_compared)} or more); train {MORE}",
    }
    return ANSWERS[verdict].lower() + more.get(verdict, "")


def format_interval(difference: PairedDifference) -> str:
    """Return text such as `-0.03 to +1.2`, or an empty string without an interval."""
    if difference.low_points is None or difference.high_points is None:
        return ""
    return " to ".join(map(_format_bound, (difference.low_points, difference.high_points)))


def _format_bound(points: float) -> str:
    """Return a bound with one decimal, or with more if it would round to zero."""
    digits = next((n for n in range(1, 6) if round(points, n)), 1)
    return f"{points:+z.{digits}f}"


def _numbers(result: MixResult) -> str:
    """Return text with the difference, its interval, the number of pairs, and the difference with the same augmentation."""
    difference, same = result.difference, result.same_augment
    parts = [f"{difference.difference_points:+z.1f} percentage points"]
    if interval := format_interval(difference):
        folds = f"these {difference.n_splits} folds" if difference.n_splits > 1 else "this fold"
        over = f" on {folds}" if result.by_folds and not difference.over_folds else ""
        parts.append(f"95 % interval {interval}{over}")
    kind = "fold-seed" if result.by_folds else "split-seed"
    if difference.n_pairs == 1:
        parts.append(f"one {kind} pair")
    else:
        parts.append(f"{difference.n_pairs_up} of {difference.n_pairs} {kind} pairs up")
        if difference.n_seeds == 1:
            parts.append("one seed (the luck of training is not in the interval)")
        elif difference.n_seeds == 2:
            parts.append("two seeds (the luck of training is hardly in the interval)")
    text = ", ".join(parts)
    if same is None or same.difference is None:
        return text
    numbers = [f"{same.difference.difference_points:+z.1f}", format_interval(same.difference)]
    return f"{text} (with {same.name} for both {', '.join(filter(None, numbers))})"


def _not_comparable(result: MixResult) -> str:
    pairs = pluralize(result.difference.n_pairs, "pair")
    if result.n_unequal_steps:
        return (
            f"not comparable, {result.n_unequal_steps} of {pairs} took unequal numbers of optimizer steps; train both with the "
            "same epochs and batch"
        )
    return (
        f"not comparable, in {result.n_changed_clips} of {pairs} the real clips changed under the same names; train both on the "
        "same files"
    )


def _why_not(result: MixResult, baseline: str) -> str:
    """Return why a difference is not significant although some evidence supports it, or an empty string without evidence."""
    difference, exact, same = result.difference, result.p_value_exact, result.same_augment
    if difference.low_points is None or difference.high_points is None:
        return " (no interval: a test part holds a single recording)"
    if result.p_value_holm <= SIGNIFICANCE and same is not None:
        if same.difference is None:
            return f" ({baseline} was not trained with {same.name} for the same seeds)"
        return f" with {same.name} for both"
    clear = difference.low_points > 0 or difference.high_points < 0
    if clear and exact <= SIGNIFICANCE:
        return f" (p {result.p_value_holm:.2g} for {result.n_compared} mixes compared)"
    if clear:
        return f" (the interval is clear of 0, but the exact test is not: p {exact:.2g})"
    return f" (exact test p {exact:.2g}, but the interval holds 0)" if exact <= SIGNIFICANCE else ""


def _excludes_zero(difference: PairedDifference | None, up: bool) -> bool:
    """Return whether the whole interval is above 0 (`up`), or below 0."""
    if difference is None or difference.low_points is None or difference.high_points is None:
        return False
    return difference.low_points > 0 if up else difference.high_points < 0
