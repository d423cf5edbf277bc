"""The commands and the Python code of README and docs run, with small sizes and a local Hub."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

from tests.diffusion.text_models import save_clap, save_model
from tests.hub_server import LocalHub
from tests.sounds import tone, write_wav
from usk.synth import filter as clip_filter

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


PAGES = ["README.md", *(page.relative_to(ROOT).as_posix() for page in sorted((ROOT / "docs").rglob("*.md")))]
BLOCK = re.compile(r"```(sh|python)\n(.*?)```", flags=re.DOTALL)
# What cannot be run here, or is run by another test: tests/engine/test_cluster_page.py, `.ci/run`.
ELSEWHERE = re.compile(r"pip install|hf (auth|jobs)|study study.toml")
WITHOUT = (  # run above; a record of what was run once; parts, see tests/engine
    "docs/tutorials/own-folder.md", "docs/studies/tables.md", "docs/studies/tables_other.md", "docs/how-to/cluster.md",
)  # fmt: skip
BEFORE = {  # what a page's reader has made already
    "docs/tutorials/publish.md": ["usk synth", "usk train --mix real,synth", "usk fit"],
}
SMALLER = [  # in this order
    (r"path/to/UrbanSound8K|(?<![/\w])sounds\b", "UrbanSound8K"),
    (r"s3://", "memory://"),
    (r"--test-folds \d+", "--test-folds 2"),
    (r"--seeds \d+", "--seeds 1"),
    (r"^(usk synth(?!.* --(model|strategy)).*)", r"\1 --model tiny"),
    (r"^(usk synth .*)", r"\1 --per-class 1 --quality draft --batch 4"),
    (r"^(usk train .*)", r"\1 --epochs 1 --seeds 1 --test-folds 2"),
    (r"^(usk fit(?!.* --(from|class-conditional)).*)", r"\1 --from tiny"),
    (r"^(usk fit .*)", r"\1 --steps 1 --batch 2"),
    (r"^(usk push .*)", r"\1 --yes"),
    (r"per_class=\d+", "per_class=1"),  # and in Python
    (r"TrainConfig\(seeds=\d+\)", "TrainConfig(seeds=1, epochs=1, test_folds=(2,))"),
]  # fmt: skip
MODELS = {
    "cvssp/audioldm2": "audioldm2",
    "stabilityai/stable-audio-open-1.0": "stable_audio",
    "ruixiangma/LongCat-AudioDiT-1B-Diffusers": "longcat",
}
LOCAL_MODELS = {"stable-audio-3-medium-base": "stable_audio_3", "stable-audio-3-medium": "stable_audio_3"}
PROMPTS = 'dog_bark = ["a dog"]\nsiren = ["a siren"]\n'


def steps_of(page: str) -> list[tuple[str, str]]:
    """Its commands, a line each, and its blocks of Python, in order."""
    found: list[tuple[str, str]] = []
    for language, block in BLOCK.findall((ROOT / page).read_text(encoding="utf-8")):
        if language == "python":
            found.append((language, block))
        elif not re.match(r"#!|python3 -m venv", block):
            lines = (re.sub(r"(^|\s+)#.*", "", line) for line in block.splitlines())
            found += [("sh", line) for line in lines if line and not ELSEWHERE.search(line)]
    return found


@pytest.fixture
def world(
    urbansound8k_folder: Path, tiny_pipeline: Callable[..., Path], hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], None]:  # fmt: skip
    """`world(text)`: what a page's text takes for granted is there: real clips, models, a user of the Hub."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("USK_REAL", str(urbansound8k_folder))
    monkeypatch.setattr(clip_filter, "MIN_STEPS", 2)
    (tmp_path / "tiny").symlink_to(tiny_pipeline())
    hub.add_user("user", "token")
    hub.login("token")

    def prepare(text: str) -> None:
        for name, family in MODELS.items():
            if name in text:
                hub.create_repo("model", name, save_model(family, tmp_path / "models" / family))
        for name, family in LOCAL_MODELS.items():
            if f"./{name} " in text:
                save_model(family, tmp_path / name)
        if "hf:laion/clap-htsat-unfused" in text:
            hub.create_repo("model", "laion/clap-htsat-unfused", save_clap(tmp_path / "clap"))
        if "memory://" in text:
            fsspec.filesystem("memory").put(f"{urbansound8k_folder}/", "/bucket/sounds/", recursive=True)
        (tmp_path / "prompts.toml").write_text(PROMPTS)
        (tmp_path / "freesound-ids.csv").write_text("freesound_id\n1\n")
        write_wav(tmp_path / "clip.wav", tone(440.0, 1.0))

    return prepare


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if page not in WITHOUT and steps_of(page)])
def test_every_block_of_a_page_runs(
    page: str, world: Callable[[str], None], usk: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    steps = [("sh", line) for line in BEFORE.get(page, ())] + steps_of(page)
    steps = [(language, reduced(text)) for language, text in steps]
    world("\n".join(text for _, text in steps))
    names: dict[str, Any] = {}
    for language, text in steps:
        if language == "python":
            if "usk.synthesize(" in text:
                shutil.rmtree("synth", ignore_errors=True)
            exec(compile(text, page, "exec"), names)
        elif text.startswith("export "):
            name, _, value = text.removeprefix("export ").partition("=")
            monkeypatch.setenv(name, value)
        else:
            assert text.startswith("usk "), text
            ran = usk(text.removeprefix("usk ").replace("runs/RUN", a_run(tmp_path)))
            assert ran.code == 0, (text, ran.err)


def reduced(line: str) -> str:
    for pattern, replacement in SMALLER:
        line = re.sub(pattern, replacement, line)
    return line


def a_run(root: Path) -> str:
    """One of the runs that a page's commands have trained."""
    return next((str(file.parent) for file in sorted(root.glob("runs/*/run.json"))), "runs/RUN")
