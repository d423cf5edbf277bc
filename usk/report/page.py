"""`usk report`: write an HTML page about runs and a synthetic dataset.

Names of classes, mixes and files cannot inject code. Jinja escapes them, the script inserts them as text, and the page's
content security policy allows no other script and no external resources.
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
from usk.files import atomic_write, expanded
from usk.report.canvas import Chart, magma
from usk.reporter import Reporter
from usk.text import visible

if TYPE_CHECKING:
    from usk.audit.audit import Audit
    from usk.data.open import SourceLike
    from usk.data.source import Source
    from usk.report.gallery import Gallery

BUDGET_BYTES = 25_000_000  # of a page that contains its media
RESERVED_BYTES = 1_000_000  # part of the budget for everything but clips; half of it is for charts
TEMPLATES = Path(__file__).parent / "templates"
ASSETS_SUFFIX = "_files"
ASSET_NAME = re.compile(r"[0-9a-f]{16}\.(mp3|webp)")


@dataclass(frozen=True)
class ReportConfig:
    """The content of a report. `runs` and `synth` are folders, or None to leave that part out."""

    runs: str | None = "runs"
    synth: str | None = "synth"
    baseline: str | None = None
    split: bool = False  # write all sounds and pictures into files, instead of up to 25 MB into the page
    audit: bool = True


@dataclass(frozen=True)
class ReportResult:
    """The file of a page, and what it contains."""

    file: Path
    n_bytes: int  # of the page and its assets
    n_charts: int
    n_clips: int
    n_all_clips: int
    notes: tuple[str, ...]


def report(
    out: str | Path = "report.html",
    config: ReportConfig = ReportConfig(),
    *,
    real: SourceLike | None = None,
    reporter: Reporter | None = None,
) -> ReportResult:
    """Write a report page, and its assets if `config.split` is set.

    Args:
        real: the clips that `config.synth` was made from, or their location. Without them parents have no sound, and there is no audit.

    Raise UsageError if the page cannot be written, and SourceError if the runs or the dataset cannot be shown.
    """
    from usk.data.open import open_source
    from usk.evaluate.details import compare_in_detail, train_clips_sweeps
    from usk.manifest import find_manifest
    from usk.report.view import build_sections, build_view

    file = Path(out)
    _check_arguments(file, config)
    reporter = reporter or Reporter()
    source = None if real is None else open_source(real)
    all_details = compare_in_detail(config.runs, config.baseline) if config.runs is not None else []
    # The comparisons of best augmentations come first.
    all_details.sort(key=lambda details: not details.comparison.choices)
    sections = build_sections(
        all_details, train_clips_sweeps([details.comparison for details in all_details])
    )
    drawings = [[_draw(chart) for chart in section.charts] for section in sections]
    gallery = audit = manifest = None
    if config.synth is not None:
        from usk.report.gallery import build_gallery, rejected_source  # imports torch

        synthetic = open_source(config.synth, field="synth")
        manifest = find_manifest(expanded(config.synth))
        budget = None if config.split else BUDGET_BYTES - _reserved_bytes(drawings)
        gallery = build_gallery(
            synthetic,
            source,
            rejected=rejected_source(expanded(synthetic.location)),
            all_details=all_details,
            budget_bytes=budget,
            reporter=reporter,
        )
        audit = _audit(synthetic, source, config, reporter)
    assets = file.with_name(f"{file.stem}{ASSETS_SUFFIX}") if config.split else None
    view = build_view(sections, all_details, gallery, audit, manifest)
    copies = frozenset(() if audit is None else audit.near_copies)
    page = _render_page(view, drawings, gallery, copies, None if source is None else source.name, assets)
    return ReportResult(
        file=file,
        n_bytes=_write_files(file, page, assets, gallery),
        n_charts=sum(map(len, drawings)),
        n_clips=0 if gallery is None else len(gallery.clips),
        n_all_clips=0 if gallery is None else gallery.n_all + gallery.n_all_rejected,
        notes=() if gallery is None else gallery.notes,
    )


def _check_arguments(file: Path, config: ReportConfig) -> None:
    if config.runs is None and config.synth is None:
        raise UsageError(
            "there are neither runs nor a synthetic dataset to report on",
            hint="Make some with `usk synth` and `usk train`, or name them.",
        )
    if file.is_dir():
        raise UsageError(
            "is a folder", field="out", value=file, hint=f"Name a file, such as {file / 'report.html'}."
        )
    if file.suffix.lower() not in (".html", ".htm"):
        raise UsageError(
            "is not the name of an HTML page", field="out", value=file, hint="Name a file that ends in .html."
        )
    if config.runs is not None and not Path(config.runs).is_dir():
        raise UsageError(
            "no such folder", field="runs", value=config.runs, hint="Train some runs with `usk train`."
        )


def _audit(synthetic: Source, real: Source | None, config: ReportConfig, reporter: Reporter) -> Audit | None:
    """Audit the dataset with the default embedding of `usk audit`, so that the results agree."""
    from usk.audit.audit import audit
    from usk.audit.embeddings import AUTO, LOG_MEL, load_embedding

    if real is None or not config.audit:
        return None
    name, runs = (LOG_MEL, Path()) if config.runs is None else (AUTO, Path(config.runs))
    embedding = load_embedding(name, runs=runs, class_names=real.class_names)
    return audit(synthetic, real, embedding=embedding, reporter=reporter)


# --- the page --------------------------------------------------------------------------------------------------


def _render_page(
    view: dict[str, Any],
    drawings: Sequence[Sequence[dict[str, Any]]],
    gallery: Gallery | None,
    copies: frozenset[str],
    real_name: str | None,
    assets: Path | None,
) -> str:
    import jinja2
    import numpy as np

    from usk import __version__
    from usk.report.gallery_data import gallery_data

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: visible(value) if type(value) is str else value,
    )
    environment.filters["code"] = _format_code
    environment.policies["json.dumps_function"] = lambda value, **options: json.dumps(
        _visible(value), **options
    )
    script = (TEMPLATES / "report.js").read_text(encoding="utf-8")
    gradient = ", ".join("#" + bytes(color).hex() for color in magma(np.linspace(0, 1, 9)))
    style = (TEMPLATES / "report.css").read_text(encoding="utf-8").replace("{{ gradient }}", gradient)
    return environment.get_template("report.html").render(
        view=view,
        drawings=drawings,
        version=__version__,
        split=assets is not None,
        policy=_security_policy(script, split=assets is not None),
        css=Markup(style),
        js=Markup(script),
        listen=None if gallery is None else gallery_data(gallery, copies, assets.name if assets else None),
        real_name=real_name,
        made=datetime.now(UTC).strftime("%d %B %Y"),
    )


def _format_code(text: str) -> Markup:
    """Escape text, and turn parts in backticks into code elements."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(visible(text)))))


