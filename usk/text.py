"""Format text for messages: plurals, lists, durations, progress."""

from __future__ import annotations

import re

CONTROL_CHARACTERS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""Characters that a terminal, editor or page would obey, including those that change the writing direction."""


def pluralize(n: int, noun: str) -> str:
    """Return `1 clip`, `2,148 clips`, `3 classes`."""
    return f"{n:,} {noun}{'' if n == 1 else 'es' if noun.endswith(('s', 'x')) else 's'}"


def abbreviate_list(names: list[str], shown: int = 3) -> str:
    """Return the first names and the number of others: `a, b, c and 5 more`."""
    head = ", ".join(names[:shown])
    return head if len(names) <= shown else f"{head} and {len(names) - shown} more"


def about(seconds: float) -> str:
    """Return a rough duration: `about 40 s`, `about 14 min`, `about 3 h`."""
    if seconds < 90:
        return f"about {max(1, round(seconds, -1 if seconds >= 10 else 0)):.0f} s"
    return f"about {seconds / 60:.0f} min" if seconds < 90 * 60 else f"about {seconds / 3600:.0f} h"


def visible(text: str) -> str:
    """Replace each control character in `text` by U+FFFD."""
    return CONTROL_CHARACTERS.sub("\ufffd", text)


PERCENT = "%"  # the unit of a task whose steps mean nothing to a user


def format_progress(done: int, total: int, unit: str) -> str:
    """Return `12 of 400 clips`, `12 clips` if `total` is 0 (unknown), or `3 %` if `unit` is `PERCENT`."""
    if unit == PERCENT and total:
        return f"{100 * done // total} %"
    return f"{done:,} {f'of {total:,}' if total else ''} {unit}".replace("  ", " ").rstrip()
