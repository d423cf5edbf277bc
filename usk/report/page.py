"""`usk.report`: one HTML page to look at and listen to, from what runs and a synthetic dataset's folder hold.

The figures come from `usk.evaluate`; this module arranges them and fills `templates/report.html`. Names of classes, mixes
and files are text everywhere: Jinja escapes them, the script uses them as text, and the page's content security policy
runs no other script and loads nothing from anywhere.
"""

from __future__ import annotations

import base64
import hashlib
import json
import platform
import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from usk.data.clip import NO_MODEL
from usk.errors import UsageError, disk_errors
from usk.report.charts import (
    Chart,
    Table,
    charts_of,
    file_name,
    paint,
    points_text,
    train_clips_charts,
)
from usk.text import pluralize

if TYPE_CHECKING:
    from usk.audit.audit import Audit
    from usk.data.source import Source
    from usk.evaluate.study import Study, Sweep
    from usk.manifest import Manifest
    from usk.report.gallery import Gallery, Media, ShownClip, Sound

DEFAULT_MAX_MB = 25.0
TEMPLATES = Path(__file__).parent / "templates"
ASSETS_SUFFIX = "_files"
VERDICT_MARKS = {1: ("better", "▲"), -1: ("worse", "▼"), 0: ("open", "≈")}  # by `Verdict.direction`
ASSET_NAME = re.compile(r"[0-9a-f]{16}\.(mp3|flac|webp)")
PACKAGES = ("torch", "torchaudio", "numpy", "scipy", "soundfile", "matplotlib")
CHART_ROOM_BYTES = 1_000_000  # of the budget, for everything that is no clip; half of it for charts

Bars = Callable[[str], Callable[..., None]]


@dataclass(frozen=True)
class ReportConfig:
    """What goes into a report.

    `runs` and `synth` are folders, None to leave that part out; `max_mb` (10^6 bytes) bounds the page, None means
    25 for one file and no bound for a split one.
    """

    runs: str | None = "runs"
    synth: str | None = "synth"
    baseline: str | None = None
    max_mb: float | None = None
    split: bool = False
    png: str | None = None  # folder for the charts as PNG
    audit: bool = True


@dataclass(frozen=True)
class ReportResult:
    """Where the page is and what is on it."""

    file: Path
    n_bytes: int  # of the page, with its assets
    n_charts: int
    n_clips: int
    n_all_clips: int
    pngs: tuple[Path, ...]
    notes: tuple[str, ...]


