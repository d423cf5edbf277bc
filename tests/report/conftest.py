"""Fixtures: report pages for browsers."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import usk
from tests.runs import write_run
from tests.sounds import tone, write_wav
from usk.report.page import ReportConfig
from usk.runs import Predictions
from usk.synth.settings import render_config

HOSTILE = ("<script>window.hacked=1<", '"><img src=x onerror=window.hacked=1>', "{{ 7*7 }}")
HOSTILE_MIX = "real,</script><script>window.hacked=1</script>"


@pytest.fixture(scope="session")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Pages with names of classes and mixes that try to inject code: `whole` is one file, `split` has assets."""
    root = tmp_path_factory.mktemp("study")
    for number, name in enumerate(HOSTILE):
        for recording in range(8):
            write_wav(
                root / "clips" / name / f"rec{recording}" / "cut.wav",
                tone(300.0 * (number + 1) + 9 * recording, 0.6),
            )
    real = usk.open_source(root / "clips")
    config = usk.SynthConfig(per_class=10, render=render_config(strategy="waveform"))
    made = usk.synthesize(real, root / "synth", config)
    shutil.copytree(made.folder / "data", made.folder / "rejected" / "data")
    for seed in (0, 1):
        write_run(root / "runs", "real", seed, skill=0.5, class_names=HOSTILE)
        write_run(root / "runs", HOSTILE_MIX, seed, skill=0.7, class_names=HOSTILE)
        for mix in (
            "real",
            HOSTILE_MIX,
            "real,a",
            "real,b",
        ):  # a second number of train clips adds the overview
            write_run(root / "runs", mix, seed, skill=0.4, class_names=HOSTILE, train_clips=20, n_real=20)
    files = {}
    for name, split in (("whole", False), ("split", True)):
        config = ReportConfig(runs=str(root / "runs"), synth=str(made.folder), split=split)
        files[name] = usk.report(root / name / "a page.html", config, real=real).file
    return files


@pytest.fixture(scope="session")
def changed_page(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, set[tuple[str, str, str]]]:
    """A page of one pair of runs on fold 1, and its changes: clip, change, wrong class."""
    root = tmp_path_factory.mktemp("changed")
    names = ("dog", "rain", "siren")
    for number, name in enumerate(names):
        for recording in range(8):
            write_wav(
                root / "clips" / name / f"{recording}.wav", tone(300.0 * (number + 1) + 9 * recording, 0.6)
            )
    real = usk.open_source(root / "clips")
    made = usk.synthesize(
        real, root / "synth", usk.SynthConfig(per_class=12, render=render_config(strategy="waveform"))
    )
    tested = sorted((clip.clip_id, clip.label) for clip in real.clips if clip.fold == 1)
    labels = np.array([label for _, label in tested])
    before, now = labels.copy(), labels.copy()
    before[0] = (labels[0] + 1) % 3  # wrong before, right now
    now[[1, 2]] = (labels[[1, 2]] + 2) % 3  # right before, wrong now
    before[3] = now[3] = (labels[3] + 1) % 3  # wrong in both
    revision = usk.open_source(made.folder).revision
    for mix, predicted in (("real", before), ("real,synth", now)):
        folder = write_run(
            root / "runs", mix, class_names=names,
            sources={"real": {"revision": real.revision}, "synth": {"revision": revision}},
        )  # fmt: skip
        ids = np.array([clip_id for clip_id, _ in tested])
        Predictions(ids, ids, labels, predicted, np.eye(3, dtype=np.float32)[predicted]).write(folder)
    config = ReportConfig(runs=str(root / "runs"), synth=str(made.folder))
    page = usk.report(root / "page.html", config, real=real).file
    better, worse = "wrong before, right now", "right before, wrong now"
    return page, {
        (tested[0][0], better, names[before[0]]), *((tested[i][0], worse, names[now[i]]) for i in (1, 2))
    }  # fmt: skip
