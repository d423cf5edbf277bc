"""The end of the output of `usk eval`: the answer, and the command that trains the missing runs."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import usk as library
from tests.runs import write_run
from usk.cli.comparison import next_command
from usk.evaluate.compare import compare_runs
from usk.synth.settings import render_config


def test_the_next_command_goes_on_from_the_runs_that_are_there(
    usk: Callable[..., Any], tone_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = library.SynthConfig(per_class=3, render=render_config(strategy="waveform"))
    library.synthesize(library.open_source("tones"), "synth", config)
    few = "--epochs 1 --test-folds 1 --seeds 1"
    usk(f"train --real tones --mix real,synth {few} --use balanced", "--out", "my runs").done()
    out = usk("eval", "my runs").out
    assert out.lower().count("too few pairs") == 1 and "real,synth (balanced): " in out
    command = shlex.split(out.splitlines()[-1].partition("): ")[2])
    assert "--epochs" in command and not {"--batch", "--learning-rate", "--augment"} & set(command)
    assert command[:2] == ["usk", "train"] and command[command.index("--seeds") + 1] == "6"
    command[command.index("--seeds") + 1] = "1"
    assert "trained before: 2 of 2" in usk(*command[1:], "--real", "tones").out


@pytest.mark.parametrize(
    ("epochs", "augment", "options"), [(225, "strong", ""), (59, "basic", " --augment basic --epochs 59")]
)
def test_the_next_command_leaves_out_what_is_the_default(
    tmp_path: Path, epochs: int, augment: str, options: str
) -> None:
    """With 100 real clips, small trains for 225 epochs of 16 batches."""
    for mix in ("real", "real,synth"):
        write_run(tmp_path, mix, epochs=epochs, steps=16 * epochs, augment=augment)
    (line,) = next_command(compare_runs(tmp_path)[0], "runs")
    assert line.endswith(f": usk train --mix real,synth --test-folds 1 --seeds 6{options}")


def test_the_next_command_trains_the_named_baseline_and_one_use(tmp_path: Path) -> None:
    for mix in ("real", "real,waveform", "real,synth", "real,synth (balanced)"):
        use = {"real_share": 0.5} if "balanced" in mix else {}
        write_run(tmp_path, mix, epochs=225, steps=3_600, augment="strong", **use)
    for baseline, mixes in (
        ("real,waveform", "real,waveform --mix real,synth"),
        (None, "real,waveform --mix real,synth"),
        ("real,synth (balanced)", "real,synth --test-folds 1 --seeds 7 --use balanced"),
    ):
        (line,) = next_command(compare_runs(tmp_path, baseline)[0], "runs")
        assert f": usk train --mix {mixes}" in line and "(balanced)" not in line
