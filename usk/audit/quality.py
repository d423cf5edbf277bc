"""What can be said of a synthetic dataset before anything is trained on it: leaks, defects, near-copies, distance.

Figures about sound stand in an embedding, which is named beside them (`usk.audit.embeddings`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from usk.audio.features import FOUR_SECONDS
from usk.audit.distances import (
    Distance,
    Nearness,
    RealClips,
    Score,
    covered,
    densities,
    nearest_apart,
    squared_distances,
)
from usk.audit.embeddings import Embedding, embedding_named, log_mel_statistics
from usk.audit.transfer import Transfer
from usk.data.decode import DecodedSource, Progress, decode_source
from usk.data.mix import (
    foreign_generator,
    generator_training_groups,
    leaking,
    lineages,
    made_of_other_rows,
    renamed_parents,
    unknown_generator,
)
from usk.data.renaming import as_named_now, renaming
from usk.data.source import Source
from usk.data.splits import Split, fold_split
from usk.errors import SourceError, UsageError

__all__ = ["Audit", "audit", "log_mel_statistics", "squared_distances", "wrong_provenance"]

SILENT_PEAK = 10 ** (-60 / 20)  # of full scale
CLIPPED_AT = 0.999
CLIPPED_SHARE = 0.001  # of a clip's samples
SHORT_S = 0.1
SAME_SOUND = 1e-3  # of the median of those: so near are copies alone
NEAR_COPY_PERCENTILE = 1.0  # of the distances between real clips of different recordings
REFERENCE_CLIPS = 100  # real clips of a class that distances are measured to, at most


@dataclass(frozen=True)
class FoldLeaks:
    """What of a synthetic dataset may train where one fold tests."""

    fold: int
    usable: int
    leaking: int
    # Recordings of the test and validation parts that the generator is known to have heard; None for none, where not all that
    # it heard is known.
    generator_trained_on: int | None
    filters_trained_on_groups: int  # the same of the judges of clips that could train there otherwise


@dataclass(frozen=True)
class ClassQuality:
    """One class's clips."""

    class_name: str
    clips: int
    near_copies: int
    distance: Distance  # KAD
    baseline: Distance  # real clips of half of the recordings to those of the other half
    density: Score
    density_baseline: (
        float | None
    )  # of half of the real recordings among the other half, as are the other baselines
    coverage: Score
    coverage_baseline: float | None
    nearness: Nearness


@dataclass(frozen=True)
class Audit:
    """All that `usk audit` found."""

    dataset: str
    clips: int
    embedding: str
    wrong_provenance: tuple[str, ...]  # rows whose parents are not what the row says
    folds: tuple[FoldLeaks, ...]
    asked_leaks: int | None  # in the test folds that were asked about; None where none was
    unusable: tuple[str, ...]  # cannot be decoded, hold NaN, or are silent or far too short outright
    silent: tuple[str, ...]
    clipped: tuple[str, ...]
    short: tuple[str, ...]
    near_copies: tuple[str, ...]
    classes: tuple[ClassQuality, ...]
    distance: Distance  # means over the classes, from here on
    baseline: Distance
    density: Score
    density_baseline: float | None
    coverage: Score
    coverage_baseline: float | None
    nearness: Nearness
    near_copy_below: float | None  # the distance that makes a near-copy; None without two real recordings
    transfer: tuple[Transfer, ...] = ()  # where it was asked for: all classes, then each
    notes: tuple[str, ...] = ()

    @property
    def leaks(self) -> bool:
        """Whether something was found that makes a test unclean: wrong provenance, or leaks into an asked fold."""
        return bool(self.wrong_provenance) or bool(self.asked_leaks)

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "leaks": self.leaks}


def wrong_provenance(synthetic: Source, real: Source) -> list[str]:
    """Rows whose parents are not in `real`, or have another recording, fold or class there than the row says; made folds, which
    change with every recording that comes or goes, are not compared."""
    known = {clip.clip_id: clip for clip in real.clips}
    wrong = []
    for clip in synthetic.clips:
        name = synthetic.class_names[clip.label]
        parents = [known.get(parent) for parent in clip.parents]
        if any(parent is None for parent in parents):
            wrong.append(f"{clip.clip_id} (a parent is not in the source)")
        elif any(
            (parent.group, real.class_names[parent.label]) != (group, name)
            or (parent.fold != fold and not real.made_folds)
            for parent, group, fold in zip(parents, clip.parent_groups, clip.parent_folds, strict=True)
            if parent is not None
        ):
            wrong.append(f"{clip.clip_id} (a parent has another recording, fold or class in the source)")
    return wrong


