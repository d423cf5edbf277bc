"""Controls that use a generator's mel settings alone name no generator, so no rule holds its training against them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from usk.data.leaks import unknown_generator
from usk.data.open import open_source

Command = Callable[..., Any]


@pytest.mark.parametrize("strategy", ["average", "resynthesis"])
@pytest.mark.parametrize(("vae", "named"), [(0, False), (1, True)])
def test_what_no_trained_weights_made_names_none(
    usk: Command, urbansound8k_folder: Path, tiny_pipeline: Callable[..., Path], tmp_path: Path,
    strategy: str, vae: int, named: bool,
) -> None:  # fmt: skip
    synth = f"synth --real {urbansound8k_folder} --model {tiny_pipeline(vae=vae)} --strategy {strategy}"
    ran = usk(f"{synth} --per-class 1 --json --out {tmp_path}/synth").done()
    manifest = json.loads((tmp_path / "synth" / "usk.json").read_text())
    made = open_source(str(tmp_path / "synth"))
    names = {manifest["model"], ran.value["model"], *(clip.model for clip in made.clips)}
    assert (names == {"none"}) is not named
    assert (unknown_generator(made) is not None) is named, "a network's VAE was trained on something"
    assert manifest["mel"]["n_mels"], "the mel settings are on record"
