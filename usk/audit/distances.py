"""Measure distances between sets of clips in an embedding: kernel audio distance (KAD) and nearest neighbors.

Embeddings are [clips, dimensions], labels [clips], and recordings are names [clips]. Clips that were cut or made from one
recording are similar, so measures over pairs of clips leave out pairs that share a recording. This module does no I/O.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

COPY_DISTANCE = 1e-3  # relative to the median distance between real clips: closer ones are copies
NEAR_COPY_PERCENTILE = 1.0  # of the distances between real clips of different recordings
N_RESAMPLES = 200
MIN_INTERVAL_RECORDINGS = 4  # of a class on each side; with fewer there is no interval
BLOCK = 1024  # rows of a kernel matrix in memory at once

Recordings = Sequence[Collection[str]]  # the recordings of each clip, at least one


def squared_distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the squared distances between the rows of [n, d] and [m, d]: [n, m]. Memory does not grow with n x m x d."""
    first, second = first.astype(np.float64), second.astype(np.float64)
    norms = (first**2).sum(axis=1)[:, None] + (second**2).sum(axis=1)[None]
    return np.maximum(norms - 2 * first @ second.T, 0.0)


def median_distance(values: np.ndarray) -> float:
    """Return the median distance between two different rows of [n, d]; 1 if there is none or it is 0."""
    if len(values) < 2:
        return 1.0
    distances = np.sqrt(squared_distances(values, values))[np.triu_indices(len(values), 1)]
    return float(np.median(distances)) or 1.0


def _recording_tables(first: Recordings, second: Recordings) -> tuple[np.ndarray, np.ndarray]:
    """Return which recordings the clips of two sets belong to: 0 or 1, [n, recordings] and [m, recordings]."""
    column_of = {name: column for column, name in enumerate(sorted(set().union(*first, *second)))}

    def table(clips: Recordings) -> np.ndarray:
        filled = np.zeros((len(clips), len(column_of)), dtype=np.float32)
        for row, names in enumerate(clips):
            filled[row, [column_of[name] for name in names]] = 1
        return filled

    return table(first), table(second)


@dataclass(frozen=True, eq=False)
class _KernelSums:
    """Kernel values between two sets of clips, summed by recording: [recordings, recordings].

    A clip of several recordings belongs to the first of them by name here.
    """

    sums: np.ndarray
    counts: np.ndarray  # the number of pairs in each sum

    @classmethod
    def compute(
        cls,
        first: np.ndarray,
        second: np.ndarray,
        recordings: tuple[Recordings, Recordings],
        names: list[str],
        width: float,
    ) -> _KernelSums:
        """Sum the Gaussian kernel of embeddings [n, d] and [m, d] over pairs without a common recording, in blocks of rows."""
        first_table, second_table = _recording_tables(*recordings)
        number_of = {name: number for number, name in enumerate(names)}
        rows, columns = (np.array([number_of[min(clip)] for clip in clips]) for clips in recordings)
        order = np.argsort(columns, kind="stable")
        present, starts = np.unique(columns[order], return_index=True)
        sums, counts = np.zeros((2, len(names), len(names)))
        for start in range(0, len(first), BLOCK):
            block = slice(start, start + BLOCK)
            counted = (first_table[block] @ second_table[order].T == 0).astype(np.float64)
            kernel = np.exp(-squared_distances(first[block], second[order]) / (2 * width**2)) * counted
            cells = rows[block][:, None], present[None]
            np.add.at(sums, cells, np.add.reduceat(kernel, starts, axis=1))
            np.add.at(counts, cells, np.add.reduceat(counted, starts, axis=1))
        return cls(sums, counts)

    def means(self, subsets: np.ndarray) -> np.ndarray:
        """Return the mean kernel value in each subset of recordings (0 or 1, [subsets, recordings]); NaN without pairs."""
        sums, counts = (((subsets @ table) * subsets).sum(axis=1) for table in (self.sums, self.counts))
        return np.divide(sums, counts, out=np.full(len(subsets), np.nan), where=counts > 0.5)


