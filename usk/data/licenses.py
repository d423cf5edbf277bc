"""Licences of sources, and what they pass on to what is made from them."""

from __future__ import annotations

from collections.abc import Iterable

UNKNOWN = "unknown"


def is_noncommercial(license_name: str) -> bool:
    return "nc" in license_name.lower().replace("-", " ").split()


def strictest_license(names: Iterable[str]) -> str:
    """The licence that a work made from all of these inherits: non-commercial before unknown before the others.

    Not legal advice: the order only makes sure that a restriction never gets lost on the way.
    """
    ranked = sorted(
        set(names),
        key=lambda name: (not is_noncommercial(name), name != UNKNOWN, name.startswith("CC0"), name),
    )
    return ranked[0] if ranked else UNKNOWN
