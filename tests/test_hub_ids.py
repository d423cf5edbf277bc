"""Hub ids of sources, generators and runs, with a local Hub: pinned to a commit, and never run as code."""

from __future__ import annotations

import contextlib
import json
import logging
import pickle
import shutil
import socket
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import usk as library
from tests.hub_server import LocalHub
from tests.sounds import peak_hz, tone, write_wav
from usk.classify.classifier import AudioClassifier
from usk.data.decode import decode_source
from usk.data.open import open_source
from usk.diffusion.load import load_generator
from usk.errors import ModelError, SourceError
from usk.hub import HubTimeoutError, limit_waiting
from usk.synth.dataset_folder import encode_flac

Command = Callable[..., Any]
Tiny = Callable[..., Path]


@pytest.fixture
def one_line(usk: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    """What is not on the Hub, or a Hub that will not do, ends a command with one line."""
    monkeypatch.chdir(tmp_path)
    return lambda command, *messages: usk(command, "--quiet").refused(1, *messages)


@pytest.fixture
def made(usk: Command, urbansound8k_folder: Path, tmp_path: Path) -> Path:
    """A synthetic dataset of six clips."""
    usk(f"synth --real {urbansound8k_folder} --strategy waveform --per-class 2 --out {tmp_path}/synth").done()
    return tmp_path / "synth"


def somebodys(folder: Path, **columns: list[Any]) -> Path:
    """A dataset folder that usk did not make, of two classes, with a card that states a license."""
    sounds = [encode_flac(tone(300 + 50 * index, 0.4, 8_000), 8_000) for index in range(8)]
    rows: dict[str, list[Any]] = {
        "audio": [{"bytes": sound, "path": f"{index}.flac"} for index, sound in enumerate(sounds)],
        "label": ["hum", "whistle"] * 4,
        "recording": [f"r{index // 2}-{index % 2}" for index in range(8)],
        **columns,
    }
    texts = {name: datasets.Value("string") for name in rows if name != "audio"}
    features = datasets.Features({"audio": datasets.Audio(sampling_rate=8_000), **texts})
    (folder / "data").mkdir(parents=True)
    table = pa.table(rows, schema=features.arrow_schema)
    pq.write_table(table, folder / "data" / "train-00000-of-00001.parquet")
    (folder / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n# Hums\n")
    return folder


def probabilities(run: dict[str, Any]) -> np.ndarray:
    return np.array(pq.read_table(Path(run["folder"]) / "predictions.parquet")["probabilities"].to_pylist())


# --- datasets


def test_training_on_a_hub_dataset_equals_training_on_its_folder(
    usk: Command, hub: LocalHub, made: Path, urbansound8k_folder: Path, tmp_path: Path
) -> None:
    repo = hub.create_repo("dataset", "me/urban", made)
    repo.tags["v1"] = commit = repo.branches["main"]
    (tmp_path / "empty").mkdir()
    hub.commit_folder(repo, tmp_path / "empty", "all gone")  # what the tag says counts, not what is newest
    train = (
        "train", "--real", urbansound8k_folder, "--seeds", 1, "--no-baseline", "--test-folds", 1, "--epochs", 1,
        "--out", tmp_path / "r", "--json",
    )  # fmt: skip
    local = usk(*train, "--mix", "real,synth", "--synth", made)
    by_mix = usk(*train, "--mix", "real,me/urban@v1")
    by_flag = usk(*train, "--mix", "real,synth", "--synth", "me/urban@v1")
    runs = [ran.value["runs"][0] for ran in (local, by_mix, by_flag)]
    assert runs[0]["n_synthetic"] == runs[1]["n_synthetic"] > 0
    np.testing.assert_array_equal(probabilities(runs[0]), probabilities(runs[1]))
    np.testing.assert_array_equal(probabilities(runs[0]), probabilities(runs[2]))
    of_mix, of_flag = ([part for part in run["sources"] if part["part"] != "real"] for run in runs[1:])
    assert [part["revision"] for part in of_mix] == [commit]
    assert [part["hub_id"] for part in of_mix + of_flag] == ["me/urban"] * 2
    card = (Path(runs[1]["folder"]) / "README.md").read_text()
    assert commit in card and "- me/urban\n" in card.split("---\n")[1]
    assert not any("cannot be ruled out" in note for note in by_mix.value["notes"])


def test_info_and_audit_take_a_dataset_and_a_run_on_the_hub(
    usk: Command, hub: LocalHub, made: Path, trained: Path, urbansound8k_folder: Path
) -> None:
    commit = hub.create_repo("dataset", "me/urban", made).branches["main"]
    facts = usk("info", "me/urban", "--json").value
    assert (facts["kind"], facts["revision"]) == ("synthetic dataset", commit)
    assert facts["license"] == "CC BY-NC 3.0"
    assert (facts["synthetic clips"], facts["strategies"], facts["made by"]) == (6, ["waveform"], ["none"])
    ran = usk("audit", "me/urban", "--real", urbansound8k_folder, "--json")
    assert (ran.code, ran.value["clips"], ran.value["wrong_provenance"]) == (0, 6, [])
    hub.create_repo("model", "me/ears", trained)
    assert usk("info", "me/ears", "--json").value == usk("info", trained, "--json").value
    ran = usk(f"audit {made} --real {urbansound8k_folder} --embedding me/ears --json").done()
    assert "classifier of" in ran.value["embedding"]


@pytest.mark.parametrize("on_hub", [True, False], ids=["Hub", "folder"])
def test_bytes_that_are_not_those_of_the_manifest_are_refused(
    usk: Command, hub: LocalHub, made: Path, urbansound8k_folder: Path, tmp_path: Path, on_hub: bool
) -> None:
    folder = shutil.copytree(made, tmp_path / "other")
    (shard,) = (folder / "data").glob("*.parquet")
    table = pq.read_table(shard)
    place = table.column_names.index("gain_db")
    pq.write_table(table.set_column(place, "gain_db", pa.array([0.5] * len(table))), shard)
    what = "me/urban" if on_hub else str(folder)
    if on_hub:
        hub.create_repo("dataset", "me/urban", folder)
    real = ("--real", urbansound8k_folder)
    train = ("train", *real, "--mix", f"real,{what}", "--out", tmp_path / "runs")
    for words in (("info", what), ("audit", what, *real), train):
        usk(*words).refused(1, shard.name, "hash")


def test_clips_made_from_a_hub_dataset_inherit_its_license_and_say_its_commit(
    usk: Command, hub: LocalHub, tmp_path: Path
) -> None:
    commit = hub.create_repo("dataset", "me/hums", somebodys(tmp_path / "hums")).branches["main"]
    usk(f"synth --real me/hums@{commit} --strategy waveform --per-class 1 --out {tmp_path}/out").done()
    manifest = json.loads((tmp_path / "out" / "usk.json").read_text())
    assert manifest["source"]["revision"] == commit
    assert manifest["source"]["hub_id"] == "me/hums"
    assert manifest["license"] == "cc-by-nc-4.0"
    metadata = datasets.load_dataset_builder(str(tmp_path / "out"))
    assert metadata.info.splits["train"].num_examples == 2
    head = (tmp_path / "out" / "README.md").read_text().split("---\n")[1]
    assert "license: cc-by-nc-4.0\n" in head and "- me/hums\n" in head


def test_a_hub_dataset_without_provenance_comes_with_a_warning(
    usk: Command, hub: LocalHub, tmp_path: Path, tone_folder: Path
) -> None:
    labels = [("low", "high")[index % 2] for index in range(8)]
    hub.create_repo("dataset", "you/tones", somebodys(tmp_path / "tones2", label=labels))
    ran = usk(
        f"train --real {tone_folder} --mix real,synth --synth you/tones --seeds 1 --no-baseline"
        f" --test-folds 1 --epochs 1 --out {tmp_path}/runs --json"
    ).done()
    (warning,) = [note for note in ran.value["notes"] if "you/tones" in note]
    assert "names no parents (no provenance)" in warning and "leaks cannot be ruled out" in warning
    assert "you/tones names no parents" in ran.err
    (run,) = ran.value["runs"]
    (kept,) = run["leaks"]
    assert kept == warning.replace(str(tone_folder), "tones") and run["license"] == "cc-by-nc-4.0"
    assert "leaks cannot be ruled out" in (Path(run["folder"]) / "README.md").read_text()


def test_a_manifest_that_leads_out_of_the_cache_is_refused(
    usk: Command, hub: LocalHub, made: Path, tmp_path: Path
) -> None:
    (shard,) = (made / "data").glob("*.parquet")
    shutil.copy(shard, tmp_path / "outside.parquet")
    manifest = json.loads((made / "usk.json").read_text())
    for name in ("../../../../outside.parquet", str(tmp_path / "outside.parquet")):
        (made / "usk.json").write_text(json.dumps({**manifest, "shards": {name: {"rows": 6}}}))
        hub.create_repo("dataset", f"you/evil{len(name)}", made)
        for where in (f"you/evil{len(name)}", made):
            usk("info", where).refused(1, "is not the name of a shard")


# --- classifiers


def test_a_classifier_from_the_hub_predicts_what_the_run_does(
    usk: Command, hub: LocalHub, trained: Path, urbansound8k_folder: Path
) -> None:
    commit = hub.create_repo("model", "me/ears", trained).branches["main"]
    hub.fail("GET", "/api/models/me/ears", 503)  # a Hub that is busy is asked again
    hub.fail("GET", "resolve/.*/config.json", 503)
    clips = urbansound8k_folder / "audio" / "fold1"
    local = usk(f"predict {trained} {clips} --json").done()
    remote = usk(f"predict me/ears@{commit[:40]} {clips} --json").done()
    assert remote.value == local.value
    one = library.predict(clips, "me/ears")[0].as_dict()
    assert one == local.value[0]
    asked = [path for method, path, _ in hub.requests if method == "GET" and "/resolve/" in path]
    assert not any("predictions" in path or "history" in path for path in asked)
    far, near = AudioClassifier.from_pretrained("me/ears"), library.load_classifier(trained)
    assert far.class_names == near.class_names and far.feature_settings == near.feature_settings
    assert not far.training
    for name, tensor in near.state_dict().items():
        np.testing.assert_array_equal(far.state_dict()[name], tensor)


def test_pickled_weights_are_never_asked_for(hub: LocalHub, trained: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pickled"
    folder.mkdir()
    shutil.copy(trained / "config.json", folder)
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({}))
    hub.create_repo("model", "you/pickled", folder)
    with pytest.raises(ModelError, match=r"not a classifier of usk: it has no model\.safetensors"):
        library.load_classifier("you/pickled")
    with pytest.raises(Exception, match=r"model\.safetensors"):
        AudioClassifier.from_pretrained("you/pickled")
    assert not any("pytorch_model" in path for _, path, _ in hub.requests)


# --- generators


AWAY: dict[str, Callable[[LocalHub, pytest.MonkeyPatch], object]] = {
    "no network": lambda hub, patch: hub.stop(),
    "offline mode": lambda hub, patch: patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True),
    "out of order": lambda hub, patch: (
        patch.setattr("usk.hub.RETRY_WAITS_S", ()),
        hub.fail(status=503, times=1_000),
    ),
    "not public any more": lambda hub, patch: setattr(hub.repo("model", "me/brush"), "private", True),
}


@pytest.mark.parametrize("away", AWAY.values(), ids=AWAY.keys())
@pytest.mark.parametrize("revision", ["", "@v2", "@{commit}"])
def test_a_downloaded_generator_is_found_without_the_hub(
    hub: LocalHub,
    tiny_pipeline: Tiny,
    monkeypatch: pytest.MonkeyPatch,
    away: Callable[..., object],
    revision: str,
) -> None:
    repo = hub.create_repo("model", "me/brush", tiny_pipeline())
    repo.tags["v2"] = commit = repo.branches["main"]
    name = "me/brush" + revision.format(commit=commit)
    there = load_generator(name, "cpu")
    away(hub, monkeypatch)
    here = load_generator(name, "cpu")
    assert here.model_id == there.model_id == f"me/brush@{commit}"
    with pytest.raises(ModelError, match="me/brush"):
        load_generator("me/brush@v1", "cpu")


def test_a_generator_is_looked_for_in_the_cache_at_its_own_revision(
    usk: Command, hub: LocalHub, tiny_pipeline: Tiny, urbansound8k_folder: Path, tmp_path: Path
) -> None:
    """What `main` was when it was last asked for: neither an older nor another revision. What it makes names its commit."""
    repo = hub.create_repo("model", "me/brush", tiny_pipeline())
    repo.tags["v1"] = old = repo.branches["main"]
    load_generator("me/brush", "cpu")
    new = hub.commit_folder(repo, tiny_pipeline(prediction_type="sample")).sha
    load_generator("me/brush", "cpu")
    out = tmp_path / "out"
    usk(f"synth --real {urbansound8k_folder} --model me/brush@v1 --per-class 1 --steps 1 --out {out}").done()
    assert open_source(out).clips[0].model == f"me/brush@{old}"
    hub.stop()
    assert load_generator("me/brush", "cpu").model_id == f"me/brush@{new}"
    assert load_generator("me/brush@v1", "cpu").model_id == f"me/brush@{old}"
    with pytest.raises(ModelError, match=r"cannot be reached \(no network\?\)"):
        load_generator("me/brush@v2", "cpu")


def test_what_is_no_pipeline_is_not_downloaded(hub: LocalHub, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "large.safetensors").write_bytes(b"x")
    hub.create_repo("model", "me/other", tmp_path / "other")
    with pytest.raises(ModelError, match=r"me/other.*model_index\.json"):
        load_generator("me/other", "cpu")
    assert not any("/resolve/" in path for _, path, _ in hub.requests)


# --- what is not there


@pytest.mark.parametrize(
    ("command", "begin", "named"),
    [
        ("info me/nothing", "me/nothing, which is not a folder here,", "is not on the Hub, or private"),
        ("info me/other", "me/other is a model on the Hub", "neither a generator nor a classifier"),
        ("predict runs/none demo", "runs/none ", "hf auth login"),
        ("predict me/other demo", "RUN me/other: is not a classifier", "it has no config.json"),
        ("audit me/nothing --real demo", "the Hub dataset me/nothing", "is not on the Hub"),
        ("train --real demo --synth me/nothing --mix synth", "the Hub dataset me/nothing", ""),
        ("train --real demo --mix real,me/hums@v9", "the Hub dataset me/hums", "no revision v9"),
        ("synth --real me/hums@v9", "the Hub dataset me/hums", "has no revision v9 on the Hub"),
    ],
)
def test_what_the_hub_does_not_have_is_one_line(
    one_line: Command, hub: LocalHub, tmp_path: Path, command: str, begin: str, named: str
) -> None:
    hub.create_repo("dataset", "me/hums", somebodys(tmp_path / "hums"))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "weights.bin").write_bytes(b"x")
    hub.create_repo("model", "me/other", tmp_path / "other")
    one_line(command, f"usk: {begin}", named)


