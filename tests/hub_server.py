"""A Hugging Face Hub for tests: a real HTTP server that speaks what `huggingface_hub` and `datasets` ask for.

It knows users and their tokens, private repos, branches and tags, files in git and in large file storage, and can be
told to fail. Everything is kept in memory; one lock, so that a request sees whole commits only.

    hub.add_user("me", "hf_me")                    # may write; role="read" may not; role="expired" may nothing
    hub.login("hf_me")                             # as HF_TOKEN, for the client in this process
    hub.create_repo("dataset", "me/set", folder)   # a ready repo with a folder's files
    hub.repo("dataset", "me/set").files()          # {path: content}; .commits, .tags, .branches, .private
    hub.fail("POST", "/commit/", 503)              # the next such request only; times=, skip=, code=, headers=
    hub.fail("PUT", "/storage/", cut=100)          # closes the connection after 100 bytes
    hub.fail("POST", "/commit/", lost=True)        # does what was asked, and closes without an answer
    hub.fail("GET", "whoami", 200, body=b"[]")     # answers with something else
    hub.fail("GET", "whoami", silent=True)         # accepts the request and never answers
    hub.fail("GET", "whoami", drip_s=1.0)          # answers with a byte of its headers each second
    hub.stop()                                     # connections are refused from now on
    hub.requests                                   # [(method, path, status), ...]; status 0: cut
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

LFS_SUFFIXES = (".parquet", ".safetensors", ".bin", ".arrow", ".flac", ".wav")
LICENSES = {"other", "unknown", "apache-2.0", "mit", "gpl-3.0", "cc0-1.0", "cc-by-4.0", "cc-by-3.0"}
LICENSES |= {"cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-sa-4.0", "cc-by-nc-sa-4.0"}
SIZES = {"n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "n>1M"}
GITATTRIBUTES = "".join(
    f"*{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in LFS_SUFFIXES
).encode()
TYPES = {"models": "model", "datasets": "dataset", "spaces": "space"}
DATE = "2026-01-01T00:00:00.000Z"


@dataclass(frozen=True)
class Blob:
    """One version of one file."""

    content: bytes
    lfs: bool = False

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def oid(self) -> str:
        """The git id: of the file, or of the pointer that stands for it in git."""
        stored = self.content
        if self.lfs:
            size = len(self.content)
            stored = f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {size}\n".encode()
        return hashlib.sha1(b"blob %d\0" % len(stored) + stored).hexdigest()

    @property
    def etag(self) -> str:
        return self.sha256 if self.lfs else self.oid


@dataclass(frozen=True)
class Commit:
    sha: str
    parent: str | None
    message: str
    blobs: dict[str, Blob]


@dataclass
class Repo:
    type: str
    id: str
    private: bool = False
    commits: list[Commit] = field(default_factory=list)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    stored: dict[str, bytes] = field(default_factory=dict)  # large files by their SHA-256, committed or not

    @property
    def owner(self) -> str:
        return self.id.partition("/")[0]

    def commit_of(self, revision: str = "main") -> Commit | None:
        sha = self.branches.get(revision) or self.tags.get(revision) or revision
        return next((commit for commit in self.commits if commit.sha == sha), None)

    def files(self, revision: str = "main") -> dict[str, bytes]:
        """Paths and contents at a branch, tag or commit."""
        commit = self.commit_of(revision)
        if commit is None:
            raise KeyError(revision)
        return {path: blob.content for path, blob in commit.blobs.items()}

    def add_commit(self, branch: str, message: str, blobs: dict[str, Blob]) -> Commit:
        parent = self.branches.get(branch)
        listing = sorted((path, blob.oid) for path, blob in blobs.items())
        text = repr((self.type, self.id, len(self.commits), parent, message, listing))
        commit = Commit(hashlib.sha1(text.encode()).hexdigest(), parent, message, dict(blobs))
        self.commits.append(commit)
        self.branches[branch] = commit.sha
        return commit


@dataclass
class Failure:
    """An instruction to fail: requests of `method` whose path matches, `times` of them after `skip`."""

    method: str = "*"
    path: str = ""  # a regular expression, searched in the path with its query
    status: int | None = None  # answered; statuses from 500 answer in HTML, as proxies do
    code: str | None = None  # X-Error-Code
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None  # closes after so many bytes of the request's body or, if none, of the answer's
    lost: bool = False  # does what was asked and closes without an answer
    done: bool = False  # does what was asked and answers with `status` all the same
    times: int = 1
    skip: int = 0
    body: bytes | None = None  # what is answered with `status`
    silent: bool = False  # says nothing, until the client gives up
    drip_s: float = 0.0  # between the bytes of the answer's headers

    def takes(self, method: str, path: str) -> bool:
        """Whether this request is one to fail; counts it."""
        if self.times <= 0 or self.method not in ("*", method) or not re.search(self.path, path):
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        self.times -= 1
        return True


class Refused(Exception):
    """An error answer, as the Hub words it."""

    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.code = status, message, code


class Cut(Exception):
    """Close the connection, now."""


class HubServer:
    """The server and what it knows. `with HubServer() as hub:` starts and stops it."""

    def __init__(self) -> None:
        self.users: dict[str, tuple[str, str]] = {}  # token: name, role
        self.repos: dict[tuple[str, str], Repo] = {}
        self.organizations: dict[str, list[str]] = {}  # user: those that it may make repos under
        self.ignored = ""  # what a .gitignore keeps out, as a regular expression
        self.failures: list[Failure] = []
        self.requests: list[tuple[str, str, int]] = []
        self.lock = threading.RLock()
        hub = self

        class Handler(_Handler):
            server_hub = hub

        self.http = _Server(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True)

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.http.server_address[1]}"

    def add_user(self, name: str, token: str, role: str = "write") -> None:
        """A token of a user; a user may have several. role: write, read or expired."""
        self.users[token] = (name, role)

    def repo(self, type: str, id: str) -> Repo:
        """A repo that must be there."""
        return self.repos[type, id]

    def create_repo(self, type: str, id: str, folder: Path | None = None, private: bool = False) -> Repo:
        """A repo with .gitattributes and, in a second commit, the files of a folder (hidden ones left out)."""
        repo = self.repos[type, id] = Repo(type, id, private)
        repo.add_commit("main", "initial commit", {".gitattributes": Blob(GITATTRIBUTES)})
        if folder is not None:
            self.commit_folder(repo, folder)
        return repo

    def commit_folder(self, repo: Repo, folder: Path, message: str = "Upload folder") -> Commit:
        """A commit on main with exactly the files of `folder`."""
        found = {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        }
        blobs = {path: Blob(content, path.endswith(LFS_SUFFIXES)) for path, content in found.items()}
        repo.stored |= {blob.sha256: blob.content for blob in blobs.values() if blob.lfs}
        return repo.add_commit("main", message, {".gitattributes": Blob(GITATTRIBUTES), **blobs})

    def fail(self, method: str = "*", path: str = "", status: int | None = None, **how: Any) -> Failure:
        """Make requests fail, as `Failure` says."""
        made = Failure(method, path, status, **how)
        with self.lock:
            self.failures.append(made)
        return made

    def failure_of(self, method: str, path: str) -> Failure | None:
        with self.lock:
            return next((failure for failure in self.failures if failure.takes(method, path)), None)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Connections that a client drops are no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server_hub: HubServer
    failure: Failure | None

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _any(self) -> None:
        hub = self.server_hub
        self.failure = hub.failure_of(self.command, self.path)
        if self.failure is not None and self._failed(self.failure):
            return
        body = self._body()
        try:
            with hub.lock:
                status, headers, content = self._route(body)
        except Refused as refused:
            status, headers, content = self._refusal(refused)
        if self.failure is not None and self.failure.lost:
            self._close()
            return
        self._answer(status, headers, content)

    def _guarded(self) -> None:
        try:
            self._any()
        except (Cut, ConnectionError, TimeoutError):
            self._close()

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _guarded

    def _close(self) -> None:
        self.server_hub.requests.append((self.command, self.path, 0))
        self.close_connection = True

    def _failed(self, failure: Failure) -> bool:
        """Fail before anything is done; False if the failure comes with the answer."""
        if failure.silent:
            self._body()
            self.connection.settimeout(20)
            self.connection.recv(1)  # nothing comes: the client closes, or the time is over
            raise Cut
        if failure.status is not None:
            body = self._body()
            if failure.done:
                with self.server_hub.lock:
                    self._route(body)
            status, headers, content = self._refusal(Refused(failure.status, "told to fail", failure.code))
            if failure.body is not None:
                headers, content = {"Content-Type": "application/json"}, failure.body
            elif failure.status >= 500:
                headers["Content-Type"], content = "text/html", b"<html>the proxy is out of order</html>"
            self._answer(status, {**headers, **failure.headers}, content)
            return True
        length = int(self.headers.get("Content-Length", 0))
        if failure.cut is not None and (length or "Transfer-Encoding" in self.headers):
            self.rfile.read(min(failure.cut, length) if length else failure.cut)
            raise Cut
        return False

    def _body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _answer(self, status: int, headers: dict[str, str], content: bytes) -> None:
        hub = self.server_hub
        if self.failure is not None and (drip_s := self.failure.drip_s):
            self.flush_headers = lambda: self._drip(b"".join(self._headers_buffer), drip_s)  # type: ignore[attr-defined,method-assign]
        cut = self.failure.cut if self.failure is not None else None
        if cut is None:  # before the client sees the answer; `_close` records an answer that is cut
            hub.requests.append((self.command, self.path, status))
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            content = b""
        if cut is not None:
            self.wfile.write(content[:cut])
            self.wfile.flush()
            raise Cut
        self.wfile.write(content)

    def _drip(self, content: bytes, every_s: float) -> None:
        self._headers_buffer: list[bytes] = []
        for place in range(len(content)):
            self.wfile.write(content[place : place + 1])
            time.sleep(every_s)

    @staticmethod
    def _refusal(refused: Refused) -> tuple[int, dict[str, str], bytes]:
        headers = {"Content-Type": "application/json", "X-Error-Message": refused.message}
        if refused.code is not None:
            headers["X-Error-Code"] = refused.code
        return refused.status, headers, json.dumps({"error": refused.message}).encode()

    # --- who asks, and for what ----------------------------------------------------------------------------

    def _user(self) -> tuple[str, str] | None:
        """Name and role of the token, None without one. A wrong token is refused wherever it is shown."""
        header = self.headers.get("Authorization")
        if not header:
            return None
        user = self.server_hub.users.get(header.removeprefix("Bearer "))
        if user is None:
            raise Refused(401, "Invalid credentials in Authorization header")
        if user[1] == "expired":
            raise Refused(401, 'User Access Token "laptop" is expired')
        return user

    def _repo(self, type: str, id: str, write: bool = False) -> Repo:
        user = self._user()
        repo = self.server_hub.repos.get((type, id))
        if repo is None or (repo.private and (user is None or user[0] != repo.owner)):
            # A stranger is not told whether there is such a repo.
            if user is None:
                raise Refused(401, "Invalid username or password.", "RepoNotFound")
            raise Refused(404, "Repository not found", "RepoNotFound")
        if write:
            if user is None:
                raise Refused(401, "Invalid username or password.")
            if user[0] != repo.owner or user[1] != "write":
                raise Refused(403, "Forbidden: you must use a write token of the repo's owner")
        return repo

    @staticmethod
    def _commit(repo: Repo, revision: str) -> Commit:
        commit = repo.commit_of(revision)
        if commit is None:
            raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return commit

    def _route(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        url = urlsplit(self.path)
        parts = [unquote(part) for part in url.path.strip("/").split("/")]
        query = {name: values[-1] for name, values in parse_qs(url.query).items()}
        if parts[0] == "storage":
            return self._storage(parts[1:], body)
        if parts[0] == "api":
            if parts[1:] == ["validate-yaml"]:
                status, value = _validate_card(json.loads(body)["content"])
            else:
                status, value = 200, self._api(parts[1:], query, body)
            return status, {"Content-Type": "application/json"}, json.dumps(value).encode()
        type = TYPES[parts.pop(0)] if parts[0] in TYPES else "model"
        if len(parts) > 3 and parts[2] == "resolve":
            return self._resolve(self._repo(type, "/".join(parts[:2])), parts[3], "/".join(parts[4:]))
        if parts[2:] == ["info", "lfs", "objects", "batch"]:
            id = "/".join(parts[:2]).removesuffix(".git")
            value = self._lfs_batch(self._repo(type, id, write=True), json.loads(body))
            return 200, {"Content-Type": "application/vnd.git-lfs+json"}, json.dumps(value).encode()
        raise Refused(404, "Sorry, we can't find the page you are looking for.")

    def _api(self, parts: list[str], query: dict[str, str], body: bytes) -> Any:
        if parts == ["whoami-v2"]:
            user = self._user()
            if user is None:
                raise Refused(401, "Invalid username or password.")
            orgs = [{"name": name} for name in self.server_hub.organizations.get(user[0], ())]
            auth = {"type": "access_token", "accessToken": {"displayName": "laptop", "role": user[1]}}
            return {"type": "user", "name": user[0], "orgs": orgs, "auth": auth}
        if parts == ["repos", "create"]:
            return self._create(json.loads(body))
        if parts[0] in TYPES and len(parts) >= 3:
            rest = parts[3:]
            action, revision = (*rest, *("revision", "main")[len(rest) :])[:2]
            writes = self.command != "GET" and action != "paths-info"
            repo = self._repo(TYPES[parts[0]], "/".join(parts[1:3]), writes)
            if action == "revision":
                return _info(repo, self._commit(repo, revision))
            if action == "tree":
                return _tree(self._commit(repo, revision), "/".join(rest[2:]), query)
            if action == "paths-info":
                return _paths(self._commit(repo, revision), self.headers, body)
            if action == "preupload":
                return _preupload(repo, revision, json.loads(body), self.server_hub.ignored)
            if action == "commit":
                lines = [json.loads(line) for line in body.splitlines() if line.strip()]
                commit = _apply(repo, revision, lines)
                url = f"{self.server_hub.endpoint}/{parts[0]}/{repo.id}/commit/{commit.sha}"
                return {"success": True, "commitOid": commit.sha, "commitUrl": url}
            if action == "lfs-verify":
                asked = json.loads(body)
                if len(repo.stored.get(asked["oid"], b"")) != asked["size"]:
                    raise Refused(404, "LFS object not found")
                return {}
        raise Refused(404, "Sorry, we can't find the page you are looking for.")

    def _create(self, asked: dict[str, Any]) -> Any:
        user = self._user()
        if user is None:
            raise Refused(401, "Invalid username or password.")
        type, owner = asked.get("type", "model"), asked.get("organization") or user[0]
        id = f"{owner}/{asked['name']}"
        may = {user[0], *self.server_hub.organizations.get(user[0], ())}
        if owner not in may or user[1] != "write":
            raise Refused(403, f'You don\'t have the rights to create a {type} under "{owner}"')
        if (type, id) in self.server_hub.repos:
            raise Refused(409, f"You already created this {type} repo: {id}")
        self.server_hub.create_repo(type, id, private=asked.get("visibility") == "private")
        prefix = "" if type == "model" else f"{type}s/"
        return {"url": f"{self.server_hub.endpoint}/{prefix}{id}", "name": id, "id": "0" * 24}

    # --- contents ------------------------------------------------------------------------------------------

    def _resolve(self, repo: Repo, revision: str, path: str) -> tuple[int, dict[str, str], bytes]:
        commit = self._commit(repo, revision)
        blob = commit.blobs.get(path)
        if blob is None:
            raise Refused(404, "Entry not found", "EntryNotFound")
        headers = {"ETag": f'"{blob.etag}"', "X-Repo-Commit": commit.sha}
        headers |= {"Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}
        if blob.lfs:
            headers |= {"X-Linked-Etag": f'"{blob.sha256}"', "X-Linked-Size": str(len(blob.content))}
        asked = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if asked is None:
            return 200, headers, blob.content
        size, (first, last) = len(blob.content), asked.groups()
        begin = int(first) if first else max(0, size - int(last))
        end = min(int(last) + 1, size) if first and last else size
        if begin >= size:
            return 416, {**headers, "Content-Range": f"bytes */{size}"}, b""
        return 206, {**headers, "Content-Range": f"bytes {begin}-{end - 1}/{size}"}, blob.content[begin:end]

    def _lfs_batch(self, repo: Repo, asked: dict[str, Any]) -> Any:
        objects = []
        for entry in asked["objects"]:
            if entry["oid"] not in repo.stored:
                base, plural = self.server_hub.endpoint, f"{repo.type}s"
                upload = {"href": f"{base}/storage/{plural}/{repo.id}/{entry['oid']}"}
                verify = {"href": f"{base}/api/{plural}/{repo.id}/lfs-verify"}
                entry = entry | {"actions": {"upload": upload, "verify": verify}}
            objects.append(entry)
        return {"transfer": "basic", "objects": objects}

    def _storage(self, parts: list[str], body: bytes) -> tuple[int, dict[str, str], bytes]:
        """What stands behind an upload's link: no account is asked for, the content must be what was announced."""
        plural, owner, name, oid = parts
        if self.command != "PUT" or hashlib.sha256(body).hexdigest() != oid:
            raise Refused(400, "BadDigest")
        self.server_hub.repos[TYPES[plural], f"{owner}/{name}"].stored[oid] = body
        return 200, {"ETag": f'"{oid}"'}, b""


