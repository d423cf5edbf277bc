"""How a set of clips lies to another in an embedding: KAD, density, coverage, nearest neighbors. Pure.

Embeddings are [clips, dimensions]; labels [clips]; recordings are names [clips]. Clips cut or made from one recording are
alike; where a measure looks at pairs of one set, theirs are left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np

NEIGHBOURS = 5  # k of density and coverage, as in the paper
BASELINE_DRAWS = 10
N_RESAMPLES = 200
INTERVAL_UNITS = 4  # fewer clips or recordings of a class have no interval

Recordings = tuple[Sequence[Collection[str]], Sequence[Collection[str]]]  # of the clips of two sets
Measure = Callable[[np.ndarray, np.ndarray, int, Recordings], np.ndarray]


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


def _kernel(first: np.ndarray, second: np.ndarray, width: float) -> np.ndarray:
    return np.exp(-squared_distances(first, second) / (2 * width**2))


def _mean(kernel: np.ndarray, counts: np.ndarray) -> float:
    """Over pairs [n, m] that count; NaN where none does."""
    return float(kernel[counts].mean()) if counts.any() else math.nan


def apart(first: Sequence[Collection[str]], second: Sequence[Collection[str]]) -> np.ndarray:
    """Which pairs of clips have no recording in common, of those that each was cut or made from: bool [n, m]."""
    names = {name: column for column, name in enumerate(sorted(set().union(*first, *second)))}

    def member(recordings: Sequence[Collection[str]]) -> np.ndarray:
        table = np.zeros((len(recordings), len(names)), dtype=np.float32)
        for row, of_clip in enumerate(recordings):
            table[row, [names[name] for name in of_clip]] = 1
        return table

    return np.asarray(member(first) @ member(second).T == 0)


def mmd(
    first: np.ndarray,
    second: np.ndarray,
    width: float,
    recordings: Recordings | None = None,
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
    of_first, of_second = recordings or (
        [{f"first {i}"} for i in range(n)],
        [{f"second {i}"} for i in range(m)],
    )
    return _Kernels.of(first, second, width, of_first, of_second).whole()


@dataclass(frozen=True, eq=False)
class _Kernels:
    """Between the clips of two sets, and within both; which pairs count; and the recording that each clip goes with."""

    within: tuple[np.ndarray, np.ndarray]
    between: np.ndarray
    within_counts: tuple[np.ndarray, np.ndarray]
    between_counts: np.ndarray
    units: tuple[np.ndarray, np.ndarray]

    @classmethod
    def of(
        cls,
        first: np.ndarray,
        second: np.ndarray,
        width: float,
        of_first: Sequence[Collection[str]],
        of_second: Sequence[Collection[str]],
    ) -> _Kernels:
        """Of embeddings [n, d] and [m, d], and the recordings that each clip was cut or made from, one at least."""
        return cls(
            (_kernel(first, first, width), _kernel(second, second, width)),
            _kernel(first, second, width),
            (apart(of_first, of_first), apart(of_second, of_second)),
            apart(of_first, of_second),
            (np.array([min(names) for names in of_first]), np.array([min(names) for names in of_second])),
        )

    @property
    def n_units(self) -> int:
        """On the side that has fewer."""
        return min(len(np.unique(units)) for units in self.units)

    def whole(self) -> float:
        first, second = map(_mean, self.within, self.within_counts)
        return 100 * (first + second - 2 * _mean(self.between, self.between_counts))

    def half(self, rng: np.random.Generator) -> float:
        """Of half of the recordings; NaN where that leaves no pairs."""
        names = np.unique(np.concatenate(self.units))
        drawn = rng.choice(names, len(names) // 2, replace=False)
        rows, columns = (np.flatnonzero(np.isin(units, drawn)) for units in self.units)
        chosen = (np.ix_(rows, rows), np.ix_(columns, columns))
        both = np.ix_(rows, columns)
        return _Kernels(
            (self.within[0][chosen[0]], self.within[1][chosen[1]]),
            self.between[both],
            (self.within_counts[0][chosen[0]], self.within_counts[1][chosen[1]]),
            self.between_counts[both],
            self.units,
        ).whole()


def kad(real: np.ndarray, made: np.ndarray) -> float:
    """Kernel audio distance (arXiv 2502.15602): `mmd` of untouched embeddings [n, d] and [m, d] with the median distance
    between real ones as the kernel's width."""
    return mmd(made, real, median_distance(real))