EVIL = ("../../evil.json", "..\\\\evil.json", "/evil.json", "config.json")
INFO = '{"id": "me/x", "sha": "%s", "siblings": [%s]}'
HOSTILE_ANSWERS = {
    "HTML": "<html>sign in</html>",
    "a list": "[]",
    "null": "null",
    "a number": "7",
    "no fields": "{}",
    "nested": "[" * 20_000,
    "a commit that is none": INFO % ("main", ""),
    "names of other types": INFO % ("0" * 40, '{"rfilename": 5}'),
    "siblings of another type": INFO % ("0" * 40, '"x"'),
    "names that lead out": INFO % ("0" * 40, ", ".join(f'{{"rfilename": "{name}"}}' for name in EVIL)),
    "a size beyond all disks": INFO % ("0" * 40, '{"rfilename": "usk.json", "size": 1000000000000000}'),
}


@pytest.mark.parametrize("answer", HOSTILE_ANSWERS.values(), ids=HOSTILE_ANSWERS.keys())
@pytest.mark.parametrize("command", ["info me/x", "predict me/x demo"])
def test_a_hub_that_answers_with_something_else_is_one_line(
    one_line: Command,
    hub: LocalHub,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    answer: str,
) -> None:
    monkeypatch.setattr("usk.hub.RETRY_WAITS_S", ())
    hub.fail("GET", "/api/(models|datasets)/", 200, body=answer.encode(), times=10**6)
    one_line(command)
    assert not list(tmp_path.rglob("evil*")) and not list(hub.folder.parent.glob("evil*"))


