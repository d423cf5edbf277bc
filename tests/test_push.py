"""`usk push` with a local Hub: uploaded files, refusals, and interruptions."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import shutil
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub
import pyarrow.parquet as pq
import pytest
import torch
from huggingface_hub import constants

from tests.hub_server import Blob, LocalHub, Repo
from tests.synth.test_dataset_folder import fill, plan_of, store_at
from usk.cards import PLACE, seal, unseal, was_edited
from usk.classify import registry
from usk.data.open import open_source
from usk.diffusion.load import load_generator
from usk.diffusion.pipeline import EMBEDDED_FOLDER
from usk.errors import UskError
from usk.push import push
from usk.push_plan import PushResult

Command = Callable[..., Any]
Tiny = Callable[..., Path]
TOKEN = "hf_SecretOfTheTests"
SET = ("dataset", "me/set")


@pytest.fixture
def account(hub: LocalHub) -> LocalHub:
    """Logged in as `me`."""
    hub.add_user("me", TOKEN)
    hub.login(TOKEN)
    return hub


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """A finished synthetic dataset of ten clips in three shards."""
    return fill(store_at(tmp_path / "synth")).folder


def shared(folder: Path) -> dict[str, bytes]:
    """What of a folder is to arrive."""
    return {
        path.relative_to(folder).as_posix(): seal(path.read_text().replace(PLACE, "me/set")).encode()
        if path.suffix == ".md"
        else path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def pushed(repo: Repo) -> dict[str, bytes]:
    return {path: content for path, content in repo.files().items() if path != ".gitattributes"}


def quick(folder: Path) -> PushResult | None:
    """A push that waits for nothing."""
    return push(folder, "me/set", sleep=lambda _: None)


def refused(usk: Command, code: int, text: str, folder: Path, repo_id: str = "me/set", *options: str) -> None:
    """`usk push --yes` ends with this line."""
    ran = usk("push", folder, repo_id, *options, "--yes")
    lines = [line for line in ran.err.splitlines() if line.startswith("usk: ")]
    assert (ran.code, len(lines)) == (code, 1) and text in lines[0], ran.err
    assert "Traceback" not in ran.err and TOKEN not in ran.err + ran.out


# --- what arrives ------------------------------------------------------------------------------------------


def test_a_dataset_arrives_whole(usk: Command, account: LocalHub, dataset: Path) -> None:
    """Plain `datasets` loads it with the same bytes of audio, and the same folder again makes no commit."""
    (dataset / "README.md").write_text((dataset / "README.md").read_text() + f"\n{Path.home()}/recordings\n")
    ran = usk("push", dataset, "me/set", "--yes").done()
    repo = account.repo(*SET)
    assert pushed(repo) == shared(dataset) and not repo.private
    assert "Next: usk train --mix real,me/set" in ran.out
    said = ("synthetic dataset", "a new repo", "public", "6, ", "unknown", "Synthetic clips from tones")
    assert [planned for planned in said if planned not in ran.err] == []
    assert "README.md names folders below your home" in ran.err
    n_requests = len(account.requests)
    assert "already up to date" in usk("push", dataset, "me/set").done().out  # nothing to ask about
    assert len(repo.commits) == 2
    assert {method for method, *_ in account.requests[n_requests:]} == {"GET"}
    account.login(None)  # a stranger
    there = datasets.load_dataset("me/set", split="train")
    assert there.features["label"].names == ["bark", "horn"]
    there = there.cast_column("audio", datasets.Audio(decode=False))
    here = [row for file in sorted((dataset / "data").iterdir()) for row in pq.read_table(file).to_pylist()]
    assert [row["audio"]["bytes"] for row in there] == [row["audio"]["bytes"] for row in here]
    assert there["clip_id"] == [row["clip_id"] for row in here]


def test_a_filtered_dataset_arrives_with_its_rejected_clips_and_is_bound_by_its_filter(
    usk: Command,
    account: LocalHub,
    urbansound8k_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("usk.synth.filter.MIN_STEPS", 1)
    recipe = registry.CLASSIFIERS["small"]
    monkeypatch.setitem(registry.CLASSIFIERS, "small", replace(recipe, epochs=1, batch=4))
    filtered = tmp_path / "filtered"
    make = "--strategy waveform --per-class 3 --filter 0.5 --quiet"
    usk(f"synth --real {urbansound8k_folder} {make} --out {filtered}").done()
    quick(filtered)
    shards = sorted(path for path in pushed(account.repos[SET]) if path.endswith(".parquet"))
    assert shards == ["data/train-00000-of-00001.parquet", "rejected/rejected-00000-of-00001.parquet"]
    here, there = open_source(filtered), open_source("me/set")
    assert [clip.clip_id for clip in there.clips] == [clip.clip_id for clip in here.clips]
    assert len(there) == 9 and there.filters_trained_on == here.filters_trained_on != {}
    assert [clip.filter_folds for clip in there.clips] == [clip.filter_folds for clip in here.clips]
    loaded = datasets.load_dataset("me/set")
    assert {name: len(part) for name, part in loaded.items()} == {"train": 9}


MINE = ".work/latents-0.bin .cache/x data/.train.part data/train-00000-of-00003.parquet.tmp data/cache-1.arrow .env"
MINE += " notes.txt checkpoint.pt .git/config unet/model.safetensors"


def test_what_only_making_it_needed_stays_here(account: LocalHub, dataset: Path) -> None:
    before = shared(dataset)
    for name in MINE.split():
        (dataset / name).parent.mkdir(exist_ok=True)
        (dataset / name).write_bytes(b"private")
    quick(dataset)
    assert pushed(account.repo(*SET)) == before


def test_a_generator_arrives_without_checkpoints_or_pickled_weights_and_is_used(
    usk: Command, account: LocalHub, tiny_pipeline: Tiny, tmp_path: Path
) -> None:
    folder = tmp_path / "generator"
    shutil.copytree(tiny_pipeline(), folder)
    trained_on = {"license": "CC0-1.0", "sources": []}
    (folder / "trained_on.json").write_text(json.dumps(trained_on))
    before = shared(folder)
    (folder / "fit.json").write_text("{}")
    (folder / "unet-checkpoint.pt").write_bytes(b"optimizer")
    (folder / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"pickle")
    ran = usk(f"push {folder} me/gen --yes --private --json").done()
    repo = account.repo("model", "me/gen")
    assert pushed(repo) == before and repo.private
    assert ran.value["use"] == "usk synth --model me/gen" and ran.value["commit"] == repo.branches["main"]
    assert "has no card" in ran.err
    here, there = (load_generator(name, "cpu").unet.state_dict() for name in (str(folder), "me/gen"))
    assert all(torch.equal(here[name], there[name]) for name in here) and here.keys() == there.keys()
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    refused(usk, 1, "unet has only pickled weights (.bin). Only safetensors are shared", folder, "me/gen")


def test_the_plan_of_the_embedded_generator_states_its_license(account: LocalHub) -> None:
    plans: list[dict[str, Any]] = []
    assert push(EMBEDDED_FOLDER, "me/gen", confirm=lambda plan: bool(plans.append(plan.facts))) is None
    assert plans[0]["kind"] == "generator" and plans[0]["license"] == "cc-by-nc-3.0"
    assert account.repos == {}


def test_a_run_arrives_predicts_and_says_where_it_is(
    usk: Command, account: LocalHub, trained: Path, urbansound8k_folder: Path
) -> None:
    for name in ("config.json", "model.safetensors"):
        moved = (trained / name).rename(trained / "moved")
        refused(usk, 1, f"{trained} has no {name}, so nobody can load it", trained)
        moved.rename(trained / name)
    assert account.repos == {}
    (trained / "optimizer.pt").write_bytes(b"x")
    ran = usk("push", trained, "me/ears", "--yes").done()
    files = pushed(account.repo("model", "me/ears"))
    assert set(files) >= {"run.json", "model.safetensors", "predictions.parquet", "history.json"}
    assert all(
        (trained / path).read_bytes() == content for path, content in files.items() if path != "README.md"
    )
    assert "optimizer.pt" not in files and "Next: usk predict me/ears FILE" in ran.out
    there, here = (
        usk("predict", run, urbansound8k_folder / "audio" / "fold1", "--json").done()
        for run in ("me/ears", trained)
    )
    assert there.value == here.value
    card = files["README.md"].decode()
    assert "usk predict me/ears my-clips/" in card and 'usk.load_classifier("me/ears")' in card
    assert "model-index:" in card


# --- again -------------------------------------------------------------------------------------------------


def test_fewer_shards_replace_more_in_one_commit(account: LocalHub, dataset: Path, tmp_path: Path) -> None:
    quick(dataset)
    repo = account.repo(*SET)
    by_hand = foreign("LICENSE", "data/table.csv", "pictures/a.png")
    repo.add_commit("main", "by hand", {**repo.commits[-1].blobs, **by_hand})
    smaller = fill(store_at(tmp_path / "smaller", plan_of(5))).folder
    result = quick(smaller)
    assert result is not None and (result.uploaded, result.deleted) == (5, 3)
    files = pushed(repo)
    assert {path: files.pop(path) for path in ("LICENSE", "data/table.csv", "pictures/a.png")}
    assert files == shared(smaller) and len(repo.commits) == 4


def foreign(*paths: str) -> dict[str, Any]:
    return {path: Blob(b"by hand") for path in paths}


# --- interruptions -----------------------------------------------------------------------------------------


def n_requests_of(hub: LocalHub, act: Callable[[], object]) -> int:
    before = len(hub.requests)
    act()
    return len(hub.requests) - before


@pytest.mark.parametrize("lost", [False, True])
@pytest.mark.parametrize("first", [True, False], ids=["the first", "a smaller one"])
def test_a_push_cut_at_any_request_is_put_right_by_the_second(
    account: LocalHub, dataset: Path, tmp_path: Path, first: bool, lost: bool
) -> None:
    """The Hub is away from a request on. `lost`: that one is still carried out, without an answer."""
    folder = dataset if first else fill(store_at(tmp_path / "smaller", plan_of(5, seed=7))).folder

    def there() -> dict[str, bytes]:
        return pushed(account.repos[SET]) if SET in account.repos else {}

    def start() -> None:
        account.repos.pop(SET, None)
        if not first:
            quick(dataset)

    for _ in range(2):  # the second time the card is in the client's cache, as below
        start()
        n_requests = n_requests_of(account, lambda: quick(folder))
    assert n_requests > 10
    for request in range(n_requests):
        start()
        before = there()
        if lost:
            account.fail(lost=True, skip=request)
        account.fail(cut=50, skip=request, times=10**9)
        with pytest.raises(UskError, match="me/set"):
            quick(folder)
        account.failures.clear()
        assert there() in (before, shared(folder)), "never a part of it"
        quick(folder)
        assert there() == shared(folder) and len(account.repo(*SET).commits) == (2 if first else 3), request


@pytest.mark.parametrize("n_bytes", [0, 1, 1_000])
def test_a_connection_cut_in_the_middle_of_an_upload_is_taken_up_again(
    account: LocalHub, dataset: Path, n_bytes: int
) -> None:
    account.fail("PUT", "/storage/", cut=n_bytes)
    quick(dataset)  # the client itself sends that file again
    assert pushed(account.repo(*SET)) == shared(dataset)


@pytest.mark.parametrize(
    ("method", "path", "done"),
    [
        ("GET", "whoami", False), ("GET", "/api/datasets/me/set$", False), ("POST", "repos/create", False),
        ("POST", "validate-yaml", False), ("POST", "/commit/", False), ("POST", "/commit/", True),
    ],
)  # fmt: skip
def test_a_503_is_waited_out_where_the_client_does_not(
    account: LocalHub, dataset: Path, method: str, path: str, done: bool
) -> None:
    """A second try of a commit that is done is refused (412), for its parent is no longer the head."""
    account.fail(method, path, 503, times=1 if done else 2, done=done)
    slept_s: list[float] = []
    push(dataset, "me/set", sleep=slept_s.append)
    assert slept_s == ([1] if done else [1, 2]) and account.slept_s == []
    repo = account.repo(*SET)
    assert pushed(repo) == shared(dataset) and len(repo.commits) == 2


@pytest.mark.parametrize(
    ("status", "headers", "slept_s", "message"),
    [
        *((status, {}, [], "me/set") for status in (400, 401, 403, 404, 409, 412, 500)),
        (503, {}, [1, 2, 4, 8], r"status 503\. Try again later, or run the same command again"),
        (429, {"Retry-After": "7"}, [7], None),
        (429, {"RateLimit": '"api";r=0;t=33'}, [33], None),
        (429, {"Retry-After": "0"}, [1], None),
        (429, {}, [], "wants fewer requests"),
        (429, {"Retry-After": "3000"}, [], "wants fewer requests"),
    ],
)
def test_what_is_tried_again_and_after_how_long(
    account: LocalHub,
    dataset: Path,
    status: int,
    headers: dict[str, str],
    slept_s: list[float],
    message: str | None,
) -> None:
    account.fail("POST", "/commit/", status, headers=headers, times=100 if status == 503 else 1)
    slept: list[float] = []
    with pytest.raises(UskError, match=message) if message else contextlib.nullcontext():
        push(dataset, "me/set", sleep=slept.append)
    assert slept == slept_s
    assert sum("/commit/" in path for _, path, _ in account.requests) == len(slept_s) + 1


def test_someone_elses_commit_in_between_is_not_overwritten(
    account: LocalHub, dataset: Path, tmp_path: Path
) -> None:
    quick(dataset)
    repo = account.repo(*SET)
    smaller = fill(store_at(tmp_path / "smaller", plan_of(5))).folder

    def meanwhile(plan: Any) -> bool:
        repo.add_commit("main", "by another", {**repo.commits[-1].blobs, **foreign("usk.json")})
        return True

    with pytest.raises(UskError, match="was changed on the Hub meanwhile"):
        push(smaller, "me/set", confirm=meanwhile, sleep=lambda _: None)
    assert repo.commits[-1].message == "by another"


# --- accounts ----------------------------------------------------------------------------------------------


def test_the_login_of_the_hub_client_is_used(usk: Command, hub: LocalHub, dataset: Path) -> None:
    hub.add_user("me", TOKEN)
    huggingface_hub.login(TOKEN)
    ran = usk("push", dataset, "me/set", "--yes", "--json").done()
    assert pushed(hub.repo(*SET)) == shared(dataset)
    assert ran.value == {
        "repo_id": "me/set", "kind": "synthetic dataset", "url": f"{hub.endpoint}/datasets/me/set",
        "commit": hub.repo(*SET).branches["main"], "up_to_date": False, "uploaded": 6, "deleted": 0,
        "use": "usk train --mix real,me/set",
    }  # fmt: skip
    assert usk("push", dataset, "me/other", "--yes", "--quiet").err == ""


@pytest.mark.parametrize(
    ("role", "text"),
    [
        ("none", "needs a Hugging Face account. Run `hf auth login`, or set HF_TOKEN."),
        ("expired", "me/set is refused: the Hub does not accept your token, or it has expired. Run `hf auth"),
        ("wrong", "me/set is refused: the Hub does not accept your token"),
        ("read", "your token may only read. Make one that may write in the Hub's settings of me, then"),
    ],
)
def test_tokens_that_do_not_do(usk: Command, hub: LocalHub, dataset: Path, role: str, text: str) -> None:
    hub.login(None if role == "none" else TOKEN)
    if role in ("expired", "read"):
        hub.add_user("me", TOKEN, role)
    refused(usk, 1, text, dataset)
    assert hub.repos == {}


def test_a_name_of_someone_else(usk: Command, account: LocalHub, dataset: Path) -> None:
    message = "you are me on the Hub and cannot make repos under you. Push to me/set"
    refused(usk, 1, message, dataset, "you/set")
    account.create_repo("dataset", "you/open")
    refused(usk, 1, "you/open is refused: your token or account may not write there", dataset, "you/open")
    account.create_repo("dataset", "you/secret", private=True)  # looks like one that is not there
    refused(usk, 1, "cannot make repos under you", dataset, "you/secret")
    account.organizations["me"] = ["lab"]  # whether its repo is there is not told, until one wants to make it
    account.create_repo("dataset", "lab/set", private=True)
    refused(usk, 1, "lab/set is taken by a private repo that me may not see", dataset, "lab/set")


def test_a_name_that_is_taken_by_something_else_or_by_a_public_or_private_repo(
    usk: Command, account: LocalHub, dataset: Path, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "table.csv").write_text("1,2")
    repo = account.create_repo("dataset", "me/set", tmp_path / "other")
    refused(usk, 2, "me/set holds table.csv, not a synthetic dataset. Push under another name.", dataset)
    assert len(repo.commits) == 2
    account.create_repo("dataset", "me/empty")
    assert usk("push", dataset, "me/empty", "--yes").code == 0
    account.create_repo("dataset", "me/public")
    refused(usk, 2, "--private: me/public is public already", dataset, "me/public", "--private")
    account.create_repo("dataset", "me/secret", private=True)
    ran = usk("push", dataset, "me/secret", "--yes")
    assert ran.code == 0 and account.repo("dataset", "me/secret").private and "private" in ran.err


def test_a_name_taken_in_the_same_moment(usk: Command, account: LocalHub, dataset: Path) -> None:
    def meanwhile(plan: Any) -> bool:
        account.create_repo("dataset", "me/set", private=True)
        return True

    with pytest.raises(UskError, match="appeared on the Hub meanwhile"):
        push(dataset, "me/set", confirm=meanwhile, sleep=lambda _: None)


@pytest.mark.slow
def test_as_a_process_of_its_own(usk_process: Command, hub: LocalHub, dataset: Path) -> None:
    """The client as it is, told by HF_ENDPOINT alone; a traceback of USK_DEBUG=1 without the token."""
    hub.add_user("me", TOKEN)
    environment = {**hub.environment, "HF_TOKEN": TOKEN}
    process = usk_process("push", dataset, "me/set", "--yes", "--json", **environment)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0 and json.loads(out)["uploaded"] == 6, err
    assert pushed(hub.repo(*SET)) == shared(dataset)
    hub.fail("GET", "whoami", 401)
    process = usk_process("push", dataset, "me/set", "--yes", **environment, USK_DEBUG="1", HF_DEBUG="1")
    out, err = process.communicate(timeout=120)
    assert process.returncode != 0 and "Traceback" in err and "the Hub does not accept your token" in err
    assert TOKEN not in out + err


NO_REPO = ["", "me/a b", "set", "me/a/set", "/set", "me/..", "me/set.git", "https://x.co/a", "me/set@v1"]


@pytest.mark.parametrize("name", NO_REPO)
def test_names_of_no_repo(usk: Command, account: LocalHub, dataset: Path, name: str) -> None:
    at = "names a revision. Push to me/set"
    refused(usk, 2, at if "@" in name else "is not the name of a repo. Write user/name", dataset, name)
    assert account.requests == []


def test_no_network(usk: Command, account: LocalHub, dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
        refused(usk, 1, "me/set cannot be reached (no network?). Run the same command again", dataset)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    refused(usk, 1, "HF_HUB_OFFLINE is set", dataset)


@pytest.mark.parametrize("debug", ["", "1"])
def test_no_token_is_written_or_shown(
    usk: Command,
    account: LocalHub,
    dataset: Path,
    tmp_path: Path,
    debug: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Not by success, nor by failure at any request, in no file, log, output or traceback."""
    if debug:
        monkeypatch.setenv("USK_DEBUG", debug)
    caplog.set_level(logging.DEBUG)
    n_requests = n_requests_of(account, lambda: quick(dataset))
    seen = [repr(account.repos.pop(SET))]
    for request, status in [(request, status) for request in range(n_requests) for status in (401, 403, 500)]:
        account.repos.pop(SET, None)
        account.fail(status=status, skip=request, times=10**9)
        try:
            quick(dataset)
        except UskError as error:
            shown = traceback.TracebackException.from_exception(error, capture_locals=False)
            seen += [str(error), *shown.format()]
        account.failures.clear()
    if debug:
        account.fail(status=401, times=10**9)
        with pytest.raises(UskError) as raised:
            push(dataset, "me/set")
        seen += traceback.format_exception(raised.value)
        account.failures.clear()
    ran = usk("push", dataset, "me/set", "--yes", "--json")
    seen += [ran.out, ran.err, caplog.text, *map(repr, account.repos.values())]
    seen += [path.read_bytes().decode("latin-1") for path in tmp_path.rglob("*") if path.is_file()]
    seen += [path.read_bytes().decode("latin-1") for path in Path.home().rglob("*") if path.is_file()]
    seen += [path.read_bytes().decode("latin-1") for path in account.folder.rglob("*") if path.is_file()]
    assert ran.code == 0 and not [text for text in seen if TOKEN in text]