def _validate_card(content: str) -> tuple[int, Any]:
    """What the Hub refuses in a card's metadata, as far as usk writes it."""
    import yaml

    errors = []
    try:
        head = re.match(r"---\r?\n(.*?)\r?\n---(\r?\n|$)", content, re.DOTALL)
        metadata = yaml.safe_load(head[1]) if head else {}
        if not isinstance(metadata, dict):
            errors.append("metadata must be a mapping")
            metadata = {}
    except yaml.YAMLError as error:
        metadata, errors = {}, [f"not valid YAML: {error}"]
    if metadata.get("license", "other") not in LICENSES:
        errors.append('"license" must be one of the known licenses')
    name = metadata.get("license_name", "x")
    if metadata.get("license") == "other" and not re.fullmatch(r"[a-z0-9.-]+", name):
        errors.append('"license_name" must be of a-z, 0-9, . and -')
    errors += [
        f'"{name}" must be an array of strings'
        for name in ("tags", "task_categories", "size_categories")
        if not all(isinstance(entry, str) for entry in metadata.get(name, []))
    ]
    if not set(metadata.get("size_categories", ())) <= SIZES:
        errors.append('"size_categories" has an unknown size')
    return 400 if errors else 200, {"errors": [{"message": error} for error in errors], "warnings": []}


