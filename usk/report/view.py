"""Build the content of a report from runs, clips and an audit, as plain values and tables for the template."""

from __future__ import annotations

import json
import platform
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any

from usk.audit.tables import audit_tables, findings
from usk.data.clip import NO_MODEL
from usk.evaluate.next_step import next_step
from usk.evaluate.tables import mix_table, train_clips_tables
from usk.report.canvas import Chart
from usk.report.charts import comparison_charts, train_clips_charts
from usk.tables import Table, columns
from usk.text import about, pluralize

if TYPE_CHECKING:
    from usk.audit.audit import Audit
    from usk.evaluate.compare import MixRow
    from usk.evaluate.details import ComparisonDetails, TrainClipsSweep
    from usk.manifest import Manifest
    from usk.report.gallery import Gallery

PACKAGES = ("torch", "torchaudio", "numpy", "scipy", "soundfile", "matplotlib")
MARKS = {1: ("better", "▲"), -1: ("worse", "▼"), 0: ("open", "≈")}  # by `Verdict.direction`

Facts = list[tuple[str, str]]


@dataclass(frozen=True)
class Section:
    """One comparison, or an overview of several. `heading` is unique."""

    heading: str
    warning: str
    baseline: str
    answers: tuple[tuple[MixRow, str, str], ...]  # each mix but the baseline, with kind and sign in `MARKS`
    next: str  # what to do about open answers; text in backticks is code
    tables: tuple[Table, ...]
    charts: tuple[Chart, ...]
    classes: tuple[str, ...]  # names in order of class numbers
    notes: tuple[str, ...]


def build_sections(
    all_details: Sequence[ComparisonDetails], sweeps: Sequence[TrainClipsSweep]
) -> tuple[Section, ...]:
    """Return an overview for each sweep, then a section for each comparison."""
    tables = train_clips_tables([details.comparison for details in all_details])
    overviews = []
    for sweep, chart, table in zip(sweeps, train_clips_charts(sweeps), tables, strict=False):
        heading, warning = f"By number of train clips: {sweep.setting}", sweep.warning or ""
        overviews.append(Section(heading, warning, "", (), "", (table,), (chart,), (), ()))
    return (*overviews, *map(_comparison_section, all_details))


def build_view(
    sections: tuple[Section, ...],
    all_details: Sequence[ComparisonDetails],
    gallery: Gallery | None,
    audit: Audit | None,
    manifest: Manifest | None,
) -> dict[str, Any]:
    """Return the template's `view`: the content of a page without drawings and clips. `manifest` is that of the dataset in `gallery`."""
    arguments = () if manifest is None else manifest.arguments
    return {
        "title": "Do synthetic clips help?"
        if all_details or not gallery
        else f"Synthetic clips: {gallery.name}",
        "lead": _lead(all_details, gallery),
        "sections": sections,
        "findings": [] if audit is None else findings(audit),
        "audit_tables": [] if audit is None else audit_tables(audit),
        "audit_notes": () if audit is None else audit.notes,
        "classes": None if gallery is None else _class_table(gallery),
        "settings": _settings(manifest, all_details),
        "command": shlex.join(["usk", *arguments]) if arguments else "",
        "versions": _versions(),
        "license": _license(gallery),
    }


def _lead(all_details: Sequence[ComparisonDetails], gallery: Gallery | None) -> str:
    parts = []
    if all_details:
        mix_of = {run.folder: run.mix for details in all_details for run in details.runs}
        parts.append(f"{pluralize(len(mix_of), 'run')} of {pluralize(len(set(mix_of.values())), 'mix')}")
    if gallery is not None:
        n_classes = sum(clips > 0 for _, clips, _ in gallery.classes)
        parts.append(f"{pluralize(gallery.n_all, 'synthetic clip')} of {pluralize(n_classes, 'class')}")
    return f"{', '.join(parts)}."


