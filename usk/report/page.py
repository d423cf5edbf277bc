"""`usk report`: one HTML page to look at and listen to, from runs and a synthetic dataset.

Names of classes, mixes and files are text everywhere: Jinja escapes them, the script uses them as text, and the page's content
security policy runs no other script and loads nothing from anywhere.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape

from usk.errors import UsageError, disk_errors
from usk.files import expanded
from usk.report.canvas import Chart, paint
from usk.reporter import Reporter
from usk.text import visible

if TYPE_CHECKING:
    from usk.audit.audit import Audit
    from usk.data.source import Source
    from usk.report.gallery import Gallery
    from usk.report.view import View

BUDGET_BYTES = 25_000_000  # of a page in one file, as base64
CHART_ROOM_BYTES = 1_000_000  # of the budget, for everything but clips; half of it for charts
TEMPLATES = Path(__file__).parent / "templates"
ASSETS_SUFFIX = "_files"
ASSET_NAME = re.compile(r"[0-9a-f]{16}\.(mp3|webp)")


@dataclass(frozen=True)
class ReportConfig:
    """What goes into a report. `runs` and `synth` are folders, None to leave that part out."""

    runs: str | None = "runs"
    synth: str | None = "synth"
    baseline: str | None = None
    split: bool = False  # sounds and pictures as files beside the page; else as many as 25 MB hold are inside
    audit: bool = True


@dataclass(frozen=True)
class ReportResult:
    """Where the page is and what is on it."""

    file: Path
    n_bytes: int  # of the page, with its assets
    n_charts: int
    n_clips: int
    n_all_clips: int
    notes: tuple[str, ...]


def report(
    out: str | Path = "report.html",
    config: ReportConfig = ReportConfig(),
    *,
    real: Source | None = None,
    reporter: Reporter | None = None,
) -> ReportResult:
    """Write the page, and its assets where `config` asks for them.

    Args:
        real: the clips that `config.synth` was made from; without them parents have no sound and there is no audit.

    Raises: UsageError for what cannot be written; SourceError for runs or a dataset that cannot be shown.
    """
    from usk.data.open import open_source
    from usk.evaluate.details import compare_in_detail, train_clips_sweeps
    from usk.manifest import find_manifest
    from usk.report.view import sections_of, view_of

    file = Path(out)
    _check(file, config)
    reporter = reporter or Reporter()
    all_details = compare_in_detail(config.runs, config.baseline) if config.runs is not None else []
    all_details.sort(
        key=lambda details: not details.comparison.choices
    )  # the comparison that counts comes first
    sections = sections_of(all_details, train_clips_sweeps([details.comparison for details in all_details]))
    drawings = [[_figure(chart) for chart in section.charts] for section in sections]
    shown = audit = manifest = None
    if config.synth is not None:
        from usk.report.gallery import gallery, rejected_source  # imports torch

        synthetic = open_source(config.synth, field="synth")
        manifest = find_manifest(expanded(config.synth))
        room = BUDGET_BYTES - _room_bytes(drawings)
        shown = gallery(
            synthetic,
            real,
            paint,
            rejected=rejected_source(expanded(synthetic.location)),
            all_details=all_details,
            budget_bytes=None if config.split else room,
            embedded=not config.split,
            reporter=reporter,
        )
        audit = _audit(synthetic, real, config, reporter)
    assets = file.with_name(f"{file.stem}{ASSETS_SUFFIX}") if config.split else None
    view = view_of(sections, all_details, shown, audit, manifest)
    copies = frozenset(() if audit is None else audit.near_copies)
    page = _page(view, drawings, shown, copies, None if real is None else real.name, assets)
    return ReportResult(
        file=file,
        n_bytes=_write(file, page, assets, shown),
        n_charts=sum(map(len, drawings)),
        n_clips=0 if shown is None else len(shown.clips),
        n_all_clips=0 if shown is None else shown.n_all + shown.n_all_rejected,
        notes=() if shown is None else shown.notes,
    )


def _check(file: Path, config: ReportConfig) -> None:
    if config.runs is None and config.synth is None:
        raise UsageError(
            "there are neither runs nor a synthetic dataset to report on",
            hint="Make some with `usk synth` and `usk train`, or name them.",
        )
    if file.is_dir():
        raise UsageError(
            "this is a folder", field="out", value=file, hint=f"Name a file, such as {file / 'report.html'}."
        )
    if file.suffix.lower() not in (".html", ".htm"):
        raise UsageError(
            "browsers open pages whose names end in .html", field="out", value=file, hint="Name it so."
        )
    if config.runs is not None and not Path(config.runs).is_dir():
        raise UsageError(
            "no such folder", field="runs", value=config.runs, hint="Train some runs with `usk train`."
        )


def _audit(synthetic: Source, real: Source | None, config: ReportConfig, reporter: Reporter) -> Audit | None:
    """As `usk audit` by default: its results and the page's are the same."""
    from usk.audit.audit import audit
    from usk.audit.embeddings import AUTO, LOG_MEL, load_embedding

    if real is None or not config.audit:
        return None
    name, runs = (LOG_MEL, Path()) if config.runs is None else (AUTO, Path(config.runs))
    embedding = load_embedding(name, runs=runs, class_names=real.class_names)
    return audit(synthetic, real, embedding=embedding, reporter=reporter)


