"""What a reader of a comparison must know beside its numbers: one function for each caveat, which returns its sentences."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping

from usk.evaluate.pairing import DEFAULT_BASELINE, ByMix, RunPairs, to_pairs
from usk.evaluate.stats import paired_bootstrap
from usk.evaluate.verdict import interval_of
from usk.runs import RunRecord
from usk.text import pluralize

Pairs = Mapping[str, RunPairs]
"""By mix, without the baseline."""


def caveats(by_mix: ByMix, pairs: Pairs, n_superseded: int = 0) -> list[str]:
    """All caveats of a comparison, those of its runs first. `n_superseded` older runs are left out."""
    older = f"{pluralize(n_superseded, 'older run')} of the same mix, split and seed left out"
    return [
        *of_runs(by_mix),
        *([older] if n_superseded else []),
        *unlike_clips(by_mix),
        *shared_clips(by_mix),
        *unpaired(by_mix, pairs),
        *failed(by_mix, pairs),
        *alone(by_mix),
        *many_mixes(pairs),
    ]


def of_runs(by_mix: ByMix) -> list[str]:
    """What the runs themselves say their results must be read with, such as leaks that nothing can rule out."""
    of_mix = {mix: {text for run in runs for text in run.caveats} for mix, runs in by_mix.items()}
    notes = []
    for text in sorted(set().union(*of_mix.values())):
        mixes = [mix for mix, found in of_mix.items() if text in found]
        notes.append(text if len(mixes) == len(by_mix) else f"{'; '.join(mixes)}: {text}")
    return notes


def unlike_clips(by_mix: ByMix) -> list[str]:
    """Runs of one mix whose synthetic clips are of different datasets of one name."""
    notes = []
    for mix, runs in by_mix.items():
        named = Counter(name for name, _ in frozenset().union(*(run.datasets for run in runs)))
        if (most := max(named.values(), default=1)) > 1:
            notes.append(f"{mix}: its runs were trained on {most} different datasets of that name")
    return notes


def shared_clips(by_mix: ByMix) -> list[str]:
    """Mixes whose seeds (with one seed alone: splits) had the same synthetic clips."""
    sharing: dict[str, list[str]] = defaultdict(list)
    for mix, runs in by_mix.items():
        made: dict[frozenset[str], list[RunRecord]] = defaultdict(list)
        for run in runs:
            if run.n_synthetic and run.revisions:
                made[run.revisions].append(run)
        what = "seed" if len({run.seed for run in runs}) > 1 else "split"
        everyone = {getattr(run, what) for run in runs}
        found = [{getattr(run, what) for run in members} for members in made.values()]
        if any(len(members) > 1 for members in found):
            which = "all" if all(members == everyone for members in found) else "several"
            sharing[f"{which} {what}s"].append(mix)
    return [
        f"{'; '.join(mixes)}: {which} trained on the same synthetic clips, so the luck of making them is in no interval"
        for which, mixes in sharing.items()
    ]


def unpaired(by_mix: ByMix, pairs: Pairs) -> list[str]:
    n_baseline = len(next(iter(by_mix.values())))
    counts = {mix: len(by_mix[mix]) + n_baseline - 2 * len(made) for mix, made in pairs.items()}
    return [
        f"{mix}: no partner with the same split and seed for {pluralize(n, 'run')} (its own and the baseline's), which are in "
        "the means and recalls and not in the differences"
        for mix, n in counts.items()
        if n
    ]


def failed(by_mix: ByMix, pairs: Pairs) -> list[str]:
    """Trainings that came to nothing, of which few can make most of a mean, and the differences without them."""
    counts = {mix: sum(run.learned_nothing for run in runs) for mix, runs in by_mix.items()}
    runs = ", ".join(
        f"{n} of {pluralize(len(by_mix[mix]), 'run')} of {mix}" for mix, n in counts.items() if n
    )
    if not runs:
        return []
    parts = [f"{runs} learned nothing and predict one class for all test clips"]
    for mix, made in pairs.items():
        rest = [both for both in made if not any(run.learned_nothing for run in both)]
        if rest and len(rest) < len(made):
            left = paired_bootstrap(to_pairs(rest))
            interval = f" ({interval_of(left)})" if interval_of(left) else ""
            parts.append(
                f"without them the difference of {mix} is {left.difference_points:+z.1f} percentage points{interval}, in "
                f"{pluralize(len(rest), 'pair')}"
            )
    return ["; ".join(parts)]


def alone(by_mix: ByMix) -> list[str]:
    """One mix, which nothing can be compared with."""
    mix, *others = by_mix
    if others:
        return []
    beside = "a mix with synthetic clips" if mix == DEFAULT_BASELINE else f"the mix {DEFAULT_BASELINE}"
    return [f"{mix} is the only mix: train {beside} with the same test folds and seeds to compare it with"]


def many_mixes(pairs: Pairs) -> list[str]:
    if len(pairs) < 2:
        return []
    return [
        f"{len(pairs)} mixes are compared with the baseline: each interval stands for itself, the p values are corrected for all "
        "together (Holm)"
    ]
