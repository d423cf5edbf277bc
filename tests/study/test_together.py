"""Tests of docs/studies/together: several studies of one question, analyzed as one."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.runs import write_run
from tests.study import load
from usk.runs import read_runs

together = load("together/together.py")


def test_the_studies_of_a_seed_and_fold_are_one_pair_with_their_mean_difference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    common: dict[str, Any] = {"train_clips": 50, "augment": "strong"}
    for name, mix, gain, seeds in (
        ("one", "real,synth", 0.1, (0, 1)),
        ("two", "real,called", 0.3, (0, 1, 2)),
    ):
        for seed in seeds:
            for fold in (1, 2):
                write_run(tmp_path / name, "real", seed, fold, skill=0.5, **common)
                write_run(tmp_path / name, mix, seed, fold, skill=0.5 + gain, **common)
                write_run(tmp_path / name, "real,other", seed, fold, skill=0.9, **common)
        write_run(tmp_path / name, mix, 0, 1, skill=0.1, train_clips=50, augment="none")
        for last, skill in (("real", 0.2), ("real,synth", 0.4)):
            write_run(tmp_path / name, last, 0, 1, skill=skill, train_clips=100, augment="strong")
    write_run(
        tmp_path / "two", "real,synth", 0, 1, skill=0.0, **common
    )  # a different dataset that has the same name as the renamed one
    saved = tmp_path / "found.json"
    words = [str(tmp_path / "one"), str(tmp_path / "two"), "--train-clips", "50,100", "--mixes", "real,synth"]
    monkeypatch.setattr(
        sys, "argv", ["together", *words, "--as", "real,called=real,synth", "--json", str(saved)]
    )
    together.main()
    assert "50 real clips, real,synth: 73.3 %" in capsys.readouterr().out
    few, more = json.loads(saved.read_text())["comparisons"]
    (row,) = few["rows"]
    assert (few["train_clips"], row["mix"], row["studies"]) == (50, "real,synth", 2)
    difference = row["difference"]
    assert (difference["n_pairs"], difference["n_seeds"], difference["n_pairs_up"]) == (6, 3, 6)
    assert difference["difference_points"] == pytest.approx((20 + 20 + 30) / 3)
    assert row["accuracy_of_real"] == pytest.approx(0.5)
    assert row["p_value"] == row["p_value_holm"] == max(row["p_value_exact"], difference["p_value"])
    assert more["rows"][0]["difference"]["difference_points"] == pytest.approx(20)


@pytest.mark.parametrize(
    "changed", [{"steps": 900}, {"sources": {"real": {"revision": "cleaned"}}}, {"n_clips": 57}]
)
def test_runs_with_different_steps_or_clips_are_not_paired(tmp_path: Path, changed: dict[str, Any]) -> None:
    common: dict[str, Any] = {"steps": 100, "sources": {"real": {"revision": "noisy"}}}
    write_run(tmp_path, "real", **common)
    write_run(tmp_path, "real,synth", **(common | changed))
    with pytest.raises(SystemExit, match="took other steps, or were trained or tested on other real clips"):
        together.pairs_of(read_runs(tmp_path), "real,synth")
