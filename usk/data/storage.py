"""Folders in object storage (`s3://`, `gs://`, `hf://`, `memory://` and what else fsspec opens), through copies on this machine.

Files are read and written whole. A copy lies in the cache, under a name that the URL alone decides; only what differs by the
storage's own tags (entity tag, size, time) is fetched, and only what changed here is sent.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from usk.data.cache import cache_root
from usk.data.pinned import is_inside
from usk.errors import UsageError
from usk.files import PARTIAL, atomic_write, is_alive, visible_files
from usk.hub import first_line, limit_waiting
from usk.manifest import MANIFEST_FILE
from usk.runs import RUN_FILE

URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://\S+")
TAGS = [
    "ETag",
    "etag",
    "md5Hash",
    "checksum",
    "blob_id",
    "size",
    "LastModified",
    "updated",
    "mtime",
    "created",
]
LAST = (MANIFEST_FILE, RUN_FILE, "README.md")  # what says that the rest is there
EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs"}
NO_CREDENTIALS = re.compile(r"Credential|Token\w*NotFound|Authentication|Unauthorized")  # in clients' errors
# Of an unfinished dataset: another machine goes on from them
UNITS = (".work/units.json", ".work/made-*.parquet")
SECONDS_BETWEEN = 5.0
PROBE, CLAIM = ".usk-can-write", ".usk-claim"
CLAIM_RENEWED_S, CLAIM_HELD_S = 30.0, 180.0  # without renewal nobody holds it any more


class StoredFolder:
    """A folder in object storage, and its copy on this machine in `local`."""

    def __init__(self, url: str, field: str) -> None:
        """`field`: the parameter that names it. Raises UsageError for what no installed client opens."""
        self.url, self.field = url.rstrip("/"), field
        scheme = self.url.partition("://")[0].lower()
        if scheme in ("http", "https"):
            raise UsageError(
                "is a web address, which is not storage",
                field=field,
                value=url,
                hint="Download it, or name the bucket (s3://, gs://, hf://).",
            )
        if scheme == "hf":
            limit_waiting()
        with self._errors("opened", EXTRAS.get(scheme, "")):
            import fsspec

            self._fs, self._path = fsspec.core.url_to_fs(self.url)
        self._path = self._path.rstrip("/")
        place = cache_root() / "remote" / hashlib.sha256(self.url.encode()).hexdigest()[:24]
        self.local = place / (self._path.rpartition("/")[2] or scheme)
        self._seen_file = place / ".seen.json"
        self._seen = self._read_seen()

    @contextlib.contextmanager
    def _errors(self, doing: str, extra: str = "") -> Iterator[None]:
        """Whatever a client of the storage raises, as one line."""
        try:
            yield
        except UsageError:
            raise
        except Exception as error:
            hint, why = "", first_line(error)
            if isinstance(error, ImportError):
                package = f"urban-sound-kit[{extra}]" if extra else "the package of this storage for fsspec"
                why, hint = "its client is not installed", f"Install it: pip install '{package}'."
            elif isinstance(error, ValueError) and "rotocol" in why:
                why, hint = "no such kind of storage is known", "Name s3://, gs://, hf://, or a folder."
            elif NO_CREDENTIALS.search(type(error).__name__) or "credentials" in why.lower():
                why, hint = "no credentials were found", "Set them as the storage's own client wants them."
            elif isinstance(error, PermissionError):
                why, hint = "access is denied", "Ask for the right, or name another place."
            elif isinstance(error, FileNotFoundError):
                why, hint = "no such bucket or repository", "Create it, or name another."
            raise UsageError(
                f"cannot be {doing} ({why})", field=self.field, value=self.url, hint=hint
            ) from error

    # --- fetch ---

    def fetch(self) -> Path:
        """Bring the copy up to date with what is stored; its folder. Raises UsageError where nothing is."""
        if not self._update():
            raise UsageError(
                "holds no files", field=self.field, value=self.url, hint="Name what was written there."
            )
        return self.local

    def _update(self) -> bool:
        """Whether anything is stored; the copy then has it."""
        with self._errors("read"):
            self._fs.invalidate_cache()
            found = self._fs.find(self._path, detail=True)
        stored = {path[len(self._path) :].lstrip("/"): _tags(info) for path, info in found.items()}
        stored = {
            name: tags
            for name, tags in stored.items()
            if name and is_inside(name) and name not in (PROBE, CLAIM)
        }
        for name, tags in stored.items():
            file = self.local / name
            before = self._seen.get(name)
            if before is not None and before["stored"] == tags and file.is_file():
                continue  # whatever was changed here since is newer
            self._get(name)
            self._seen[name] = {"stored": tags, "here": _here(file)}
        for name in set(self._seen) - set(stored):
            (self.local / name).unlink(missing_ok=True)
            del self._seen[name]
        self._keep_seen()
        return bool(stored)

    def _get(self, name: str) -> None:
        file = self.local / name
        partial = file.with_name(PARTIAL.format("fetched"))
        file.parent.mkdir(parents=True, exist_ok=True)
        with self._errors("read"):
            self._fs.get_file(f"{self._path}/{name}", str(partial))
        partial.replace(file)

    # --- send ---

    @contextlib.contextmanager
    def sent(self, alone: bool = False) -> Iterator[Path]:
        """The copy, up to date, for a job that fills it: each file is sent soon after it is whole, records and cards last.

        Raises UsageError, before anything is made, for storage that cannot be written, or, if this job has to be `alone` there,
        that another one fills.
        """
        with self._errors("written"):
            self._fs.pipe_file(f"{self._path}/{PROBE}", b"usk")
            self._claim_file = ""
            try:
                if alone and not self.url.startswith("hf://"):  # where each renewal would be a commit
                    self._claim(f"{self._path}/{CLAIM}")
            finally:
                self._fs.rm_file(f"{self._path}/{PROBE}")
        try:
            yield from self._sent()
        finally:
            if self._claim_file:
                with contextlib.suppress(Exception):
                    self._fs.rm_file(self._claim_file)

    def _claim(self, path: str) -> None:
        """Keep the place to this job. Whoever ended without giving it up is told by the storage's own clock, or by its process."""
        mine = f"{platform.node()}, process {os.getpid()}"
        try:
            self._fs.pipe_file(path, mine.encode(), mode="create")
        except FileExistsError:
            self._fs.invalidate_cache()
            other = self._fs.cat_file(path).decode(errors="replace")
            unheard = self._fs.modified(f"{self._path}/{PROBE}") - self._fs.modified(path)
            host, _, process = other.rpartition(", process ")
            ended = host == platform.node() and process.isdigit() and not is_alive(int(process))
            if not ended and unheard.total_seconds() < CLAIM_HELD_S:
                hint = f"Wait for it, or choose another place. What was killed holds it for {CLAIM_HELD_S:.0f} s more."
                what = f"is being filled by another job ({other})"
                raise UsageError(what, field=self.field, value=self.url, hint=hint) from None
            self._fs.pipe_file(path, mine.encode())
        self._claim_file, self._claim_content = path, mine.encode()

    def _sent(self) -> Iterator[Path]:
        self._update()
        self.local.mkdir(parents=True, exist_ok=True)
        ended = threading.Event()
        sender = threading.Thread(target=self._send_until, args=(ended,), daemon=True)
        sender.start()
        finished = False
        try:
            yield self.local
            finished = True
        finally:
            ended.set()
            sender.join()
            try:
                self.send(delete=finished)
            except UsageError:
                if finished:  # else what stopped the job is what to say
                    raise

    def _send_until(self, ended: threading.Event) -> None:
        renewed_at = time.monotonic()
        while not ended.wait(SECONDS_BETWEEN):
            if self._claim_file and time.monotonic() - renewed_at >= CLAIM_RENEWED_S:
                with contextlib.suppress(Exception):  # next time
                    self._fs.pipe_file(self._claim_file, self._claim_content)
                    renewed_at = time.monotonic()
            with contextlib.suppress(UsageError, OSError):  # the last sending says so
                self.send()

    def send(self, delete: bool = False) -> None:
        """Send what changed here; with `delete`, also delete there what was deleted here."""
        units = (file for pattern in UNITS for file in self.local.glob(pattern))
        files = [*visible_files(self.local), *units]
        names = [file.relative_to(self.local).as_posix() for file in files]
        for name in sorted(names, key=self._order):
            file = self.local / name
            try:
                here = _here(file)
                if name in self._seen and self._seen[name]["here"] == here:
                    continue
                content = file.read_bytes()
            except FileNotFoundError:  # was temporary
                continue
            with self._errors("written"):
                self._fs.pipe_file(f"{self._path}/{name}", content)
                self._fs.invalidate_cache()
                self._seen[name] = {"stored": _tags(self._fs.info(f"{self._path}/{name}")), "here": here}
            self._keep_seen()
        for name in set(self._seen) - set(names) if delete else ():
            with self._errors("written"):
                self._fs.rm_file(f"{self._path}/{name}")
            del self._seen[name]
            self._keep_seen()

    def _order(self, name: str) -> tuple[int, str]:
        """A dataset's first manifest says whose folder it is; afterwards it says that all is there."""
        base = name.rpartition("/")[2]
        if base == MANIFEST_FILE and name not in self._seen:
            return -1, name
        return (LAST.index(base) + 1 if base in LAST else 0), name

    # --- what was seen ---

    def _read_seen(self) -> dict[str, Any]:
        try:
            seen = json.loads(self._seen_file.read_text(encoding="utf-8"))
            return {
                name: {"stored": fact["stored"], "here": fact["here"]}
                for name, fact in seen.items()
                if (self.local / name).is_file()
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}

    def _keep_seen(self) -> None:
        self._seen_file.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(self._seen_file, json.dumps(self._seen).encode(), durable=False)


def _tags(info: dict[str, Any]) -> list[str]:
    return [str(info[tag]) for tag in TAGS if info.get(tag) is not None]


def _here(file: Path) -> list[int]:
    status = file.stat()
    return [status.st_size, status.st_mtime_ns]
