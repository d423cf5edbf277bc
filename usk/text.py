"""Words for messages: numbers with their noun, and long lists cut short."""

from __future__ import annotations

import re

OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""Control characters, and those that turn the direction of writing: what a terminal, an editor or a page would obey."""


def pluralize(n: int, noun: str) -> str:
    """`1 clip`, `2,148 clips`, `3 classes`."""
    return f"{n:,} {noun}{'' if n == 1 else 'es' if noun.endswith(('s', 'x')) else 's'}"


def abbreviate_list(names: list[str], shown: int = 3) -> str:
    """The first few of `names` for a message: `a, b, c and 5 more`."""
    head = ", ".join(names[:shown])
    return head if len(names) <= shown else f"{head} and {len(names) - shown} more"


def about(seconds: float) -> str:
    """`about 40 s`, `about 14 min`, `about 3 h`: as exactly as one can know."""
    if seconds < 90:
        return f"about {max(1, round(seconds, -1 if seconds >= 10 else 0)):.0f} s"
    return f"about {seconds / 60:.0f} min" if seconds < 90 * 60 else f"about {seconds / 3600:.0f} h"


def visible(text: str) -> str:
    """`text` with a mark in place of every character that would be obeyed and not shown."""
    return OBEYED.sub("\ufffd", text)


SHARE = "%"  # the unit of work whose parts are nothing that a user counts


def how_far(done: int, total: int, unit: str) -> str:
    """`12 of 400 clips`; `12 clips` where `total` is 0, unknown; `3 %` where the unit is `SHARE`."""
    if unit == SHARE and total:
        return f"{100 * done // total} %"
    return f"{done:,} {f'of {total:,}' if total else ''} {unit}".replace("  ", " ").rstrip()