# --- folders -----------------------------------------------------------------------------------------------


def test_folders_that_are_not_there_or_of_no_kind(
    usk: Command, account: LocalHub, dataset: Path, tone_folder: Path, tmp_path: Path
) -> None:
    refused(usk, 2, f"snyth: no such folder. Did you mean {dataset}?", dataset.parent / "snyth")
    refused(usk, 2, "no such folder. Name a synthetic dataset (usk synth)", dataset.parent / "quite-other")
    refused(usk, 2, "was not made by usk: it has none of usk.json, run.json, model_index.json", tone_folder)
    (tmp_path / "file").write_text("x")
    refused(usk, 2, "is a file. Name the folder that it is in", tmp_path / "file")
    for name in ("a", "b"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "run.json").write_text("{}")
    refused(usk, 2, "holds 2 runs. Name one of them: a, b", tmp_path / "runs")
    (tmp_path / "fitting").mkdir()
    (tmp_path / "fitting" / "fit.json").write_text("{}")
    refused(usk, 1, "not finished. Run the same `usk fit` again", tmp_path / "fitting")
    refused(usk, 1, "has no config.json, so nobody can load it", tmp_path / "runs" / "a")
    (tmp_path / "runs" / "a" / "config.json").write_text("{}")
    (tmp_path / "runs" / "a" / "model.safetensors").write_bytes(b"cut short")
    refused(usk, 1, "is damaged or cut short", tmp_path / "runs" / "a")
    assert account.requests == []


