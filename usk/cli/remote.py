"""Commands take URLs of object storage where they take folders: what is read is fetched first, what is written is sent."""

from __future__ import annotations

import contextlib
import functools
import os
import re
from collections.abc import Callable, Mapping
from typing import Any

from usk.errors import UsageError, UskError

SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
READ = ("real", "synth", "runs", "dataset", "what", "run", "folder")
WRITTEN = {"synth": "out", "train": "out", "fit": "out"}


def takes_urls(name: str, command: Callable[..., None]) -> Callable[..., None]:
    """The command `usk NAME`, with folders in place of URLs."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        real = kwargs.get("real", "") if "real" in kwargs else ""
        if real is None and SCHEME.match(os.environ.get("USK_REAL", "")):
            kwargs["real"] = os.environ["USK_REAL"]
        urls = {
            key: value
            for key, value in kwargs.items()
            if isinstance(value, str) and SCHEME.match(value) and key != "repo_id"  # which no URL names
        }
        if not urls:
            command(*args, **kwargs)
            return
        with contextlib.ExitStack() as stack:
            names: dict[str, str] = {}
            for field, url in urls.items():
                kwargs[field], names[kwargs[field]] = _folder(name, field, url, kwargs, stack), url
            kwargs["ctx"].obj = {**(kwargs["ctx"].obj or {}), "names": names}
            try:
                command(*args, **kwargs)
            except UskError as error:
                raise _renamed(error, names) from error

    return wrapped


def _folder(name: str, field: str, url: str, kwargs: dict[str, Any], stack: contextlib.ExitStack) -> str:
    """The folder on this machine that stands for a URL."""
    written = WRITTEN.get(name) == field
    if not written and field not in READ:
        raise UsageError("is a URL, and must be a file or folder here", field=field, value=url)
    from usk.data.storage import StoredFolder

    stored = StoredFolder(url, field)
    if (written and not kwargs.get("dry_run")) or (
        name == "audit" and field == "dataset" and kwargs.get("save")
    ):
        folder = stack.enter_context(
            stored.sent(alone=written and name != "train" and not kwargs.get("part"))
        )
    else:
        folder = stored.local if written else stored.fetch()
    return str(folder)


def renamed(text: str, names: Mapping[str, str]) -> str:
    """The text with URLs in place of the folders that stand for them."""
    for folder, url in names.items():
        text = text.replace(folder, url)
    return text


def _renamed(error: UskError, names: dict[str, str]) -> UskError:
    value = renamed(str(error.value), names) if error.value is not None else None
    told = type(error)(
        renamed(error.message, names), field=error.field, value=value, hint=renamed(error.hint, names)
    )
    told.label = error.label
    return told
