"""Compare the licenses of sources, to find the one that a work made from them inherits."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from usk.cards import card_metadata

UNKNOWN = "unknown"
SHARE_ALIKE = frozenset({"sa", "sharealike", "odbl", "mpl", "epl", "eupl", "osl", "copyleft"})
GPL = re.compile(r"[al]?gpl(v?\d.*)?")
PUBLIC_DOMAIN = frozenset({"cc0", "pddl", "unlicense", "publicdomain"})
PERMISSIVE = frozenset({  # words in names of licenses that require at most attribution
    "mit", "apache", "apache2", "bsd", "0bsd", "isc", "attribution", "wtfpl", "zlib", "ncsa", "bsl", "boost", "afl", "ecl",
    "postgresql", "permissive",
})  # fmt: skip


def _words(license_name: str) -> set[str]:
    return set(re.split(r"[^a-z0-9.]+", license_name.lower()))


def is_noncommercial(license_name: str) -> bool:
    words = _words(license_name)
    return "nc" in words or "noncommercial" in words or {"non", "commercial"} <= words


def strictest_license(names: Iterable[str]) -> str:
    """Return the strictest of several licenses, which a work made from all of them inherits.

    The order is non-commercial, no derivatives, unknown licenses, share-alike, permissive, public domain. This is not legal
    advice: the order only makes sure that no restriction gets lost.
    """
    return min(set(names), key=lambda name: (_rank(name), name == UNKNOWN, name), default=UNKNOWN)


def _rank(name: str) -> int:
    """Return the place of a license in the order, from 0 for the strictest."""
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
    return 5 if by or words & PERMISSIVE else 3  # 3: unknown, such as `other` or `all rights reserved`


def one_license(names: Sequence[str]) -> str:
    """Return the strictest of the licenses that a source states. Of different spellings, return the first."""
    first_spelling = {tuple(sorted(_words(name))): name for name in reversed(names)}
    return strictest_license(first_spelling.values())


def license_of_card(folder: Path) -> str | None:
    """Return the license in the metadata of a folder's README.md, or None: the strictest of several, and the name of `other`."""
    try:
        metadata = card_metadata((folder / "README.md").read_text(encoding="utf-8"))
    except (OSError, ValueError):  # no README.md, or damaged metadata
        return None
    stated, other_name = metadata.get("license"), metadata.get("license_name")
    names = stated if isinstance(stated, list) else [stated]
    if isinstance(other_name, str) and other_name:
        names = [other_name if name == "other" else name for name in names]
    licenses = [name for name in names if isinstance(name, str) and name]
    return strictest_license(licenses) if licenses else None