def report(
    out: str | Path = "report.html",
    config: ReportConfig = ReportConfig(),
    *,
    real: Source | None = None,
    bars: Bars | None = None,
) -> ReportResult:
    """Write the page, and its assets and charts where `config` asks for them.

    Args:
        real: the clips that `config.synth` was made from; without them parents cannot be heard and there is no audit.
        bars: names a progress bar, and returns its update (done, of).

    Raises: UsageError for what cannot be meant; SourceError for runs or a dataset that cannot be shown.
    """
    from usk.data.open import open_source
    from usk.evaluate.study import study_runs, sweeps_by_train_clips
    from usk.manifest import find_manifest
    from usk.report.gallery import gallery, rejected_source

    file = Path(out)
    _check(file, config)
    named = bars or (lambda name: lambda *_: None)
    notes: list[str] = []
    studies = study_runs(config.runs, config.baseline) if config.runs is not None else []
    studies.sort(key=lambda study: not study.comparison.choices)  # the comparison that counts comes first
    sweeps = sweeps_by_train_clips(studies)
    synthetic = None if config.synth is None else open_source(config.synth, flag="--synth")
    compared = _compared(studies, sweeps)
    shown, found, manifest = None, None, None
    if config.synth is not None and synthetic is not None:
        folder = Path(config.synth).expanduser()
        manifest = find_manifest(folder)
        max_mb = config.max_mb if config.max_mb is not None or config.split else DEFAULT_MAX_MB
        shown = gallery(
            synthetic,
            real,
            paint,
            rejected=rejected_source(folder) if folder.is_dir() else None,
            budget_bytes=None if max_mb is None else int(max_mb * 1e6) - _room_bytes(compared),
            embedded=not config.split,
            progress=named("compressing clips"),
            decoding=named("decoding"),
        )
        notes += shown.notes
        if real is None:
            notes.append("without the real clips parents cannot be heard: name them with --real")
        elif config.audit:
            from usk.audit.audit import audit
            from usk.audit.embeddings import LOG_MEL, embedding_named

            # As `usk audit` by default; of page and card the figures are then the same.
            embedding = (
                embedding_named(LOG_MEL)
                if config.runs is None
                else embedding_named(runs=Path(config.runs), class_names=real.class_names)
            )
            found = audit(
                synthetic,
                real,
                embedding=embedding,
            )
    charts: list[tuple[int | None, Chart]] = [(None, chart) for chart in train_clips_charts(sweeps)]
    for number, study in enumerate(studies):
        charts += [(number if len(studies) > 1 else None, chart) for chart in charts_of(study)]
    pngs = []
    if config.png is not None:
        for place, chart in charts:
            pngs.append(Path(config.png) / file_name(chart, place))
            chart.png(pngs[-1])
    assets = file.with_name(f"{file.stem}{ASSETS_SUFFIX}")
    page = _page(
        studies, compared, shown, found, manifest, real, config, assets.name if config.split else None
    )
    n_bytes = _write(file, page, assets if config.split else None, shown)
    return ReportResult(
        file=file,
        n_bytes=n_bytes,
        n_charts=len(charts),
        n_clips=0 if shown is None else len(shown.clips),
        n_all_clips=0 if shown is None else shown.n_all + shown.n_all_rejected,
        pngs=tuple(pngs),
        notes=tuple(notes),
    )


def _check(file: Path, config: ReportConfig) -> None:
    if config.runs is None and config.synth is None:
        raise UsageError(
            "nothing to report on: there are neither runs nor a synthetic dataset; make some with `usk synth` and "
            "`usk train`, or name them with --runs and --synth"
        )
    if config.max_mb is not None and not 2 <= config.max_mb <= 2000:
        raise UsageError(f"--max-mb {config.max_mb:g}: give the page 2 to 2000 MB")
    if file.is_dir():
        raise UsageError(f"--out {file} is a folder; name a file, such as {file / 'report.html'}")
    if file.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"--out {file}: browsers want a page's name to end in .html")
    if config.runs is not None and not Path(config.runs).is_dir():
        raise UsageError(f"--runs {config.runs}: no such folder; train some with `usk train`")


