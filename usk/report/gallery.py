"""Choose and compress the clips of a report: synthetic clips with their parents, and test clips that changed.

All pictures have the same scale in dB. If not all clips fit into the budget of bytes, the chosen ones are spread evenly over
classes and folds.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import numpy as np

from usk.data.clip import Clip
from usk.data.decode import DecodedSource, decode_source
from usk.data.leaks import find_parents
from usk.data.open import open_source
from usk.data.source import Source
from usk.errors import SourceError
from usk.evaluate.details import ComparisonDetails
from usk.report.changes import Change, find_changes
from usk.report.media import PICTURE, Sound
from usk.report.sound_library import ShownChange, ShownClip, SoundLibrary
from usk.reporter import Reporter
from usk.text import pluralize

REJECTED_FOLDER = "rejected"  # in a dataset's folder: clips that the classifier filter rejected
N_SCALE_SOUNDS = 128  # clips that determine the scale of all pictures
MAX_REJECTED_FRACTION, MAX_CHANGED_FRACTION = 0.2, 0.15  # of the budget
BATCH = 32  # clips that threads compress at the same time


@dataclass(frozen=True)
class Gallery:
    """The clips of a report. `n_all` and `n_all_rejected` are the numbers of clips in the dataset."""

    name: str
    clips: tuple[ShownClip, ...]
    changes: tuple[ShownChange, ...]
    positions: dict[str, tuple[float, float]]  # of sounds on the map, by id
    n_all: int
    n_all_rejected: int
    classes: tuple[tuple[str, int, float], ...]  # name, clips and seconds of each class in the dataset
    real_name: str | None
    real_license: str | None
    license: str
    notes: tuple[str, ...]

    @property
    def sounds(self) -> list[Sound]:
        """All sounds without duplicates: clips may share parents."""
        sounds = [sound for clip in self.clips for sound in (clip.sound, *clip.parents) if sound is not None]
        sounds += [change.sound for change in self.changes]
        return list({sound.clip_id: sound for sound in sounds}.values())


def rejected_source(folder: Path) -> Source | None:
    """Open the clips that the classifier filter rejected, or return None if there are none."""
    rejected = folder / REJECTED_FOLDER
    if not any(rejected.glob("*.parquet")) and not any(rejected.glob("data/*.parquet")):
        return None
    return open_source(rejected)


def display_order(clips: Sequence[Clip]) -> list[int]:
    """Return the rows in random order, but alternating between classes, and between folds within each class."""
    n_seen: Counter[tuple[int, int]] = Counter()
    ranks: dict[int, tuple[int, int]] = {}
    for row in np.random.default_rng(0).permutation(len(clips)).tolist():
        cell = clips[row].label, clips[row].fold
        ranks[row] = (n_seen[cell], clips[row].fold)
        n_seen[cell] += 1
    rows_of_class: dict[int, list[int]] = defaultdict(list)
    for row in sorted(ranks, key=lambda row: (*ranks[row], row)):
        rows_of_class[clips[row].label].append(row)
    order = []
    for turn in range(max(map(len, rows_of_class.values()), default=0)):
        order += [rows[turn] for _, rows in sorted(rows_of_class.items()) if turn < len(rows)]
    return order


def build_gallery(
    synthetic: Source,
    real: Source | None,
    *,
    rejected: Source | None = None,
    all_details: Sequence[ComparisonDetails] = (),
    budget_bytes: int | None = None,
    reporter: Reporter | None = None,
) -> Gallery:
    """Compress as many clips with their parents as fit into `budget_bytes`, or all of them if it is None.

    Args:
        all_details: comparisons whose changed test clips are shown too, if they are in `real`.

    Raise SourceError if `synthetic` names no parents, or if none of them is in `real`.
    """
    reporter = reporter or Reporter()
    if not synthetic.is_synthetic:
        raise SourceError(
            f"{synthetic.location} is not a synthetic dataset: its clips name no parents, so there is nothing to compare"
        )

    def decode(source: Source) -> DecodedSource:
        return decode_source(source, PICTURE.sample_rate_hz, skip_bad=True, reporter=reporter)

    kept = decode(synthetic)
    parts = [(kept, False)] if rejected is None else [(decode(rejected), True), (kept, False)]
    originals = None if real is None else decode(real)
    library = SoundLibrary(originals, budget_bytes)
    all_changes = _find_all_changes(all_details, originals.source) if originals is not None else []
    library.set_scale([kept.audio(row) for row in display_order(kept.source.clips)[:N_SCALE_SOUNDS]])
    library.choose_bit_rate(kept.source, [change.row for change in all_changes])
    changes = _choose_changes(library, all_changes)
    chosen = _choose_clips(library, parts, reporter)
    if not chosen:
        raise SourceError(
            f"no clip of {synthetic.location} fits into the page",
            hint="Write sounds and pictures into files (split).",
        )
    chosen.sort(key=lambda shown: (shown.rejected, shown.clip.label, shown.clip.clip_id))
    n_total = sum(len(part) for part, _ in parts)
    return Gallery(
        name=synthetic.name,
        clips=tuple(library.with_distances(chosen)),
        changes=tuple(library.with_nearest(changes, kept.source, chosen)),
        positions=library.positions(),
        n_all=len(kept),
        n_all_rejected=n_total - len(kept),
        classes=tuple(_class_totals(kept)),
        real_name=None if real is None else real.name,
        real_license=None if real is None else real.license,
        license=synthetic.license,
        notes=tuple(_notes(library, kept.source, originals, len(chosen), n_total)),
    )


def _notes(
    library: SoundLibrary, synthetic: Source, originals: DecodedSource | None, n_chosen: int, n_total: int
) -> list[str]:
    """Return notes on what the page lacks: parents, sound quality, clips."""
    notes = []
    if originals is None:
        notes.append("Parents have no sound, because the real clips were not given.")
    elif n_missing := len(find_parents(synthetic, originals.source).foreign):
        notes.append(f"{pluralize(n_missing, 'parent')} without sound, not in {originals.source.name}")
    if library.kbps is not None:
        notes.append("sounds are small previews (Opus), so that more fit; a split page has them as MP3")
    if n_chosen < n_total:
        notes.append(
            f"{n_chosen:,} of {n_total:,} clips are on this page, drawn evenly over classes and folds"
        )
    return notes


def _choose_changes(library: SoundLibrary, changes: Sequence[Change]) -> list[tuple[Change, Sound]]:
    """Return the first changed test clips, with their sounds, that fit into their share of the budget."""
    chosen: list[tuple[Change, Sound]] = []
    for change in changes:
        sound = library.real_sound(change.row)
        if not library.keep_new_if_fits(MAX_CHANGED_FRACTION):
            break
        chosen.append((change, sound))
    return chosen


def _choose_clips(
    library: SoundLibrary, parts: Sequence[tuple[DecodedSource, bool]], reporter: Reporter
) -> list[ShownClip]:
    """Choose clips of each part (clips, are rejected) in display order until the budget is spent."""
    chosen: list[ShownClip] = []
    with reporter.task("compressing sounds", "clips", sum(len(part) for part, _ in parts)) as task:
        for part, is_rejected in parts:
            parents, order = library.parents_of(part.source), display_order(part.source.clips)
            for number, row in enumerate(order):
                if number % BATCH == 0:
                    library.prepare(part, order[number : number + BATCH], parents)
                shown = library.shown_clip(part, row, parents[row], is_rejected)
                if not library.keep_new_if_fits(MAX_REJECTED_FRACTION if is_rejected else 1.0):
                    break
                chosen.append(shown)
                task.update(len(chosen))
    return chosen


def _find_all_changes(all_details: Sequence[ComparisonDetails], real: Source) -> list[Change]:
    """Return the changed test clips of all comparisons, alternating between mixes."""
    by_mix: dict[tuple[str, str], list[Change]] = defaultdict(list)
    for details in all_details:
        for change in find_changes(details, real):
            by_mix[change.comparison, change.mix].append(change)
    return [change for turn in zip_longest(*by_mix.values()) for change in turn if change is not None]


def _class_totals(decoded: DecodedSource) -> Iterable[tuple[str, int, float]]:
    """Yield the name, number of clips and total seconds of each class."""
    for label, name in enumerate(decoded.source.class_names):
        lengths_s = [clip.duration_s for clip in decoded.source.clips if clip.label == label]
        yield name, len(lengths_s), round(sum(lengths_s), 1)
