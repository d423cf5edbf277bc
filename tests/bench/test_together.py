"""Several studies of one question as one."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.bench import together
from tests.runs import write_run


def test_seeds_of_further_folders_are_other_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, mix, gain in (("one", "real,synth", 0.1), ("two", "real,called", 0.3)):
        for seed in (0, 1):
            for fold in (1, 2):
                common = {"shots": 50, "augment": "strong"}
                write_run(tmp_path / name, "real", seed, fold, skill=0.5, **common)
                write_run(tmp_path / name, mix, seed, fold, skill=0.5 + gain, **common)
                write_run(tmp_path / name, "real,other", seed, fold, skill=0.9, **common)
        write_run(tmp_path / name, mix, 0, 1, skill=0.1, shots=50, augment="none")
        write_run(tmp_path / name, mix, 0, 1, skill=0.1, shots=100, augment="strong")
    saved = tmp_path / "found.json"
    words = [str(tmp_path / "one"), str(tmp_path / "two"), "--shots", "50", "--mixes", "real,synth"]
    monkeypatch.setattr(
        sys, "argv", ["together", *words, "--as", "real,called=real,synth", "--json", str(saved)]
    )
    together.main()
    assert "50 real clips, real,synth" in capsys.readouterr().out
    (comparison,) = json.loads(saved.read_text())["comparisons"]
    real, mixed = comparison["rows"]
    assert (real["mix"], real["n_runs"], mixed["mix"], mixed["n_runs"]) == ("real", 8, "real,synth", 8)
    difference = mixed["difference"]
    assert (difference["n_pairs"], difference["n_seeds"], difference["n_pairs_up"]) == (8, 4, 8)
    assert difference["difference_points"] == pytest.approx(20)
