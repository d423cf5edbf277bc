"""Clips without a generator, made, stored and trained on as interpolated ones are: sums of the parents' waveforms, and one
parent's at another speed and pitch."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from tests.manifests import rows_in
from usk.data.decode import decode_source
from usk.data.open import open_source
from usk.synth.clip_renderer import rms_db
from usk.synth.plan import draw_plan
from usk.synth.settings import render_config
from usk.synth.strategies import STRATEGIES
from usk.synth.waveform import (
    MAX_SEMITONES,
    MAX_SPEED,
    NOISE_BELOW_DB,
    WAVEFORM_RENDERERS,
    ClassicalClips,
    WaveformSums,
    change_speed_and_pitch,
)

Command = Callable[..., Any]


def test_a_sum_is_its_parents_at_one_level_by_their_weights(urbansound8k_folder: Path) -> None:
    decoded = decode_source(open_source(urbansound8k_folder))
    plan = draw_plan(
        decoded.source.clips, decoded.source.class_names, 3, alpha="0.25", strategies=["waveform"]
    )
    renderer = WaveformSums(plan, decoded, render_config(strategy="waveform"))
    row_of = {clip.identity: row for row, clip in enumerate(decoded.source.clips)}
    for clip, made in zip(plan.clips, renderer.audio(plan.clips), strict=True):
        first, second = (decoded.audio(row_of[parent]) for parent in clip.parents)
        assert len(made) == (len(first) + len(second)) // 2
        own = [np.resize(part, len(made)) / 10 ** (rms_db(part) / 20) for part in (first, second)]
        np.testing.assert_allclose(made, 0.75 * own[0] + 0.25 * own[1], atol=1e-4)


@pytest.mark.parametrize("alpha", ["0", "1"])
def test_a_weight_of_0_or_1_gives_a_parent_back(
    usk: Command, urbansound8k_folder: Path, tmp_path: Path, alpha: str
) -> None:
    made = usk(
        f"synth --real {urbansound8k_folder} --strategy waveform --alpha {alpha} --per-class 2 --out {tmp_path}/sums --json"
    ).done()
    assert made.value["settings"] == {"waveform": {}}
    decoded = decode_source(open_source(urbansound8k_folder))
    row_of = {clip.identity: row for row, clip in enumerate(decoded.source.clips)}
    rows = rows_in(tmp_path / "sums")
    assert len(rows) == 6
    for row in rows:
        samples = soundfile.read(io.BytesIO(row["audio"]["bytes"]), dtype="float32")[0]
        parent = decoded.audio(row_of[row["parents"][int(alpha)]])
        assert np.corrcoef(samples, np.resize(parent, len(samples)))[0, 1] > 0.999
        assert (row["model"], row["steps"], row["strategy"]) == ("none", 0, "waveform")


def test_the_control_takes_the_same_pairs_and_loads_no_generator(
    usk: Command, urbansound8k_folder: Path, tiny_pipeline: Callable[..., Path], tmp_path: Path
) -> None:
    common = f"synth --real {urbansound8k_folder} --per-class 3 --quiet"
    usk(f"{common} --out {tmp_path}/synth --steps 1 --model {tiny_pipeline()}").done()
    usk(f"{common} --out {tmp_path}/sums --strategy waveform --model {tmp_path}/nothing").done()

    def pairs(folder: str) -> list[list[str]]:
        lines = (tmp_path / folder / "plan.jsonl").read_text().splitlines()
        return [json.loads(line)["parents"] for line in lines]

    assert pairs("synth") == pairs("sums")
    manifest = json.loads((tmp_path / "sums" / "usk.json").read_text())
    assert (manifest["model"], manifest["trained_on"], manifest["mel"]) == ("none", [], None)
    card = (tmp_path / "sums" / "README.md").read_text()
    assert "No generator was used: this is the control." in card and "mel bands" not in card


@pytest.mark.parametrize(("speed", "semitones"), [(1.0, 0.0), (1.25, 0.0), (0.8, 3.5), (1.1, -12.0)])
def test_speed_and_pitch_are_changed_apart(speed: float, semitones: float) -> None:
    seconds = np.arange(2 * 22_050) / 22_050
    tone = np.sin(2 * np.pi * 880 * seconds).astype(np.float32)
    made = change_speed_and_pitch(tone, 22_050, speed, semitones)
    assert made.dtype == np.float32
    assert len(tone) / len(made) == pytest.approx(speed, rel=1e-3)
    spectrum = np.abs(np.fft.rfft(made * np.hanning(len(made))))
    assert spectrum.argmax() * 22_050 / len(made) == pytest.approx(880 * 2 ** (semitones / 12), rel=3e-3)


def test_clips_shorter_than_a_window_have_speed_and_pitch_too() -> None:
    made = change_speed_and_pitch(np.sin(np.arange(300, dtype=np.float32)), 22_050, 1.25, 2.0)
    assert len(made) == 240 and np.isfinite(made).all() and np.abs(made).max() > 0.1


def test_a_classical_clip_depends_on_its_own_seed_alone(urbansound8k_folder: Path) -> None:
    decoded = decode_source(open_source(urbansound8k_folder))
    plan = draw_plan(decoded.source.clips, decoded.source.class_names, 3, strategies=["classical"])
    renderer = ClassicalClips(plan, decoded, render_config(strategy="classical"))
    together = renderer.audio(plan.clips)
    for clip, made in zip(reversed(plan.clips), reversed(together), strict=True):
        np.testing.assert_array_equal(renderer.audio([clip])[0], made)
        parent = decoded.audio(renderer.row_of[clip.parents[0]])
        assert 0.79 * len(parent) < len(made) <= len(parent)
        assert np.corrcoef(made, parent[: len(made)])[0, 1] < 0.9, "it is another sound"
    (other,) = renderer.audio([replace(plan.clips[0], seed=plan.clips[0].seed + 1)])
    shared = min(len(other), len(together[0]))
    assert np.corrcoef(other[:shared], together[0][:shared])[0, 1] < 0.9, "another seed, another sound"


def test_every_strategy_without_a_generator_has_its_maker() -> None:
    assert set(WAVEFORM_RENDERERS) == {name for name, strategy in STRATEGIES.items() if strategy.mix is None}


def test_classical_clips_are_a_dataset_of_one_parent_each(
    usk: Command, urbansound8k_folder: Path, tmp_path: Path
) -> None:
    words = ("synth --strategy classical --per-class 2 --json --real", urbansound8k_folder, "--out")
    made = [usk(*words, tmp_path / name) for name in ("one", "two")]
    assert [ran.code for ran in made] == [0, 0], made[0].err
    assert made[0].value["settings"] == {"classical": {}}
    one, two = (sorted((tmp_path / name).glob("data/*")) for name in ("one", "two"))
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two]
    decoded = decode_source(open_source(urbansound8k_folder))
    row_of = {clip.identity: row for row, clip in enumerate(decoded.source.clips)}
    rows = rows_in(tmp_path / "one")
    assert len(rows) == 6
    for row in rows:
        (parent,) = row["parents"]
        real = decoded.source.clips[row_of[parent]]
        assert (row["label"], row["fold"], row["parent_groups"]) == (real.label, real.fold, [real.group])
        assert (row["model"], row["steps"], row["strategy"], row["alpha"]) == ("none", 0, "classical", 0.0)
        samples = soundfile.read(io.BytesIO(row["audio"]["bytes"]), dtype="float32")[0]
        level_db = rms_db(decoded.audio(row_of[parent]))
        assert rms_db(samples) == pytest.approx(level_db, abs=0.1) or np.abs(samples).max() > 0.98
    card = (tmp_path / "one" / "README.md").read_text()
    assert "each made from one real clip without a generator" in card
    assert "this is classical augmentation" in card and "summed" not in card
    noise = "{:g} to {:g} dB".format(*NOISE_BELOW_DB)
    for said in (f"{MAX_SPEED} times as fast", f"{MAX_SEMITONES} semitones", noise):
        assert said in " ".join(card.split())


def test_synthetic_clips_are_no_parents(usk: Command, urbansound8k_folder: Path, tmp_path: Path) -> None:
    made, again = tmp_path / "sums", tmp_path / "again"
    synth = "synth --strategy waveform --per-class 2 --quiet --real"
    usk(f"{synth} {urbansound8k_folder} --out {made}").done()
    said = "Name the real clips that they were made from"
    usk(f"{synth} {made} --out {again}").refused(2, "holds synthetic clips", said)
    assert not again.exists()
