"""The published experiment: its generator hears nothing that is tested, and what is done is not done again."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path

import pytest

from tests.bench import seed_9010
from usk.data.open import open_source
from usk.data.splits import held_out_groups, seed_9010_split
from usk.diffusion.fit_config import FitConfig


def test_the_generator_hears_no_clip_that_any_seed_tests() -> None:
    source = open_source("demo")
    heard = {clip.clip_id for clip in seed_9010.untested(source, range(3)).clips}
    tested = {
        source.clips[row].clip_id for seed in range(3) for row in seed_9010_split(source.clips, seed).test
    }
    assert heard and tested and not heard & tested
    assert len(heard) + len(tested) == len(source)


def test_seeds_share_generators() -> None:
    groups = [seed_9010.sharing(seed, 7, 3) for seed in range(7)]
    assert groups == [range(0, 3)] * 3 + [range(3, 6)] * 3 + [range(6, 7)]
    names = [seed_9010.generator_of(group) for group in groups[::3]]
    assert names == ["generator0-2", "generator3-5", "generator6-6"]
    assert seed_9010.generator_of(seed_9010.sharing(4, 7, None)) == "generator0-6"


def test_a_mix_can_have_epochs_of_its_own() -> None:
    assert seed_9010.own_length(50, 1_933, 1_000) == 76
    assert seed_9010.own_length(50, 1_933, 0) == 50


@pytest.mark.slow
def test_it_fits_makes_trains_and_compares(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], demo_cache: None
) -> None:
    work, saved = tmp_path / "work", tmp_path / "found.json"
    words = ["--work", str(work), "--seeds", "2", "--strategies", "waveform", "--per-class", "1"]
    words += ["--steps", "1", "--batch", "2", "--epochs", "1", "--classifier", "small", "--json", str(saved)]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["seed_9010", *words])
    monkeypatch.setattr(seed_9010, "FitConfig", partial(FitConfig, channels=(8, 16)))
    seed_9010.main()
    assert "real,waveform" in capsys.readouterr().out
    assert str(tmp_path) not in saved.read_text()  # nobody's folders
    (comparison,) = json.loads(saved.read_text())["comparisons"]
    assert comparison["protocol"] == "seed-9010"
    runs = json.loads(saved.read_text())["runs"]
    assert sorted((run["mix"], run["seed"]) for run in runs) == [
        ("real", 0), ("real", 1), ("real,waveform", 0), ("real,waveform", 1),
    ]  # fmt: skip
    assert len({run["steps"] for run in runs}) == 1  # equal work
    assert [(row["mix"], row["n_runs"]) for row in comparison["rows"]] == [("real", 2), ("real,waveform", 2)]
    untested = seed_9010.untested(open_source("demo"), range(2)).clips
    held = held_out_groups(untested)
    (heard,) = json.loads((work / "generator0-1" / "trained_on.json").read_text())["sources"]
    assert heard["clips"] == sum(clip.group not in held for clip in untested)
    for seed in (0, 1):  # no parent is a test clip of its seed
        split = seed_9010_split(open_source("demo").clips, seed)
        tested = {open_source("demo").clips[row].clip_id for row in split.test}
        made = open_source(work / f"seed{seed}" / "waveform").clips
        assert len(made) == 10 and not any(tested & set(clip.parents) for clip in made)
    made_at = {path: path.stat().st_mtime_ns for path in work.rglob("*.json")}
    seed_9010.main()
    assert {path: path.stat().st_mtime_ns for path in work.rglob("*.json")} == made_at
    monkeypatch.setattr(sys, "argv", ["seed_9010", *words, "--only", "fit2"])
    with pytest.raises(SystemExit):
        seed_9010.main()
    assert "--only fit2: there are seeds 0 to 1" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["seed_9010", *words, "--own-epochs", "--only", "1"])
    monkeypatch.setattr(seed_9010, "own_length", lambda epochs, *_: epochs + 1)
    seed_9010.main()
    records = [json.loads(file.read_text()) for file in (work / "runs_own_epochs").glob("*/run.json")]
    assert sorted((record["mix"], record["epochs"]) for record in records) == [
        ("real", 1),
        ("real,waveform", 2),
    ]