def _info(repo: Repo, commit: Commit) -> Any:
    siblings = [{"rfilename": path} for path in sorted(commit.blobs)]
    about = {"_id": "0" * 24, "id": repo.id, "author": repo.owner, "sha": commit.sha, "siblings": siblings}
    about |= {
        "lastModified": DATE,
        "createdAt": DATE,
        "private": repo.private,
        "gated": False,
        "disabled": False,
    }
    return about | {"downloads": 0, "likes": 0, "tags": []}


LAST_COMMIT = {"lastCommit": {"id": "0" * 40, "title": "a commit", "date": DATE}}


def _file_entry(path: str, blob: Blob, expand: bool) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "oid": blob.oid, "size": len(blob.content), "path": path}
    if blob.lfs:
        entry["lfs"] = {"oid": blob.sha256, "size": len(blob.content), "pointerSize": 130}
    return entry | (LAST_COMMIT if expand else {})


def _folder_entry(path: str, expand: bool) -> dict[str, Any]:
    return {"type": "directory", "oid": "0" * 40, "size": 0, "path": path} | (LAST_COMMIT if expand else {})


def _folders(commit: Commit) -> set[str]:
    return {
        "/".join(parts[:depth])
        for parts in (path.split("/") for path in commit.blobs)
        for depth in range(1, len(parts))
    }


