"""What the page's template and script get of a gallery, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

if TYPE_CHECKING:
    from usk.report.gallery import Gallery
    from usk.report.media import Media, Sound
    from usk.report.studio import ShownChange, ShownClip

PARENT_LETTERS = "ABCDEFGHIJKLMNOPQR"  # S is the clip itself


def listen(shown: Gallery, copies: frozenset[str], assets: str | None) -> dict[str, Any]:
    """What the template and the script get of the gallery. `copies` are the ids of near-copies of real clips, `assets` is the folder
    of the media, None where they are inside."""
    number = {sound.clip_id: index for index, sound in enumerate(shown.sounds)}
    synthetic = {one.sound.clip_id for one in shown.clips}
    data = {
        "clips": [
            *(_clip_data(at, one, number) for at, one in enumerate(shown.clips)),
            *(_change_data(at, one, number) for at, one in enumerate(shown.changes)),
        ],
        "sounds": [_sound_data(one, assets, one.clip_id not in synthetic) for one in shown.sounds],
        "places": [shown.places.get(one.clip_id) for one in shown.sounds],
        "copies": [number[one.sound.clip_id] for one in shown.clips if one.clip.clip_id in copies],
    }
    n_rejected = sum(one.rejected for one in shown.clips)
    return {
        "with_parents": shown.real_name is not None,
        "notes": shown.notes,
        "low_db": f"\u2212{shown.range_db:.0f}",
        "n_kept": len(shown.clips) - n_rejected,
        "n_rejected": n_rejected,
        "n_changed": len(shown.changes),
        "with_map": bool(shown.places),
        "data": data,
        "media": [] if assets is not None else media_of(shown),
    }


def _clip_data(at: int, one: ShownClip, number: Mapping[str, int]) -> dict[str, Any]:
    clip = one.clip
    parents = [None if parent is None else number[parent.clip_id] for parent in one.parents]
    named = [
        [letter, f"parent {letter}", sound] for letter, sound in zip(_letters(one), parents, strict=True)
    ]
    synthetic = ["S", "synthetic", number[one.sound.clip_id]]
    distances = ["–" if distance is None else f"{distance:.2f}" for distance in one.distances]
    tags = {
        "filter score": "" if clip.filter_score is None else f"{clip.filter_score:.2f}",
        "alpha": f"{clip.alpha:.2f}" if len(clip.parents) > 1 else "",
        "distance": "" if one.nearest is None else " / ".join(distances),
        "fold": "across" if clip.fold == 0 else str(clip.fold),
        "": clip.strategy,
    }
    return {
        "at": at,
        "id": clip.clip_id,
        "kind": "rejected" if one.rejected else "kept",
        "cls": one.sound.class_name,
        "sound": number[one.sound.clip_id],
        "sides": [*named[:1], synthetic, *named[1:]],
        "tags": [entry for entry in tags.items() if entry[1]],
        "near": one.nearest,
        "score": clip.filter_score,
        "fold": clip.fold,
        "strategy": clip.strategy,
        "row": _provenance(one),
    }


def _change_data(at: int, one: ShownChange, number: Mapping[str, int]) -> dict[str, Any]:
    change = one.change
    nearest = [
        (letter, f"synthetic {near.class_name}", number[near.clip_id])
        for letter, near in zip(PARENT_LETTERS, one.nearest, strict=False)
    ]
    before, now = (f"{n} of {change.n_pairs}" for n in (change.n_before, change.n_now))
    return {
        "at": at,
        "id": one.sound.clip_id,
        "kind": "changed",
        "cls": one.sound.class_name,
        "sound": number[one.sound.clip_id],
        "sides": [("S", "test clip", number[one.sound.clip_id]), *nearest],
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
        "fold": one.sound.fold,
        "row": [("clip", one.sound.clip_id), ("recording", one.sound.group), ("fold", str(one.sound.fold))],
    }


def _letters(one: ShownClip) -> list[str]:
    n = len(one.clip.parents)
    return [*PARENT_LETTERS[:n], *map(str, range(len(PARENT_LETTERS) + 1, n + 1))]


def _sound_data(one: Sound, assets: str | None, is_real: bool) -> dict[str, Any]:
    def place(media: Media) -> dict[str, str]:
        if assets is None:
            return {"key": media.key, "mime": media.mime}
        return {"url": f"{quote(assets)}/{media.key}.{media.suffix}"}

    return {
        "id": one.clip_id,
        "cls": one.class_name,
        "real": is_real,
        "dur": round(one.duration_s, 2),
        "peaks": one.peaks,
        "picture": place(one.picture),
        "audio": place(one.audio),
    }


def _provenance(one: ShownClip) -> list[tuple[str, str]]:
    clip = one.clip
    parents = zip(
        _letters(one), clip.parent_names or clip.parents, clip.parent_groups, clip.parent_folds, strict=False
    )
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


def media_of(shown: Gallery) -> list[Media]:
    """Every sound and picture once."""
    found = [media for sound in shown.sounds for media in (sound.picture, sound.audio)]
    return list({media.key: media for media in found}.values())