def _comparison_section(details: ComparisonDetails) -> Section:
    comparison = details.comparison
    return Section(
        heading=comparison.title,
        warning=comparison.warning or "",
        baseline=comparison.baseline,
        answers=tuple(
            (row, *MARKS[row.verdict.direction]) for row in comparison.rows if row.difference is not None
        ),
        next=_next_step(details),
        tables=(mix_table(comparison),),
        charts=tuple(comparison_charts(details)),
        classes=tuple(row.class_name for row in comparison.classes),
        notes=(*comparison.notes, *details.notes),
    )


def _next_step(details: ComparisonDetails) -> str:
    step = next_step(details.comparison)
    if step is None:
        return ""
    seeds = f"{pluralize(step.more, 'more seed')} ({about(step.train_s)})"
    return f"{seeds} would tell more. `usk eval` shows the command. Decide once, before you look."


def _class_table(gallery: Gallery) -> Table:
    table = Table("Clips by class", columns("class", numbers=("clips", "seconds", "mean seconds")))
    for name, clips, seconds in gallery.classes:
        if clips:
            table.add(name, f"{clips:,}", f"{seconds:,.1f}", f"{seconds / clips:.2f}")
    return table


def _settings(manifest: Manifest | None, all_details: Sequence[ComparisonDetails]) -> list[tuple[str, Facts]]:
    settings = []
    if manifest is not None:
        settings.append(("How the clips were made", _facts(_clip_settings(manifest))))
    for details in all_details:
        title = f"How the runs were trained{f': {details.comparison.title}' if len(all_details) > 1 else ''}"
        # With spaces, so that a line can break there.
        augmentations = details.settings.get("augmentations", "").replace("+", " + ")
        settings.append((title, _facts({**details.settings, "augmentations": augmentations})))
    return settings


def _clip_settings(manifest: Manifest) -> dict[str, Any]:
    trained_on = "; ".join(
        f"{part.source} folds {' '.join(map(str, part.folds))} ({pluralize(len(part.groups), 'recording')})"
        for part in manifest.trained_on
    )
    without = manifest.model == NO_MODEL
    source = manifest.source
    facts: dict[str, Any] = {
        "model": manifest.model,
        "generator trained on": "no generator was used" if without else trained_on or "unknown",
        "source": f"{source.name}, revision {source.revision}, license {source.license}",
        "strategy": ", ".join(manifest.render),
        "alpha": manifest.alpha,
        "seed": manifest.seed,
        "license": manifest.license,
        "plan": manifest.plan_sha256[:12],
        **{
            f"{strategy} {name}": value
            for strategy, settings in manifest.render.items()
            for name, value in settings.items()
        },
        "precision": manifest.precision,
    }
    if manifest.clip_filter is not None:
        least = manifest.clip_filter.least_score
        facts["filter keeps"] = manifest.clip_filter.share_kept if least is None else f"scores from {least:g}"
        facts["filter classifier"] = manifest.clip_filter.classifier
    return facts | {f"mel {name}": value for name, value in (manifest.mel or {}).items()}


def _facts(values: Mapping[str, Any]) -> Facts:
    """Convert values that are not empty to text."""

    def text(value: Any) -> str:
        if isinstance(value, bool):
            return "yes" if value else "no"
        if isinstance(value, float):
            return f"{value:g}"
        return value if isinstance(value, str) else json.dumps(value)

    return [
        (name.replace("_", " "), text(value))
        for name, value in values.items()
        if value not in (None, "", [], ())
    ]


def _versions() -> Facts:
    from usk import __version__

    packages = [(name, metadata.version(name)) for name in PACKAGES]
    return [("usk", __version__), ("Python", platform.python_version()), *packages]


def _license(gallery: Gallery | None) -> str:
    if gallery is None:
        return ""
    parents = f" Parents: {gallery.real_name}, license {gallery.real_license}." if gallery.real_name else ""
    return f"Synthetic clips: {gallery.license}.{parents}"
