"""The options of a training, checked without anything large imported."""

from __future__ import annotations

import math
from dataclasses import dataclass

from usk.errors import UsageError

FOLDS = "folds"
SEED_9010 = "seed-9010"
PROTOCOLS = (FOLDS, SEED_9010)
TRANSFORMER = "hf:"  # in front of a folder or Hub id of a classifier of `transformers`
DEFAULT_CLASSIFIER = "small"
PAIRS_FOR_A_VERDICT = 6  # of fold and seed: with fewer, `usk eval` calls no mix better
_LEAST = {"seeds": 1, "seed": 0, "epochs": 1, "batch": 1, "workers": 1}


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
    baseline: bool = True  # also train on the real clips of each mix alone

    def check(self) -> None:
        """Raise UsageError for options that cannot be meant."""
        if self.protocol not in PROTOCOLS:
            known = f"Choose one of {', '.join(PROTOCOLS)}."
            raise UsageError("is not known", field="protocol", value=self.protocol, hint=known)
        for field, least in _LEAST.items():
            if (value := getattr(self, field)) is not None and value < least:
                raise UsageError(f"must be at least {least}", field=field, value=value)
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
