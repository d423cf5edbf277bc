"""Clips to look at and listen to: synthetic ones beside their parents, compressed, within a budget.

Every sound becomes an MP3 and a WebP picture of its mel spectrogram; all pictures share one scale in dB, so that
loudness can be compared by eye. What does not fit into the budget is left out evenly: classes take turns, and folds
within them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import numpy as np

from usk.data.clip import Clip
from usk.data.decode import DecodedSource, decode_source
from usk.data.leaks import parents_in
from usk.data.open import open_source
from usk.data.source import Source
from usk.errors import SourceError
from usk.evaluate.details import ComparisonDetails
from usk.report.changes import Change, changes_of
from usk.report.media import PICTURE, RANGE_DB, Paint, Sound
from usk.report.studio import ShownChange, ShownClip, Studio
from usk.reporter import Reporter
from usk.text import pluralize

REJECTED_FOLDER = "rejected"  # of a dataset's folder: what the classifier filter rejected
SCALE_SOUNDS = 128
BASE64 = 4 / 3  # characters a byte
REJECTED_SHARE, CHANGED_SHARE = 0.2, 0.15  # of the budget, at most
PREPARED = 32  # clips that threads compress together


@dataclass(frozen=True)
class Gallery:
    """What fits into the budget, classes taking turns; `n_all` and `n_all_rejected` count what there is."""

    name: str
    clips: tuple[ShownClip, ...]
    changes: tuple[ShownChange, ...]
    places: dict[
        str, tuple[float, float]
    ]  # of sounds by their id, in two principal components of log-mel statistics, 0 to 1
    n_all: int
    n_all_rejected: int
    classes: tuple[tuple[str, int, float], ...]  # name, clips and seconds of each, in the whole dataset
    loudest_db: float
    range_db: float
    real_name: str | None
    real_license: str | None
    license: str
    notes: tuple[str, ...]

    @property
    def sounds(self) -> list[Sound]:
        """Each sound once: parents are shared."""
        found = [sound for clip in self.clips for sound in (clip.sound, *clip.parents) if sound is not None]
        found += [one.sound for one in self.changes]
        return list({sound.clip_id: sound for sound in found}.values())


def rejected_source(folder: Path) -> Source | None:
    """The clips that the classifier filter rejected, where the dataset's folder keeps them."""
    place = folder / REJECTED_FOLDER
    if not any(place.glob("*.parquet")) and not any(place.glob("data/*.parquet")):
        return None
    return open_source(place)


def show_order(clips: Sequence[Clip], seed: int = 0) -> list[int]:
    """Rows in the order in which they are shown until the budget ends: classes in turn, folds in turn within them."""
    rng = np.random.default_rng(seed)
    turns: dict[tuple[int, int], int] = defaultdict(int)
    ranks: dict[int, tuple[int, int]] = {}
    for row in rng.permutation(len(clips)).tolist():
        place = clips[row].label, clips[row].fold
        ranks[row] = (turns[place], clips[row].fold)
        turns[place] += 1
    of_class: dict[int, list[int]] = defaultdict(list)
    for row in sorted(ranks, key=lambda row: (*ranks[row], row)):
        of_class[clips[row].label].append(row)
    order = []
    for turn in range(max(map(len, of_class.values()), default=0)):
        order += [rows[turn] for _, rows in sorted(of_class.items()) if turn < len(rows)]
    return order