SHARD = "data/train-0000{}-of-00003.parquet"


def rows_missing(shard: bytes) -> bytes:
    return parquet_of(pq.read_table(io.BytesIO(shard)).slice(0, 2))


def other_audio(shard: bytes) -> bytes:
    """The same rows with other sound: the clip ids say nothing of it, the hash does."""
    table = pq.read_table(io.BytesIO(shard))
    rows = table.to_pylist()
    rows[0]["audio"]["bytes"] = rows[0]["audio"]["bytes"][:-1] + b"x"
    return parquet_of(table.from_pylist(rows, schema=table.schema))


def parquet_of(table: Any) -> bytes:
    written = io.BytesIO()
    pq.write_table(table, written)
    return written.getvalue()


def noncommercial(manifest: bytes) -> bytes:
    return manifest.replace(b'"license": "unknown"', b'"license": "CC BY-NC 3.0"')


# A file, what becomes of its content (None: it is gone), and what is said of it.
CHANGED = "was changed after it was made"
FREE = "states the license unknown, but it is made from CC BY-NC 3.0 data"
GONE = "is unfinished: 1 of 3 shards are missing. Run the same `usk synth` again"
SPOILED: dict[str, tuple[str, Callable[[bytes], bytes] | bytes | None, str]] = {
    "a shard is missing": (SHARD.format(1), None, GONE),
    "rows are missing": (SHARD.format(1), rows_missing, CHANGED),
    "a shard was changed": (SHARD.format(1), other_audio, f"{CHANGED}: its hash differs from usk.json"),
    "a shard was cut": (SHARD.format(0), b"PAR1", "is damaged or was changed"),
    "a shard too many": (
        "data/train-00000-of-00009.parquet",
        b"PAR1",
        "shards that are not in its usk.json",
    ),
    "no card": ("README.md", None, "is unfinished: its clips, plan or card are not complete"),
    "another plan": ("plan.jsonl", b"{}\n", "is not the plan that usk.json names"),
    "no manifest": ("usk.json", b"{", "usk.json is damaged"),
    "another manifest": ("usk.json", b'{"kind": "x"}', "is not the record of a synthetic dataset"),
    "a free license": ("usk.json", noncommercial, FREE),
    "metadata that is none": ("README.md", b"---\na: [\n---\n", "has metadata that is not YAML"),
}