def audit(
    synthetic: Source,
    real: Source,
    *,
    test_folds: Sequence[int] = (),
    run: Path | None = None,
    embedding: Embedding | None = None,
    transfer: Sequence[Transfer] = (),
    progress: Progress | None = None,
    embedding_progress: Progress | None = None,
) -> Audit:
    """Look a synthetic dataset over against the real clips that it was made from.

    `test_folds` are folds that it must not leak into; without any, what each fold could use is merely pluralize.
    `embedding` (or `run`, its classifier) is what sounds are compared in; else log-mel statistics. `transfer` is what
    `usk.audit.transfer.train_on_synthetic` measured.

    Raises: SourceError if `synthetic` names no parents or `real` is not what they came from; UsageError for a fold that
    is not there.
    """
    if not synthetic.is_synthetic:
        raise SourceError(
            f"{synthetic.location} is no synthetic dataset: its clips name no parents, so nothing can be ruled out"
        )
    for fold in test_folds:
        if fold not in real.folds:
            known = ", ".join(map(str, real.folds))
            raise UsageError(f"--test-folds {fold}: {real.location} has no such fold; it has {known}")
    synthetic = as_named_now(synthetic, real)
    if not {parent for clip in synthetic.clips for parent in clip.parents} & {c.clip_id for c in real.clips}:
        raise SourceError(
            f"no parent of {synthetic.location} is in {real.location}; name the source that it was made from with --real, or make "
            "it again if files were moved or renamed since"
        )
    if moved := made_of_other_rows(synthetic, real):
        raise SourceError(moved)
    wrong = wrong_provenance(synthetic, real)
    originals = decode_source(real, FOUR_SECONDS.mel.sample_rate_hz, skip_bad=True, progress=progress)
    looked_at = originals.source.folds if len(real.folds) > 1 else sorted(set(test_folds))
    # As `usk synth` and `usk train` split: clips that cannot be used hold no recording back for validation.
    folds = tuple(_fold_leaks(synthetic, originals.source, fold) for fold in looked_at)
    asked = sum(part.leaking for part in folds if part.fold in test_folds) if test_folds else None
    decoded = decode_source(synthetic, FOUR_SECONDS.mel.sample_rate_hz, skip_bad=True, progress=progress)
    usable = {clip.clip_id for clip in decoded.source.clips}
    unusable = tuple(clip.clip_id for clip in synthetic.clips if clip.clip_id not in usable)
    silent, clipped, short = _defects(decoded)
    if embedding is None:
        embedding = embedding_named("auto" if run is not None else "log-mel", run)
    rows = _reference_rows(originals)
    row_of = {clip.clip_id: row for row, clip in enumerate(originals.source.clips)}
    parents = sorted({parent for clip in decoded.source.clips for parent in clip.parents if parent in row_of})
    after = _counter(embedding_progress, len(rows) + len(decoded) + len(parents))
    reference = RealClips(
        embedding.of(originals, rows, after),
        [originals.source.clips[row].label for row in rows],
        [originals.source.clips[row].group for row in rows],
    )
    values = embedding.of(decoded, range(len(decoded)), after)
    of_parents = embedding.of(originals, [row_of[parent] for parent in parents], after)
    label_of = {name: label for label, name in enumerate(originals.source.class_names)}
    labels = np.array([label_of.get(synthetic.class_names[clip.label], -1) for clip in decoded.source.clips])
    made_from = [clip.lineage for clip in decoded.source.clips]
    placed = dict(zip(parents, of_parents, strict=True))
    neighbors = _Neighbours(decoded, values, reference, placed)
    near = neighbors.copies()

    def of_class(name: str, label: int) -> ClassQuality:
        rows = np.flatnonzero(labels == label)
        own = values[rows], [label] * len(rows), [made_from[row] for row in rows]
        return ClassQuality(
            class_name=name,
            clips=len(rows),
            near_copies=int((labels[near] == label).sum()),
            distance=reference.distance(*own),
            baseline=reference.baseline(label),
            density=reference.density(*own),
            density_baseline=reference.baseline_score(label, densities),
            coverage=reference.coverage(*own),
            coverage_baseline=reference.baseline_score(label, covered, len(rows)),
            nearness=neighbors.nearness(labels == label, reference.labels == label),
        )

    classes = tuple(of_class(name, label) for name, label in label_of.items() if (labels == label).any())
    return Audit(
        dataset=synthetic.location,
        clips=len(synthetic),
        embedding=embedding.name,
        wrong_provenance=tuple(wrong),
        folds=folds,
        asked_leaks=asked,
        unusable=unusable,
        silent=silent,
        clipped=clipped,
        short=short,
        near_copies=tuple(decoded.source.clips[row].clip_id for row in near),
        classes=classes,
        distance=reference.distance(values, labels.tolist(), made_from),
        baseline=Distance(
            _mean_of([part.baseline.mmd for part in classes], 2), None, None, len(rows), len(rows)
        ),
        density=reference.density(values, labels.tolist(), made_from),
        density_baseline=_mean_of([part.density_baseline for part in classes], 3),
        coverage=reference.coverage(values, labels.tolist(), made_from),
        coverage_baseline=_mean_of([part.coverage_baseline for part in classes], 3),
        nearness=neighbors.nearness(labels >= 0, reference.labels >= 0),
        near_copy_below=neighbors.limit,
        transfer=tuple(transfer),
        notes=(
            f"distances are to {len(rows)} real clips, at most {REFERENCE_CLIPS} a class, the parents among them",
            *filter(
                None,
                (
                    renaming(synthetic, real),
                    unknown_generator(synthetic),
                    foreign_generator(synthetic, real),
                ),
            ),
        ),
    )


