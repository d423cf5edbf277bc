"""What text-to-audio models take, computed from their configurations: against what a training step keeps, and the page's table."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.diffusion.published import PUBLISHED, save_published
from tests.diffusion.text_models import MODELS, save_model
from usk.diffusion.adapter import Adapter
from usk.diffusion.load import load_generator
from usk.diffusion.lora import add_adapter, attention_layers
from usk.diffusion.lora_memory import TEXTS, lora_bytes, memory_of, saved_bytes
from usk.diffusion.pipeline import describe_folder
from usk.diffusion.text_memory import meta_networks
from usk.diffusion.text_pipeline import TextGenerator

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "text-to-audio.md"


@pytest.mark.parametrize("name", MODELS)
def test_the_memory_of_a_training_step_is_what_autograd_keeps(name: str, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder = save_model(name, tmp_path)
        generator = load_generator(str(folder), "cpu", "fp32")
    assert isinstance(generator, TextGenerator)
    info = describe_folder(folder)
    networks = meta_networks(folder, info.family)
    state, of_clip = lora_bytes(folder, info, networks, seconds=1.0, dtype=torch.float32)

    network: Any = generator.network
    own = {parameter.untyped_storage()._cdata for parameter in network.parameters()}
    added = add_adapter(network, Adapter("", "", 8, 8, attention_layers(network)))
    network.train()
    assert state == 6 * 4 * sum(parameter.numel() for parameter in added.values())
    shape = generator.latent_shape(generator.crop(info.sample_rate_hz))
    texts = {key: torch.zeros(1, *size) for key, size in TEXTS[info.family](network.config).items()}
    texts |= {key: torch.ones_like(text, dtype=torch.bool) for key, text in texts.items() if key == "mask"}
    kept = saved_bytes(lambda: generator.output(torch.randn(1, *shape), torch.ones(1), texts), own)
    assert of_clip == pytest.approx(kept, rel=0.1)


@pytest.mark.slow
def test_the_page_says_what_usk_info_computes_from_the_published_configurations(tmp_path: Path) -> None:
    lines = [
        line.strip("|").split("|") for line in PAGE.read_text(encoding="utf-8").splitlines() if "|" in line
    ]
    said = {cells[0].strip(): [cell.strip() for cell in cells[1:]] for cells in lines}
    for name in PUBLISHED:
        found = memory_of(str(save_published(name, tmp_path / name)))
        numbers = [f"{value:.1f}" for value in found.values() if isinstance(value, float)]
        assert [re.sub(r" GB$", "", cell) for cell in said[name][-6:]] == numbers, name
