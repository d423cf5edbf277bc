"""Calls to the Hugging Face Hub: bounded waiting, trying again where that helps, and what a failure means, in one line."""

from __future__ import annotations

import errno
import functools
import importlib
import json
import math
import re
import socket
import ssl
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from usk.errors import UskError

WAITS_S = (1.0, 2.0, 4.0, 8.0)
LONGEST_WAIT_S = 90.0  # who is asked to wait longer than this is told so instead
# For a sign of life; the client's own calls mostly have no limit
READ_TIMEOUT_S, WRITE_TIMEOUT_S = 10.0, 60.0
PATIENCE_S = 30.0  # with a Hub that does nothing but fail or dawdle, over all requests of a call
SLOWEST_BYTES_PER_S = 256

# What an exception means, by the name of its class: what happened, and what to do. `{instead}` is what the caller proposes,
# `{done}` is pushed or downloaded.
MEANINGS = {
    "LocalTokenNotFoundError": ("needs a Hugging Face account", "Run `hf auth login`, or set HF_TOKEN."),
    "RevisionNotFoundError": ("has no revision {revision} on the Hub", ""),
    "GatedRepoError": ("is gated", "Accept its terms on its Hub page, then run `hf auth login`."),
    "DisabledRepoError": ("was disabled on the Hub", "{Instead}."),
    "RepositoryNotFoundError": (
        "is not on the Hub, or private, or your token has expired",
        "Check its name, or run `hf auth login`.",
    ),
    "HFValidationError": ("is not a Hub id, which looks like user/name or user/name@revision", ""),
    # Of `datasets` too
    "OfflineModeIsEnabled": ("cannot be reached: HF_HUB_OFFLINE is set", "Unset it, or {instead}."),
}
AWAY = ("cannot be reached (no network?)", "{Instead}.")
UNREADABLE = ("cannot be {done}: the Hub's answer cannot be read", "Try again later, or {instead}.")
# The same for the statuses of answers that have no class of their own: reading, then writing.
READING = {
    401: (
        "is refused: the Hub does not accept your token, or it has expired",
        "Run `hf auth login`, or unset HF_TOKEN.",
    ),
    403: ("is refused: your token may not read it", "Run `hf auth login` with one that may."),
    429: ("cannot be {done}: the Hub wants fewer requests", "Try again in a few minutes."),
}
CHANGED = ("was changed on the Hub meanwhile", "Run the same command again, and look at its new plan.")
WRITING = READING | {
    403: (
        "is refused: your token or account may not write there",
        "Run `hf auth login` with one that may, or name another repo.",
    ),
    409: CHANGED,
    412: CHANGED,
}
SLOW = ("cannot be {done}: the Hub answers too slowly", "Try again later, or {instead}.")
OTHER_STATUS = ("cannot be {done}: the Hub answers with status {status}", "Try again later, or {instead}.")
DISK_FULL = (
    "cannot be {done}: the disk of {place} is full",
    "Free some space, or move the cache with $HF_HOME.",
)
UNWRITABLE = (
    "cannot be {done}: {place} cannot be written",
    "Fix its permissions, or move the cache with $HF_HOME.",
)
ERRNOS = {
    **dict.fromkeys((errno.ENETUNREACH, errno.ENETDOWN, errno.EHOSTUNREACH, errno.EHOSTDOWN), AWAY),
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), DISK_FULL),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), UNWRITABLE),
}
# Known by module and name: huggingface_hub has spoken through requests, httpx and httpx2, datasets through aiohttp.
CONNECTION_ERRORS = frozenset(
    {
        ("httpx", "TransportError"),
        ("httpx2", "TransportError"),
        ("httpcore", "NetworkError"),
        ("requests", "ConnectionError"),
        ("requests", "Timeout"),
        ("urllib3", "HTTPError"),
        ("aiohttp", "ClientConnectionError"),
        ("huggingface_hub", "RevisionResolutionError"),
        ("huggingface_hub", "XetDownloadError"),
    }
)

T = TypeVar("T")