@pytest.mark.parametrize("command", ["info me/x", "predict me/x demo", "synth --model me/x"])
def test_a_hub_that_never_answers_is_one_line(
    one_line: Command, hub: LocalHub, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setattr("usk.hub.READ_TIMEOUT_S", 0.2)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_ETAG_TIMEOUT", 0.2)
    hub.fail("*", "", silent=True, times=10**6)
    one_line(command, "cannot be reached")


@pytest.fixture
def pipeline(hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """me/x on a Hub for which usk has half a second."""
    monkeypatch.setattr("usk.hub.PATIENCE_S", 0.5)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_ETAG_TIMEOUT", 0.2)
    monkeypatch.setattr("time.sleep", lambda seconds, sleep=time.sleep: sleep(min(seconds, 0.2)))
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "model_index.json").write_text("{}")
    hub.create_repo("model", "me/x", tmp_path / "x")


@pytest.mark.usefixtures("pipeline")
@pytest.mark.parametrize("command", ["info me/x", "synth --model me/x"])
@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"status": 503}, "status 503"),
        ({"status": 500}, "status 500"),
        ({"drip_s": 0.02}, "too slowly"),
    ],
    ids=["503", "500", "headers that drip"],
)
def test_a_hub_that_fails_or_dawdles_for_long_is_given_up(
    one_line: Command, hub: LocalHub, command: str, how: dict[str, Any], message: str
) -> None:
    hub.fail("*", "", times=10**6, **how)
    one_line(command, message)


