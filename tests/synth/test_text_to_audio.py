"""Text-to-audio models, tiny and random, through the real entry point: prompts, provenance, resume, and wrong input."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.diffusion.text_models import save_model
from usk.cli.app import main
from usk.manifest import read_manifest

PROMPTS = 'dog_bark = ["a dog", "two dogs"]\nsiren = "a siren"\n'


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {
            name: save_model(name, tmp_path_factory.mktemp(name)) for name in ("stable_audio_3", "audioldm")
        }


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    file = tmp_path / "prompts.toml"
    file.write_text(PROMPTS, encoding="utf-8")
    return file


def usk(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["usk", *map(str, arguments)])
    try:
        main()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def synth_arguments(real: Path, model: Path, prompts: Path, out: Path) -> list[object]:
    return [
        "synth", "--real", real, "--model", model, "--prompt", prompts, "--classes", "dog_bark,siren",
        "--per-class", 4, "--steps", 2, "--device", "cpu", "--quiet", "--out", out,
    ]  # fmt: skip


def rows_in(folder: Path) -> list[dict[str, Any]]:
    return [
        row for file in sorted((folder / "data").glob("*.parquet")) for row in pq.read_table(file).to_pylist()
    ]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["stable_audio_3", "audioldm"])
def test_prompts_are_in_every_row_and_the_clips_train_a_classifier(
    name: str, models: dict[str, Path], prompts: Path, urbansound8k_folder: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    out, other = tmp_path / "synth", tmp_path / "other"
    given = (urbansound8k_folder, models[name], prompts)
    assert usk(monkeypatch, *synth_arguments(*given, out), "--batch", 4) == 0
    rows = rows_in(out)
    of_class = {"dog_bark": {"a dog", "two dogs"}, "siren": {"a siren"}}
    names = read_manifest(out).class_names
    assert len(rows) == 8 and all(row["prompt"] in of_class[names[row["label"]]] for row in rows)
    assert {row["prompt"] for row in rows} == {"a dog", "two dogs", "a siren"}
    assert read_manifest(out).prompts == {"dog_bark": ("a dog", "two dogs"), "siren": ("a siren",)}

    assert usk(monkeypatch, *synth_arguments(*given, other), "--batch", 3) == 0
    for mine, others in zip(rows, rows_in(other), strict=True):
        assert {**mine, "audio": None} == {**others, "audio": None} | {"gain_db": mine["gain_db"]}
        assert mine["gain_db"] == pytest.approx(others["gain_db"], abs=0.01)

    runs = tmp_path / "runs"
    train: Sequence[object] = (
        "train", "--real", urbansound8k_folder, "--synth", out, "--mix", "real", "--mix", "real,synth",
        "--test-folds", "1", "--seeds", 1, "--epochs", 1, "--device", "cpu", "--quiet", "--out", runs,
    )  # fmt: skip
    assert usk(monkeypatch, *train) == 0
    assert usk(monkeypatch, "eval", runs, "--quiet") == 0


@pytest.mark.slow
def test_a_killed_run_goes_on_and_ends_with_the_same_clips(
    models: dict[str, Path], prompts: Path, urbansound8k_folder: Path, tmp_path: Path
) -> None:
    once, killed = tmp_path / "once", tmp_path / "killed"
    code = "import sys, usk.synth.synthesize as s; s.ROWS_PER_SHARD = 2; from usk.cli.app import main; main()"

    def start(out: Path) -> subprocess.Popen[bytes]:
        arguments = synth_arguments(urbansound8k_folder, models["stable_audio_3"], prompts, out)
        return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments), "--batch", "2"])

    assert start(once).wait() == 0
    process = start(killed)
    while process.poll() is None and not list(killed.glob("data/*.parquet")):
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert start(killed).wait() == 0
    for name in ("usk.json", "plan.jsonl"):
        mine, others = ((folder / name).read_text().replace(str(folder), "OUT") for folder in (once, killed))
        assert mine == others
    assert rows_in(once) == rows_in(killed)


def refused(
    arguments: Sequence[object], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> str:
    """The one line that a command ends with."""
    capsys.readouterr()
    assert usk(monkeypatch, *arguments) in (1, 2)
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1, said
    return said[0]


def test_prompts_for_a_generator_or_strategy_without_any_are_refused(
    prompts: Path, urbansound8k_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    real = ("synth", "--real", urbansound8k_folder, "--out", tmp_path / "out", "--quiet")
    line = refused([*real, "--prompt", "a {class}", "--model", "embedded"], monkeypatch, capsys)
    assert line.startswith("usk: --prompt a {class}: has no effect") and "takes no prompts" in line
    line = refused([*real, "--prompt", "a {class}", "--strategy", "waveform"], monkeypatch, capsys)
    assert line.startswith("usk: --prompt a {class}: has no effect")
    line = refused([*real, "--prompt", "a {class}", "--quality", "published"], monkeypatch, capsys)
    assert line.startswith("usk: --prompt a {class}: has no effect")
    line = refused([*real, "--prompt", prompts, "--model", "nobody/nothing"], monkeypatch, capsys)
    assert "has no prompt for" in line  # before anything is downloaded