def _tree(commit: Commit, folder: str, query: dict[str, str]) -> Any:
    recursive, expand = (query.get(name, "").lower() in ("true", "1") for name in ("recursive", "expand"))
    if folder and folder not in _folders(commit):
        raise Refused(404, f"{folder} does not exist", "EntryNotFound")
    prefix = f"{folder}/" if folder else ""

    def listed(path: str) -> bool:
        return path.startswith(prefix) and (recursive or "/" not in path[len(prefix) :])

    folders = [_folder_entry(path, expand) for path in sorted(_folders(commit)) if listed(path)]
    return folders + [
        _file_entry(path, blob, expand) for path, blob in sorted(commit.blobs.items()) if listed(path)
    ]


def _paths(commit: Commit, headers: Any, body: bytes) -> Any:
    if "json" in headers.get("Content-Type", ""):
        asked = json.loads(body)
    else:
        asked = parse_qs(body.decode())
        asked["expand"] = asked.get("expand", ["false"])[-1].lower() == "true"
    paths = [asked["paths"]] if isinstance(asked["paths"], str) else asked["paths"]
    expand, folders = bool(asked.get("expand")), _folders(commit)
    files = [_file_entry(path, commit.blobs[path], expand) for path in paths if path in commit.blobs]
    return files + [_folder_entry(path, expand) for path in paths if path in folders]


