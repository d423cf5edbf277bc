"""How often `usk eval` calls a mix better or worse where none is: simulated studies on a source's own recordings.

    python docs/studies/error_rate.py --real UrbanSound8K --folds 1,2,3 --seeds 6 --mixes 7 --tau 0.1 --studies 100

No mix helps on average. Recordings differ in how hard they are, in how much each mix helps or hurts on them (standard deviation
`--tau`, of the chance that a clip is right), and each training does well on other recordings than the next. `--fold-sd` is what a
mix does to a whole fold, and `--seed-sd` what a seed does to each mix on all folds alike. `--look-from 3` looks at the verdict after
each seed from the third on, and stops where there is one: what comes of adding seeds until something is found.
"""

from __future__ import annotations

import argparse
from collections import Counter

import numpy as np

from usk.data.open import open_source
from usk.evaluate.stats import SIGNIFICANCE, Pair, exact_test, holm, paired_bootstrap

HARD, TRAINING, CLIP = (
    0.2,
    0.2,
    0.1,
)  # standard deviations, of recordings, of a training on a recording, of clips


def study_without_gain(
    rng: np.random.Generator,
    folds: list[np.ndarray],
    seeds: int,
    mixes: int,
    tau: float,
    seed_sd: float = 0.0,
    fold_sd: float = 0.0,
) -> list[list[Pair]]:
    """For each mix its pairs with one baseline. `folds` hold the clips of each recording."""
    pairs: list[list[Pair]] = [[] for _ in range(mixes)]
    of_seeds = rng.normal(0, seed_sd, (mixes, seeds)) if seed_sd else np.zeros((mixes, seeds))
    for fold, sizes in enumerate(folds):
        n = len(sizes)
        recording = np.repeat(np.arange(n), sizes)
        names = np.array([f"{fold}-{number}" for number in recording])
        hard, clip = rng.normal(0, HARD, n), rng.normal(0, CLIP, len(recording))
        gains = rng.normal(0, tau, (mixes, n))
        if fold_sd:
            gains += rng.normal(0, fold_sd, (mixes, 1))
        for seed in range(seeds):

            def correct(gain: float | np.ndarray) -> np.ndarray:
                chance = 0.5 + (hard + gain + rng.normal(0, TRAINING, n))[recording] + clip  # noqa: B023
                return np.asarray(rng.random(len(recording)) < chance)  # noqa: B023

            baseline = correct(0.0)
            for mix in range(mixes):
                pairs[mix].append(
                    Pair(f"fold{fold}", seed, names, baseline, correct(gains[mix] + of_seeds[mix, seed]))
                )
    return pairs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--real", default="demo")
    parser.add_argument("--folds", default="1,2,3")
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--mixes", type=int, default=7)
    parser.add_argument("--tau", type=float, default=0.1)
    parser.add_argument("--seed-sd", type=float, default=0.0)
    parser.add_argument("--fold-sd", type=float, default=0.0)
    parser.add_argument("--look-from", type=int, help="look after each seed from this one on")
    parser.add_argument("--studies", type=int, default=100)
    parser.add_argument("--resamples", type=int, default=2_000)
    options = parser.parse_args()
    clips = open_source(options.real).clips
    folds = [
        np.array(sorted(Counter(clip.group for clip in clips if clip.fold == int(fold)).values()))
        for fold in options.folds.split(",")
    ]
    rng = np.random.default_rng(0)
    wrong = {"interval alone": 0, "exact test alone": 0, "any verdict": 0}
    for done in range(1, options.studies + 1):
        mixes = study_without_gain(
            rng, folds, options.seeds, options.mixes, options.tau, options.seed_sd, options.fold_sd
        )
        called = dict.fromkeys(wrong, False)
        for looked_at in range(options.look_from or options.seeds, options.seeds + 1):
            so_far = [[pair for pair in pairs if pair.seed < looked_at] for pairs in mixes]
            intervals = [paired_bootstrap(pairs, options.resamples).p_value or 1.0 for pairs in so_far]
            exact = [exact_test(pairs) for pairs in so_far]
            called["interval alone"] |= intervals[0] <= SIGNIFICANCE  # of one mix
            called["exact test alone"] |= exact[0] <= SIGNIFICANCE
            called["any verdict"] |= min(holm(list(map(max, intervals, exact)))) <= SIGNIFICANCE
        for name, found in called.items():
            wrong[name] += found
        print(f"\r{done} of {options.studies} studies: {wrong}", end="", flush=True)
    print()


if __name__ == "__main__":
    main()