def neighbourhoods(real: np.ndarray, k: int = NEIGHBOURS, counts: np.ndarray | None = None) -> np.ndarray:
    """Squared radius about each real clip [n, d] that holds its `k` nearest other ones, of pairs that count (bool [n, n];
    all where None): [n]. NaN where there are fewer."""
    between = squared_distances(real, real)
    np.fill_diagonal(between, np.inf)
    if counts is not None:
        between[~counts] = np.inf
    if len(real) <= k:
        return np.full(len(real), np.nan)
    radii = np.partition(between, k - 1, axis=1)[:, k - 1]
    return np.where(np.isinf(radii), np.nan, radii)


@dataclass(frozen=True, eq=False)
class _Balls:
    """Which made clips lie in which real clips' neighbourhoods, and which pairs count: bool [real, made]; and how many of
    the made clips that count a neighbourhood would hold if they were real ones: [real]."""

    inside: np.ndarray
    counts: np.ndarray
    expected: np.ndarray

    @classmethod
    def of(cls, real: np.ndarray, made: np.ndarray, k: int, recordings: Recordings | None) -> _Balls:
        others, between = None, np.ones((len(real), len(made)), dtype=bool)
        n_others = np.full(len(real), len(real) - 1)
        if recordings is not None:
            others, between = apart(recordings[0], recordings[0]), apart(*recordings)
            n_others = others.sum(axis=1)
        radii = neighbourhoods(real, k, others)
        counts = between & ~np.isnan(radii)[:, None]
        return cls(squared_distances(real, made) <= radii[:, None], counts, k / (n_others + 1))


def densities(
    real: np.ndarray, made: np.ndarray, k: int = NEIGHBOURS, recordings: Recordings | None = None
) -> np.ndarray:
    """Of each made clip, in how many real clips' neighbourhoods it lies, over how many are to be expected: [m]. Their mean is
    the density (arXiv 2002.09797): about 1 for draws from one distribution, above it where they crowd, below where they
    stray.

    `recordings` are those that each real and each made clip was cut or made from. A neighbourhood then reaches to the
    `k`-th clip of another recording, and pairs that share one are left out: else cuts of one recording make neighbourhoods
    that nothing new lies in, and clips lie in those of their own parents. NaN where nothing counts.
    """
    balls = _Balls.of(real, made, k, recordings)
    expected = (balls.counts * balls.expected[:, None]).sum(axis=0)
    found = (balls.inside & balls.counts).sum(axis=0)
    return np.divide(found, expected, out=np.full(len(made), np.nan), where=expected > 0)


def covered(
    real: np.ndarray, made: np.ndarray, k: int = NEIGHBOURS, recordings: Recordings | None = None
) -> np.ndarray:
    """Of each real clip, whether a made one lies in its neighbourhood, 1 or 0: [n]. Their mean is the coverage (arXiv
    2002.09797): towards 1, the more of the real clips' variety the made ones have. `recordings` as in `densities`."""
    balls = _Balls.of(real, made, k, recordings)
    lies = (balls.inside & balls.counts).any(axis=1).astype(np.float64)
    return np.where(balls.counts.any(axis=1), lies, np.nan)


@dataclass(frozen=True)
class Distance:
    """KAD to real clips, its 95 % interval, and how many clips stand on each side. None where there are too few: a figure
    takes two recordings on both sides, an interval `INTERVAL_UNITS` of a class."""

    mmd: float | None
    low: float | None
    high: float | None
    n: int
    n_real: int


@dataclass(frozen=True)
class Score:
    """A figure, its 95 % interval, and how many clips (made, real) it stands on. None where there are too few."""

    value: float | None
    low: float | None
    high: float | None
    n: int
    n_real: int