def _preupload(repo: Repo, revision: str, asked: dict[str, Any], ignored: str) -> Any:
    if revision not in repo.branches:
        raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
    there = repo.files(revision)
    commit = repo.commit_of(revision)
    assert commit is not None
    answers = []
    for entry in asked["files"]:
        path = entry["path"]
        lfs = path.endswith(LFS_SUFFIXES) or b"\0" in base64.b64decode(entry["sample"])
        mode, oid = "lfs" if lfs else "regular", commit.blobs[path].etag if path in there else None
        ignore = bool(ignored and re.search(ignored, path))
        answers.append({"path": path, "uploadMode": mode, "shouldIgnore": ignore, "oid": oid})
    return {"files": answers, "commitOid": commit.sha}


def _apply(repo: Repo, branch: str, lines: list[dict[str, Any]]) -> Commit:
    if branch not in repo.branches:
        raise Refused(404, f"Invalid rev id: {branch}", "RevisionNotFound")
    head = repo.commit_of(branch)
    assert head is not None
    values = [(line["key"], line["value"]) for line in lines]
    header = dict(values)["header"]
    if header.get("parentCommit") not in (None, head.sha):
        raise Refused(412, "A commit has happened since. Please refresh and try again.")
    blobs = dict(head.blobs)
    for key, value in values:
        if key == "file":
            blobs[value["path"]] = Blob(base64.b64decode(value["content"]))
        elif key == "lfsFile":
            if value["oid"] not in repo.stored:
                raise Refused(400, f"LFS pointer of {value['path']} pointed to a file that does not exist")
            blobs[value["path"]] = Blob(repo.stored[value["oid"]], lfs=True)
        elif key == "deletedFile":
            if value["path"] not in blobs:
                raise Refused(404, "A file with this name doesn't exist", "EntryNotFound")
            del blobs[value["path"]]
    return repo.add_commit(branch, header["summary"], blobs)


