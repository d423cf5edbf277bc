"""Licenses of sources, and what they pass on to what is made from them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from usk.cards import card_metadata

UNKNOWN = "unknown"
SHARE_ALIKE = frozenset({"sa", "sharealike", "odbl", "mpl", "epl", "eupl", "osl", "copyleft"})
GPL = re.compile(r"[al]?gpl(v?\d.*)?")
PUBLIC_DOMAIN = frozenset({"cc0", "pddl", "unlicense", "publicdomain"})
PERMISSIVE = frozenset({  # words by which licenses are known that ask for credit at most
    "mit", "apache", "apache2", "bsd", "0bsd", "isc", "attribution", "wtfpl", "zlib", "ncsa", "bsl", "boost", "afl", "ecl",
    "postgresql", "permissive",
})  # fmt: skip


def _words(license_name: str) -> set[str]:
    return set(re.split(r"[^a-z0-9.]+", license_name.lower()))


def is_noncommercial(license_name: str) -> bool:
    words = _words(license_name)
    return "nc" in words or "noncommercial" in words or {"non", "commercial"} <= words


def strictest_license(names: Iterable[str]) -> str:
    """The license that a work made from all of these inherits: non-commercial before no-derivatives before those that are not
    known here before share-alike before permissive before public domain.

    Not legal advice: the order only makes sure that a restriction never gets lost on the way.
    """
    ranked = sorted(set(names), key=lambda name: (_laxity(name), name == UNKNOWN, name))
    return ranked[0] if ranked else UNKNOWN


def _laxity(name: str) -> int:
    words = _words(name)
    if is_noncommercial(name):
        return 0 if words & {"nd", "sa"} else 1
    if "nd" in words:
        return 2
    if words & SHARE_ALIKE or any(map(GPL.fullmatch, words)):
        return 4
    if words & PUBLIC_DOMAIN or {"public", "domain"} <= words:
        return 6
    by = "by" in words and bool(words & {"cc", "odc"})
    return 5 if by or words & PERMISSIVE else 3  # an own license, `other`, `all rights reserved`: who knows


def one_license(names: Sequence[str]) -> str:
    """The license where several are stated, which may be spellings of the same: the strictest, as spelt first."""
    spelt = {tuple(sorted(_words(name))): name for name in reversed(names)}
    return strictest_license(spelt.values())


def license_of_card(folder: Path) -> str | None:
    """The license that the metadata of a folder's README.md states: of several the strictest, of `other` its name."""
    try:
        metadata = card_metadata((folder / "README.md").read_text(encoding="utf-8"))
    except (OSError, ValueError):  # a file that somebody wrote: what cannot be read says nothing
        return None
    stated = metadata.get("license")
    names = [
        name for name in (stated if isinstance(stated, list) else [stated]) if isinstance(name, str) and name
    ]
    named = metadata.get("license_name")
    names = [named if name == "other" and isinstance(named, str) and named else name for name in names]
    return strictest_license(names) if names else None
