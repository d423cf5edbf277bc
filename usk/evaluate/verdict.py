"""What a difference means, in one plain sentence: by how much, how sure, and what follows. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from usk.evaluate.stats import (
    SIGNIFICANCE,
    Pair,
    PairedDifference,
    exact_test,
    fewest_pairs,
    holm,
    paired_bootstrap,
)


@dataclass(frozen=True)
class Compared:
    """One mix against the baseline: the difference, the exact test's p value, the larger of that and the interval's, the same
    corrected for all `n_compared` mixes, how many pairs took unequal numbers of optimizer steps, and of how many the real clips
    differ in content."""

    difference: PairedDifference
    p_value_exact: float
    p_value: float
    p_value_holm: float
    n_compared: int = 1
    n_unequal: int = 0
    n_other_content: int = 0

    @classmethod
    def of(cls, pairs: Sequence[Pair], n_unequal: int = 0, n_other_content: int = 0) -> Compared:
        """One mix compared, before `corrected` is told of others."""
        found, exact = paired_bootstrap(pairs), exact_test(pairs)
        # Without an interval nothing is said of other recordings, and nothing can be found.
        p_value = max(exact, 1.0 if found.p_value is None else found.p_value)
        return cls(found, exact, p_value, p_value, 1, n_unequal, n_other_content)


def corrected(compared: Mapping[str, Compared]) -> dict[str, Compared]:
    """The same mixes, their p values corrected for all of them (Holm)."""
    p_values = holm([found.p_value for found in compared.values()])
    return {
        mix: replace(found, p_value_holm=p_value, n_compared=len(compared))
        for (mix, found), p_value in zip(compared.items(), p_values, strict=True)
    }


def verdict(
    compared: Compared | None,
    baseline: str,
    kind: str = "fold-seed",
    adds_synthetic: bool = False,
    same: tuple[str, PairedDifference | None] | None = None,
) -> str:
    """The plain sentence: by how much, how sure, and what follows.

    A difference counts where both the interval (other recordings, other seeds) and the exact test (other trainings on these
    very data) find it, corrected for the number of mixes, between runs of equal work. `adds_synthetic` says it in the words
    of the question that usk is for. `same` is an augmentation and the difference with that for both, where the baseline
    was given another: what clips are said to do must be seen there too, or it may be the augmentation's doing.
    """
    if compared is None:
        return f"no run shares a split and seed with {baseline}: train both with the same --folds and --seeds"
    difference = compared.difference
    said = [f"{difference.difference_points:+z.1f} points"]
    if difference.low_points is not None and difference.high_points is not None:
        said.append(f"95 % interval {interval_of(difference)}")
    if difference.n_pairs == 1:
        said.append(f"one {kind} pair")
    else:
        said.append(f"{difference.n_pairs_up} of {difference.n_pairs} {kind} pairs up")
        if difference.n_seeds == 1:
            said.append("one seed (the luck of training is not in the interval)")
        elif difference.n_seeds == 2:
            said.append("two seeds (the luck of training is hardly in the interval)")
    judgment = _judgement(compared, baseline, adds_synthetic, same)
    augment, found = same or ("", None)
    if found is None:
        return f"{', '.join(said)}: {judgment}"
    interval = "" if found.low_points is None else f", {interval_of(found)}"
    return (
        f"{', '.join(said)} (with {augment} for both {found.difference_points:+z.1f}{interval}): {judgment}"
    )


def interval_of(difference: PairedDifference) -> str:
    """`-0.0 to +1.2`: a bound that rounds to zero keeps its side of it."""
    assert difference.low_points is not None and difference.high_points is not None
    return f"{difference.low_points:+.1f} to {difference.high_points:+.1f}"


def _judgement(
    compared: Compared,
    baseline: str,
    adds_synthetic: bool,
    same: tuple[str, PairedDifference | None] | None,
) -> str:
    difference, exact = compared.difference, compared.p_value_exact
    needed = fewest_pairs(compared.n_compared)
    against = "none" if adds_synthetic else baseline
    if compared.n_unequal:
        return (
            f"not comparable, {compared.n_unequal} of {difference.n_pairs} pairs took unequal numbers of optimizer "
            "steps; train both with the same --epochs and --batch"
        )
    if compared.n_other_content:
        return (
            f"not comparable, {compared.n_other_content} of {difference.n_pairs} pairs are of real clips that changed under the same "
            "names from one run to the other; train both on the same files"
        )
    if difference.n_pairs < needed and compared.p_value_holm > SIGNIFICANCE:
        return f"too few pairs to tell it from {against} (the exact test needs {needed} or more)"
    low, high = difference.low_points, difference.high_points
    if low is None or high is None:
        return f"no interval, a test part holds a single recording; not distinguishable from {against}"
    up = difference.difference_points > 0
    if compared.p_value_holm <= SIGNIFICANCE:
        if same is not None and same[1] is None:
            return f"not distinguishable from {against}, for {baseline} was not trained with {same[0]} for the same seeds"
        if same is not None and same[1] is not None and not _as_clear(same[1], up):
            return f"not distinguishable from {against} with {same[0]} for both"
        if adds_synthetic:
            return "synthetic clips help" if up else "synthetic clips hurt"
        return f"{'better' if up else 'worse'} than {baseline}"
    clear = low > 0 or high < 0
    why = ""
    if clear and exact <= SIGNIFICANCE:
        why = f" (p {compared.p_value_holm:.2g} for {compared.n_compared} mixes compared)"
    elif clear:
        why = f" (the interval is clear of 0, but not the exact test: p {exact:.2g})"
    elif exact <= SIGNIFICANCE:
        why = f" (p {exact:.2g}, but the interval over other recordings holds 0)"
    return f"not distinguishable from {against}{why}"


def _as_clear(difference: PairedDifference, up: bool) -> bool:
    """Whether the interval lies above 0, or below it."""
    low, high = difference.low_points, difference.high_points
    return low is not None and high is not None and (low > 0 if up else high < 0)
