"""Calls to the Hugging Face Hub: time limits, retries, and one-line error messages."""

from __future__ import annotations

import errno
import json
import math
import re
import socket
import ssl
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar

from usk.errors import UskError

client_at_work: Callable[[], AbstractContextManager[object]] = nullcontext
"""Entered around calls of the Hub's client, which draws bars of its own. The command line removes its line meanwhile."""
RETRY_WAITS_S = (1.0, 2.0, 4.0, 8.0)
MAX_RETRY_WAIT_S = 90.0  # if the Hub asks for a longer wait, fail at once
READ_TIMEOUT_S, WRITE_TIMEOUT_S = 10.0, 60.0  # of a request to which the client gave no timeout
PATIENCE_S = 30.0  # limit on failing and slow requests, over all requests of a call

# Exception class -> what happened, and what to do. `{instead}` is the caller's alternative; `{done}` is pushed or downloaded.
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
    # The class of `datasets` has the same name.
    "OfflineModeIsEnabled": ("cannot be reached: HF_HUB_OFFLINE is set", "Unset it, or {instead}."),
}
UNREACHABLE = ("cannot be reached (no network?)", "{Instead}.")
UNREADABLE = ("cannot be {done}: the Hub's answer cannot be read", "Try again later, or {instead}.")
# HTTP status -> the same, for read and for write requests.
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
    **dict.fromkeys((errno.ENETUNREACH, errno.ENETDOWN, errno.EHOSTUNREACH, errno.EHOSTDOWN), UNREACHABLE),
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), DISK_FULL),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), UNWRITABLE),
}
# By package and class name, since versions of huggingface_hub use httpx or httpx2, and datasets uses aiohttp.
CONNECTION_ERRORS = frozenset(
    {
        ("httpx", "TransportError"),
        ("httpx2", "TransportError"),
        ("httpcore", "NetworkError"),
        ("aiohttp", "ClientConnectionError"),
        ("huggingface_hub", "RevisionResolutionError"),
        ("huggingface_hub", "XetDownloadError"),
    }
)

T = TypeVar("T")


def retried(call: Callable[[], T], sleep: Callable[[float], object] = time.sleep) -> T:
    """Return `call()`, with up to four retries of failures that the Hub's client does not retry itself.

    These are status 503, an answer that is not JSON (such as a proxy's page), and status 429 with a time to retry after.
    Everything else is raised at once.
    """
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    for wait_s in RETRY_WAITS_S:
        try:
            return call()
        except (HfHubHTTPError, LocalEntryNotFoundError) as failure:  # the second may hide the first
            refusal = next((link for link in causes(failure) if isinstance(link, HfHubHTTPError)), None)
            if refusal is None:
                raise
            status, retry_after_s = refusal.response.status_code, _retry_after_s(refusal.response.headers)
            if status != 503 and not (status == 429 and retry_after_s is not None):
                raise
            if retry_after_s is not None and retry_after_s > MAX_RETRY_WAIT_S:
                raise
            sleep(max(wait_s, retry_after_s or 0.0))
        except json.JSONDecodeError:
            sleep(wait_s)
    return call()


def _retry_after_s(headers: Any) -> float | None:
    """Return the wait that `Retry-After` or the reset of a used-up rate limit asks for, or None."""
    after = str(headers.get("Retry-After") or "").strip()
    if after.isdigit():
        return float(after)
    reset = re.search(r";\s*r\s*=\s*0\s*;\s*t\s*=\s*(\d+)", str(headers.get("RateLimit") or ""))
    return float(reset[1]) if reset else None


@contextmanager
def hub_errors(
    subject: str, instead: str, error: type[UskError], revision: str | None = None, writing: bool = False
) -> Iterator[None]:
    """Raise failures of the Hub, the network and the disk as `error` with one line, and limit the time of all Hub calls.

    Other exceptions pass through.

    Args:
        subject: the begin of the message, such as `the Hub dataset user/name`.
        instead: what the user can do without the Hub, as an imperative.
        revision: the requested revision.
        writing: whether the calls push, not read.
    """
    limit_waiting()
    try:
        with _no_warnings(), client_at_work():
            yield
    except UskError:
        raise
    except Exception as failure:
        meaning = _meaning(failure, writing)
        if meaning is None:
            raise
        (problem, hint), values = meaning
        values |= {"revision": revision, "done": "pushed" if writing else "downloaded"}
        values |= {"instead": instead, "Instead": instead[:1].upper() + instead[1:]}
        raise error(f"{subject} {problem.format(**values)}", hint=hint.format(**values)) from failure


@contextmanager
def _no_warnings() -> Iterator[None]:
    """Hide the client's warnings about retried requests, unless the user changed its verbosity."""
    from huggingface_hub import logging

    if (verbosity := logging.get_verbosity()) == logging.WARNING:  # the default
        logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


class HubTimeoutError(Exception):
    """The Hub failed with `status` 500 or above for `PATIENCE_S`, was too slow (0), or asks for a long wait (429)."""

    def __init__(self, status: int = 0) -> None:
        super().__init__(status)
        self.status = status


