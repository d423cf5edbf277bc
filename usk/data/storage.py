"""Use folders in object storage (`s3://`, `gs://`, `hf://`, `memory://`, and others of fsspec) through local copies.

Files are read and written whole. The copy is in the cache, in a folder named by the URL's hash. Only files whose tags in the
storage (entity tag, size, time) differ are downloaded, and only files that changed here are uploaded.
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

TAGS = (
    "ETag", "etag", "md5Hash", "checksum", "blob_id", "size", "LastModified", "updated", "mtime", "created",
)  # fmt: skip
LAST_FILES = (MANIFEST_FILE, RUN_FILE, "README.md")  # uploaded last: they show that the rest is there
EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs"}
NO_CREDENTIALS = re.compile(r"Credential|Token\w*NotFound|Authentication|Unauthorized")  # in names of errors
# Hidden files of an unfinished dataset, from which another machine goes on.
UNIT_FILES = (".work/units.json", ".work/made-*.parquet")
UPLOAD_INTERVAL_S = 5.0
PROBE, CLAIM = ".usk-can-write", ".usk-claim"
CLAIM_RENEWAL_S, CLAIM_EXPIRY_S = 30.0, 180.0


class StoredFolder:
    """A folder in object storage, with its local copy in `local`."""

    def __init__(self, url: str, field: str) -> None:
        """`field` is the parameter that names the folder. Raise UsageError if no installed client opens the URL."""
        self.url, self.field = url.rstrip("/"), field
        scheme = self.url.partition("://")[0].lower()
        if scheme in ("http", "https"):
            message = "is a web address, which is not storage"
            hint = "Download it, or name the bucket (s3://, gs://, hf://)."
            raise UsageError(message, field=field, value=url, hint=hint)
        if scheme == "hf":
            limit_waiting()
        with self._errors("opened", EXTRAS.get(scheme, "")):
            import fsspec

            self._fs, path = fsspec.core.url_to_fs(self.url)
        self._path = path.rstrip("/")
        place = cache_root() / "remote" / hashlib.sha256(self.url.encode()).hexdigest()[:24]
        self.local = place / (self._path.rpartition("/")[2] or scheme)
        self._state_file = place / ".seen.json"
        # Name -> tags in the storage ("stored") and state of the copy ("here").
        self._synced = self._read_state()
        self._claim = b""  # content of this job's claim file; empty without a claim

    @contextlib.contextmanager
    def _errors(self, doing: str, extra: str = "") -> Iterator[None]:
        """Raise any error of the storage's client as UsageError with one line."""
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
                why, hint = "this kind of storage is not known", "Name s3://, gs://, hf://, or a folder."
            elif NO_CREDENTIALS.search(type(error).__name__) or "credentials" in why.lower():
                why, hint = "no credentials were found", "Set them as the storage's client requires."
            elif isinstance(error, PermissionError):
                why, hint = "access is denied", "Ask for access, or name another place."
            elif isinstance(error, FileNotFoundError):
                why, hint = "there is no such bucket or repository", "Create it, or name another."
            message = f"cannot be {doing} ({why})"
            raise UsageError(message, field=self.field, value=self.url, hint=hint) from error

    def _remote(self, name: str) -> str:
        return f"{self._path}/{name}"

    # --- download ---

    def download(self) -> Path:
        """Update the copy and return its folder. Raise UsageError if the storage has no files there."""
        if not self._update():
            message = "holds no files"
            raise UsageError(message, field=self.field, value=self.url, hint="Name what was written there.")
        return self.local

    def _update(self) -> bool:
        """Update the copy from the storage. Return whether the storage has files."""
        with self._errors("read"):
            self._fs.invalidate_cache()
            found = self._fs.find(self._path, detail=True)
        stored: dict[str, list[str]] = {}
        for path, info in found.items():
            name = path[len(self._path) :].lstrip("/")
            if name and is_inside(name) and name not in (PROBE, CLAIM):
                stored[name] = _tags(info)
        for name, tags in stored.items():
            file = self.local / name
            earlier = self._synced.get(name)
            if earlier is not None and earlier["stored"] == tags and file.is_file():
                continue  # a file that was changed here since is newer
            self._download_file(name)
            self._synced[name] = {"stored": tags, "here": _local_state(file)}
        for name in set(self._synced) - set(stored):
            (self.local / name).unlink(missing_ok=True)
            del self._synced[name]
        self._write_state()
        return bool(stored)

    def _download_file(self, name: str) -> None:
        file = self.local / name
        partial = file.with_name(PARTIAL.format("fetched"))
        file.parent.mkdir(parents=True, exist_ok=True)
        with self._errors("read"):
            self._fs.get_file(self._remote(name), str(partial))
        partial.replace(file)

    # --- upload ---

    @contextlib.contextmanager
    def uploading(self, exclusive: bool = False) -> Iterator[Path]:
        """Yield the updated copy, and upload its files soon after they are written, records and cards last.

        Raise UsageError, before the job begins, if the storage cannot be written, or if the job needs the folder for itself
        (`exclusive`) and another job has claimed it.
        """
        with self._errors("written"):
            self._fs.pipe_file(self._remote(PROBE), b"usk")
            try:
                if exclusive and not self.url.startswith("hf://"):  # there each renewal would be a commit
                    self._take_claim()
            finally:
                self._fs.rm_file(self._remote(PROBE))
        try:
            with self._uploads_in_background():
                yield self.local
        finally:
            if self._claim:
                with contextlib.suppress(Exception):
                    self._fs.rm_file(self._remote(CLAIM))
                self._claim = b""

    def _take_claim(self) -> None:
        """Write the claim file. Raise UsageError if a job has claimed the folder, unless that job has ended or its claim expired."""
        claim = f"{platform.node()}, process {os.getpid()}".encode()
        try:
            self._fs.pipe_file(self._remote(CLAIM), claim, mode="create")
        except FileExistsError:
            self._fs.invalidate_cache()
            other = self._fs.cat_file(self._remote(CLAIM)).decode(errors="replace")
            # Both times are of the storage's clock.
            age = self._fs.modified(self._remote(PROBE)) - self._fs.modified(self._remote(CLAIM))
            host, _, process = other.rpartition(", process ")
            has_ended = host == platform.node() and process.isdigit() and not is_alive(int(process))
            if not has_ended and age.total_seconds() < CLAIM_EXPIRY_S:
                hint = f"Wait for it, or choose another place. A killed job holds it for another {CLAIM_EXPIRY_S:.0f} s."
                message = f"is being filled by another job ({other})"
                raise UsageError(message, field=self.field, value=self.url, hint=hint) from None
            self._fs.pipe_file(self._remote(CLAIM), claim)
        self._claim = claim

    @contextlib.contextmanager
    def _uploads_in_background(self) -> Iterator[None]:
        self._update()
        self.local.mkdir(parents=True, exist_ok=True)
        stop = threading.Event()
        thread = threading.Thread(target=self._upload_until, args=(stop,), daemon=True)
        thread.start()
        succeeded = False
        try:
            yield
            succeeded = True
        finally:
            stop.set()
            thread.join()
            try:
                self.upload(delete=succeeded)
            except UsageError:
                if succeeded:  # otherwise the error that stopped the job matters
                    raise

    def _upload_until(self, stop: threading.Event) -> None:
        renewed_at = time.monotonic()
        while not stop.wait(UPLOAD_INTERVAL_S):
            if self._claim and time.monotonic() - renewed_at >= CLAIM_RENEWAL_S:
                with contextlib.suppress(Exception):  # the next round tries again
                    self._fs.pipe_file(self._remote(CLAIM), self._claim)
                    renewed_at = time.monotonic()
            with contextlib.suppress(UsageError, OSError):  # the last upload raises it
                self.upload()

    def upload(self, delete: bool = False) -> None:
        """Upload files that changed here. With `delete`, also delete stored files that were deleted here."""
        unit_files = (file for pattern in UNIT_FILES for file in self.local.glob(pattern))
        files = [*visible_files(self.local), *unit_files]
        names = [file.relative_to(self.local).as_posix() for file in files]
        for name in sorted(names, key=self._upload_order):
            file = self.local / name
            try:
                state = _local_state(file)
                if name in self._synced and self._synced[name]["here"] == state:
                    continue
                content = file.read_bytes()
            except FileNotFoundError:  # a temporary file
                continue
            with self._errors("written"):
                self._fs.pipe_file(self._remote(name), content)
                self._fs.invalidate_cache()
                self._synced[name] = {"stored": _tags(self._fs.info(self._remote(name))), "here": state}
            self._write_state()
        for name in set(self._synced) - set(names) if delete else ():
            with self._errors("written"):
                self._fs.rm_file(self._remote(name))
            del self._synced[name]
            self._write_state()

    def _upload_order(self, name: str) -> tuple[int, str]:
        """Return the sorting key of a file. A new manifest comes first: it shows whose folder it is. Later it comes with the last."""
        base = name.rpartition("/")[2]
        if base == MANIFEST_FILE and name not in self._synced:
            return -1, name
        return (LAST_FILES.index(base) + 1 if base in LAST_FILES else 0), name

    # --- state of the copy ---

    def _read_state(self) -> dict[str, Any]:
        try:
            state = json.loads(self._state_file.read_text(encoding="utf-8"))
            return {
                name: {"stored": entry["stored"], "here": entry["here"]}
                for name, entry in state.items()
                if (self.local / name).is_file()
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}

    def _write_state(self) -> None:
        self._state_file.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(self._state_file, json.dumps(self._synced).encode(), durable=False)


def _tags(info: dict[str, Any]) -> list[str]:
    return [str(info[tag]) for tag in TAGS if info.get(tag) is not None]


def _local_state(file: Path) -> list[int]:
    status = file.stat()
    return [status.st_size, status.st_mtime_ns]