@pytest.mark.parametrize(("name", "change", "text"), SPOILED.values(), ids=SPOILED.keys())
def test_a_dataset_that_is_not_whole_is_refused(
    usk: Command, account: LocalHub, dataset: Path, name: str, change: Any, text: str
) -> None:
    if change is None:
        (dataset / name).unlink()
    else:
        (dataset / name).write_bytes(change((dataset / name).read_bytes()) if callable(change) else change)
    refused(usk, 1, text, dataset)
    assert account.requests == []


def test_files_that_the_repo_ignores_are_missed_and_metadata_may_be_refused(
    usk: Command, account: LocalHub, dataset: Path
) -> None:
    account.ignored = r"plan\.jsonl"
    with pytest.raises(UskError, match=r"me/set lacks plan\.jsonl after the push. .* in its \.gitignore"):
        quick(dataset)
    card = dataset / "README.md"
    card.write_text(card.read_text().replace("license: other", "license: my-own"))
    refused(usk, 1, 'the Hub refuses the card\'s metadata: - "license" must be one of the known', dataset)


def test_a_link_that_leads_out_of_the_folder_is_not_uploaded(
    usk: Command, account: LocalHub, dataset: Path, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("id_rsa")
    (dataset / "audit.json").symlink_to(tmp_path / "secret")
    refused(usk, 1, "audit.json is or lies behind a link to a file outside", dataset)
    (dataset / "audit.json").unlink()
    (dataset / "data").rename(tmp_path / "elsewhere")
    (dataset / "data").symlink_to(tmp_path / "elsewhere")
    refused(usk, 1, "is or lies behind a link to a file outside", dataset)
    (dataset / "data").unlink()
    (tmp_path / "elsewhere").rename(dataset / "kept")
    (dataset / "data").symlink_to("kept")
    assert account.requests == []
    usk("push", dataset, "me/set", "--yes").done()  # inside it may lead anywhere


# --- cards that were edited on the Hub ---------------------------------------------------------------------


def test_a_card_that_was_edited_on_the_hub_is_not_overwritten(
    usk: Command, account: LocalHub, dataset: Path
) -> None:
    quick(dataset)
    repo = account.repo(*SET)
    edited = repo.files()["README.md"].decode().replace("# Synthetic clips", "# My clips")
    repo.add_commit("main", "edited", {**repo.commits[-1].blobs, "README.md": Blob(edited.encode())})
    refused(usk, 1, "README.md was edited on the Hub, and this push would overwrite it", dataset)
    (dataset / "README.md").write_text(edited)  # as the hint says
    assert usk("push", dataset, "me/set", "--yes").code == 0
    assert unseal(account.repo(*SET).files()["README.md"].decode()) == unseal(edited)
    (dataset / "README.md").write_text(edited.replace("# My clips", "# Our clips"))
    usk("push", dataset, "me/set", "--yes").done()  # a card of usk's own is replaced


def test_a_card_with_nothing_but_a_license_is_replaced(account: LocalHub, dataset: Path) -> None:
    """As the Hub's own form for a new repo makes it."""
    repo = account.create_repo(*SET)
    repo.add_commit("main", "new", {"README.md": Blob(b"---\nlicense: mit\n---\n")})
    quick(dataset)
    assert pushed(repo) == shared(dataset)
    card = repo.files()["README.md"].decode()
    assert not was_edited(card) and was_edited(card.replace("clips", "klips")) and was_edited(unseal(card))


# --- a Hub that answers with something else, or never ------------------------------------------------------

ANSWERS = (b"", b"[]", b"null", b"7", b"{}", b'"text"', b"<html>sign in</html>", b'{"name": []}', b'[{"path": 5}]',
           b"[" * 20_000)  # fmt: skip


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda answer: answer[:12].decode())
@pytest.mark.parametrize("path", ["whoami", "/api/datasets/me/set$", "/tree/", "/preupload/", "/commit/"])
def test_an_answer_of_another_kind_is_one_line(
    account: LocalHub, dataset: Path, monkeypatch: pytest.MonkeyPatch, path: str, answer: bytes
) -> None:
    monkeypatch.setattr("usk.hub.RETRY_WAITS_S", ())
    account.create_repo(*SET)
    account.fail("*", path, 204 if answer == b"" else 200, body=answer, times=10**9)
    with pytest.raises(UskError) as raised:
        quick(dataset)
    assert "\n" not in str(raised.value) and str(raised.value)


