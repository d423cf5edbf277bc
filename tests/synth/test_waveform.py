"""The control: sums of the parents' waveforms, made, stored and trained on as interpolated clips are."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

from usk.data.decode import decode_source
from usk.data.sources import open_source
from usk.synth.maker import rms_db
from usk.synth.plan import draw_plan
from usk.synth.settings import render_config
from usk.synth.waveform import WaveformSums

Command = Callable[..., Any]


def test_a_sum_is_its_parents_at_one_level_by_their_weights(urbansound8k_folder: Path) -> None:
    decoded = decode_source(open_source(urbansound8k_folder))
    plan = draw_plan(decoded.source.clips, decoded.source.class_names, 3, alpha="0.25")
    maker = WaveformSums(plan, decoded, render_config(strategy="waveform"))
    row_of = {clip.clip_id: row for row, clip in enumerate(decoded.source.clips)}
    for clip, made in zip(plan.clips, maker.audio(plan.clips), strict=True):
        first, second = (decoded.audio(row_of[parent]) for parent in clip.parents)
        assert len(made) == (len(first) + len(second)) // 2
        own = [np.resize(part, len(made)) / 10 ** (rms_db(part) / 20) for part in (first, second)]
        np.testing.assert_allclose(made, 0.75 * own[0] + 0.25 * own[1], atol=1e-4)


@pytest.mark.parametrize("alpha", ["0", "1"])
def test_a_weight_of_0_or_1_gives_a_parent_back(
    usk: Command, urbansound8k_folder: Path, tmp_path: Path, alpha: str
) -> None:
    ran = usk(
        "synth", "--real", urbansound8k_folder, "--strategy", "waveform", "--alpha", alpha, "--per-class", 2, "--out",
        tmp_path / "sums", "--json",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    assert ran.value["settings"] == {"strategy": "waveform", "n_parents": 2}
    decoded = decode_source(open_source(urbansound8k_folder))
    row_of = {clip.clip_id: row for row, clip in enumerate(decoded.source.clips)}
    rows = [row for path in (tmp_path / "sums").glob("data/*") for row in pq.read_table(path).to_pylist()]
    assert len(rows) == 6
    for row in rows:
        samples = soundfile.read(io.BytesIO(row["audio"]["bytes"]), dtype="float32")[0]
        parent = decoded.audio(row_of[row["parents"][int(alpha)]])
        assert np.corrcoef(samples, np.resize(parent, len(samples)))[0, 1] > 0.999
        assert (row["model"], row["steps"], row["strategy"]) == ("none", 0, "waveform")


def test_the_control_takes_the_same_pairs_and_loads_no_generator(
    usk: Command, urbansound8k_folder: Path, tiny_pipeline: Callable[..., Path], tmp_path: Path
) -> None:
    common = ("--real", urbansound8k_folder, "--per-class", 3, "--quiet")
    assert (
        usk("synth", *common, "--out", tmp_path / "synth", "--steps", 1, "--model", tiny_pipeline()).code == 0
    )
    sums = usk(
        "synth",
        *common,
        "--out",
        tmp_path / "sums",
        "--strategy",
        "waveform",
        "--model",
        tmp_path / "nothing",
    )
    assert sums.code == 0, sums.err

    def pairs(folder: str) -> list[list[str]]:
        lines = (tmp_path / folder / "plan.jsonl").read_text().splitlines()
        return [json.loads(line)["parents"] for line in lines]

    assert pairs("synth") == pairs("sums")
    manifest = json.loads((tmp_path / "sums" / "usk.json").read_text())
    assert (manifest["model"], manifest["trained_on"], manifest["mel"]) == ("none", [], None)
    card = (tmp_path / "sums" / "README.md").read_text()
    assert "No generator was used: this is the control." in card and "mel bands" not in card


def test_it_is_compared_beside_interpolated_clips(
    usk: Command, urbansound8k_folder: Path, tiny_pipeline: Callable[..., Path], tmp_path: Path
) -> None:
    for name, more in (
        ("synth", ("--model", tiny_pipeline(), "--steps", 1)),
        ("sums", ("--strategy", "waveform")),
    ):
        ran = usk("synth", "--real", urbansound8k_folder, "--per-class", 3, "--out", tmp_path / name, *more)
        assert ran.code == 0, ran.err
    trained = usk(
        "train", "--real", urbansound8k_folder, "--mix", "real", "--mix", f"real,{tmp_path / 'synth'}",
        "--mix", f"real,{tmp_path / 'sums'}", "--epochs", 1, "--folds", 3, "--out", tmp_path / "runs", "--json",
    )  # fmt: skip
    assert trained.code == 0, trained.err
    assert [run["n_synthetic"] for run in trained.value["runs"]][1:] == [6, 6], "fold 3's three are dropped"
    rows = usk("eval", tmp_path / "runs", "--json").value[0]["rows"]
    assert len(rows) == 3
