"""Audit a synthetic dataset before training on it: leaks, defects, near-copies and distances from real clips.

Distances are measured in an embedding, and every result names it (`usk.audit.embeddings`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from usk.audio.features import FOUR_SECONDS
from usk.audit.defects import Defects, find_defects
from usk.audit.distances import Distance, Nearness, Neighbors, RealClips
from usk.audit.embeddings import LOG_MEL, Embedding, load_embedding
from usk.audit.leaks import FoldLeaks, count_leaking, fold_leaks, wrong_provenance
from usk.audit.likeness import Likeness, measure_likeness
from usk.data.decode import DecodedSource, decode_source
from usk.data.leaks import Origins, find_parents, foreign_generator, lineages, unknown_generator
from usk.data.source import Source
from usk.errors import SourceError
from usk.reporter import Reporter

MAX_REFERENCE_CLIPS = 100  # real clips of each class that distances are measured from
RATE_HZ = FOUR_SECONDS.mel.sample_rate_hz


@dataclass(frozen=True)
class ClassAudit:
    """Results for the clips of one class, or of all classes."""

    class_name: str
    clips: int
    near_copies: int
    distance: Distance  # KAD from the real clips of the class; for all clips, the mean over classes
    baseline: Distance  # KAD between the real clips of two halves of the recordings
    nearness: Nearness


@dataclass(frozen=True)
class Audit:
    """The results of `usk audit`."""

    dataset: str
    clips: int
    embedding: str
    wrong_provenance: tuple[str, ...]  # clips whose recorded parents are wrong
    folds: tuple[FoldLeaks, ...]
    asked_leaks: int | None  # clips that leak into the given test folds; None if no folds were given
    defects: Defects
    near_copies: tuple[str, ...]
    near_copy_below: float | None  # near-copies are closer than this; None without two real recordings
    classes: tuple[ClassAudit, ...]
    overall: ClassAudit
    likeness: Likeness | None  # None if no clip has known parents
    notes: tuple[str, ...] = ()

    @property
    def leaks(self) -> bool:
        """Whether the dataset would spoil a test: clips have wrong provenance or leak into the given test folds."""
        return bool(self.wrong_provenance) or bool(self.asked_leaks)

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "leaks": self.leaks}


def audit(
    synthetic: Source,
    real: Source,
    *,
    test_folds: Sequence[int] = (),
    embedding: Embedding | None = None,
    reporter: Reporter | None = None,
) -> Audit:
    """Compare a synthetic dataset with the real clips that it was made from.

    Args:
        test_folds: folds that no clip may leak into.
        embedding: measures the distance between sounds; log-mel statistics by default.

    Raise SourceError if `synthetic` names no parents or they are not in `real`, and UsageError for a missing fold.
    """
    reporter = reporter or Reporter()
    if not synthetic.is_synthetic:
        raise SourceError(
            f"{synthetic.location} is not a synthetic dataset: its clips name no parents, so leaks cannot be ruled out"
        )
    real.require_folds(test_folds)
    originals = _decode(real, reporter)  # usable clips only, like the splits of `usk synth` and `usk train`
    find_parents(synthetic, originals.source)
    decoded = _decode(synthetic, reporter)
    audited_folds = originals.source.folds if len(real.folds) > 1 else sorted(set(test_folds))
    folds = tuple(fold_leaks(synthetic, originals.source, fold) for fold in audited_folds)
    asked_leaks = count_leaking(synthetic, originals.source, test_folds) if test_folds else None
    embedding = embedding or load_embedding(LOG_MEL)
    neighbors, real_clips = _embed(originals, decoded, embedding, reporter)
    classes, overall = _measure_distances(originals, decoded, neighbors, real_clips)
    generator_notes = (unknown_generator(synthetic), foreign_generator(synthetic, originals.source))
    return Audit(
        dataset=synthetic.location,
        clips=len(synthetic),
        embedding=embedding.name,
        wrong_provenance=tuple(wrong_provenance(synthetic, originals.source)),
        folds=folds,
        asked_leaks=asked_leaks,
        defects=find_defects(synthetic, decoded),
        near_copies=tuple(decoded.source.clips[row].clip_id for row in neighbors.near_copies()),
        near_copy_below=neighbors.near_copy_below,
        classes=classes,
        overall=overall,
        likeness=measure_likeness(decoded, originals),
        notes=(
            f"Distances are to {len(real_clips.values)} real clips, at most {MAX_REFERENCE_CLIPS} a class.",
            *filter(None, generator_notes),
            *(note for note in originals.source.notes if note not in real.notes),
            *(note for note in decoded.source.notes if note not in synthetic.notes),
        ),
    )


def _decode(source: Source, reporter: Reporter) -> DecodedSource:
    return decode_source(source, RATE_HZ, skip_bad=True, reporter=reporter)


def _embed(
    originals: DecodedSource, decoded: DecodedSource, embedding: Embedding, reporter: Reporter
) -> tuple[Neighbors, RealClips]:
    """Embed the clips, their parents, and real clips for reference."""
    rows = _reference_rows(originals)
    origins = Origins(decoded.source, originals.source).rows
    parent_rows = [[parent[0] for parent in parents if parent] for parents in origins]
    needed = sorted({*rows, *(row for parents in parent_rows for row in parents)})
    with reporter.task("embedding", "clips", len(needed) + len(decoded)) as task:
        embedded = dict(zip(needed, embedding.embed_rows(originals, needed, task), strict=True))
        values = embedding.embed_rows(decoded, range(len(decoded)), task, len(needed))
    real = RealClips(
        np.stack([embedded[row] for row in rows]),
        [originals.source.clips[row].label for row in rows],
        [originals.source.clips[row].group for row in rows],
    )
    to_parents = [
        min((float(np.linalg.norm(value - embedded[row])) for row in parents), default=np.inf)
        for parents, value in zip(parent_rows, values, strict=True)
    ]
    return Neighbors(values, np.array(to_parents), real), real


def _measure_distances(
    originals: DecodedSource, decoded: DecodedSource, neighbors: Neighbors, real: RealClips
) -> tuple[tuple[ClassAudit, ...], ClassAudit]:
    """Return the results by class and for all clips."""
    label_of = {name: label for label, name in enumerate(originals.source.class_names)}
    class_names = [decoded.class_name(row) for row in range(len(decoded))]
    labels = np.array([label_of.get(name, -1) for name in class_names], dtype=np.int64)
    parent_recordings = lineages(decoded.source, originals.source)
    by_class, mean = real.distances(neighbors.values, labels.tolist(), parent_recordings)
    near_copy_labels = labels[neighbors.near_copies()]
    classes = tuple(
        ClassAudit(
            class_name=name,
            clips=int((labels == label).sum()),
            near_copies=int((near_copy_labels == label).sum()),
            distance=by_class[label],
            baseline=real.baseline(label),
            nearness=neighbors.nearness(labels == label, real.labels == label),
        )
        for name, label in label_of.items()
        if (labels == label).any()
    )
    baselines = [part.baseline.kad for part in classes if part.baseline.kad is not None]
    mean_baseline = round(float(np.mean(baselines)), 2) if baselines else None
    n_real = len(real.values)
    overall = ClassAudit(
        class_name="all",
        clips=len(decoded),
        near_copies=len(near_copy_labels),
        distance=mean,
        baseline=Distance(mean_baseline, None, None, n_real, n_real),
        nearness=neighbors.nearness(labels >= 0, real.labels >= 0),
    )
    return classes, overall


def _reference_rows(originals: DecodedSource) -> list[int]:
    """Draw at most `MAX_REFERENCE_CLIPS` real clips of each class, from as many different recordings as possible."""
    rng = np.random.default_rng(0)
    rows: list[int] = []
    for label in range(len(originals.source.class_names)):
        class_rows = [row for row, clip in enumerate(originals.source.clips) if clip.label == label]
        n_seen: Counter[str] = Counter()
        order = []
        for row in rng.permutation(class_rows).astype(int).tolist():
            group = originals.source.clips[row].group
            n_seen[group] += 1
            order.append((n_seen[group], row))  # first clips of recordings come before second ones
        rows += [row for _, row in sorted(order)[:MAX_REFERENCE_CLIPS]]
    return rows
