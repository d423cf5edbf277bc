"""Each error class of the Hub's client becomes one line, for models and for datasets."""

from __future__ import annotations

import errno
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import datasets
import huggingface_hub
import pytest
from huggingface_hub import errors as hub

from usk.data.open import open_source
from usk.diffusion.load import load_generator
from usk.errors import ModelError, SourceError, UskError
from usk.hub import first_line, hub_errors

AWAY = "cannot be reached (no network?). "


def http(kind: type[Exception], status: int) -> Exception:
    response: Any = SimpleNamespace(headers={}, request=None, status_code=status)
    return kind(f"{status} Client Error\nfor a url", response=response)


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


def connect_error() -> Exception:
    """Return the exception of the Hub client's HTTP library when no server answers."""
    library = sys.modules[hub.HfHubHTTPError.__mro__[1].__module__.partition(".")[0]]
    return library.ConnectError("[Errno 111] Connection refused")


OFFLINE = "cannot be reached: HF_HUB_OFFLINE is set. Unset it, or "
NO_TOKEN = "is refused: the Hub does not accept your token, or it has expired. Run `hf auth login`, or unset HF_TOKEN"
FULL = "is full. Free some space, or move the cache with $HF_HOME"
FAILURES: dict[str, tuple[Exception, str]] = {
    "no such repo": (
        http(hub.RepositoryNotFoundError, 404),
        "is not on the Hub, or private, or your token has expired. Check its name",
    ),
    "gated": (http(hub.GatedRepoError, 403), "is gated. Accept its terms on its Hub page, then"),
    "no such revision": (http(hub.RevisionNotFoundError, 404), "has no revision v9 on the Hub"),
    "disabled": (http(hub.DisabledRepoError, 403), "was disabled on the Hub. "),
    "a strange name": (hub.HFValidationError("Repo id must ..."), "is not a Hub id"),
    "a bad token": (http(hub.HfHubHTTPError, 401), NO_TOKEN),
    "no rights": (http(hub.HfHubHTTPError, 403), "is refused: your token may not read it"),
    "too many requests": (http(hub.HfHubHTTPError, 429), "the Hub wants fewer requests"),
    "the Hub is down": (
        caused(hub.LocalEntryNotFoundError("not cached"), http(hub.HfHubHTTPError, 503)),
        "the Hub answers with status 503. Try again later, or ",
    ),
    "offline mode": (hub.OfflineModeIsEnabled("offline"), OFFLINE),
    "offline mode, not cached": (
        caused(hub.LocalEntryNotFoundError("not cached"), hub.OfflineModeIsEnabled("offline")),
        OFFLINE,
    ),
    "not cached": (hub.LocalEntryNotFoundError("not cached"), AWAY),
    "no connection, not cached": (caused(hub.LocalEntryNotFoundError("not cached"), connect_error()), AWAY),
    "no connection": (connect_error(), AWAY),
    "a firewall": (caused(connect_error(), PermissionError(errno.EACCES, "Permission denied")), AWAY),
    "connection reset": (ConnectionResetError(errno.ECONNRESET, "reset"), AWAY),
    "no name service": (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), AWAY),
    "a strange certificate": (ssl.SSLCertVerificationError(1, "certificate verify failed"), AWAY),
    "no route": (OSError(errno.ENETUNREACH, "Network is unreachable"), AWAY),
    "no answer": (TimeoutError("timed out"), AWAY),
    "disk full": (OSError(errno.ENOSPC, "No space left on device"), "cannot be downloaded: the disk of"),
    "quota full": (
        OSError(errno.EDQUOT, "Quota exceeded", "/there/blob"),
        f"cannot be downloaded: the disk of /there/blob {FULL}",
    ),
    "unwritable cache": (
        PermissionError(errno.EACCES, "Permission denied", "/there/models"),
        "cannot be downloaded: /there/models cannot be written. Fix its permissions, or move the cache with $HF_HOME",
    ),
    "read-only disk": (OSError(errno.EROFS, "Read-only", "/there"), "/there cannot be written"),
    "a cut download": (
        OSError("Consistency check failed: file should be of size 9\nbut has size 3"),
        "cannot be downloaded: Consistency check failed: file should be of size 9",
    ),
}
each_failure = pytest.mark.parametrize(("failure", "message"), FAILURES.values(), ids=FAILURES.keys())


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retry without waiting."""
    monkeypatch.setattr("usk.hub.RETRY_WAITS_S", (0.0,) * 4)


def raising(error: Exception) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        raise error

    return call


def one_line(raised: pytest.ExceptionInfo[Exception], subject: str, message: str) -> None:
    text = str(raised.value)
    assert subject in text and message.lower() in text.lower() and "\n" not in text, text


@each_failure
def test_what_the_hub_does_not_give(
    monkeypatch: pytest.MonkeyPatch, failure: Exception, message: str
) -> None:
    """A model, and a dataset."""
    monkeypatch.setattr(huggingface_hub, "snapshot_download", raising(failure))
    with pytest.raises(ModelError) as raised:
        load_generator("user/name@v9", device="cpu")
    one_line(raised, "user/name ", message)
    assert raised.value.__cause__ is failure
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", raising(failure))
    with pytest.raises(SourceError) as other:
        open_source("user/name@v9")
    one_line(other, "user/name ", message)
    if message.endswith((" ", "or ")):
        assert "or a pipeline folder" in raised.value.hint and "or try `usk demo`" in other.value.hint


GENERATION = datasets.exceptions.DatasetGenerationError("An error occurred while generating the dataset")
GATED = datasets.exceptions.DatasetNotFoundError("Dataset 'user/name' is a gated dataset")
FAILURES_OF_DATASETS: dict[str, tuple[Exception, str]] = {
    "gated": (caused(GATED, http(hub.GatedRepoError, 403)), "is gated. Accept its terms on its Hub page"),
    "disk full": (
        caused(GENERATION, OSError(errno.ENOSPC, "No space left on device", "/there/x.arrow")),
        "cannot be downloaded: the disk of /there/x.arrow is full",
    ),
    "no data": (
        datasets.exceptions.DataFilesNotFoundError("No (supported) data files found in user/name"),
        "cannot be downloaded: No (supported) data files found in user/name",
    ),
    "a loading script": (
        RuntimeError("Dataset scripts are no longer supported, but found name.py"),
        "cannot be loaded as a data set: Dataset scripts are no longer supported, but found name.py",
    ),
    "shards that differ": (
        datasets.exceptions.DatasetGenerationCastError("An error occurred\nAll the data files must"),
        "cannot be loaded as a data set: An error occurred",
    ),
}


@pytest.mark.parametrize(
    ("failure", "message"), FAILURES_OF_DATASETS.values(), ids=FAILURES_OF_DATASETS.keys()
)
def test_a_dataset_that_cannot_be_loaded(
    monkeypatch: pytest.MonkeyPatch, failure: Exception, message: str
) -> None:
    info = SimpleNamespace(sha="0" * 40, siblings=[], card_data=None)
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda self, *args, **kwargs: info)
    monkeypatch.setattr(datasets, "load_dataset", raising(failure))
    with pytest.raises(SourceError) as raised:
        open_source("user/name")
    one_line(raised, "user/name ", message)


RING = ValueError("one")  # a chain of causes may be a ring
BUGS = [KeyError("x"), TypeError("x"), AssertionError(), caused(RING, caused(ValueError("other"), RING))]


@pytest.mark.parametrize("error", [*BUGS, caused(UskError("ours"), ConnectionError())])
def test_a_bug_stays_one_and_an_error_of_ours_is_said_once(error: Exception) -> None:
    with pytest.raises(type(error)) as raised, hub_errors("--model a/b", "go on", ModelError):
        raise error
    assert raised.value is error


@pytest.mark.parametrize(
    ("text", "expected"), [("a\nb", "a"), ("\n  a:\n\tb\nc", "a: b"), ("a:", "a:"), ("", "ValueError")]
)
def test_the_first_line_of_a_librarys_error(text: str, expected: str) -> None:
    assert first_line(ValueError(text)) == expected


def test_nothing_of_the_hub_is_imported_before_a_call_fails() -> None:
    code = "import sys, usk.hub; assert not {'huggingface_hub', 'datasets', 'httpx2'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
