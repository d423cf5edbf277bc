"""What can be said of a synthetic dataset before anything is trained on it: leaks, defects, near-copies, distance.

Figures about sound stand in an embedding, which is named beside them: statistics of the log-mel spectrogram, or what a
trained classifier makes of a clip before its last layer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from usk.classify.features import FOUR_SECONDS, Features, fit_length
from usk.data.decode import DecodedSource, Progress, decode_source
from usk.data.mix import leaking, unknown_generator
from usk.data.sources import Source
from usk.data.splits import fold_split
from usk.errors import SourceError, UsageError

SILENT_PEAK = 10 ** (-60 / 20)  # of full scale
CLIPPED_AT = 0.999
CLIPPED_SHARE = 0.001  # of a clip's samples
SHORT_S = 0.1
NEAR_COPY_PERCENTILE = 1.0  # of the distances between real clips of different recordings
REFERENCE_CLIPS = 100  # real clips of a class that distances are measured to, at most
N_RESAMPLES = 200
INTERVAL_CLIPS = 4

Embedding = Callable[[Sequence[np.ndarray]], np.ndarray]
"""Clips at 22.05 kHz to vectors [n, dimensions]."""


# --- embeddings ----------------------------------------------------------------------------------------------


def features_of(audio: Sequence[np.ndarray], settings: Features = FOUR_SECONDS) -> torch.Tensor:
    """Log-mel features in dB of clips at the settings' rate: [n, n_mels, n_frames]."""
    n = settings.n_samples
    fitted = [fit_length(samples, n, settings.repeat_short) for samples in audio]
    return torch.cat(
        [
            settings.of_audio(torch.from_numpy(np.stack(fitted[begin : begin + 64])))
            for begin in range(0, len(fitted), 64)
        ]
    )


def log_mel_statistics(audio: Sequence[np.ndarray]) -> np.ndarray:
    """Per-band mean, deviation and mean absolute change over time of log-mel in dB, loudness removed: [n, 192]."""
    parts = [_statistics(features_of(audio[begin : begin + 64])) for begin in range(0, len(audio), 64)]
    return np.concatenate(parts)


def _statistics(features: torch.Tensor) -> np.ndarray:
    features = features.float()
    features = features - features.mean(dim=(1, 2), keepdim=True)
    change = features.diff(dim=2).abs().mean(dim=2)
    return torch.cat((features.mean(dim=2), features.std(dim=2), change), dim=1).numpy()


def classifier_embedding(run: Path) -> Embedding:
    """What the classifier of a run sees before its last linear layer: [n, its inputs]."""
    from usk.classify.runs import classifier_in

    model = classifier_in(run)
    settings = model.feature_settings
    last = [module for module in model.modules() if isinstance(module, torch.nn.Linear)][-1]

    def embed(audio: Sequence[np.ndarray]) -> np.ndarray:
        seen: list[torch.Tensor] = []
        handle = last.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
        try:
            with torch.no_grad():
                for part in features_of(audio, settings).split(128):
                    model(part.float())
        finally:
            handle.remove()
        return torch.cat(seen).numpy()

    return embed


# --- distances: pure ---------------------------------------------------------------------------------------------