class _RequestMonitor:
    """Hooks in the client's HTTP session that limit how long the Hub may fail or be slow, over all requests of a call."""

    def __init__(self) -> None:
        self.failing_since_s: float | None = None  # -inf once a request was too slow
        self.status = 0
        self.timers: set[threading.Timer] = set()

    def reset(self) -> None:
        self.failing_since_s = None
        while self.timers:
            self.timers.pop().cancel()

    def install(self) -> None:
        """Add the hooks to the client's session."""
        from huggingface_hub import get_session

        hooks = get_session().event_hooks
        if self.before_request not in hooks["request"]:
            hooks["request"].append(self.before_request)
            hooks["response"].append(self.after_response)

    def before_request(self, request: Any) -> None:
        """Set a timeout if the request has none. Raises HubTimeoutError if the Hub has failed for too long."""
        if self.failing_since_s is not None and time.monotonic() - self.failing_since_s > PATIENCE_S:
            raise HubTimeoutError(self.status)
        reading = request.method in ("GET", "HEAD")
        timeouts = request.extensions.get("timeout") or {}
        if all(timeout is None for timeout in timeouts.values()):
            timeout_s = READ_TIMEOUT_S if reading else WRITE_TIMEOUT_S
            request.extensions["timeout"] = dict.fromkeys(("connect", "read", "write", "pool"), timeout_s)
        if reading:
            timer = threading.Timer(PATIENCE_S, self.abort, [weakref.ref(request)])
            request.extensions["usk"] = timer
            timer.daemon = True
            self.timers.add(timer)
            timer.start()

    def after_response(self, response: Any) -> None:
        """Record whether the request failed."""
        if timer := response.request.extensions.get("usk"):
            timer.cancel()
            self.timers.discard(timer)
        retry_after_s = _retry_after_s(response.headers) or 0.0
        if response.status_code == 429 and retry_after_s > MAX_RETRY_WAIT_S:  # the client would wait
            raise HubTimeoutError(429)
        if response.status_code < 500:
            self.failing_since_s = None
        elif self.failing_since_s is None:
            self.failing_since_s, self.status = time.monotonic(), response.status_code

    def abort(self, request: weakref.ref[Any]) -> None:
        """Close the connection of a request that still waits for its headers, and refuse later requests."""
        from huggingface_hub import close_session

        if request() is None:  # it failed before
            return
        self.failing_since_s, self.status = -math.inf, 0
        close_session()
        self.install()


_monitor = _RequestMonitor()


def limit_waiting() -> None:
    """Limit how long the following calls of the Hub client may wait for a Hub that is silent, slow or failing."""
    _monitor.reset()
    _monitor.install()


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield the error, its cause or context, and so on."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or link.__context__


def first_line(error: BaseException) -> str:
    """Return the first line of a library's error message, or its class name without a message.

    If the first line ends with a colon, the second line is joined to it.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    return " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]


def _meaning(failure: BaseException, writing: bool) -> tuple[tuple[str, str], dict[str, Any]] | None:
    """Return message and hint for a failure, with values for their placeholders, or None if the Hub is not involved.

    The outermost known cause decides. `LocalEntryNotFoundError` counts only if there is no other, since the client raises it
    for any failure when the file is not in the cache.
    """
    names = []
    for link in causes(failure):
        kinds = [kind.__name__ for kind in type(link).__mro__]
        names += kinds
        if isinstance(link, HubTimeoutError):
            return READING.get(link.status, OTHER_STATUS if link.status else SLOW), {"status": link.status}
        if known := next((MEANINGS[name] for name in kinds if name in MEANINGS), None):
            return known, {}
        if "HfHubHTTPError" in kinds:
            status = link.response.status_code  # type: ignore[attr-defined]
            return (WRITING if writing else READING).get(status, OTHER_STATUS), {"status": status}
        if _is_connection_error(link):
            was_aborted = _monitor.failing_since_s == -math.inf
            return SLOW if was_aborted else UNREACHABLE, {}
        if isinstance(link, OSError) and link.errno in ERRNOS:
            from huggingface_hub.constants import HF_HUB_CACHE

            return ERRNOS[link.errno], {"place": link.filename or HF_HUB_CACHE}
    if "LocalEntryNotFoundError" in names:
        return UNREACHABLE, {}
    if isinstance(failure, OSError):
        return ("cannot be {done}: {reason}", ""), {"reason": first_line(failure)}
    return (UNREADABLE, {}) if _is_unreadable_answer(failure) else None


def _is_unreadable_answer(failure: BaseException) -> bool:
    """Whether the Hub's client could not parse an answer, such as HTML, nothing, or values of unexpected types."""
    if not isinstance(
        failure, (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError)
    ):
        return False
    frame = failure.__traceback__
    while frame is not None:
        if frame.tb_frame.f_globals.get("__name__", "").startswith("huggingface_hub."):
            return True
        frame = frame.tb_next
    return isinstance(failure, json.JSONDecodeError)


def _is_connection_error(error: BaseException) -> bool:
    if isinstance(error, (ConnectionError, TimeoutError, socket.gaierror, ssl.SSLError)):
        return True
    names = {(kind.__module__.partition(".")[0], kind.__name__) for kind in type(error).__mro__}
    return not names.isdisjoint(CONNECTION_ERRORS)
