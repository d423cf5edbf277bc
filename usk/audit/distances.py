"""How a set of clips lies to another in an embedding: kernel audio distance (KAD) and nearest neighbors. Pure.

Embeddings are [clips, dimensions]; labels [clips]; recordings are names [clips]. Clips cut or made from one recording are
alike; where a measure looks at pairs of clips, pairs that share a recording are left out.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

SAME_SOUND = 1e-3  # of the median distance between real clips: only copies are as near as that
NEAR_COPY_PERCENTILE = 1.0  # of the distances between real clips of different recordings
N_RESAMPLES = 200
INTERVAL_RECORDINGS = 4  # of a class on either side; fewer have no interval
BLOCK = 1024  # rows of a matrix between two sets that are in memory at once

Recordings = Sequence[Collection[str]]  # those that each clip was cut or made from, one at least


def squared_distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Between the rows of [n, d] and [m, d]: [n, m], without a block of n x m x d numbers."""
    first, second = first.astype(np.float64), second.astype(np.float64)
    norms = (first**2).sum(axis=1)[:, None] + (second**2).sum(axis=1)[None]
    return np.maximum(norms - 2 * first @ second.T, 0.0)


def median_distance(values: np.ndarray) -> float:
    """The median distance between two different rows of [n, d]; 1 where there is none, or it is 0."""
    if len(values) < 2:
        return 1.0
    apart = np.sqrt(squared_distances(values, values))[np.triu_indices(len(values), 1)]
    return float(np.median(apart)) or 1.0


def apart(first: Recordings, second: Recordings) -> np.ndarray:
    """Which pairs of clips have no recording in common: bool [n, m]."""
    memberships = _memberships(first, second)
    return np.asarray(memberships[0] @ memberships[1].T == 0)


def _memberships(first: Recordings, second: Recordings) -> tuple[np.ndarray, np.ndarray]:
    """Which recordings each clip of two sets has a part of: 0 or 1 [n, recordings] and [m, recordings]."""
    place = {name: column for column, name in enumerate(sorted(set().union(*first, *second)))}
    tables = []
    for clips in (first, second):
        table = np.zeros((len(clips), len(place)), dtype=np.float32)
        for row, names in enumerate(clips):
            table[row, [place[name] for name in names]] = 1
        tables.append(table)
    return tables[0], tables[1]


@dataclass(frozen=True, eq=False)
class _Pairs:
    """Kernel values between two sets of clips, summed by the recordings that the clips of a pair stand for: [units, units]."""

    sums: np.ndarray
    counts: np.ndarray  # how many pairs are in each sum; pairs that share a recording are not

    @classmethod
    def of(
        cls, first: np.ndarray, second: np.ndarray, recordings: tuple[Recordings, Recordings], units: list[str],
        width: float,
    ) -> _Pairs:  # fmt: skip
        """Pairs of embeddings [n, d] and [m, d] under a Gaussian kernel, a block of rows at a time."""
        members = _memberships(*recordings)
        place = {name: number for number, name in enumerate(units)}
        rows, columns = (np.array([place[min(names)] for names in of]) for of in recordings)
        order = np.argsort(columns, kind="stable")
        present, begins = np.unique(columns[order], return_index=True)
        sums, counts = np.zeros((2, len(units), len(units)))
        for begin in range(0, len(first), BLOCK):
            block = slice(begin, begin + BLOCK)
            counted = (members[0][block] @ members[1][order].T == 0).astype(np.float64)
            kernel = np.exp(-squared_distances(first[block], second[order]) / (2 * width**2)) * counted
            places = rows[block][:, None], present[None]
            np.add.at(sums, places, np.add.reduceat(kernel, begins, axis=1))
            np.add.at(counts, places, np.add.reduceat(counted, begins, axis=1))
        return cls(sums, counts)

    def means(self, chosen: np.ndarray) -> np.ndarray:
        """Over the pairs of some recordings, 0 or 1 [choices, units]: [choices], NaN where there are none."""
        sums, counts = (((chosen @ table) * chosen).sum(axis=1) for table in (self.sums, self.counts))
        return np.divide(sums, counts, out=np.full(len(chosen), np.nan), where=counts > 0.5)


