"""`usk study` runs from a TOML file, continues after a stop and writes its results. A wrong file is an error of one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.diffusion.text_models import save_model
from usk.data.mix import parse_mix
from usk.data.open import open_source
from usk.errors import UsageError
from usk.study.config import read_study
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
def study_file(tmp_path: Path) -> Path:
    (tmp_path / "study.toml").write_text(STUDY)
    return tmp_path / "study.toml"


def test_a_dry_run_lists_the_steps_and_does_nothing(usk: Command, study_file: Path) -> None:
    study_file.write_text(STUDY + "[generators.mine]\ntest_folds = [1]\nsteps = 5\n")
    ran = usk(f"study {study_file} --dry-run --json").done()
    assert [step.split()[0] for step in ran.value] == [
        "fit", "make", "make", "train", "train", "make", "train", "train",
    ]  # fmt: skip
    assert "filtered of 40 real clips, test fold 1" in ran.value[2] and "2 runs" in ran.value[4]
    assert [file.name for file in study_file.parent.iterdir()] == ["study.toml"]


@pytest.mark.slow
def test_a_study_makes_trains_compares_and_is_not_repeated(
    usk: Command, study_file: Path, demo_cache: None
) -> None:
    ran = usk(f"study {study_file} --json").done()
    result = json.loads((study_file.parent / "results.json").read_text())
    assert result == ran.value and ran.err.count("procedural sound") == 1
    mixes_of = {
        (comparison["train_clips"], comparison["augment"]): [row["mix"] for row in comparison["rows"]]
        for comparison in result["comparisons"]
    }
    mixes = ["real", "real,waveform", "real,waveform,filtered"]
    assert mixes_of[40, "none"] == ["real"]
    assert mixes_of[40, "basic"] == mixes_of[40, "best"] == mixes
    assert mixes_of[None, "basic"] == mixes[:2]
    assert {one["baseline"] for one in result["against_control"]} == {"real,waveform"}
    assert list(result["by_fold"]) == ["1"]
    assert "| trained on | 40 real clips | full real clips |" in (study_file.parent / "tables.md").read_text()
    assert (study_file.parent / "accuracy-1.png").stat().st_size > 5_000
    work = study_file.parent / "work"
    (filtered,) = [folder for folder in (work / "filtered").iterdir() if folder.is_dir()]
    assert set(open_source(filtered).counts().values()) == {2}
    records = {path: path.stat().st_mtime_ns for path in (work / "runs").glob("*/run.json")}
    assert len(records) == 7
    assert usk("study", study_file, "--json").value == result
    assert {path: path.stat().st_mtime_ns for path in (work / "runs").glob("*/run.json")} == records


@pytest.mark.slow
def test_each_part_goes_as_far_as_it_can_and_the_last_compares_all_runs(
    usk: Command, study_file: Path, demo_cache: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("usk.synth.synthesize.ROWS_PER_SHARD", 6)  # at least two units in each dataset
    study_file.write_text(
        STUDY.replace('[40, "full"]', "[40]").replace("real,waveform,filtered", "real,filtered")
    )
    for part in ("2/2", "1/2", "2/2", "1/2"):
        ran = usk("study", study_file, "--part", part, "--json")
        if part == "2/2" and not list((study_file.parent / "work").glob("runs/*/run.json")):
            assert ran.code == 1
            assert "units are missing, of part 1 of 2. Run the same command again" in ran.err.splitlines()[-1]
        else:
            assert ran.code == 0, ran.err
    assert len(list((study_file.parent / "work").glob("runs/*/run.json"))) == 4
    rows = {row["mix"] for one in ran.value["comparisons"] for row in one["rows"]}
    assert rows == {"real", "real,waveform", "real,filtered"}


def test_a_part_that_needs_another_part_is_an_error_of_one_line(usk: Command, study_file: Path) -> None:
    study_file.write_text(STUDY + "[generators.mine]\ntest_folds = [1]\nsteps = 5\n")
    usk("study", study_file, "--part", "2/2").refused(1, "part 1 has not fitted mine")
    assert usk("study", study_file, "--part", "3/2").code == 2


@pytest.mark.slow
def test_an_edited_study_compares_the_runs_of_its_file_and_refuses_what_was_made_otherwise(
    usk: Command, study_file: Path, urbansound8k_folder: Path, tmp_path: Path
) -> None:
    text = (
        STUDY.replace('"demo"', f'"{urbansound8k_folder}"')
        .replace('[40, "full"]', "[12]")
        .replace("40 = ", "12 = ")
        .replace(', "real,waveform,filtered"', "")
        .replace('["none", "basic"]', '["basic"]')
        .replace("clips.waveform", "clips.synth")
        .replace("real,waveform", "real,synth")
        + f"[generators.mine]\nfrom = '{save_model('stable_audio', tmp_path / 'base')}'\nlora = true\nsteps = 1\nbatch = 4\nlora_rank = 2\ntest_folds = [1]\n"
    )
    study_file.write_text(text)
    first = usk("study", study_file, "--json").done().value
    study_file.write_text(text.replace("epochs = 1", "epochs = 2").replace('mix_augments = ["basic"]', ""))
    second = usk("study", study_file, "--json").done().value
    assert first["comparisons"][0]["rows"] != second["comparisons"][0]["rows"]
    study_file.write_text(text)
    assert usk("study", study_file, "--json").done().value == first
    for old, new, differs in (
        ("12 = 1", "12 = 2", "per class"),
        ('strategy = "waveform"\n[clips.f', 'strategy = "sample"\n[clips.f', "strategy"),
        ('strategy = "waveform"\n[clips.f', 'strategy = "classical,waveform"\n[clips.f', "strategy"),
        ('strategy = "waveform"\n[clips.f', 'strategy = "waveform"\nfilter = 0.5\n[clips.f', "filter"),
        ("steps = 1", "steps = 2", "steps"),
        ("test_folds = [1]\n", "test_folds = [2]\n", "test folds"),
    ):
        position = text.rindex(old)
        study_file.write_text(text[:position] + new + text[position + len(old) :])
        usk("study", study_file).refused(2, differs)


@pytest.mark.parametrize(
    ("old", "new", "message"),
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
        ('strategy = "waveform"\n[clips', 'strategy = ["sample"]\n[clips', "Join names by commas"),
        ('strategy = "waveform"\n[clips', "optional = true\n[clips", "optional"),
        ('strategy = "waveform"\n[clips', "strateg = 1\n[clips", "strateg"),
        ("[clips.waveform]", "[generators.g]\nstepz = 1\n[clips.waveform]", "stepz"),
        ("real,waveform,filtered", "real,waveforms", "names waveforms, which is not in clips"),
        ("[clips.waveform]", "[model]\n7 = 'embedded'\n[clips.waveform]", "no entry for test fold 1"),
    ],
)
def test_a_wrong_file_is_an_error_of_one_line(
    usk: Command, study_file: Path, old: str, new: str, message: str
) -> None:
    assert old in STUDY
    study_file.write_text(STUDY.replace(old, new, 1))
    usk("study", study_file, "--dry-run").refused(2, message)


def test_a_missing_file_is_an_error_of_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        study(tmp_path / "none.toml")


@pytest.mark.parametrize("path", sorted(STUDIES.glob("*/study.toml")), ids=lambda path: path.parent.name)
def test_published_studies_are_valid(path: Path) -> None:
    config = read_study(path)
    for n in config.train_clips:
        parts = {name for mix in config.mixes[n] for name in parse_mix(mix).parts}
        assert parts - {"real"} <= set(config.clips) and config.seeds[n] > 0
    assert study(path, dry_run=True).steps