class RealClips:
    """Real clips by class, in one embedding, that others are measured against."""

    def __init__(self, values: np.ndarray, labels: Sequence[int], recordings: Sequence[str]) -> None:
        self.values, self.labels = values, np.array(labels, dtype=np.int64)
        self.recordings = np.array(recordings, dtype=str)
        self.widths = {
            int(label): median_distance(values[self.labels == label]) for label in np.unique(self.labels)
        }

    def distance(
        self,
        values: np.ndarray,
        labels: Sequence[int],
        recordings: Sequence[Collection[str]] | None = None,
    ) -> Distance:
        """Of clips [n, d]: the mean over classes of their KAD to the real clips of their class. `recordings` are those of the
        parents that each clip was made from; clips that name none stand for themselves.

        The interval comes from halves of the recordings drawn without replacement, of real clips and parents alike (a clip
        goes with the first of its parents' by name); they spread about as the whole does (Politis & Romano 1994), and more where it is next to nothing. A bootstrap would put
        clips beside their own copies.
        """
        of = np.array(labels, dtype=np.int64)
        made_from = _made_from(recordings, len(of))
        found = {}
        for label in np.unique(of).tolist():
            rows, real = np.flatnonzero(of == label), self.labels == label
            if len(rows) > 1 and real.sum() > 1:
                of_real = [{name} for name in self.recordings[real].tolist()]
                of_made = [made_from[row] for row in rows.tolist()]
                found[label] = _Kernels.of(
                    values[rows], self.values[real], self.widths[label], of_made, of_real
                )
        found = {label: kernels for label, kernels in found.items() if not math.isnan(kernels.whole())}
        n, n_real = len(of), int(np.isin(self.labels, list(found) or np.unique(of)).sum())
        if not found:
            return Distance(None, None, None, n, n_real)
        value = float(np.mean([kernels.whole() for kernels in found.values()]))
        if min(kernels.n_units for kernels in found.values()) < INTERVAL_UNITS:
            return Distance(round(value, 2), None, None, n, n_real)
        rng = np.random.default_rng(0)
        halves = np.array([[kernels.half(rng) for kernels in found.values()] for _ in range(N_RESAMPLES)])
        # A half without two recordings on both sides says nothing: another of its class is taken for it.
        for of_class in halves.T:
            told = of_class[~np.isnan(of_class)]
            if len(told) < N_RESAMPLES / 10:
                return Distance(round(value, 2), None, None, n, n_real)
            of_class[np.isnan(of_class)] = rng.choice(told, N_RESAMPLES - len(told))
        low, high = np.percentile((halves - halves.mean(axis=0)).mean(axis=1), [2.5, 97.5])
        return Distance(
            round(value, 2), round(value + float(low), 2), round(value + float(high), 2), n, n_real
        )

    def baseline(self, label: int) -> Distance:
        """How far real clips of a class are from each other: half of its recordings to the other half."""
        left, right, recordings = self._halves(label)
        n, n_real = int(left.sum()), int(right.sum())
        if min(n, n_real) < 2:
            return Distance(None, None, None, n, n_real)
        value = mmd(self.values[left], self.values[right], self.widths[label], recordings)
        return Distance(None if math.isnan(value) else round(value, 2), None, None, n, n_real)

    def baseline_score(self, label: int, measure: Measure, n_made: int | None = None) -> float | None:
        """The density or coverage (`densities`, `covered`) that one half of a class's recordings has among the other half, by
        `n_made` of its clips where it has more: few clips cover little, whatever they are (the mean of `BASELINE_DRAWS`)."""
        left, right, (of_left, of_right) = self._halves(label)
        there = np.flatnonzero(right)
        cut = n_made is not None and n_made < len(there)
        rng = np.random.default_rng(0)
        means = []
        for _ in range(BASELINE_DRAWS if cut else 1):
            taken = np.sort(rng.permutation(len(there))[:n_made]) if cut else np.arange(len(there))
            names = of_left, [of_right[place] for place in taken.tolist()]
            figures = measure(self.values[left], self.values[there[taken]], NEIGHBOURS, names)
            if not np.isnan(figures).all():
                means.append(float(np.nanmean(figures)))
        return round(float(np.mean(means)), 3) if means else None

    def _halves(self, label: int) -> tuple[np.ndarray, np.ndarray, Recordings]:
        """The clips of half of a class's recordings and of the other half, bool [clips], and the recordings of each."""
        of_class = self.labels == label
        names = sorted(set(self.recordings[of_class].tolist()))
        first = set(np.random.default_rng(0).permutation(names)[: len(names) // 2].tolist())
        in_first = np.array([name in first for name in self.recordings.tolist()], dtype=bool)
        left, right = of_class & in_first, of_class & ~in_first
        of_left, of_right = ([{name} for name in self.recordings[side].tolist()] for side in (left, right))
        return left, right, (of_left, of_right)

    def density(
        self,
        values: np.ndarray,
        labels: Sequence[int],
        recordings: Sequence[Collection[str]] | None = None,
    ) -> Score:
        """The mean over classes of their clips' density among the real clips of the class. `recordings` as in `distance`; the
        interval draws whole ones of them (a clip goes with the first of its parents' by name)."""
        return self._score(values, labels, recordings, densities, by_real=False)

    def coverage(
        self,
        values: np.ndarray,
        labels: Sequence[int],
        recordings: Sequence[Collection[str]] | None = None,
    ) -> Score:
        """The mean over classes of the share of real clips that the clips cover; its interval draws whole recordings."""
        return self._score(values, labels, recordings, covered, by_real=True)

    def _score(
        self,
        values: np.ndarray,
        labels: Sequence[int],
        recordings: Sequence[Collection[str]] | None,
        measure: Measure,
        by_real: bool,
    ) -> Score:
        of = np.array(labels, dtype=np.int64)
        made_from = _made_from(recordings, len(of))
        rng = np.random.default_rng(0)
        means, draws, n_real, few = [], [], 0, False
        for label in np.unique(of):
            real, rows = self.labels == label, np.flatnonzero(of == label)
            of_made = [made_from[row] for row in rows.tolist()]
            of_real = [{name} for name in self.recordings[real].tolist()]
            figures = measure(self.values[real], values[rows], NEIGHBOURS, (of_real, of_made))
            told = ~np.isnan(figures)
            if not told.any():
                continue
            n_real += int(real.sum())
            units = self.recordings[real] if by_real else np.array([min(names) for names in of_made])
            few = few or len(np.unique(units[told])) < INTERVAL_UNITS
            means.append(figures[told].mean())
            draws.append(_drawn_means(figures[told], units[told], rng))
        if not means:
            return Score(None, None, None, len(of), n_real)
        value = round(float(np.mean(means)), 3)
        if few:
            return Score(value, None, None, len(of), n_real)
        low, high = np.percentile(np.mean(draws, axis=0), [2.5, 97.5])
        return Score(value, round(float(low), 3), round(float(high), 3), len(of), n_real)


def _made_from(recordings: Sequence[Collection[str]] | None, n: int) -> list[set[str]]:
    """The recordings of each of `n` clips; those that name none stand for themselves."""
    return [set(names) or {f"clip {row}"} for row, names in enumerate(recordings or [()] * n)]


def _drawn_means(figures: np.ndarray, units: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Means of `figures` [n] over as many `units` as there are, drawn with replacement: [resamples]."""
    names, numbers = np.unique(units, return_inverse=True)
    sums, sizes = np.bincount(numbers, figures), np.bincount(numbers)
    drawn = rng.integers(len(names), size=(N_RESAMPLES, len(names)))
    return sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)


@dataclass(frozen=True)
class Nearness:
    """Medians over clips of the distance to the nearer parent and to the nearest real clip; over real clips to the nearest
    of another recording. None without any."""

    to_parents: float | None
    to_real: float | None
    real_to_real: float | None


def nearest_apart(values: np.ndarray, recordings: np.ndarray) -> np.ndarray:
    """Distance of each clip [n, d] to the nearest one of another recording: [n], infinite without one."""
    apart = np.sqrt(squared_distances(values, values))
    apart[recordings[:, None] == recordings[None]] = np.inf
    return apart.min(axis=1) if len(values) else np.zeros(0)
