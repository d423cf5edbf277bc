"""Convert a gallery to plain values for the page's template and script."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

if TYPE_CHECKING:
    from usk.report.gallery import Gallery
    from usk.report.media import Media, Sound
    from usk.report.sound_library import ShownChange, ShownClip

PARENT_LETTERS = "ABCDEFGHIJKLMNOPQR"  # S is the clip itself


def gallery_data(gallery: Gallery, copies: frozenset[str], assets: str | None) -> dict[str, Any]:
    """Return the template's variables, and the script's input as `data`.

    `copies` are the ids of near-copies of real clips. `assets` is the folder of the media, or None if the page contains them.
    """
    from usk.report.media import RANGE_DB  # imports torch

    number_of = {sound.clip_id: number for number, sound in enumerate(gallery.sounds)}
    synthetic = {shown.sound.clip_id for shown in gallery.clips}
    data = {
        "clips": [
            *(_clip_data(number, shown, number_of) for number, shown in enumerate(gallery.clips)),
            *(_change_data(number, shown, number_of) for number, shown in enumerate(gallery.changes)),
        ],
        "sounds": [_sound_data(sound, assets, sound.clip_id not in synthetic) for sound in gallery.sounds],
        "places": [gallery.positions.get(sound.clip_id) for sound in gallery.sounds],
        "copies": [number_of[one.sound.clip_id] for one in gallery.clips if one.clip.clip_id in copies],
    }
    n_rejected = sum(shown.rejected for shown in gallery.clips)
    return {
        "with_parents": gallery.real_name is not None,
        "notes": gallery.notes,
        "low_db": f"\u2212{RANGE_DB:.0f}",
        "n_kept": len(gallery.clips) - n_rejected,
        "n_rejected": n_rejected,
        "n_changed": len(gallery.changes),
        "with_map": bool(gallery.positions),
        "data": data,
        "media": [] if assets is not None else unique_media(gallery),
    }


def _clip_data(number: int, shown: ShownClip, number_of: Mapping[str, int]) -> dict[str, Any]:
    clip, sound = shown.clip, shown.sound
    parents = [
        [letter, f"parent {letter}", None if parent is None else number_of[parent.clip_id]]
        for letter, parent in zip(_parent_letters(shown), shown.parents, strict=True)
    ]
    synthetic = ["S", "synthetic", number_of[sound.clip_id]]
    distances = ["–" if distance is None else f"{distance:.2f}" for distance in shown.distances]
    tags = {
        "filter score": "" if clip.filter_score is None else f"{clip.filter_score:.2f}",
        "alpha": f"{clip.alpha:.2f}" if len(clip.parents) > 1 else "",
        "distance": "" if shown.nearest is None else " / ".join(distances),
        "fold": "across" if clip.fold == 0 else str(clip.fold),
        "": clip.strategy,
    }
    return {
        "at": number,
        "id": clip.clip_id,
        "kind": "rejected" if shown.rejected else "kept",
        "cls": sound.class_name,
        "sound": number_of[sound.clip_id],
        "sides": [*parents[:1], synthetic, *parents[1:]],
        "tags": [entry for entry in tags.items() if entry[1]],
        "near": shown.nearest,
        "score": clip.filter_score,
        "fold": clip.fold,
        "strategy": clip.strategy,
        "row": _provenance(shown),
    }


def _change_data(number: int, shown: ShownChange, number_of: Mapping[str, int]) -> dict[str, Any]:
    change, sound = shown.change, shown.sound
    nearest = [
        (letter, f"synthetic {near.class_name}", number_of[near.clip_id])
        for letter, near in zip(PARENT_LETTERS, shown.nearest, strict=False)
    ]
    before, now = (f"{n} of {change.n_pairs}" for n in (change.n_before, change.n_now))
    return {
        "at": number,
        "id": sound.clip_id,
        "kind": "changed",
        "cls": sound.class_name,
        "sound": number_of[sound.clip_id],
        "sides": [("S", "test clip", number_of[sound.clip_id]), *nearest],
        "tags": [
            (f"right with {change.baseline} in", before),
            (f"with {change.mix} in", f"{now} runs" if change.n_pairs > 1 else f"{now} run"),
            ("taken for", change.wrong),
        ],
        "comparison": change.comparison,
        "mix": change.mix,
        "change": "wrong before, right now" if change.is_better else "right before, wrong now",
        "wrong": change.wrong,
        "changed": abs(change.n_now - change.n_before),
        "fold": sound.fold,
        "row": [("clip", sound.clip_id), ("recording", sound.group), ("fold", str(sound.fold))],
    }


def _parent_letters(shown: ShownClip) -> list[str]:
    """Return a letter for each parent, and numbers if there are more parents than letters."""
    n = len(shown.clip.parents)
    return [*PARENT_LETTERS[:n], *map(str, range(len(PARENT_LETTERS) + 1, n + 1))]


def _sound_data(sound: Sound, assets: str | None, is_real: bool) -> dict[str, Any]:
    def location(media: Media) -> dict[str, str]:
        if assets is None:
            return {"key": media.key, "mime": media.mime}
        return {"url": f"{quote(assets)}/{media.key}.{media.suffix}"}

    return {
        "id": sound.clip_id,
        "cls": sound.class_name,
        "real": is_real,
        "dur": round(sound.duration_s, 2),
        "peaks": sound.peaks,
        "picture": location(sound.picture),
        "audio": location(sound.audio),
    }


def _provenance(shown: ShownClip) -> list[tuple[str, str]]:
    clip = shown.clip
    names = clip.parent_names or clip.parents
    parents = zip(_parent_letters(shown), names, clip.parent_groups, clip.parent_folds, strict=False)
    return [
        ("clip", clip.clip_id),
        *((f"parent {letter}", f"{name}, recording {group}, fold {fold}") for letter, name, group, fold in parents),
        ("strategy", clip.strategy),
        *([("prompt", clip.prompt)] if clip.prompt else []),
        ("alpha", f"{clip.alpha:g}"),
        ("seed", str(clip.seed)),
        ("steps", str(clip.steps)),
        ("model", clip.model),
        ("gain", f"{clip.gain_db:+.1f} dB"),
        ("filter score", "not scored" if clip.filter_score is None else f"{clip.filter_score:.3f}"),
    ]  # fmt: skip


def unique_media(gallery: Gallery) -> list[Media]:
    """Return all sounds and pictures without duplicates."""
    media = [medium for sound in gallery.sounds for medium in (sound.picture, sound.audio)]
    return list({medium.key: medium for medium in media}.values())
