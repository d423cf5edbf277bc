"""The study runs from its configuration, goes on where it was, and says what it found."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.bench import study
from tests.runs import write_run
from usk.data.mix import parse_mix
from usk.data.open import open_source
from usk.runs import read_runs
from usk.synth.subsets import TrainSubset

CONFIG = """
test_folds = [1]
train_clips = ["40", "full"]
classifier = "small"
augments = ["none", "basic"]
epochs = 1
control = "real,waveform"
mix_augments = ["basic"]
seeds = 1
[mixes]
40 = ["real,waveform", "real,waveform,judged"]
full = ["real,waveform"]
[per_class]
40 = 1
full = 1
[clips.waveform]
strategy = "waveform"
[clips.judged]
strategy = "waveform"
clip_filter = true
per_class = 2
"""


@pytest.mark.slow
def test_it_makes_trains_compares_and_saves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], demo_cache: None
) -> None:
    (tmp_path / "study.toml").write_text(CONFIG)
    saved, chart = tmp_path / "study.json", tmp_path / "study.png"
    words = [str(tmp_path / "study.toml"), "--real", "demo", "--work", str(tmp_path / "work")]
    monkeypatch.setattr(sys, "argv", ["study", *words, "--json", str(saved), "--png", str(chart)])
    study.main()
    result = json.loads(saved.read_text())
    found = {
        (comparison["train_clips"], comparison["augment"]): [row["mix"] for row in comparison["rows"]]
        for comparison in result["comparisons"]
    }
    mixes = ["real", "real,waveform", "real,waveform,judged"]
    assert found == {
        (40, "none"): ["real"],
        (40, "basic"): mixes,
        (None, "none"): ["real"],
        (None, "basic"): mixes[:2],
        (40, "best"): mixes,
        (None, "best"): mixes[:2],
    }
    assert [(one["train_clips"], one["baseline"]) for one in result["against_control"]] == [
        (40, "real,waveform"), (None, "real,waveform"),
    ]  # fmt: skip
    assert [(row["mix"], row["train_clips"], row["against_real"]) for row in result["against_more_real"]] == [
        ("real", "full", "40"), ("real,waveform", "40", "full"), ("real,waveform,judged", "40", "full"),
    ]  # fmt: skip
    alone = {one["train_clips"]: [row["difference"] for row in one["rows"]] for one in result["by_fold"]["1"]}
    assert alone == {
        one["train_clips"]: [row["difference"] for row in one["rows"]]
        for one in result["comparisons"]
        if one["augment"] == "basic"
    }, "there is one test fold"
    (judged,) = (tmp_path / "work" / "judged").iterdir()  # of the train_clips that a mix takes it for
    counts = open_source(judged).counts()
    assert judged.name == "40-train_clips-fold1-seed0" and set(counts.values()) == {2}
    assert chart.stat().st_size > 5_000
    shown = capsys.readouterr().out
    assert "40 real" in shown and "full real" in shown and "real,waveform,judged, basic" in shown
    runs = {path: path.stat().st_mtime_ns for path in (tmp_path / "work" / "runs").glob("*/run.json")}
    assert len(runs) == 7
    study.main()
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "work" / "runs").glob("*/run.json")} == runs


def test_each_fold_may_have_a_generator_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text(CONFIG + '[model]\n1 = "mine"\n2 = "embedded"\n')
    config = study.Config.read(tmp_path / "study.toml")
    assert (config.model_for(1), config.model_for(2)) == ("mine", "embedded")
    (tmp_path / "study.toml").write_text(CONFIG)
    assert study.Config.read(tmp_path / "study.toml").model_for(2) == "embedded"


def test_it_compares_the_runs_that_its_configuration_names(tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text(CONFIG)
    for fold in (1, 2):
        for mix in ("real", "real,waveform", "real,sample"):
            write_run(tmp_path / "runs", mix, fold=fold, train_clips=40)
    write_run(tmp_path / "runs", "real", train_clips=50)
    write_run(tmp_path / "runs", "real", fold=1, train_clips=40, seed=1)  # of a configuration with more seeds
    config = study.Config.read(tmp_path / "study.toml")
    named = [
        (run.fold, run.train_clips, run.mix) for run in read_runs(tmp_path / "runs") if config.names(run)
    ]
    assert sorted(named) == [(1, 40, "real"), (1, 40, "real,waveform")]
    (tmp_path / "study.toml").write_text("first_seed = 1\n" + CONFIG)
    config = study.Config.read(tmp_path / "study.toml")
    assert [(run.seed, run.mix) for run in read_runs(tmp_path / "runs") if config.names(run)] == [(1, "real")]


def test_of_all_clips_only_the_first_seed_makes_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rest train at the same time, on what it has made."""
    (tmp_path / "study.toml").write_text("first_seed = 2\n" + CONFIG)
    config, made = study.Config.read(tmp_path / "study.toml"), []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(study, "train", lambda *_, **__: None)
    monkeypatch.setattr(
        study, "synthesize_subsets", lambda source, name, subsets, *_, **__: made.append(subsets)
    )
    for subset in (TrainSubset(None, 1, 2), TrainSubset(None, 1, 3), TrainSubset(40, 1, 3)):
        study.work_on(config, "demo", str(tmp_path), subset)
    assert made == [[TrainSubset(None, 1, 2)], *[[TrainSubset(40, 1, 3)]] * 2]


def test_what_is_trained_so_far_can_be_compared_before_every_fold_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "study.toml").write_text(CONFIG.replace("test_folds = [1]", "test_folds = [1, 2]"))
    for mix in ("real", "real,waveform"):
        write_run(tmp_path / "work" / "runs", mix, fold=1, train_clips=40, augment="basic")
    words = [str(tmp_path / "study.toml"), "--work", str(tmp_path / "work"), "--only-results"]
    monkeypatch.setattr(sys, "argv", ["study", *words, "--json", str(tmp_path / "study.json")])
    study.main()
    result = json.loads((tmp_path / "study.json").read_text())
    assert list(result["by_fold"]) == ["1"] and [one["train_clips"] for one in result["comparisons"]] == [40]


@pytest.mark.parametrize(
    "path", sorted(Path(study.__file__).parent.glob("study*.toml")), ids=lambda path: path.stem
)
def test_the_configurations_name_what_they_need(path: Path) -> None:
    config = study.Config.read(path)
    for train_clips in config.train_clips:
        name = "full" if train_clips is None else str(train_clips)
        parts = [part.name for mix in config.mixes[name] for part in parse_mix(mix).parts]
        assert config.seeds[name] > 0 and config.augments[name]
        for part in set(parts) - {"real"}:
            config.synth(part, train_clips)
    assert all(config.model_for(fold) for folds in config.test_folds.values() for fold in folds)
