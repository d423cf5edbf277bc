"""The README's and the tutorials' commands run as they stand on a small folder, and print what the pages show."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.sounds import tone, write_wav

ROOT = Path(__file__).resolve().parents[1]
RUN = {
    "README.md": "## Your own folder",
    "docs/tutorials/own-folder.md": "",
}  # from these headings on, up to the next of their kind
SMALL = {"usk synth": " --per-class 1", "usk train": " --epochs 1 --seeds 1 --test-folds 3"}
OUTPUT = re.compile(r"<!-- output of: (.+?) -->\n```text\n(.*?)```", flags=re.DOTALL)


def small(line: str) -> str:
    """The same command with tiny sizes: later options win."""
    command = re.sub(r"\s*#.*", "", line)
    return command + next((more for begin, more in SMALL.items() if command.startswith(begin)), "")


def masked(text: str) -> str:
    """Without what may differ from run to run: numbers, and the room that they take."""
    return re.sub(r"[-+]?[\d.,]*\d", "#", " ".join(text.split()))


def section(page: str) -> str:
    text, heading = (ROOT / page).read_text(encoding="utf-8"), RUN[page]
    return text[text.index(heading) :].partition("\n## ")[0] if heading else text


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN)
def test_a_pages_commands_run_and_print_what_it_shows(page: str, tmp_path: Path) -> None:
    for number, name in enumerate(("dog", "rain", "siren")):
        for clip in range(12):
            noise = 0.02 * np.random.default_rng(clip).normal(size=22_050).astype(np.float32)
            write_wav(tmp_path / "sounds" / name / f"{clip}.wav", tone(300.0 * (number + 1), 1.0) + noise)
    text = section(page)
    lines = [
        line for block in re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL) for line in block.splitlines()
    ]
    assert sum(line.startswith("usk ") for line in lines) >= 5
    printed = {line: tmp_path / f"out-{at}" for at, line in enumerate(lines) if line.startswith("usk ")}
    script = [f'usk() {{ "{sys.executable}" -m usk "$@"; }}', "set -e"]
    script += [f'{small(line)} > "{printed[line]}"' if line in printed else line for line in lines]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "PYTHONIOENCODING": "utf-8"}
    ran = subprocess.run(
        ["bash", "-c", "\n".join(script)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    shown = OUTPUT.findall(text)
    assert shown
    for command, output in shown:
        (file,) = (file for line, file in printed.items() if re.sub(r"\s*#.*", "", line) == command)
        assert masked(output) in masked(file.read_text(encoding="utf-8")), command
    assert (tmp_path / "report.html").stat().st_size > 100_000
