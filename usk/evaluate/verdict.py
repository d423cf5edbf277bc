"""What a difference means: a `Verdict`, and its plain sentence with the numbers behind it and what to do next. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum, auto

from usk.evaluate.stats import (
    SIGNIFICANCE,
    Pair,
    PairedDifference,
    exact_test,
    fewest_pairs,
    holm,
    paired_bootstrap,
)
from usk.text import pluralize

MORE = "more seeds or test folds"


class Verdict(StrEnum):
    """What is found of a mix against the baseline."""

    BASELINE = auto()
    HELPS = auto()  # all that the mix has beyond the baseline is synthetic clips, and it is better
    HURTS = auto()
    BETTER = auto()  # the mixes differ in more than synthetic clips
    WORSE = auto()
    NOT_DISTINGUISHABLE = auto()
    TOO_FEW_PAIRS = auto()  # for the exact test to find anything
    NOT_COMPARABLE = auto()  # unequal work, or real clips of other content
    NOT_PAIRED = auto()  # no run shares split and seed with one of the baseline

    @property
    def direction(self) -> int:
        """1 where the mix is better than the baseline, -1 where it is worse, else 0."""
        return {Verdict.HELPS: 1, Verdict.BETTER: 1, Verdict.HURTS: -1, Verdict.WORSE: -1}.get(self, 0)


@dataclass(frozen=True)
class SameAugmentation:
    """A mix's augmentation, where the baseline was given another, and the difference with it for both (None: no pairs)."""

    name: str
    difference: PairedDifference | None


@dataclass(frozen=True)
class Compared:
    """One mix against the baseline.

    `p_value` is the larger of the exact test's and the interval's, `p_value_holm` the same corrected for all `n_compared` mixes.
    `n_unequal` pairs took unequal numbers of optimizer steps; in `n_other_content` the real clips differ in content.
    """

    difference: PairedDifference
    p_value_exact: float
    p_value: float
    p_value_holm: float
    n_compared: int = 1
    n_unequal: int = 0
    n_other_content: int = 0
    by_folds: bool = True  # the splits are the source's folds
    adds_synthetic: bool = False  # all that the mix has beyond the baseline is synthetic clips
    same: SameAugmentation | None = None

    @classmethod
    def of(cls, pairs: Sequence[Pair]) -> Compared:
        """One mix compared, before `corrected` knows of others."""
        found, exact = paired_bootstrap(pairs), exact_test(pairs)
        # Without an interval nothing is known of other recordings, and nothing can be found.
        p_value = max(exact, 1.0 if found.p_value is None else found.p_value)
        return cls(found, exact, p_value, p_value)


def corrected(compared: Mapping[str, Compared]) -> dict[str, Compared]:
    """The same mixes, their p values corrected for all of them (Holm)."""
    p_values = holm([found.p_value for found in compared.values()])
    return {
        mix: replace(found, p_value_holm=p_value, n_compared=len(compared))
        for (mix, found), p_value in zip(compared.items(), p_values, strict=True)
    }


def verdict(compared: Compared | None) -> Verdict:
    """What is found.

    A difference counts where both the interval (other test data, other seeds) and the exact test (other trainings on these very
    data) find it, corrected for the number of mixes, between runs of equal work. Where the baseline was given another
    augmentation, the difference must be clear with the same one for both too, or it may be the augmentation's doing.
    """
    if compared is None:
        return Verdict.NOT_PAIRED
    if compared.n_unequal or compared.n_other_content:
        return Verdict.NOT_COMPARABLE
    found = compared.p_value_holm <= SIGNIFICANCE
    if compared.difference.n_pairs < fewest_pairs(compared.n_compared) and not found:
        return Verdict.TOO_FEW_PAIRS
    up = compared.difference.difference_points > 0
    if not found or (compared.same is not None and not _is_clear(compared.same.difference, up)):
        return Verdict.NOT_DISTINGUISHABLE
    if compared.adds_synthetic:
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


def answer(compared: Compared | None) -> str:
    """The verdict for someone who wants no statistics: `Not shown yet: +6.4 percentage points, anything from -0.4 to +13.1 fits`."""
    said = ANSWERS[verdict(compared)]
    if compared is None:
        return said
    points, difference = (
        f"{compared.difference.difference_points:+z.1f} percentage points",
        compared.difference,
    )
    spreads = difference.low_points != difference.high_points  # else all pairs are alike
    fits = f", anything from {interval_of(difference)} fits" if spreads else ""
    return f"{said}: {points}{fits}"