@dataclass(frozen=True, eq=False)
class _Discrepancy:
    """Computes `mmd` of two sets of clips for all of their recordings or for subsets of them."""

    first: _KernelSums
    second: _KernelSums
    between: _KernelSums
    n_recordings: tuple[int, int]  # of each set

    @classmethod
    def compute(
        cls, first: np.ndarray, second: np.ndarray, recordings: tuple[Recordings, Recordings], width: float
    ) -> _Discrepancy:
        of_first, of_second = recordings
        first_names, second_names = ({min(clip) for clip in clips} for clips in recordings)
        names = sorted(first_names | second_names)
        return cls(
            _KernelSums.compute(first, first, (of_first, of_first), names, width),
            _KernelSums.compute(second, second, (of_second, of_second), names, width),
            _KernelSums.compute(first, second, recordings, names, width),
            (len(first_names), len(second_names)),
        )

    def values(self, subsets: np.ndarray) -> np.ndarray:
        """Return the discrepancy of subsets of recordings (0 or 1, [subsets, recordings]): [subsets]; NaN without pairs."""
        within = self.first.means(subsets) + self.second.means(subsets)
        return 100 * (within - 2 * self.between.means(subsets))

    def total(self) -> float:
        """Return the discrepancy of all recordings."""
        return float(self.values(np.ones((1, len(self.between.sums))))[0])

    def of_halves(self, rng: np.random.Generator) -> np.ndarray:
        """Return the discrepancies of `N_RESAMPLES` random halves of the recordings.

        A half without pairs gets the value of another half. If nearly all halves have no pairs, all values are NaN.
        """
        n = len(self.between.sums)
        half = (np.arange(n) < n // 2).astype(np.float64)
        values = self.values(rng.permuted(np.tile(half, (N_RESAMPLES, 1)), axis=1))
        known = values[~np.isnan(values)]
        if len(known) < N_RESAMPLES / 10:
            return np.full(N_RESAMPLES, np.nan)
        values[np.isnan(values)] = rng.choice(known, N_RESAMPLES - len(known))
        return values


def mmd(
    first: np.ndarray,
    second: np.ndarray,
    width: float,
    recordings: tuple[Recordings, Recordings] | None = None,
) -> float:
    """Return the unbiased squared maximum mean discrepancy of [n, d] and [m, d] with a Gaussian kernel of `width`, times 100.

    Gretton et al. 2012, eq. 3. For draws from one distribution the result varies around zero. Pairs of clips that share one
    of their `recordings` are left out. Otherwise sets of one distribution would seem distant if they come from few
    recordings, and a set that was made from the other would seem close. Return NaN if no pair is left.

    Raise ValueError for a set of fewer than two clips.
    """
    n, m = len(first), len(second)
    if n < 2 or m < 2:
        raise ValueError("an unbiased discrepancy needs two clips on each side")
    if recordings is None:  # each clip is a recording of its own
        recordings = [{f"first {i}"} for i in range(n)], [{f"second {i}"} for i in range(m)]
    return _Discrepancy.compute(first, second, recordings, width).total()


def kad(real: np.ndarray, made: np.ndarray) -> float:
    """Return the kernel audio distance (arXiv 2502.15602): `mmd` with the real clips' median distance as the kernel's width."""
    return mmd(made, real, median_distance(real))


@dataclass(frozen=True)
class Distance:
    """KAD from real clips, its 95 % interval, and the numbers of clips.

    The value is None without two recordings on each side, the interval without `MIN_INTERVAL_RECORDINGS` of a class.
    """

    kad: float | None
    low: float | None
    high: float | None
    n: int
    n_real: int

    @classmethod
    def from_resamples(cls, value: float, deviations: np.ndarray, n: int, n_real: int) -> Distance:
        """Create a distance with an interval from the deviations of resampled values from their mean, or NaN without them."""
        if math.isnan(value):
            return cls(None, None, None, n, n_real)
        if np.isnan(deviations).any():
            return cls(round(value, 2), None, None, n, n_real)
        low, high = np.percentile(deviations, [2.5, 97.5])
        return cls(round(value, 2), round(value + float(low), 2), round(value + float(high), 2), n, n_real)


class RealClips:
    """Embedded real clips by class, to measure the distance of other clips from."""

    def __init__(self, values: np.ndarray, labels: Sequence[int], recordings: Sequence[str]) -> None:
        self.values, self.labels = values, np.array(labels, dtype=np.int64)
        self.recordings = np.array(recordings, dtype=str)
        self.widths = {
            int(label): median_distance(values[self.labels == label]) for label in np.unique(self.labels)
        }

    def distances(
        self, values: np.ndarray, labels: Sequence[int], recordings: Recordings | None = None
    ) -> tuple[dict[int, Distance], Distance]:
        """Measure KAD of clips [n, d] from the real clips of their class. Return it by class, and its mean over classes.

        `recordings` are those of each clip's parents; a clip without any is a recording of its own. The interval comes from
        halves of the recordings, drawn without replacement, because their values vary about as much as the value of all
        recordings (Politis & Romano 1994). A bootstrap would compare clips with their own copies.
        """
        of_clips = np.array(labels, dtype=np.int64)
        names = [set(known) or {f"clip {row}"} for row, known in enumerate(recordings or [()] * len(labels))]
        found = {
            label: self._of_class(label, np.flatnonzero(of_clips == label), values, names)
            for label in np.unique(of_clips).tolist()
        }
        n_real = {label: int((self.labels == label).sum()) for label in found}
        by_class = {
            label: Distance.from_resamples(*found[label], int((of_clips == label).sum()), n_real[label])
            for label in found
        }
        known = [label for label, (value, _) in found.items() if not math.isnan(value)]
        n_compared = sum(n_real[label] for label in known or found)
        if not known:
            return by_class, Distance(None, None, None, len(labels), n_compared)
        value = float(np.mean([found[label][0] for label in known]))
        deviations = np.mean([found[label][1] for label in known], axis=0)
        return by_class, Distance.from_resamples(value, deviations, len(labels), n_compared)

    def _of_class(
        self, label: int, rows: np.ndarray, values: np.ndarray, recordings: Recordings
    ) -> tuple[float, np.ndarray]:
        """Return KAD of the clips `rows` of a class, and the deviations of halves of the recordings. NaN: too few."""
        real, unknown = self.labels == label, np.full(N_RESAMPLES, np.nan)
        if len(rows) < 2 or real.sum() < 2:
            return math.nan, unknown
        both = [recordings[row] for row in rows.tolist()], self._recordings_of(real)
        discrepancy = _Discrepancy.compute(values[rows], self.values[real], both, self.widths[label])
        value = discrepancy.total()
        if min(discrepancy.n_recordings) < MIN_INTERVAL_RECORDINGS or math.isnan(value):
            return value, unknown
        halves = discrepancy.of_halves(np.random.default_rng((0, max(label, 0))))
        return value, halves - halves.mean()

    def baseline(self, label: int) -> Distance:
        """Measure KAD between the real clips of a class: one half of its recordings from the other half."""
        in_class = self.labels == label
        names = sorted(set(self.recordings[in_class].tolist()))
        first = set(np.random.default_rng(0).permutation(names)[: len(names) // 2].tolist())
        in_first = np.array([name in first for name in self.recordings.tolist()], dtype=bool)
        left, right = in_class & in_first, in_class & ~in_first
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
    """Median distances from clips to the nearer parent and to the nearest real clip, and from real clips to the nearest one
    of another recording. None without clips."""

    to_parents: float | None
    to_real: float | None
    real_to_real: float | None


class Neighbors:
    """Distances of synthetic clips to their parents and to the nearest real clip, and of real clips to each other."""

    def __init__(self, values: np.ndarray, to_parents: np.ndarray, real: RealClips) -> None:
        """Compute the distances of embeddings [n, d]. `to_parents` is the distance to the nearer parent [n], or infinite."""
        self.values, self.to_parents = values, to_parents
        nearest = np.sqrt(squared_distances(values, real.values)).min(axis=1)
        self.to_real = np.minimum(nearest, to_parents)  # `real` may be a sample without the parents
        self.real_to_real = nearest_other_recording(real.values, real.recordings)
        distances = self.real_to_real[np.isfinite(self.real_to_real)]
        if len(distances):  # leave out copies of one sound that count as two recordings
            distances = distances[distances > COPY_DISTANCE * np.median(distances)]
        self.near_copy_below = (
            float(np.percentile(distances, NEAR_COPY_PERCENTILE)) if len(distances) else None
        )

    def near_copies(self) -> list[int]:
        """Return the rows of synthetic clips that are closer to a real clip than almost any two recordings are."""
        limit = self.near_copy_below
        return [] if limit is None else np.flatnonzero(self.to_real < limit).tolist()

    def nearness(self, synthetic: np.ndarray, real: np.ndarray) -> Nearness:
        """Return the medians of the synthetic and real clips that are True in `synthetic` and `real`."""

        def median(values: np.ndarray) -> float | None:
            finite = values[np.isfinite(values)]
            return round(float(np.median(finite)), 3) if len(finite) else None

        to_parents, to_real = median(self.to_parents[synthetic]), median(self.to_real[synthetic])
        return Nearness(to_parents, to_real, median(self.real_to_real[real]))


def nearest_other_recording(values: np.ndarray, recordings: np.ndarray) -> np.ndarray:
    """Return the distance of each clip [n, d] to the nearest one of another recording: [n], infinite without one."""
    distances = np.sqrt(squared_distances(values, values))
    distances[recordings[:, None] == recordings[None]] = np.inf
    return distances.min(axis=1) if len(values) else np.zeros(0)