@pytest.mark.parametrize("path", ["whoami", "/api/datasets/me/set$", "/commit/"])
def test_a_hub_that_never_answers_is_given_up(
    account: LocalHub, dataset: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr("usk.hub.READ_TIMEOUT_S", 0.2)
    monkeypatch.setattr("usk.hub.WRITE_TIMEOUT_S", 0.2)
    account.create_repo(*SET)
    account.fail("*", path, silent=True, times=10**9)
    with pytest.raises(UskError, match="cannot be reached"):
        quick(dataset)


# --- asking ------------------------------------------------------------------------------------------------


def test_without_a_terminal_it_wants_yes(usk: Command, account: LocalHub, dataset: Path) -> None:
    ran = usk("push", dataset, "me/set")
    assert ran.code == 2 and "nothing was pushed: there is no terminal to ask on. Add --yes" in ran.err
    assert account.repos == {} and "to push" in ran.err  # the plan itself is shown


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("n\n", 1), ("\n", 1)])
def test_on_a_terminal_it_asks(
    usk: Command, account: LocalHub, dataset: Path, monkeypatch: pytest.MonkeyPatch, answer: str, code: int
) -> None:
    terminal = io.StringIO(answer)
    terminal.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr("sys.stdin", terminal)
    ran = usk("push", dataset, "me/set")
    assert ran.code == code and "Push this?" in ran.err
    assert (SET in account.repos) == (code == 0)