def sentence(compared: Compared | None, baseline: str) -> str:
    """The verdict in plain words: by how much, how sure, what follows, and what to do next."""
    found = verdict(compared)
    if compared is None:
        return (
            f"no run shares a split and seed with {baseline}: train both with the same test folds and seeds"
        )
    meaning = {
        Verdict.HELPS: "synthetic clips help",
        Verdict.HURTS: "synthetic clips hurt",
        Verdict.BETTER: f"better than {baseline}",
        Verdict.WORSE: f"worse than {baseline}",
        Verdict.TOO_FEW_PAIRS: f"too few pairs to tell it from {baseline} (the exact test needs {fewest_pairs(compared.n_compared)} "
        f"or more); train {MORE}",
    }.get(found) or (
        _not_comparable(compared)
        if found is Verdict.NOT_COMPARABLE
        else f"not shown yet{_why_not(compared, baseline)}; a study of {MORE} sees smaller differences"
    )
    return f"{_numbers(compared)}: {meaning}"


def interval_of(difference: PairedDifference) -> str:
    """`-0.03 to +1.2`: a bound that rounds to zero keeps its side of it. Empty without an interval."""
    if difference.low_points is None or difference.high_points is None:
        return ""
    return " to ".join(map(_bound, (difference.low_points, difference.high_points)))


def _bound(points: float) -> str:
    """With one digit after the point, or as many as it takes to tell it from zero."""
    digits = next((n for n in range(1, 6) if round(points, n)), 1)
    return f"{points:+z.{digits}f}"


def _numbers(compared: Compared) -> str:
    """The difference, its interval, over how many pairs, and with the same augmentation for both."""
    difference, same = compared.difference, compared.same
    parts = [f"{difference.difference_points:+z.1f} percentage points"]
    if interval := interval_of(difference):
        folds = f"these {difference.n_splits} folds" if difference.n_splits > 1 else "this fold"
        over = f" on {folds}" if compared.by_folds and not difference.over_folds else ""
        parts.append(f"95 % interval {interval}{over}")
    kind = "fold-seed" if compared.by_folds else "split-seed"
    if difference.n_pairs == 1:
        parts.append(f"one {kind} pair")
    else:
        parts.append(f"{difference.n_pairs_up} of {difference.n_pairs} {kind} pairs up")
        if difference.n_seeds == 1:
            parts.append("one seed (the luck of training is not in the interval)")
        elif difference.n_seeds == 2:
            parts.append("two seeds (the luck of training is hardly in the interval)")
    said = ", ".join(parts)
    if same is None or same.difference is None:
        return said
    found = [f"{same.difference.difference_points:+z.1f}", interval_of(same.difference)]
    return f"{said} (with {same.name} for both {', '.join(filter(None, found))})"


def _not_comparable(compared: Compared) -> str:
    pairs = pluralize(compared.difference.n_pairs, "pair")
    if compared.n_unequal:
        return (
            f"not comparable, {compared.n_unequal} of {pairs} took unequal numbers of optimizer steps; train both with the "
            "same epochs and batch"
        )
    return (
        f"not comparable, in {compared.n_other_content} of {pairs} the real clips changed under the same names; train both on the "
        "same files"
    )


def _why_not(compared: Compared, baseline: str) -> str:
    """What stands against a difference, in brackets; empty where nothing speaks for one."""
    difference, exact, same = compared.difference, compared.p_value_exact, compared.same
    if difference.low_points is None or difference.high_points is None:
        return " (no interval: a test part holds a single recording)"
    if compared.p_value_holm <= SIGNIFICANCE and same is not None:
        if same.difference is None:
            return f" ({baseline} was not trained with {same.name} for the same seeds)"
        return f" with {same.name} for both"
    clear = difference.low_points > 0 or difference.high_points < 0
    if clear and exact <= SIGNIFICANCE:
        return f" (p {compared.p_value_holm:.2g} for {compared.n_compared} mixes compared)"
    if clear:
        return f" (the interval is clear of 0, but the exact test is not: p {exact:.2g})"
    return f" (exact test p {exact:.2g}, but the interval holds 0)" if exact <= SIGNIFICANCE else ""


def _is_clear(difference: PairedDifference | None, up: bool) -> bool:
    """Whether the interval lies above 0, or below it."""
    if difference is None or difference.low_points is None or difference.high_points is None:
        return False
    return difference.low_points > 0 if up else difference.high_points < 0
