"""The options of a training, checked without anything large imported."""

from __future__ import annotations

import math
from dataclasses import dataclass

from usk.errors import UsageError, require_at_least, require_known

FOLDS = "folds"
SEED_9010 = "seed-9010"
PROTOCOLS = (FOLDS, SEED_9010)
TRANSFORMER = "hf:"  # in front of a folder or Hub id of a classifier of `transformers`
DEFAULT_CLASSIFIER = "small"
PAIRS_FOR_A_VERDICT = 6  # of fold and seed: with fewer, `usk eval` calls no mix better


@dataclass(frozen=True)
class ClipUse:
    """How a mix of real and synthetic clips trains on both. Any other mix trains as it always does."""

    real_share: float | None = None  # of each batch that is real; None: as clips come, as published
    synthetic_weight: float = 1.0  # in the loss, where a real clip has 1
    real_last: float = 0.0  # share of the steps, the last ones, on real clips alone

    def __post_init__(self) -> None:
        for name, holds, wanted in (
            ("real_share", self.real_share is None or 0 < self.real_share < 1, "above 0 and below 1"),
            ("synthetic_weight", 0 < self.synthetic_weight < math.inf, "above 0 and be finite"),
            ("real_last", 0 <= self.real_last < 1, "at 0 or above and below 1"),
        ):
            if not holds:
                raise UsageError(f"must lie {wanted}", field=name, value=getattr(self, name))

    @property
    def name(self) -> str:
        """In the table, else what differs from the default: `synthetic_weight 0.5`."""
        known = (name for name, use in USES.items() if use == self)
        changed = {name: value for name, value in vars(self).items() if value != getattr(ClipUse(), name)}
        return next(known, " ".join(f"{name} {value:g}" for name, value in changed.items()))

    def called(self, mix: str) -> str:
        """The name of a mix of both that trains so: `real,synth (balanced)`."""
        return mix if self == ClipUse() else f"{mix} ({self.name})"


DEFAULT_USE = "as-is"  # as published; nothing was found to be surely better yet
# Measured: accuracy above as-is in points, mean and standard error of 3 seeds: `small`, `strong`, 400 steps, last step; 50 real
# clips of UrbanSound8K folds 1 and 3, 500 averages of their mel images filtered from their sum, 1,656 test clips of 2, 4 to 8.
# Real clips alone: +2.3 ± 2.4, so these uses undo what such clips harm; none is surely better than real clips alone.
# With 100 of `decomposed`, which are not harmful, as-is has 61.6 % and balanced-real-last 60.3 % (4 seeds; docs/studies/texture).
# A synthetic_weight of 0.3 has 64.5 % with 100 each of `decomposed` and `sample`, as-is 65.2 (4 seeds; docs/studies/clips).
USES = {
    "as-is": ClipUse(),
    "balanced": ClipUse(real_share=0.5),  # +1.6 ± 0.8, 3 of 3 seeds up
    "real-last": ClipUse(real_last=1 / 3),  # not measured
    "balanced-real-last": ClipUse(real_share=0.5, real_last=1 / 3),  # +3.1 ± 1.2, 3 of 3 up
}


def use_named(name: str) -> ClipUse:
    """A row of the table. Raises UsageError for an unknown name."""
    require_known(name, USES, "use")
    return USES[name]


MOST = 10_000  # seeds, and worker processes


@dataclass(frozen=True)
class TrainConfig:
    """What to train and how. None (or `auto`) takes the classifier preset's value."""

    classifier: str = DEFAULT_CLASSIFIER
    protocol: str = FOLDS  # or seed-9010: a random split as published, optimistic
    test_folds: tuple[int, ...] = ()  # empty: every fold that all mixes can be tested on
    seeds: int | None = None  # how many; None: as many as `usk eval` needs for a verdict
    seed: int = 0  # the first of them
    train_clips: str = "full"  # real clips in all, joined by commas: 50,100,full
    epochs: int | None = None  # None: the preset's, more where real clips are few
    batch: int | None = None
    learning_rate: float | None = None
    augment: str = "auto"  # several joined by commas: every mix is trained with each of them
    device: str = "auto"
    precision: str = "auto"
    workers: int | None = None  # processes that each train a run at the same time; None: as many as pay
    skip_bad: bool = False
    use: ClipUse = USES[DEFAULT_USE]  # of the synthetic clips in a mix
    baseline: bool = True  # also train on the real clips of each mix alone

    def check(self) -> None:
        """Raise UsageError for options that cannot be meant."""
        require_known(self.protocol, PROTOCOLS, "protocol")
        require_at_least(0, seed=self.seed)
        require_at_least(1, epochs=self.epochs, batch=self.batch)
        require_at_least(1, MOST, seeds=self.seeds, workers=self.workers)
        rate = self.learning_rate
        if rate is not None and not 0 < rate < math.inf:
            raise UsageError("must be above 0 and finite", field="learning_rate", value=f"{rate:g}")
        if (self.workers or 1) > 1 and self.classifier.startswith(TRANSFORMER):
            why = "classifiers of transformers train one after another, each with all cores"
            raise UsageError(why, field="workers", value=self.workers, hint="Leave it out.")
        if self.test_folds and self.protocol != FOLDS:
            why = f"the protocol {self.protocol} draws its own test parts"
            raise UsageError(why, field="test_folds", hint="Leave it out.")

    @property
    def most_seeds(self) -> range:
        """The seeds, where their number is not given as many as might be taken."""
        return self.seeds_for(len(self.test_folds) or 1)

    def seeds_for(self, n_splits: int) -> range:
        """The seeds on so many test parts: as given, else as many as make enough pairs for a verdict."""
        n = self.seeds if self.seeds is not None else math.ceil(PAIRS_FOR_A_VERDICT / n_splits)
        return range(self.seed, self.seed + n)
