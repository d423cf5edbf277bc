"""What can be said of a synthetic dataset before anything is trained on it: leaks, defects, near-copies, distance.

Distances between sounds are taken in an embedding, which is named with every result (`usk.audit.embeddings`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from usk.audio.features import FOUR_SECONDS
from usk.audit.defects import Defects, find_defects
from usk.audit.distances import Distance, Nearness, Neighbors, RealClips
from usk.audit.embeddings import LOG_MEL, Embedding, embedding_named
from usk.audit.leaks import FoldLeaks, fold_leaks, wrong_provenance
from usk.audit.likeness import Likeness, likeness
from usk.data.decode import DecodedSource, decode_source
from usk.data.leaks import Origins, foreign_generator, lineages, parents_in, unknown_generator
from usk.data.source import Source
from usk.errors import SourceError
from usk.reporter import Reporter

REFERENCE_CLIPS = 100  # real clips of a class that distances are measured to, at most
RATE_HZ = FOUR_SECONDS.mel.sample_rate_hz


@dataclass(frozen=True)
class ClassAudit:
    """The clips of one class, or of all."""

    class_name: str
    clips: int
    near_copies: int
    distance: Distance  # KAD to the real clips of the class; of all clips, the mean over classes
    baseline: Distance  # of real clips of half of the recordings to those of the other half
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
    defects: Defects
    near_copies: tuple[str, ...]
    near_copy_below: float | None  # the distance that makes a near-copy; None without two real recordings
    classes: tuple[ClassAudit, ...]
    overall: ClassAudit
    # To the parents' average and to the nearest parent; None where no clip's are known
    likeness: Likeness | None
    notes: tuple[str, ...] = ()

    @property
    def leaks(self) -> bool:
        """Whether something was found that makes a test unclean: wrong provenance, or leaks into an asked fold."""
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
        test_folds: folds that it must not leak into; without any, what each fold could use is merely counted.
        embedding: what sounds are compared in; log-mel statistics by default.

    Raises: SourceError if `synthetic` names no parents or `real` is not what they came from; UsageError for a fold that
    is not there.
    """
    reporter = reporter or Reporter()
    if not synthetic.is_synthetic:
        raise SourceError(
            f"{synthetic.location} is not a synthetic dataset: its clips name no parents, so leaks cannot be ruled out"
        )
    real.require_folds(test_folds)
    originals = _decoded(real, reporter)
    parents_in(synthetic, originals.source)
    wrong = wrong_provenance(synthetic, originals.source)
    decoded = _decoded(synthetic, reporter)
    # As `usk synth` and `usk train` split: clips that cannot be used hold no recording back for validation.
    looked_at = originals.source.folds if len(real.folds) > 1 else sorted(set(test_folds))
    folds = fold_leaks(synthetic, originals.source, looked_at)
    asked = sum(part.leaking for part in folds if part.fold in test_folds) if test_folds else None
    embedding = embedding or embedding_named(LOG_MEL)
    classes, overall, neighbors, n_reference = _distances(originals, decoded, embedding, reporter)
    what_is_known = (unknown_generator(synthetic), foreign_generator(synthetic, originals.source))
    return Audit(
        dataset=synthetic.location,
        clips=len(synthetic),
        embedding=embedding.name,
        wrong_provenance=tuple(wrong),
        folds=folds,
        asked_leaks=asked,
        defects=find_defects(synthetic, decoded),
        near_copies=tuple(decoded.source.clips[row].clip_id for row in neighbors.copies()),
        near_copy_below=neighbors.limit,
        classes=classes,
        overall=overall,
        likeness=likeness(decoded, originals),
        notes=(
            f"Distances are to {n_reference} real clips, at most {REFERENCE_CLIPS} a class.",
            *filter(None, what_is_known),
            *(note for note in originals.source.notes if note not in real.notes),
            *(note for note in decoded.source.notes if note not in synthetic.notes),
        ),
    )


def _decoded(source: Source, reporter: Reporter) -> DecodedSource:
    return decode_source(source, RATE_HZ, skip_bad=True, reporter=reporter)


def _distances(
    originals: DecodedSource, decoded: DecodedSource, embedding: Embedding, reporter: Reporter
) -> tuple[tuple[ClassAudit, ...], ClassAudit, Neighbors, int]:
    """By class and of all, with the neighbors and the number of real clips that they were measured to."""
    rows = _reference_rows(originals)
    origins = Origins(decoded.source, originals.source).rows
    needed = sorted({*rows, *(found[0] for parents in origins for found in parents if found)})
    with reporter.task("embedding", "clips", len(needed) + len(decoded)) as task:
        embedded = dict(zip(needed, embedding.of(originals, needed, task), strict=True))
        values = embedding.of(decoded, range(len(decoded)), task, len(needed))
    real = RealClips(
        np.stack([embedded[row] for row in rows]),
        [originals.source.clips[row].label for row in rows],
        [originals.source.clips[row].group for row in rows],
    )
    to_parents = [
        min((float(np.linalg.norm(value - embedded[found[0]])) for found in parents if found), default=np.inf)
        for parents, value in zip(origins, values, strict=True)
    ]  # fmt: skip
    neighbors = Neighbors(values, np.array(to_parents), real)
    label_of = {name: label for label, name in enumerate(originals.source.class_names)}
    names = [decoded.class_name(row) for row in range(len(decoded))]
    labels = np.array([label_of.get(name, -1) for name in names], dtype=np.int64)
    made_from = lineages(decoded.source, originals.source)
    by_class, mean = real.distances(values, labels.tolist(), made_from)
    copied = labels[neighbors.copies()]
    classes = tuple(
        ClassAudit(
            class_name=name,
            clips=int((labels == label).sum()),
            near_copies=int((copied == label).sum()),
            distance=by_class[label],
            baseline=real.baseline(label),
            nearness=neighbors.nearness(labels == label, real.labels == label),
        )
        for name, label in label_of.items()
        if (labels == label).any()
    )
    known = [part.baseline.kad for part in classes if part.baseline.kad is not None]
    overall = ClassAudit(
        class_name="all",
        clips=len(decoded),
        near_copies=len(copied),
        distance=mean,
        baseline=Distance(round(float(np.mean(known)), 2) if known else None, None, None, len(rows), len(rows)),
        nearness=neighbors.nearness(labels >= 0, real.labels >= 0),
    )  # fmt: skip
    return classes, overall, neighbors, len(rows)


def _reference_rows(originals: DecodedSource) -> list[int]:
    """Real clips that stand for their class: at most `REFERENCE_CLIPS` each, of as many recordings as there are."""
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