def retried(call: Callable[[], T], sleep: Callable[[float], object] = time.sleep) -> T:
    """`call()`, again where the Hub is out of order for a moment and its client does not try again by itself.

    That is a 503 (or a page that a proxy sends in place of JSON), and a 429 that says when to come back; at most four
    times more. Everything else is raised at once: other statuses, and connections that broke.
    """
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    for wait_s in WAITS_S:
        try:
            return call()
        except (HfHubHTTPError, LocalEntryNotFoundError) as failure:  # the latter: nor is it in the cache
            refusal = next((link for link in causes(failure) if isinstance(link, HfHubHTTPError)), None)
            if refusal is None:
                raise
            status, asked_s = refusal.response.status_code, _asked_wait_s(refusal.response.headers)
            if status != 503 and not (status == 429 and asked_s is not None):
                raise
            if asked_s is not None and asked_s > LONGEST_WAIT_S:
                raise
            sleep(max(wait_s, asked_s or 0.0))
        except json.JSONDecodeError:
            sleep(wait_s)
    return call()


def _asked_wait_s(headers: Any) -> float | None:
    """When the Hub wants the next request: its `Retry-After`, else the reset of a rate limit that is used up."""
    after = str(headers.get("Retry-After") or "").strip()
    if after.isdigit():
        return float(after)
    reset = re.search(r";\s*r\s*=\s*0\s*;\s*t\s*=\s*(\d+)", str(headers.get("RateLimit") or ""))
    return float(reset[1]) if reset else None


@contextmanager
def hub_errors(
    subject: str, instead: str, error: type[UskError], revision: str | None = None, writing: bool = False
) -> Iterator[None]:
    """Failures of the Hub calls inside become `error`: `subject`, what happened, and as its hint what to do about it.

    Args:
        subject: what was wanted, as messages begin: `the Hub dataset user/name`.
        instead: what the user can do without the Hub, as an imperative.
        revision: the one that was asked for.
        writing: whether something was to be pushed, not read.

    No call inside waits forever for a Hub that accepts connections and says nothing. Whatever is no failure of the Hub, the
    network or the disk passes through as it is.
    """
    limit_waiting()
    try:
        with _no_warnings():
            yield
    except UskError:
        raise
    except Exception as failure:
        found = _meaning(failure, writing)
        if found is None:
            raise
        (what, hint), facts = found
        facts |= {"revision": revision, "done": "pushed" if writing else "downloaded"}
        facts |= {"instead": instead, "Instead": instead[:1].upper() + instead[1:]}
        raise error(f"{subject} {what.format(**facts)}", hint=hint.format(**facts)) from failure


@contextmanager
def _no_warnings() -> Iterator[None]:
    """Without the client's lines about requests that failed and are tried again; who asked for more gets it."""
    from huggingface_hub import logging

    if (verbosity := logging.get_verbosity()) == logging.WARNING:  # its default
        logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


class OutOfPatienceError(Exception):
    """For `PATIENCE_S` the Hub has answered with this status from 500 on, or (0) too slowly, or (429) it asks for a long wait."""

    def __init__(self, status: int = 0) -> None:
        super().__init__(status)
        self.status = status


class _Patience:
    """How long the Hub has failed or dawdled, over all requests."""

    def __init__(self) -> None:
        self.since_s: float | None = None
        self.status = 0
        self.waiting: set[threading.Timer] = set()

    def begin(self) -> None:
        self.since_s = None
        while self.waiting:
            self.waiting.pop().cancel()

    def watch(self) -> None:
        """See all requests of the client."""
        from huggingface_hub import get_session

        hooks = get_session().event_hooks
        if self.before not in hooks["request"]:
            hooks["request"].append(self.before)
            hooks["response"].append(self.after)

    def before(self, request: Any) -> None:
        """Give a request that has no time limit one; raise OutOfPatienceError where it is one too many."""
        if self.since_s is not None and time.monotonic() - self.since_s > PATIENCE_S:
            raise OutOfPatienceError(self.status)
        reading = request.method in ("GET", "HEAD")
        limits = request.extensions.get("timeout") or {}
        if all(limit is None for limit in limits.values()):
            longest_s = READ_TIMEOUT_S if reading else WRITE_TIMEOUT_S
            request.extensions["timeout"] = dict.fromkeys(("connect", "read", "write", "pool"), longest_s)
        if reading:
            timer = threading.Timer(PATIENCE_S, self.give_up, [weakref.ref(request)])
            request.extensions["usk"] = timer
            timer.daemon = True
            self.waiting.add(timer)
            timer.start()

    def after(self, response: Any) -> None:
        """Remember how a request went, and watch how fast its body comes."""
        if timer := response.request.extensions.get("usk"):
            timer.cancel()
            self.waiting.discard(timer)
        asked_s = _asked_wait_s(response.headers) or 0.0
        if response.status_code == 429 and asked_s > LONGEST_WAIT_S:  # which the client would wait
            raise OutOfPatienceError(429)
        if response.status_code < 500:
            self.since_s = None
        elif self.since_s is None:
            self.since_s, self.status = time.monotonic(), response.status_code
        client = importlib.import_module(type(response).__module__.partition(".")[0])
        response.stream = _watched(client.SyncByteStream)(response.stream, self)

    def give_up(self, request: weakref.ref[Any]) -> None:
        """No request after this one, if it still waits; one that drips in ends with its connection."""
        from huggingface_hub import close_session

        if request() is None:  # it ended with an error, and nobody holds it any more
            return
        self.since_s, self.status = -math.inf, 0
        close_session()
        self.watch()


