"""Clips to look at and listen to: synthetic ones beside their parents, compressed, within a budget.

All pictures share one scale in dB, so that loudness can be compared by eye. What does not fit into the budget is left out evenly:
classes take turns, and folds within them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile, zip_longest
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
    # Of sounds by their id, in two principal components of log-mel statistics, 0 to 1
    places: dict[str, tuple[float, float]]
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
    originals = None if real is None else decoded(real)
    studio = Studio(originals, paint, budget_bytes, BASE64 if embedded else 1.0)
    notes = []
    if originals is not None and (missing := len(parents_in(made.source, originals.source).foreign)):
        notes.append(f"{pluralize(missing, 'parent')} without sound, not in {originals.source.name}")
    studio.set_scale([made.audio(row) for row in show_order(made.source.clips)[:SCALE_SOUNDS]])
    changed = [] if originals is None else _changed(all_details, originals.source)
    studio.choose_size(made.source, [one.row for one in changed])
    if studio.kbps is not None:
        notes.append("sounds are small previews (Opus), so that more fit; a split page has them as MP3")
    sounds = ((one, studio.real_sound(one.row)) for one in changed)
    changes = list(takewhile(lambda _: studio.fits(CHANGED_SHARE), sounds))
    chosen = _fill(studio, parts, reporter)
    if not chosen:
        raise SourceError(
            f"no clip of {synthetic.location} fits into the page",
            hint="Write sounds and pictures beside the page (split).",
        )
    if real is None:
        notes.append("Parents have no sound, because the real clips were not given.")
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


def _fill(studio: Studio, parts: Sequence[tuple[DecodedSource, bool]], reporter: Reporter) -> list[ShownClip]:
    """Clips of each part, rejected or not, in the order in which they are shown, until the budget is spent."""
    chosen: list[ShownClip] = []
    with reporter.task("compressing sounds", "clips", sum(len(part) for part, _ in parts)) as task:
        for part, is_rejected in parts:
            parents, order = studio.parents_of(part.source), show_order(part.source.clips)
            for place, row in enumerate(order):
                if place % PREPARED == 0:
                    studio.prepare(part, order[place : place + PREPARED], parents)
                shown = studio.show(part, row, parents[row], is_rejected)
                if not studio.fits(REJECTED_SHARE if is_rejected else 1.0):
                    break
                chosen.append(shown)
                task.update(len(chosen))
    return chosen


def _changed(all_details: Sequence[ComparisonDetails], real: Source) -> list[Change]:
    """Test clips that changed, those of every mix in turn."""
    of_mix: dict[tuple[str, str], list[Change]] = defaultdict(list)
    for one in (change for details in all_details for change in changes_of(details, real)):
        of_mix[one.comparison, one.mix].append(one)
    return [one for turn in zip_longest(*of_mix.values()) for one in turn if one is not None]


def _classes(made: DecodedSource) -> Iterable[tuple[str, int, float]]:
    """Clips and seconds of each class."""
    for label, name in enumerate(made.source.class_names):
        lengths_s = [clip.duration_s for clip in made.source.clips if clip.label == label]
        yield name, len(lengths_s), round(sum(lengths_s), 1)