def squared_distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Between the rows of [n, d] and [m, d]: [n, m], without a block of n x m x d numbers."""
    first, second = first.astype(np.float64), second.astype(np.float64)
    norms = (first**2).sum(axis=1)[:, None] + (second**2).sum(axis=1)[None]
    return np.maximum(norms - 2 * first @ second.T, 0.0)


def _kernel(first: np.ndarray, second: np.ndarray, width: float) -> np.ndarray:
    return np.exp(-squared_distances(first, second) / (2 * width**2))


def _unbiased(within_first: np.ndarray, within_second: np.ndarray, between: np.ndarray) -> float:
    """The estimate from kernels [n, n], [m, m] and [n, m], times 100."""
    n, m = between.shape
    first = (within_first.sum() - within_first.trace()) / (n * (n - 1))
    second = (within_second.sum() - within_second.trace()) / (m * (m - 1))
    return float(100 * (first + second - 2 * between.mean()))


def mmd(first: np.ndarray, second: np.ndarray, width: float) -> float:
    """Unbiased squared maximum mean discrepancy of [n, d] and [m, d], Gaussian kernel of `width`, times 100.

    Gretton et al. 2012, eq. 3; on embeddings of audio it is known as KAD (arXiv 2502.15602). Near zero, and as often
    below as above it, for draws from one distribution. Needs two of each.
    """
    n, m = len(first), len(second)
    if n < 2 or m < 2:
        raise ValueError("an unbiased discrepancy needs two clips on each side")
    return _unbiased(
        _kernel(first, first, width), _kernel(second, second, width), _kernel(first, second, width)
    )


@dataclass(frozen=True)
class Distance:
    """MMD to real clips, its 95 % interval, and how many clips stand on each side. None where there are too few: an
    interval takes `INTERVAL_CLIPS` of a class."""

    mmd: float | None
    low: float | None
    high: float | None
    n: int
    n_real: int


class RealReference:
    """Real clips by class that others are measured against, in one embedding."""

    def __init__(self, audio: Sequence[np.ndarray], labels: Sequence[int], embedding: Embedding) -> None:
        raw = embedding(audio)
        self.embedding = embedding
        self.centre, self.spread = raw.mean(axis=0), raw.std(axis=0) + 1e-6
        self.values, self.labels = (raw - self.centre) / self.spread, np.array(labels)
        apart = np.sqrt(squared_distances(self.values, self.values))
        self.width = float(np.median(apart[np.triu_indices(len(apart), 1)])) if len(apart) > 1 else 1.0

    def place(self, audio: Sequence[np.ndarray]) -> np.ndarray:
        """Clips in the reference's standardised embedding: [n, dimensions]."""
        return (self.embedding(audio) - self.centre) / self.spread

    def distance(self, values: np.ndarray, labels: Sequence[int]) -> Distance:
        """Of placed clips: the mean over classes of their MMD to the real clips of their class.

        The interval comes from halves of the clips drawn without replacement, which spread about as the whole does
        (Politis & Romano 1994); a bootstrap would put clips beside their own copies.
        """
        of = np.array(labels)
        rows = {
            int(label): np.flatnonzero(of == label)
            for label in np.unique(of)
            if (of == label).sum() > 1 and (self.labels == label).sum() > 1
        }
        n, n_real = len(of), int(np.isin(self.labels, list(rows) or np.unique(of)).sum())
        if not rows:
            return Distance(None, None, None, n, n_real)

        kernels = []
        for label, own in rows.items():
            real = self.values[self.labels == label]
            kernels.append(
                (
                    _kernel(values[own], values[own], self.width),
                    _kernel(real, real, self.width),
                    _kernel(values[own], real, self.width),
                )
            )
        value = float(np.mean([_unbiased(*of_class) for of_class in kernels]))
        if min(len(own) for own in rows.values()) < INTERVAL_CLIPS:
            return Distance(round(value, 2), None, None, n, n_real)
        rng = np.random.default_rng(0)
        halves = []
        for _ in range(N_RESAMPLES):
            parts = []
            for within, real_within, between in kernels:
                half = rng.choice(len(within), len(within) // 2, replace=False)
                parts.append(_unbiased(within[np.ix_(half, half)], real_within, between[half]))
            halves.append(np.mean(parts))
        low, high = np.percentile(np.array(halves) - np.mean(halves), [2.5, 97.5])
        return Distance(
            round(value, 2), round(value + float(low), 2), round(value + float(high), 2), n, n_real
        )


# --- the audit -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FoldLeaks:
    """What of a synthetic dataset may train where one fold tests."""

    fold: int
    usable: int
    leaking: int
    # Recordings of the test and validation parts that the generator was fitted on; None where that is not known.
    generator_heard: int | None
    judges_heard: int  # the same of the judges of clips that could train there otherwise


@dataclass(frozen=True)
class ClassQuality:
    """One class's clips."""

    class_name: str
    clips: int
    near_copies: int
    distance: Distance
    baseline: Distance  # real clips of half of the recordings to those of the other half


@dataclass(frozen=True)
class Audit:
    """All that `usk audit` found."""

    dataset: str
    clips: int
    embedding: str
    wrong_provenance: tuple[str, ...]  # rows whose parents are not what the row says
    folds: tuple[FoldLeaks, ...]
    asked_leaks: int  # in the test folds that were asked about
    unusable: tuple[str, ...]  # cannot be decoded, hold NaN, or are silent or far too short outright
    silent: tuple[str, ...]
    clipped: tuple[str, ...]
    short: tuple[str, ...]
    near_copies: tuple[str, ...]
    classes: tuple[ClassQuality, ...]
    distance: Distance
    baseline: Distance
    notes: tuple[str, ...] = ()

    @property
    def leaks(self) -> bool:
        """Whether something was found that makes a test unclean: wrong provenance, or leaks into an asked fold."""
        return bool(self.wrong_provenance) or self.asked_leaks > 0

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "leaks": self.leaks}


