"""Let commands take URLs of object storage in place of folders: download inputs first, upload outputs."""

from __future__ import annotations

import contextlib
import functools
import os
import re
from collections.abc import Callable, Mapping
from typing import Any

from usk.errors import UsageError, UskError

SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
INPUTS = ("real", "synth", "runs", "dataset", "what", "run", "folder")
OUTPUTS = {"synth": "out", "train": "out", "fit": "out"}  # by command


def takes_urls(name: str, command: Callable[..., None]) -> Callable[..., None]:
    """Wrap the command `usk NAME` so that it gets local folders for URLs."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        default_real = os.environ.get("USK_REAL", "")
        if "real" in kwargs and kwargs["real"] is None and SCHEME.match(default_real):
            kwargs["real"] = [default_real] if name == "fit" else default_real
        urls: dict[str, str] = {}  # local folder -> URL

        with contextlib.ExitStack() as stack:

            def localize(field: str, value: Any) -> Any:
                if isinstance(value, list) and field in INPUTS:
                    return [localize(field, one) for one in value]
                if not isinstance(value, str) or not SCHEME.match(value) or field == "repo_id":
                    return value
                folder = _local_folder(name, field, value, kwargs, stack)
                urls[folder] = value
                return folder

            kwargs = {field: localize(field, value) for field, value in kwargs.items()}
            if urls:
                kwargs["ctx"].obj = {**(kwargs["ctx"].obj or {}), "urls": urls}
            try:
                command(*args, **kwargs)
            except UskError as error:
                error.message, error.hint = (
                    replace_folders(text, urls) for text in (error.message, error.hint)
                )
                if error.value is not None:
                    error.value = replace_folders(str(error.value), urls)
                raise

    return wrapped


def _local_folder(
    name: str, field: str, url: str, kwargs: dict[str, Any], stack: contextlib.ExitStack
) -> str:
    """Return a local folder for a URL: downloaded if the command reads it, uploaded by `stack` if the command writes it."""
    is_output = OUTPUTS.get(name) == field
    if not is_output and field not in INPUTS:
        raise UsageError("is a URL, but must be a local file or folder", field=field, value=url)
    from usk.data.storage import StoredFolder

    stored = StoredFolder(url, field)
    saves_audit = name == "audit" and field == "dataset" and kwargs.get("save")
    if (is_output and not kwargs.get("dry_run")) or saves_audit:
        exclusive = is_output and name != "train" and not kwargs.get("part")
        folder = stack.enter_context(stored.uploading(exclusive))
    else:
        folder = stored.local if is_output else stored.download()
    return str(folder)


def replace_folders(text: str, urls: Mapping[str, str]) -> str:
    """Replace each local folder in `text` by its URL."""
    for folder, url in urls.items():
        text = text.replace(folder, url)
    return text
