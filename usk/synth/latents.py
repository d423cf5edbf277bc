"""Parents' latents that outlive their dataset: the next one of the same parents, at other alphas say, begins with them.

They lie in `$USK_CACHE/latents/KEY`, at most `KEPT_BYTES` of them, the longest unused dropped first. A key says everything
that latents depend on, so none is ever wrong; one that is damaged or gone is encoded again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from usk.data.cache import cache_root
from usk.data.decode import DecodedSource
from usk.data.prompts import text_of_parents
from usk.diffusion.generator import Generator
from usk.synth.settings import RenderConfig
from usk.synth.strategies import strategy_named

KEPT_BYTES = 8 * 2**30
FILES = "latents-*.npy"


def latents_key(
    rows_of_crop: Mapping[int, list[int]],
    decoded: DecodedSource,
    generator: Generator,
    config: RenderConfig,
    batch: int,
    prompts: Mapping[str, Sequence[str]],
) -> str:
    """What the latents of these parents (rows of `decoded` by the length of their crop) are known by."""
    source = decoded.source
    decisive = {
        "model": generator.model_id,
        "precision": generator.precision,
        "device": str(generator.device),
        "sampler": asdict(config.sampler),
        "scales": list(generator.scales(config.sampler)),
        "inverts": strategy_named(config.strategy).inverts,
        "condition_on_class": config.condition_on_class,
        "repeat_short": config.repeat_short,
        "begin": "with sound",  # parents longer than the image
        "source": [source.cache_key, decoded.sample_rate_hz],
        "batch": batch,
        "parents": {
            crop: [
                [source.clips[row].identity, text_of_parents(prompts, decoded.class_name(row))]
                for row in rows
            ]
            for crop, rows in rows_of_crop.items()
        },
    }
    return hashlib.sha256(json.dumps(decisive).encode()).hexdigest()[:24]


def reuse(work: Path, key: str) -> None:
    """Put kept latents into `work`, where the renderer looks for them."""
    kept = cache_root() / "latents" / key
    for file in kept.glob(FILES):
        if not (work / file.name).exists():
            _link(file, work / file.name)
    with contextlib.suppress(OSError):
        os.utime(kept)


def keep(work: Path, key: str) -> None:
    """Keep the latents in `work` for later; what cannot be kept is not missed."""
    folder = cache_root() / "latents"
    kept = folder / key
    with contextlib.suppress(OSError):
        kept.mkdir(parents=True, exist_ok=True)
        for file in work.glob(FILES):
            if not (kept / file.name).exists():
                _link(file, kept / file.name)
        os.utime(kept)
        oldest_first = sorted(
            (each for each in folder.iterdir() if each.is_dir()), key=lambda d: d.stat().st_mtime
        )
        sizes = {each: sum(file.stat().st_size for file in each.iterdir()) for each in oldest_first}
        while oldest_first and sum(sizes.values()) > KEPT_BYTES:
            oldest = oldest_first.pop(0)
            del sizes[oldest]
            shutil.rmtree(oldest, ignore_errors=True)


def _link(file: Path, place: Path) -> None:
    """The file at another place, without a second copy where the disk allows it; whole or not at all."""
    partial = place.with_name(f".{place.name}.{os.getpid()}")
    with contextlib.suppress(OSError):
        try:
            os.link(file, partial)
        except OSError:
            shutil.copyfile(file, partial)
        partial.replace(place)
    partial.unlink(missing_ok=True)