def wrong_provenance(synthetic: Source, real: Source) -> list[str]:
    """Rows whose parents are not in `real`, or have another recording, fold or class there than the row says."""
    known = {clip.clip_id: clip for clip in real.clips}
    wrong = []
    for clip in synthetic.clips:
        name = synthetic.class_names[clip.label]
        parents = [known.get(parent) for parent in clip.parents]
        if any(parent is None for parent in parents):
            wrong.append(f"{clip.clip_id} (a parent is not in the source)")
        elif any(
            (parent.group, parent.fold, real.class_names[parent.label]) != (group, fold, name)
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
    progress: Progress | None = None,
) -> Audit:
    """Look a synthetic dataset over against the real clips that it was made from.

    `test_folds` are folds that it must not leak into; without any, what each fold could use is merely counted. `run`
    embeds with its classifier instead of log-mel statistics.

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
    if not {parent for clip in synthetic.clips for parent in clip.parents} & {c.clip_id for c in real.clips}:
        raise SourceError(
            f"no parent of {synthetic.location} is in {real.location}; name the source that it was made from with --real"
        )
    wrong = wrong_provenance(synthetic, real)
    folds = tuple(_fold_leaks(synthetic, real, fold) for fold in real.folds) if len(real.folds) > 1 else ()
    asked = sum(part.leaking for part in folds if part.fold in test_folds)
    decoded = decode_source(synthetic, FOUR_SECONDS.mel.sample_rate_hz, skip_bad=True, progress=progress)
    usable = {clip.clip_id for clip in decoded.source.clips}
    unusable = tuple(clip.clip_id for clip in synthetic.clips if clip.clip_id not in usable)
    originals = decode_source(real, FOUR_SECONDS.mel.sample_rate_hz, skip_bad=True, progress=progress)
    silent, clipped, short = _defects(decoded)
    embedding = classifier_embedding(run) if run is not None else log_mel_statistics
    reference, reference_rows = _reference(originals, embedding)
    label_of = {name: label for label, name in enumerate(originals.source.class_names)}
    labels = [label_of.get(synthetic.class_names[clip.label], -1) for clip in decoded.source.clips]
    values = reference.place([decoded.audio(row) for row in range(len(decoded))])
    near = _near_copies(decoded, values, originals, reference, reference_rows)
    recordings = [originals.source.clips[row].group for row in reference_rows]
    classes = tuple(
        ClassQuality(
            name,
            labels.count(label),
            sum(labels[row] == label for row in near),
            reference.distance(values[np.array(labels) == label], [label] * labels.count(label)),
            _baseline(reference, recordings, label),
        )
        for name, label in label_of.items()
        if label in labels
    )
    baselines = [part.baseline.mmd for part in classes if part.baseline.mmd is not None]
    return Audit(
        dataset=synthetic.location,
        clips=len(synthetic),
        embedding=f"classifier of {run.name}, before its last layer"
        if run is not None
        else "log-mel statistics",
        wrong_provenance=tuple(wrong),
        folds=folds,
        asked_leaks=asked,
        unusable=unusable,
        silent=silent,
        clipped=clipped,
        short=short,
        near_copies=tuple(decoded.source.clips[row].clip_id for row in near),
        classes=classes,
        distance=reference.distance(values, labels),
        baseline=Distance(
            round(float(np.mean(baselines)), 2) if baselines else None,
            None,
            None,
            len(recordings),
            len(recordings),
        ),
        notes=(
            f"distances are to {len(reference_rows)} real clips, at most {REFERENCE_CLIPS} a class, the parents among them",
            *([unknown] if (unknown := unknown_generator(synthetic)) else []),
        ),
    )


def _fold_leaks(synthetic: Source, real: Source, fold: int) -> FoldLeaks:
    split = fold_split(real.clips, fold)
    leaks = int(leaking(synthetic, real, split).sum())
    judged = {real.clips[row].group for row in np.union1d(split.validation, split.test).tolist()}
    heard = None if unknown_generator(synthetic) else len(synthetic.model_groups & judged)
    judges = {clip.judge_folds for clip in synthetic.clips if not clip.lineage & judged}
    by_judges = {group for folds in judges for group in synthetic.judge_groups.get(folds, ())}
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


def _reference(originals: DecodedSource, embedding: Embedding) -> tuple[RealReference, list[int]]:
    """Up to `REFERENCE_CLIPS` real clips of each class, spread over recordings; and their rows."""
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
    audio = [originals.audio(row) for row in rows]
    return RealReference(audio, [originals.source.clips[row].label for row in rows], embedding), rows


def _baseline(reference: RealReference, recordings: Sequence[str], label: int) -> Distance:
    """How far real clips of a class are from each other: half of its recordings to the other half."""
    rows = np.flatnonzero(reference.labels == label).tolist()
    names = sorted({recordings[row] for row in rows})
    first = set(np.random.default_rng(0).permutation(names)[: len(names) // 2].tolist())
    left = np.array([row for row in rows if recordings[row] in first], dtype=np.int64)
    right = np.array([row for row in rows if recordings[row] not in first], dtype=np.int64)
    if len(left) < 2 or len(right) < 2:
        return Distance(None, None, None, len(left), len(right))
    value = mmd(reference.values[left], reference.values[right], reference.width)
    return Distance(round(value, 2), None, None, len(left), len(right))


def _near_copies(
    decoded: DecodedSource,
    values: np.ndarray,
    originals: DecodedSource,
    reference: RealReference,
    reference_rows: Sequence[int],
) -> list[int]:
    """Rows of synthetic clips nearer to a parent than nearly any two real clips of different recordings are."""
    groups = np.array([originals.source.clips[row].group for row in reference_rows])
    apart = np.sqrt(squared_distances(reference.values, reference.values))
    apart[groups[:, None] == groups[None]] = np.inf
    nearest = apart.min(axis=1)
    if not np.isfinite(nearest).any():
        return []
    limit = float(np.percentile(nearest[np.isfinite(nearest)], NEAR_COPY_PERCENTILE))
    row_of = {clip.clip_id: row for row, clip in enumerate(originals.source.clips)}
    parents = sorted({parent for clip in decoded.source.clips for parent in clip.parents if parent in row_of})
    placed = dict(
        zip(parents, reference.place([originals.audio(row_of[name]) for name in parents]), strict=True)
    )
    return [
        row
        for row, clip in enumerate(decoded.source.clips)
        if min(
            (float(np.linalg.norm(values[row] - placed[p])) for p in clip.parents if p in placed),
            default=np.inf,
        )
        < limit
    ]