def _write(file: Path, page: str, assets: Path | None, shown: Gallery | None) -> int:
    """Page and assets, whole or not at all; assets of an earlier page with this name go."""
    from usk.files import atomic_write

    n_bytes = len(page.encode())
    with disk_errors(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        if assets is not None and shown is not None:
            assets.mkdir(exist_ok=True)
            files = {f"{one.key}.{one.suffix}": one.content for one in _media(shown)}
            for name, content in files.items():
                atomic_write(assets / name, content, durable=False)
                n_bytes += len(content)
            for old in assets.iterdir():
                if ASSET_NAME.fullmatch(old.name) and old.name not in files:
                    old.unlink()
        atomic_write(file, page.encode(), durable=False)
    return n_bytes


# --- the page --------------------------------------------------------------------------------------------------


def _page(
    studies: Sequence[Study],
    compared: dict[str, list[dict[str, Any]]],
    shown: Gallery | None,
    found: Audit | None,
    manifest: Manifest | None,
    real: Source | None,
    config: ReportConfig,
    assets: str | None,
) -> str:
    import jinja2
    import numpy as np

    from usk import __version__

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = (TEMPLATES / "report.js").read_text(encoding="utf-8")
    stops = ", ".join("#" + bytes(color).hex() for color in paint(np.linspace(0, 1, 9)))
    style = (TEMPLATES / "report.css").read_text(encoding="utf-8").replace("{{ gradient }}", stops)
    safe = _markup()
    return environment.get_template("report.html").render(
        version=__version__,
        split=assets is not None,
        title=_title(studies, shown),
        lead=_lead(studies, shown),
        policy=_policy(script, split=assets is not None),
        css=safe(style),
        js=safe(script),
        tabs=_tabs(studies, shown),
        **compared,
        listen=None if shown is None else _listen(shown, assets),
        audit=None if found is None else _audit(found),
        settings=_settings(manifest, studies),
        classes=None if shown is None else _classes(shown),
        commands=commands(manifest, studies, config, real),
        real_name=None if real is None else real.name,
        versions=_versions(),
        made=datetime.now(UTC).strftime("%d %B %Y"),
        license=_license(shown),
    )


def _markup() -> Callable[[str], Any]:
    from markupsafe import Markup

    return Markup


def _policy(script: str, split: bool) -> str:
    """The page's own script by its digest, its own media, and nothing else from anywhere."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    media = "'self' file:" if split else "data:"
    return (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src {media}; "
        f"media-src {media}; base-uri 'none'; form-action 'none'"
    )


def _title(studies: Sequence[Study], shown: Gallery | None) -> str:
    if studies:
        return "Do synthetic clips help?"
    assert shown is not None
    return f"Synthetic clips: {shown.name}"


def _lead(studies: Sequence[Study], shown: Gallery | None) -> str:
    said = []
    if studies:
        runs = {run.folder.name: run.mix for study in studies for run in study.runs}
        said.append(f"{pluralize(len(runs), 'run')} of {pluralize(len(set(runs.values())), 'mix')}")
    if shown is not None:
        n_classes = sum(part["clips"] > 0 for part in shown.classes)
        said.append(f"{pluralize(shown.n_all, 'synthetic clip')} of {pluralize(n_classes, 'class')}")
    return f"{', '.join(said)}."


def _tabs(studies: Sequence[Study], shown: Gallery | None) -> list[dict[str, str]]:
    found = []
    if studies:
        found.append({"id": "compare", "name": "Compare", "count": ""})
    if shown is not None:
        kept = sum(not clip.rejected for clip in shown.clips)
        found.append({"id": "listen", "name": "Listen", "count": f"{kept:,}"})
        if len(shown.clips) > kept:
            found.append({"id": "rejected", "name": "Rejected", "count": f"{len(shown.clips) - kept:,}"})
    return [*found, {"id": "trust", "name": "Trust", "count": ""}]


def _compared(studies: Sequence[Study], sweeps: Sequence[Sweep]) -> dict[str, list[dict[str, Any]]]:
    """What the tab Compare shows: first what goes over several comparisons, then each of them."""
    return {
        "sweeps": [
            {
                "heading": f"By train_clips: {sweep.setting}",
                "warning": sweep.warning,
                "charts": [_chart(chart)],
            }
            for sweep, chart in zip(sweeps, train_clips_charts(sweeps), strict=True)
        ],
        "studies": [_study(study) for study in studies],
    }


def _room_bytes(compared: dict[str, list[dict[str, Any]]]) -> int:
    """What clips leave of the budget: the room for charts and all else, and more where there are many charts."""
    charts = (chart for parts in compared.values() for part in parts for chart in part["charts"])
    n_bytes = sum(len(chart[width].encode()) for chart in charts for width in ("wide", "narrow"))
    return CHART_ROOM_BYTES + max(0, n_bytes - CHART_ROOM_BYTES // 2)


def _study(study: Study) -> dict[str, Any]:
    comparison = study.comparison
    verdicts = []
    for row in comparison.rows:
        if row.difference is None:
            continue
        kind, sign = VERDICT_MARKS[row.verdict.direction]
        verdicts.append(
            {
                "mix": row.mix,
                "baseline": comparison.baseline,
                "kind": kind,
                "sign": sign,
                "points": points_text(row.difference.difference_points),
                "sentence": row.sentence,
            }
        )
    return {
        "heading": comparison.title,
        "warning": comparison.warning,
        "verdicts": verdicts,
        "notes": [*comparison.notes, *study.notes],
        "table": _mixes(study),
        "charts": [_chart(chart) for chart in charts_of(study)],
    }


def _mixes(study: Study) -> Table:
    from usk.evaluate.tables import mix_table

    table = mix_table(study.comparison)
    headers = tuple(column.header for column in table.columns)
    return Table(
        headers,
        tuple(
            tuple(cell.replace("-", "\u2212") if place else cell for place, cell in enumerate(row))
            for row in table.rows
        ),
    )


def _chart(chart: Chart) -> dict[str, Any]:
    safe = _markup()  # matplotlib escapes the names that it writes into SVG
    half = chart.name.startswith(("classes-", "curve-", "sweep-"))
    return {
        "title": chart.title,
        "caption": chart.caption,
        "description": chart.description,
        "size": "half" if half else "full",
        "wide": "" if half else safe(chart.svg(narrow=False)),
        "narrow": safe(chart.svg(narrow=True)),
        "table": chart.table,
    }


def _media(shown: Gallery) -> list[Media]:
    """Every sound and picture once."""
    found = [media for sound in shown.sounds for media in (sound.picture, sound.audio)]
    return list({media.key: media for media in found}.values())


def _listen(shown: Gallery, assets: str | None) -> dict[str, Any]:
    sounds = shown.sounds
    number = {sound.clip_id: index for index, sound in enumerate(sounds)}

    def place(media: Media) -> dict[str, str]:
        if assets is not None:
            return {"url": f"{_url(assets)}/{media.key}.{media.suffix}"}
        return {"key": media.key, "mime": media.mime}

    def sound(one: Sound) -> dict[str, Any]:
        return {
            "cls": one.class_name,
            "dur": round(one.duration_s, 2),
            "picture": place(one.picture),
            "audio": place(one.audio),
        }

    def clip(at: int, one: ShownClip) -> dict[str, Any]:
        return {
            "at": at,
            "id": one.clip.clip_id,
            "cls": one.sound.class_name,
            "sound": number[one.sound.clip_id],
            "parents": [None if parent is None else number[parent.clip_id] for parent in one.parents],
            "alpha": one.clip.alpha,
            "dist": one.distances,
            "near": one.nearest,
            "score": one.clip.filter_score,
            "fold": one.clip.fold,
            "strategy": one.clip.strategy,
            "rejected": one.rejected,
            "row": _provenance(one),
        }

    kept = sum(not one.rejected for one in shown.clips)
    beside = "beside its parents" if shown.real_name else "(its parents' sound was not given)"
    data = {
        "clips": [clip(at, one) for at, one in enumerate(shown.clips)],
        "sounds": [sound(one) for one in sounds],
    }
    return {
        "lead": f"Each synthetic clip {beside}. Distances are between log-mel statistics: 1 is what lies between two "
        "real clips in the median.",
        "notes": shown.notes,
        "low_db": f"−{shown.range_db:.0f}",
        "has_rejected": kept < len(shown.clips),
        "data": _markup()(_script_json(data)),
        "media": [] if assets is not None else _media(shown),
    }


def _script_json(value: Any) -> str:
    """JSON that ends no script element, whatever its texts hold."""
    text = json.dumps(value, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _url(name: str) -> str:
    from urllib.parse import quote

    return quote(name)


def _provenance(one: ShownClip) -> list[tuple[str, str]]:
    clip = one.clip
    parts = zip(clip.parent_names or clip.parents, clip.parent_groups, clip.parent_folds, strict=True)
    letters = [
        *"ABCDEFGHIJKLMNOPQR",
        *map(str, range(19, len(clip.parents) + 1)),
    ]  # as report.js has them: S is the clip
    return [
        ("clip", clip.clip_id),
        *(
            (f"parent {letter}", f"{parent}, recording {group}, fold {fold}")
            for letter, (parent, group, fold) in zip(letters, parts, strict=False)
        ),
        ("strategy", clip.strategy),
        ("alpha", f"{clip.alpha:g}"),
        ("seed", str(clip.seed)),
        ("steps", str(clip.steps)),
        ("model", clip.model),
        ("gain", f"{clip.gain_db:+.1f} dB"),
        ("clip_filter score", "not judged" if clip.filter_score is None else f"{clip.filter_score:.3f}"),
    ]


def _audit(found: Audit) -> dict[str, Any]:
    from usk.audit.tables import audit_tables, findings

    return {"found": findings(found), "tables": audit_tables(found), "notes": found.notes}


def _classes(shown: Gallery) -> Table:
    rows = [
        (part["class"], f"{part['clips']:,}", f"{part['seconds']:,.1f}",
         f"{part['seconds'] / part['clips']:.2f}")
        for part in shown.classes
        if part["clips"]
    ]  # fmt: skip
    return Table(("class", "clips", "seconds", "mean seconds"), tuple(rows))


def _settings(manifest: Manifest | None, studies: Sequence[Study]) -> list[dict[str, Any]]:
    parts = []
    if manifest is not None:
        trained_on = [
            f"{part.source} folds {' '.join(map(str, part.folds))} ({pluralize(len(part.groups), 'recording')})"
            for part in manifest.trained_on
        ]
        without = manifest.model == NO_MODEL
        facts: dict[str, Any] = {
            "model": manifest.model,
            "alpha": manifest.alpha,
            "seed": manifest.seed,
            "precision": manifest.precision,
            "sample rate Hz": manifest.sample_rate_hz,
            "license": manifest.license,
            "plan SHA-256": manifest.plan_sha256,
            **{f"source {name}": value for name, value in vars(manifest.source).items() if value},
            "generator trained on": "nothing: none was used"
            if without
            else "; ".join(trained_on) or "unknown",
            **{name: value for name, value in manifest.render.items() if name != "precision"},
            **{f"mel {name}": value for name, value in (manifest.mel or {}).items()},
        }
        if manifest.clip_filter is not None:
            facts["classifier filter"] = manifest.clip_filter.classifier
            facts["share kept"] = manifest.clip_filter.share_kept
        parts.append({"title": "Configuration of the clips", "facts": _plain(facts)})
    for study in studies:
        parts.append(
            {"title": f"Configuration of the runs: {study.comparison.title}", "facts": _plain(study.settings)}
        )
    return parts


def _plain(facts: dict[str, Any]) -> list[tuple[str, str]]:
    def text(value: Any) -> str:
        if isinstance(value, bool):
            return "yes" if value else "no"
        if isinstance(value, float):
            return f"{value:g}"
        return value if isinstance(value, str) else json.dumps(value)

    return [(name.replace("_", " "), text(value)) for name, value in facts.items() if value is not None]


def _versions() -> list[tuple[str, str]]:
    from usk import __version__

    return [
        ("usk", __version__),
        ("Python", platform.python_version()),
        *((name, metadata.version(name)) for name in PACKAGES),
    ]


def _license(shown: Gallery | None) -> str:
    if shown is None:
        return ""
    said = [f"Synthetic clips: {shown.license}."]
    if shown.real_name:
        said.append(f"Parents: {shown.real_name}, {shown.real_license}.")
    return " ".join(said)


def commands(
    manifest: Manifest | None, studies: Sequence[Study], config: ReportConfig, real: Source | None = None
) -> list[str]:
    """What to type to get the same clips, runs and page; nothing for clips and runs of which the records do not tell all.

    `real`: the real clips, where the report has them."""
    source = manifest.source if manifest is not None else None
    if source is not None and source.hub_id:
        from_real = ["--real", f"{source.hub_id}@{source.revision}"]
    else:
        demo = source is not None and source.name == "demo"
        place = "demo" if demo else real.location if real is not None else None
        from_real = ["--real", place] if place is not None else []
    lines = []
    synth = config.synth or "synth"
    if manifest is not None:
        if (
            manifest.train_clips is not None
        ):  # `usk synth --train-clips` makes it as one of several in a folder
            synth = str(Path(synth).parent)
        if manifest.arguments:
            to = [] if synth == "synth" else ["--out", synth]
            lines.append(shlex.join(["usk", *manifest.arguments, *to]))
    runs = config.runs or "runs"
    lines += _train_commands(studies, runs, synth, from_real)
    if studies:
        lines.append(shlex.join(["usk", "eval", *([] if runs == "runs" else [runs])]))
    again = ["usk", "report"]
    for flag, value in (("--runs", config.runs), ("--synth", config.synth), ("--baseline", config.baseline)):
        if value is not None and value != flag.removeprefix("--"):
            again += [flag, value]
    if config.max_mb is not None:
        again += ["--max-mb", f"{config.max_mb:g}"]
    again += ["--split"] * config.split + ["--no-audit"] * (not config.audit)
    return [line for line in (*lines, shlex.join([*again, *from_real])) if line]


def _train_commands(studies: Sequence[Study], out: str, synth: str, from_real: Sequence[str]) -> list[str]:
    """A line for the mixes of a comparison that were trained at the same folds with the same seeds, with every augmentation
    that they were trained with alike. Nothing for those without every seed at every fold, or not trained alike."""
    lines: dict[
        tuple[tuple[str, ...], tuple[str, ...]], dict[str, None]
    ] = {}  # before and after, with the augmentations
    told: set[str] = set()
    for study in sorted(studies, key=lambda study: bool(study.comparison.choices)):
        if all(
            run.folder.name in told for run in study.runs
        ):  # at the best augmentations: runs of the others again
            continue
        told |= {run.folder.name for run in study.runs}
        alike: dict[tuple[tuple[int, ...], tuple[int, ...]], list[str]] = {}
        for row in study.comparison.rows:
            subsets = {(_test_fold(run.split), run.seed) for run in study.runs if run.mix == row.mix}
            folds, seeds = (sorted({subset[place] for subset in subsets}) for place in (0, 1))
            if subsets and len(subsets) == len(folds) * (seeds[-1] - seeds[0] + 1):
                alike.setdefault((tuple(folds), tuple(seeds)), []).append(row.mix)
        for (of_folds, of_seeds), mixes in alike.items():
            options = _train_options(study, of_folds, of_seeds, mixes, synth)
            if options is not None:
                lines.setdefault(options, {}).update(dict.fromkeys(study.comparison.augments))
    to = [] if out == "runs" else ["--out", out]
    return [
        shlex.join(["usk", "train", *from_real, *before, "--augment", ",".join(augments), *after, *to])
        for (before, after), augments in lines.items()
    ]


def _test_fold(split: str) -> int:
    """Of the protocol `folds`; 0 in the others, of which a seed has one split."""
    return int(split.removeprefix("fold")) if re.fullmatch(r"fold\d+", split) else 0


def _train_options(
    study: Study, folds: Sequence[int], seeds: Sequence[int], mixes: Sequence[str], synth: str
) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    """What `usk train` was told before and after `--augment`; None for runs of different lengths."""
    comparison, settings = study.comparison, study.settings
    epochs = {run.epochs for run in study.runs if run.mix in mixes}
    if len(epochs) > 1:
        return None
    before = [part for mix in mixes for part in ("--mix", mix)]
    if synth != "synth" and any(part.split(":")[0] == "synth" for mix in mixes for part in mix.split(",")):
        before += ["--synth", synth]
    before += ["--no-baseline", "--classifier", comparison.classifier]
    after = ["--protocol", comparison.protocol]
    if comparison.protocol == "folds":
        after += ["--test-folds", ",".join(map(str, folds))]
    after += ["--seed", str(seeds[0])] if seeds[0] else []
    after += ["--seeds", str(len(seeds))]
    if comparison.train_clips is not None:
        after += ["--train-clips", str(comparison.train_clips)]
    after += ["--epochs", str(epochs.pop())]
    for name in ("batch", "learning_rate"):  # in every record, but for those of another usk
        after += [f"--{name.replace('_', '-')}", f"{settings[name]:g}"] if name in settings else []
    return tuple(before), tuple(after)