def _visible(value: Any) -> Any:
    """Apply `usk.text.visible` to all strings in a data structure."""
    if isinstance(value, dict):
        return {_visible(name): _visible(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_visible(item) for item in value]
    return visible(value) if isinstance(value, str) else value


def _security_policy(script: str, split: bool) -> str:
    """Return a content security policy that allows the page's script, by its digest, and its media."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    media = "'self' file:" if split else "data:"
    return (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src {media}; "
        f"media-src {media}; base-uri 'none'; form-action 'none'"
    )


def _draw(chart: Chart) -> dict[str, Any]:
    """Draw a chart for wide and narrow screens. A half chart is narrow on both."""
    return {
        "chart": chart,
        "size": "half" if chart.half else "full",
        "wide": Markup("" if chart.half else visible(chart.svg(narrow=False))),  # matplotlib escapes names
        "narrow": Markup(visible(chart.svg(narrow=True))),
    }


def _reserved_bytes(drawings: Sequence[Sequence[dict[str, Any]]]) -> int:
    """Return the part of the budget that clips cannot use: `RESERVED_BYTES`, or more if there are many charts."""
    drawn = [drawing[width] for section in drawings for drawing in section for width in ("wide", "narrow")]
    n_bytes = sum(len(svg.encode()) for svg in drawn)
    return RESERVED_BYTES + max(0, n_bytes - RESERVED_BYTES // 2)


# --- files ---------------------------------------------------------------------------------------------------


def _write_files(file: Path, page: str, assets: Path | None, gallery: Gallery | None) -> int:
    """Write the page and its assets, delete assets of an earlier page, and return the number of bytes."""
    from usk.report.gallery_data import unique_media

    n_bytes = len(page.encode())
    with disk_errors(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        if assets is not None and gallery is not None:
            assets.mkdir(exist_ok=True)
            files = {f"{media.key}.{media.suffix}": media.content for media in unique_media(gallery)}
            for name, content in files.items():
                atomic_write(assets / name, content, durable=False)
                n_bytes += len(content)
            for old in assets.iterdir():
                if ASSET_NAME.fullmatch(old.name) and old.name not in files:
                    old.unlink()
        atomic_write(file, page.encode(), durable=False)
    return n_bytes