def gallery(
    synthetic: Source,
    real: Source | None,
    paint: Paint,
    *,
    rejected: Source | None = None,
    all_details: Sequence[ComparisonDetails] = (),
    budget_bytes: int | None = None,
    embedded: bool = True,
    reporter: Reporter | None = None,
) -> Gallery:
    """Compress as many clips, with their parents, as fit into `budget_bytes` (None: all of them).

    Args:
        paint: the color scale of the pictures.
        all_details: comparisons whose test clips are in `real`: what changed in them is shown too.
        embedded: count base64's third on top, for media inside a page.

    Raises: SourceError if `synthetic` names no parents, or none of them is in `real`.
    """
    reporter = reporter or Reporter()
    if not synthetic.is_synthetic:
        raise SourceError(
            f"{synthetic.location} is not a synthetic dataset: its clips name no parents, so there is nothing to compare"
        )

    def decoded(source: Source) -> DecodedSource:
        return decode_source(source, PICTURE.sample_rate_hz, skip_bad=True, reporter=reporter)

    made = decoded(synthetic)
    parts = [(made, False)] if rejected is None else [(decoded(rejected), True), (made, False)]
    studio = Studio(None if real is None else decoded(real), paint)
    notes = [] if studio.originals is None else _missing_parents(made.source, studio.originals.source)
    studio.set_scale([made.audio(row) for row in show_order(made.source.clips)[:SCALE_SOUNDS]])
    weight = BASE64 if embedded else 1.0
    changed = [] if studio.originals is None else _changed(all_details, studio.originals.source)
    if budget_bytes is not None:
        studio.fit(made.source, [one.row for one in changed], budget_bytes, weight)
        if studio.kbps is not None:
            notes.append("sounds are small previews (Opus), so that more fit; a split page has them as MP3")
    changes, spent = _changes(studio, changed, budget_bytes, weight)
    chosen = _fill(studio, parts, budget_bytes, weight, spent, reporter)
    if not chosen:
        raise SourceError(
            f"no clip of {synthetic.location} fits into the page",
            hint="Write sounds and pictures beside the page (split).",
        )
    todo = sum(len(part) for part, _ in parts)
    if len(chosen) < todo:
        notes.append(
            f"{len(chosen):,} of {todo:,} clips are on this page, drawn evenly over classes and folds"
        )
    chosen.sort(key=lambda one: (one.rejected, one.clip.label, one.clip.clip_id))
    return Gallery(
        name=synthetic.name,
        clips=tuple(studio.with_distances(chosen)),
        changes=tuple(studio.with_nearest(changes, made.source, chosen)),
        places=studio.places(),
        n_all=len(made),
        n_all_rejected=todo - len(made),
        classes=tuple(_classes(made)),
        loudest_db=studio.loudest_db,
        range_db=RANGE_DB,
        real_name=None if real is None else real.name,
        real_license=None if real is None else real.license,
        license=synthetic.license,
        notes=tuple(notes),
    )


def _missing_parents(synthetic: Source, real: Source) -> list[str]:
    """A note on parents that are not in `real`, if any. Raises SourceError where none is."""
    origins = parents_in(synthetic, real)
    missing = len(origins.foreign)
    return [f"{pluralize(missing, 'parent')} without sound, not in {real.name}"] if missing else []


def _fill(
    studio: Studio,
    parts: Sequence[tuple[DecodedSource, bool]],
    budget_bytes: int | None,
    weight: float,
    spent: float,
    reporter: Reporter,
) -> list[ShownClip]:
    """Clips of each part, rejected or not, in the order in which they are shown, until the budget is spent."""
    chosen: list[ShownClip] = []
    with reporter.task("compressing sounds", "clips", sum(len(part) for part, _ in parts)) as task:
        for part, is_rejected in parts:
            share = REJECTED_SHARE if is_rejected else 1.0
            limit = None if budget_bytes is None else share * budget_bytes
            parents, order = studio.parents_of(part.source), show_order(part.source.clips)
            for place, row in enumerate(order):
                if place % PREPARED == 0:
                    studio.prepare(part, order[place : place + PREPARED], parents)
                shown = studio.show(part, row, parents[row], is_rejected)
                cost = studio.new_bytes(weight)
                if limit is not None and spent + cost > limit:
                    studio.forget_new()
                    break
                spent += cost
                studio.keep_new()
                chosen.append(shown)
                task.update(len(chosen))
    return chosen


def _changed(all_details: Sequence[ComparisonDetails], real: Source) -> list[Change]:
    """Test clips that changed, those of every mix in turn."""
    of_mix: dict[tuple[str, str], list[Change]] = defaultdict(list)
    for one in (change for details in all_details for change in changes_of(details, real)):
        of_mix[one.comparison, one.mix].append(one)
    return [one for turn in zip_longest(*of_mix.values()) for one in turn if one is not None]


def _changes(
    studio: Studio, changed: Sequence[Change], budget_bytes: int | None, weight: float
) -> tuple[list[tuple[Change, Sound]], float]:
    """Those of the changes that fit into their share of the budget, and what they take of it."""
    shown, spent = [], 0.0
    for one in changed:
        sound = studio.real_sound(one.row)
        cost = studio.new_bytes(weight)
        if budget_bytes is not None and spent + cost > CHANGED_SHARE * budget_bytes:
            studio.forget_new()
            break
        studio.keep_new()
        spent += cost
        shown.append((one, sound))
    return shown, spent


def _classes(made: DecodedSource) -> Iterable[tuple[str, int, float]]:
    """Clips and seconds of each class."""
    for label, name in enumerate(made.source.class_names):
        lengths_s = [clip.duration_s for clip in made.source.clips if clip.label == label]
        yield name, len(lengths_s), round(sum(lengths_s), 1)
