"""The end of the output of `usk eval`: the answer, and the command that trains the missing runs."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import usk as library
from usk.synth.settings import render_config


def test_the_next_command_goes_on_from_the_runs_that_are_there(
    usk: Callable[..., Any], tone_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = library.SynthConfig(per_class=3, render=render_config(strategy="waveform"))
    library.synthesize(library.open_source("tones"), "synth", config)
    few = "--epochs 1 --test-folds 1 --seeds 1"
    usk(f"train --real tones --mix real,synth {few} --use balanced", "--out", "my runs").done()
    *_, answer, line = usk("eval", "my runs").out.splitlines()
    assert answer.startswith("real,synth (balanced): Too few pairs to tell: ")
    command = shlex.split(line.partition("): ")[2])
    assert command[:2] == ["usk", "train"] and command[command.index("--seeds") + 1] == "6"
    command[command.index("--seeds") + 1] = "1"
    assert "trained before: 2 of 2" in usk(*command[1:], "--real", "tones").out
