"""`usk study` runs from its file, goes on where it was, and says what it found; files that cannot be meant are one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.runs import write_run
from usk.data.mix import parse_mix
from usk.data.open import open_source
from usk.errors import UsageError
from usk.runs import read_runs
from usk.study.config import read_study
from usk.study.results import names
from usk.study.run import study

Command = Callable[..., Any]
STUDIES = Path(__file__).parents[2] / "docs" / "studies"
STUDY = """
real = "demo"
test_folds = [1]
train_clips = [40, "full"]
classifiers = ["small"]
augments = ["none", "basic"]
mix_augments = ["basic"]
epochs = 1
control = "real,waveform"
seeds = 1
[mixes]
40 = ["real,waveform", "real,waveform,filtered"]
full = ["real,waveform"]
[per_class]
40 = 1
full = 1
[clips.waveform]
strategy = "waveform"
[clips.filtered]
strategy = "waveform"
filter = 0.5
per_class = 2
"""


@pytest.fixture
def written(tmp_path: Path) -> Path:
    (tmp_path / "study.toml").write_text(STUDY)
    return tmp_path / "study.toml"


def test_a_dry_run_says_what_would_be_done_and_does_nothing(usk: Command, written: Path) -> None:
    written.write_text(STUDY + "[generators.mine]\ntest_folds = [1]\nsteps = 5\n")
    ran = usk("study", written, "--dry-run", "--json")
    assert ran.code == 0, ran.err
    assert [step.split()[0] for step in ran.value] == [
        "fit", "make", "make", "train", "train", "make", "train", "train",
    ]  # fmt: skip
    assert "filtered of 40 real clips, test fold 1" in ran.value[2] and "2 runs" in ran.value[4]
    assert [file.name for file in written.parent.iterdir()] == ["study.toml"]


@pytest.mark.slow
def test_it_makes_trains_compares_and_goes_on(usk: Command, written: Path, demo_cache: None) -> None:
    ran = usk("study", written, "--json")
    assert ran.code == 0, ran.err
    result = json.loads((written.parent / "results.json").read_text())
    assert result == ran.value
    found = {
        (comparison["train_clips"], comparison["augment"]): [row["mix"] for row in comparison["rows"]]
        for comparison in result["comparisons"]
    }
    mixes = ["real", "real,waveform", "real,waveform,filtered"]
    assert found[40, "none"] == ["real"] and found[40, "basic"] == found[40, "best"] == mixes
    assert found[None, "basic"] == mixes[:2]
    assert {one["baseline"] for one in result["against_control"]} == {"real,waveform"}
    assert list(result["by_fold"]) == ["1"]
    assert "| trained on | 40 real clips | full real clips |" in (written.parent / "tables.md").read_text()
    assert (written.parent / "accuracy-1.png").stat().st_size > 5_000
    work = written.parent / "work"
    (filtered,) = [folder for folder in (work / "filtered").iterdir() if folder.is_dir()]
    assert set(open_source(filtered).counts().values()) == {2}
    records = {path: path.stat().st_mtime_ns for path in (work / "runs").glob("*/run.json")}
    assert len(records) == 7
    assert usk("study", written, "--json").value == result
    assert {path: path.stat().st_mtime_ns for path in (work / "runs").glob("*/run.json")} == records


@pytest.mark.slow
def test_parts_go_on_as_far_as_they_can_and_end_alike(
    usk: Command, written: Path, demo_cache: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Part 2 of 2 makes its clips and says what it waits for; the last of them compares all runs."""
    monkeypatch.setattr("usk.synth.synthesize.ROWS_PER_SHARD", 6)  # two units a dataset at least
    written.write_text(
        STUDY.replace('[40, "full"]', "[40]").replace("real,waveform,filtered", "real,filtered")
    )
    for part in ("2/2", "1/2", "2/2", "1/2"):
        ran = usk("study", written, "--part", part, "--json")
        if part == "2/2" and not list((written.parent / "work").glob("runs/*/run.json")):
            assert ran.code == 1
            assert "units are missing, of part 1 of 2. Run the same command again" in ran.err.splitlines()[-1]
        else:
            assert ran.code == 0, ran.err
    assert len(list((written.parent / "work").glob("runs/*/run.json"))) == 4
    rows = {row["mix"] for one in ran.value["comparisons"] for row in one["rows"]}
    assert rows == {"real", "real,waveform", "real,filtered"}


