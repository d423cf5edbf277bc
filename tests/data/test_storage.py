"""Object storage: commands that take only URLs, each as on another machine, and errors of the storage."""

from __future__ import annotations

import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFile

from usk.data import storage
from usk.data.cache import cache_root
from usk.data.storage import StoredFolder
from usk.errors import UsageError
from usk.synth import synthesize as module


@pytest.fixture
def memory() -> Iterator[str]:
    yield "memory://bucket"
    fsspec.filesystem("memory").store.clear()
    fsspec.filesystem("memory").pseudo_dirs[:] = [""]


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """A bucket on an S3 server on this machine."""
    pytest.importorskip("s3fs")
    server = pytest.importorskip("moto.server").ThreadedMotoServer("127.0.0.1", _free_port())
    server.start()
    _, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    fsspec.filesystem("s3", skip_instance_cache=True).mkdir(f"bucket{port}")
    import s3fs

    yield f"s3://bucket{port}"
    s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture(params=["memory", "s3"])
def bucket(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(request.param))


def another_machine() -> None:
    shutil.rmtree(cache_root() / "remote", ignore_errors=True)


def upload(folder: Path, url: str) -> None:
    fs, path = fsspec.core.url_to_fs(url)
    for file in folder.rglob("*"):
        if file.is_file():
            fs.pipe_file(f"{path}/{file.relative_to(folder).as_posix()}", file.read_bytes())


def stored(url: str) -> dict[str, bytes]:
    fs, path = fsspec.core.url_to_fs(url)
    fs.invalidate_cache()
    return {name[len(path) :].lstrip("/"): fs.cat_file(name) for name in fs.find(path)}


@pytest.mark.slow
def test_a_study_by_urls_alone(
    bucket: str, tone_folder: Path, usk: Callable[..., Any], tmp_path: Path
) -> None:
    real, synth, runs = (f"{bucket}/urban/{name}" for name in ("tones", "synth", "runs"))
    upload(tone_folder, real)
    make = f"synth --real {real} --strategy waveform --per-class 3 --json --out"
    made = usk(make, synth).done()
    assert made.value["folder"] == synth and made.value["made"] == 9
    first = stored(synth)
    assert {"usk.json", "plan.jsonl", "README.md"} < set(first)
    assert not any(part.startswith(".") for name in first for part in name.split("/"))

    local = tmp_path / "here"
    usk(make, local).done()  # the same files as without storage
    same = {file.relative_to(local).as_posix(): file for file in local.rglob("*.parquet")}
    assert same and all(first[name] == file.read_bytes() for name, file in same.items())

    another_machine()
    assert usk(make, synth).value["made"] == 0 and stored(synth) == first
    another_machine()
    usk(
        f"train --real {real} --synth {synth} --out {runs} --mix real,synth --epochs 1 --test-folds 1 --seeds 1"
    ).done()
    assert sum(name.endswith("run.json") for name in stored(runs)) == 2
    another_machine()
    assert usk(f"eval {runs} --json").done().value
    about = usk(f"info {synth} --json").done()
    assert sum(row["clips"] for row in about.value["classes"]) == 9


