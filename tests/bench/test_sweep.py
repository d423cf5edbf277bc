"""The benchmark of sweeps: both ways train the same runs, and it says how many at a time."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.bench import sweep


@pytest.mark.slow
def test_it_runs_and_saves_what_it_measured(
    urbansound8k_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "sweep.json"
    words = ["--real", str(urbansound8k_folder), "--seeds", "2", "--epochs", "1", "--workers", "2"]
    monkeypatch.setattr(sys, "argv", ["sweep", *words, "--json", str(file)])
    sweep.main()
    first, second = json.loads(file.read_text())["rows"]
    assert (first["at_once"], second["at_once"]) == (1, 2)
    assert first["accuracies"] == second["accuracies"] and len(first["accuracies"]) == 2
    assert first["times"] == 1 and second["seconds"] > 0
