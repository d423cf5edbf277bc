"""Calls to the Hugging Face Hub: trying again where that helps, and what a failure means for the user, in one line."""

from __future__ import annotations

import errno
import json
import re
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from usk.errors import UskError

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
UNREACHABLE = frozenset({errno.ENETUNREACH, errno.ENETDOWN, errno.EHOSTUNREACH, errno.EHOSTDOWN})
DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
UNWRITABLE = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
WAITS_S = (1.0, 2.0, 4.0, 8.0)
LONGEST_WAIT_S = 90.0  # who is asked to wait longer than this is told so instead

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
    """Failures of the Hub calls inside become `error`, one line: `subject`, what happened, what to do about it.

    Args:
        subject: what was wanted, as messages begin: `--model user/name`.
        instead: what the user can do without the Hub, as an imperative.
        revision: the one that was asked for.
        writing: whether something was to be pushed, not read.

    Whatever is no failure of the Hub, the network or the disk passes through as it is.
    """
    try:
        yield
    except UskError:
        raise
    except Exception as failure:
        meaning = _meaning(failure, instead, revision, writing)
        if meaning is None:
            raise
        raise error(f"{subject} {meaning}") from failure


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


def _meaning(failure: BaseException, instead: str, revision: str | None, writing: bool) -> str | None:
    """What the failure comes down to; None if it has nothing to do with the Hub.

    The outermost cause that says something decides. That the file is in no cache (`LocalEntryNotFoundError`) says
    little: the Hub client raises it for whatever kept it from the Hub, which is further in.
    """
    from huggingface_hub import errors as hub

    done = "pushed" if writing else "downloaded"
    away = f"cannot be reached (no network?); {instead}"
    not_cached = False
    for link in causes(failure):
        if isinstance(link, hub.LocalTokenNotFoundError):
            return "needs a Hugging Face account: `hf auth login`, or set HF_TOKEN"
        if isinstance(link, hub.RevisionNotFoundError):
            return f"has no revision {revision} on the Hub"
        if isinstance(link, hub.GatedRepoError) or _is_gated_dataset(link):
            return "is gated: accept its terms on its Hub page, then `hf auth login`"
        if isinstance(link, hub.DisabledRepoError):
            return f"was disabled on the Hub; {instead}"
        if isinstance(link, hub.RepositoryNotFoundError) and _has_expired(link):
            return _refusal(link, instead, writing)  # the client takes any 401 for a repo that is not there
        if isinstance(link, hub.RepositoryNotFoundError):
            return "is not on the Hub, or private: check its name, or `hf auth login`"
        if isinstance(link, hub.HFValidationError):
            return "is no valid Hub id, which looks like user/name or user/name@revision"
        if type(link).__name__ == "OfflineModeIsEnabled":  # datasets has one of its own
            return f"cannot be reached, for HF_HUB_OFFLINE is set: unset it, or {instead}"
        if isinstance(link, hub.HfHubHTTPError):
            return _refusal(link, instead, writing)
        if _is_connection_error(link):
            return away
        if isinstance(link, OSError) and link.errno in DISK_FULL:
            return f"cannot be downloaded: the disk of {_place(link)} is full; free some space, or move the cache with $HF_HOME"
        if isinstance(link, OSError) and link.errno in UNWRITABLE and writing:
            return f"cannot be pushed: {link.filename} cannot be read; mend its permissions"
        if isinstance(link, OSError) and link.errno in UNWRITABLE:
            return f"cannot be downloaded: {_place(link)} cannot be written; mend its permissions, or move the cache with $HF_HOME"
        not_cached = not_cached or isinstance(link, hub.LocalEntryNotFoundError)
    if not_cached:
        return away
    if writing and isinstance(failure, json.JSONDecodeError):
        return f"cannot be pushed: the Hub's answer cannot be read; try again later, or {instead}"
    return f"cannot be {done}: {first_line(failure)}" if isinstance(failure, OSError) else None


def _is_gated_dataset(error: BaseException) -> bool:
    """Whether it is how `datasets.load_dataset` says so: by the message of its own error alone."""
    return type(error).__name__ == "DatasetNotFoundError" and "gated" in str(error)


def _refusal(failure: Any, instead: str, writing: bool) -> str:
    """What an HTTP status of the Hub means that has no error class of its own."""
    response = failure.response
    status, done = response.status_code, "pushed" if writing else "downloaded"
    if status == 401:
        why = "your token has expired" if _has_expired(failure) else "the Hub does not accept your token"
        return f"is refused: {why}; `hf auth login`, or {'set another' if writing else 'unset'} HF_TOKEN"
    if status == 403 and writing:
        return "is refused: your token or account may not write there; `hf auth login` with one that may, or name another repo"
    if status == 403:
        return "is refused: your token may not read it; `hf auth login` with one that may"
    if status == 429:
        return f"cannot be {done}: the Hub wants fewer requests; try again in a few minutes"
    if status in (409, 412) and writing:
        return "was changed on the Hub meanwhile; run the same command again, and look at its new plan"
    return f"cannot be {done}: the Hub answers with status {status}; try again later, or {instead}"


def _has_expired(failure: Any) -> bool:
    said = f"{failure} {failure.response.headers.get('X-Error-Message', '')}"
    return failure.response.status_code == 401 and "expired" in said


def _is_connection_error(error: BaseException) -> bool:
    if isinstance(error, (ConnectionError, TimeoutError, socket.gaierror, ssl.SSLError)):
        return True
    if isinstance(error, OSError) and error.errno in UNREACHABLE:
        return True
    names = {(kind.__module__.partition(".")[0], kind.__name__) for kind in type(error).__mro__}
    return not names.isdisjoint(CONNECTION_ERRORS)


def _place(error: OSError) -> str:
    """The file that could not be written, else the cache."""
    from huggingface_hub import constants

    return str(error.filename or constants.HF_HUB_CACHE)
