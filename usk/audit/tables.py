"""Build the tables and findings of an audit for the terminal, the report and the dataset's card."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from usk.tables import Table, columns
from usk.text import abbreviate_list

if TYPE_CHECKING:
    from usk.audit.audit import Audit
    from usk.audit.distances import Distance
    from usk.audit.likeness import Likeness


@dataclass(frozen=True)
class Finding:
    """The result of one check. `kind` is `good` (nothing found), `look` (worth a look) or `bad`."""

    kind: str
    what: str
    text: str


def findings(audit: Audit) -> list[Finding]:
    """Return the results of all checks, leaks first."""
    results = []
    if audit.asked_leaks is not None:
        leaks = f"{audit.asked_leaks:,} clips" if audit.asked_leaks else "none"
        results.append(Finding("bad" if audit.asked_leaks else "good", "leaks into the test folds", leaks))
    defects = audit.defects
    for what, names, kind in (
        ("wrong provenance", audit.wrong_provenance, "bad"),
        ("unusable", defects.unusable, "bad"),
        ("very quiet", defects.quiet, "look"),
        ("clipped", defects.clipped, "look"),
        ("too short", defects.short, "look"),
        ("near-copies of real clips", audit.near_copies, "look"),
    ):
        text = f"{len(names):,}: {abbreviate_list(list(names))}" if names else "none"
        results.append(Finding(kind if names else "good", what, text))
    what, like = "clips that are next to their parents' average", audit.likeness
    if like is not None and like.next_to_average:
        text = f"correlation {like.average_correlation:.3f}: the generator adds next to nothing"
        results.append(Finding("look", what, text))
    elif like is not None:
        results.append(Finding("good", what, "none"))
    return results


def fold_table(audit: Audit) -> Table:
    """Return the table of clips that may be trained on, or would leak, by test fold."""
    table = Table(
        "Clips by test fold",
        columns(
            numbers=("test fold", "may train", "would leak", "generator trained on", "filters trained on")
        ),
        notes=(
            "Trained on: how many recordings of the fold and its validation part. `usk train` drops what would leak.",
        ),
    )
    for part in audit.folds:
        known = "unknown" if part.generator_trained_on is None else part.generator_trained_on
        table.add(part.fold, f"{part.usable:,}", f"{part.leaking:,}", known, part.filters_trained_on)
    return table


def distance_table(audit: Audit) -> Table:
    """Return the table of KAD from real clips, by class."""
    table = Table(
        f"Kernel audio distance to real clips, in {audit.embedding} (lower is closer)",
        columns("class", numbers=("clips", "KAD", "95 % interval", "real to real", "real clips")),
        notes=("Real to real: clips of half of the recordings to those of the other half.",),
    )
    for part in (*audit.classes, audit.overall):
        value, interval = _texts(part.distance)
        baseline, _ = _texts(part.baseline)
        table.add(part.class_name, f"{part.clips:,}", value, interval, baseline, f"{part.distance.n_real:,}")
    return table


def nearness_table(audit: Audit) -> Table:
    """Return the table of distances to the nearest real clips, by class."""
    table = Table(
        f"Distance to the nearest real clip (median), in {audit.embedding}",
        columns("class", numbers=("near-copies", "to a parent", "to any real clip", "real to real")),
        notes=("Real to real: to the nearest real clip of another recording.",),
    )
    for part in (*audit.classes, audit.overall):
        distances = (part.nearness.to_parents, part.nearness.to_real, part.nearness.real_to_real)
        cells = ("" if distance is None else f"{distance:.3g}" for distance in distances)
        table.add(part.class_name, f"{part.near_copies:,}", *cells)
    return table


def likeness_table(like: Likeness) -> Table:
    """Return the table that compares clips with their parents' average and with the nearest parent."""
    table = Table(
        "Mel images beside the parents' (median)",
        columns("compared with", numbers=("correlation", "dB apart")),
        notes=(f"Of {like.clips:,} clips. The average could be had without a generator.",),
    )
    table.add("parents' average", f"{like.average_correlation:.3f}", f"{like.average_db:.1f}")
    table.add("nearest parent", f"{like.nearest_correlation:.3f}", f"{like.nearest_db:.1f}")
    return table


def audit_tables(audit: Audit) -> list[Table]:
    """Return all tables. Tables without content are left out."""
    folds = [fold_table(audit)] if audit.folds else []
    likeness = [likeness_table(audit.likeness)] if audit.likeness is not None else []
    return [*folds, distance_table(audit), nearness_table(audit), *likeness]


def card_section(audit: Audit) -> dict[str, Any]:
    """Return the findings and tables as plain values for the dataset's card."""
    return {
        "findings": [asdict(one) for one in findings(audit)],
        "tables": [asdict(table) for table in audit_tables(audit)],
    }


def _texts(distance: Distance) -> tuple[str, str]:
    interval = "" if distance.low is None else f"{distance.low:z.1f} to {distance.high:z.1f}"
    return ("" if distance.kad is None else f"{distance.kad:z.1f}"), interval