def test_an_interrupted_dataset_goes_on_elsewhere(
    memory: str, tone_folder: Path, usk: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ROWS_PER_SHARD", 2)
    synth = f"{memory}/synth"
    make = f"synth --real {tone_folder} --strategy waveform --per-class 2 --json --out"
    usk(make, f"{memory}/whole").done()
    writes = module.DatasetFolder.write_unit
    written: list[str] = []

    def stop(self: Any, unit: Any, rows: Any) -> None:
        if written:
            raise KeyboardInterrupt
        writes(self, unit, rows)
        written.append(unit.file)

    with monkeypatch.context() as patch:
        patch.setattr(module.DatasetFolder, "write_unit", stop)
        assert usk(make, synth).code == 130
    assert "usk.json" in stored(synth) and written[0] in stored(synth) and "README.md" not in stored(synth)
    another_machine()
    assert usk(make, synth).done().value["made"] == 4
    assert not any(name.startswith(".") for name in stored(synth))
    shards = {name: content for name, content in stored(synth).items() if name.endswith(".parquet")}
    assert shards == {name: c for name, c in stored(f"{memory}/whole").items() if name.endswith(".parquet")}


def test_parts_on_machines_that_share_a_bucket_alone(
    bucket: str, tone_folder: Path, usk: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both parts, and a part of another plan, begin before another one has written anything."""
    monkeypatch.setattr(module, "ROWS_PER_SHARD", 2)
    make = ("synth --strategy waveform --per-class 2 --real", tone_folder, "--out")
    usk(*make, f"{bucket}/whole").done()
    first: dict[str, bytes] = {}
    fs, path = fsspec.core.url_to_fs(f"{bucket}/parts")
    for part in ("1/2", "2/2"):
        another_machine()
        ran = usk(*make, f"{bucket}/parts", "--part", part, "--json")
        assert ran.code == 0 and "units are missing" in ran.value["missing"], ran.err
        if not first:
            first = stored(f"{bucket}/parts")
            fs.rm(path, recursive=True)
    for name, content in first.items():
        if name.startswith(".work/made-"):
            fs.pipe_file(f"{path}/{name}", content)
    assert usk(*make, f"{bucket}/other", "--seed", 1, "--part", "1/2").code == 0
    for name, content in stored(f"{bucket}/other").items():
        if name.startswith(".work/made-") or name == "plan.jsonl":
            fs.pipe_file(f"{path}/{name}", content)
    another_machine()
    assert usk(*make, f"{bucket}/parts", "--part", "1/2").code == 0
    assert stored(f"{bucket}/parts") == stored(f"{bucket}/whole")


def test_a_second_job_is_refused_until_the_first_is_gone(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"{bucket}/out"

    def fill(exclusive: bool = True) -> None:
        with StoredFolder(url, "out").uploading(exclusive) as folder:
            (folder / "a").write_text("1")

    with StoredFolder(url, "out").uploading(exclusive=True):
        with pytest.raises(UsageError, match="another job"):
            fill()
        fill(exclusive=False)
        assert storage.CLAIM in stored(url)
    fill()
    assert stored(url) == {"a": b"1"}
    fs, path = fsspec.core.url_to_fs(url)
    fs.pipe_file(f"{path}/{storage.CLAIM}", b"elsewhere, process 1")
    with pytest.raises(UsageError, match="elsewhere"):
        fill()
    monkeypatch.setattr(storage, "CLAIM_EXPIRY_S", -1.0)  # it has not been renewed for so long
    fill()
    monkeypatch.setattr(storage, "CLAIM_EXPIRY_S", 180.0)
    fs.pipe_file(f"{path}/{storage.CLAIM}", f"{storage.platform.node()}, process {2**22 + 1}".encode())
    fill()  # it ended on this machine
    assert stored(url) == {"a": b"1"}


def test_a_dataset_on_the_hub_as_a_folder(hub: Any, tone_folder: Path, usk: Callable[..., Any]) -> None:
    """Through the Hub's own client and its `HfFileSystem`."""
    repo, url = hub.create_repo("dataset", "me/clips"), "hf://datasets/me/clips/synth"
    make = f"synth --real {tone_folder} --strategy waveform --per-class 1 --out {url}"
    refused = usk(make)
    assert refused.code == 2 and url in refused.err and "made" not in refused.out, refused.err
    assert not (cache_root() / "audio").exists()
    hub.add_user("me", "token")
    hub.login("token")
    assert usk(f"{make} --json").done().value["made"] == 3
    assert {"synth/usk.json", "synth/README.md", "synth/plan.jsonl"} < set(repo.files())
    another_machine()
    about = usk(f"info {url} --json").done()
    assert sum(row["clips"] for row in about.value["classes"]) == 3


# --- what differs ------------------------------------------------------------------------------------------


def test_only_changed_files_are_downloaded(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"{bucket}/folder"
    for name, content in {"a": "1", "deep/b": "2", "c": "3"}.items():
        (tmp_path / "x" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "x" / name).write_text(content)
    upload(tmp_path / "x", url)
    folder = StoredFolder(url, "real").download()
    assert folder.name == "folder" and (folder / "deep" / "b").read_text() == "2"
    fetched: list[str] = []
    get = StoredFolder._download_file

    def counting(self: StoredFolder, name: str) -> None:
        fetched.append(name)
        get(self, name)

    monkeypatch.setattr(StoredFolder, "_download_file", counting)
    StoredFolder(url, "real").download()
    assert fetched == []
    fs, path = fsspec.core.url_to_fs(url)
    fs.pipe_file(f"{path}/a", b"9")
    fs.rm_file(f"{path}/c")
    (folder / "deep" / "b").unlink()  # damaged here
    StoredFolder(url, "real").download()
    assert sorted(fetched) == ["a", "deep/b"]
    assert (folder / "a").read_text() == "9" and not (folder / "c").exists()


def test_files_are_uploaded_while_the_job_runs_and_deleted_at_its_end(
    memory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "UPLOAD_INTERVAL_S", 0.01)
    url = f"{memory}/out"
    with StoredFolder(url, "out").uploading() as folder:
        (folder / "usk.json").write_text("first")
        for name in ("checkpoint", ".hidden"):
            (folder / name).write_text("x")
        for _ in range(500):
            if "checkpoint" in stored(url):
                break
            storage.threading.Event().wait(0.01)
        assert set(stored(url)) == {"usk.json", "checkpoint"}
        (folder / "checkpoint").unlink()
        (folder / "usk.json").write_text("the last")
    assert stored(url) == {"usk.json": b"the last"}


def test_records_and_cards_are_uploaded_last(memory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = StoredFolder(f"{memory}/out", "out")
    names = ["README.md", "a/run.json", "data/1", "usk.json", "z"]
    first = sorted(names, key=folder._upload_order)
    assert first[0] == "usk.json" and first[-1] == "README.md" and first.index("a/run.json") == 3
    folder._synced["usk.json"] = {}
    assert sorted(names, key=folder._upload_order)[:2] == ["data/1", "z"]


# --- wrong input -------------------------------------------------------------------------------------------


def test_a_generator_is_trained_on_a_url_of_the_environment(
    memory: str, tone_folder: Path, usk: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload(tone_folder, f"{memory}/tones")
    monkeypatch.setenv("USK_REAL", f"{memory}/tones")
    out = tmp_path / "generator"
    usk(f"fit --test-folds 1 --steps 1 --batch 1 --device cpu --out {out}").done()
    assert (out / "model_index.json").is_file()


def test_another_scheme_and_a_local_file_at_a_url_are_one_line(memory: str, usk: Callable[..., Any]) -> None:
    for scheme in ("nothing", "https"):
        usk(f"info {scheme}://bucket/x").refused(2, f"{scheme}://bucket/x")
    usk(f"report --out {memory}/page.html").refused(2, "--out")


def test_a_missing_client_names_the_extra(monkeypatch: pytest.MonkeyPatch, usk: Callable[..., Any]) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "s3", raising=False)
    usk("synth --real s3://bucket/x --out here").refused(2, "urban-sound-kit[s3]")


def test_an_empty_prefix_is_one_line(bucket: str, usk: Callable[..., Any]) -> None:
    for command in ("eval", "synth --real"):
        usk(f"{command} {bucket}/none").refused(2, f"{bucket}/none")


def test_a_missing_bucket_is_refused_before_anything_is_made(
    s3: str, tone_folder: Path, usk: Callable[..., Any]
) -> None:
    usk(f"synth --real {tone_folder} --strategy waveform --out s3://another/x").refused(2, "s3://another/x")
    assert not (cache_root() / "audio").exists()


@pytest.mark.parametrize("error", [PermissionError("denied"), type("NoCredentialsError", (Exception,), {})()])
def test_refused_access_is_reported_before_anything_is_made(
    memory: str, error: Exception, tone_folder: Path, usk: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(type(fsspec.filesystem("memory")), "pipe_file", refuse)
    usk(f"synth --real {tone_folder} --strategy waveform --out {memory}/x").refused(2, f"--out {memory}/x")
    assert not (cache_root() / "audio").exists()


def test_names_that_lead_out_of_the_folder_are_ignored(memory: str) -> None:
    fs = fsspec.filesystem("memory")
    fs.store["/bucket/x/../../evil"] = MemoryFile(fs, "/bucket/x/../../evil", b"evil")
    fs.pipe_file("/bucket/x/good", b"1")
    folder = StoredFolder(f"{memory}/x", "real").download()
    assert [file.name for file in folder.rglob("*")] == ["good"]
