"""The benchmark of rendering: its recipe is what the preset `published` repeats, and it runs from end to end."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.bench import render, render_gpu
from tests.bench.recipe import Recipe
from usk.audio.vocoder import log_mel_error_db
from usk.data.decode import decode_source
from usk.data.open import open_source
from usk.diffusion.load import load_generator
from usk.synth.prepare import plan_for
from usk.synth.render import DiffusionRenderer
from usk.synth.settings import SynthConfig, render_config

Factory = Callable[..., Path]


def test_the_published_preset_makes_what_audiodiffusion_makes(
    tiny_pipeline: Factory, urbansound8k_folder: Path, tmp_path: Path
) -> None:
    """Within the 8 bits of audiodiffusion's images, and what they grow to on the way up and down."""
    folder = tiny_pipeline(prediction_type="v_prediction", class_names=("siren", "dog_bark", "car_horn"))
    generator = load_generator(str(folder), "cpu", precision="fp32")
    config = SynthConfig(per_class=1, render=render_config("published"))
    decoded, plan = plan_for(
        decode_source(open_source(urbansound8k_folder), generator.sample_rate_hz), config
    )
    recipe = Recipe.load(folder, torch.device("cpu"))
    row_of = {clip.identity: row for row, clip in enumerate(decoded.source.clips)}
    theirs = [
        recipe.clip(*(decoded.audio(row_of[parent]) for parent in clip.parents))[1] for clip in plan.clips
    ]
    assert recipe.evaluations == 150 * len(plan)
    ours = generator.to_image(
        DiffusionRenderer(plan, decoded, generator, config.render, tmp_path).sample_latents(plan.clips)
    )
    image = torch.from_numpy(np.stack(theirs))[:, None]
    assert log_mel_error_db(ours, image, generator.mel).mean() < 0.5
    assert log_mel_error_db(ours, image.roll(1, dims=0), generator.mel).mean() > 2


@pytest.mark.slow
def test_the_benchmark_runs_and_says_what_was_given_up(
    tiny_pipeline: Factory, urbansound8k_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = tmp_path / "result.json"
    arguments = [
        "render", "--real", urbansound8k_folder, "--folds", "1,2", "--held-out", 3, "--model",
        tiny_pipeline(prediction_type="v_prediction"),
        "--per-class", 2, "--recipe-clips", 6, "--presets", "standard,published", "--json", saved,
    ]  # fmt: skip
    monkeypatch.setattr(sys, "argv", [str(argument) for argument in arguments])
    render.main()
    result = json.loads(saved.read_text())
    recipe, standard, published = result["rows"]
    assert recipe["evaluations_per_clip"] == 150
    assert standard["evaluations_per_clip"] < published["evaluations_per_clip"] <= 150
    assert result["published_differs_from_recipe_db"]["fp32"] < 0.5
    for row in result["rows"]:
        assert row["clips_per_s"] > 0 and row["round_trip_db"] >= 0
        assert row["distance"]["kad"] is not None and row["distance"]["n"] == 6


@pytest.mark.slow
def test_a_gpu_is_measured_in_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a small network on a CPU, and no compiler."""
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda network: compile_(network, backend="eager"))
    monkeypatch.setattr(render_gpu, "REPEATS", 1)
    saved = tmp_path / "result.json"
    arguments = [
        "render_gpu",
        "--small",
        "--device",
        "cpu",
        "--batches",
        "2",
        "--recipe-clips",
        "1",
        "--json",
        str(saved),
    ]
    monkeypatch.setattr(sys, "argv", arguments)
    render_gpu.main()
    result = json.loads(saved.read_text())
    assert [row["what"] for row in result["evaluations"]] == [
        "fp32", "bf16 by autocast", "bf16 weights, NCHW", "bf16 weights", "bf16 weights, compiled"
    ]  # fmt: skip
    for row in result["evaluations"]:
        assert row["ms_a_clip"] > 0 and row["share_of_bf16_rate"] > 0 and row["error"] < 0.1
    assert result["profile"] and result["device"] and result["usk"]["clips"] == 10
    assert result["usk"]["times_the_recipe"] > 0
