"""The picture beside a fitted generator."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.diffusion.test_fit import MEL
from usk.diffusion.fit import FitConfig, new_networks
from usk.diffusion.preview import FROM_NOISE, SAMPLER, write_preview


@pytest.mark.parametrize("class_names", [("a", "b"), ()])
def test_columns_are_pairs_of_a_class_and_rows_are_conditioned_on_it(
    tmp_path: Path, class_names: tuple[str, ...]
) -> None:
    labels: list[list[int]] = []

    class Recorder(torch.nn.Module):
        def forward(self, noisy: torch.Tensor, timestep: int, return_dict: bool, **conditions: Any) -> Any:
            labels.extend(given.tolist() for given in conditions.values())
            return (torch.zeros_like(noisy),)

    config = FitConfig(channels=(8, 8), batch=2, steps=1).resolved()
    cpu = torch.device("cpu")
    generator = new_networks(config, MEL, class_names, cpu).generator(cpu, "fp32")
    generator.unet = Recorder()
    names = ["a", "a", "b", "a", "b", "b", "b"] if class_names else [""] * 7
    images = np.linspace(-1, 1, 7, dtype=np.float32)[:, None, None] * np.ones((16, 32), np.float32)
    (tmp_path / "p.png").symlink_to(tmp_path / "another")
    write_preview(generator, images, names, tmp_path / "p.png", 0)
    assert not (tmp_path / "another").exists(), "what stands there is replaced, not written through"
    with Image.open(tmp_path / "p.png") as picture:
        assert picture.size == (2 * 3 * 32, 2 * (5 if class_names else 4) * 16)
        shades = np.asarray(picture)[16::32, 32::64]  # the middle of each image
    if not class_names:
        return
    class_of = {round((image.mean() + 1) * 127.5): name for image, name in zip(images, names, strict=True)}
    pairs = [(class_of[first], class_of[second]) for first, second in zip(shades[0], shades[3], strict=True)]
    assert Counter(pairs).most_common()[0][0] in {("a", "a"), ("b", "b")}
    first, second = ([class_names.index(pair[parent]) for pair in pairs] for parent in (0, 1))
    mixed = [a if a == b else len(class_names) for a, b in zip(first, second, strict=True)]
    inverting = SAMPLER.evaluations()[0]
    assert labels[:inverting] == [first + second] * inverting
    assert labels[inverting : inverting + SAMPLER.steps] == [first + mixed] * SAMPLER.steps
    assert labels[inverting + SAMPLER.steps :] == [first] * FROM_NOISE.steps
