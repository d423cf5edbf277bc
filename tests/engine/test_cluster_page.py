"""Run the Slurm script of docs/how-to/cluster.md with bash, as Slurm would."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "how-to" / "cluster.md"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_the_slurm_script_makes_a_dataset_in_parts(
    urbansound8k_folder: Path, usk: Callable[..., Any], tmp_path: Path
) -> None:
    (script,) = re.findall(r"```sh\n(#!/bin/bash\n.*?)```", PAGE.read_text(), flags=re.DOTALL)
    (tmp_path / "synth.sh").write_text(script)
    (tmp_path / "bin").mkdir()
    (shim := tmp_path / "bin" / "usk").write_text(f'#!/bin/bash\nexec "{sys.executable}" -m usk "$@"\n')
    shim.chmod(0o755)
    command = ["--real", urbansound8k_folder, "--strategy", "waveform", "--per-class", 60, "--out"]
    variables = {
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "HF_HUB_OFFLINE": "1",
    }
    for number in ("2", "1"):
        slurm = {"SLURM_ARRAY_TASK_ID": number, "SLURM_ARRAY_TASK_COUNT": "2", "SLURM_CPUS_PER_TASK": "1"}
        ran = subprocess.run(
            ["bash", "synth.sh", *map(str, command), "out"], cwd=tmp_path, env={**os.environ, **variables, **slurm},
            capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert ran.returncode == 0, ran.stderr
        assert ("of part 1 of 2" in ran.stdout) == (number == "2")
    assert usk("synth", *command, tmp_path / "once", "--quiet").code == 0
    for file in (tmp_path / "once").rglob("*"):
        if file.is_file():
            assert (tmp_path / "out" / file.relative_to(tmp_path / "once")).read_bytes() == file.read_bytes()
    without = subprocess.run(
        ["bash", "synth.sh"], cwd=tmp_path, env={**os.environ, **variables}, capture_output=True
    )
    assert without.returncode != 0  # outside a job array the script stops