@pytest.mark.usefixtures("pipeline")
def test_a_hub_that_asks_for_a_day_is_not_waited_for_and_what_the_client_says_not_shown(
    hub: LocalHub, caplog: pytest.LogCaptureFixture
) -> None:
    hub.fail("*", "/resolve/", 429, headers={"Retry-After": "86400"}, times=10**6)
    with pytest.raises(ModelError, match="wants fewer requests"):
        load_generator("me/x")
    assert hub.slept_s == []
    hub.failures.clear()
    logging.getLogger("huggingface_hub").addHandler(caplog.handler)
    hub.fail("*", "/resolve/", silent=True, times=10**6)
    with pytest.raises(ModelError, match="too slowly"):
        load_generator("me/x")
    assert not caplog.records


def test_a_request_that_failed_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests after it are answered, however long ago it began."""
    monkeypatch.setattr("usk.hub.PATIENCE_S", 0.1)
    limit_waiting()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # and nobody listens there
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
        for _ in range(2):
            with contextlib.suppress(Exception):
                huggingface_hub.get_session().get(address)
            time.sleep(0.3)
        with pytest.raises(Exception) as refused:
            huggingface_hub.get_session().get(address)
    assert not isinstance(refused.value, HubTimeoutError)


def test_a_repository_is_never_run(hub: LocalHub, tmp_path: Path) -> None:
    """A loading script beside the data: `datasets` refuses it, and usk says so."""
    folder = tmp_path / "scripted"
    folder.mkdir()
    (folder / "scripted.py").write_text("raise SystemExit('ran')\n")
    hub.create_repo("dataset", "you/scripted", folder)
    with pytest.raises(SourceError, match="the Hub dataset you/scripted cannot be"):
        open_source("you/scripted")


@pytest.mark.parametrize("packed", [False, True], ids=["files", "archive"])
def test_a_repo_of_audio_files_is_a_source(hub: LocalHub, tmp_path: Path, packed: bool) -> None:
    """`datasets` asks for torchcodec there, which usk does not need."""
    repo, plain = tmp_path / "repo", tmp_path / "plain"
    names = ["file_name,label"]
    for index in range(6):
        write_wav(plain / f"{index}.wav", tone(300 + 100 * index, 0.3))
        names.append(f"{index}.wav,{'ab'[index % 2]}")
    (plain / "metadata.csv").write_text("\n".join(names) + "\n")
    (repo / "data").mkdir(parents=True)
    if packed:
        with zipfile.ZipFile(repo / "data" / "train.zip", "w") as archive:
            for file in sorted(plain.iterdir()):
                archive.write(file, file.name)
    else:
        shutil.copytree(plain, repo / "train")
    hub.create_repo("dataset", "me/files", repo)
    source = open_source("me/files")
    assert source.class_names == ("a", "b") and [clip.label for clip in source.clips] == [0, 1] * 3
    decoded = decode_source(source)
    for row in range(6):
        assert peak_hz(decoded.audio(row), 22_050) == pytest.approx(300 + 100 * row, abs=2)