@dataclass(frozen=True, eq=False)
class _Discrepancy:
    """What `mmd` of two sets of clips is computed from, for all of their recordings or some."""

    first: _Pairs
    second: _Pairs
    between: _Pairs
    n_recordings: tuple[int, int]  # that the clips of either side stand for

    @classmethod
    def of(
        cls, first: np.ndarray, second: np.ndarray, recordings: tuple[Recordings, Recordings], width: float
    ) -> _Discrepancy:
        """A clip of several recordings stands for the first of them by name."""
        stand_for = [{min(names) for names in clips} for clips in recordings]
        units = sorted(stand_for[0] | stand_for[1])
        of_first, of_second = recordings
        return cls(
            _Pairs.of(first, first, (of_first, of_first), units, width),
            _Pairs.of(second, second, (of_second, of_second), units, width),
            _Pairs.of(first, second, recordings, units, width),
            (len(stand_for[0]), len(stand_for[1])),
        )

    def values(self, chosen: np.ndarray) -> np.ndarray:
        """Of some recordings, 0 or 1 [choices, units]: [choices], NaN where that leaves no pairs."""
        within = self.first.means(chosen) + self.second.means(chosen)
        return 100 * (within - 2 * self.between.means(chosen))

    def whole(self) -> float:
        """Of all recordings."""
        return float(self.values(np.ones((1, len(self.between.sums))))[0])

    def halves(self, rng: np.random.Generator) -> np.ndarray:
        """Of `N_RESAMPLES` halves of the recordings. A half that leaves no pairs says nothing: another is taken for it. All
        are NaN where hardly any says something."""
        n_units = len(self.between.sums)
        first_half = (np.arange(n_units) < n_units // 2).astype(np.float64)
        drawn = self.values(rng.permuted(np.tile(first_half, (N_RESAMPLES, 1)), axis=1))
        known = drawn[~np.isnan(drawn)]
        if len(known) < N_RESAMPLES / 10:
            return np.full(N_RESAMPLES, np.nan)
        drawn[np.isnan(drawn)] = rng.choice(known, N_RESAMPLES - len(known))
        return drawn


def mmd(
    first: np.ndarray,
    second: np.ndarray,
    width: float,
    recordings: tuple[Recordings, Recordings] | None = None,
) -> float:
    """Unbiased squared maximum mean discrepancy of [n, d] and [m, d], Gaussian kernel of `width`, times 100.

    Gretton et al. 2012, eq. 3. Near zero, and as often below as above it, for draws from one distribution. Needs two of
    each. `recordings` are those that each clip of both sets was cut or made from: pairs that share one are left out, or sets
    of one distribution would seem apart, the more so the fewer recordings they come from (and near, where one was made
    from the other). NaN where no pair is left.
    """
    n, m = len(first), len(second)
    if n < 2 or m < 2:
        raise ValueError("an unbiased discrepancy needs two clips on each side")
    alone = [{f"first {i}"} for i in range(n)], [{f"second {i}"} for i in range(m)]
    return _Discrepancy.of(first, second, recordings or alone, width).whole()


def kad(real: np.ndarray, made: np.ndarray) -> float:
    """Kernel audio distance (arXiv 2502.15602): `mmd` of untouched embeddings [n, d] and [m, d] with the median distance
    between real ones as the kernel's width."""
    return mmd(made, real, median_distance(real))


@dataclass(frozen=True)
class Distance:
    """KAD to real clips, its 95 % interval, and how many clips there are on each side.

    None where there are too few: a value takes two recordings on both sides, an interval `INTERVAL_RECORDINGS` of a class.
    """

    kad: float | None
    low: float | None
    high: float | None
    n: int
    n_real: int

    @classmethod
    def of(cls, value: float, spread: np.ndarray, n: int, n_real: int) -> Distance:
        """`spread` is how far resampled values lie from their mean; NaN where that is not known."""
        if math.isnan(value):
            return cls(None, None, None, n, n_real)
        if np.isnan(spread).any():
            return cls(round(value, 2), None, None, n, n_real)
        low, high = np.percentile(spread, [2.5, 97.5])
        return cls(round(value, 2), round(value + float(low), 2), round(value + float(high), 2), n, n_real)


class RealClips:
    """Real clips by class, in one embedding, that others are measured against."""

    def __init__(self, values: np.ndarray, labels: Sequence[int], recordings: Sequence[str]) -> None:
        self.values, self.labels = values, np.array(labels, dtype=np.int64)
        self.recordings = np.array(recordings, dtype=str)
        self.widths = {
            int(label): median_distance(values[self.labels == label]) for label in np.unique(self.labels)
        }

    def distances(
        self,
        values: np.ndarray,
        labels: Sequence[int],
        recordings: Recordings | None = None,
    ) -> tuple[dict[int, Distance], Distance]:
        """KAD of clips [n, d] to the real clips of their class: by class, and the mean over the classes that have one.

        `recordings` are those of the parents that each clip was made from; clips that name none stand for themselves. The
        interval comes from halves of the recordings drawn without replacement, of real clips and parents alike; they spread
        about as the whole does (Politis & Romano 1994). A bootstrap would put clips beside their own copies.
        """
        of = np.array(labels, dtype=np.int64)
        made_from = [set(names) or {f"clip {row}"} for row, names in enumerate(recordings or [()] * len(of))]
        by_class: dict[int, Distance] = {}
        found: dict[int, tuple[float, np.ndarray]] = {}
        for label in np.unique(of).tolist():
            rows, real = np.flatnonzero(of == label), self.labels == label
            value, spread = math.nan, np.full(N_RESAMPLES, np.nan)
            if len(rows) > 1 and real.sum() > 1:
                of_clips = [made_from[row] for row in rows.tolist()], self._recordings_of(real)
                pairs = _Discrepancy.of(values[rows], self.values[real], of_clips, self.widths[label])
                value = pairs.whole()
                if min(pairs.n_recordings) >= INTERVAL_RECORDINGS and not math.isnan(value):
                    halves = pairs.halves(np.random.default_rng((0, max(label, 0))))
                    spread = halves - halves.mean()
            if not math.isnan(value):
                found[label] = value, spread
            by_class[label] = Distance.of(value, spread, len(rows), int(real.sum()))
        n_real = int(np.isin(self.labels, list(found) or list(by_class)).sum())
        if not found:
            return by_class, Distance(None, None, None, len(of), n_real)
        value = float(np.mean([one for one, _ in found.values()]))
        spread = np.mean([one for _, one in found.values()], axis=0)
        return by_class, Distance.of(value, spread, len(of), n_real)

    def baseline(self, label: int) -> Distance:
        """How far real clips of a class are from each other: half of its recordings to the other half."""
        of_class = self.labels == label
        names = sorted(set(self.recordings[of_class].tolist()))
        first = set(np.random.default_rng(0).permutation(names)[: len(names) // 2].tolist())
        in_first = np.array([name in first for name in self.recordings.tolist()], dtype=bool)
        left, right = of_class & in_first, of_class & ~in_first
        n, n_real = int(left.sum()), int(right.sum())
        if min(n, n_real) < 2:
            return Distance(None, None, None, n, n_real)
        recordings = self._recordings_of(left), self._recordings_of(right)
        value = mmd(self.values[left], self.values[right], self.widths[label], recordings)
        return Distance(None if math.isnan(value) else round(value, 2), None, None, n, n_real)

    def _recordings_of(self, rows: np.ndarray) -> Recordings:
        return [{name} for name in self.recordings[rows].tolist()]


@dataclass(frozen=True)
class Nearness:
    """Medians over clips of the distance to the nearer parent and to the nearest real clip; over real clips to the nearest
    of another recording. None without any."""

    to_parents: float | None
    to_real: float | None
    real_to_real: float | None


class Neighbors:
    """Distances of synthetic clips to their parents and to the nearest real clip, and of real clips to each other."""

    def __init__(self, values: np.ndarray, to_parents: np.ndarray, real: RealClips) -> None:
        """Of embeddings [n, d] and each clip's distance to its nearer parent [n], infinite where none is known."""
        self.to_parents = to_parents
        nearest = np.sqrt(squared_distances(values, real.values)).min(axis=1)
        self.to_real = np.minimum(nearest, to_parents)  # `real` may be a sample without the parents
        self.real_to_real = nearest_apart(real.values, real.recordings)
        # Copies of one sound under two recordings do not measure how near two sounds are.
        apart = self.real_to_real[np.isfinite(self.real_to_real)]
        apart = apart[apart > SAME_SOUND * np.median(apart)] if len(apart) else apart
        self.limit = float(np.percentile(apart, NEAR_COPY_PERCENTILE)) if len(apart) else None

    def copies(self) -> list[int]:
        """Rows of synthetic clips nearer to a real clip than nearly any two real ones of different recordings are."""
        return [] if self.limit is None else np.flatnonzero(self.to_real < self.limit).tolist()

    def nearness(self, made: np.ndarray, real: np.ndarray) -> Nearness:
        """Of the synthetic and real clips where `made` and `real` are True."""

        def median(values: np.ndarray) -> float | None:
            finite = values[np.isfinite(values)]
            return round(float(np.median(finite)), 3) if len(finite) else None

        return Nearness(
            median(self.to_parents[made]), median(self.to_real[made]), median(self.real_to_real[real])
        )


def nearest_apart(values: np.ndarray, recordings: np.ndarray) -> np.ndarray:
    """Distance of each clip [n, d] to the nearest one of another recording: [n], infinite without one."""
    between = np.sqrt(squared_distances(values, values))
    between[recordings[:, None] == recordings[None]] = np.inf
    return between.min(axis=1) if len(values) else np.zeros(0)
