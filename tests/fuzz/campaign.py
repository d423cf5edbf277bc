"""What the campaign stands on: cases with fixed seeds, a command in this process under a time limit, and what every case must hold.

`USK_FUZZ_CASES` is how many cases run in all (by default a small part, 1500 is the whole campaign), `USK_FUZZ_KILLS` how many kills (by default none;
60 is the whole campaign). Another `USK_FUZZ_SEED` tries other values and other damage.
"""

from __future__ import annotations

import contextlib
import io
import os
import random
import re
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WHOLE = 1_500
CASES = int(os.environ.get("USK_FUZZ_CASES", 90))
SEED = os.environ.get("USK_FUZZ_SEED", "")
KILLS = int(os.environ.get("USK_FUZZ_KILLS", 0))
LIMIT_S = int(os.environ.get("USK_FUZZ_LIMIT_S", 60))  # more on a machine that is busy otherwise
CODES = {0, 1, 2, 3, 130}  # those that the documentation names


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    words: tuple[str, ...]
    code: int
    out: str
    err: str
    problem: str  # a traceback, or that it took too long; empty where all is well


class TooLong(BaseException):
    """Not an Exception: nothing catches it."""


def chosen(cases: Sequence[Any], share: float) -> list[Any]:
    """A part of the cases as large as the campaign's size allows, always the same for one size."""
    n = min(len(cases), max(1, round(share * CASES)))
    return random.Random(28).sample(list(cases), n)


@contextlib.contextmanager
def limited(seconds: int) -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise TooLong

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def ended(*words: object) -> Ended:
    """`usk WORDS` through its entry point, in this process."""
    from usk.cli.app import main

    argv, streams = sys.argv, (sys.stdout, sys.stderr)
    out, err, code, problem = io.StringIO(), io.StringIO(), 0, ""
    said = tuple(map(str, words))
    sys.argv, sys.stdout, sys.stderr = ["usk", *said], out, err
    try:
        with limited(LIMIT_S):
            main()
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except TooLong:
        problem = f"took more than {LIMIT_S} s"
    except BaseException:
        problem = traceback.format_exc()[-2_000:]
    finally:
        sys.argv, (sys.stdout, sys.stderr) = argv, streams
    return Ended(said, code, out.getvalue(), err.getvalue(), problem)


def faults(one: Ended) -> str:
    """What is wrong with how a command ended, empty if nothing is."""
    if one.problem:
        return one.problem
    if one.code not in CODES:
        return f"exit code {one.code}"
    lines = one.err.strip().splitlines()
    if one.code in (1, 2) and not ((lines and lines[-1].startswith("usk: ")) or one.out.strip()):
        return f"exit code {one.code} without a line: {one.err[-300:]!r}"
    if "Traceback" in one.err:
        return one.err[-1_000:]
    if re.search(r"[\x00-\x08\x0b-\x1f\x7f\x80-\x9f]", one.err + one.out):
        return f"control characters: {one.err[-300:]!r}"
    return ""


class Failures(list[str]):
    """What failed so far, printed as it comes."""

    def add(self, case: str, fault: str) -> None:
        if fault:
            self.append(f"{case}: {fault}")
            print(self[-1], flush=True)

    def tell(self, n: int) -> None:
        """Fail with every failed case."""
        assert not self, f"{len(self)} of {n} cases failed:\n" + "\n".join(self)


# --- damage -------------------------------------------------------------------------------------------------


def _flip(content: bytes, rng: random.Random, n: int = 1) -> bytes:
    spoilt = bytearray(content)
    for _ in range(n if spoilt else 0):
        place = rng.randrange(len(spoilt))
        spoilt[place] ^= 1 << rng.randrange(8)
    return bytes(spoilt)


def _replaced(content: bytes, rng: random.Random) -> bytes:
    """JSON and the like with one value of another type."""
    values = list(re.finditer(rb'"[^"\n]*"(?!\s*:)|-?\d+(\.\d+)?|true|false|null', content))
    if not values:
        return b"[]"
    match = rng.choice(values)
    other = rng.choice(
        [b"null", b'"x"', b"-1", b"1e999", b"[]", b"{}", b"true", b"9" * 30, b'"\\u0000"', b"[[1]]"]
    )
    return content[: match.start()] + other + content[match.end() :]


CONTENT: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "empty": lambda content, rng: b"",
    "half": lambda content, rng: content[: len(content) // 2],
    "one byte short": lambda content, rng: content[:-1],
    "a bit": _flip,
    "bits": lambda content, rng: _flip(content, rng, 40),
    "zeros": lambda content, rng: bytes(len(content)),
    "noise": lambda content, rng: rng.randbytes(max(64, len(content))),
    "nested": lambda content, rng: b"[" * 200_000,
    "a list": lambda content, rng: b"[1, null, {}]",
    "a value": _replaced,
    "another value": _replaced,
    "another version": lambda content, rng: re.sub(rb'("(format|version|_\w+_version)": )"?[\w.]+"?', rb"\g<1>99", content),
    "not UTF-8": lambda content, rng: content[:20] + b"\xff\xfe\xe9" + content[20:],
    "twice": lambda content, rng: content + content,
}  # fmt: skip
PLACES: dict[str, Callable[[Path], None]] = {
    "a folder": lambda file: file.mkdir(),
    "gone": lambda file: None,
    "a link to nothing": lambda file: file.symlink_to("nowhere"),
    "a link to itself": lambda file: file.symlink_to(file.name),
    "a link to a folder": lambda file: file.symlink_to("."),
}
WAYS = [*CONTENT, *PLACES]


def damage(file: Path, way: str, seed: int) -> None:
    """Damage a file in one way."""
    rng = random.Random(f"{SEED}{file.name} {way} {seed}")
    if way in CONTENT:
        file.write_bytes(CONTENT[way](file.read_bytes(), rng))
    else:
        file.unlink()
        PLACES[way](file)
