"""Training options and their checks. This module imports nothing large."""

from __future__ import annotations

import math
from dataclasses import dataclass

from usk.errors import UsageError, require_at_least, require_known
from usk.evaluate.stats import min_pairs

FOLDS = "folds"
SEED_9010 = "seed-9010"
PROTOCOLS = (FOLDS, SEED_9010)
TRANSFORMER = "hf:"  # prefix of the folder or Hub id of a `transformers` classifier
DEFAULT_CLASSIFIER = "small"
# Epochs, batch, learning rate, weight decay, cosine decay, label smoothing, augmentation, least steps.
RECIPES = {
    # 50 real clips reach 62.2, 63.6 and 63.5 % with 400, 1,200 and 3,600 steps; with synthetic clips 65.2, 68.3 and 70.0 %
    # (docs/studies/clips). `strong` is 1 to 3 points above `basic`, beside 50 real clips to all (docs/studies/main).
    "small": (30, 32, 2e-3, 0.02, True, 0.1, "strong", 3_600),
    # 62.5 % with all real clips and `strong` (docs/results.md)
    "medium": (30, 32, 2e-3, 0.02, True, 0.1, "strong", 960),
    "cnn": (50, 128, 1e-3, 0.0, False, 0.0, "none", 400),
}
MIN_EPOCH_CLIPS = 500  # an epoch has at least this many clips


@dataclass(frozen=True)
class ClipUse:
    """How a mix trains on both real and synthetic clips. It has no effect on a mix with one kind only."""

    real_share: float | None = None  # share of real clips in each batch; None: shuffle all clips together
    synthetic_weight: float = 1.0  # loss weight of a synthetic clip; a real clip has weight 1
    real_last: float = 0.0  # share of the steps, at the end, that use real clips only

    def __post_init__(self) -> None:
        for name, valid, rule in (
            ("real_share", self.real_share is None or 0 < self.real_share < 1, "above 0 and below 1"),
            ("synthetic_weight", 0 < self.synthetic_weight < math.inf, "above 0 and finite"),
            ("real_last", 0 <= self.real_last < 1, "at least 0 and below 1"),
        ):
            if not valid:
                raise UsageError(f"must be {rule}", field=name, value=getattr(self, name))

    @property
    def name(self) -> str:
        """Return the name in `USES`, or the settings that differ from the default: `synthetic_weight 0.5`."""
        if names := [name for name, use in USES.items() if use == self]:
            return names[0]
        default = vars(ClipUse())
        return " ".join(f"{key} {value:g}" for key, value in vars(self).items() if value != default[key])

    def add_to(self, mix: str) -> str:
        """Return the mix's name with this use appended, unless it is the default: `real,synth (balanced)`."""
        return mix if self == ClipUse() else f"{mix} ({self.name})"


DEFAULT_USE = "as-is"  # as published; no other use is proven better
# Comments give the gain in accuracy over as-is (percentage points, 95 % interval) with `small`, `strong` and 3,600 steps, and 100
# `decomposed` and 100 `sample` clips on six test folds of UrbanSound8K (docs/studies/clips). A synthetic_weight of 0.3 was worth
# 0.7 less than 1 with 400 steps.
USES = {
    "as-is": ClipUse(),
    "balanced": ClipUse(
        real_share=0.5
    ),  # beside 50 +1.1 (-0.7 to +2.8), beside 100 -1.0 (-2.5 to +0.6), 8 seeds
    "real-last": ClipUse(real_last=1 / 3),  # beside 50 -0.3 (-3.4 to +2.9), 4 seeds
    "balanced-real-last": ClipUse(real_share=0.5, real_last=1 / 3),  # not measured with so many steps
}


def use_named(name: str) -> ClipUse:
    """Return the `USES` entry called `name`. Raises UsageError for an unknown name."""
    require_known(name, USES, "use")
    return USES[name]


MAX_COUNT = 10_000  # largest number of seeds, and of worker processes


@dataclass(frozen=True)
class TrainConfig:
    """What to train and how: the help of `usk train` explains the fields. None (or `auto`) takes the classifier preset's value."""

    classifier: str = DEFAULT_CLASSIFIER
    protocol: str = FOLDS  # or seed-9010: the published random split, which gives optimistic scores
    test_folds: tuple[int, ...] = ()  # empty: every fold that all mixes can be tested on
    seeds: int | None = None  # number of seeds; None: as many as `usk eval` needs for a verdict
    seed: int = 0  # the first seed
    train_clips: str = "full"  # number of real training clips in all; several joined by commas: 50,100,full
    epochs: int | None = None  # None: the preset's number, or more with few real clips
    batch: int | None = None
    learning_rate: float | None = None
    augment: str = "auto"  # several joined by commas: each mix trains once with each of them
    device: str = "auto"
    precision: str = "auto"
    workers: int | None = None  # number of worker processes, one run each; None: chosen for this machine
    skip_bad: bool = False
    use: ClipUse = USES[DEFAULT_USE]  # of the synthetic clips in a mix
    baseline: bool = True  # also train on the real clips alone

    def check(self) -> None:
        """Raise UsageError for invalid or contradictory options."""
        require_known(self.protocol, PROTOCOLS, "protocol")
        require_at_least(0, seed=self.seed)
        require_at_least(1, epochs=self.epochs, batch=self.batch)
        require_at_least(1, MAX_COUNT, seeds=self.seeds, workers=self.workers)
        rate = self.learning_rate
        if rate is not None and not 0 < rate < math.inf:
            raise UsageError("must be above 0 and finite", field="learning_rate", value=f"{rate:g}")
        if (self.workers or 1) > 1 and self.classifier.startswith(TRANSFORMER):
            why = "classifiers of transformers train one after another, each with all cores"
            raise UsageError(why, field="workers", value=self.workers, hint="Leave it out.")
        if self.test_folds and self.protocol != FOLDS:
            why = f"the protocol {self.protocol} draws its own test parts"
            raise UsageError(why, field="test_folds", hint="Leave it out.")

    def seeds_for(self, n_splits: int, n_mixes: int = 1) -> range:
        """Return the given seeds, or enough that `n_splits` test parts make the pairs for a verdict on `n_mixes`."""
        n = self.seeds if self.seeds is not None else math.ceil(min_pairs(n_mixes) / n_splits)
        return range(self.seed, self.seed + n)


def training_length(n_train: int, batch: int, recipe: tuple[int, int], epochs: int | None) -> tuple[int, int]:
    """Return the number of epochs and of optimizer steps in all. Every mix with `n_train` real clips gets the same.

    An epoch is a pass over the real clips, or over `MIN_EPOCH_CLIPS` if they are fewer: an epoch of 50 clips would be two
    steps. If `epochs` is None, it is the recipe's number, the first of `recipe`, or more to make its least steps, the second.
    """
    steps = math.ceil(max(n_train, MIN_EPOCH_CLIPS) / batch)  # in an epoch
    if epochs is None:
        epochs = max(recipe[0], math.ceil(recipe[1] / steps))
    return epochs, epochs * steps