class LocalHub(HubServer):
    """The server with the Hub client of this process pointed at it; made by the `hub` fixture."""

    def __init__(self, monkeypatch: Any, folder: Path) -> None:
        super().__init__()
        self.monkeypatch, self.folder = monkeypatch, folder
        self.slept_s: list[float] = []

    def stop(self) -> None:
        """The server is gone: connections are refused, as without a network."""
        import huggingface_hub

        super().__exit__()
        huggingface_hub.close_session()  # and with it the connections that are still open

    def login(self, token: str | None) -> None:
        """Use a token as a user's shell would, or none."""
        if token is None:
            self.monkeypatch.delenv("HF_TOKEN", raising=False)
        else:
            self.monkeypatch.setenv("HF_TOKEN", token)

    @property
    def environment(self) -> dict[str, str]:
        """For processes of their own: `usk_process(..., **hub.environment)`."""
        return {"HF_ENDPOINT": self.endpoint, "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0"} | {
            "HF_HOME": str(self.folder)
        }

    @contextmanager
    def client_here(self) -> Iterator[LocalHub]:
        """Point huggingface_hub and datasets, imported already, at the server; a cache of its own; no waiting."""
        import datasets.config
        import huggingface_hub
        from huggingface_hub import constants, file_download
        from huggingface_hub.hf_api import HfApi
        from huggingface_hub.hf_file_system import HfFileSystem
        from huggingface_hub.utils import _http

        patch, files = self.monkeypatch.setattr, self.endpoint + "{}/{{repo_id}}/resolve/{{revision}}/{{{}}}"
        https = (
            _http.REPO_API_REGEX.pattern
        )  # the client tells a repo's API by it, and this server speaks http
        clock = SimpleNamespace(**{**vars(time), "sleep": self.slept_s.append})
        newer: list[tuple[Any, str, Any]] = []  # what clients before 2 do not ask
        if hasattr(_http, "_HUB_ORIGINS"):
            origins = frozenset({*_http._HUB_ORIGINS, _http._url_origin(self.endpoint)})
            newer.append((_http, "_HUB_ORIGINS", origins))
        if hasattr(constants, "HF_URL_HOSTS"):
            newer.append((constants, "HF_URL_HOSTS", frozenset({*constants.HF_URL_HOSTS, "127.0.0.1"})))
        for module, name, value in (
            *newer,
            (constants, "ENDPOINT", self.endpoint),
            (constants, "HUGGINGFACE_CO_URL_TEMPLATE", files.format("", "filename")),
            (constants, "HF_HUB_DISABLE_XET", True),
            (constants, "HF_HUB_CACHE", str(self.folder / "hub")),
            (constants, "HF_TOKEN_PATH", str(self.folder / "token")),
            (constants, "HF_STORED_TOKENS_PATH", str(self.folder / "stored_tokens")),
            (datasets.config, "HF_ENDPOINT", self.endpoint),
            (datasets.config, "HUB_DATASETS_URL", files.format("/datasets", "path")),
            (datasets.config, "HF_DATASETS_CACHE", self.folder / "datasets"),
            (datasets.config, "DOWNLOADED_DATASETS_PATH", str(self.folder / "datasets/downloads")),
            (datasets.config, "EXTRACTED_DATASETS_PATH", str(self.folder / "datasets/downloads/extracted")),
            (_http, "REPO_API_REGEX", re.compile(https.replace("https:", "https?:"), re.VERBOSE)),
            (_http, "time", clock),
            (file_download, "time", clock),
        ):
            patch(module, name, value)
        for api in {id(entry): entry for entry in vars(huggingface_hub.hf_api).values()}.values():
            if isinstance(api, HfApi):  # the one whose methods are the module's functions
                patch(api, "endpoint", self.endpoint)
        HfFileSystem.clear_instance_cache()
        huggingface_hub.close_session()
        self.login(None)
        try:
            yield self
        finally:
            huggingface_hub.close_session()
            HfFileSystem.clear_instance_cache()
