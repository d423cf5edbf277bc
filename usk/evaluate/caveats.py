"""Caveats of a comparison. Each function here returns the sentences of one kind of caveat."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping

from usk.evaluate.pairing import DEFAULT_BASELINE, RunPairs, RunsByMix, to_stats_pairs
from usk.evaluate.stats import paired_bootstrap
from usk.evaluate.verdict import format_interval
from usk.text import pluralize

PairsByMix = Mapping[str, RunPairs]
"""The pairs of each mix with the baseline."""


def caveats(by_mix: RunsByMix, pairs: PairsByMix, n_superseded: int = 0) -> list[str]:
    """Return all caveats of a comparison. `n_superseded` is the number of older runs that were left out."""
    older = f"{pluralize(n_superseded, 'older run')} of the same mix, split and seed left out"
    return [
        *run_caveats(by_mix),
        *([older] if n_superseded else []),
        *different_datasets(by_mix),
        *different_precisions(pairs),
        *shared_clips(by_mix),
        *unpaired_runs(by_mix, pairs),
        *failed_runs(by_mix, pairs),
        *single_mix(by_mix),
        *nothing_to_gain(by_mix),
        *many_mixes(pairs),
    ]


def run_caveats(by_mix: RunsByMix) -> list[str]:
    """Return the caveats in the run records, such as leaks that cannot be ruled out."""
    caveats_of_mix = {mix: {text for run in runs for text in run.caveats} for mix, runs in by_mix.items()}
    notes = []
    for text in sorted(set().union(*caveats_of_mix.values())):
        mixes = [mix for mix, texts in caveats_of_mix.items() if text in texts]
        notes.append(text if len(mixes) == len(by_mix) else f"{'; '.join(mixes)}: {text}")
    return notes


def different_datasets(by_mix: RunsByMix) -> list[str]:
    """Report mixes whose runs used different synthetic datasets of the same name."""
    notes = []
    for mix, runs in by_mix.items():
        datasets = frozenset().union(*(run.datasets for run in runs))
        n_datasets = max(Counter(name for name, _ in datasets).values(), default=1)
        if n_datasets > 1:
            notes.append(
                f"{mix}: its runs were trained on {n_datasets} different datasets with the same name"
            )
    return notes


def different_precisions(pairs: PairsByMix) -> list[str]:
    """Report mixes some of whose runs were trained in another precision than the baseline's."""
    mixed = [mix for mix, of_mix in pairs.items() if any(a.precision != b.precision for a, b in of_mix)]
    text = f"{'; '.join(mixed)}: trained in another precision than the baseline, in part or all"
    return [text] if mixed else []


def shared_clips(by_mix: RunsByMix) -> list[str]:
    """Report mixes whose seeds used the same synthetic clips, or whose splits did if there is one seed."""
    mixes_by_text: dict[str, list[str]] = defaultdict(list)
    for mix, runs in by_mix.items():
        unit = "seed" if len({run.seed for run in runs}) > 1 else "split"
        # The seeds or splits by revisions of the synthetic clips.
        users: dict[frozenset[str], set[int | str]] = defaultdict(set)
        for run in runs:
            if run.n_synthetic and run.revisions:
                users[run.revisions].add(getattr(run, unit))
        if any(len(members) > 1 for members in users.values()):
            everyone = {getattr(run, unit) for run in runs}
            which = "all" if all(members == everyone for members in users.values()) else "several"
            mixes_by_text[f"{which} {unit}s"].append(mix)
    return [
        f"{'; '.join(mixes)}: {which} trained on the same synthetic clips, so the interval does not cover other draws of them"
        for which, mixes in mixes_by_text.items()
    ]


def unpaired_runs(by_mix: RunsByMix, pairs: PairsByMix) -> list[str]:
    n_baseline = len(next(iter(by_mix.values())))
    counts = {mix: len(by_mix[mix]) + n_baseline - 2 * len(mix_pairs) for mix, mix_pairs in pairs.items()}
    return [
        f"{mix}: no partner with the same split and seed for {pluralize(n, 'run')} (its own and the baseline's). They "
        "count for means and recalls, but not for differences"
        for mix, n in counts.items()
        if n
    ]


def failed_runs(by_mix: RunsByMix, pairs: PairsByMix) -> list[str]:
    """Report runs that learned nothing, since a few of them can dominate a mean, and the differences without them."""
    counts = {mix: sum(run.learned_nothing for run in runs) for mix, runs in by_mix.items()}
    runs = ", ".join(
        f"{n} of {pluralize(len(by_mix[mix]), 'run')} of {mix}" for mix, n in counts.items() if n
    )
    if not runs:
        return []
    parts = [f"{runs} learned nothing and predict one class for all test clips"]
    for mix, mix_pairs in pairs.items():
        rest = [pair for pair in mix_pairs if not any(run.learned_nothing for run in pair)]
        if rest and len(rest) < len(mix_pairs):
            difference = paired_bootstrap(to_stats_pairs(rest))
            interval = f" ({format_interval(difference)})" if format_interval(difference) else ""
            parts.append(
                f"without them the difference of {mix} is {difference.difference_points:+z.1f} percentage points{interval}, in "
                f"{pluralize(len(rest), 'pair')}"
            )
    return ["; ".join(parts)]


def single_mix(by_mix: RunsByMix) -> list[str]:
    """Report that there is only one mix, so there is nothing to compare it with."""
    mix, *others = by_mix
    if others:
        return []
    other = "a mix with synthetic clips" if mix == DEFAULT_BASELINE else f"the mix {DEFAULT_BASELINE}"
    return [f"{mix} is the only mix: train {other} with the same test folds and seeds to compare it with"]


def nothing_to_gain(by_mix: RunsByMix) -> list[str]:
    """Report a baseline without errors."""
    baseline, runs = next(iter(by_mix.items()))
    if any(run.accuracy < 1 for run in runs):
        return []
    return [f"{baseline} is right about every test clip, so no mix can be better: test more or harder clips"]


def many_mixes(pairs: PairsByMix) -> list[str]:
    if len(pairs) < 2:
        return []
    return [
        f"{len(pairs)} mixes are compared with the baseline: each interval is for one mix alone, and the p values are corrected "
        "for the number of mixes (Holm)"
    ]