def test_a_part_that_cannot_go_on_says_so(usk: Command, written: Path) -> None:
    written.write_text(STUDY + "[generators.mine]\ntest_folds = [1]\nsteps = 5\n")
    usk("study", written, "--part", "2/2").refused(1, "part 1 has not fitted mine")
    assert usk("study", written, "--part", "3/2").code == 2


def test_what_is_trained_so_far_is_compared_and_other_runs_are_not(usk: Command, written: Path) -> None:
    written.write_text(STUDY.replace("test_folds = [1]", "test_folds = [1, 2]"))
    runs = written.parent / "work" / "runs"
    for fold in (1, 3):
        for mix in ("real", "real,waveform", "real,sample"):
            write_run(runs, mix, fold=fold, train_clips=40, augment="basic")
    write_run(runs, "real", fold=1, train_clips=40, seed=1, augment="basic")
    write_run(runs, "real", fold=1, train_clips=50, augment="basic")
    config = read_study(written)
    named = [(run.fold, run.train_clips, run.mix) for run in read_runs(runs) if names(config, run)]
    assert sorted(named) == [(1, 40, "real"), (1, 40, "real,waveform")]
    used = replace(config, uses=("as-is", "balanced"))
    write_run(runs, "real,waveform (balanced)", fold=1, train_clips=40, augment="basic")
    named = [run.mix for run in read_runs(runs) if names(used, run)]
    assert sorted(named) == ["real", "real,waveform", "real,waveform (balanced)"]
    found = study(written, only_results=True).results
    assert list(found["by_fold"]) == ["1"]
    assert [one["train_clips"] for one in found["comparisons"]] == [40]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("seeds = 1", "seeds = [", "is not a TOML file"),
        ("seeds = 1", "", "lacks seeds"),
        ("seeds = 1", "seeds = 1\nuses = ['most']", "most: is not known"),
        ("seeds = 1", "seeds = 0", "seeds 0: must be at least 1"),
        ("seeds = 1", "seeds = true", "seeds is not a whole number"),
        ("train_clips = [40", "train_clips = 40 #", "train_clips"),
        ("seeds = 1", "seeds = 'x'", "seeds is not a whole number"),
        ("epochs = 1", "epochz = 1", "epochz is not a key"),
        ('train_clips = [40, "full"]', "train_clips = [0]", "is not a number of clips"),
        ('train_clips = [40, "full"]', 'train_clips = [40, 7, "full"]', "has no value for 7 real clips"),
        ("[clips.waveform]", "[clips]\nwaveform = 1\n[clips.other]", "is not"),
        ('strategy = "waveform"\n[clips', 'strategy = "nonsense"\n[clips', "nonsense"),
        ('strategy = "waveform"\n[clips', "strateg = 1\n[clips", "strateg"),
        ("[clips.waveform]", "[generators.g]\nstepz = 1\n[clips.waveform]", "stepz"),
        ("[clips.waveform]", "[model]\n7 = 'embedded'\n[clips.waveform]", "no entry for test fold 1"),
    ],
)
def test_a_file_that_cannot_be_meant_is_one_line(
    usk: Command, written: Path, old: str, new: str, said: str
) -> None:
    assert old in STUDY
    written.write_text(STUDY.replace(old, new, 1))
    usk("study", written, "--dry-run").refused(2, said)


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        study(tmp_path / "none.toml")


@pytest.mark.parametrize("path", sorted(STUDIES.glob("*/study.toml")), ids=lambda path: path.parent.name)
def test_published_studies_can_be_run(path: Path) -> None:
    config = read_study(path)
    for n in config.train_clips:
        parts = {name for mix in config.mixes[n] for name in parse_mix(mix).parts}
        assert parts - {"real"} <= set(config.clips) and config.seeds[n] > 0
    assert study(path, dry_run=True).steps
