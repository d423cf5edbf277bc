"""A Hub that answers with anything: wrong types, HTML, nothing, other bytes, connections that end."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fuzz.campaign import Failures, chosen, ended, faults
from tests.hub_server import LocalHub

BODIES = [b"[]", b"null", b"{}", b"", b"<html>", b"\xff\xfe", b"[" * 100_000, b'"x"', b"17", b'{"sha": 5, "siblings": 5}', b'{"error": []}',
          b'{"sha": "' + b"a" * 40 + b'", "siblings": [{"rfilename": "../../x"}, {"rfilename": "a\\\\b"}, {"rfilename": 5}, {}]}',
          b'{"sha": "' + b"a" * 40 + b'", "siblings": [{"rfilename": "usk.json", "size": 1000000000000000}]}']  # fmt: skip
Fail = Callable[[LocalHub, str], Any]
FAILURES: dict[str, Fail] = {
    **{f"answer {body[:24]!a}": lambda hub, path, body=body: hub.fail("*", path, 200, body=body, times=99) for body in BODIES},
    **{f"status {status}": lambda hub, path, status=status: hub.fail("*", path, status, times=99)
       for status in (204, 301, 400, 401, 403, 404, 405, 409, 412, 416, 418, 429, 500, 502, 503, 504)},
    "cut": lambda hub, path: hub.fail("*", path, cut=10, times=99),
    "lost": lambda hub, path: hub.fail("*", path, lost=True, times=99),
    "wants a wait": lambda hub, path: hub.fail("*", path, 429, headers={"Retry-After": "99999"}, times=99),
}  # fmt: skip
PATHS = {"api": "^/api/", "files": "/resolve/", "all": ""}


def cases() -> list[tuple[str, str, str]]:
    return [
        (command, path, failure)
        for command in ("info", "audit", "predict", "push", "model")
        for path in PATHS
        for failure in FAILURES
    ]


@pytest.mark.slow
def test_a_hostile_hub(world: Path, hub: LocalHub) -> None:
    hub.add_user("me", "token")
    hub.login("token")
    words: dict[str, tuple[object, ...]] = {
        "info": ("info", "me/urban"),
        "audit": ("audit", "me/urban", "--real", world / "clips"),
        "predict": ("predict", "me/run", world / "clips" / "0.wav"),
        "model": ("synth", "--real", world / "clips", "--model", "me/model", "--per-class", 1, "--steps", 1, "--dry-run"),
        "push": ("push", world / "synth", "me/urban", "--yes"),
    }  # fmt: skip
    failures = Failures()
    picked = chosen(cases(), 0.1)
    for command, path, failure in picked:
        hub.failures.clear()
        hub.create_repo("dataset", "me/urban", world / "synth")
        hub.create_repo("model", "me/run", world / "trained" / "run")
        hub.create_repo("model", "me/model", world / "g")
        for kept in hub.folder.rglob("*--me--*"):
            shutil.rmtree(kept, ignore_errors=True)
        FAILURES[failure](hub, PATHS[path])
        one = ended(*words[command])
        failures.add(f"{command} {path} {failure}", faults(one))
    failures.tell(len(picked))
