"""Licences of sources, and what they pass on to what is made from them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

UNKNOWN = "unknown"
SHARE_ALIKE = frozenset({"sa", "gpl", "agpl", "lgpl", "odbl"})
PUBLIC_DOMAIN = frozenset({"cc0", "pddl", "unlicense"})


def _words(license_name: str) -> set[str]:
    return set(re.split(r"[^a-z0-9.]+", license_name.lower()))


def is_noncommercial(license_name: str) -> bool:
    words = _words(license_name)
    return "nc" in words or "noncommercial" in words or {"non", "commercial"} <= words


def strictest_license(names: Iterable[str]) -> str:
    """The licence that a work made from all of these inherits: non-commercial before no-derivatives before unknown before
    share-alike before the others before public domain.

    Not legal advice: the order only makes sure that a restriction never gets lost on the way.
    """
    ranked = sorted(set(names), key=lambda name: (_laxity(name), name))
    return ranked[0] if ranked else UNKNOWN


def _laxity(name: str) -> int:
    words = _words(name)
    if is_noncommercial(name):
        return 0 if words & {"nd", "sa"} else 1
    if "nd" in words:
        return 2
    if name == UNKNOWN or not words - {""}:
        return 3
    if words & SHARE_ALIKE:
        return 4
    return 6 if words & PUBLIC_DOMAIN else 5


def one_license(names: Sequence[str]) -> str:
    """The licence where several are stated, which may be spellings of the same: the strictest, as spelt first."""
    spelt = {tuple(sorted(_words(name))): name for name in reversed(names)}
    return strictest_license(spelt.values())


def license_of_card(folder: Path) -> str | None:
    """The licence that the metadata of a folder's README.md states: of several the strictest, of `other` its name."""
    card = folder / "README.md"
    if not card.is_file():
        return None
    from huggingface_hub import RepoCard

    try:
        metadata: dict[str, Any] = RepoCard.load(card, ignore_metadata_errors=True).data.to_dict()
    except Exception:  # a file that somebody wrote: what cannot be read says nothing
        return None
    stated = metadata.get("license")
    names = [
        name for name in (stated if isinstance(stated, list) else [stated]) if isinstance(name, str) and name
    ]
    named = metadata.get("license_name")
    names = [named if name == "other" and isinstance(named, str) and named else name for name in names]
    return strictest_license(names) if names else None
