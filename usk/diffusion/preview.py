"""The picture `preview.png` beside a fitted generator: real clips, their round trips and mixes, and clips drawn from a class."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from usk.diffusion.generator import Condition
from usk.diffusion.interpolate import decomposed
from usk.diffusion.mel_pipeline import MelGenerator
from usk.diffusion.sampler import SamplerConfig
from usk.files import atomic_write

MAX_PAIRS = 4
SAMPLER = SamplerConfig(steps=6, strength=0.5)  # the default of `usk synth`
FROM_NOISE = SamplerConfig(steps=12)


def write_preview(
    generator: MelGenerator, images: np.ndarray, class_names: Sequence[str], path: Path, seed: int
) -> None:
    """Write a PNG with up to four pairs of mel images [n, n_mels, n_frames] as columns.

    Its rows are the first parent, its round trip, the mix at alpha 0.5, the second parent, and for a class-conditional generator a
    clip drawn from the first parent's class alone. Two parents have the same class where the clips allow it. Guidance is not used.
    """
    from PIL import Image

    order = _in_pairs(class_names, np.random.default_rng(seed))
    n_pairs = min(MAX_PAIRS, len(order) // 2)
    if n_pairs < 1:
        return
    rows = [*order[0 : 2 * n_pairs : 2], *order[1 : 2 * n_pairs : 2]]  # the first parents, then the second
    names = [class_names[row] for row in rows]
    mix_names = [a if a == b else "" for a, b in zip(names[:n_pairs], names[n_pairs:], strict=True)]
    parents = torch.from_numpy(images[rows].astype(np.float32))[:, None].to(generator.device)
    clean = generator.to_latent(parents)
    noisy = generator.invert(clean, SAMPLER, Condition(names))
    (first, second), (clean_first, clean_second) = noisy.chunk(2), clean.chunk(2)
    half = torch.full((n_pairs,), 0.5)
    mixed = decomposed(first, second, half, clean_first, clean_second, generator.scales(SAMPLER))
    sampled = generator.sample(torch.cat((first, mixed)), SAMPLER, Condition(names[:n_pairs] + mix_names))
    shown = [clean_first, *sampled.chunk(2), clean_second]
    if generator.class_names:
        noise = torch.randn(first.shape, generator=torch.Generator().manual_seed(seed)).to(generator.device)
        shown.append(generator.sample(noise, FROM_NOISE, Condition(names[:n_pairs])))
    lines = [
        torch.cat([image[0].flip(0) for image in generator.to_image(latents)], dim=1) for latents in shown
    ]
    grid = torch.cat(lines)
    pixels = ((grid.cpu().numpy() + 1) * 127.5).round().astype(np.uint8)
    picture = io.BytesIO()
    Image.fromarray(pixels).resize((pixels.shape[1] * 2, pixels.shape[0] * 2)).save(picture, "png")
    atomic_write(path, picture.getvalue())


def _in_pairs(class_names: Sequence[str], rng: np.random.Generator) -> list[int]:
    """Return the indices of all names in random order: first pairs of the same name, then the others."""
    pairs: list[int] = []
    unpaired: dict[str, int] = {}
    for index in rng.permutation(len(class_names)).tolist():
        if (partner := unpaired.pop(class_names[index], None)) is None:
            unpaired[class_names[index]] = index
        else:
            pairs += [partner, index]
    return [*pairs, *unpaired.values()]