# --- the page --------------------------------------------------------------------------------------------------


def _page(
    view: View,
    drawings: Sequence[Sequence[dict[str, Any]]],
    shown: Gallery | None,
    copies: frozenset[str],
    real_name: str | None,
    assets: Path | None,
) -> str:
    import jinja2
    import numpy as np

    from usk import __version__
    from usk.report.listen import listen

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: visible(value) if type(value) is str else value,
    )
    environment.filters["code"] = _code
    environment.policies["json.dumps_function"] = lambda value, **options: json.dumps(
        _visible(value), **options
    )
    script = (TEMPLATES / "report.js").read_text(encoding="utf-8")
    stops = ", ".join("#" + bytes(color).hex() for color in paint(np.linspace(0, 1, 9)))
    style = (TEMPLATES / "report.css").read_text(encoding="utf-8").replace("{{ gradient }}", stops)
    return environment.get_template("report.html").render(
        view=view,
        drawings=drawings,
        version=__version__,
        split=assets is not None,
        policy=_policy(script, split=assets is not None),
        css=Markup(style),
        js=Markup(script),
        listen=None if shown is None else listen(shown, copies, None if assets is None else assets.name),
        real_name=real_name,
        made=datetime.now(UTC).strftime("%d %B %Y"),
    )


def _code(text: str) -> Markup:
    """Text whose parts in backticks are code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(visible(text)))))


def _visible(value: Any) -> Any:
    """Data of the page with all text in it made visible."""
    if isinstance(value, dict):
        return {_visible(name): _visible(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_visible(one) for one in value]
    return visible(value) if isinstance(value, str) else value


def _policy(script: str, split: bool) -> str:
    """The page's own script by its digest, its own media, and nothing else from anywhere."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    media = "'self' file:" if split else "data:"
    return (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src {media}; "
        f"media-src {media}; base-uri 'none'; form-action 'none'"
    )


def _figure(chart: Chart) -> dict[str, Any]:
    """A chart with its drawings: wide and narrow ones for a column, narrow ones alone where two stand side by side."""
    return {
        "chart": chart,
        "size": "half" if chart.half else "full",
        "wide": Markup("" if chart.half else visible(chart.svg(narrow=False))),  # matplotlib escapes names
        "narrow": Markup(visible(chart.svg(narrow=True))),
    }


def _room_bytes(drawings: Sequence[Sequence[dict[str, Any]]]) -> int:
    """What clips leave of the budget: the room for charts and all else, and more where there are many charts."""
    n_bytes = sum(
        len(one[width].encode()) for drawn in drawings for one in drawn for width in ("wide", "narrow")
    )
    return CHART_ROOM_BYTES + max(0, n_bytes - CHART_ROOM_BYTES // 2)


# --- files ---------------------------------------------------------------------------------------------------


def _write(file: Path, page: str, assets: Path | None, shown: Gallery | None) -> int:
    """Page and assets, whole or not at all; assets of an earlier page with this name go. Returns how many bytes."""
    from usk.files import atomic_write
    from usk.report.listen import media_of

    n_bytes = len(page.encode())
    with disk_errors(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        if assets is not None and shown is not None:
            assets.mkdir(exist_ok=True)
            files = {f"{one.key}.{one.suffix}": one.content for one in media_of(shown)}
            for name, content in files.items():
                atomic_write(assets / name, content, durable=False)
                n_bytes += len(content)
            for old in assets.iterdir():
                if ASSET_NAME.fullmatch(old.name) and old.name not in files:
                    old.unlink()
        atomic_write(file, page.encode(), durable=False)
    return n_bytes