@functools.cache
def _watched(base: Any) -> Any:
    """The class of response bodies that the client takes, ended where they come too slowly."""

    class Watched(base):
        def __init__(self, stream: Any, patience: _Patience) -> None:
            self.stream, self.patience = stream, patience

        def __iter__(self) -> Iterator[bytes]:
            waited_s, n_bytes, began_s = 0.0, 0, time.monotonic()
            for part in self.stream:
                waited_s += time.monotonic() - began_s
                n_bytes += len(part)
                if waited_s > PATIENCE_S and n_bytes < SLOWEST_BYTES_PER_S * waited_s:
                    self.patience.since_s = -math.inf
                    raise OutOfPatienceError
                yield part
                began_s = time.monotonic()

        def close(self) -> None:
            self.stream.close()

    return Watched


_patience = _Patience()


def limit_waiting() -> None:
    """Bound how long the Hub client waits for one that is silent, drips, or does nothing but fail, in the calls that follow."""
    _patience.begin()
    _patience.watch()


def causes(error: BaseException) -> Iterator[BaseException]:
    """The error, what it was raised from or while handling, and so on."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or link.__context__


def first_line(error: BaseException) -> str:
    """What an error of a library says, as far as it fits one line: its first line, or its class if it has none.

    A first line that only announces the next one (it ends in a colon) is joined to it.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    return " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]


def _meaning(failure: BaseException, writing: bool) -> tuple[tuple[str, str], dict[str, Any]] | None:
    """What the failure comes down to, and facts for its text; None if it has nothing to do with the Hub.

    The outermost cause that says something decides. That the file is in no cache (`LocalEntryNotFoundError`) says
    little: the Hub client raises it for whatever kept it from the Hub, which is further in.
    """
    names = []
    for link in causes(failure):
        kinds = [kind.__name__ for kind in type(link).__mro__]
        names += kinds
        if isinstance(link, OutOfPatienceError):
            return READING.get(link.status, OTHER_STATUS if link.status else SLOW), {"status": link.status}
        if known := next((MEANINGS[name] for name in kinds if name in MEANINGS), None):
            return known, {}
        if "HfHubHTTPError" in kinds:
            status = link.response.status_code  # type: ignore[attr-defined]
            return (WRITING if writing else READING).get(status, OTHER_STATUS), {"status": status}
        if _is_connection_error(link):  # perhaps one that was ended since it dripped
            return SLOW if _patience.since_s == -math.inf else AWAY, {}
        if isinstance(link, OSError) and link.errno in ERRNOS:
            from huggingface_hub.constants import HF_HUB_CACHE

            return ERRNOS[link.errno], {"place": link.filename or HF_HUB_CACHE}
    if "LocalEntryNotFoundError" in names:
        return AWAY, {}
    if isinstance(failure, OSError):
        return ("cannot be {done}: {said}", ""), {"said": first_line(failure)}
    return (UNREADABLE, {}) if _is_unreadable_answer(failure) else None


def _is_unreadable_answer(failure: BaseException) -> bool:
    """Whether the Hub client tripped over what it was sent: HTML, nothing, or values of other types than it expects."""
    if not isinstance(
        failure, (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError)
    ):
        return False
    place = failure.__traceback__
    while place is not None:
        if place.tb_frame.f_globals.get("__name__", "").startswith("huggingface_hub."):
            return True
        place = place.tb_next
    return isinstance(failure, json.JSONDecodeError)


def _is_connection_error(error: BaseException) -> bool:
    if isinstance(error, (ConnectionError, TimeoutError, socket.gaierror, ssl.SSLError)):
        return True
    names = {(kind.__module__.partition(".")[0], kind.__name__) for kind in type(error).__mro__}
    return not names.isdisjoint(CONNECTION_ERRORS)
