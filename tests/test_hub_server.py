"""The tests' Hub server answers the real client as the Hub does."""

from __future__ import annotations

from pathlib import Path

import datasets
import huggingface_hub
import numpy as np
import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, errors

from tests.hub_server import LocalHub
from usk.synth.dataset_folder import dataset_features, encode_flac


@pytest.fixture
def writer(hub: LocalHub) -> HfApi:
    hub.add_user("me", "hf_me")
    hub.login("hf_me")
    return HfApi()


@pytest.fixture
def parquet_folder(tmp_path: Path) -> Path:
    """Three rows of FLAC audio in one shard, and a card."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    features = dataset_features(["a", "b"], 8_000)
    rows = [
        dict.fromkeys(features)
        | {
            "clip_id": f"c{row}",
            "audio": {"bytes": encode_flac(np.full(80, row / 10), 8_000), "path": None},
            "label": row % 2,
        }
        for row in range(3)
    ]
    folder = tmp_path / "dataset"
    (folder / "data").mkdir(parents=True)
    pq.write_table(
        pa.Table.from_pylist(rows, schema=features.arrow_schema),
        folder / "data" / "train-00000-of-00001.parquet",
    )
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# Three rows\n")
    return folder


def test_a_folder_pushed_by_the_client_is_there_and_loads(
    hub: LocalHub, writer: HfApi, parquet_folder: Path
) -> None:
    writer.create_repo("me/set", repo_type="dataset", private=True)
    info = writer.upload_folder(repo_id="me/set", repo_type="dataset", folder_path=parquet_folder)
    repo = hub.repo("dataset", "me/set")
    assert repo.private and repo.branches["main"] == info.oid and len(repo.commits) == 2
    pushed = {path: content for path, content in repo.files().items() if path != ".gitattributes"}
    assert pushed == {
        path.relative_to(parquet_folder).as_posix(): path.read_bytes()
        for path in parquet_folder.rglob("*")
        if path.is_file()
    }
    loaded = datasets.load_dataset("me/set", split="train").cast_column("audio", datasets.Audio(decode=False))
    assert loaded["clip_id"] == ["c0", "c1", "c2"]
    streamed = datasets.load_dataset("me/set", split="train", streaming=True)
    rows = list(streamed.cast_column("audio", datasets.Audio(decode=False)))
    assert [row["audio"]["bytes"] for row in rows] == [row["audio"]["bytes"] for row in loaded]


def test_tags_deletions_and_parents(hub: LocalHub, writer: HfApi, parquet_folder: Path) -> None:
    repo = hub.create_repo("model", "me/model", parquet_folder)
    first = repo.branches["main"]
    repo.tags["v1"] = first
    changes = [CommitOperationDelete("data/"), CommitOperationAdd("notes.txt", b"x")]
    writer.create_commit("me/model", changes, commit_message="change")
    assert set(repo.files()) == {".gitattributes", "README.md", "notes.txt"}
    assert "README.md" in repo.files("v1")
    assert next(commit.title for commit in writer.list_repo_commits("me/model")) == "change"
    with pytest.raises(errors.HfHubHTTPError, match="412"):
        writer.create_commit(
            "me/model",
            [CommitOperationAdd("a", b"a")],
            commit_message="late",
            parent_commit=first,
        )
    path = huggingface_hub.hf_hub_download("me/model", "README.md", revision="v1")
    assert Path(path).read_bytes() == (parquet_folder / "README.md").read_bytes()
    with pytest.raises(errors.RevisionNotFoundError):
        huggingface_hub.hf_hub_download("me/model", "README.md", revision="v9")
    with pytest.raises(errors.EntryNotFoundError):
        huggingface_hub.hf_hub_download("me/model", "nothing.md")
    snapshot = Path(huggingface_hub.snapshot_download("me/model", revision="v1"))
    assert (snapshot / "data" / "train-00000-of-00001.parquet").is_file()
    files = huggingface_hub.HfFileSystem()
    assert files.cat_file("me/model@v1/README.md", start=0, end=3) == b"---"


def test_who_may_what(hub: LocalHub, writer: HfApi, parquet_folder: Path) -> None:
    hub.add_user("you", "hf_you")
    hub.add_user("me", "hf_reader", role="read")
    hub.add_user("me", "hf_old", role="expired")
    hub.create_repo("dataset", "me/secret", parquet_folder, private=True)
    assert writer.whoami()["auth"]["accessToken"]["role"] == "write"
    assert writer.dataset_info("me/secret").private
    for token in ("hf_you", None):
        hub.login(token)
        with pytest.raises(errors.RepositoryNotFoundError):
            HfApi().dataset_info("me/secret")
    for token in ("hf_you", "hf_reader"):
        hub.login(token)
        with pytest.raises(errors.HfHubHTTPError, match="403"):
            HfApi().create_repo("me/new", repo_type="dataset")
    for token in ("hf_wrong", "hf_old"):
        hub.login(token)
        with pytest.raises(errors.HfHubHTTPError) as refused:
            HfApi().whoami()
        assert refused.value.response.status_code == 401


def test_told_to_fail(hub: LocalHub, writer: HfApi, parquet_folder: Path) -> None:
    repo = hub.create_repo("dataset", "me/set")
    hub.fail("POST", "/preupload/", 503)  # which the client retries
    hub.fail("PUT", "/storage/", cut=100)  # which it retries as well
    hub.fail("POST", "/commit/", 503)  # which it does not
    with pytest.raises(errors.HfHubHTTPError, match="503"):
        writer.upload_folder(repo_id="me/set", repo_type="dataset", folder_path=parquet_folder)
    assert len(repo.commits) == 1 and len(repo.stored) == 1 and hub.slept_s == [1, 1]
    assert ("PUT", 0) in [(method, status) for method, _, status in hub.requests]
    hub.fail("POST", "/commit/", lost=True)
    with pytest.raises(Exception, match="disconnected"):
        writer.upload_folder(repo_id="me/set", repo_type="dataset", folder_path=parquet_folder)
    assert len(repo.commits) == 2
    hub.fail("GET", "README.md", cut=5)
    path = Path(huggingface_hub.hf_hub_download("me/set", "README.md", repo_type="dataset"))
    assert path.read_bytes() == (parquet_folder / "README.md").read_bytes()
    assert [status for _, path, status in hub.requests if path.endswith("README.md")] == [200, 0, 200]


@pytest.mark.parametrize(
    ("card", "message"),
    [
        ("---\nlicense: my-own\n---\n", "license"),
        ("---\na: [\n---\n", "YAML"),
        ("---\ntags: [1]\n---\n", "tags"),
    ],
)
def test_cards_are_validated(hub: LocalHub, writer: HfApi, card: str, message: str) -> None:
    hub.create_repo("dataset", "me/set")
    with pytest.raises(ValueError, match=message):
        writer.upload_file(
            repo_id="me/set", repo_type="dataset", path_or_fileobj=card.encode(), path_in_repo="README.md"
        )