def _mean_of(figures: Sequence[float | None], digits: int) -> float | None:
    told = [figure for figure in figures if figure is not None]
    return round(float(np.mean(told)), digits) if told else None


def _split_testing(real: Source, fold: int) -> Split:
    """The split in which `fold` tests. Where it is the only one, all clips test and none trains."""
    if len(real.folds) > 1:
        return fold_split(real.clips, fold)
    none = np.array([], dtype=np.int64)
    return Split(f"fold{fold}", none, none, np.arange(len(real)))


def _fold_leaks(synthetic: Source, real: Source, fold: int) -> FoldLeaks:
    split = _split_testing(real, fold)
    leaks = int(leaking(synthetic, real, split).sum())
    judged = {real.clips[row].group for row in np.union1d(split.validation, split.test).tolist()}
    unknown = (
        unknown_generator(synthetic)
        or foreign_generator(synthetic, real)
        or (synthetic.model_groups and renamed_parents(synthetic, real))
    )
    heard = len(generator_training_groups(synthetic, real) & judged) or (None if unknown else 0)
    lineage_of = zip(synthetic.clips, lineages(synthetic, real), strict=True)
    judges = {clip.filter_folds for clip, lineage in lineage_of if not lineage & judged}
    by_judges = {group for folds in judges for group in synthetic.filter_groups.get(folds, ())}
    return FoldLeaks(fold, len(synthetic) - leaks, leaks, heard, len(by_judges & judged))


def _defects(decoded: DecodedSource) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    silent, clipped, short = [], [], []
    for row, clip in enumerate(decoded.source.clips):
        loudness = np.abs(decoded.audio(row))
        if not len(loudness) or loudness.max() < SILENT_PEAK:
            silent.append(clip.clip_id)
        elif (loudness >= CLIPPED_AT).mean() > CLIPPED_SHARE:
            clipped.append(clip.clip_id)
        if len(loudness) < SHORT_S * decoded.sample_rate_hz:
            short.append(clip.clip_id)
    return tuple(silent), tuple(clipped), tuple(short)


def _counter(progress: Progress | None, total: int) -> Callable[[int], None]:
    """Adds up what is done and reports it."""
    done = 0

    def after(n: int) -> None:
        nonlocal done
        done += n
        if progress is not None:
            progress(done, total)

    return after


def _reference_rows(originals: DecodedSource) -> list[int]:
    """Up to `REFERENCE_CLIPS` real clips of each class, spread over recordings."""
    rng = np.random.default_rng(0)
    rows: list[int] = []
    for label in range(len(originals.source.class_names)):
        of_class = [row for row, clip in enumerate(originals.source.clips) if clip.label == label]
        uses: dict[str, int] = {}
        order = []
        for row in rng.permutation(of_class).astype(int).tolist():
            group = originals.source.clips[row].group
            uses[group] = uses.get(group, 0) + 1
            order.append((uses[group], row))
        rows += [row for _, row in sorted(order)[:REFERENCE_CLIPS]]
    return rows


class _Neighbours:
    """Distances of synthetic clips to their parents and to the nearest real clip, and of real clips to each other."""

    def __init__(
        self,
        decoded: DecodedSource,
        values: np.ndarray,
        reference: RealClips,
        parents: dict[str, np.ndarray],
    ) -> None:
        self.to_parents = np.array(
            [
                min(
                    (float(np.linalg.norm(value - parents[p])) for p in clip.parents if p in parents),
                    default=np.inf,
                )
                for clip, value in zip(decoded.source.clips, values, strict=True)
            ]
        )
        nearest = np.sqrt(squared_distances(values, reference.values)).min(axis=1)
        self.to_real = np.minimum(nearest, self.to_parents)  # not every parent is among the reference
        self.real_to_real = nearest_apart(reference.values, reference.recordings)
        # Copies of one sound under two recordings are no measure of how near two sounds are.
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
